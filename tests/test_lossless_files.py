"""Lossless files from end to end: what goes in comes back identical, and damage is never a picture.

With the tiny model; run with --hypothesis-profile=long, the property test takes 2000 pictures, and the model that is
installed.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import codec
from codec import api, cli, container, lossless, weights
from codec.errors import FormatError, ImageError
from codec.picture import reading
from codec.picture.picture import LAYOUTS

EXAMPLES = max(150, settings.default.max_examples)
pytestmark = pytest.mark.usefixtures("tiny_model") if EXAMPLES < 2000 else []


def check(image: Image.Image | np.ndarray, **options) -> bytes:
    """Compress, decompress, and compare everything that makes a picture; the file."""
    data = codec.compress(image, lossless=True, **options)
    again = codec.decompress(data)
    if isinstance(again, np.ndarray):
        assert again.dtype == image.dtype and np.array_equal(again, image)
    elif isinstance(image, np.ndarray):
        pixels = image[..., 0] if image.shape[2:] == (1,) else image
        assert np.asarray(again).dtype == image.dtype and np.array_equal(np.asarray(again), pixels)
    else:
        assert (again.mode, again.size, again.tobytes()) == (image.mode, image.size, image.tobytes())
        assert again.info.get("transparency") == image.info.get("transparency")
        if image.mode in ("P", "PA"):
            mode = image.palette.mode
            assert (again.palette.mode, again.getpalette(mode)) == (mode, image.getpalette(mode))
    api.verify(data, image)
    return data


# ── any picture ──


def samples(kind: str, height: int, width: int, channels: int, bits: int, rng: np.random.Generator) -> np.ndarray:
    """H×W×C of a kind of picture."""
    largest = 2**bits - 1
    shape = (height, width, channels)
    if kind == "flat":
        pixels = np.broadcast_to(rng.integers(0, largest, channels, endpoint=True), shape)
    elif kind == "extremes":
        pixels = largest * rng.integers(0, 2, shape)
    elif kind == "few":
        pixels = rng.integers(0, largest, (4, channels), endpoint=True)[rng.integers(0, 4, (height, width))]
    elif kind == "gradient":
        slopes = rng.integers(-5, 6, (2, channels))
        pixels = np.arange(height)[:, None, None] * slopes[0] + np.arange(width)[:, None] * slopes[1]
        pixels = pixels + rng.integers(0, 3, shape)
    elif kind == "text":
        page = Image.new("L", (width, height), 255)
        ImageDraw.Draw(page).text((1, 1), "bits-back", fill=0)
        pixels = np.broadcast_to(np.asarray(page)[..., None] / 255 * largest, shape).round()
    else:
        pixels = rng.integers(0, largest, shape, endpoint=True)
    return (pixels.astype(np.int64) & largest).astype(np.uint16 if bits == 16 else np.uint8)


def picture(mode: str, kind: str, size: tuple[int, int], seed: int) -> Image.Image | np.ndarray:
    """A picture of a mode of LAYOUTS, or of an "array" of them."""
    rng = np.random.default_rng(seed)
    array = mode.startswith("array ")
    mode = mode.removeprefix("array ")
    channels, bits = LAYOUTS[mode]
    pixels = samples(kind, size[1], size[0], channels, bits, rng)
    if array or mode in ("LA;16", "RGB;16", "RGBA;16"):
        return pixels[..., 0] if channels == 1 and seed % 2 else pixels
    raw = {"1": lambda: np.packbits(pixels, axis=1), "I": lambda: pixels.astype(np.int32),
           "I;16B": lambda: pixels.astype(">u2"), "I;16": lambda: pixels.astype("<u2")}  # fmt: skip
    image = Image.frombytes(mode, size, raw.get(mode, lambda: pixels)().tobytes())
    if mode in ("P", "PA"):
        kind, entry = [("RGB", 3), ("RGBA", 4)][seed // 2 % 2]
        image.putpalette(rng.integers(0, 256, entry * int(rng.integers(0, 257)), dtype=np.uint8).tobytes(), kind)
    if seed // 4 % 2 and not mode.endswith("A"):
        choices = {"P": [3, rng.bytes(7), bytes(256)], "RGB": [(1, 2, 3), (255, 0, 65535)]}.get(mode, [0, 255])
        image.info["transparency"] = choices[seed % len(choices)]
    return image


modes = st.sampled_from([*LAYOUTS, *(f"array {mode}" for mode in ("L", "LA", "RGB", "RGBA", "I;16"))])
kinds = st.sampled_from(["flat", "noise", "gradient", "text", "extremes", "few"])
sizes = st.tuples(st.integers(1, 70), st.integers(1, 70)) | st.sampled_from([(1, 1), (1, 300), (300, 1), (17, 8)])


@given(modes, kinds, sizes, st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 7]))
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_picture_comes_back_identical(mode, kind, size, seed, effort):
    image = picture(mode, kind, size, seed)
    data = check(image, effort=effort)
    channels, bits = LAYOUTS[mode.removeprefix("array ")]
    raw = size[1] * -(-size[0] * channels * bits // 8)
    overhead = 50 + (0 if mode not in ("P", "PA") else 1024) + 300  # header; palette; transparency
    assert len(data) <= 1.01 * raw + overhead


@pytest.mark.parametrize("mode", LAYOUTS)
def test_every_mode_comes_back(mode):
    for size in ((1, 1), (40, 30)):
        info = codec.inspect(check(picture(mode, "noise", size, 6)))
        assert (info.mode, info.lossless, info.quality) == (mode, True, None)
        assert ("pixels" in info.ways) == (info.model != "00000000")
        assert sum(info.sections.values()) == info.bytes


@pytest.mark.parametrize("mode", sorted(container.BOTH_METHODS))
def test_photographs_go_to_the_model(mode, photo):
    info = codec.inspect(check(photo.convert(mode)))
    assert info.ways["pixels"] == "model" and ("planes" in info.ways) == mode.endswith("A")
    assert info.model == weights.load_lossless(weights.default_path(lossless=True)).model_id.hex()


def test_the_smaller_way_is_taken(photo, monkeypatch):
    encode = api._encode_by_model

    def longer(pixels, **options):
        model_id, section = encode(pixels, **options)
        return model_id, section + bytes(10**5)

    monkeypatch.setattr(api, "_encode_by_model", longer)
    info = codec.inspect(check(photo))
    assert (info.ways, info.model) == ({"planes": "webp"}, "00000000")


@pytest.mark.parametrize("mode", ["RGB", "LA"])
def test_a_sample_of_a_large_picture_decides(photo, monkeypatch, mode):
    monkeypatch.setattr(api, "LARGE", 1000)
    assert codec.inspect(check(photo.convert(mode))).ways["pixels"] == "model"
    graphics = photo.quantize(20).convert(mode)
    assert list(codec.inspect(check(graphics)).ways) == ["planes"]
    noise = picture("RGB", "noise", (90, 60), 1)
    assert len(check(noise)) <= 1.01 * 90 * 60 * 3 + 50


def test_the_model_is_not_asked_about_graphics(photo, monkeypatch):
    asked, encode = [], api._encode_by_model

    def ask(pixels, **options):
        asked.append(pixels.shape)
        return encode(pixels, **options)

    monkeypatch.setattr(api, "_encode_by_model", ask)
    graphics = photo.quantize(200).convert("RGB")
    for image in (graphics, Image.new("RGB", (500, 500)), photo.convert("L").point(lambda level: level & 0xF8)):
        check(image)
    assert not asked
    check(photo.convert("L"))
    check(photo)
    assert asked == [(64, 96, 1), (64, 96, 3)]


def test_a_model_that_is_not_installed_is_named(photo, monkeypatch):
    monkeypatch.setenv("CODEC_LOSSLESS_MODEL", "missing")
    with pytest.raises(codec.UnsupportedError, match="'missing'"):
        codec.compress(photo, lossless=True)


def test_metadata_comes_back_or_is_dropped(photo):
    metadata = {"icc_profile": b"icc" * 9, "exif": b"Exif\0\0MM\0*", "xmp": b"<x/>"}
    for mode in ("1", "P", "RGB", "I;16"):
        image = photo.convert("L").convert(mode) if mode != "RGB" else photo.copy()
        image.info.update(metadata)
        again = codec.decompress(codec.compress(image, lossless=True))
        assert {key: again.info.get(key) for key in metadata} == metadata
        dropped = codec.compress(image, lossless=True, exif=b"", icc_profile=b"", xmp=b"")
        assert not set(metadata) & set(codec.decompress(dropped).info)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("CMYK", (2, 2)), r"mode CMYK cannot be coded without loss: convert with image\.convert\('RGB'\)"),
        (Image.new("F", (2, 2)), "mode F"),
        (Image.new("I", (2, 2), 65536), "samples from 65536 to 65536"),
        (Image.new("I", (2, 2), -1), "samples from -1 to -1"),
        (np.zeros((2, 2), np.int16), "array of int16"),
        (np.zeros((2, 2, 5), np.uint16), r"shape \(2, 2, 5\)"),
        (np.zeros((0, 2), np.uint16), "without pixels"),
    ],
)
def test_other_pictures_are_refused(image, words):
    with pytest.raises(ImageError, match=words):
        codec.compress(image, lossless=True)


def test_transparency_of_an_unknown_kind_is_refused():
    for value in (-1, 65536, "red", (1, 2), bytes(257), 1.5):
        image = Image.new("P", (2, 2))
        image.info["transparency"] = value
        with pytest.raises(ImageError, match="transparency"):
            codec.compress(image, lossless=True)


def test_arrays_of_the_other_byte_order_and_views_are_coded_as_their_values(rng):
    array = rng.integers(0, 2**16, (9, 7, 3), dtype=np.uint16)
    assert codec.compress(array.astype(">u2"), lossless=True) == codec.compress(array, lossless=True)
    view = array[::-2, 1:, ::-1]
    assert np.array_equal(codec.decompress(codec.compress(view, lossless=True)), view)


# ── damage ──


def damaged_files(data: bytes):
    for end in range(len(data)):
        yield data[:end]
    yield data + b"\0"
    for position in range(len(data)):
        for value in (0xFF, 1 << position % 8):
            yield data[:position] + bytes([data[position] ^ value]) + data[position + 1 :]


@pytest.mark.parametrize("mode", LAYOUTS)
@pytest.mark.parametrize("kind", ["flat", "gradient"])
def test_every_truncation_and_every_flipped_byte_is_reported(mode, kind):
    data = check(picture(mode, kind, (6, 5), 6))
    for bad in damaged_files(data):
        with pytest.raises(codec.CodecError) as caught:
            codec.decompress(bad)
        assert "\n" not in str(caught.value)


def test_every_flipped_byte_of_a_webp_stream_is_reported(photo):
    data = check(photo.crop((0, 0, 20, 12)))
    assert codec.inspect(data).ways == {"planes": "webp"}
    for bad in damaged_files(data):
        with pytest.raises(codec.CodecError):
            codec.decompress(bad)


def test_damage_to_what_the_model_coded_is_reported(photo):
    image = photo.crop((0, 0, 48, 40))
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    data = check(image)
    assert "pixels" in codec.inspect(data).ways
    for bad in damaged_files(data):
        with pytest.raises(codec.CodecError):
            codec.decompress(bad)


def test_a_model_that_drifts_is_reported(photo, monkeypatch):
    data = check(photo)
    decode = lossless.decode
    monkeypatch.setattr(lossless, "decode", lambda section, **options: decode(section, **options) ^ np.uint8(1))
    with pytest.raises(FormatError, match="PIXELS section: its check value"):
        codec.decompress(data)


@pytest.mark.parametrize("change", [{"width": 12}, {"height": 63}, {"width": 64, "height": 96}, {"mode": "RGBA"}])
def test_samples_under_the_header_of_another_picture_are_reported(photo, change):
    header, sections = container.unpack(codec.compress(photo, lossless=True))
    with pytest.raises(FormatError):
        codec.decompress(container.pack(replace(header, **change), sections))


def test_the_pixel_cap_comes_first():
    header, sections = container.unpack(codec.compress(Image.new("L", (9, 9)), lossless=True))
    with pytest.raises(codec.LimitError):
        codec.decompress(container.pack(replace(header, width=2**30, height=2**30), sections))


# ── the command line ──


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = cli.main(list(arguments))
    return status, *capsys.readouterr()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_files_come_back(mode, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = picture(mode, "noise", (30, 20), 4)
    if mode == "P":
        source.putpalette(bytes(range(30)))
    source.save("in.png")
    assert run(capsys, "compress", "-l", "in.png", "a.lic", "--quiet") == (0, "", "")
    assert run(capsys, "decompress", "a.lic", "back.png", "--quiet") == (0, "", "")
    before, after = (reading.read_image(name) for name in ("in.png", "back.png"))
    assert (after.mode, after.tobytes(), after.info) == (before.mode, before.tobytes(), before.info)
    assert after.getpalette() == before.getpalette()


def test_inspect_says_which_way_each_section_went(tmp_path, capsys, photo):
    path = tmp_path / "a.lic"
    path.write_bytes(codec.compress(photo, lossless=True))
    status, out, _ = run(capsys, "inspect", str(path))
    assert status == 0 and "RGB, lossless, model " in out and " by model" in out
    path.write_bytes(codec.compress(photo.quantize(20), lossless=True))
    status, out, _ = run(capsys, "inspect", "--json", str(path))
    assert json.loads(out)["ways"] == {"planes": "webp"}


def test_a_file_that_decodes_to_something_else_is_not_written(tmp_path, monkeypatch, capsys, photo):
    monkeypatch.chdir(tmp_path)
    photo.save("in.png")
    other = codec.compress(photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM), lossless=True)
    monkeypatch.setattr(api, "compress", lambda image, quality, **options: other)
    status, out, err = run(capsys, "compress", "-l", "in.png", "a.lic")
    assert (status, out) == (1, "")
    assert err == "error: in.png: verification failed: the file does not decode to the picture that went in\n"
    assert not (tmp_path / "a.lic").exists()


def test_16_bits_that_pillow_lacks_a_mode_for_go_to_png_or_an_array_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    array = picture("RGB;16", "noise", (5, 4), 1)
    (tmp_path / "a.lic").write_bytes(codec.compress(array, lossless=True))
    status, _, err = run(capsys, "decompress", "a.lic", "back.webp")
    assert (status, err) == (1, "error: a.lic: 3 samples of 16 bits a pixel: take a name in .png or .npy\n")
    assert run(capsys, "decompress", "a.lic", "back.npy", "--no-metadata")[0] == 0
    assert np.array_equal(np.load("back.npy"), array)
