"""A generic lossless coder for samples that do not suit the learned model (floor 1): several ways, the smallest wins.

Pixels H×W×C of 1, 8 or 16 bits <-> bytes. The first byte names the way: its low four bits a coder, the others what was
done to the samples before. docs/FORMAT.md says the same. Nothing here checks that the samples are the right ones: that
is the check value of the section around it.
"""

import io
import lzma
import zlib

import numpy as np
from PIL import Image, features
from PIL.WebPImagePlugin import WebPImageFile

from .errors import FormatError, UnsupportedError

RAW, CONSTANT, DEFLATE, LZMA, WEBP = range(5)
NAMES = {RAW: "raw", CONSTANT: "constant", DEFLATE: "deflate", LZMA: "lzma", WEBP: "webp"}
LEFT, ABOVE, MINUS_GREEN = 16, 32, 64  # bits of the first byte, for DEFLATE and LZMA only
WEBP_MAX_SIDE = 2**14 - 1
_WEBP_MOST = 2**26  # pixels; libwebp takes 20 bytes for each
_HUGE = 2**24  # pixels from which on less effort is spent on each
_PROBE = 2**18  # samples on which predictors are compared
_SMALL = 2**16  # bytes up to which all ways are tried
_LZMA_DICTIONARY = (2**12, 2**26)  # limits in bytes
_PIECES, _PIECE = 4, 64  # what `estimate` looks at: so many pieces a row and a column, of so many pixels a side


def encode(pixels: np.ndarray, *, bits: int | None = None, effort: int = 3) -> bytes:
    """pixels: H×W×C uint8 or uint16, C 1..4; bits: 1 for samples that are 0 or 1 (C = 1), None takes 8 or 16.

    At most one byte more than the samples, packed.
    """
    if bits is None:
        bits = 8 * pixels.dtype.itemsize
    height, width, channels = pixels.shape
    if not (pixels != pixels[0, 0]).any():
        return bytes([CONSTANT]) + _serialised(pixels[:1, :1], 8 if bits == 1 else bits)
    stored = height * ((width + 7) // 8 if bits == 1 else width) * channels * (2 if bits == 16 else 1)
    candidates = []
    if bits <= 8 and max(width, height) <= WEBP_MAX_SIDE and height * width <= _WEBP_MOST and (stream := _to_webp(pixels, effort)):
        candidates.append(bytes([WEBP]) + stream)
    candidates += _by_prediction(pixels, bits, effort, min(map(len, candidates), default=1 + stored))
    if all(len(candidate) >= 1 + stored for candidate in candidates):
        return bytes([RAW]) + _serialised(pixels, bits)
    return min(candidates, key=len)


def estimate(pixels: np.ndarray) -> float:
    """Roughly the bytes of `encode`, from pieces all over a picture H×W×C of uint8, in milliseconds whatever its size.

    It is what deflate takes for each of them after those before, at a quick level, predicted or not: `encode` mostly needs 0.2
    (text, flat areas) to 0.9 times that (photographs), and less only where what is far apart repeats.
    """
    height, width, channels = pixels.shape
    rows, columns = (
        np.linspace(0, max(0, side - _PIECE), min(_PIECES, -(-side // _PIECE))).astype(int) for side in (height, width)
    )
    predicted = LEFT | ABOVE | (MINUS_GREEN if channels > 2 else 0)
    streams = zlib.compressobj(1, wbits=-15), zlib.compressobj(1, wbits=-15)
    total = seen = 0
    for top in rows:
        for left in columns:
            piece = pixels[top : top + _PIECE, left : left + _PIECE]
            contents = piece.tobytes(), _residual(piece, predicted)
            total += min(
                len(stream.compress(content)) + len(stream.flush(zlib.Z_SYNC_FLUSH))
                for stream, content in zip(streams, contents, strict=True)
            )
            seen += piece.shape[0] * piece.shape[1]
    return total * height * width / seen


def decode(data: bytes, *, height: int, width: int, channels: int, bits: int) -> np.ndarray:
    """The inverse of `encode`: H×W×C uint8, or uint16 where bits is 16.

    Holds a few times the size of the samples, whatever `data` claims. FormatError for bytes that are no such coding;
    UnsupportedError if this build of Pillow lacks WebP.
    """
    if not data:
        raise FormatError("damaged PLANES section: it is empty")
    pixels = _decoded(data, height, width, channels, bits)
    if bits == 1 and pixels.max() > 1:
        raise FormatError("damaged PLANES section: samples above 1 in a picture of one bit")
    return pixels


def _decoded(data: bytes, height: int, width: int, channels: int, bits: int) -> np.ndarray:
    way, stream = data[0], data[1:]
    coder = way & 15
    shape = (height, width, channels)
    row = (width + 7) // 8 if bits == 1 else width
    length = height * row * channels * (2 if bits == 16 else 1)  # bytes of all samples
    if coder in (DEFLATE, LZMA) and way < 128:
        stored = (height, row, channels)
        expand = _inflate if coder == DEFLATE else _expand_lzma
        return _unpacked(_restored(expand(stream, length), stored, bits, way), width, bits)
    if way == RAW and len(stream) == length:
        return _unpacked(_deserialised(stream, (height, row, channels), bits), width, bits)
    if way == CONSTANT and len(stream) == channels * (2 if bits == 16 else 1):
        return np.tile(_deserialised(stream, (1, 1, channels), bits), (height, width, 1))
    if way == WEBP and bits <= 8:
        return _from_webp(stream, shape)
    raise FormatError(f"damaged PLANES section: way {way} with {len(stream)} bytes")


def name(data: bytes) -> str:
    """What the first byte of an encoding says, for people."""
    way = data[0] if data else 255
    return NAMES.get(way & 15, f"way {way}")


# ── samples as bytes ──


def _packed(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Samples of one bit become bytes of eight, from the high bit down, each row padded with zeros on its own."""
    return np.packbits(pixels, axis=1) if bits == 1 else pixels


def _unpacked(samples: np.ndarray, width: int, bits: int) -> np.ndarray:
    return np.unpackbits(samples, axis=1, count=width) if bits == 1 else samples


def _serialised(pixels: np.ndarray, bits: int) -> bytes:
    return _packed(pixels, bits).astype("<u2" if bits == 16 else np.uint8, copy=False).tobytes()


def _deserialised(data: bytes, shape: tuple[int, int, int], bits: int) -> np.ndarray:
    array = np.frombuffer(data, "<u2" if bits == 16 else np.uint8).reshape(shape)
    return array.astype(np.uint16) if bits == 16 else array


# ── prediction, then a dictionary coder ──


def _by_prediction(pixels: np.ndarray, bits: int, effort: int, rival: int) -> list[bytes]:
    """Encodings by predictors and DEFLATE or LZMA; none if a probe says that they stay far above `rival` bytes."""
    samples = _packed(pixels, bits)
    height, row, channels = samples.shape
    rows = min(height, max(1, _PROBE // (row * channels)))
    start = (height - rows) // 2
    band = samples[start : start + rows]
    ways = [axes | green for axes in (0, LEFT, ABOVE, LEFT | ABOVE) for green in (0, MINUS_GREEN)[: 1 + (channels > 2)]]
    sizes = {way: len(zlib.compress(_residual(band, way), 1)) for way in ways}
    best = min(ways, key=sizes.get)
    chosen = {best, 0} if samples.nbytes <= 2**22 else {best}  # repeated patterns are best left unpredicted
    if samples.nbytes > _SMALL:
        probe = min(len(_to_lzma(_residual(band, way), 1)) for way in chosen)
        if probe * height > 1.1 * rival * rows:
            return []
    found = []
    for way in sorted(chosen):
        residual = _residual(samples, way)
        preset = 1 if effort < 3 or len(residual) > 2 * _HUGE else 9 | lzma.PRESET_EXTREME if effort > 6 else 6
        found.append(bytes([LZMA | way]) + _to_lzma(residual, preset))
        if len(residual) <= _SMALL:
            found.append(bytes([DEFLATE | way]) + _deflate(residual))
    return found


def _residual(samples: np.ndarray, way: int) -> bytes:
    """Differences modulo 2^8 or 2^16, plane by plane.

    16-bit differences d, as signed numbers, become 2d or -2d - 1, so that small ones have the high byte 0; of each
    plane first all high bytes, then all low bytes.
    """
    planes = np.ascontiguousarray(samples.transpose(2, 0, 1))
    if way & MINUS_GREEN:
        planes = planes.copy()
        planes[0] -= planes[1]
        planes[2] -= planes[1]
    for bit, axis in ((LEFT, 2), (ABOVE, 1)):
        if way & bit:
            planes = np.diff(planes, axis=axis, prepend=planes.dtype.type(0))
    if planes.dtype.itemsize == 1:
        return planes.tobytes()
    folded = (planes << 1) ^ (0 - (planes >> 15))
    return np.stack([folded >> 8, folded & 255], axis=1).astype(np.uint8).tobytes()


def _restored(residual: bytes, shape: tuple[int, int, int], bits: int, way: int) -> np.ndarray:
    """The inverse of `_residual`: H×W×C."""
    height, width, channels = shape
    if way & MINUS_GREEN and channels < 3:
        raise FormatError(f"damaged PLANES section: way {way} with {channels} channels")
    if bits == 16:
        halves = np.frombuffer(residual, np.uint8).reshape(channels, 2, height, width)
        folded = halves[:, 0].astype(np.uint16) << 8 | halves[:, 1]
        planes = (folded >> 1) ^ (0 - (folded & 1))
    else:
        planes = np.frombuffer(residual, np.uint8).reshape(channels, height, width).copy()
    for bit, axis in ((LEFT, 2), (ABOVE, 1)):
        if way & bit:
            planes = np.cumsum(planes, axis=axis, dtype=planes.dtype)  # wraps
    if way & MINUS_GREEN:
        planes[0] += planes[1]
        planes[2] += planes[1]
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(9, wbits=-15)
    return compressor.compress(content) + compressor.flush()


def _inflate(stream: bytes, length: int) -> bytes:
    return _expanded(zlib.decompressobj(wbits=-15), stream, length, zlib.error)


def _lzma_filter(length: int, **more) -> list[dict]:
    """A raw LZMA2 stream; its dictionary is the smallest power of two that holds the content, within limits."""
    low, high = _LZMA_DICTIONARY
    size = min(high, max(low, 1 << (length - 1).bit_length()))
    return [{"id": lzma.FILTER_LZMA2, **more, "dict_size": size}]


def _to_lzma(content: bytes, preset: int) -> bytes:
    return lzma.compress(content, lzma.FORMAT_RAW, filters=_lzma_filter(len(content), preset=preset, lc=4, lp=0, pb=0))


def _expand_lzma(stream: bytes, length: int) -> bytes:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_lzma_filter(length))
    return _expanded(decompressor, stream, length, lzma.LZMAError)


def _expanded(decompressor, stream: bytes, length: int, error: type[Exception]) -> bytes:
    """Exactly `length` bytes, after which the stream ends; never holds more, whatever it expands to."""
    try:
        content = decompressor.decompress(stream, length)
        if not decompressor.eof:  # the end mark may still be unread; one more byte would be an excess
            rest = getattr(decompressor, "unconsumed_tail", b"")  # zlib hands it back, lzma keeps it
            content += decompressor.decompress(rest, 1)
    except (error, EOFError) as failure:
        raise FormatError(f"damaged PLANES section: {failure}") from failure
    if len(content) != length or not decompressor.eof or decompressor.unused_data:
        raise FormatError(f"damaged PLANES section: it does not hold the {length} bytes that it should")
    return content


# ── lossless WebP: its VP8L bitstream (RFC 9649, section 3) without the RIFF container ──


def _to_webp(pixels: np.ndarray, effort: int) -> bytes | None:
    """The bitstream; None where this build of Pillow cannot write it."""
    if not features.check("webp"):
        return None
    method, quality = (2, 50) if effort < 3 else (6, 100) if effort > 6 else (6, 80)
    if pixels.shape[0] * pixels.shape[1] > _HUGE:
        method, quality = min(method, 4), min(quality, 80)
    if pixels.shape[2] < 3:  # gray: three equal channels, and alpha
        pixels = pixels[..., [0, 0, 0, 1][: 3 + (pixels.shape[2] == 2)]]
    buffer = io.BytesIO()
    try:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        image.save(buffer, "WEBP", lossless=True, exact=True, method=method, quality=quality)
    except (OSError, ValueError, MemoryError):
        return None
    file = buffer.getvalue()
    length = int.from_bytes(file[16:20], "little")
    if file[8:16] != b"WEBPVP8L" or len(file) != 20 + length + length % 2:
        return None
    return file[20 : 20 + length]


def _from_webp(stream: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    if not features.check("webp"):
        raise UnsupportedError("samples coded as lossless WebP: this build of Pillow cannot read them")
    height, width, channels = shape
    sizes = int.from_bytes(stream[1:5], "little")
    if len(stream) < 5 or stream[0] != 0x2F or (sizes & 0x3FFF, sizes >> 14 & 0x3FFF) != (width - 1, height - 1):
        raise FormatError(f"damaged PLANES section: no {width}×{height} WebP stream")
    chunk = b"VP8L" + len(stream).to_bytes(4, "little") + stream + bytes(len(stream) % 2)
    file = b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk
    try:
        # Not Image.open, whose limit on pixels is another than the one that the caller has checked.
        image = WebPImageFile(io.BytesIO(file))
        if image.size != (width, height):
            raise ValueError(f"a picture of {image.width}×{image.height}")
        pixels = np.asarray(image.convert("RGB" if channels in (1, 3) else "RGBA"))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever the damage makes them stumble over
        raise FormatError(f"damaged PLANES section: {error}") from error
    return pixels if channels > 2 else np.ascontiguousarray(pixels[..., [0, 3][:channels]])
