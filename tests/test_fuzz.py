"""What campaigns of benchmarks/fuzz.py found stays fixed, and some new hostile files are tried at each run."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import codec

pytestmark = [
    pytest.mark.usefixtures("tiny_model"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]

HERE = Path(__file__).parent
FINDINGS = sorted((HERE / "data" / "fuzz").glob("*.lic"))


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", HERE.parent / "benchmarks" / "fuzz.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.stem)
def test_what_was_found_is_an_error_now(fuzz, path):
    data = path.read_bytes()
    with pytest.raises(codec.CodecError):
        codec.decompress(data)
    assert fuzz.replay(data) <= {
        "picture", "FormatError", "TruncatedError", "LimitError", "RegionError", "UnidentifiedImageError", "DecompressionBombError",
    }  # fmt: skip


def test_hostile_files_are_pictures_or_errors(fuzz, tiny_model):
    attacks = fuzz.hostile(np.random.default_rng(7))
    outcomes = {(what, attack()) for what, _, attack in (next(attacks) for _ in range(600))}
    assert {"picture", "FormatError", "TruncatedError", "UnsupportedError"} <= {outcome for _, outcome in outcomes}
    inner = {what for what, outcome in outcomes if outcome == "picture" and what.startswith("forged ")}
    assert {f"forged {what}" for what in ("latents", "alpha", "pixels", "planes", "palette", "exif", "cicp", "resolution")} <= inner


def flat(side: int) -> bytes:
    """A picture of few bytes and many pixels."""
    pixels = np.full((side, side, 3), 7, np.uint8)
    return codec.compress(pixels, lossless=True)


@pytest.mark.parametrize(
    ("changes", "make", "outcome"),
    [
        ({}, codec.compress, "(96, 64)"),
        ({}, lambda photo: codec.compress(photo)[:99], "codec.errors.TruncatedError"),
        ({"25_000_000": "90_000"}, lambda photo: flat(301), "codec.errors.LimitError"),
        ({"3 * 2**30": "200 * 2**20"}, lambda photo: flat(5000), "MemoryError"),
        ({"60, 25": "0, 25"}, codec.compress, "BrokenProcessPool"),  # loading torch takes longer than that
    ],
    ids=["a picture", "damaged", "too large", "too little memory", "too little time"],
)
def test_the_recipe_for_services(photo, tmp_path, changes, make, outcome):
    """The code of docs/SECURITY.md as it stands; with other limits where the file would have to be large or slow."""
    code = (HERE.parent / "docs" / "SECURITY.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    (tmp_path / "service.py").write_text(code, "utf-8")
    (tmp_path / "photo.lic").write_bytes(make(photo))
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run([sys.executable, "service.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    last = (done.stdout + done.stderr).strip().splitlines()[-1]
    assert outcome in last and (done.returncode == 0) == (outcome == "(96, 64)"), done.stderr
