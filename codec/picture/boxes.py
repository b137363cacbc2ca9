"""Metadata of files made of boxes (ISO base media): AVIF, and JPEG 2000 in its .jp2 form."""

import struct
from collections.abc import Iterator
from itertools import takewhile

JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_UUIDS = {  # of boxes in .jp2: Pillow's name
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "xmp",
    b"JpgTiffExif->JP2": "exif",
}
_UNSPECIFIED, _BT709, _SRGB_TRANSFER = 2, 1, 13  # of ITU-T H.273
_DAMAGE = (struct.error, IndexError, ValueError)


def is_avif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"mif1", b"msf1")


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, and where the content begins and ends; up to `end`, or to a box that the data does not hold whole."""
    while start + 8 <= end:
        size, type = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1 and start + 16 <= end:
            size, content = struct.unpack_from(">Q", data, content)[0], start + 16
        stop = start + size if size else end
        if not content <= stop <= end:
            return
        yield type, content, stop
        start = stop


def _box(data: bytes, start: int, end: int, *path: bytes) -> tuple[int, int]:
    """Where the content of the first box of each name, one inside of the other, begins and ends; ValueError without."""
    for name in path:
        start, end = next(((begin, stop) for type, begin, stop in boxes(data, start, end) if type == name), (0, 0))
        if not end:
            raise ValueError(f"no box {name}")
        if name == b"meta":
            start += 4  # version and flags
    return start, end


class _Numbers:
    """Reads big-endian numbers one after the other; struct.error or IndexError at the end of the data."""

    def __init__(self, data: bytes, place: int):
        self.data, self.place = data, place

    def next(self, size: int) -> int:
        if self.place + size > len(self.data):
            raise IndexError
        self.place += size
        return int.from_bytes(self.data[self.place - size : self.place], "big")


def take_avif(data: bytes, limit: int) -> tuple[bytes, dict, list[str]]:
    """The file with an item in place of its EXIF; EXIF as it stands, and CICP; what is left out, in words.

    Pillow puts EXIF together anew where the file's own orientation differs. CICP is what the picture's colours mean
    once it is RGB: a tuple of primaries, transfer, matrix 0, full range; not there if the file says sRGB, says nothing,
    or says it by an ICC profile.
    """
    found: dict = {}
    try:
        meta = _box(data, 0, len(data), b"meta")
    except ValueError:
        return data, found, []
    try:
        items = [item for item in _items(data, *_box(data, *meta, b"iinf")) if data[item[1] : item[1] + 4] == b"Exif"]
    except _DAMAGE:
        items = []
    lost = []
    if items:
        try:
            if content := _item(data, meta, items[0][0], limit)[4:]:  # after the offset of the TIFF header in it
                found["exif"] = content
        except _DAMAGE:
            lost.append("EXIF (damaged, or too large)")
        without = bytearray(data)
        for _, place in items:
            without[place : place + 4] = b"skip"
        data = bytes(without)
    try:
        cicp = _colours(data, meta)
    except _DAMAGE:
        cicp = None
    if cicp:
        found["cicp"] = cicp
    return data, found, lost


def _items(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Number of each item, and where the four letters of its type are."""
    numbers = _Numbers(data, start)
    version = numbers.next(4) >> 24
    numbers.next(4 if version else 2)  # how many there are
    for type, content, _ in boxes(data, numbers.place, end):
        version = data[content]
        if type == b"infe" and version in (2, 3):
            item = _Numbers(data, content + 4)
            number = item.next(2 if version == 2 else 4)
            item.next(2)
            yield number, item.place


def _item(data: bytes, meta: tuple[int, int], wanted: int, limit: int) -> bytes:
    """The content of an item; ValueError if it is elsewhere, or more than `limit` bytes."""
    numbers = _Numbers(data, _box(data, *meta, b"iloc")[0])
    version = numbers.next(4) >> 24
    sizes = numbers.next(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(numbers.next(2 if version < 2 else 4)):
        item = numbers.next(2 if version < 2 else 4)
        method = numbers.next(2) & 15 if version in (1, 2) else 0
        numbers.next(2)  # which file; 0 is this one
        base = numbers.next(base_size)
        extents, count = [], numbers.next(2)
        if offset_size + length_size == 0:  # nothing in the data would end their number
            raise ValueError("extents of no bytes")
        for _ in range(count):
            numbers.next(index_size if version in (1, 2) else 0)
            extents.append((base + numbers.next(offset_size), numbers.next(length_size)))
        if item == wanted:
            if method > 1 or sum(length for _, length in extents) > limit:
                raise ValueError("out of reach")
            start, end = _box(data, *meta, b"idat") if method == 1 else (0, len(data))
            if any(start + offset + length > end for offset, length in extents):
                raise ValueError("beyond the data")
            return b"".join(data[start + offset : start + offset + length] for offset, length in extents)
    raise ValueError("no such item")


def _colours(data: bytes, meta: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """CICP of the picture, if it says something; see `take_avif`."""
    numbers = _Numbers(data, _box(data, *meta, b"pitm")[0])
    picture = numbers.next(2 if numbers.next(4) >> 24 == 0 else 4)
    properties = list(boxes(data, *_box(data, *meta, b"iprp", b"ipco")))
    found = None
    for index in _properties_of(data, _box(data, *meta, b"iprp", b"ipma")[0], picture):
        type, start, end = properties[index - 1] if 0 < index <= len(properties) else (b"", 0, 0)
        if type != b"colr":
            continue
        if data[start : start + 4] != b"nclx":
            return None  # an ICC profile, which goes before
        primaries, transfer = struct.unpack_from(">HH", data[start:end], 4)
        plain = primaries in (_BT709, _UNSPECIFIED) and transfer in (_SRGB_TRANSFER, _UNSPECIFIED)
        if not plain and max(primaries, transfer) < 256:
            found = primaries, transfer, 0, 1
    return found


def _properties_of(data: bytes, start: int, wanted: int) -> list[int]:
    """The numbers, from 1, of an item's properties."""
    numbers = _Numbers(data, start)
    head = numbers.next(4)
    version, wide = head >> 24, head & 1
    for _ in range(numbers.next(4)):
        item = numbers.next(2 if version == 0 else 4)
        indices = [numbers.next(2) & 0x7FFF if wide else numbers.next(1) & 0x7F for _ in range(numbers.next(1))]
        if item == wanted:
            return indices
    return []


def with_colours(avif: bytes, cicp: tuple[int, int, int, int]) -> bytes | None:
    """An AVIF of one picture whose every "nclx" says these primaries and transfer; None if it has none.

    What is in the file of boxes goes before what the coded picture inside of it says.
    """
    try:
        properties = boxes(avif, *_box(avif, 0, len(avif), b"meta", b"iprp", b"ipco"))
        places = [start + 4 for type, start, _ in properties if type == b"colr" and avif[start : start + 4] == b"nclx"]
    except ValueError:
        return None
    for place in places:
        avif = avif[:place] + struct.pack(">HH", *cicp[:2]) + avif[place + 4 :]
    return avif if places else None


def take_jp2(data: bytes, limit: int) -> dict:
    """ICC profile, EXIF and XMP, of which Pillow reads none, under its names."""
    found: dict = {}
    for type, start, end in takewhile(lambda box: box[0] != b"jp2c", boxes(data, 0, len(data))):
        content = data[start : min(end, start + limit)]
        if type == b"uuid" and content[:16] in _UUIDS:
            found[_UUIDS[content[:16]]] = content[16:]
        elif type == b"jp2h":
            for inner, begin, stop in boxes(data, start, end):
                if inner == b"colr" and data[begin : begin + 1] in (b"\2", b"\3"):  # its method: an ICC profile
                    found["icc_profile"] = data[begin + 3 : min(stop, begin + 3 + limit)]
    return found
