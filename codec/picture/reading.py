"""Image file -> picture: through Pillow, arrays of NumPy, and colour of 16 bits by another reader."""

import contextlib
import io
import os
import threading
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import CodecError, ImageError
from . import embedding, ending, samples, tiff
from .files import read_bytes
from .picture import DeepImage, check_size


def read_image(
    name: str, *, first_frame: bool = False, max_pixels: int | None = None, exact: bool = False,
    remark: Callable[[str], None] = lambda words: None,
) -> Image.Image | np.ndarray:  # fmt: skip
    """The decoded picture, with its metadata in `info` (see `metadata`); of a file of NumPy (.npy) its array.

    Of an animation or a document only the first frame, and only if `first_frame` says so. LimitError before anything
    beyond `max_pixels` is decoded; ImageError for what Pillow cannot read, or reads as other samples than there are
    (`samples`), among them deeper ones of which it keeps 8 bits: nothing is cut in silence. With `exact`, samples must
    be all that the file has, and colour of 16 bits in PNG and TIFF is a `DeepImage`. OSError as for any file. `remark`
    is told in words for people what of the file does not come along, or is not as the file has it.
    """
    data = read_bytes(name)
    if data.startswith(np.lib.format.MAGIC_PREFIX):
        return _array(data, max_pixels)
    data, metadata = embedding.taken(data, remark)
    how = {"first_frame": first_frame, "max_pixels": max_pixels, "exact": exact, "remark": remark}
    with pillow_limit_off():
        try:
            return _decoded(data, metadata, **how)
        except ImageError:
            whole = ending.completed(data)
            if whole is None:
                raise
            image = _decoded(whole, metadata, **how)
            remark("the last marker of the JPEG is missing, and nothing else")
            return image


def _decoded(
    data: bytes, metadata: dict, *, first_frame: bool, max_pixels: int | None, exact: bool,
    remark: Callable[[str], None],
) -> Image.Image | DeepImage:  # fmt: skip
    """The picture of an image file, as its file means it."""
    try:
        image = Image.open(io.BytesIO(data))
        samples.check_format(image)
        check_size(*image.size, max_pixels)
        frames = samples.pictures(image, data)
        if frames > 1 and not first_frame:
            raise ImageError(f"{frames} frames: only the first can be coded, with --first-frame")
        bits = samples.bits(image, data, exact=exact, remark=remark)
        deep = exact and bits == 16 and image.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA")
        if bits > 8 and not deep:
            raise ImageError(
                f"samples of {bits} bits, of which Pillow reads 8 in mode {image.mode}: convert the file to 8 bits; "
                "--lossless takes 16 from PNG, TIFF and .npy (NumPy's)"
            )
        _widen_transparent_level(image)
        image.load()
        image = samples.mend(image, data, remark)
        embedding.put(image, metadata, remark)
        return _deep_image(image, data) if deep else image
    except CodecError:
        raise
    except UnidentifiedImageError as error:
        kind = "a TIFF with samples of a kind" if tiff.is_tiff(data) else "an image"
        raise ImageError(f"not {kind} that Pillow can read") from error
    except Exception as error:  # Pillow's decoders raise whatever the damage makes them stumble over
        raise ImageError(f"the image cannot be decoded: {error}") from error


def _array(data: bytes, max_pixels: int | None) -> np.ndarray:
    """The array of a file of NumPy; what its header claims is checked before anything is made for it."""
    try:
        file = io.BytesIO(data)
        major = np.lib.format.read_magic(file)[0]
        read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape = read_header(file)[0]
        check_size(*(shape[1::-1] if len(shape) > 1 else (0, 0)), max_pixels)
        return np.load(io.BytesIO(data), allow_pickle=False)
    except CodecError:
        raise
    except Exception as error:  # NumPy's reader, too, raises whatever the damage makes it stumble over
        raise ImageError(f"the array cannot be read: {error}") from error


def _deep_image(image: Image.Image, data: bytes) -> DeepImage:
    """All bits of an image whose upper 8 Pillow has read, by another reader; where the two disagree, ImageError."""
    try:
        import imagecodecs
    except ImportError as error:
        raise ImageError(
            "reading colour of 16 bits takes imagecodecs: pip install 'lic-codec[deep]', or convert the file to .npy (NumPy's)"
        ) from error
    upper = np.asarray(image)
    if image.format == "PNG" and data[25] == 4:  # gray with alpha, which Pillow reads as RGBA
        upper = upper[..., -2:]
    height, width, channels = upper.shape
    alpha = "transparency" in image.info  # which a transparent colour becomes
    planes = image.format == "TIFF" and samples.in_planes(image)
    deep = np.empty((channels, height, width) if planes else (height, width, channels + alpha), np.uint16)
    decode = imagecodecs.png_decode if image.format == "PNG" else imagecodecs.tiff_decode
    try:
        decode(data, out=deep)
        deep = np.ascontiguousarray(deep.transpose(1, 2, 0)) if planes else deep
        same = planes or np.array_equal(deep[..., :channels] >> 8, upper)  # planes are what Pillow reads wrong
    except ValueError:  # it sees another shape
        same = False
    if not same:
        raise ImageError("samples of 16 bits that two readers read differently: convert the file to .npy (NumPy's)")
    deep = deep.view(DeepImage)
    deep.info = image.info
    return deep


def _widen_transparent_level(image: Image.Image) -> None:
    """PNGs of 2 and 4 bits: Pillow widens their levels of gray to 8 bits, and forgets the transparent one."""
    raw_mode = image.tile[0][3] if image.format == "PNG" and image.tile else None
    if raw_mode in ("L;2", "L;4") and "transparency" in image.info:
        image.info["transparency"] *= {"L;2": 85, "L;4": 17}[raw_mode]


_pillow_limit = threading.Lock()
if hasattr(os, "register_at_fork"):  # no child is born while another thread has the limit off
    os.register_at_fork(before=_pillow_limit.acquire, after_in_parent=_pillow_limit.release, after_in_child=_pillow_limit.release)


@contextlib.contextmanager
def pillow_limit_off():
    """Our own limit, which counts pixels as Pillow's does, is checked instead: one limit, one message.

    Pillow's is a global: one thread at a time changes it and sets it back.
    """
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
