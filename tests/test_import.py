"""What must be immediate does not import torch, which takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

from codec import container
from codec.container import Header, Tag

PROBE = """
import sys
{statement}
heavy = {{"torch", "constriction", "safetensors", "matplotlib"}} & set(sys.modules)
sys.exit(f"imported: {{sorted(heavy)}}" if heavy else 0)
"""
RUN = """
from codec.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert end.code in (None, 0), end.code
"""


def check_light(statement: str) -> str:
    """Runs the statement in a fresh interpreter; returns its standard output."""
    command = [sys.executable, "-c", PROBE.format(statement=statement)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_importing_the_package_does_not_import_torch():
    check_light("import codec; codec.compress, codec.decompress, codec.inspect, codec.CodecError")


@pytest.mark.parametrize("command", [[], ["compress"], ["decompress"], ["inspect"], ["evaluate"], ["plot"], ["train"]])
def test_help_does_not_import_torch(command):
    assert "usage: codec" in check_light(RUN.format(arguments=[*command, "--help"]))


def test_inspect_does_not_import_torch(tmp_path):
    header = Header("lossy", b"\x01\x02\x03\x04", 8, 5, "RGB", 7550)
    path = tmp_path / "picture.lic"
    path.write_bytes(container.pack(header, {Tag.LATENTS: b"12345"}))
    assert "8×5 RGB, quality 75.5, model 01020304" in check_light(RUN.format(arguments=["inspect", str(path)]))
