"""Files by name: image files through Pillow, any bytes read whole and written whole or not at all. "-" is a pipe."""

import contextlib
import io
import os
import secrets
import shutil
import stat
import struct
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from .conversion import DEEP
from .errors import CodecError, ImageError
from .image import DeepImage, check_size

ARRAY = "NPY"  # a file of NumPy, for samples that no format of Pillow takes

# Beyond the defaults of Pillow, which would lose what the decoder has just restored.
_SAVE_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
# TIFF has no EXIF block: these of its own tags describe the picture and not the layout of the file.
_DESCRIPTIVE_TIFF_TAGS = (270, 271, 272, 305, 306, 315, 316, 33432)
_EXIF_DIRECTORIES = (0x8769, 0x8825)  # camera, GPS
_XMP_TIFF_TAG = 700


def read_bytes(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def read_image(
    name: str, *, first_frame: bool = False, max_pixels: int | None = None, deep: bool = False
) -> Image.Image | np.ndarray:
    """The decoded picture, with ICC profile, EXIF and XMP in its `info`; of a file of NumPy (.npy) its array.

    Of an animation or a document only the first frame, and only if `first_frame` says so. LimitError before anything
    beyond `max_pixels` is decoded; ImageError for what Pillow cannot read, and for deeper samples of which it keeps 8
    bits: nothing is cut in silence. With `deep`, colour of 16 bits in PNG and TIFF is a `DeepImage`. OSError as for any
    file.
    """
    data = read_bytes(name)
    if data.startswith(np.lib.format.MAGIC_PREFIX):
        return _array(data, max_pixels)
    try:
        with _pillow_limit_off():
            image = Image.open(io.BytesIO(data))
            check_size(*image.size, max_pixels)
            # MPO is a JPEG with a preview or a gain map behind it, PSD a picture and its layers; the picture is first.
            frames = 1 if image.format in ("MPO", "PSD") else getattr(image, "n_frames", 1)
            if frames > 1 and not first_frame:
                raise ImageError(f"{frames} frames: only the first can be coded, with --first-frame")
            bits = 8 if image.mode in (*DEEP, "F") else _bits(image, data)
            deep = deep and bits == 16 and image.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA")
            if bits > 8 and not deep:
                raise ImageError(
                    f"samples of {bits} bits, of which Pillow reads 8 in mode {image.mode}: convert the file to 8 bits; "
                    "--lossless takes 16 from PNG, TIFF and .npy (NumPy's)"
                )
            _widen_transparent_level(image)
            image.load()
            if image.format == "TIFF":
                image.info["exif"] = _exif_of_tiff(image)
            if deep:
                image = _deep_image(image, data)
    except CodecError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not an image that Pillow can read") from error
    except Exception as error:  # Pillow's decoders raise whatever the damage makes them stumble over
        raise ImageError(f"the image cannot be decoded: {error}") from error
    return image


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


_FIVE_SIX_FIVE = ("BGR;16", "RGB;16")  # bits of the three samples of a pixel


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits of the deepest sample of a file, open but not loaded; 8 if it has fewer, or if nothing is known of it.

    Pillow says it in no one place: some decoders are told (raw modes, arguments), and others look for themselves.
    """
    found = [8]
    for decoder, _, _, arguments in getattr(image, "tile", ()):
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        raw_modes = {argument for argument in arguments if isinstance(argument, str)}
        if any(";16" in mode and mode not in _FIVE_SIX_FIVE for mode in raw_modes) or decoder == "SGI16":
            found.append(16)
        elif decoder in ("ppm", "ppm_plain") and isinstance(arguments[-1], int):
            found.append(arguments[-1].bit_length())  # of the largest value
    box = data.find(b"av1C") if image.format == "AVIF" else -1
    if box >= 0:  # then marker and version, profile and level, flags
        found.append((8, 8, 10, 12)[data[box + 6] >> 5 & 3])
    start = data.find(b"\xff\x4f\xff\x51") if image.format == "JPEG2000" else -1
    if start >= 0:  # the codestream; three bytes a component follow their number
        components = int.from_bytes(data[start + 40 : start + 42], "big")
        found += [(size & 0x7F) + 1 for size in data[start + 42 : start + 42 + 3 * components : 3]]
    return max(found)


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
    deep = np.empty((height, width, channels + alpha), np.uint16)
    decode = imagecodecs.png_decode if image.format == "PNG" else imagecodecs.tiff_decode
    try:
        decode(data, out=deep)
        same = np.array_equal(deep[..., :channels] >> 8, upper)
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
def _pillow_limit_off():
    """Our own limit, which counts pixels as Pillow's does, is checked instead: one limit, one message.

    Pillow's is a global: one thread at a time changes it and sets it back.
    """
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _exif_of_tiff(image: Image.Image) -> bytes:
    source, kept = image.getexif(), Image.Exif()
    for tag in _DESCRIPTIVE_TIFF_TAGS:
        if tag in source:
            kept[tag] = source[tag]
    for directory in _EXIF_DIRECTORIES:
        if entries := source.get_ifd(directory):
            kept.get_ifd(directory).update(entries)
    return kept.tobytes() if len(kept) or any(kept.get_ifd(directory) for directory in _EXIF_DIRECTORIES) else b""


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


def image_bytes(image: Image.Image | np.ndarray, format: str) -> bytes:
    """An image file in memory, with the metadata of `info` as far as the format carries it."""
    if format == ARRAY:
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(image), allow_pickle=False)
        return buffer.getvalue()
    if isinstance(image, np.ndarray):
        if format != "PNG":
            raise ImageError(f"{image.shape[2]} samples of 16 bits a pixel: take a name in .png or .npy")
        return _deep_png(image)
    options = {key: image.info[key] for key in ("icc_profile", "exif", "xmp", "dpi") if key in image.info}
    options |= _SAVE_OPTIONS.get(format, {})
    if format == "JPEG" and "exif" in options and not options["exif"].startswith(b"Exif\0\0"):
        options["exif"] = b"Exif\0\0" + options["exif"]
    if format == "PNG" and "xmp" in options:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options["xmp"].decode("utf-8", "replace"))
    if format == "TIFF":
        tags = Image.Exif()
        tags.load(options.pop("exif", b""))
        if "xmp" in options:
            tags[_XMP_TIFF_TAG] = options.pop("xmp")
        options["tiffinfo"] = tags
    buffer = io.BytesIO()
    try:
        image.save(buffer, format, **options)
    except Exception as error:
        hint = ", take a name in .tif" if image.mode == "PA" else ""
        raise ImageError(f"cannot be written as {format}: {error}{hint}") from error
    return buffer.getvalue()


def _deep_png(image: DeepImage) -> bytes:
    """Colour of 16 bits, which Pillow lacks; the chunks of metadata are those that it writes for another picture."""
    height, width, channels = image.shape
    other = Image.new("L", (1, 1))
    other.info = image.info
    other = image_bytes(other, "PNG")
    metadata = other[33 : other.rindex(b"IDAT") - 4]  # what is between the header and the samples
    rows = np.full((height, 1 + 2 * channels * width), 2, np.uint8)  # filter 2: differences to the row above
    rows[:, 1:] = np.ascontiguousarray(image, ">u2").view(np.uint8).reshape(height, -1)
    rows[1:, 1:] -= rows[:-1, 1:]
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    samples = _png_chunk(b"IDAT", zlib.compress(rows))
    return other[:8] + _png_chunk(b"IHDR", header) + metadata + samples + _png_chunk(b"IEND", b"")


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def check_output(name: str, *, overwrite: bool) -> None:
    """OSError now rather than after the work if `name` cannot become a file."""
    if name == "-":
        if sys.stdout.isatty():
            raise OSError("refusing to write binary data to a terminal")
        return
    path = Path(name)
    if path.is_dir():
        raise IsADirectoryError(f"{name} is a directory")
    if not overwrite and path.exists():
        raise FileExistsError(f"{name} exists and is not to be replaced")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{name} cannot be written: there is no directory {path.parent}")


def _take_name(temporary: Path, path: Path) -> None:
    """Rename unless something has that name, even if it has come this moment: FileExistsError."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: hold the name with an empty file first
        path.touch(exist_ok=False)
        try:
            os.replace(temporary, path)
        except BaseException:
            path.unlink()
            raise


def write_bytes(name: str, data: bytes, *, overwrite: bool = True) -> None:
    """All of `data` under `name`, or, whatever happens, what was there before.

    The bytes go to a temporary file beside the target, which then takes its name; a link is followed to its target,
    and what is not a regular file (a device, a named pipe) is written to directly.
    """
    check_output(name, overwrite=overwrite)
    if name == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(os.path.realpath(name))
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            if path.exists():
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
        else:
            _take_name(temporary, path)
    except FileExistsError as error:
        raise FileExistsError(f"{name} exists and is not to be replaced") from error
    except OSError as error:
        raise OSError(f"{name} cannot be written: {(error.strerror or str(error)).lower()}") from error
    finally:
        if temporary.exists():  # on a read-only system even the removal of nothing is an error
            temporary.unlink()
