"""Pictures that are no larger without loss than with it are coded without: screenshots, drawings, text, flat colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import codec
from codec import planes
from codec.api import from_input

pytestmark = pytest.mark.usefixtures("tiny_model")
WORDS = "return the quick brown fox: def walk(self, x) over 42 lazy bytes; import codec".split()


@pytest.fixture(scope="module")
def desktop() -> Image.Image:
    """A window with text, icons, a terminal and a bar at the bottom, 320×240 RGB."""
    image = Image.new("RGB", (320, 240), (0, 110, 130))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    draw.rectangle((60, 20, 280, 180), fill="white", outline=(90, 90, 90))
    draw.rectangle((60, 20, 280, 36), fill=(60, 110, 190))
    for line in range(11):
        words = WORDS[line % 5 : line % 5 + 4 + line % 3]
        draw.text((66 + 8 * (line % 4), 40 + 12 * line), " ".join(words), fill=(20, 20, 20), font=font)
    for icon in range(4):
        draw.rounded_rectangle((14, 10 + 50 * icon, 42, 38 + 50 * icon), 5, fill=(200 - 40 * icon, 60 * icon, 90))
    draw.rectangle((180, 120, 310, 215), fill=(30, 30, 34))
    for line in range(6):
        draw.text((186, 124 + 14 * line), " ".join(WORDS[line : line + 3]), fill=(180, 230, 180), font=font)
    draw.rectangle((0, 224, 320, 240), fill=(40, 44, 52))
    return image


def with_alpha(image: Image.Image) -> Image.Image:
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((10, 10, 300, 220), 20, fill=255)
    image = image.copy()
    image.putalpha(mask.filter(ImageFilter.GaussianBlur(1)))
    return image


def transparent(image: Image.Image) -> Image.Image:
    image = image.quantize(32)
    image.info["transparency"] = 3
    return image


FORMS = {
    "RGB": lambda image: image,
    "RGBA": with_alpha,
    "L": lambda image: image.convert("L"),
    "LA": lambda image: with_alpha(image).convert("LA"),
    "P": lambda image: image.quantize(32),
    "P with a transparent index": transparent,
    "1": lambda image: image.convert("1", dither=Image.Dither.NONE),
    "a transparent colour": lambda image: [image.info.update(transparency=(0, 110, 130)), image][1],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("effort", [1, 3])
def test_a_screenshot_comes_back_exactly_in_no_more_bytes(desktop, form, effort):
    image = FORMS[form](desktop.copy())
    data, lossy = codec.compress(image, effort=effort), codec.compress(image, effort=effort, lossless="never")
    info, other = codec.inspect(data), codec.inspect(lossy)
    assert info.lossless and info.quality is None and info.mode == image.mode and len(data) <= len(lossy)
    assert not other.lossless and other.quality == 75
    assert from_input(codec.decompress(data), lossless=True).looks_like(from_input(image, lossless=True))


def test_an_array_comes_back_as_it_was(desktop):
    pixels = np.asarray(desktop)
    for array in (pixels, pixels[..., 1], pixels[..., [0, 2]]):
        data = codec.compress(array, 40)
        assert codec.inspect(data).lossless and np.array_equal(np.asarray(codec.decompress(data)), array)


def test_whichever_is_smaller_is_written(photo, desktop):
    """A screenshot, and one on a photograph: at low qualities they take less with loss."""
    behind = photo.resize((340, 250), Image.Resampling.BICUBIC)
    behind.paste(desktop, (0, 0))
    found = []
    for image in (desktop, behind):
        for quality in (0, 75, 100):
            data = codec.compress(image, quality, effort=1)
            lossy = codec.compress(image, quality, effort=1, lossless="never")
            assert data == lossy or codec.inspect(data).lossless and len(data) <= len(lossy)
            found.append(codec.inspect(data).lossless)
    assert found == [False, True, True, False, False, True]


def test_a_wallpaper_of_one_small_picture_is_coded_exactly(photo):
    """Nothing in it is flat, and its colours are many: blocks repeat."""
    wall = np.tile(np.asarray(photo)[16:48, 32:64], (12, 14, 1))
    data = codec.compress(wall)
    assert codec.inspect(data).lossless and 3 * len(data) < len(codec.compress(wall, lossless="never"))


def test_on_photographs_the_exact_coder_is_not_even_tried(photo, monkeypatch):
    image = photo.resize((384, 256), Image.Resampling.BICUBIC)
    monkeypatch.setattr(planes, "encode", lambda *arguments, **options: pytest.fail("tried"))
    for quality in (0, 75, 100):
        assert not codec.inspect(codec.compress(image, quality)).lossless


def test_no_search_is_begun_where_a_draft_is_large_enough(desktop):
    heard = []
    assert codec.inspect(codec.compress(desktop, 90, effort=7, progress=heard.append)).lossless and not heard
    codec.compress(desktop.crop((0, 0, 64, 64)), 90, effort=2, lossless="never", progress=heard.append)
    assert heard


def test_modes_that_have_no_exact_form_stay_lossy(desktop):
    for mode in ("CMYK", "YCbCr"):
        info = codec.inspect(codec.compress(desktop.convert(mode), effort=1))
        assert not info.lossless and info.mode == "RGB"


def test_an_exact_file_is_the_best_answer_to_a_ceiling_that_it_fits(desktop, photo):
    exact = codec.compress(desktop)
    assert codec.compress(desktop, target_bytes=len(exact)) == exact
    assert codec.compress(desktop, target_bpp=8 * len(exact) / (320 * 240) + 0.001) == exact
    below = codec.compress(desktop, target_bytes=len(exact) - 1)
    assert not codec.inspect(below).lossless and len(below) < len(exact)
    assert not codec.inspect(codec.compress(desktop, target_bytes=len(exact), lossless="never")).lossless
    assert codec.inspect(codec.compress(photo, target_bytes=10**5)).lossless


def test_an_exact_file_meets_every_floor(desktop, photo):
    exact = codec.compress(desktop)
    for floor in (38, 99):
        assert codec.compress(desktop, target_psnr=floor) == exact
    with pytest.raises(codec.TargetError):
        codec.compress(desktop, target_psnr=99, lossless="never")
    with pytest.raises(codec.TargetError):
        codec.compress(photo, target_psnr=99)


def test_no_other_word_is_taken_for_lossless(photo):
    with pytest.raises(ValueError, match='True, False or "never", not \'always\''):
        codec.compress(photo, lossless="always")


def test_the_command_line_says_what_it_has_written_and_can_insist(desktop, photo, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    desktop.quantize(32).save("a.png")
    photo.save("b.png")
    status, said = run("compress", "a.png", "a.lic", "--verify")
    assert status == 0 and "lossless, which takes no more bytes than lossy" in said and "converted" not in said
    decoded = from_input(codec.decompress(Path("a.lic").read_bytes()), lossless=True)
    with Image.open("a.png") as image:
        assert decoded.looks_like(from_input(image, lossless=True))
    status, said = run("compress", "a.png", "a.lic", "--lossy")
    assert status == 0 and "lossless" not in said and "converted from P to RGB" in said
    assert not codec.inspect(Path("a.lic").read_bytes()).lossless
    status, said = run("compress", "a.png", "a.lic", "--target-bytes", "20k")
    assert status == 0 and "lossless, as the target allows" in said
    assert "lossless" not in run("compress", "b.png", "b.lic")[1]
    with pytest.raises(SystemExit):
        run("compress", "a.png", "a.lic", "--lossy", "--lossless")


def test_the_estimate_is_of_the_size_of_what_it_estimates(photo, desktop):
    for image in (photo, desktop, photo.convert("L"), with_alpha(desktop), photo.resize((900, 70))):
        pixels = from_input(image).pixels
        assert 0.2 < len(planes.encode(pixels)) / planes.estimate(pixels) < 1.2
    assert 0 < planes.estimate(np.zeros((1, 1, 4), np.uint8)) < 30
