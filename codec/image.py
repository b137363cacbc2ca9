"""Pictures in memory: what the codec accepts, and the one form that everything above and below works on."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .errors import ImageError, LimitError

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by number of channels
MAX_PIXELS = 2**28  # default cap, 268 megapixels: 0.8 GB as 8-bit RGB


@dataclass(frozen=True)
class Picture:
    """8-bit pixels and the metadata that goes with them; empty metadata is absent."""

    pixels: np.ndarray  # H×W×C uint8, C as in MODES
    icc_profile: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""

    @property
    def mode(self) -> str:
        return MODES[self.pixels.shape[2]]


def check_size(width: int, height: int, max_pixels: int | None) -> None:
    """LimitError if the picture has more than `max_pixels` pixels (None: MAX_PIXELS). Call before allocating it."""
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > limit:
        raise LimitError(f"{width}×{height} is {width * height} pixels, more than the limit max_pixels = {limit}")


def from_input(image, *, icc_profile: bytes | None = None, exif: bytes | None = None, xmp: bytes | None = None):
    """The Picture of a PIL image or of an array H×W or H×W×1..4 of uint8.

    Metadata that is None is taken from the PIL image's `info`; b"" drops it. A transparent colour (`tRNS` of PNG)
    becomes an alpha channel. ImageError for pixels that cannot be coded, TypeError for anything but an image.
    """
    info = {}
    if isinstance(image, Image.Image):
        info = image.info
        pixels = _pixels_of(image)
    elif isinstance(image, np.ndarray):
        pixels = image if image.ndim == 3 else image[..., np.newaxis]
        if pixels.dtype == np.uint16:
            raise ImageError("16-bit array: this version codes 8 bits, convert with (array >> 8).astype(np.uint8)")
        if pixels.dtype != np.uint8:
            raise ImageError(f"array of {pixels.dtype}: convert it to uint8 (0 to 255) first")
        if pixels.ndim != 3 or pixels.shape[2] not in MODES:
            raise ImageError(f"array of shape {image.shape}: expected H×W or H×W×1..4")
    else:
        raise TypeError(f"image must be a PIL image or a NumPy array, not {type(image).__name__}")
    if 0 in pixels.shape:
        raise ImageError(f"a picture without pixels: {pixels.shape[1]}×{pixels.shape[0]}")
    given = {"icc_profile": icc_profile, "exif": exif, "xmp": xmp}
    return Picture(pixels, **{key: _metadata(key, value, info) for key, value in given.items()})


def _pixels_of(image: Image.Image) -> np.ndarray:
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise whatever the damage makes them stumble over
        raise ImageError(f"the image cannot be decoded: {error}") from error
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    if image.mode not in MODES.values():
        better = "RGBA" if "transparency" in image.info or "A" in image.mode else "RGB"
        raise ImageError(
            f"images of mode {image.mode} cannot be coded by this version: convert with image.convert({better!r})"
        )
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _metadata(key: str, value: bytes | None, info: dict) -> bytes:
    if value is None:
        value = info.get(key) or b""
        return value.encode() if isinstance(value, str) else bytes(value)
    if not isinstance(value, bytes):
        raise TypeError(f"{key} must be bytes or None, not {type(value).__name__}")
    return value


def to_pil(picture: Picture) -> Image.Image:
    """The PIL image, with present metadata in `info` under the keys that Pillow uses."""
    pixels = picture.pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.info.update(
        {key: value for key in ("icc_profile", "exif", "xmp") if (value := getattr(picture, key))}
    )
    return image


def split(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """H×W×1..4 -> colour H×W×3 (gray is repeated three times) and alpha H×W or None."""
    channels = pixels.shape[2]
    colour = pixels[..., :3] if channels > 2 else np.repeat(pixels[..., :1], 3, axis=2)
    return np.ascontiguousarray(colour), pixels[..., -1] if channels in (2, 4) else None


def join(colour: np.ndarray, alpha: np.ndarray | None, *, gray: bool) -> np.ndarray:
    """Decoded colour H×W×3 and alpha -> H×W×1..4; gray is the mean of the three channels, rounded to nearest."""
    if gray:
        colour = ((colour.sum(axis=2, keepdims=True, dtype=np.uint16) + 1) // 3).astype(np.uint8)
    return colour if alpha is None else np.dstack([colour, alpha])
