"""The file format, byte by byte: docs/FORMAT.md holds because these tests do."""

import re
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from codec import container
from codec.container import Header, Tag
from codec.errors import CodecError, FormatError, ImageError, LimitError, TruncatedError, UnsupportedError

HEADER = Header("lossy", bytes.fromhex("deadbeef"), 1, 1, "RGB", 7500)
LATENTS = {Tag.LATENTS: b"12345"}
EXAMPLE = bytes.fromhex("ab4c4943 01 00 deadbeef 01 01 02 4c1d 01 0105 be3c319e") + b"12345"


def header_bytes(body: str) -> bytes:
    """A header from hex without magic and check value, which are added; a latents section of five bytes follows."""
    start = container.MAGIC + bytes.fromhex(body)
    return start + zlib.crc32(start).to_bytes(4, "little") + b"12345"


def check_refused(data: bytes, error: type[CodecError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        container.unpack(data)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_the_golden_file_is_what_the_format_document_prints():
    assert container.pack(HEADER, LATENTS) == EXAMPLE
    assert container.unpack(EXAMPLE) == (HEADER, LATENTS)
    document = (Path(__file__).parent.parent / "docs" / "FORMAT.md").read_text("utf-8")
    printed = re.search(r"^ (AB 4C 49 43 [0-9A-F ]+)$", document, re.MULTILINE)[1]
    assert bytes.fromhex(printed) + b"12345" == EXAMPLE


sizes = st.integers(1, 2**30)
headers = st.builds(
    Header, st.just("lossy"), st.binary(min_size=4, max_size=4), sizes, sizes,
    st.sampled_from(container.BOTH_METHODS), st.integers(0, 10000),
)
contents = st.dictionaries(st.sampled_from(list(container.METADATA)), st.binary(max_size=300))


@given(headers, contents, st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_packing_is_undone_by_unpacking(header, sections, payload):
    sections[Tag.LATENTS] = payload
    if header.has_alpha:
        sections[Tag.ALPHA] = payload
    data = container.pack(header, sections)
    assert container.unpack(data) == (header, sections)
    assert list(container.unpack(data)[1]) == sorted(sections)
    again, lengths, offset = container.read_header(data)
    assert (again, offset + sum(lengths.values())) == (header, len(data))


def test_the_header_of_a_kodak_image_takes_25_bytes():
    # 4 magic, 1 version, 1 method, 4 model, 2 + 2 size, 1 mode, 2 quality, 1 count, 1 tag, 2 length, 4 check
    data = container.pack(replace(HEADER, width=768, height=512), {Tag.LATENTS: bytes(5000)})
    assert len(data) - 5000 == 25


def test_the_header_of_the_beginning_of_a_file_can_be_read():
    header, lengths, offset = container.read_header(EXAMPLE[:-5])
    assert (header, lengths, offset) == (HEADER, {Tag.LATENTS: 5}, len(EXAMPLE) - 5)


def test_every_truncation_is_reported_as_such():
    for end in range(len(EXAMPLE)):
        check_refused(EXAMPLE[:end], TruncatedError, "truncated")


def test_every_damaged_bit_of_the_header_is_reported():
    for position in range(len(EXAMPLE) - 5):
        for bit in range(8):
            damaged = bytearray(EXAMPLE)
            damaged[position] ^= 1 << bit
            with pytest.raises(CodecError):
                container.unpack(bytes(damaged))


@given(st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_bytes_after_the_magic_are_read_or_refused(tail):
    try:
        container.unpack(container.MAGIC + tail)
    except CodecError:
        pass


@given(st.binary(max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_bytes_under_a_right_check_value_are_read_or_refused(body):
    start = container.MAGIC + b"\x01" + body
    try:
        container.unpack(start + zlib.crc32(start).to_bytes(4, "little"))
    except CodecError:
        pass


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ("02 00 deadbeef 01 01 02 4c1d 01 0105", UnsupportedError, "version 2: this program reads up to 1"),
        ("00 00 deadbeef 01 01 02 4c1d 01 0105", FormatError, "version 0"),
        ("01 02 deadbeef 01 01 02 4c1d 01 0105", UnsupportedError, "method 2 is unknown"),
        ("01 00 deadbeef 00 01 02 4c1d 01 0105", FormatError, "width 0 is not within"),
        ("01 00 deadbeef 01 8180808004 02 4c1d 01 0105", FormatError, "height 1073741825 is not within"),
        ("01 00 deadbeef 8100 01 02 4c1d 01 0105", FormatError, "width 1 is not written in its shortest form"),
        ("01 00 deadbeef 80808080808080808001 01 02 4c1d 01 0105", FormatError, "width is longer than nine bytes"),
        ("01 00 deadbeef 01 01 0d 4c1d 01 0105", UnsupportedError, "image mode 13 is unknown"),
        ("01 00 deadbeef 01 01 02 1127 01 0105", FormatError, "quality 100.01"),
        ("01 00 deadbeef 01 01 02 ffff 01 0105", FormatError, "lossy file with quality None"),
        ("01 01 00000000 01 01 02 4c1d 01 0705", FormatError, "lossless file with quality 7500"),
        ("01 01 00000000 01 01 02 ffff 01 0105", FormatError, "lossless file with a section LATENTS"),
        ("01 01 00000000 01 01 03 ffff 02 0200 0705", FormatError, "lossless file with a section ALPHA"),
        ("01 01 00000000 01 01 02 ffff 01 0805", FormatError, "lossless file without samples"),
        ("01 01 deadbeef 01 01 02 ffff 01 0705", FormatError, "names a model but has no section for it"),
        ("01 01 deadbeef 01 01 09 ffff 02 0605 0800", FormatError, "mode P with a section PIXELS"),
        ("01 01 deadbeef 01 01 02 ffff 02 0605 0700", FormatError, "PIXELS and PLANES do not fit mode RGB"),
        ("01 01 deadbeef 01 01 03 ffff 01 0605", FormatError, "PIXELS and PLANES do not fit mode RGBA"),
        ("01 01 00000000 01 01 09 ffff 01 0705", FormatError, "mode P without palette"),
        ("01 00 deadbeef 01 01 04 4c1d 01 0105", FormatError, "lossy file of mode I;16"),
        ("01 00 deadbeef 01 01 02 4c1d 02 0105 0700", FormatError, "lossy file with a section PLANES"),
        ("01 00 deadbeef 01 01 02 4c1d 00", FormatError, "without latents"),
        ("01 00 deadbeef 01 01 03 4c1d 01 0105", FormatError, "mode RGBA without alpha"),
        ("01 00 deadbeef 01 01 02 4c1d 02 0105 0200", FormatError, "mode RGB with alpha"),
        ("01 00 deadbeef 01 01 02 4c1d 02 0105 0100", FormatError, "not in ascending order"),
        ("01 00 deadbeef 01 01 02 4c1d 02 0500 0105", FormatError, "not in ascending order"),
        ("01 00 deadbeef 01 01 02 4c1d 02 0105 0b00", UnsupportedError, "section 11 is unknown"),
        ("01 00 deadbeef 01 01 02 4c1d 01 0104", FormatError, "1 bytes follow the end"),
        ("01 00 deadbeef 01 01 02 4c1d 01 0106", TruncatedError, "truncated file: 27 of 28 bytes"),
        ("01 00 deadbeef 01 01 02 4c1d 01 01ffffffffffffffff7f", TruncatedError, "truncated"),
    ],
)
def test_a_header_against_the_rules_is_refused(body, error, words):
    check_refused(header_bytes(body), error, words)


def test_other_files_are_not_ours():
    for data in (b"\x89PNG\r\n\x1a\n", b"LIC\xab....", b"\x2bLIC"):
        check_refused(data, FormatError, "not a compressed picture of this codec: begins with")


@pytest.mark.parametrize("mode", container.MODES.values())
def test_lossless_files_of_every_mode_are_understood(mode):
    header = Header("lossless", container.NO_MODEL, 3, 2, mode, None)
    sections = {Tag.PLANES: b"12345", Tag.PALETTE: b"123"}
    assert container.unpack(container.pack(header, sections)) == (header, sections)


@pytest.mark.parametrize("mode", container.BOTH_METHODS)
def test_lossless_files_with_a_model_are_understood(mode):
    header = Header("lossless", b"abcd", 3, 2, mode, None)
    sections = {Tag.PIXELS: b"12345"} | ({Tag.PLANES: b""} if header.has_alpha else {})
    assert container.unpack(container.pack(header, sections)) == (header, sections)


def test_no_file_against_the_rules_is_written():
    with pytest.raises(FormatError):
        container.pack(HEADER, {})
    with pytest.raises(FormatError):
        container.pack(replace(HEADER, quality=None), LATENTS)


# ── metadata ──


@given(st.sampled_from([Tag.ICC_PROFILE, Tag.EXIF, Tag.XMP]), st.binary(min_size=1, max_size=2000))
@settings(max_examples=100, deadline=None)
def test_metadata_comes_back(tag, content):
    assert container.unpack_metadata(tag, container.pack_metadata(tag, content)) == content


def test_the_golden_metadata_section():
    # varint 3; one final deflate block with fixed codes; CRC-32 of the content "xmp" and then of the bytes so far
    payload = bytes.fromhex("03 abc82d0000")
    section = payload + zlib.crc32(b"xmp" + payload).to_bytes(4, "little")
    assert section.hex() == "03abc82d000051dffb08"
    assert container.unpack_metadata(Tag.XMP, section) == b"xmp"


def test_every_truncation_and_every_damaged_bit_of_metadata_is_reported():
    section = container.pack_metadata(Tag.EXIF, b"MM\0*" + bytes(range(100)))
    for end in range(len(section)):
        with pytest.raises(FormatError, match="EXIF"):
            container.unpack_metadata(Tag.EXIF, section[:end])
    for bit in range(8 * len(section)):
        damaged = bytearray(section)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError, match="EXIF"):
            container.unpack_metadata(Tag.EXIF, bytes(damaged))


NUMBERS = {"icc_profile": b"icc", "exif": b"", "xmp": b"xmp", "cicp": (9, 16, 0, 1), "dpi": (300.0, 299.9994)}


def test_metadata_of_bytes_and_of_numbers_comes_back():
    sections = container.metadata_sections(NUMBERS)
    assert list(sections) == [Tag.ICC_PROFILE, Tag.XMP, Tag.CICP, Tag.RESOLUTION]
    assert container.metadata_of({Tag.LATENTS: b"", **sections}) == {key: value for key, value in NUMBERS.items() if value}


def test_the_golden_section_of_cicp():
    # varint 4; one final deflate block with fixed codes; CRC-32 of the content 09 10 00 01 and then of the bytes so far
    payload = bytes.fromhex("04 e314606004 00".replace(" ", ""))
    section = payload + zlib.crc32(bytes([9, 16, 0, 1]) + payload).to_bytes(4, "little")
    assert container.metadata_sections(NUMBERS)[Tag.CICP] == section


@pytest.mark.parametrize(
    ("tag", "content"),
    [
        (Tag.CICP, "091000"), (Tag.CICP, "0910000100"), (Tag.CICP, "09100101"), (Tag.CICP, "09100002"),
        (Tag.RESOLUTION, "00" * 16), (Tag.RESOLUTION, "000000000000f87f" * 2), (Tag.RESOLUTION, "000000000000f03f"),
        (Tag.RESOLUTION, "000000000000f0bf" * 2), (Tag.RESOLUTION, "0000000080842e41" * 2),
    ],
)  # fmt: skip
def test_numbers_against_the_rules_are_refused(tag, content):
    section = container.pack_metadata(tag, bytes.fromhex(content))
    with pytest.raises(FormatError, match=f"{tag.name} section"):
        container.metadata_of({tag: section})


def test_metadata_beyond_the_limit_is_refused_by_both_sides():
    with pytest.raises(ImageError, match="XMP of 16777217 bytes"):
        container.pack_metadata(Tag.XMP, bytes(2**24 + 1))
    with pytest.raises(LimitError, match="XMP of 16777217 bytes"):
        container.unpack_metadata(Tag.XMP, b"\x81\x80\x80\x08" + bytes(10))


def test_a_deflate_bomb_expands_to_the_declared_length_only():
    compressor = zlib.compressobj(9, wbits=-15)
    bomb = compressor.compress(bytes(2**26)) + compressor.flush()
    tracemalloc.start()
    with pytest.raises(FormatError, match="does not hold the 100 bytes"):
        container.unpack_metadata(Tag.XMP, container._seal(b"\x64" + bomb, bytes(100)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_empty_metadata_is_refused():
    with pytest.raises(FormatError, match="ICC_PROFILE section: it is empty"):
        container.unpack_metadata(Tag.ICC_PROFILE, container._seal(b"\0", b""))


def test_bytes_after_the_deflate_stream_are_refused():
    payload = container.pack_metadata(Tag.XMP, b"xmp")[:-4] + b"\0"
    with pytest.raises(FormatError, match="XMP"):
        container.unpack_metadata(Tag.XMP, container._seal(payload, b"xmp"))


# ── alpha ──

planes = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20))


def check_alpha(plane: np.ndarray) -> bytes:
    section = container.pack_alpha(plane)
    height, width = plane.shape
    again = container.unpack_alpha(section, width, height)
    assert again.dtype == np.uint8 and np.array_equal(again, plane)
    return section


@given(planes)
@settings(max_examples=200, deadline=None)
def test_alpha_comes_back(plane):
    check_alpha(plane)


def test_each_predictor_is_chosen_where_it_helps(rng):
    steps = rng.choice(np.array([3, 7], np.uint8), (64, 64))
    across, down = np.cumsum(steps, axis=1, dtype=np.uint8), np.cumsum(steps, axis=0, dtype=np.uint8)
    examples = {
        container.CONSTANT: np.full((64, 64), 255, np.uint8),
        container.NOTHING: steps,
        container.LEFT: across,
        container.ABOVE: down,
        container.PLANE: np.cumsum(across, axis=0, dtype=np.uint8),
    }
    for predictor, plane in examples.items():
        assert check_alpha(plane)[0] == predictor


def test_the_golden_alpha_section():
    # predictor plane; deflate of the residuals 01 01 01 / 01 00 00, the plane being 1 2 3 / 2 3 4
    deflated = zlib.compressobj(0, wbits=-15)
    payload = b"\4" + deflated.compress(bytes.fromhex("010101010000")) + deflated.flush()
    plane = bytes.fromhex("010203020304")
    section = payload + zlib.crc32(plane + payload).to_bytes(4, "little")
    assert container.unpack_alpha(section, 3, 2).tolist() == [[1, 2, 3], [2, 3, 4]]


def test_an_opaque_plane_takes_six_bytes_whatever_its_size():
    # predictor, value, check value
    assert len(container.pack_alpha(np.full((1000, 1000), 255, np.uint8))) == 6


def test_every_truncation_and_every_damaged_bit_of_alpha_is_reported(rng):
    section = container.pack_alpha(rng.integers(250, 256, (9, 7), dtype=np.uint8))
    for end in range(len(section)):
        with pytest.raises(FormatError, match="ALPHA"):
            container.unpack_alpha(section[:end], 7, 9)
    for bit in range(8 * len(section)):
        damaged = bytearray(section)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError, match="ALPHA"):
            container.unpack_alpha(bytes(damaged), 7, 9)


def test_alpha_of_another_size_is_refused(rng):
    section = container.pack_alpha(rng.integers(0, 256, (9, 7), dtype=np.uint8))
    for width, height in ((7, 8), (7, 10), (1, 1)):
        with pytest.raises(FormatError, match=f"does not hold the {width * height} bytes"):
            container.unpack_alpha(section, width, height)


# ── samples ──


def test_samples_are_checked_together_with_their_payload(rng):
    for dtype in (np.uint8, np.uint16):
        samples = rng.integers(0, 256, (3, 4, 2)).astype(dtype)
        section = container.pack_samples(b"payload", samples)
        assert section == b"payload" + zlib.crc32(samples.tobytes() + b"payload").to_bytes(4, "little")
        assert container.payload_of_samples(Tag.PLANES, section) == b"payload"
        container.check_samples(Tag.PLANES, section, samples)
        with pytest.raises(FormatError, match="PLANES section: its check value"):
            container.check_samples(Tag.PLANES, section, samples + 1)
        with pytest.raises(FormatError, match="PIXELS section: its check value"):
            container.check_samples(Tag.PIXELS, b"Payload" + section[7:], samples)
    with pytest.raises(FormatError, match="only 4 bytes"):
        container.payload_of_samples(Tag.PLANES, b"1234")


# ── palette and transparency ──

palettes = st.none() | st.tuples(st.just("RGB"), st.binary(max_size=256).map(lambda entries: 3 * entries))
palettes |= st.tuples(st.just("RGBA"), st.binary(max_size=256).map(lambda entries: 4 * entries))
levels = st.integers(0, 65535)
transparencies = st.none() | levels | st.tuples(levels, levels, levels) | st.binary(max_size=256)


@given(palettes, transparencies)
@settings(max_examples=200, deadline=None)
def test_palettes_and_transparency_come_back(palette, transparency):
    assert container.unpack_palette(container.pack_palette(palette, transparency)) == (palette, transparency)


@pytest.mark.parametrize(
    "content", ["", "01", "010300", "010300aabbcc", "00000000aa", "0000000211", "00000001112233", "010200aabb00",
                "03000000", "00030011223300", "00000004"],
)  # fmt: skip
def test_palettes_against_the_rules_are_refused(content):
    content = bytes.fromhex(content) or b"\0"
    with pytest.raises(FormatError, match="PALETTE section"):
        container.unpack_palette(container.pack_metadata(Tag.PALETTE, content))
    with pytest.raises(FormatError, match="PALETTE section"):
        container.unpack_palette(container.pack_metadata(Tag.PALETTE, b"\0\0\0\3" + bytes(257)))


def test_every_damaged_bit_of_a_palette_is_reported():
    section = container.pack_palette(("RGB", bytes(range(30))), b"\0\x80")
    for bit in range(8 * len(section)):
        damaged = bytearray(section)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError, match="PALETTE"):
            container.unpack_palette(bytes(damaged))
