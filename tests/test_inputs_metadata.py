"""What a picture file says beside its pixels comes back: orientation, dots per inch, EXIF."""

import pytest
from pictures import save
from PIL import Image

import codec
from codec.picture import reading

pytestmark = pytest.mark.usefixtures("tiny_model")


def test_a_rotated_photograph_keeps_its_pixels_and_its_orientation(photo, tmp_path, run):
    exif = Image.Exif()
    exif[0x0112] = 6
    source = save(photo, tmp_path / "rotated.jpg", exif=exif)
    assert run("compress", source, str(tmp_path / "a.lic"))[0] == 0
    image = codec.decompress((tmp_path / "a.lic").read_bytes())
    assert image.size == photo.size and image.getexif()[0x0112] == 6


def test_a_tiff_is_turned_by_pillow_and_says_so_no_more(photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = reading.read_image(save(photo, tmp_path / "rotated.tif", tiffinfo=exif))
    assert image.tobytes() == photo.transpose(Image.Transpose.ROTATE_270).tobytes()
    assert 0x0112 not in codec.decompress(codec.compress(image)).getexif()


@pytest.mark.parametrize("before, after", [("png", "png"), ("jpg", "png"), ("png", "jpg"), ("tif", "tif")])
def test_dots_per_inch_come_back(before, after, photo, tmp_path, run):
    source = save(photo, tmp_path / f"in.{before}", dpi=(300, 150))
    assert run("compress", source, str(tmp_path / "a.lic"))[0] == 0
    assert run("decompress", str(tmp_path / "a.lic"), str(tmp_path / f"out.{after}"))[0] == 0
    with Image.open(tmp_path / f"out.{after}") as image:
        assert [float(value) for value in image.info["dpi"]] == pytest.approx([300, 150], abs=0.05)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_dots_per_inch_come_back_beside_exif_without_them(suffix, photo, tmp_path, run):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    options = {"tiffinfo": exif} if suffix == "tif" else {"exif": exif}
    if suffix == "webp":  # has no place for them but EXIF
        exif[0x011A], exif[0x011B], exif[0x0128] = 72.0, 72.0, 3
    source = save(photo, tmp_path / f"in.{suffix}", dpi=(200, 200), **options)
    assert run("compress", source, str(tmp_path / "a.lic"))[0] == 0
    again = codec.decompress((tmp_path / "a.lic").read_bytes())
    assert again.info["dpi"] == pytest.approx((182.88,) * 2 if suffix == "webp" else (200, 200), abs=0.05)
    assert again.getexif()[0x010E] == "a description"


def test_exif_that_has_a_resolution_or_what_cannot_be_moved_is_left_as_it_is(photo):
    plain, noted = Image.Exif(), Image.Exif()
    plain[0x011A], plain[0x011B], plain[0x0128] = 72.0, 72.0, 2
    noted.get_ifd(0x8769)[0x927C] = b"by the maker"
    for exif in (plain.tobytes(), noted.tobytes(), b"garbage"):
        image = photo.copy()
        image.info.update(exif=exif, dpi=(300, 300))
        assert codec.decompress(codec.compress(image)).info["exif"] == exif


@pytest.mark.parametrize("dpi", [300, (300,), ("a", "b"), None, (float("nan"), 1), (0, 0), (1, 2, 3), (1e9, 1)])
def test_dots_per_inch_may_be_anything(dpi, photo):
    image = photo.copy()
    image.info["dpi"] = dpi
    assert codec.decompress(codec.compress(image)).info == {}


@pytest.mark.parametrize("exif", [b"", b"garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_exif_may_be_anything(exif, photo):
    image = codec.decompress(codec.compress(photo.crop((0, 0, 20, 10)), exif=exif, lossless=True))
    assert image.info.get("exif", b"") == exif and "dpi" not in image.info
