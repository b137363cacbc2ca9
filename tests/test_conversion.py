"""How a picture becomes what lossy coding takes: ink and Lab through their profiles, other modes, colours nobody sees."""

import struct

import numpy as np
import pytest
from pictures import LAB, lab, save
from PIL import Image, ImageCms

import codec
from codec.metrics import psnr
from codec.picture import conversion, reading

pytestmark = pytest.mark.usefixtures("tiny_model")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def ink_profile() -> bytes:
    """An ICC profile of CMYK, with inks unlike those of Pillow's formula: of each corner the CIELAB colour, in 8 bits."""
    corners = np.indices((2, 2, 2, 2)).reshape(4, 16).T  # cyan varies slowest
    colours = (255, 128, 128) + corners @ [(-40, -40, -40), (-60, 60, 0), (-20, 0, 70), (-120, 0, 0)]
    identity = np.arange(256, dtype=np.uint8).tobytes()
    table = b"mft1" + struct.pack(">4x4B9i", 4, 3, 2, 0, *(65536 * np.eye(3, dtype=int)).ravel())
    table += identity * 4 + colours.clip(0, 255).astype(np.uint8).tobytes() + identity * 3
    white = struct.pack(">3i", 63190, 65536, 54061)
    header = struct.pack(">I4xI4s4s4s12x4s28x", 144 + len(table), 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp") + white
    return header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


def test_a_profile_decides_how_the_ink_of_a_jpeg_becomes_rgb(tmp_path, run):
    ink = Image.new("CMYK", (32, 32), (0, 255, 0, 0))
    source = save(ink, tmp_path / "in.jpg", quality=100, icc_profile=ink_profile())
    status, err = run("compress", source, str(tmp_path / "a.lic"))
    assert status == 0 and "converted from CMYK to RGB by its ICC profile" in err
    assert "icc_profile" not in codec.inspect((tmp_path / "a.lic").read_bytes()).sections
    seen = Image.new("LAB", (1, 1), (195, 188, 128))
    expected = ImageCms.profileToProfile(seen, LAB, ImageCms.createProfile("sRGB"), outputMode="RGB").getpixel((0, 0))
    converted = conversion.converted(reading.read_image(source)).getpixel((16, 16))
    assert np.abs(np.subtract(converted, expected)).max() <= 3
    assert np.abs(np.subtract(converted, ink.convert("RGB").getpixel((0, 0)))).max() > 30


def test_a_profile_decides_how_lab_becomes_rgb(photo):
    image = lab(photo)
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(LAB).tobytes()
    assert conversion.needed(image) == "converted from LAB to RGB by its ICC profile"
    rgb = conversion.converted(image)
    assert rgb.mode == "RGB" and "icc_profile" not in rgb.info
    assert psnr(np.asarray(rgb), np.asarray(photo)) > 35


@pytest.mark.parametrize("profile", [b"nonsense", SRGB, ink_profile()[:-500]])
def test_a_profile_that_does_not_fit_is_ignored_and_this_is_said(profile, photo, tmp_path, run):
    cmyk = photo.convert("CMYK")
    source = save(cmyk, tmp_path / "in.tif", icc_profile=profile)
    status, err = run("compress", source, str(tmp_path / "a.lic"))
    assert status == 0 and "converted from CMYK to RGB without its ICC profile, which does not fit" in err
    rgb = conversion.converted(reading.read_image(source))
    assert np.array_equal(np.asarray(rgb), np.asarray(cmyk.convert("RGB"))) and "icc_profile" not in rgb.info


@pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
def test_beside_other_coordinates_of_rgb_the_profile_stays(mode, photo):
    image = photo.convert(mode)
    image.info["icc_profile"] = SRGB
    assert codec.decompress(codec.compress(image)).info["icc_profile"] == SRGB


@pytest.mark.parametrize(("mode", "target"), [
    ("1", "L"), ("P", "RGB"), ("PA", "RGBA"), ("La", "LA"), ("RGBa", "RGBA"), ("RGBX", "RGB"), ("HSV", "RGB"),
    ("YCbCr", "RGB"), ("CMYK", "RGB"), ("LAB", "RGB"),
])  # fmt: skip
def test_images_in_memory_of_the_other_modes(mode, target, photo):
    via = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}.get(mode, "RGB")
    image = photo.convert(via).convert(mode)
    image.info.clear()
    assert conversion.needed(image) == f"converted from {mode} to {target}"
    assert codec.inspect(codec.compress(image, lossless="never")).mode == target
    if mode not in ("1", "P"):
        assert psnr(np.asarray(conversion.converted(image)), np.asarray(photo.convert(target))) > 35


def test_a_palette_of_which_only_grays_are_used_becomes_gray(photo):
    gray = photo.convert("L")
    indexed = Image.fromarray(255 - np.asarray(gray)).convert("P")
    indexed.putpalette([value for index in range(256) for value in [255 - index] * 3])
    assert conversion.needed(indexed) == "converted from P to L"
    assert np.array_equal(conversion.converted(indexed), gray)
    indexed.info["transparency"] = 255 - gray.getpixel((0, 0))
    shown = conversion.converted(indexed)
    assert shown.mode == "LA" and shown.getpixel((0, 0)) == (gray.getpixel((0, 0)), 0)
    assert np.array_equal(shown.getchannel("L"), gray)
    indexed.putpixel((3, 3), 0)
    indexed.putpalette([255, 255, 254, *indexed.getpalette()[3:]])
    assert conversion.converted(indexed).mode == "RGBA"


def test_the_profile_of_an_rgb_picture_stays(photo):
    image = photo.quantize(20)
    image.info["icc_profile"] = SRGB
    assert codec.decompress(codec.compress(image)).info["icc_profile"] == SRGB


def test_hidden_colours_cost_nothing(photo, rng):
    """A sprite with garbage where nobody sees it is coded as a clean one is; `fill_hidden` sees to both."""
    alpha = Image.new("L", photo.size)
    alpha.paste(255, (30, 20, 70, 50))
    noise = Image.fromarray(rng.integers(0, 256, (*photo.size[::-1], 3), dtype=np.uint8))
    noise.paste(photo, mask=alpha)
    noise.putalpha(alpha)
    black = Image.composite(photo, Image.new("RGB", photo.size), alpha)
    black.putalpha(alpha)
    assert codec.compress(noise, 80) == codec.compress(black, 80)
    files = [codec.compress(image, 80) for image in (noise, noise.convert("RGB"))]
    filled, untouched = (codec.inspect(data).sections["latents"] for data in files)
    assert filled < 0.9 * untouched
    seen = np.asarray(alpha) > 0
    assert psnr(np.asarray(codec.decompress(codec.compress(noise, 80)))[seen], np.asarray(noise)[seen]) > 17
    part = noise.crop((20, 10, 50, 30))
    assert codec.decompress(codec.compress(part, lossless=True)).tobytes() == part.tobytes()


def test_hidden_colours_continue_what_is_seen():
    pixels = np.zeros((40, 50, 4), np.uint8)
    pixels[:, :25] = (200, 100, 50, 255)
    pixels[:, 40:] = (100, 100, 50, 1)
    filled = conversion.fill_hidden(pixels)
    assert np.array_equal(filled[pixels[..., 3] > 0], pixels[pixels[..., 3] > 0]) and np.array_equal(filled[..., 3], pixels[..., 3])
    hidden = filled[:, 25:40, 0].astype(int)
    assert hidden.min() >= 98 and hidden.max() <= 202 and np.abs(filled[:, 25:40, 1:3] - (100.0, 50.0)).max() <= 2


@pytest.mark.parametrize("size", [(513, 3), (1100, 1), (1026, 31)])
def test_hidden_colours_are_as_smooth_where_strips_meet(size):
    """A ramp from top to bottom of which every third row is hidden is the same ramp again, strips of the work or not."""
    pixels = np.zeros((*size, 2), np.uint8)
    pixels[..., 0] = np.linspace(20, 220, size[0])[:, None]
    pixels[..., 1] = 255
    hidden = pixels.copy()
    hidden[1::3] = 0
    assert np.abs(conversion.fill_hidden(hidden)[..., 0] - pixels[..., 0].astype(int)).max() <= 4


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 9, 4), (5, 1, 4), (33, 17, 2)])
def test_a_picture_that_nobody_sees(shape, rng):
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    pixels[..., -1] = 0
    assert not conversion.fill_hidden(pixels).any()
