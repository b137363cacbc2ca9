"""The code of docs/RECIPES.md does what it says, as it stands there."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import codec
from codec import cli

pytestmark = pytest.mark.usefixtures("tiny_model")

ROOT = Path(__file__).parent.parent
SECTIONS = (ROOT / "docs" / "RECIPES.md").read_text("utf-8").split("\n## ")[1:]
RECIPES = {section.partition("\n")[0]: section.split("```")[1] for section in SECTIONS if "```" in section}


@pytest.fixture
def folder(tmp_path, photo, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    photo.save("photo.png")
    Path("photo.lic").write_bytes(codec.compress(photo))
    return tmp_path


def run(code: str) -> str:
    """A recipe as a program of its own: what it prints."""
    Path("recipe.py").write_text(code, "utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "recipe.py"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_thumbnails_and_targets(folder):
    """Two recipes one after the other: torch takes seconds to start."""
    thumbnail = RECIPES["A thumbnail, a detail"].removeprefix("python")
    targets = RECIPES["As small as it must be, as good as it must be"].removeprefix("python").replace("24.0", "17.0").replace("=50.0", "=-99.0")
    *printed, last = run(f"exec({thumbnail!r}, {{}})\nexec({targets!r}, {{}})").splitlines()
    assert printed == ["(96, 64) RGB (12, 8) (40, 30)", "(4, 3)"]
    small, good = map(int, last.split())
    assert small <= 20_000 and 0 < good


def test_a_cluster(folder, photo):
    pytest.importorskip("dask.distributed")
    Path("photos").mkdir()
    for number in range(3):
        photo.rotate(90 * number, expand=True).save(f"photos/{number}.png")
    code = RECIPES["A bucket of pictures on a cluster"].removeprefix("python").replace("n_workers=2", "n_workers=1")
    printed = run(code)  # by a process of the cluster's own; a second takes as long to start again
    files = sorted(Path("photos").glob("*.lic"))
    assert printed == f"3 files, {sum(path.stat().st_size for path in files)} bytes\n" and len(files) == 3


MEMORY_STORE = """
import PIL.Image
for number in range(3):
    with fsspec.open(f"memory://photos/{number}.png", "wb") as file:
        PIL.Image.new("RGB", (8, 8 + number)).save(file, "PNG")
"""


def test_a_cluster_over_a_store_with_addresses(folder):
    """The same recipe on a store in memory, and so in one process: each address keeps its protocol."""
    pytest.importorskip("dask.distributed")
    code = RECIPES["A bucket of pictures on a cluster"].removeprefix("python")
    code = code.replace('"photos/*', '"memory://photos/*').replace("n_workers=2", "processes=False, n_workers=1")
    code = code.replace('\nif __name__', MEMORY_STORE + '\nif __name__') + '    print(fsspec.filesystem("memory").glob("photos/*.lic"))\n'
    printed = run(code).splitlines()
    assert printed[0].startswith("3 files, ") and printed[1] == "['/photos/0.lic', '/photos/1.lic', '/photos/2.lic']"


def test_a_model_of_ones_own(folder, photo, monkeypatch):
    Path("images").mkdir()
    for number in range(3):
        photo.rotate(90 * number, expand=True).resize((160, 160)).save(f"images/{number}.png")
    Path("models").mkdir()
    for line in RECIPES["A model of your own"].removeprefix("sh").strip().splitlines():
        words = shlex.split(line)
        settings = dict(word.split("=") for word in words if "=" in word and not word.startswith("-"))
        command = [word for word in words if "=" not in word]
        with monkeypatch.context() as environment:
            for name, value in settings.items():
                environment.setenv(name, value)
            assert cli.main(command[1:] if command[0] == "codec" else command) == 0
    info = codec.inspect(Path("photo.lic").read_bytes())
    assert Path("models/mine.safetensors").exists() and info.model != codec.inspect(codec.compress(photo)).model
