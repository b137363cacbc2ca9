"""The file format: one header, a table of sections, the sections. docs/FORMAT.md says the same in the same order.

    magic | version | HEADER_FIELDS | section count | (tag, length) × count | CRC-32 | section | section | …

Every number has one spelling: varints are minimal, tags ascend, nothing follows the last section. What the latents
mean is not known here, nor how samples are coded; alpha, metadata and palettes are coded at the end of this module.
"""

import enum
import struct
import zlib
from dataclasses import dataclass, fields

import numpy as np

from .errors import FormatError, ImageError, LimitError, TruncatedError, UnsupportedError

MAGIC = b"\xabLIC"  # the high bit shows a channel that drops it; nothing else is known to begin so
VERSION = 1
MAX_SIDE = 2**30
QUALITY_MAX = 10_000  # hundredths
NO_MODEL = bytes(4)  # model id of a file that needs none
MAX_METADATA = 2**24  # bytes of one section of metadata once inflated

METHODS = {0: "lossy", 1: "lossless"}
MODES = {0: "L", 1: "LA", 2: "RGB", 3: "RGBA"}  # in files of both methods; those below in lossless files only
MODES |= {4: "I;16", 5: "LA;16", 6: "RGB;16", 7: "RGBA;16", 8: "1", 9: "P", 10: "PA", 11: "I;16B", 12: "I"}
BOTH_METHODS = ("L", "LA", "RGB", "RGBA")


class Tag(enum.IntEnum):
    """What a section holds."""

    LATENTS = 1
    ALPHA = 2
    ICC_PROFILE = 3
    EXIF = 4
    XMP = 5
    PIXELS = 6
    PLANES = 7
    PALETTE = 8
    CICP = 9
    RESOLUTION = 10


class _Cursor:
    """Reads forward through `data`; every read past the end is a TruncatedError."""

    def __init__(self, data: bytes):
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise TruncatedError(f"truncated file: {len(self.data)} bytes, but the header needs at least {end}")
        self.position, start = end, self.position
        return self.data[start:end]


# A field coding has three functions: `write` (value -> bytes), `read` (cursor -> number, structure only) and
# `interpret` (number -> value). They are apart because the header's CRC is checked between the last two: damage is
# reported as damage, never as an unknown mode or a newer method.


class _Fixed:
    """A value of fixed size, little-endian, in `struct` notation."""

    def __init__(self, notation: str):
        self.struct = struct.Struct("<" + notation)

    def write(self, value) -> bytes:
        return self.struct.pack(value)

    def read(self, cursor: _Cursor):
        return self.struct.unpack(cursor.take(self.struct.size))[0]

    def interpret(self, number):
        return number


class _Varint(_Fixed):
    """An unsigned LEB128 number below 2^63 in its shortest form; `limits` are the smallest and the largest allowed."""

    def __init__(self, what: str, limits: tuple[int, int]):
        self.what, self.limits = what, limits

    def write(self, value: int) -> bytes:
        out = bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes(out) + bytes([value])

    def read(self, cursor: _Cursor) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = cursor.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift > 0:
                    raise FormatError(f"damaged header: {self.what} {value} is not written in its shortest form")
                return value
        raise FormatError(f"damaged header: {self.what} is longer than nine bytes")

    def interpret(self, number: int) -> int:
        low, high = self.limits
        if not low <= number <= high:
            raise FormatError(f"damaged header: {self.what} {number} is not within {low} to {high}")
        return number


class _Choice(_Fixed):
    """One byte that selects a value of `table`; a number outside of it belongs to a newer version."""

    def __init__(self, what: str, table: dict[int, str]):
        super().__init__("B")
        self.what, self.table = what, table
        self.numbers = {value: number for number, value in table.items()}

    def write(self, value: str) -> bytes:
        return super().write(self.numbers[value])

    def interpret(self, number: int) -> str:
        if number not in self.table:
            raise UnsupportedError(f"{self.what} {number} is unknown to this version: a newer one wrote the file")
        return self.table[number]


class _Quality(_Fixed):
    """Hundredths in two bytes; 0xFFFF, which stands in lossless files, is None."""

    def __init__(self):
        super().__init__("H")

    def write(self, value: int | None) -> bytes:
        return super().write(0xFFFF if value is None else value)

    def interpret(self, number: int) -> int | None:
        if QUALITY_MAX < number < 0xFFFF:
            raise FormatError(f"damaged header: quality {number / 100} is above 100")
        return None if number == 0xFFFF else number


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its sections."""

    method: str  # a value of METHODS
    model_id: bytes  # the first four bytes of the SHA-256 of the model file; zeros if none is needed
    width: int  # pixels
    height: int  # pixels
    mode: str  # a value of MODES: the Pillow mode of the picture
    quality: int | None  # hundredths, 0 to 10000; None in lossless files

    @property
    def has_alpha(self) -> bool:
        return self.mode.removesuffix(";16").endswith("A")


HEADER_FIELDS = {
    "method": _Choice("method", METHODS),
    "model_id": _Fixed("4s"),
    "width": _Varint("width", (1, MAX_SIDE)),
    "height": _Varint("height", (1, MAX_SIDE)),
    "mode": _Choice("image mode", MODES),
    "quality": _Quality(),
}
assert list(HEADER_FIELDS) == [field.name for field in fields(Header)]

_BYTE = _Fixed("B")
_LENGTH = _Varint("section length", (0, 2**63 - 1))
_CRC = _Fixed("I")


def pack(header: Header, sections: dict[Tag, bytes]) -> bytes:
    """The file that holds `sections` (each as stored, its check value included) under `header`."""
    table = sorted(sections.items())
    _check_sections(header, [tag for tag, _ in table])
    out = MAGIC + _BYTE.write(VERSION)
    out += b"".join(coding.write(getattr(header, name)) for name, coding in HEADER_FIELDS.items())
    out += _BYTE.write(len(table))
    out += b"".join(_BYTE.write(tag) + _LENGTH.write(len(section)) for tag, section in table)
    return b"".join([out, _CRC.write(zlib.crc32(out)), *(section for _, section in table)])


def read_header(data: bytes) -> tuple[Header, dict[Tag, int], int]:
    """The header, the length of each section in file order, and the offset of the first section.

    Reads no further than the header: `data` may be the beginning of a file.
    """
    if not data.startswith(MAGIC):
        if MAGIC.startswith(data):
            raise TruncatedError(f"truncated file: {len(data)} bytes")
        raise FormatError(f"not a compressed picture of this codec: begins with {data[:4].hex(' ')}")
    cursor = _Cursor(data)
    cursor.take(len(MAGIC))
    version = _BYTE.read(cursor)
    if version > VERSION:
        raise UnsupportedError(f"file format version {version}: this program reads up to {VERSION}, update it")
    if version == 0:
        raise FormatError("damaged header: file format version 0")
    numbers = {name: coding.read(cursor) for name, coding in HEADER_FIELDS.items()}
    table = [(_BYTE.read(cursor), _LENGTH.read(cursor)) for _ in range(_BYTE.read(cursor))]
    end = cursor.position
    if _CRC.read(cursor) != zlib.crc32(data[:end]):
        raise FormatError("damaged header: its check value does not match")
    header = Header(**{name: coding.interpret(numbers[name]) for name, coding in HEADER_FIELDS.items()})
    tags = [tag for tag, _ in table]
    if unknown := set(tags) - set(Tag):
        raise UnsupportedError(f"section {min(unknown)} is unknown to this version: a newer one wrote the file")
    _check_sections(header, tags)
    return header, {Tag(tag): length for tag, length in table}, cursor.position


def unpack(data: bytes) -> tuple[Header, dict[Tag, bytes]]:
    """The header and the sections as stored: the inverse of `pack`."""
    header, lengths, position = read_header(data)
    if len(data) != (expected := position + sum(lengths.values())):
        if len(data) < expected:
            raise TruncatedError(f"truncated file: {len(data)} of {expected} bytes")
        raise FormatError(f"{len(data) - expected} bytes follow the end of the picture")
    sections = {}
    for tag, length in lengths.items():
        sections[tag] = data[position : position + length]
        position += length
    return header, sections


def _check_sections(header: Header, tags: list[int]) -> None:
    """Refuse what no encoder writes: disorder, repetition, and sections or a quality that belong to another kind."""
    if tags != sorted(set(tags)):
        raise FormatError(f"sections {tags} are not in ascending order")
    if header.method == "lossy":
        if header.mode not in BOTH_METHODS:
            raise FormatError(f"a lossy file of mode {header.mode}")
        if Tag.LATENTS not in tags:
            raise FormatError("a lossy file without latents")
        if header.has_alpha != (Tag.ALPHA in tags):
            raise FormatError(f"a lossy file of mode {header.mode} {'without' if header.has_alpha else 'with'} alpha")
        if foreign := {Tag.PIXELS, Tag.PLANES, Tag.PALETTE} & set(tags):
            raise FormatError(f"a lossy file with a section {Tag(min(foreign)).name}")
    else:
        if foreign := {Tag.LATENTS, Tag.ALPHA} & set(tags):
            raise FormatError(f"a lossless file with a section {Tag(min(foreign)).name}")
        if Tag.PIXELS in tags:
            if header.mode not in BOTH_METHODS:
                raise FormatError(f"a lossless file of mode {header.mode} with a section PIXELS")
            if header.has_alpha != (Tag.PLANES in tags):
                raise FormatError(f"a lossless file whose sections PIXELS and PLANES do not fit mode {header.mode}")
        elif Tag.PLANES not in tags:
            raise FormatError("a lossless file without samples")
        elif header.model_id != NO_MODEL:
            raise FormatError("a lossless file that names a model but has no section for it")
        if header.mode in ("P", "PA") and Tag.PALETTE not in tags:
            raise FormatError(f"a lossless file of mode {header.mode} without palette")
    if (header.quality is None) != (header.method == "lossless"):
        raise FormatError(f"a {header.method} file with quality {header.quality}")


# Sections 2 to 10 end in a CRC-32 over what they decode to and then the payload itself. The first part finds a decoder
# that drifts; the second any damage, even where it happens to decode to the same content.


def _seal(payload: bytes, content: bytes) -> bytes:
    return payload + _CRC.write(zlib.crc32(payload, zlib.crc32(content)))


def _open(tag: Tag, section: bytes) -> tuple[bytes, bytes]:
    """Payload and check value."""
    if len(section) < 5:
        raise FormatError(f"damaged {tag.name} section: only {len(section)} bytes")
    return section[:-4], section[-4:]


def _deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(9, wbits=-15)  # no zlib wrapper: the section has its own check value
    return compressor.compress(content) + compressor.flush()


def _inflate(tag: Tag, stream: bytes, length: int) -> bytes:
    """Exactly `length` bytes; never holds more than that, whatever the stream expands to."""
    if length == 0:  # which zlib would take for "no limit"
        raise FormatError(f"damaged {tag.name} section: it is empty")
    inflater = zlib.decompressobj(wbits=-15)
    try:
        content = inflater.decompress(stream, length)
        # The end mark may still be unread when the output is full; this moves on to it, and one byte shows an excess.
        excess = inflater.decompress(inflater.unconsumed_tail, 1) if not inflater.eof else b""
    except zlib.error as error:
        raise FormatError(f"damaged {tag.name} section: {error}") from error
    if len(content) != length or excess or not inflater.eof or inflater.unused_data:
        raise FormatError(f"damaged {tag.name} section: it does not hold the {length} bytes that it should")
    return content


@dataclass(frozen=True)
class Envelope:
    """All of a lossy file but what its colour is coded as."""

    width: int  # pixels
    height: int  # pixels
    mode: str
    sections: dict[Tag, bytes]

    def file(self, model_id: bytes, quality: int, latents: bytes) -> bytes:
        """quality: hundredths; latents: the section of that name."""
        header = Header("lossy", model_id, self.width, self.height, self.mode, quality)
        return pack(header, {Tag.LATENTS: latents, **self.sections})


def pack_metadata(tag: Tag, content: bytes) -> bytes:
    """A section of metadata, or of a palette: varint length of the content, raw deflate stream, check value."""
    if len(content) > MAX_METADATA:
        raise ImageError(f"{tag.name} of {len(content)} bytes: at most {MAX_METADATA} can be kept; drop it to go on")
    return _seal(_LENGTH.write(len(content)) + _deflate(content), content)


def unpack_metadata(tag: Tag, section: bytes) -> bytes:
    """The inverse of `pack_metadata`. LimitError before anything beyond MAX_METADATA is allocated."""
    payload, check = _open(tag, section)
    cursor = _Cursor(payload)
    try:
        length = _LENGTH.read(cursor)
    except FormatError as error:
        raise FormatError(f"damaged {tag.name} section: bad length") from error
    if length > MAX_METADATA:
        raise LimitError(f"{tag.name} of {length} bytes: at most {MAX_METADATA} are read")
    content = _inflate(tag, payload[cursor.position :], length)
    if _seal(payload, content)[-4:] != check:
        raise FormatError(f"damaged {tag.name} section: its check value does not match")
    return content


# The content of some is not bytes but numbers.

METADATA = {Tag.ICC_PROFILE: "icc_profile", Tag.EXIF: "exif", Tag.XMP: "xmp", Tag.CICP: "cicp", Tag.RESOLUTION: "dpi"}
_NUMBERS = {Tag.CICP: struct.Struct("<4B"), Tag.RESOLUTION: struct.Struct("<2d")}
_ALLOWED = {
    Tag.CICP: lambda numbers: numbers[2] == 0 and numbers[3] <= 1,  # matrix, full range
    Tag.RESOLUTION: lambda numbers: all(0 < dpi < 1e6 for dpi in numbers),
}


def metadata_sections(metadata: dict[str, bytes | tuple | None]) -> dict[Tag, bytes]:
    """Sections of all that there is: icc_profile, exif and xmp are bytes; cicp and dpi are tuples of numbers."""
    sections = {}
    for tag, name in METADATA.items():
        if value := metadata[name]:
            sections[tag] = pack_metadata(tag, _NUMBERS[tag].pack(*value) if tag in _NUMBERS else value)
    return sections


def metadata_of(sections: dict[Tag, bytes]) -> dict[str, bytes | tuple]:
    """The inverse of `metadata_sections`, whatever other sections there are; what is absent is not there."""
    metadata: dict[str, bytes | tuple] = {}
    for tag, name in METADATA.items():
        if tag in sections:
            metadata[name] = content = unpack_metadata(tag, sections[tag])
            if tag in _NUMBERS:
                if len(content) != _NUMBERS[tag].size or not _ALLOWED[tag](numbers := _NUMBERS[tag].unpack(content)):
                    raise FormatError(f"damaged {tag.name} section: {content[:16].hex(' ')} cannot be its content")
                metadata[name] = numbers
    return metadata


# The alpha plane, H×W uint8: one byte selects what each sample is predicted from, then a raw deflate stream of the
# differences modulo 256, row by row; samples outside the picture are 0. CONSTANT is followed by the one value instead.
# On photographic mattes, cut-outs, text and gradients this was never larger than the same plane as an optimised PNG.

CONSTANT, NOTHING, LEFT, ABOVE, PLANE = range(5)
_AXES = {NOTHING: (), LEFT: (1,), ABOVE: (0,), PLANE: (0, 1)}  # the differences are taken along these axes in turn


def pack_alpha(alpha: np.ndarray) -> bytes:
    """The section of an alpha plane, H×W uint8: the predictor that deflates best at a quick level is used."""
    content = alpha.tobytes()
    if content.count(content[0]) == len(content):
        return _seal(bytes([CONSTANT, content[0]]), content)
    candidates = []
    for predictor, axes in _AXES.items():
        residual = alpha
        for axis in axes:
            residual = np.diff(residual, axis=axis, prepend=np.uint8(0))
        candidates.append((len(zlib.compress(residual.tobytes(), 6)), predictor, residual))
    _, predictor, residual = min(candidates, key=lambda candidate: candidate[:2])
    return _seal(bytes([predictor]) + _deflate(residual.tobytes()), content)


def unpack_alpha(section: bytes, width: int, height: int) -> np.ndarray:
    """The inverse of `pack_alpha`: H×W uint8. Holds at most a few times H×W bytes."""
    payload, check = _open(Tag.ALPHA, section)
    predictor, stream = payload[0], payload[1:]
    if predictor == CONSTANT and len(stream) == 1:
        alpha = np.full((height, width), stream[0], np.uint8)
    elif predictor in _AXES:
        alpha = np.frombuffer(_inflate(Tag.ALPHA, stream, width * height), np.uint8).reshape(height, width)
        for axis in _AXES[predictor]:
            alpha = np.cumsum(alpha, axis=axis, dtype=np.uint8)  # wraps modulo 256
    else:
        raise FormatError(f"damaged ALPHA section: predictor {predictor}")
    if _seal(payload, alpha.tobytes())[-4:] != check:
        raise FormatError("damaged ALPHA section: its check value does not match")
    return alpha


# PIXELS and PLANES: a payload that another module codes, and the check value over the samples: row by row, pixel by
# pixel, channels interleaved; u8, or u16 little-endian where the mode has 16 bits.


def pack_samples(payload: bytes, samples: np.ndarray) -> bytes:
    """The section of a payload that decodes to `samples`, H×W×C uint8 or uint16."""
    return _seal(payload, _bytes_of(samples))


def payload_of_samples(tag: Tag, section: bytes) -> bytes:
    """The payload of `pack_samples`, still unchecked: `check_samples` must approve what it decodes to."""
    return _open(tag, section)[0]


def check_samples(tag: Tag, section: bytes, samples: np.ndarray) -> None:
    """FormatError unless `section` is one that `pack_samples` made for these samples."""
    payload, check = _open(tag, section)
    if _seal(payload, _bytes_of(samples))[-4:] != check:
        raise FormatError(f"damaged {tag.name} section: its check value does not match")


def _bytes_of(samples: np.ndarray) -> memoryview:
    return np.ascontiguousarray(samples, "<u2" if samples.dtype == np.uint16 else np.uint8).data.cast("B")


# Palette and transparency: a section as of metadata, whose content is
#   u8 kind of palette | u16 length | entries | u8 kind of transparency | its values

Palette = tuple[str, bytes]  # "RGB" or "RGBA", and its entries
Transparency = int | tuple[int, int, int] | bytes  # as in Pillow's `info`: index or level, colour, alpha of each entry

_PALETTES = {1: "RGB", 2: "RGBA"}  # 0: none
NO_TRANSPARENCY, ONE_VALUE, ONE_COLOUR, TABLE = range(4)
_VALUE = struct.Struct("<H")
_COLOUR = struct.Struct("<3H")


def pack_palette(palette: Palette | None, transparency: Transparency | None) -> bytes:
    """The section of a palette, of a transparent value, colour or table, or of both."""
    mode, entries = palette or ("", b"")
    kind = next((kind for kind, known in _PALETTES.items() if known == mode), 0)
    content = bytes([kind]) + _VALUE.pack(len(entries)) + entries
    if transparency is None:
        content += bytes([NO_TRANSPARENCY])
    elif isinstance(transparency, bytes):
        content += bytes([TABLE]) + transparency
    elif isinstance(transparency, tuple):
        content += bytes([ONE_COLOUR]) + _COLOUR.pack(*transparency)
    else:
        content += bytes([ONE_VALUE]) + _VALUE.pack(transparency)
    return pack_metadata(Tag.PALETTE, content)


def unpack_palette(section: bytes) -> tuple[Palette | None, Transparency | None]:
    """The inverse of `pack_palette`."""
    cursor = _Cursor(unpack_metadata(Tag.PALETTE, section))
    try:
        kind = cursor.take(1)[0]
        entries = cursor.take(_VALUE.unpack(cursor.take(2))[0])
        how = cursor.take(1)[0]
        values = cursor.take(len(cursor.data) - cursor.position)
        if how == NO_TRANSPARENCY and not values:
            transparency = None
        elif how == TABLE and len(values) <= 256:
            transparency = values
        elif how == ONE_COLOUR:
            transparency = _COLOUR.unpack(values)
        elif how == ONE_VALUE:
            (transparency,) = _VALUE.unpack(values)
        else:
            raise FormatError(f"damaged PALETTE section: transparency of kind {how} with {len(values)} bytes")
    except (TruncatedError, struct.error) as error:
        raise FormatError("damaged PALETTE section: it is too short or too long for its content") from error
    if kind == 0 and not entries:
        return None, transparency
    if kind not in _PALETTES or len(entries) % len(_PALETTES[kind]) or len(entries) > 256 * len(_PALETTES[kind]):
        raise FormatError(f"damaged PALETTE section: palette of kind {kind} with {len(entries)} bytes")
    return (_PALETTES[kind], entries), transparency
