"""Metadata of JPEG files: application segments and comments before the first scan, read within limits."""

import struct
from collections.abc import Iterator

_XMP, _MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_EXIF, _ICC, _PHOTOSHOP, _JFIF, _ADOBE = b"Exif\0\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"JFIF\0", b"Adobe"
_APP0, _APP1, _APP2, _APP13, _APP14, _APP15, _COMMENT, _SCAN = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF, 0xFE, 0xDA
_IPTC = 0x0404  # among Photoshop's resources


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, where the segment begins with its marker, where it ends; up to the first scan, or to another thing."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fills
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in (0, 0x01, _SCAN) or 0xD0 <= marker <= 0xD9 or not position + 4 <= end <= len(data):
            return
        yield marker, position, end
        position = end


def take(data: bytes, limit: int) -> tuple[bytes, dict, list[str]]:
    """The file without its metadata; the metadata under Pillow's names; what of it is not there, in words.

    limit: bytes of each. Left in the file are only the segments that say what its samples mean, JFIF's and Adobe's.
    Without the index of further pictures that phones write (MPF), the file is that of the first one alone.
    """
    parts, found, lost, pieces, blocks, kept_from = [], {}, {}, [], [], 0
    for marker, start, end in segments(data):
        content = data[start + 4 : end]
        if marker == _APP0 and content.startswith(_JFIF) and len(content) >= 14:
            unit, x, y = struct.unpack_from(">BHH", content, 7)
            if unit in (1, 2):
                found["dpi"] = (x, y) if unit == 1 else (x * 2.54, y * 2.54)
            continue
        if marker == _APP14 and content.startswith(_ADOBE) and len(content) >= 12:
            continue
        if not (_APP0 <= marker <= _APP15 or marker == _COMMENT):
            continue
        parts.append(data[kept_from:start])
        kept_from = end
        if marker == _APP1 and content.startswith(_EXIF):
            blocks.append(content[len(_EXIF) :])  # a long one is in several segments
        elif marker == _APP1 and content.startswith(_XMP):
            found.setdefault("xmp", content[len(_XMP) :])
        elif marker == _APP1 and content.startswith(_MORE_XMP):
            lost["extended XMP"] = None
        elif marker == _APP2 and content.startswith(_ICC):
            pieces.append(content[len(_ICC) :])
        elif marker == _APP2 and content.startswith(b"MPF\0"):
            lost["pictures behind this one"] = None
        elif marker == _APP2 and content.startswith(b"urn:iso:std:iso:ts:21496:-1\0"):
            lost["gain map"] = None
        elif marker == _APP13 and content.startswith(_PHOTOSHOP):
            if _IPTC in resources(content[len(_PHOTOSHOP) :]):
                lost["IPTC"] = None
        elif marker == _COMMENT:
            lost["text"] = None
    if blocks:
        found["exif"] = _EXIF + b"".join(blocks)
    if pieces:
        found["icc_profile"] = _joined(pieces)
    for key, word in {"exif": "EXIF", "icc_profile": "ICC profile"}.items():
        if len(found.get(key) or b"") > limit or found.get(key, b"") is None:
            del found[key]
            lost[f"{word} (damaged, or too large)"] = None
    return b"".join([*parts, data[kept_from:]]), found, list(lost)


def _joined(pieces: list[bytes]) -> bytes | None:
    """An ICC profile of numbered pieces: number from 1, how many there are, the bytes. None unless all are there."""
    pieces = sorted(pieces)
    if [tuple(piece[:2]) for piece in pieces] != [(number, len(pieces)) for number in range(1, len(pieces) + 1)]:
        return None
    return b"".join(piece[2:] for piece in pieces)


def resources(data: bytes) -> set[int]:
    """The numbers of Photoshop's image resources ("8BIM" blocks)."""
    found, position = set(), 0
    while data[position : position + 4] == b"8BIM" and position + 12 <= len(data):
        found.add(int.from_bytes(data[position + 4 : position + 6], "big"))
        position += 6 + (data[position + 6] // 2 + 1) * 2  # the name with its length, filled up to an even number
        position += 4 + (int.from_bytes(data[position : position + 4], "big") + 1) // 2 * 2
    return found
