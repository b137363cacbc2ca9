"""The generic lossless coder: every way comes back, none is larger than the samples, and no bytes make it stumble."""

import lzma
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec import planes
from codec.errors import CodecError, FormatError, UnsupportedError


def check(pixels: np.ndarray, bits: int | None = None, **options) -> bytes:
    """Encode and decode; the encoding."""
    data = planes.encode(pixels, bits=bits, **options)
    height, width, channels = pixels.shape
    bits = bits or 8 * pixels.dtype.itemsize
    again = planes.decode(data, height=height, width=width, channels=channels, bits=bits)
    assert again.dtype == pixels.dtype and np.array_equal(again, pixels)
    size = height * -(-width // 8) if bits == 1 else pixels.nbytes
    assert len(data) <= size + 1
    return data


def ramp(height: int, width: int, channels: int, dtype, noise: int, rng) -> np.ndarray:
    slopes = np.add.outer(7 * np.arange(height), 3 * np.arange(width))[..., np.newaxis] + 40 * np.arange(channels)
    return (slopes + rng.integers(0, noise + 1, slopes.shape)).astype(dtype)


@pytest.mark.parametrize("effort", [1, 3, 9])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_flat_noise_gradients_and_graphics_come_back(channels, dtype, effort, rng):
    largest = np.iinfo(dtype).max
    for height, width in ((1, 1), (1, 70), (70, 1), (33, 47)):
        shape = (height, width, channels)
        check(np.full(shape, largest, dtype), effort=effort)
        check(rng.integers(0, largest, shape, dtype=dtype, endpoint=True), effort=effort)
        check(ramp(*shape, dtype, 2, rng), effort=effort)
        check(rng.choice(np.array([0, 1, largest], dtype), shape), effort=effort)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 100])
def test_single_bits_come_back_in_an_eighth_of_the_bytes(width, rng):
    for density in (0.02, 0.5):
        check((rng.random((41, width, 1)) < density).astype(np.uint8), bits=1)
    check(np.ones((3, width, 1), np.uint8), bits=1)


def test_each_way_is_taken_where_it_helps(rng, photo, monkeypatch):
    seen = {
        "constant": check(np.full((999, 999, 4), 200, np.uint8)),
        "raw": check(rng.integers(0, 256, (50, 50, 3), dtype=np.uint8)),
        "webp": check(np.asarray(photo)),
        "lzma": check(ramp(100, 100, 3, np.uint16, 3, rng)),
    }
    assert {name: planes.name(data) for name, data in seen.items()} == {name: name for name in seen}
    assert len(seen["constant"]) == 5
    assert seen["lzma"][0] & planes.MINUS_GREEN == 0 and seen["lzma"][0] & (planes.LEFT | planes.ABOVE)
    correlated = rng.integers(0, 60000, (60, 60, 1)) + rng.integers(0, 3, (60, 60, 3))
    assert check(correlated.astype(np.uint16))[0] & planes.MINUS_GREEN
    monkeypatch.setattr(planes.features, "check", lambda name: False)
    assert planes.name(check(np.tile(np.arange(9, dtype=np.uint8), 3).reshape(3, 9, 1))) == "deflate"
    assert planes.name(check(np.asarray(photo))) in ("lzma", "deflate")
    with pytest.raises(UnsupportedError, match="WebP"):
        planes.decode(seen["webp"], height=64, width=96, channels=3, bits=8)


def test_colours_under_full_transparency_come_back(rng):
    pixels = np.tile(np.array([[[10, 20, 30, 0], [1, 2, 3, 0], [9, 9, 9, 255]]], np.uint8), (30, 30, 1))
    assert planes.name(check(pixels)) in ("webp", "lzma", "deflate")
    check(rng.choice(np.array([[7, 0], [8, 0], [9, 255]], np.uint8), (40, 40)))


def test_a_picture_wider_than_webp_allows_comes_back():
    pixels = np.tile(np.arange(200, dtype=np.uint8), 100)[np.newaxis, :, np.newaxis]
    assert planes.name(check(pixels)) != "webp"
    check(pixels.transpose(1, 0, 2))


@pytest.fixture(scope="module")
def examples(photo) -> dict[str, tuple[bytes, dict]]:
    """An encoding by each way, and what its decoder is told."""
    rng = np.random.default_rng(1)
    residual = {"height": 9, "width": 7, "channels": 3, "bits": 16}
    pixels = ramp(9, 7, 3, np.uint16, 3, rng)
    noise = rng.integers(0, 2**16, (2, 7, 3), dtype=np.uint16)
    way = planes.LEFT | planes.MINUS_GREEN
    small = np.asarray(photo.crop((0, 0, 20, 10)))
    return {
        "raw": (planes.encode(noise), residual | {"height": 2}),
        "constant": (planes.encode(pixels[:1, :1]), residual),
        "deflate": (bytes([planes.DEFLATE | way]) + planes._deflate(planes._residual(pixels, way)), residual),
        "lzma": (bytes([planes.LZMA | way]) + planes._to_lzma(planes._residual(pixels, way), 6), residual),
        "webp": (planes.encode(small), {"height": 10, "width": 20, "channels": 3, "bits": 8}),
    }


@pytest.mark.parametrize("name", planes.NAMES.values())
def test_damage_is_refused_or_gives_samples_of_the_right_shape(examples, name):
    data, layout = examples[name]
    assert planes.name(data) == name
    shape = (layout["height"], layout["width"], layout["channels"])
    assert planes.decode(data, **layout).shape == shape
    damaged = [data[:end] for end in range(len(data))] + [data + b"\0"]
    for position in range(len(data)):
        for value in (0x01, 0x80, 0xFF):
            damaged.append(data[:position] + bytes([data[position] ^ value]) + data[position + 1 :])
    for bad in damaged:
        try:
            assert planes.decode(bad, **layout).shape == shape
        except CodecError as error:
            assert "\n" not in str(error)


@given(st.binary(max_size=60), st.sampled_from([1, 8, 16]), st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_decoded_or_refused(data, bits, channels):
    channels = 1 if bits == 1 else channels
    try:
        pixels = planes.decode(data, height=3, width=5, channels=channels, bits=bits)
        assert pixels.shape == (3, 5, channels) and (bits > 1 or pixels.max() <= 1)
    except CodecError:
        pass


def test_a_bomb_expands_to_the_size_of_the_picture_only():
    bombs = [
        bytes([planes.DEFLATE]) + planes._deflate(bytes(2**26)),
        bytes([planes.LZMA])
        + lzma.compress(bytes(2**26), lzma.FORMAT_RAW, filters=planes._lzma_filter(100, preset=0, lc=4, lp=0, pb=0)),
        planes.encode(np.arange(2**24, dtype=np.uint32).astype(np.uint8).reshape(2**12, 2**12, 1) // 255, effort=1),
    ]
    assert planes.name(bombs[2]) == "webp"
    for bomb in bombs:
        tracemalloc.start()
        with pytest.raises(FormatError):
            planes.decode(bomb, height=10, width=10, channels=1, bits=8)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20


def test_samples_beyond_one_bit_are_refused():
    with pytest.raises(FormatError, match="above 1"):
        planes.decode(bytes([planes.CONSTANT, 2]), height=2, width=2, channels=1, bits=1)
