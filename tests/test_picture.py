"""Pictures in memory and image files: what is accepted, what comes back, what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from codec.errors import ImageError, LimitError
from codec.picture import picture as pictures
from codec.picture import reading, writing

EXIF = Image.Exif()
EXIF[0x010E] = "a description"
EXIF[0x0112] = 3  # orientation: upside down, so that sizes do not change
EXIF.get_ifd(0x8769)[0x829A] = (1, 60)  # exposure time
METADATA = {
    "icc_profile": bytes(range(128)) * 3,
    "exif": EXIF.tobytes(),
    "xmp": b'<x:xmpmeta xmlns:x="adobe:ns:meta/">\xc3\xa9</x:xmpmeta>',
}


def pil(mode: str, size=(5, 3)) -> Image.Image:
    """A small picture of the mode with different samples everywhere."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    samples = np.arange(size[0] * size[1] * channels, dtype=np.uint8).reshape(size[1], size[0], channels) * 5
    return Image.fromarray(samples[..., 0] if channels == 1 else samples)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_picture_comes_back_as_the_pil_image_that_it_was(mode):
    source = pil(mode)
    source.info.update(METADATA)
    again = pictures.to_pil(pictures.from_input(source))
    assert (again.mode, again.size) == (mode, (5, 3))
    assert again.tobytes() == source.tobytes()
    assert again.info == METADATA


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (3, 5, 2), (3, 5, 3), (3, 5, 4)])
def test_an_array_of_any_shape_is_the_picture_of_its_number_of_channels(shape, rng):
    array = rng.integers(0, 256, shape, dtype=np.uint8)
    picture = pictures.from_input(array)
    assert picture.mode == ("L" if len(shape) == 2 else pictures.MODES[shape[-1]])
    assert np.array_equal(picture.pixels.reshape(shape), array)


def test_metadata_given_replaces_that_of_the_image_and_empty_drops_it():
    source = pil("RGB")
    source.info.update(METADATA)
    metadata = pictures.from_input(source, exif=b"", xmp=b"other").metadata
    assert (metadata.exif, metadata.xmp, metadata.icc_profile) == (b"", b"other", METADATA["icc_profile"])


def test_a_transparent_colour_becomes_an_alpha_channel():
    source = Image.fromarray(np.array([[7, 8]], np.uint8))
    source.info["transparency"] = 8
    assert pictures.from_input(source).pixels.tolist() == [[[7, 255], [7, 0]]]  # whose own colour nobody sees


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B", "I;16L"])
def test_deep_samples_are_never_cut(mode):
    with pytest.raises(ImageError, match=rf"mode {mode}: lossy files hold 8 bits.* --lossless"):
        pictures.from_input(Image.new(mode, (2, 2)))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 2), np.uint16), "16-bit"),
        (np.zeros((2, 2), np.float32), "float32"),
        (np.zeros((2, 2), bool), "bool"),
        (np.zeros((2, 2, 5), np.uint8), r"shape \(2, 2, 5\)"),
        (np.zeros((2, 2, 0), np.uint8), r"shape \(2, 2, 0\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((), np.uint8), r"shape \(\)"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"shape \(1, 2, 2, 3\)"),
        (np.zeros((0, 5), np.uint8), "without pixels: 5×0"),
        (np.zeros((5, 0, 3), np.uint8), "without pixels: 0×5"),
    ],
)
def test_other_arrays_are_refused(array, words):
    with pytest.raises(ImageError, match=words):
        pictures.from_input(array)


@pytest.mark.parametrize("mask", [False, True, [[True, False]]])
def test_a_masked_array_is_no_picture(mask):
    array = np.ma.masked_array(np.array([[1, 2]], np.uint8), mask)
    for lossless in (False, True):
        with pytest.raises(ImageError, match="a masked array"):
            pictures.from_input(array, lossless=lossless)
    assert pictures.from_input(array.filled(7)).mode == "L"


def test_an_empty_pil_image_is_refused():
    with pytest.raises(ImageError, match="without pixels"):
        pictures.from_input(Image.new("RGB", (0, 4)))


@pytest.mark.parametrize("thing", [None, "photo.png", b"bytes", [[1, 2]]])
def test_anything_but_an_image_is_a_type_error(thing):
    with pytest.raises(TypeError, match="PIL image or a NumPy array"):
        pictures.from_input(thing)


def test_metadata_other_than_bytes_is_a_type_error():
    with pytest.raises(TypeError, match="exif must be bytes"):
        pictures.from_input(pil("RGB"), exif="text")


def test_gray_is_split_into_three_equal_channels_and_joined_by_the_rounded_mean():
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    colour, alpha = pictures.split(gray)
    assert colour.shape == (16, 16, 3) and alpha is None
    assert np.array_equal(pictures.join(colour, None, gray=True), gray)
    decoded = np.array([[[255, 255, 255], [0, 0, 1], [0, 1, 1], [254, 255, 255], [10, 20, 31]]], np.uint8)
    assert pictures.join(decoded, None, gray=True)[0, :, 0].tolist() == [255, 0, 1, 255, 20]


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
def test_split_is_undone_by_join(mode):
    pixels = np.asarray(pil(mode))
    colour, alpha = pictures.split(pixels)
    assert np.array_equal(pictures.join(colour, alpha, gray=mode == "LA"), pixels)


def test_the_pixel_cap_names_the_size_and_the_limit():
    pictures.check_size(2**14, 2**14, None)
    with pytest.raises(LimitError, match=r"16385×16384 is 268451840 pixels, more than the limit .* 268435456"):
        pictures.check_size(2**14 + 1, 2**14, None)
    with pytest.raises(LimitError, match="more than the limit max_pixels = 5"):
        pictures.check_size(2, 3, 5)


# ── image files ──


def write_and_read(image: Image.Image, path) -> Image.Image:
    path.write_bytes(writing.image_bytes(image, writing.format_of(str(path))))
    return reading.read_image(str(path))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_png_and_tiff_files_keep_mode_and_pixels(mode, tmp_path):
    source = pil(mode)
    for suffix in (".png", ".tiff"):
        again = write_and_read(source, tmp_path / f"picture{suffix}")
        assert (again.mode, again.tobytes()) == (mode, source.tobytes())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_formats_that_carry_metadata_keep_it(suffix, tmp_path):
    source = pil("RGB", (16, 16))
    source.info.update(METADATA)
    info = write_and_read(source, tmp_path / f"picture{suffix}").info
    exif = Image.Exif()
    exif.load(info["exif"])
    assert (exif[0x010E], exif.get_ifd(0x8769)[0x829A]) == ("a description", EXIF.get_ifd(0x8769)[0x829A])
    assert (info["xmp"], info["icc_profile"]) == (METADATA["xmp"], METADATA["icc_profile"])


def test_exif_without_its_prefix_is_readable_from_a_jpeg(tmp_path):
    source = pil("RGB")
    source.info["exif"] = EXIF.tobytes()[6:]
    assert write_and_read(source, tmp_path / "picture.jpg").getexif()[0x010E] == "a description"


def test_orientation_is_left_in_the_exif_and_the_pixels_untouched(tmp_path):
    source = pil("RGB")
    source.info.update(METADATA)
    again = write_and_read(source, tmp_path / "picture.png")
    assert again.tobytes() == source.tobytes() and again.getexif()[0x0112] == 3


def test_lossless_webp_keeps_colours_under_full_transparency(tmp_path):
    source = pil("RGBA", (1, 1))
    source.putpixel((0, 0), (10, 20, 30, 0))
    assert write_and_read(source, tmp_path / "picture.webp").getpixel((0, 0)) == (10, 20, 30, 0)


def test_an_unknown_suffix_or_an_impossible_mode_is_one_line():
    for name in ("picture.xyz", "picture", "picture.lic"):
        with pytest.raises(ImageError, match="no image format is known by the suffix"):
            writing.format_of(name)
    with pytest.raises(ImageError, match="cannot be written as JPEG: cannot write mode RGBA as JPEG"):
        writing.image_bytes(pil("RGBA"), "JPEG")


def test_of_an_animation_the_first_frame_is_read_only_on_demand(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = str(tmp_path / "animation.webp")
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(ImageError, match="2 frames: only the first can be coded, with --first-frame"):
        reading.read_image(path)
    assert reading.read_image(path, first_frame=True).convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_a_jpeg_with_a_preview_behind_it_is_one_picture(tmp_path):
    path = str(tmp_path / "camera.jpg")
    pil("RGB").save(path, "MPO", save_all=True, append_images=[pil("RGB")])
    assert reading.read_image(path).size == (5, 3)


def test_what_is_not_an_image_or_is_damaged_is_an_image_error(tmp_path, photo):
    path = tmp_path / "picture.png"
    path.write_bytes(b"not an image")
    with pytest.raises(ImageError, match="not an image that Pillow can read"):
        reading.read_image(str(path))
    for format in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF"):
        buffer = io.BytesIO()
        photo.save(buffer, format)
        path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        with pytest.raises(ImageError):
            reading.read_image(str(path))


def test_too_many_pixels_are_refused_before_they_are_decoded_and_pillows_own_limit_is_left_as_it_was(tmp_path):
    path = tmp_path / "picture.png"
    pil("RGB").save(path)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(LimitError, match="5×3 is 15 pixels"):
        reading.read_image(str(path), max_pixels=14)
    assert Image.MAX_IMAGE_PIXELS == before
