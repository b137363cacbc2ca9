"""Picture -> bytes of an image file, in the format that a file name asks for by its suffix."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ImageError
from . import embedding
from .picture import DeepImage
from .png import chunk

ARRAY = "NPY"  # a file of NumPy, for samples that no format of Pillow takes

# Beyond the defaults of Pillow, which would lose what the decoder has just restored.
_SAVE_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


def format_of(name: str) -> str:
    """Pillow's name of the format that a file name asks for by its suffix, or ARRAY; PNG for a pipe."""
    if name == "-":
        return "PNG"
    suffix = Path(name).suffix.lower()
    if suffix == ".npy":
        return ARRAY
    extension_formats = _formats_by_suffix()
    if extension_formats.get(suffix) not in Image.SAVE:
        raise ImageError(f"no image format is known by the suffix {suffix!r}: try .png")
    return extension_formats[suffix]


def _formats_by_suffix() -> dict[str, str]:
    """Pillow's, without our own, which a program may have registered: it is the other side of what happens here."""
    return {suffix: format for suffix, format in Image.registered_extensions().items() if format != "LIC"}


def is_image_name(name: str) -> bool:
    """Whether `name` exists and carries a suffix of an image format: hardly meant as the output of `compress`."""
    return name != "-" and Path(name).exists() and Path(name).suffix.lower() in _formats_by_suffix()


def image_bytes(
    image: Image.Image | np.ndarray, format: str, *, remark: Callable[[str], None] = lambda words: None
) -> bytes:
    """An image file in memory, with the metadata of `info` as far as the format carries it.

    `remark` is told in words for people what the format does not carry.
    """
    if format == ARRAY:
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(image), allow_pickle=False)
        embedding.remark_loss(image.info, remark)
        return buffer.getvalue()
    if isinstance(image, np.ndarray):
        if format != "PNG":
            raise ImageError(f"{image.shape[2]} samples of 16 bits a pixel: take a name in .png or .npy")
        return _deep_png(image, remark)
    try:
        return embedding.file_of(image, format, _SAVE_OPTIONS.get(format, {}), remark)
    except Exception as error:  # Pillow's writers raise what they please
        hint = ", take a name in .tif" if image.mode == "PA" else ""
        raise ImageError(f"cannot be written as {format}: {error}{hint}") from error


def _deep_png(image: DeepImage, remark: Callable[[str], None]) -> bytes:
    """Colour of 16 bits, which Pillow lacks; the chunks of metadata are those that it writes for another picture."""
    height, width, channels = image.shape
    other = Image.new("L" if channels == 2 else "RGB", (1, 1))
    other.info = image.info
    other = image_bytes(other, "PNG", remark=remark)
    metadata = other[33 : other.rindex(b"IDAT") - 4]  # what is between the header and the samples
    rows = np.full((height, 1 + 2 * channels * width), 2, np.uint8)  # filter 2: differences to the row above
    rows[:, 1:] = np.ascontiguousarray(image, ">u2").view(np.uint8).reshape(height, -1)
    rows[1:, 1:] -= rows[:-1, 1:]
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    samples = chunk(b"IDAT", zlib.compress(rows))
    return other[:8] + chunk(b"IHDR", header) + metadata + samples + chunk(b"IEND", b"")

