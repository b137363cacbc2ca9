"""What must be immediate does not import torch, which takes seconds."""

import subprocess
import sys
from pathlib import Path

from codec import cli, container
from codec.container import Header, Tag

SCRIPT = """
import sys

def check(what):
    heavy = {"torch", "constriction", "safetensors", "matplotlib"} & set(sys.modules)
    assert not heavy, f"{what} imports {sorted(heavy)}"

import codec
codec.compress, codec.decompress, codec.inspect, codec.CodecError
check("the package")
from codec.cli import main
for arguments in COMMANDS:
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code in (None, 0), end.code
    check(arguments)
"""


def check_light(*commands: list[str]) -> str:
    """Runs the commands in one fresh interpreter, where nothing heavy may be imported; returns its standard output."""
    script = SCRIPT.replace("COMMANDS", repr(commands))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_neither_importing_the_package_nor_help_imports_torch():
    commands = [["--help"], *([name, "--help"] for name in cli.COMMANDS)]
    assert check_light(*commands).count("usage: codec") == len(commands)


def test_inspect_does_not_import_torch(tmp_path):
    header = Header("lossy", b"\x01\x02\x03\x04", 8, 5, "RGB", 7550)
    path = tmp_path / "picture.lic"
    path.write_bytes(container.pack(header, {Tag.LATENTS: b"12345"}))
    assert "8×5 RGB, quality 75.5, model 01020304" in check_light(["inspect", str(path)])
