"""Picture -> bytes of an image file, in the format that a file name asks for by its suffix."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ImageError
from . import conversion, embedding, files, samples
from .picture import DeepImage, is_same_seen
from .png import chunk
from .reading import pillow_limit_off

ARRAY = "NPY"  # a file of NumPy, for samples that no format of Pillow takes

# Beyond the defaults of Pillow, which would lose what the decoder has just restored.
_SAVE_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "MPO": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
_ICON = 256  # pixels of a side; without its own size among those asked for, Pillow would write others
_APPROXIMATE = ("JPEG", "MPO", "AVIF")


def format_of(name: str) -> str:
    """Pillow's name of the format that a file name asks for by its suffix, or ARRAY; PNG for a stream whose name has none."""
    suffix = "" if name == "-" else Path(name).suffix.lower()
    if not suffix and files.is_stream(name):
        return "PNG"
    if suffix == ".npy":
        return ARRAY
    format = _formats_by_suffix().get(suffix)
    if format not in Image.SAVE:
        raise ImageError(f"no image format is known by the suffix {suffix!r}: try .png")
    if format not in samples.KNOWN:  # a document or a drawing, which would hold the picture in a way of its own
        raise ImageError(f"pictures are not written as {format}: try .png")
    return format


def _formats_by_suffix() -> dict[str, str]:
    """Pillow's, without our own, which a program may have registered: it is the other side of what happens here."""
    return {suffix: format for suffix, format in Image.registered_extensions().items() if format != "LIC"}


def is_image_name(name: str) -> bool:
    """Whether `name` carries a suffix of an image format of others."""
    return Path(name).suffix.lower() in _formats_by_suffix() and not files.is_stream(name)


def image_bytes(
    image: Image.Image | np.ndarray, format: str, *, remark: Callable[[str], None] = lambda words: None
) -> bytes:
    """An image file in memory, with the metadata of `info` as far as the format carries it.

    The file shows the very pixels of the image, or it is a JPEG or an AVIF; ImageError where it does not, or cannot be.
    `remark` is told in words for people what the format does not carry.
    """
    if format == ARRAY:
        if isinstance(image, Image.Image) and image.mode not in conversion.DEEP and (words := conversion.needed(image)):
            image = conversion.converted(image)
            remark(words)
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(image), allow_pickle=False)
        embedding.remark_loss(image.info, remark)
        return buffer.getvalue()
    if isinstance(image, np.ndarray):
        if format != "PNG":
            raise ImageError(f"{image.shape[2]} samples of 16 bits a pixel: take a name in .png or .npy")
        return _deep_png(image, remark)
    if format == "ICO" and max(image.size) > _ICON:
        raise ImageError(f"ICO holds at most {_ICON}×{_ICON} pixels: take a name in .png or .tif")
    options = {"sizes": [image.size, image.size[::-1]]} if format == "ICO" else _SAVE_OPTIONS.get(format, {})
    reason = None
    for form, words in _forms(image, format):
        told = [words] if words else []
        try:
            data = embedding.file_of(form, format, options, told.append)
        except Exception as error:  # Pillow's writers raise what they please
            reason = reason or error
            continue
        if format in _APPROXIMATE:
            told.append(f"{format} holds the pixels approximately")
        elif format != "PNG" and not _shows(data, format, embedding.as_shown(image, format)):
            continue
        for words in told:
            remark(words)
        return data
    if reason is None:
        raise ImageError(f"{format} does not hold this picture as it is: take a name in .png or .tif")
    raise ImageError(f"cannot be written as {format}: {reason}") from reason


def _forms(image: Image.Image, format: str) -> Iterator[tuple[Image.Image, str]]:
    """The image, and the form in which it shows the same where its mode is not known; with the words for that."""
    if image.mode in conversion.DEEP and format in _APPROXIMATE:
        raise ImageError(f"{format} holds 8 bits a sample, and the picture has 16: take a name in .png or .tif")
    words = "" if image.mode in conversion.DEEP else conversion.needed(image)
    if format not in _APPROXIMATE or not words:
        yield image, ""
    if words:
        yield conversion.converted(image), words
    elif image.mode in ("I", "I;16B") and 0 <= (extrema := image.getextrema())[0] and extrema[1] <= 0xFFFF:
        form = Image.fromarray(np.asarray(image).astype("<u2"))
        form.info = image.info
        yield form, ""


def _shows(data: bytes, format: str, image: Image.Image) -> bool:
    """Whether Pillow reads the image from a file, pixel by pixel; in another mode, maybe."""
    try:
        with pillow_limit_off():
            again = Image.open(io.BytesIO(data), formats=[format])
            again.load()
    except Exception:  # damage of any kind
        return False
    return is_same_seen(again, image)


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

