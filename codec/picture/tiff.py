"""Metadata of TIFF files, among the tags of the first directory: only tags that describe the picture, both ways.

What describes the layout of the file (sizes, offsets, compression, order of bits and samples) never leaves it, nor gets
into another: EXIF may hold such tags too, of the file that it once came from.
"""

import struct

from . import exif
from .exif import CAMERA, GPS, INTEROPERABILITY, Directory, Structure

_XMP, _ICC_PROFILE = 700, 34675
# A document's name; a title, maker, model, software, date, artist, host, white point and primaries, copyright; ratings;
# IPTC; what Windows writes (title, comment, author, keywords, subject); a camera's name and serial number.
DESCRIPTIVE = (
    269, 270, 271, 272, 305, 306, 315, 316, 318, 319, 33432, 18246, 18249, 33723, 40091, 40092, 40093, 40094, 40095,
    50708, 50735,
)  # fmt: skip
_LOST = {301: "transfer function", 34377: "Photoshop's settings"}
_DIRECTORIES = {CAMERA: (INTEROPERABILITY,), GPS: ()}  # and those below them
_BYTES = (
    exif.BYTE,
    exif.ASCII,
    exif.UNDEFINED,
)  # types of XMP and ICC profiles; some writers take the wrong one of them


def is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def take(data: bytes, limit: int) -> tuple[bytes, dict, list[str]]:
    """The file without its metadata; the metadata under Pillow's names; what of it is not there, in words.

    limit: bytes of each. EXIF is a block made of the descriptive tags and of the directories of camera and place, with
    the types and bytes that they have in the file. The tags are taken out of the first directory; nothing else of the
    file moves.
    """
    try:
        structure = Structure(data)
    except ValueError:
        return data, {}, []
    tags = structure.directory()
    found, lost = {}, [word for tag, word in _LOST.items() if tag in tags]
    for tag, key, word in ((_XMP, "xmp", "XMP"), (_ICC_PROFILE, "icc_profile", "ICC profile")):
        if tag in tags:
            if tags[tag].type in _BYTES and tags[tag].size <= limit:
                found[key] = structure.values(tags[tag])
            else:
                lost.append(f"{word} (of another type, or too large)")
    directory = _description(structure, exif.RESOLUTION if exif.resolution(data) else (), limit)
    if directory:
        block = exif.block(directory, structure.order)
        if len(block) <= limit:
            found["exif"] = block
        else:
            lost.append("EXIF (too large)")
    gone = {*DESCRIPTIVE, *_LOST, *_DIRECTORIES, _XMP, _ICC_PROFILE}
    return _without(structure, gone), found, lost


def _description(structure: Structure, also: tuple[int, ...], limit: int) -> Directory:
    """The tags that describe the picture, and `also` others, with the directories of camera and place."""
    tags = structure.directory()
    directory = exif.chosen(structure, tags, DESCRIPTIVE + also, limit)
    for tag, inner_tags in _DIRECTORIES.items():
        below = structure.below(tags.get(tag))
        content = exif.chosen(structure, below, set(below) - set(inner_tags), limit)
        for inner in inner_tags:
            entries = structure.below(below.get(inner))
            if inner_content := exif.chosen(structure, entries, entries, limit):
                content[inner] = inner_content
        if content:
            directory[tag] = content
    return directory


def _without(structure: Structure, gone: set[int]) -> bytes:
    """The file with a first directory, in its place, that lacks some tags."""
    data, places, size = structure.data, structure.places(), structure.entry_size
    kept = [data[place : place + size] for place in places if structure.unpack("H", place)[0] not in gone]
    if len(kept) == len(places):
        return data
    count = struct.pack(structure.order + ("Q" if structure.is_big else "H"), len(kept))
    start, stop = places.start - len(count), places.stop + structure.offset_size
    content = b"".join([count, *kept, data[places.stop : stop]])
    return b"".join([data[:start], content.ljust(stop - start, b"\0"), data[stop:]])


def with_metadata(tiff: bytes, block: bytes, xmp: bytes, dpi: tuple[float, float] | None) -> tuple[bytes, list[str]]:
    """A TIFF file with the tags of a block of EXIF that describe the picture, XMP, dots per inch where EXIF has none;
    and what is left out, in words."""
    order, directory, lost = Structure(tiff).order, {}, []
    try:
        structure = Structure(block)
        directory = _description(structure, (exif.ORIENTATION, *exif.RESOLUTION), len(block))
        if structure.order != order:
            directory = exif.turned(directory)
    except ValueError:
        if block:
            lost.append("EXIF (it cannot be read)")
    if dpi and exif.X_RESOLUTION not in directory:
        directory |= exif.resolution_tags(*dpi, order)
    if xmp:
        directory[_XMP] = exif.BYTE, xmp
    return exif.with_tags(tiff, directory) if directory else tiff, lost
