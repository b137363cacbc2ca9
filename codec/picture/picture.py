"""Pictures in memory: what the codec accepts, and the one form that everything above and below works on."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..errors import ImageError, LimitError
from . import conversion
from .exif import orientation
from .metadata import Metadata, gathered

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # of 8-bit pixels, by number of channels
DEEP_MODES = {1: "I;16", 2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}  # of 16-bit pixels; Pillow has the first only
LAYOUTS = {mode: (channels, 8) for channels, mode in MODES.items()}  # mode: channels, bits a sample
LAYOUTS |= {mode: (channels, 16) for channels, mode in DEEP_MODES.items()}
LAYOUTS |= {"1": (1, 1), "P": (1, 8), "PA": (2, 8), "I;16B": (1, 16), "I": (1, 16)}
PALETTE_MODES = ("P", "PA")
STRIP = 512  # rows that go to and from Pillow at once
MAX_PIXELS = 2**28  # default cap, 268 megapixels: 0.8 GB as 8-bit RGB


@dataclass(frozen=True)
class Picture:
    """Pixels and what goes with them."""

    pixels: np.ndarray  # H×W×C, C as in LAYOUTS; uint8, or uint16 where the mode has 16 bits; 0 and 1 in mode "1"
    mode: str
    metadata: Metadata = Metadata()
    palette: tuple[str, bytes] | None = None  # "RGB" or "RGBA" and the entries, in modes P and PA
    transparency: int | tuple[int, int, int] | bytes | None = None  # as in Pillow's `info`

    def looks_like(self, other: "Picture") -> bool:
        """Whether mode, pixels, palette and transparency are the same; metadata may differ."""
        same = [(one.mode, one.pixels.dtype, one.palette, one.transparency) for one in (self, other)]
        return same[0] == same[1] and np.array_equal(self.pixels, other.pixels)


class DeepImage(np.ndarray):
    """Samples H×W×2..4 of uint16, which no mode of Pillow holds, with metadata in `info` as a PIL image has them."""

    def __array_finalize__(self, source) -> None:
        self.info = dict(getattr(source, "info", {}))


def check_size(width: int, height: int, max_pixels: int | None) -> None:
    """LimitError if the picture has more than `max_pixels` pixels (None: MAX_PIXELS). Call before allocating it."""
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > limit:
        raise LimitError(f"{width}×{height} is {width * height} pixels, more than the limit max_pixels = {limit}")


def from_input(
    image, *, lossless: bool = False, icc_profile: bytes | None = None, exif: bytes | None = None,
    xmp: bytes | None = None,
) -> Picture:  # fmt: skip
    """The Picture of a PIL image or of an array H×W or H×W×1..4 of uint8, with `lossless` also of uint16.

    Metadata that is None is taken from the PIL image's `info`; b"" drops it. Without `lossless`, the image becomes 8-bit
    gray or colour with or without alpha (`conversion.converted`), and colours under full transparency are replaced by
    others that cost less. ImageError for pixels that cannot be coded, TypeError for anything but an image.
    """
    for key, value in {"icc_profile": icc_profile, "exif": exif, "xmp": xmp}.items():
        if not isinstance(value, (bytes, type(None))):
            raise TypeError(f"{key} must be bytes or None, not {type(value).__name__}")
    if isinstance(image, Image.Image):
        _load(image)
        image = image if lossless else conversion.converted(image)
        info, picture = image.info, (_exact_picture if lossless else _picture)(image)
    elif isinstance(image, np.ndarray):
        if isinstance(image, np.ma.MaskedArray):
            raise ImageError("a masked array, whose hidden values are no picture: fill them with array.filled(value)")
        info, picture = getattr(image, "info", {}), _picture_of_array(np.asarray(image), lossless)
        if not lossless and picture.mode.endswith("A"):
            picture = replace(picture, pixels=conversion.fill_hidden(picture.pixels))
    else:
        raise TypeError(f"image must be a PIL image or a NumPy array, not {type(image).__name__}")
    metadata = gathered(info, picture.mode, icc_profile=icc_profile, exif=exif, xmp=xmp)
    return replace(picture, metadata=metadata)


def remark_metadata(image, mode: str, *, dropped: bool, remark: Callable[[str], None]) -> None:
    """What `from_input` leaves out of an input's metadata, in words; `dropped`: it has been told to drop all of it."""
    info = conversion.still_true(image) if isinstance(image, Image.Image) else getattr(image, "info", {})
    if not dropped:
        gathered(info, mode, remark=remark)
    elif (turned := orientation(gathered(info, mode).exif) or 1) > 1:
        remark(f"orientation {turned} is gone with EXIF: the picture lies as its pixels do")


def _picture_of_array(array: np.ndarray, lossless: bool) -> Picture:
    """For both; alpha and hidden colours as they are."""
    pixels = array if array.ndim == 3 else array[..., np.newaxis]
    deep = pixels.dtype.newbyteorder("=") == np.uint16
    if deep and not lossless:
        raise ImageError(
            "16-bit array: lossy files hold 8 bits, convert with (array >> 8).astype(np.uint8), or use lossless=True"
        )
    if not deep and pixels.dtype != np.uint8:
        raise ImageError(f"array of {pixels.dtype}: convert it to uint8 (0 to 255) first")
    if pixels.ndim != 3 or pixels.shape[2] not in MODES:
        raise ImageError(f"array of shape {array.shape}: expected H×W or H×W×1..4")
    _check_not_empty(pixels.shape[1], pixels.shape[0])
    pixels = pixels.astype(np.uint16, copy=False) if deep else pixels  # in the byte order of this machine
    return Picture(pixels, (DEEP_MODES if deep else MODES)[pixels.shape[2]])


def _picture(image: Image.Image) -> Picture:
    """For lossy coding: 8-bit gray or colour, with or without alpha; colours that nobody sees are replaced."""
    pixels = _pixels(image)
    return Picture(pixels if image.mode in ("L", "RGB") else conversion.fill_hidden(pixels), image.mode)


def _exact_picture(image: Image.Image) -> Picture:
    """For lossless coding: all that `to_pil` needs to make the same image."""
    mode = image.mode
    if mode not in LAYOUTS:
        way = "scale and convert them to integers" if mode == "F" else "convert with image.convert('RGB')"
        raise ImageError(f"images of mode {mode} cannot be coded without loss: {way}")
    pixels = _pixels(image)
    if mode == "I" and not (0 <= pixels.min() and pixels.max() <= 0xFFFF):
        raise ImageError(f"samples from {pixels.min()} to {pixels.max()}: of mode I only 0 to 65535 can be coded")
    palette = None
    if mode in PALETTE_MODES:
        palette_mode = image.palette.mode if image.palette else "RGB"
        if palette_mode not in ("RGB", "RGBA"):
            raise ImageError(f"a palette of mode {palette_mode} cannot be coded: convert with image.convert('RGB')")
        palette = palette_mode, bytes(image.getpalette(palette_mode) or [])
    dtype = np.uint16 if LAYOUTS[mode][1] == 16 else np.uint8
    transparency = _transparency(image.info.get("transparency"))
    return Picture(pixels.astype(dtype, copy=False), mode, palette=palette, transparency=transparency)


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise whatever the damage makes them stumble over
        raise ImageError(f"the image cannot be decoded: {error}") from error
    _check_not_empty(image.width, image.height)


def _check_not_empty(width: int, height: int) -> None:
    if 0 in (width, height):
        raise ImageError(f"a picture without pixels: {width}×{height}")


def _pixels(image: Image.Image) -> np.ndarray:
    """H×W×C. In strips: Pillow copies what it hands over, and of a large picture twice is too often."""
    strips = (np.asarray(image.crop((0, top, image.width, bottom))) for top, bottom in _strips(image.height))
    first = next(strips)
    pixels = np.empty((image.height, *first.shape[1:]), first.dtype)
    for (top, bottom), strip in zip(_strips(image.height), itertools.chain([first], strips), strict=True):
        pixels[top:bottom] = strip
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _strips(height: int) -> list[tuple[int, int]]:
    return [(top, min(top + STRIP, height)) for top in range(0, height, STRIP)]


def _transparency(value):
    """An index or a level, a colour, or the alpha of each palette entry, as Pillow's readers give them."""
    if value is None or isinstance(value, bytes) and len(value) <= 256:
        return value
    values = value if isinstance(value, tuple) else (value,)
    if len(values) in (1, 3) and all(isinstance(one, int) and 0 <= one <= 0xFFFF for one in values):
        return value if len(values) == 3 else values[0]
    what = f"of {len(value)} bytes" if isinstance(value, bytes) else repr(value)
    raise ImageError(f"transparency {what} cannot be kept: remove image.info['transparency'] to go on")


def to_pil(picture: Picture) -> Image.Image | np.ndarray:
    """The PIL image, with present metadata and transparency in `info` under the keys that Pillow uses.

    For the modes that Pillow lacks, 16 bits with alpha or colour, the array of uint16, a `DeepImage`.
    """
    pixels, mode = picture.pixels, picture.mode
    if mode in DEEP_MODES.values() and mode != "I;16":
        image = pixels.view(DeepImage)
    elif mode in MODES.values():
        image = Image.new(mode, pixels.shape[1::-1])
        for top, bottom in _strips(len(pixels)):  # as in `_pixels`
            image.paste(Image.fromarray(pixels[top:bottom, :, 0] if mode == "L" else pixels[top:bottom]), (0, top))
    else:
        height, width, _ = pixels.shape
        if mode == "1":
            pixels = np.packbits(pixels, axis=1)
        elif mode not in PALETTE_MODES:
            pixels = pixels.astype({"I;16": "<u2", "I;16B": ">u2", "I": np.int32}[mode], copy=False)
        image = Image.frombytes(mode, (width, height), pixels.tobytes())
    if picture.palette:
        image.putpalette(picture.palette[1], picture.palette[0])
    if picture.transparency is not None:
        image.info["transparency"] = picture.transparency
    image.info.update(picture.metadata.info())
    return image


def is_same_seen(one: Image.Image, other: Image.Image) -> bool:
    """Whether two PIL images show the same: size, and every pixel with its alpha, in whatever mode and palette."""
    if one.size != other.size:
        return False
    if one.mode in conversion.DEEP or other.mode in conversion.DEEP:
        return one.mode in conversion.DEEP and other.mode in conversion.DEEP and np.array_equal(_pixels(one), _pixels(other))
    if one.mode != other.mode or one.mode not in MODES.values() or "transparency" in {*one.info, *other.info}:
        one, other = one.convert("RGBA"), other.convert("RGBA")
    boxes = ((0, top, one.width, bottom) for top, bottom in _strips(one.height))
    return all(one.crop(box).tobytes() == other.crop(box).tobytes() for box in boxes)


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


def shrink(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of `factor` pixels, rounded: H×W×C -> ceil(H/factor)×ceil(W/factor)×C of the same dtype."""
    height, width, _ = pixels.shape
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    total = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0, dtype=np.uint32), columns, axis=1)
    count = np.minimum(factor, height - rows)[:, None, None] * np.minimum(factor, width - columns)[:, None]
    return ((2 * total + count) // (2 * count)).astype(pixels.dtype)
