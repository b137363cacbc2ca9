"""EXIF, byte by byte: directories of tags in a TIFF structure, read within bounds and changed one tag at a time.

    block:      "Exif" 0 0, or not | "II" or "MM" | 42 | offset of the first directory | …
    directory:  count | (tag, type, number of values, the value or its offset) × count | offset of the next directory

A block is never taken apart and put together again: what is not asked for keeps its bytes and its place, so that
offsets which only the maker of a camera knows stay right. A TIFF file is such a structure too (`tiff.py`); with 43 in
place of 42, a BigTIFF, its numbers are wider. Directories are followed where a caller names them, never from one to the
next, so no loop among them matters.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

PREFIX = b"Exif\0\0"
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x0112, 0x011A, 0x011B, 0x0128
RESOLUTION = (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT)
CAMERA, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005  # tags that point to directories
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WORDS = _SIZES | {5: 4, 10: 4}  # type: bytes that the byte order turns
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q"}  # in notation of `struct`
_INCH, _CENTIMETRE = 2, 3
_MAX_ENTRIES = 2**16  # of a directory; more cannot be written, and are read by nobody

Directory = dict[int, "tuple[int, bytes] | Directory"]  # tag: type and values, or the directory that the tag points to


@dataclass(frozen=True)
class Entry:
    """One tag of a directory; where it and its values are, counted from the beginning of the data."""

    place: int
    type: int
    count: int
    start: int
    size: int  # bytes of the values


class Structure:
    """The directories of EXIF or of a TIFF file. ValueError if `data` is neither."""

    def __init__(self, data: bytes | bytearray):
        self.data, self.base = data, 0  # offsets count from `base`
        while (
            self.base < 2 * len(PREFIX) and data[self.base : self.base + len(PREFIX)] == PREFIX
        ):  # some write it twice
            self.base += len(PREFIX)
        self.order = {b"II": "<", b"MM": ">"}.get(bytes(data[self.base : self.base + 2]))
        if self.order is None or len(data) < self.base + 8:
            raise ValueError("no byte order of EXIF or TIFF")
        version = self.unpack("H", self.base + 2)[0]
        if version == 42:
            self._counts, self._fields, self._offset, self.first = "H", "HHI4x", "I", self.base + 4
        elif version == 43 and len(data) >= self.base + 16 and self.unpack("HH", self.base + 4) == (8, 0):
            self._counts, self._fields, self._offset, self.first = "Q", "HHQ8x", "Q", self.base + 8
        else:
            raise ValueError(f"version {version} of TIFF")
        self.is_big = version == 43
        self.entry_size = struct.calcsize("=" + self._fields)
        self.count_size = struct.calcsize("=" + self._counts)
        self.offset_size = struct.calcsize("=" + self._offset)

    def unpack(self, notation: str, place: int) -> tuple:
        return struct.unpack_from(self.order + notation, self.data, place)

    def places(self, start: int | None = None) -> range:
        """Where the entries of a directory are, as many as it counts and the data holds; `start` None: the first."""
        if start is None:
            start = self.base + self.unpack(self._offset, self.first)[0]
        if start + self.count_size > len(self.data):
            return range(0)
        count = min(self.unpack(self._counts, start)[0], _MAX_ENTRIES)
        begin = start + self.count_size
        count = min(count, (len(self.data) - begin) // self.entry_size)
        return range(begin, begin + count * self.entry_size, self.entry_size)

    def directory(self, start: int | None = None) -> dict[int, Entry]:
        """The entries of a directory that are of a known type and within the data; of a repeated tag the first."""
        found: dict[int, Entry] = {}
        for place in self.places(start):
            tag, type, count = self.unpack(self._fields, place)
            size = _SIZES.get(type, 0) * count
            field = place + self.entry_size - self.offset_size
            if size > self.offset_size:
                field = self.base + self.unpack(self._offset, field)[0]
            if 0 < size <= len(self.data) - field and tag not in found:
                found[tag] = Entry(place, type, count, field, size)
        return found

    def values(self, entry: Entry) -> bytes:
        """As they stand: in the byte order of the data."""
        return bytes(self.data[entry.start : entry.start + entry.size])

    def number(self, entry: Entry | None) -> int | Fraction | float | None:
        """The first value, if it is a number."""
        if entry is None or entry.type not in (*_NUMBERS, 5, 10):
            return None
        if entry.type in (5, 10):
            above, below = self.unpack("II" if entry.type == 5 else "ii", entry.start)
            return Fraction(above, below) if below else None
        return self.unpack(_NUMBERS[entry.type], entry.start)[0]

    def below(self, entry: Entry | None) -> dict[int, Entry]:
        """The directory that an entry points to; empty if it does not."""
        if entry is None or entry.type not in (4, 13, 16, 18):
            return {}
        wide = entry.type in (16, 18)
        return self.directory(self.base + self.unpack("Q" if wide else "I", entry.start)[0])


def _structure(exif: bytes) -> Structure | None:
    try:
        return Structure(exif)
    except ValueError:
        return None


def orientation(exif: bytes) -> int | None:
    """1 to 8, as EXIF has it; None if it says nothing, or something else."""
    if (structure := _structure(exif)) is None:
        return None
    entry = structure.directory().get(ORIENTATION)
    value = structure.number(entry) if entry and entry.type in (BYTE, SHORT, LONG) else None
    return value if value in range(1, 9) else None


def with_orientation(exif: bytes, value: int) -> bytes:
    """The block with one tag changed in its place, or, if it is not there, with another first directory at the end.

    ValueError for what is not a TIFF structure.
    """
    structure = Structure(exif)
    content = struct.pack(structure.order + "H", value)
    for place in structure.places():
        if structure.unpack("H", place)[0] == ORIENTATION and not structure.is_big:
            entry = struct.pack(structure.order + "HHI", ORIENTATION, SHORT, 1) + content.ljust(4, b"\0")
            return bytes(exif[:place]) + entry + bytes(exif[place + len(entry) :])
    return with_tags(exif, {ORIENTATION: (SHORT, content)})


def has_resolution(exif: bytes) -> bool:
    """Whether EXIF has a word of dots per inch or centimetre, right or wrong."""
    structure = _structure(exif)
    return structure is not None and X_RESOLUTION in structure.directory()


def resolution(exif: bytes) -> tuple[float, float] | None:
    """Dots per inch, across and down, if EXIF has them and they can be true."""
    if (structure := _structure(exif)) is None:
        return None
    tags = structure.directory()
    x, y = (structure.number(tags.get(tag)) for tag in (X_RESOLUTION, Y_RESOLUTION))
    unit = structure.number(tags.get(RESOLUTION_UNIT)) if RESOLUTION_UNIT in tags else _INCH
    factor = {_INCH: 1, _CENTIMETRE: 2.54}.get(unit)
    if factor is None or x is None or y is None:
        return None
    return plausible_resolution(float(x) * factor, float(y) * factor)


def plausible_resolution(x: float, y: float) -> tuple[float, float] | None:
    """Both, unless one of them is nothing that a picture can have."""
    return (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None


def resolution_tags(x: float, y: float, order: str) -> Directory:
    """Dots per inch as EXIF and TIFF have them."""

    def rational(value: float) -> bytes:
        nearest = Fraction(1 / value if value > 1 else value).limit_denominator(2**32 - 1)
        above, below = nearest.as_integer_ratio()
        return struct.pack(order + "II", *((below, above) if value > 1 else (above, below)))

    return {
        X_RESOLUTION: (RATIONAL, rational(x)),
        Y_RESOLUTION: (RATIONAL, rational(y)),
        RESOLUTION_UNIT: (SHORT, struct.pack(order + "H", _INCH)),
    }


def of_resolution(x: float, y: float) -> bytes:
    """EXIF that says dots per inch and nothing else."""
    return block(resolution_tags(x, y, ">"), ">")


def of_orientation(value: int) -> bytes:
    """EXIF that says how the picture is turned and nothing else."""
    return block({ORIENTATION: (SHORT, struct.pack(">H", value))}, ">")


def says_more_than(exif: bytes, *tags: int) -> bool:
    """Whether a block has other tags than these, or cannot be read."""
    structure = _structure(exif)
    return bool(exif) if structure is None else bool(set(structure.directory()) - set(tags))


def is_readable(exif: bytes) -> bool:
    return _structure(exif) is not None


def chosen(structure: Structure, tags: dict[int, Entry], wanted: Iterable[int], limit: int) -> Directory:
    """The wanted ones of the tags of a directory, with values as they stand; of BigTIFF none whose type TIFF lacks.

    Those after which there would be more than `limit` bytes are left out.
    """
    out: Directory = {}
    for tag in wanted:
        entry = tags.get(tag)
        if entry and entry.type < 16 and entry.size <= limit:
            limit -= entry.size
            out[tag] = entry.type, structure.values(entry)
    return out


def turned(directory: Directory) -> Directory:
    """All values in the other byte order."""
    out: Directory = {}
    for tag, content in directory.items():
        if isinstance(content, dict):
            out[tag] = turned(content)
        else:
            type, values = content
            words = np.frombuffer(values, f"u{_WORDS[type]}")
            out[tag] = type, words.byteswap().tobytes()
    return out


def block(directory: Directory, order: str) -> bytes:
    """A block of EXIF; order: of its values, "<" or ">" as in `struct`."""
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    return PREFIX + start + _laid_out(directory, order, len(start))


def with_tags(data: bytes, directory: Directory) -> bytes:
    """A TIFF structure with more tags in its first directory, or others: that is written anew at the end, and all
    else stays where it is. ValueError for a BigTIFF and for what is no TIFF structure."""
    structure = Structure(data)
    if structure.is_big:
        raise ValueError("a BigTIFF")
    places = structure.places()
    old = [bytes(data[place : place + structure.entry_size]) for place in places]
    end = data[places.stop : places.stop + 4].ljust(4, b"\0")
    data = bytes(data) + bytes((structure.base + len(data)) % 2)
    start = len(data) - structure.base
    offset = struct.pack(structure.order + "I", start)
    head, tail = data[: structure.first], data[structure.first + 4 :]
    return head + offset + tail + _laid_out(directory, structure.order, start, old, bytes(end))


def _laid_out(directory: Directory, order: str, start: int, old: Iterable[bytes] = (), end: bytes = bytes(4)) -> bytes:
    """A directory that begins at the even offset `start`, and behind it all that it points to.

    old: entries as they stand elsewhere, kept unless `directory` has the tag; end: the offset of the next directory.
    """
    entries: dict[int, bytes] = {}
    for entry in old:
        if (tag := struct.unpack(order + "H", entry[:2])[0]) not in directory:
            entries.setdefault(tag, entry)
    count = len(entries) + len(directory)
    behind = start + 2 + 12 * count + 4
    contents = bytearray()
    for tag, content in sorted(directory.items()):
        place = behind + len(contents)
        if isinstance(content, dict):
            entries[tag] = struct.pack(order + "HHII", tag, LONG, 1, place)
            contents += _laid_out(content, order, place)
        else:
            type, values = content
            field = values.ljust(4, b"\0") if len(values) <= 4 else struct.pack(order + "I", place)
            entries[tag] = struct.pack(order + "HHI", tag, type, len(values) // _SIZES[type]) + field
            contents += values if len(values) > 4 else b""
        contents += bytes(len(contents) % 2)
    return struct.pack(order + "H", count) + b"".join(entries[tag] for tag in sorted(entries)) + end + bytes(contents)
