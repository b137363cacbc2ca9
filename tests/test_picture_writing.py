"""Image files that are written hold the very pixels, or are refused, or say that they do not."""

import io

import numpy as np
import pytest
from PIL import Image

from codec.errors import ImageError
from codec.metrics import psnr
from codec.picture import conversion
from codec.picture.picture import is_same_seen
from codec.picture.writing import format_of, image_bytes

LOSSY = ("JPEG", "MPO", "AVIF")
SUFFIXES = sorted({suffix for suffix, format in Image.registered_extensions().items() if format in Image.SAVE} - {".lic"})


def pictures(photo: Image.Image) -> dict[str, Image.Image]:
    photo = photo.resize((24, 16))
    alpha = Image.linear_gradient("L").resize(photo.size)
    rgba, palette, indexed = photo.copy(), photo.quantize(40), photo.quantize(200)
    palette_alpha = palette.copy()
    rgba.putalpha(alpha)
    palette_alpha.putalpha(alpha)
    partly = palette.copy()
    partly.putpalette([value for index in range(40) for value in (index, 2 * index, 5 * index, 6 * index)], "RGBA")
    keyed, keyed_gray, see_through = photo.copy(), photo.convert("L"), palette.copy()
    keyed.info["transparency"], keyed_gray.info["transparency"] = photo.getpixel((3, 3)), 100
    see_through.info["transparency"] = 7
    deep = Image.fromarray(np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 170)
    return {
        "1": photo.convert("1"), "L": photo.convert("L"), "LA": rgba.convert("LA"), "P": palette, "P200": indexed,
        "RGB": photo, "RGBA": rgba, "P with RGBA": partly, "P keyed": see_through, "RGB keyed": keyed,
        "L keyed": keyed_gray, "I;16": deep,
        "PA": palette_alpha, "I": deep.convert("I"),
    }  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_shows_the_same_picture_or_is_refused(suffix, photo):
    for name, image in pictures(photo).items():
        remarks: list[str] = []
        try:
            format = format_of("out" + suffix)
            data = image_bytes(image, format, remark=remarks.append)
        except ImageError as error:
            assert "\n" not in str(error)
            continue
        with Image.open(io.BytesIO(data)) as again:
            if format in LOSSY:
                assert f"{format} holds the pixels approximately" in remarks and again.size == image.size
                expected = conversion.converted(image).convert(again.mode)
                assert psnr(*(np.atleast_3d(one)[..., :3] for one in (expected, again))) > 30, name
            else:
                assert is_same_seen(again, image), name


ALL = "1 L LA P P200 RGB RGBA PA P_with_RGBA P_keyed RGB_keyed L_keyed"
WRITTEN = {  # suffix: the pictures that it holds
    ".png": f"{ALL} I;16 I", ".tif": f"{ALL} I;16 I", ".webp": ALL, ".tga": ALL, ".dds": ALL, ".jp2": f"{ALL} I;16 I",
    ".ico": f"{ALL} I;16 I", ".sgi": "1 L P P200 RGB RGBA PA P_with_RGBA P_keyed RGB_keyed",
    ".qoi": "P P200 RGB RGBA PA P_with_RGBA P_keyed RGB_keyed", ".bmp": "1 L P P200 RGB", ".pcx": "1 L P P200 RGB",
    ".ppm": "1 L P P200 RGB I;16 I", ".gif": "1 L P P200 P_keyed L_keyed", ".xbm": "1", ".msp": "1",
    ".icns": "", ".pdf": "", ".eps": "", ".palm": "", ".h5": "", ".wmf": "",
}  # fmt: skip


@pytest.mark.parametrize("suffix", WRITTEN)
def test_these_pictures_can_be_written(suffix, photo):
    held = []
    for name, image in pictures(photo).items():
        try:
            image_bytes(image, format_of("out" + suffix))
            held.append(name.replace(" ", "_"))
        except ImageError:
            continue
    assert sorted(held) == sorted(WRITTEN[suffix].split())
