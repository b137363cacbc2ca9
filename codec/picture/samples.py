"""What the samples of an image file are, by its own header and tags: whether Pillow reads them as they stand.

Pillow gives a picture a mode, which says neither how deep the samples of the file were, nor whether they had a sign,
nor which of them have gone. So the file is asked: what is not known to be read right is refused, and what does not
come along is said.
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImagePalette

from ..errors import ImageError
from . import png
from .boxes import boxes
from .conversion import DEEP

# Formats of which it is known what Pillow's decoders do with each kind of sample that there may be. Others are drawings that
# a program would have to draw (EPS, WMF), measurements (FITS, SPIDER, McIDAS), or what needs a plugin.
KNOWN = frozenset(
    "AVIF BLP BMP CUR DCX DDS DIB FLI FTEX GBR GIF ICNS ICO IM JPEG JPEG2000 MPO MSP PCX PIXAR PNG PPM PSD QOI SGI SUN "
    "TGA TIFF WEBP XBM XPM XVTHUMB".split()
)
_ELSEWHERE = "convert the file to PNG or TIFF"
_FIVE_SIX_FIVE = ("BGR;16", "RGB;16")  # Pillow's: bits of the three samples of a pixel


def check_format(image: Image.Image) -> None:
    """ImageError for an image, open but not loaded, of a format that is not known to be read right."""
    if image.format not in KNOWN:
        raise ImageError(f"files of the format {image.format} are not read: {_ELSEWHERE}")


def pictures(image: Image.Image, data: bytes) -> int:
    """How many pictures of equal right a file has. What goes with one of them (a preview, layers) does not count."""
    if image.format in ("MPO", "PSD"):  # a JPEG with a preview or a gain map behind it; a picture and its layers
        return 1
    if image.format == "DDS":
        return _pictures_of_dds(data)
    return getattr(image, "n_frames", 1)


def bits(image: Image.Image, data: bytes, *, exact: bool, remark: Callable[[str], None]) -> int:
    """Bits of the deepest sample of a file, open but not loaded; 8 if it has fewer, or if Pillow reads them all.

    ImageError for samples that Pillow reads as others than they are; with `exact` also where it leaves some out or
    changes them in a way that can be told, which otherwise `remark` is told.
    """
    if image.format == "TIFF":
        return _bits_of_tiff(image, exact=exact, remark=remark)
    found = [8]
    for decoder, _, _, arguments in getattr(image, "tile", ()):  # what Pillow tells its decoders
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        raw_modes = {argument for argument in arguments if isinstance(argument, str)}
        if any(";16" in mode and mode not in _FIVE_SIX_FIVE for mode in raw_modes) or decoder == "SGI16":
            found.append(16)
        elif decoder in ("ppm", "ppm_plain") and isinstance(arguments[-1], int):
            found.append(arguments[-1].bit_length())  # of the largest value
            if exact and (found[-1] <= 8 or image.mode in DEEP):
                _check_levels(arguments[-1])
        elif decoder == "dds_rgb":
            found += [mask.bit_count() for mask in arguments[1]]
        elif decoder == "bcn":
            _check_blocks(arguments[-1])
    if image.format == "AVIF":
        found.append(_bits_of_avif(data))
        if b"tmap" in data[: int.from_bytes(data[:4], "big")]:  # among the brands of the file
            remark("gain map left out")
    elif image.format == "JPEG2000":
        found.append(_bits_of_jpeg2000(image, data))
    elif image.format == "PSD":
        _check_psd(image, data, exact=exact, remark=remark)
    elif image.format in ("JPEG", "MPO") and exact:
        remark("exact pixels of a JPEG take several times its bytes")
    elif image.format in ("ICO", "ICNS", "CUR"):
        count = int.from_bytes(data[4:6], "little") if image.format == "CUR" else len(image.info["sizes"])
        if count > 1:
            remark(f"the largest of {count} pictures")
        found += [data[place + 24] for place in _places(data, png.SIGNATURE)]  # icons may be files of PNG
    return 8 if image.mode in (*DEEP, "F") else max(found)


def in_planes(image: Image.Image) -> bool:
    """Whether an image of a TIFF file has its samples in planes of their own."""
    return image.tag_v2.get(_PLANAR, 1) == 2


def mend(image: Image.Image, data: bytes, remark: Callable[[str], None]) -> Image.Image:
    """An image that has been loaded, with what its file means and Pillow does not do."""
    if image.format == "TIFF" and image.mode == "I;16" and image.tag_v2[_PHOTOMETRIC] == _WHITE_IS_ZERO:
        image.frombytes((0xFFFF - np.asarray(image)).astype("<u2").tobytes())
    elif image.format == "TGA" and image.mode == "RGBA" and data[16] == 32 and not data[17] & 15:
        info, image = image.info, image.convert("RGB")
        image.info = info
        remark("a fourth sample left out, which the file does not call alpha")
    return image


def _refuse(what: str, way: str = _ELSEWHERE) -> None:
    raise ImageError(f"{what}: {way}")


# ── TIFF, by its tags ──

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_COLOURS, _TILE_WIDTH, _TILE_ROWS, _TILES, _TILE_BYTES, _SUBFILES = 320, 322, 323, 324, 325, 330
_INK_SET, _EXTRA, _FORMAT, _YCC_WEIGHTS, _SUBSAMPLING, _BLACK_WHITE, _DEPTH = 332, 338, 339, 529, 530, 532, 32997
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _INK, _YCC = 0, 1, 2, 3, 5, 6  # photometric interpretations
_UNCOMPRESSED, _OLD_JPEG = 1, 6
_ASSOCIATED = 1  # an extra sample: alpha that has been multiplied into the colours
_SIGNED = 2
_BLACK_WHITE_OF_JPEG, _WEIGHTS_OF_JPEG = (0, 255, 128, 255, 128, 255), (0.299, 0.587, 0.114)


def _bits_of_tiff(image: Image.Image, *, exact: bool, remark: Callable[[str], None]) -> int:
    tags = image.tag_v2

    def numbers(tag: int, default: tuple) -> tuple:
        value = tags.get(tag, default)
        return value if isinstance(value, tuple) else (value,)

    if _PHOTOMETRIC not in tags:
        _refuse("a TIFF that does not say what its samples mean (PhotometricInterpretation)")
    photometric, compression = tags[_PHOTOMETRIC], tags.get(_COMPRESSION, _UNCOMPRESSED)
    if compression == _OLD_JPEG:  # which has its own headers, and only one kind of samples
        return 8
    samples, raw = tags.get(_SAMPLES, 1), compression == _UNCOMPRESSED
    deep = numbers(_BITS, (1,))
    deep = deep * samples if len(deep) == 1 else deep[:samples]
    planes, reversed_bits = in_planes(image), tags.get(_FILL_ORDER, 1) == 2
    extra = numbers(_EXTRA, ())
    if tags.get(_SUBFILE, 0) & 1 and _SUBFILES in tags:
        _refuse("the first picture of this TIFF is a smaller version of another one in it")
    if tags.get(_DEPTH, 1) > 1:
        _refuse(f"a TIFF of {tags[_DEPTH]} pictures, one behind the other")
    if photometric == _INK and tags.get(_INK_SET, 1) != 1:
        _refuse("inks other than cyan, magenta, yellow and black")
    if _SIGNED in numbers(_FORMAT, (1,)):
        if max(deep) < 16:
            _refuse(f"samples of {max(deep)} bits with a sign", "lossless files hold those of 0 and more")
        if not raw and tags.prefix != {"little": b"II", "big": b"MM"}[sys.byteorder]:
            _refuse("compressed samples with a sign in the byte order of another machine")
    if photometric == _YCC and (samples != 3 or raw and not (image.mode == "YCbCr" and _is_plain_ycc(numbers, planes))):
        _refuse("YCbCr other than JPEG's, of full size")
    # Pillow reads a plane by the first letter of what it says of a pixel, and compressed planes of LA and LAB as one.
    plain = photometric in (_BLACK_IS_ZERO, _RGB, _PALETTE, _INK) and max(deep) == 8 and not reversed_bits
    deep_planes = photometric == _RGB and max(deep) == 16 and not reversed_bits  # read by another reader
    if planes and not (plain or deep_planes if raw else photometric in (_RGB, _INK, _YCC) or samples == 1):
        _refuse("samples in planes of their own, of a kind that Pillow does not read right")
    if photometric == _PALETTE:
        _check_palette(image, deep[0], numbers(_COLOURS, ()), exact=exact, remark=remark)
    _check_parts(tags, numbers, samples if planes else 1, deep if not planes else deep[:1], raw)
    gone = samples - len(image.getbands())
    if gone > 0:
        words = f"{gone} extra sample{'s' if gone > 1 else ''} a pixel"
        if exact:
            _refuse(f"{words} beside colour and alpha", "lossless files hold no others")
        remark(f"{words} left out")
    if _ASSOCIATED in extra and image.mode == "RGBA":
        if exact:
            _refuse("colours that alpha has been multiplied into", "lossless files hold them before that")
        remark("colours divided by the alpha that had been multiplied into them")
    if image.mode in DEEP:
        if max(deep) not in (16, 32):
            remark(f"samples of {max(deep)} bits kept as the same numbers of 16 bits")
        return 8
    if planes and raw and deep_planes and tags.get(_ORIENTATION, 1) != 1:
        _refuse("samples of 16 bits in planes of their own, of a picture that is to be turned")
    return max(deep) if image.mode != "F" else 8


def _is_plain_ycc(numbers: Callable, planes: bool) -> bool:
    """Whether Pillow's own conversion is that of the file. (Before version 12 it takes all of them for RGB.)"""
    weights = numbers(_YCC_WEIGHTS, _WEIGHTS_OF_JPEG)
    return (
        not planes and numbers(_SUBSAMPLING, (2, 2)) == (1, 1)
        and np.allclose(np.array(weights, float), _WEIGHTS_OF_JPEG, atol=1e-3)
        and np.allclose(np.array(numbers(_BLACK_WHITE, _BLACK_WHITE_OF_JPEG), float), _BLACK_WHITE_OF_JPEG)
    )  # fmt: skip


def _check_palette(
    image: Image.Image, bits: int, colours: tuple, *, exact: bool, remark: Callable[[str], None]
) -> None:
    """Its entries have 16 bits, of which Pillow takes the upper 8."""
    if len(colours) != 3 << bits:
        _refuse(f"a palette of {len(colours)} numbers for indices of {bits} bits")
    if 0 < max(colours) < 256:  # written by programs that did not know; libtiff sees it so, too
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))
        remark("entries of the palette taken for 8 bits: none of them is above 255")
    elif exact and any(colour & 0xFF not in (0, colour >> 8) for colour in colours):
        _refuse("a palette with entries of 16 bits", "lossless files hold those of 8")


def _check_parts(tags, numbers: Callable, planes: int, deep: tuple, raw: bool) -> None:
    """All strips or tiles must be there: what Pillow finds none for stays black, and those without data are no picture."""
    width, height = tags[_WIDTH], tags[_HEIGHT]
    if _STRIPS in tags:
        rows = min(tags.get(_STRIP_ROWS, height), height)
        offsets, lengths = numbers(_STRIPS, ()), numbers(_STRIP_BYTES, ())
        across, all_rows = 1, height
    else:
        rows, across = tags[_TILE_ROWS], -(-width // tags[_TILE_WIDTH])
        offsets, lengths = numbers(_TILES, ()), numbers(_TILE_BYTES, ())
        width, all_rows = tags[_TILE_WIDTH], across * rows * -(-height // rows)
    due = planes * across * -(-height // rows)
    if len(offsets) != due or 0 in offsets:
        _refuse(f"{len(offsets) - offsets.count(0)} strips or tiles where there should be {due}", "the file is damaged")
    needed = planes * all_rows * ((width * sum(deep) + 7) // 8)
    if raw and lengths and sum(lengths) < needed:
        _refuse(f"strips or tiles of {sum(lengths)} bytes, where the picture takes {needed}", "the file is damaged")


# ── other formats ──


def _places(data: bytes, words: bytes) -> Iterator[int]:
    """Where they begin, with at least 25 bytes from there."""
    place = data.find(words, 0, -25)
    while place >= 0:
        yield place
        place = data.find(words, place + 1, -25)


def _check_levels(largest: int) -> None:
    """PGM and PPM: samples of 0 to `largest`, which Pillow spreads over 8 or 16 bits and rounds."""
    if (255 if largest < 256 else 0xFFFF) % largest:
        way = "scale them to 0 to 255 or 65535"
        _refuse(f"samples of 0 to {largest}, which do not spread evenly over 8 or 16 bits", way)


def _bits_of_avif(data: bytes) -> int:
    """By the first of its coded pictures: all have the same depth."""
    place = data.find(b"av1C")  # then marker and version, profile and level, flags
    return (8, 8, 10, 12)[data[place + 6] >> 5 & 3] if place >= 0 else 8


def _bits_of_jpeg2000(image: Image.Image, data: bytes) -> int:
    """By the header of the codestream, and by the boxes around it, if there are any."""
    start = data.find(b"\xff\x4f\xff\x51")
    count = int.from_bytes(data[start + 40 : start + 42], "big")
    components = data[start + 42 : start + 42 + 3 * count]
    kinds = {components[3 * index : 3 * index + 3] for index in range(count)}
    if len(kinds) != 1:
        _refuse("components of different kinds")
    depth, *steps = kinds.pop()
    if depth & 0x80:
        _refuse("samples with a sign")
    if steps != [1, 1]:
        _refuse("components of another size than the picture")
    depth += 1
    if depth not in (8, 16) and not (depth > 8 and count > 1):  # gray: Pillow shifts, so that white is white no more
        _refuse(f"samples of {depth} bits, which Pillow shifts to {8 if depth < 8 else 16}")
    if image.mode in ("P", "PA"):
        _refuse("a palette in JPEG 2000")
    for type, begin, end in boxes(data, 0, start) if start > 0 else ():
        if type == b"jp2h":
            for inner, first, last in boxes(data, begin, end):
                _check_jp2_box(inner, data[first:last], count)
    return depth


def _check_jp2_box(type: bytes, content: bytes, components: int) -> None:
    if type == b"colr" and content[:1] == b"\1":  # an enumerated colour space
        space = int.from_bytes(content[3:7], "big")
        if space not in (12, 16, 17, 18):  # CMYK, sRGB, gray, sYCC
            _refuse(f"colour space {space} of JPEG 2000")
    elif type == b"cdef":  # which component is what: number, kind, of which colour
        words = np.frombuffer(content[2 : 2 + 6 * components], ">u2").reshape(-1, 3).tolist()
        plain = [[index, 0, index + 1] for index in range(components)]
        if sorted(words) not in (plain, [*plain[:-1], [components - 1, 1, 0]]):
            _refuse("components in another order, or colours that alpha has been multiplied into")


def _check_blocks(pixel_format: str) -> None:
    """DDS: textures in blocks whose samples are no levels of 8 bits."""
    if pixel_format.startswith("BC6"):
        _refuse(f"a texture of high dynamic range ({pixel_format})", "convert it to levels of 8 bits")
    if pixel_format.endswith("S"):
        _refuse(f"a texture with a sign ({pixel_format})")


def _pictures_of_dds(data: bytes) -> int:
    """Faces of a cube, slices of a volume, textures of an array; levels of detail are one picture."""
    below, capabilities = (int.from_bytes(data[place : place + 4], "little") for place in (24, 112))
    count = 6 if capabilities & 0x200 else max(1, below) if capabilities & 0x200000 else 1
    if data[84:88] == b"DX10":
        flags, length = (int.from_bytes(data[place : place + 4], "little") for place in (136, 140))
        count = max(count, max(1, length) * (6 if flags & 4 else 1))
    return count


_RGB_OF_PSD, _CHANNELS_OF_PSD, _DUOTONE = 3, 7, 8
_VERSION_INFO = 1057  # an image resource of Photoshop; its fifth byte: whether there is a picture beside the layers


def _check_psd(image: Image.Image, data: bytes, *, exact: bool, remark: Callable[[str], None]) -> None:
    channels, mode = (int.from_bytes(data[place : place + 2], "big") for place in (12, 24))
    if any(number == _VERSION_INFO and content[4:5] == b"\0" for number, _, content in image.resources):
        _refuse("layers without a picture of them all", "save it with maximal compatibility")
    if mode == _CHANNELS_OF_PSD and channels > 1:
        _refuse(f"{channels} channels that are no colours")
    gone = channels - len(image.getbands())
    words = ["the inks of a duotone"] if mode == _DUOTONE else []
    words += [f"{gone} extra channel{'s' if gone > 1 else ''}"] if gone > 0 else []
    if words and exact:
        _refuse(" and ".join(words), "lossless files hold gray, or colour and alpha")
    for left_out in words:
        remark(f"{left_out} left out")
