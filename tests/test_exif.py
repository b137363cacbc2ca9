"""EXIF byte by byte: what a block says, one tag changed and all else in its place, and blocks nobody should write."""

import io
import struct
import tracemalloc

import pytest
from PIL import ExifTags, Image

from codec.picture import exif
from codec.picture.exif import Structure

ORDERS = [">", "<"]


def camera(order: str, orientation: int | None = 6) -> bytes:
    """A block as a camera writes it: text in UTF-8, Unicode of Windows, GPS without a number, a maker's note whose
    offsets count from the beginning of the block, and a thumbnail in a directory of its own."""

    def entry(tag: int, type: int, count: int, value: int | bytes) -> bytes:
        field = value if isinstance(value, bytes) else struct.pack(order + "I", value)
        return struct.pack(order + "HHI", tag, type, count) + field.ljust(4, b"\0")

    def short(value: int) -> bytes:
        return struct.pack(order + "H", value)

    areas = {}
    contents = [  # name, bytes; offsets count from 8 + the directories
        ("artist", "Jürgen Müller".encode() + b"\0"), ("title", "Grüße".encode("utf-16-le") + b"\0\0"),
        ("comment", b"UNICODE\0" + "höher".encode("utf-16-be" if order == ">" else "utf-16-le")),
        ("note", b"MAKER\0" + struct.pack(order + "I", 8)), ("nowhere", bytes(24)), ("thumbnail", b"\xff\xd8\xff\xd9"),
    ]  # fmt: skip
    first = 5 + (orientation is not None)
    camera_at = 8 + 2 + 12 * first + 4
    gps_at = camera_at + 2 + 12 * 2 + 4
    thumbnail_at = gps_at + 2 + 12 + 4
    end = thumbnail_at + 2 + 12 * 2 + 4
    for name, content in contents:
        areas[name] = end
        end += len(content) + len(content) % 2
    size = {name: len(content) for name, content in contents}
    out = {b">": b"MM", b"<": b"II"}[order.encode()] + struct.pack(order + "HI", 42, 8)
    out += short(first) + entry(270, 2, 2, b"x\0")
    if orientation is not None:
        out += entry(274, 3, 1, short(orientation))
    out += entry(315, 2, size["artist"], areas["artist"]) + entry(34665, 4, 1, camera_at) + entry(34853, 4, 1, gps_at)
    out += entry(40091, 1, size["title"], areas["title"]) + struct.pack(order + "I", thumbnail_at)
    out += (
        short(2)
        + entry(37500, 7, size["note"], areas["note"])
        + entry(37510, 7, size["comment"], areas["comment"])
        + bytes(4)
    )
    out += short(1) + entry(2, 5, 3, areas["nowhere"]) + bytes(4)
    out += short(2) + entry(513, 4, 1, areas["thumbnail"]) + entry(514, 4, 1, 4) + bytes(4)
    return b"Exif\0\0" + out + b"".join(content + bytes(len(content) % 2) for _, content in contents)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"])
def test_what_a_camera_says_is_read_in_both_byte_orders(order, prefix):
    block = prefix + camera(order).removeprefix(b"Exif\0\0")
    structure = Structure(block)
    tags = structure.directory()
    assert exif.orientation(block) == 6 and not exif.has_resolution(block)
    assert structure.values(tags[315]) == "Jürgen Müller".encode() + b"\0"
    assert structure.values(structure.below(tags[exif.CAMERA])[37510]).startswith(b"UNICODE\0")
    assert structure.number(structure.below(tags[exif.GPS])[2]) is None  # nothing over nothing


@pytest.mark.parametrize("order", ORDERS)
def test_orientation_is_changed_in_its_place_and_nothing_else(order):
    before = camera(order)
    after = exif.with_orientation(before, 3)
    assert exif.orientation(after) == 3 and len(after) == len(before)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    assert exif.with_orientation(after, 6) == before


@pytest.mark.parametrize("order", ORDERS)
def test_a_tag_that_was_not_there_comes_at_the_end_and_nothing_else_moves(order):
    before = camera(order, orientation=None)
    after = exif.with_orientation(before, 8)
    assert exif.orientation(after) == 8
    assert (after[:10], after[14 : len(before)]) == (
        before[:10],
        before[14:],
    )  # but for the offset of the first directory
    old, new = Structure(before), Structure(after)
    tags = new.directory()
    assert {tag: old.values(entry) for tag, entry in old.directory().items()} == {
        tag: new.values(entry) for tag, entry in tags.items() if tag != exif.ORIENTATION
    }
    assert list(tags) == sorted(tags)
    with Image.open(_jpeg(after)) as image:  # another reader: camera, place and thumbnail are where they were
        assert (
            image.getexif().get_ifd(34665)[37510].startswith(b"UNICODE")
            and image.getexif().get_ifd(ExifTags.IFD.IFD1)[514] == 4
        )


def _jpeg(block: bytes) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=block)
    return buffer


@pytest.mark.parametrize("type", [2, 5, 7, 12, 200])
def test_an_orientation_of_a_wrong_type_says_nothing_and_can_be_replaced(type):
    block = bytearray(camera(">"))
    place = block.index(b"\x01\x12\0\3")
    block[place + 2 : place + 4] = type.to_bytes(2, "big")
    assert exif.orientation(bytes(block)) is None
    assert exif.with_orientation(bytes(block), 5) == exif.with_orientation(camera(">"), 5)


@pytest.mark.parametrize(
    ("unit", "expected"), [(None, (300, 150)), (2, (300, 150)), (3, (762, 381)), (1, None), (9, None)]
)
@pytest.mark.parametrize("order", ORDERS)
def test_dots_per_inch_are_those_of_their_unit(order, unit, expected):
    tags = exif.resolution_tags(300, 150, order)
    if unit is None:
        del tags[exif.RESOLUTION_UNIT]
    else:
        tags[exif.RESOLUTION_UNIT] = exif.SHORT, struct.pack(order + "H", unit)
    block = exif.block(tags, order)
    assert exif.resolution(block) == expected and exif.has_resolution(block)


@pytest.mark.parametrize("dpi", [72, 299.9994, 1 / 3, 0.001, 65000.123, 999999])
def test_dots_per_inch_come_back_from_a_block_of_their_own(dpi):
    block = exif.of_resolution(dpi, 2 * dpi if dpi < 1e5 else dpi)
    assert exif.resolution(block)[0] == pytest.approx(dpi, rel=1e-6)
    assert not exif.says_more_than(block, *exif.RESOLUTION)


def test_the_block_of_dots_per_inch_is_the_one_that_pillow_makes():
    old = Image.Exif()
    old[282], old[283], old[296] = 299.9994, 72.0, 2
    assert exif.of_resolution(299.9994, 72) == old.tobytes()


@pytest.mark.parametrize("above, below", [(0, 1), (1, 0), (0, 0), (2**32 - 1, 1)])
def test_a_resolution_that_cannot_be_is_none(above, below):
    tags = exif.resolution_tags(300, 300, ">") | {exif.X_RESOLUTION: (exif.RATIONAL, struct.pack(">II", above, below))}
    assert exif.resolution(exif.block(tags, ">")) is None


@pytest.mark.parametrize("order", ORDERS)
def test_values_turn_with_the_byte_order_and_opaque_ones_do_not(order):
    other = {">": "<", "<": ">"}[order]
    directory = {
        256: (3, struct.pack(order + "2H", 1, 2)), 257: (5, struct.pack(order + "2I", 3, 4)),
        258: (12, struct.pack(order + "d", 0.1)),
        270: (2, b"text\0"), 37500: (7, b"\1\2\3\4"), exif.GPS: {1: (4, struct.pack(order + "I", 7))},
    }  # fmt: skip
    turned = exif.turned(directory)
    assert (turned[256][1], turned[257][1]) == (struct.pack(other + "2H", 1, 2), struct.pack(other + "2I", 3, 4))
    assert (turned[258][1], turned[270], turned[37500]) == (
        struct.pack(other + "d", 0.1),
        directory[270],
        directory[37500],
    )
    assert turned[exif.GPS][1][1] == struct.pack(other + "I", 7) and exif.turned(turned) == directory


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Exif\0\0",
        b"garbage",
        b"MM\0*",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0\x2b\0\4\0\0" + bytes(8),
        b"XX\0*" + bytes(20),
    ],
)
def test_what_is_no_exif_says_nothing(block):
    assert (exif.orientation(block), exif.resolution(block), exif.has_resolution(block)) == (None, None, False)


def test_offsets_beyond_the_block_and_directories_without_end_are_left_out():
    block = bytearray(camera(">"))
    place = block.index(b"\x01\x3b\0\2")
    block[place + 8 : place + 12] = b"\xff\xff\xff\xf0"
    assert 315 not in Structure(bytes(block)).directory()
    block[place + 4 : place + 8] = b"\xff\xff\xff\xff"  # so many letters
    assert 315 not in Structure(bytes(block)).directory()
    block[14:16] = b"\xff\xff"  # so many entries
    assert exif.orientation(bytes(block)) == 6


def test_directories_that_point_to_themselves_are_read_once():
    block = bytearray(camera("<"))
    for pointer in (b"\x69\x87\4\0", b"\x25\x88\4\0"):
        place = block.index(pointer)
        block[place + 8 : place + 12] = struct.pack("<I", 8)  # the first directory
    structure = Structure(bytes(block))
    tags = structure.directory()
    assert structure.below(tags[exif.CAMERA]) == tags and exif.orientation(exif.with_orientation(bytes(block), 2)) == 2


def test_a_bigtiff_is_read_and_no_tag_is_put_into_it():
    entry = struct.pack(">HHQ", 274, 3, 1) + b"\0\5".ljust(8, b"\0")
    data = b"MM\0+" + struct.pack(">HHQQ", 8, 0, 16, 1) + entry + bytes(8)
    assert exif.orientation(data) == 5
    with pytest.raises(ValueError, match="BigTIFF"):
        exif.with_tags(data, {})


def test_damaged_blocks_say_something_or_nothing_and_take_neither_time_nor_memory(rng):
    blocks = [camera(order) for order in ORDERS] + [exif.of_resolution(300, 200), exif.of_orientation(3)]
    for round in range(3000):
        if round == 2800:
            tracemalloc.start()
        block = bytearray(blocks[round % len(blocks)])
        for place in rng.integers(6, len(block), rng.integers(1, 6)):
            block[place] = rng.choice([0, 1, 0x7F, 0xFF, rng.integers(256)])
        damaged = bytes(block[: rng.integers(len(block) // 2, len(block) + 1)])
        assert exif.orientation(damaged) in (None, *range(1, 9))
        exif.resolution(damaged), exif.has_resolution(damaged)
        if exif.is_readable(damaged):
            assert exif.orientation(exif.with_orientation(damaged, 4)) == 4
            structure = Structure(damaged)
            tags = structure.directory()
            for entries in (tags, structure.below(tags.get(exif.CAMERA)), structure.below(tags.get(exif.GPS))):
                directory = exif.chosen(structure, entries, entries, len(damaged))
                assert sum(len(values) for _, values in directory.values()) <= len(damaged)
                if directory:
                    again = Structure(exif.block(exif.turned(directory), "<" if structure.order == ">" else ">"))
                    assert again.directory().keys() == directory.keys()
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


def test_many_tags_that_share_one_large_value_do_not_multiply_it():
    count = 3000
    entries = b"".join(struct.pack(">HHII", tag, 7, 2**20, 8) for tag in range(1000, 1000 + count))
    data = b"MM\0*" + struct.pack(">IH", 8, count) + entries + bytes(2**20)
    structure = Structure(data)
    tags = structure.directory()
    assert len(tags) == count
    directory = exif.chosen(structure, tags, tags, 2**21)
    assert len(directory) == 2
