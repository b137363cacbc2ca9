"""Programs that do not know us: imageio through Pillow, numcodecs and Zarr, file(1)."""

import shutil
import subprocess
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
    from codec.numcodecs_plugin import Lic

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


def test_a_codec_says_how_it_codes(lic, photo):
    coder = lic(lossless=False, quality=90, effort=1)
    assert coder.get_config() == {"id": "lic", "lossless": False, "quality": 90.0, "effort": 1}
    assert psnr(coder.decode(coder.encode(np.asarray(photo))), np.asarray(photo)) > 17
    with pytest.raises(codec.ImageError):
        coder.encode(np.zeros((2, 3, 4, 5), np.uint8))


def test_zarr_stores_pictures(lic, photo):
    zarr = pytest.importorskip("zarr")
    from numcodecs.registry import register_codec

    register_codec(lic)
    pictures = np.stack([np.asarray(photo), np.asarray(photo)[::-1]])
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(
        store, shape=pictures.shape, chunks=(1, *pictures.shape[1:]), dtype="u1", zarr_format=2, filters=None, compressors=lic()
    )
    array[:] = pictures
    again = zarr.open_array(store, mode="r")
    assert np.array_equal(again[:], pictures) and again.compressors[0].codec_id == "lic"


def test_file_knows_the_format(photo, tmp_path):
    if not shutil.which("file"):
        pytest.skip("the program file is not installed")
    (tmp_path / "a").write_bytes(codec.compress(photo))
    done = subprocess.run(
        ["file", "--brief", "--mime-type", "-m", DOCS / "lic.magic", tmp_path / "a"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == codec.pillow_plugin.MIME
