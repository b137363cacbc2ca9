"""What a campaign of benchmarks/fuzz.py found stays fixed, and a few new hostile files at each run."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import codec

pytestmark = pytest.mark.usefixtures("tiny_model")

HERE = Path(__file__).parent
FINDINGS = sorted((HERE / "data" / "fuzz").glob("*.lic"))


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", HERE.parent / "benchmarks" / "fuzz.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.stem)
def test_what_was_found_is_an_error_now(path):
    with pytest.raises(codec.CodecError):
        codec.decompress(path.read_bytes())


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_hostile_files_are_pictures_or_errors(fuzz, tiny_model):
    rng = np.random.default_rng(7)
    files = fuzz.seeds()
    outcomes = {fuzz.execute(fuzz.mutant(files, rng)[1], rng) for _ in range(400)}
    assert {"picture", "FormatError", "TruncatedError", "UnsupportedError"} <= outcomes


def test_the_recipe_for_services(photo, tmp_path, monkeypatch):
    """The code of docs/SECURITY.md, with a picture that it decodes and one beyond its limit of pixels."""
    text = (HERE.parent / "docs" / "SECURITY.md").read_text("utf-8")
    code = text.split("```python\n")[1].split("```")[0].replace("PIXELS = 3 * 2**30, 60, 25_000_000", "PIXELS = 6 * 2**30, 60, 10_000")
    (tmp_path / "service.py").write_text(code + "        print(image.size)\n", "utf-8")
    for image, status in ((photo, 0), (photo.resize((200, 100)), 1)):
        (tmp_path / "photo.lic").write_bytes(codec.compress(image))
        environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
        done = subprocess.run([sys.executable, "service.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert ("(96, 64)" in done.stdout) if status == 0 else ("LimitError: 200×100" in done.stderr)
