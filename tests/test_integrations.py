"""Programs that do not know us: imageio through Pillow, numcodecs and Zarr, file(1)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import codec
import codec.pillow_plugin
from codec.metrics import psnr

pytestmark = pytest.mark.usefixtures("tiny_model")

DOCS = Path(__file__).parent.parent / "docs"


def test_imageio_reads_and_writes_the_format(photo, tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    pixels = np.asarray(photo)
    imageio.imwrite(tmp_path / "a.lic", pixels, plugin="pillow", extension=".lic", lossless=True)
    assert np.array_equal(imageio.imread(tmp_path / "a.lic", plugin="pillow"), pixels)


@pytest.fixture
def lic():
    pytest.importorskip("numcodecs")
    from numcodecs.registry import register_codec

    from codec.numcodecs_plugin import Lic

    register_codec(Lic)  # as its entry point does where the package is installed
    return Lic


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3), (1, 1, 30, 40, 4), (1, 30, 40, 1)])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_chunks_come_back(lic, shape, dtype, rng):
    chunk = rng.integers(0, 2 ** (8 * int(dtype[1])), shape).astype(dtype)
    coder = lic.from_config({"lossless": True})
    data = coder.encode(chunk)
    out = np.empty_like(chunk)
    coder.decode(data, out=out)
    assert np.array_equal(out, chunk) and np.array_equal(coder.decode(data).reshape(shape), chunk)


def test_a_masked_chunk_is_refused(lic):
    with pytest.raises(codec.ImageError, match="masked"):
        lic().encode(np.ma.masked_array(np.zeros((8, 8), np.uint8), np.eye(8)))


def test_a_codec_says_how_it_codes(lic, photo):
    coder = lic(lossless=False, quality=90, effort=1)
    assert coder.get_config() == {"id": "lic", "lossless": False, "quality": 90.0, "effort": 1}
    assert psnr(coder.decode(coder.encode(np.asarray(photo))), np.asarray(photo)) > 17
    with pytest.raises(codec.ImageError):
        coder.encode(np.zeros((2, 3, 4, 5), np.uint8))


def test_zarr_stores_pictures(lic, photo):
    zarr = pytest.importorskip("zarr")
    pictures = np.stack([np.asarray(photo), np.asarray(photo)[::-1]])
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(
        store, shape=pictures.shape, chunks=(1, *pictures.shape[1:]), dtype="u1", zarr_format=2, filters=None, compressors=lic()
    )
    array[:] = pictures
    again = zarr.open_array(store, mode="r")
    assert np.array_equal(again[:], pictures) and again.compressors[0].codec_id == "lic"


@pytest.mark.parametrize(("dtype", "order"), [(">u2", "C"), ("<u2", "F"), ("u1", "F")])
def test_zarr_is_told_what_would_come_back_scrambled(lic, dtype, order):
    """Zarr takes the decoded bytes for its own order of bytes and of samples: such arrays were stored, and lost."""
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        zarr.storage.MemoryStore(), shape=(20, 30, 3), chunks=(20, 30, 3), dtype=dtype, order=order,
        zarr_format=2, filters=None, compressors=lic(),
    )  # fmt: skip
    with pytest.raises(codec.ImageError, match="only native bytes in order C"):
        array[:] = np.arange(1800, dtype=dtype).reshape(20, 30, 3)


def test_file_knows_the_format(photo, tmp_path):
    if not shutil.which("file"):
        pytest.skip("the program file is not installed")
    (tmp_path / "a").write_bytes(codec.compress(photo))
    done = subprocess.run(
        ["file", "--brief", "--mime-type", "-m", DOCS / "lic.magic", tmp_path / "a"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == codec.pillow_plugin.MIME


def test_desktops_know_the_format(photo, tmp_path):
    if not shutil.which("update-mime-database") or not shutil.which("gio"):
        pytest.skip("no shared MIME database on this system")
    packages = tmp_path / "mime" / "packages"
    packages.mkdir(parents=True)
    shutil.copy(DOCS / "lic.xml", packages)
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path), "LC_ALL": "C"}
    subprocess.run(["update-mime-database", tmp_path / "mime"], env=environment, check=True)
    (tmp_path / "a").write_bytes(codec.compress(photo))  # by its content
    (tmp_path / "b.lic").write_text("text")  # by its name
    for name in ("a", "b.lic"):
        command = ["gio", "info", "--attributes", "standard::fast-content-type,standard::content-type", tmp_path / name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert f"content-type: {codec.pillow_plugin.MIME}" in done.stdout


def test_numcodecs_finds_the_codec_by_its_entry_point(lic, tmp_path):
    """As pip installs it: the line of pyproject.toml in the package's metadata."""
    root = DOCS.parent
    section = (root / "pyproject.toml").read_text("utf-8").split('[project.entry-points."numcodecs.codecs"]\n')[1].split("\n\n")[0]
    metadata = tmp_path / "lic_codec-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lic-codec\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("[numcodecs.codecs]\n" + section.replace('"', "") + "\n")
    code = "import numcodecs; print(numcodecs.get_codec({'id': 'lic', 'effort': 2}))"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == f"{lic(effort=2)}\n", done.stderr
