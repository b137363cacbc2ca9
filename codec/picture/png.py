"""Metadata of PNG files: chunks beside the picture, read here within limits so that none of them stops the picture."""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = "XML:com.adobe.xmp"
RAW_PROFILE = "Raw profile type "  # ImageMagick's: hex digits in a text chunk
_KEYWORDS = {XMP_KEYWORD, *(RAW_PROFILE + kind for kind in ("exif", "APP1", "xmp", "icc", "icm", "iptc", "8bim"))}
# Ancillary chunks that change pixels, or say that there are more pictures. All other ancillary ones are metadata.
_OF_PICTURES = (b"tRNS", b"acTL", b"fcTL", b"fdAT")
_WORDS = {
    b"eXIf": "EXIF", b"iCCP": "ICC profile", b"cICP": "cICP", b"gAMA": "gAMA", b"cHRM": "cHRM", b"sRGB": "sRGB",
    b"pHYs": "dots per inch", b"mDCV": "mDCV", b"cLLI": "cLLI",
}  # fmt: skip
_LOST = (b"mDCV", b"cLLI")  # how bright a display has been
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_METRE = 1


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, and where the content begins and ends; up to IEND, or to a chunk that the data does not hold whole."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            return
        name = data[position + 4 : position + 8]
        yield name, start, end
        if name == b"IEND":
            return
        position = end + 4


def take(data: bytes, limit: int) -> tuple[bytes, dict, list[str]]:
    """The file without its metadata; the metadata under Pillow's names, and "cicp"; what of it is not there, in words.

    limit: bytes of each, once inflated. A chunk that is damaged is left out. CICP is a tuple of four: primaries,
    transfer, matrix, full range.
    """
    parts, found, lost, kept_from = [], {}, {}, 0
    seen = set()  # each is read once, whatever it is then
    for name, start, end in chunks(data):
        if name[0] & 0x20 == 0 or name in _OF_PICTURES:  # upper case: critical
            continue
        parts.append(data[kept_from : start - 8])
        kept_from = end + 4
        word = _WORDS.get(name)
        if name in _TEXT:
            word = data[start : min(end, start + 80)].partition(b"\0")[0].decode("latin-1")
            if word not in _KEYWORDS:
                lost["text"] = None
                continue
        elif name in _LOST:
            lost[word] = None
        if word is None or word in seen or name in _LOST:
            continue
        seen.add(word)
        try:
            if zlib.crc32(data[start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                raise ValueError("damaged")
            key, value = _read(name, data[start:end], limit)
        except (ValueError, struct.error, zlib.error, IndexError):
            lost[f"{word} (damaged, or too large)"] = None
            continue
        if value is not None:
            found.setdefault(key, value)
    return b"".join([*parts, data[kept_from:]]), found, list(lost)


def _read(name: bytes, content: bytes, limit: int) -> tuple[str, object]:
    """Pillow's name of a chunk's content, and the content; ValueError, or of struct or zlib, if it is damaged."""
    if name in _TEXT:
        keyword, value = _text(name, content, limit)
        return ("xmp", value) if keyword == XMP_KEYWORD else (keyword, value.decode("latin-1"))
    if name == b"iCCP":
        _, _, rest = content.partition(b"\0")
        return "icc_profile", _inflated(rest, limit)
    if name == b"eXIf":
        if len(content) > limit:
            raise ValueError("too large")
        return "exif", b"Exif\0\0" + content
    if name == b"cICP":
        primaries, transfer, matrix, full_range = struct.unpack("4B", content)
        if matrix or full_range > 1:
            raise ValueError("not of RGB")
        return "cicp", (primaries, transfer, matrix, full_range)
    if name == b"gAMA":
        return "gamma", struct.unpack(">I", content)[0] / 100000
    if name == b"cHRM":
        return "chromaticity", tuple(value / 100000 for value in struct.unpack(">8I", content))
    if name == b"sRGB":
        return "srgb", struct.unpack("B", content)[0]
    x, y, unit = struct.unpack(">IIB", content)  # pHYs
    return "dpi", (x * 0.0254, y * 0.0254) if unit == _METRE else None


def _text(name: bytes, content: bytes, limit: int) -> tuple[str, bytes]:
    keyword, _, rest = content.partition(b"\0")
    limit *= 1 if keyword == XMP_KEYWORD.encode() else 3  # of hex digits
    if name == b"tEXt":
        value = rest
    elif name == b"zTXt":
        value = _inflated(rest, limit)
    else:
        packed, method = rest[0], rest[1:2]
        _, _, value = rest[2:].split(b"\0", 2)  # language, keyword in that language
        value = _inflated(method + value, limit) if packed else value
    if len(value) > limit:
        raise ValueError("too large")
    return keyword.decode("latin-1"), value


def _inflated(content: bytes, limit: int) -> bytes:
    """content: a byte for the method, 0, then a zlib stream."""
    if content[0] != 0:
        raise ValueError("unknown method")
    inflater = zlib.decompressobj()
    out = inflater.decompress(content[1:], limit + 1)
    if len(out) > limit or not inflater.eof:
        raise ValueError("too large, or not whole")
    return out


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
