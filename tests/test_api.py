"""compress, decompress, inspect: pictures to bytes and back, and no bad byte unnoticed. A tiny model codes here."""

import dataclasses
import hashlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import codec
from codec import container
from codec import lossless as lossless_method
from codec.container import Tag
from codec.metrics import psnr

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture(scope="module")
def small(tiny_model, photo) -> bytes:
    """A file with every section: 24×17 RGBA with metadata, at a quality that keeps it short."""
    image = photo.crop((40, 10, 64, 27))
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.info.update(icc_profile=b"icc" * 50, exif=b"Exif\0\0MM\0*rest", xmp=b"<x/>")
    return codec.compress(image, 30)


def check_refused(data: bytes) -> None:
    with pytest.raises(codec.CodecError) as caught:
        codec.decompress(data)
    assert str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_mode_size_alpha_and_metadata_come_back(mode, photo):
    metadata = {"icc_profile": b"icc", "exif": b"Exif\0\0MM\0*", "xmp": b"<x/>"}
    image = photo.convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.radial_gradient("L").resize(image.size))
    image.info.update(metadata)
    again = codec.decompress(codec.compress(image))
    assert (again.mode, again.size, again.info) == (mode, image.size, metadata)
    if mode.endswith("A"):
        assert again.getchannel("A").tobytes() == image.getchannel("A").tobytes()


def test_the_picture_is_recognisable_and_better_at_a_higher_quality(photo):
    files = [codec.compress(photo, quality) for quality in (0, 50, 100)]
    distances = [psnr(np.asarray(photo), np.asarray(codec.decompress(data))) for data in files]
    assert len(files[0]) < len(files[1]) < len(files[2])
    assert 10 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (15, 16), (17, 33), (65, 63)])
def test_any_size_from_one_pixel_on(size, photo):
    assert codec.decompress(codec.compress(photo.resize(size))).size == size


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 2), (9, 7, 3), (9, 7, 4)])
def test_an_array_gives_the_file_of_the_pil_image_with_the_same_pixels(shape, rng):
    array = rng.integers(0, 256, shape, dtype=np.uint8)
    data = codec.compress(array)
    assert data == codec.compress(Image.fromarray(array[..., 0] if shape[2:] == (1,) else array))


def test_an_array_that_is_a_view_or_read_only_is_coded_as_its_copy_and_left_alone(photo):
    pixels = np.asarray(photo)
    view = pixels[::2, ::-1]
    before = view.copy()
    view.flags.writeable = False
    assert codec.compress(view) == codec.compress(before)
    assert np.array_equal(view, before)


def test_a_file_made_on_any_number_of_threads_is_decoded_on_any_other(photo):
    for writing, reading in ((1, 2), (2, 1)):
        data = codec.compress(photo, threads=writing)
        here, there = (np.asarray(codec.decompress(data, threads=count), np.int16) for count in (writing, reading))
        assert np.abs(here - there).max() <= 1


def test_metadata_is_dropped_by_empty_bytes_and_replaced_by_others(photo):
    image = photo.copy()
    image.info.update(icc_profile=b"icc", exif=b"exif", xmp=b"xmp")
    info = codec.decompress(codec.compress(image, icc_profile=b"", exif=b"other")).info
    assert info == {"exif": b"other", "xmp": b"xmp"}


def test_inspect_says_what_the_header_says(small, tiny_model):
    info = codec.inspect(small)
    assert (info.width, info.height, info.mode, info.lossless, info.quality) == (24, 17, "RGBA", False, 30.0)
    assert info.model == hashlib.sha256(tiny_model.read_bytes()).hexdigest()[:8]
    assert list(info.sections) == ["header", "latents", "alpha", "icc_profile", "exif", "xmp"]
    assert sum(info.sections.values()) == info.bytes == len(small)
    assert info.bpp == 8 * len(small) / (24 * 17)


def test_quality_counts_in_hundredths(photo):
    assert codec.inspect(codec.compress(photo, 33.337)).quality == 33.34


def test_every_truncation_of_a_file_is_reported_as_one(small):
    for end in range(len(small)):
        with pytest.raises(codec.TruncatedError):
            codec.decompress(small[:end])
        with pytest.raises(codec.TruncatedError):
            codec.inspect(small[:end])


def test_every_flipped_byte_of_a_file_is_reported(small):
    for position in range(len(small)):
        damaged = bytearray(small)
        damaged[position] ^= 0xFF if position % 2 else 1 << position // 2 % 8
        check_refused(bytes(damaged))


def test_bytes_after_the_end_are_reported(small):
    check_refused(small + b"\0")


def test_latents_of_another_length_are_reported(small):
    header, sections = container.unpack(small)
    latents = sections[Tag.LATENTS]
    for changed in (b"", latents[:-1], latents[:4], latents + b"\0", latents[4:], latents * 2):
        check_refused(container.pack(header, sections | {Tag.LATENTS: changed}))


@pytest.mark.parametrize("change", [{"width": 200}, {"height": 2000}, {"quality": 6000}])
def test_latents_under_the_header_of_another_picture_are_reported(small, change):
    header, sections = container.unpack(small)
    other = replace(header, mode="RGB", **change)
    check_refused(container.pack(other, {Tag.LATENTS: sections[Tag.LATENTS]}))


def test_an_unknown_model_is_named(small):
    header, sections = container.unpack(small)
    with pytest.raises(codec.UnsupportedError, match="deadbeef"):
        codec.decompress(container.pack(replace(header, model_id=bytes.fromhex("deadbeef")), sections))


def test_the_pixel_cap_comes_before_everything_else(small):
    header, sections = container.unpack(small)
    huge = container.pack(replace(header, width=2**30, height=2**30), sections)
    with pytest.raises(codec.LimitError, match="more than the limit"):
        codec.decompress(huge)
    with pytest.raises(codec.LimitError, match="max_pixels = 407"):
        codec.decompress(small, max_pixels=24 * 17 - 1)
    assert codec.decompress(small, max_pixels=24 * 17).size == (24, 17)


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"\xabLIC", bytes(1000)])
def test_other_bytes_are_not_a_file_of_ours(data):
    check_refused(data)


def test_bytes_like_objects_are_decoded(small):
    expected = codec.decompress(small).tobytes()
    assert codec.decompress(bytearray(small)).tobytes() == expected
    assert codec.decompress(memoryview(small)).tobytes() == expected
    with pytest.raises(TypeError, match="data must be bytes"):
        codec.decompress("picture.lic")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quality": 100.1}, "quality must be within 0 to 100, not 100.1"),
        ({"quality": -1}, "quality"),
        ({"quality": float("nan")}, "quality"),
        ({"effort": 0}, "effort must be within 1 to 9, not 0"),
        ({"effort": 10}, "effort"),
        ({"threads": -1}, "threads"),
        ({"device": "tpu"}, "device"),
        ({"target_bytes": 0}, "target_bytes must be a positive number"),
        ({"target_bpp": float("nan")}, "target_bpp"),
        ({"target_psnr": float("inf")}, "target_psnr"),
        ({"target_psnr": -3.0}, "target_psnr"),
        ({"target_ssimulacra2": float("nan")}, "target_ssimulacra2 must be a finite number up to 100, not nan"),
        ({"target_ssimulacra2": float("-inf")}, "target_ssimulacra2"),
        ({"target_ssimulacra2": 100.1}, "target_ssimulacra2"),
        ({"target_psnr": 30, "target_ssimulacra2": 70}, "target_psnr and target_ssimulacra2 exclude one another"),
        ({"target_ssimulacra2": 70, "quality": 50}, "target_ssimulacra2 and quality exclude one another"),
        ({"target_bytes": 1000, "target_bpp": 1.0}, "target_bytes and target_bpp exclude one another"),
        ({"target_bytes": 1000, "quality": 50}, "target_bytes and quality exclude one another"),
        ({"target_psnr": 30, "lossless": True}, "target_psnr and lossless exclude one another"),
        ({"lossless": True, "quality": 50}, "lossless and quality exclude one another"),
    ],
)
def test_a_wrong_value_of_an_option_is_a_value_error(photo, options, words):
    with pytest.raises(ValueError, match=words):
        codec.compress(photo, **options)


@pytest.mark.parametrize(
    "options",
    [{"quality": "75"}, {"quality": None}, {"quality": True}, {"effort": 3.0}, {"threads": "1"}, {"target_bytes": 1e3},
     {"target_ssimulacra2": "70"}, {"target_ssimulacra2": True},
     {"exif": "text"}],
)  # fmt: skip
def test_a_wrong_type_of_an_option_is_a_type_error(photo, options):
    with pytest.raises(TypeError):
        codec.compress(photo, **options)


def test_wrong_options_of_decompress_are_refused(small):
    for options in ({"max_pixels": 0}, {"threads": -1}, {"device": "gpu"}):
        with pytest.raises(ValueError):
            codec.decompress(small, **options)
    with pytest.raises(TypeError):
        codec.decompress(small, max_pixels=1.5)


def test_numbers_of_numpy_are_numbers(photo):
    assert codec.compress(photo, np.float32(50), effort=np.int64(1)) == codec.compress(photo, 50, effort=1)


def test_public_names_are_those_of_the_contract():
    assert set(codec.__all__) >= {"compress", "decompress", "inspect", "CodecError"}
    assert all(issubclass(getattr(codec, name), codec.CodecError) for name in codec.__all__ if name.endswith("Error"))
    assert dataclasses.is_dataclass(codec.Info)


REGION = (17, 5, 40, 50)
CROP = (17, 5, 57, 55)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_region_of_any_file_is_what_the_picture_has_there(mode, lossless, photo):
    data = codec.compress(photo.convert(mode), lossless=lossless)
    whole, part = codec.decompress(data).crop(CROP), codec.decompress(data, region=REGION)
    assert (part.mode, part.size) == (mode, (40, 50))
    assert np.abs(np.asarray(part, int) - np.asarray(whole, int)).max() <= (0 if lossless else 1)


@pytest.mark.parametrize("mode", ["1", "P", "I;16"])
def test_a_region_of_other_modes(mode, photo):
    source = photo.quantize(9) if mode == "P" else photo.convert("L").convert(mode)
    part = codec.decompress(codec.compress(source, lossless=True), region=REGION)
    assert part.mode == mode and np.array_equal(np.asarray(part), np.asarray(source.crop(CROP)))


def test_a_region_of_a_lossless_picture_of_several_tiles(photo, monkeypatch):
    monkeypatch.setattr(lossless_method, "TILE", 64)
    source = photo.resize((140, 100))
    data = codec.compress(source, lossless=True)
    assert "pixels" in codec.inspect(data).ways
    for left, top, width, height in ((0, 0, 140, 100), (120, 60, 20, 40), (63, 0, 2, 100)):
        part = codec.decompress(data, region=(left, top, width, height))
        assert np.array_equal(np.asarray(part), np.asarray(source.crop((left, top, left + width, top + height))))


@pytest.mark.parametrize("region", [(0, 0, 25, 17), (24, 0, 1, 1), (-1, 0, 2, 2), (0, 0, 0, 1), (0, 15, 5, 5)])
def test_a_region_beyond_the_picture_is_refused(region, small):
    with pytest.raises(codec.RegionError, match="not within the picture of 24×17"):
        codec.decompress(small, region=region)


@pytest.mark.parametrize("region", [(0, 0, 5), "0,0,5,5", 7, (0.5, 0, 5, 5)])
def test_a_region_is_four_integers(region, small):
    with pytest.raises(TypeError):
        codec.decompress(small, region=region)


def test_the_limit_of_pixels_is_that_of_the_region(photo, small):
    data = codec.compress(photo)
    assert codec.decompress(data, max_pixels=100, region=(0, 0, 10, 10)).size == (10, 10)
    with pytest.raises(codec.LimitError):
        codec.decompress(data, max_pixels=100)
    with pytest.raises(codec.LimitError):  # alpha is decoded whole
        codec.decompress(small, max_pixels=100, region=(0, 0, 10, 10))


@pytest.mark.parametrize("preview, size", [(8, (12, 8)), (16, (6, 4))])
@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_a_preview_is_small_and_alike(preview, size, lossless, mode, photo):
    data = codec.compress(photo.convert(mode), lossless=lossless)
    small = codec.decompress(data, preview=preview)
    assert (small.mode, small.size) == (mode, size)
    expected = np.asarray(codec.decompress(data).reduce(preview), float)
    assert np.abs(np.asarray(small, float) - expected).mean() < (1 if lossless else 4)


def test_a_preview_of_a_palette_has_colours(photo):
    small = codec.decompress(codec.compress(photo.quantize(20), lossless=True), preview=8)
    assert (small.mode, small.size) == ("RGB", (12, 8))


def test_preview_and_region_are_checked(small):
    with pytest.raises(ValueError, match="preview"):
        codec.decompress(small, preview=4)
    with pytest.raises(ValueError, match="exclude"):
        codec.decompress(small, preview=8, region=(0, 0, 8, 8))
