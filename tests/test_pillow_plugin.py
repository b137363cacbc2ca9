"""Our files in the hands of Pillow: open, load, save, and what goes wrong."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import codec
import codec.pillow_plugin  # registers the format
from codec.metrics import psnr

pytestmark = pytest.mark.usefixtures("tiny_model")


def saved(image: Image.Image, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, "LIC", **options)
    file.seek(0)
    return file


def test_pillow_saves_and_opens_what_the_library_does(photo, tmp_path):
    photo.save(tmp_path / "a.lic", quality=40)
    assert (tmp_path / "a.lic").read_bytes() == codec.compress(photo, 40)
    with Image.open(tmp_path / "a.lic") as image:
        assert (image.format, image.mode, image.size) == ("LIC", "RGB", photo.size)
        assert image.tobytes() == codec.decompress((tmp_path / "a.lic").read_bytes()).tobytes()


def test_the_header_is_read_at_open_and_the_pixels_at_load(photo):
    data = saved(photo, icc_profile=b"profile").getvalue()
    broken = bytearray(data)
    broken[200] ^= 1  # within the latents
    image = Image.open(io.BytesIO(broken))
    assert image.size == photo.size and image.info["icc_profile"] == b"profile"
    with pytest.raises(OSError):
        image.load()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_lossless_pictures_of_any_mode(photo, mode):
    photo = photo.crop((0, 0, 40, 30))
    source = photo.convert("L").convert(mode) if mode == "I;16" else photo.convert(mode)
    image = Image.open(saved(source, lossless=True))
    assert image.info["lossless"]
    assert (image.mode, image.tobytes()) == (mode, source.tobytes())
    assert mode != "P" or image.getpalette() == source.getpalette()


def test_exif_objects_are_kept(photo):
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    assert Image.open(saved(photo, exif=exif)).getexif()[0x010E] == "a picture"


def test_other_files_stay_what_they_are(photo):
    file = io.BytesIO()
    photo.save(file, "PNG")
    assert Image.open(file).format == "PNG"
    with pytest.raises(UnidentifiedImageError):
        codec.open(io.BytesIO(file.getvalue()))
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(saved(photo).getvalue()[:12]))


def test_the_pixel_limit_of_pillow_is_honoured(photo, monkeypatch):
    file = saved(photo)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(file)


@pytest.mark.parametrize("limit", [None, 10_000])
def test_a_limit_of_pillow_above_ours_is_the_one_that_counts(photo, monkeypatch, limit):
    photo = photo.crop((0, 0, 40, 30))
    file = saved(photo, lossless=True)
    monkeypatch.setattr("codec.picture.picture.MAX_PIXELS", 100)
    with pytest.raises(codec.LimitError):
        codec.decompress(file.getvalue())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with Image.open(file) as image:
        assert image.tobytes() == photo.tobytes()


def test_what_cannot_be_coded_is_an_error_of_pillow(photo):
    with pytest.raises(OSError, match="lossy"):
        saved(photo.convert("F"))
    with pytest.raises(ValueError, match="quality"):
        saved(photo, quality=200)


def test_open_is_lazy(photo, tmp_path):
    codec.open(io.BytesIO(codec.compress(photo)))
    (tmp_path / "a.lic").write_bytes(codec.compress(photo))
    code = f"import codec, sys; print(codec.open({str(tmp_path / 'a.lic')!r}).size, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(") ") == ["(96, 64", "False\n"]


def test_an_array_of_a_lazy_picture(photo):
    photo = photo.crop((0, 0, 40, 30))
    assert np.array(Image.open(saved(photo, lossless=True))).tobytes() == np.array(photo).tobytes()


@pytest.mark.parametrize(("side", "factor"), [(15, 16), (24, 8), (40, 1)])
def test_a_thumbnail_comes_from_a_preview_that_is_large_enough(photo, side, factor):
    large = photo.resize((735, 490))
    data = codec.compress(large, 90)
    thumbnail = Image.open(io.BytesIO(data))
    expected = Image.open(io.BytesIO(data))
    expected.load()  # what is decoded already is not decoded again, smaller
    assert (thumbnail.draft(None, (2 * side, 2 * side)) is None) == (factor == 1)
    assert thumbnail.size == (-(-735 // factor), -(-490 // factor))
    thumbnail = Image.open(io.BytesIO(data))
    for image in (thumbnail, expected):
        image.thumbnail((side, side))
    assert thumbnail.size == expected.size == (side, round(side * 490 / 735))
    assert psnr(np.asarray(thumbnail), np.asarray(expected)) > 30


def test_a_thumbnail_of_a_lossless_file(photo):
    photo = photo.crop((0, 0, 40, 30))
    image = Image.open(saved(photo, lossless=True))
    image.thumbnail((4, 4))
    photo.thumbnail((4, 4))
    assert image.tobytes() == photo.tobytes()
