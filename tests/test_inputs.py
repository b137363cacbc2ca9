"""Every kind of picture file goes in and comes back: the rows of docs/INPUTS.md, with files that Pillow makes here."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

import codec
from codec import cli, conversion
from codec.metrics import psnr

pytestmark = pytest.mark.usefixtures("tiny_model")

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def save(image: Image.Image, path, **options) -> str:
    image.save(path, **options)
    return str(path)


def run(capsys, *arguments: str) -> tuple[int, str]:
    status = cli.main(list(arguments))
    return status, capsys.readouterr().err


def with_alpha(photo: Image.Image) -> Image.Image:
    image = photo.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


# name: (how to make the image, options of save, mode of the lossy file, what the command line says)
FILES = {
    "gray.png": (lambda p: p.convert("L"), {}, "L", ""),
    "gray_alpha.png": (lambda p: with_alpha(p).convert("LA"), {}, "LA", ""),
    "rgb.png": (lambda p: p, {}, "RGB", ""),
    "rgba.png": (with_alpha, {}, "RGBA", ""),
    "transparent_colour.png": (lambda p: p, {"transparency": (1, 2, 3)}, "RGBA", "converted from a transparent colour to RGBA"),
    "transparent_gray.png": (lambda p: p.convert("L"), {"transparency": 5}, "LA", "converted from a transparent colour to LA"),
    "palette.png": (lambda p: p.quantize(50), {}, "RGB", "converted from P to RGB"),
    "palette_alpha.png": (lambda p: p.quantize(50), {"transparency": 3}, "RGBA", "converted from P to RGBA"),
    "bits.png": (lambda p: p.convert("1"), {}, "L", "converted from 1 to L"),
    "progressive.jpg": (lambda p: p, {"progressive": True}, "RGB", ""),
    "gray.jpg": (lambda p: p.convert("L"), {}, "L", ""),
    "cmyk.jpg": (lambda p: p.convert("CMYK"), {}, "RGB", "converted from CMYK to RGB"),
    "cmyk.tif": (lambda p: p.convert("CMYK"), {}, "RGB", "converted from CMYK to RGB"),
    "lab.tif": (lambda p: p.convert("RGB").convert("YCbCr"), {}, "RGB", "converted from YCbCr to RGB"),
    "fax.tif": (lambda p: p.convert("1"), {"compression": "group4"}, "L", "converted from 1 to L"),
    "still.gif": (lambda p: p.quantize(30), {"transparency": 2}, "RGBA", "converted from P to RGBA"),
    "rgb.bmp": (lambda p: p, {}, "RGB", ""),
    "rgba.tga": (with_alpha, {}, "RGBA", ""),
    "rgb.ppm": (lambda p: p, {}, "RGB", ""),
    "icon.ico": (lambda p: with_alpha(p).resize((32, 32)), {"sizes": [(32, 32)]}, "RGBA", ""),
    "rgba.webp": (with_alpha, {"lossless": True}, "RGBA", ""),
    "rgba.avif": (with_alpha, {}, "RGBA", ""),
    "dot.png": (lambda p: p.crop((0, 0, 1, 1)), {}, "RGB", ""),
    "line.png": (lambda p: p.crop((0, 0, 90, 1)), {}, "RGB", ""),
}


@pytest.mark.parametrize("name", FILES)
def test_lossy_takes_every_kind_of_file(name, photo, tmp_path, capsys):
    make, options, mode, words = FILES[name]
    source = save(make(photo), tmp_path / name, **options)
    status, err = run(capsys, "compress", "-q", "100", source, str(tmp_path / "a.lic"))
    assert status == 0 and (words in err if words else "converted" not in err), err
    info = codec.inspect((tmp_path / "a.lic").read_bytes())
    assert run(capsys, "decompress", str(tmp_path / "a.lic"), str(tmp_path / "out.png"))[0] == 0
    with Image.open(source) as before, Image.open(tmp_path / "out.png") as after:
        assert (info.mode, info.width, info.height) == (mode, *before.size) and (after.mode, after.size) == (mode, before.size)
        expected = before.convert(mode)
        if mode.endswith("A"):
            assert np.array_equal(np.asarray(after)[..., -1], np.asarray(expected)[..., -1])
        visible = np.asarray(expected.getchannel("A")) > 0 if mode.endswith("A") else np.ones(before.size[::-1], bool)
        samples = (np.asarray(image).reshape(*visible.shape, -1)[visible] for image in (expected, after))
        colours = (values[:, : 1 if mode.startswith("L") else 3] for values in samples)
        if "1" not in before.mode:
            assert psnr(*colours) > 17  # what the tiny model can; a wrong conversion is far below


@pytest.mark.parametrize("name", [name for name in FILES if name.partition(".")[2] in ("png", "gif", "bmp", "tga", "ppm", "webp")])
def test_lossless_returns_every_kind_of_file(name, photo, tmp_path, capsys):
    make, options, _, _ = FILES[name]
    source = save(make(photo), tmp_path / name, **options)
    status, err = run(capsys, "compress", "-l", source, str(tmp_path / "a.lic"))
    assert status == 0 and "converted" not in err, err
    with Image.open(source) as before:
        after = codec.decompress((tmp_path / "a.lic").read_bytes())
        assert (after.mode, after.tobytes()) == (before.mode, before.tobytes())


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_animations_and_documents_need_a_choice(suffix, photo, tmp_path, capsys):
    source = str(tmp_path / f"film.{suffix}")
    photo.save(source, save_all=True, append_images=[photo.rotate(180)])
    status, err = run(capsys, "compress", source, str(tmp_path / "a.lic"))
    assert status == 1 and "2 frames: only the first can be coded, with --first-frame" in err
    assert run(capsys, "compress", "--first-frame", source, str(tmp_path / "a.lic"))[0] == 0


def test_the_picture_of_a_phone_is_its_first_frame(photo, tmp_path, capsys):
    source = str(tmp_path / "phone.jpg")
    photo.save(source, format="MPO", save_all=True, append_images=[photo.resize((20, 20))])
    assert run(capsys, "compress", source, str(tmp_path / "a.lic"))[0] == 0
    assert codec.inspect((tmp_path / "a.lic").read_bytes()).width == photo.width


def test_sixteen_bits_are_never_cut(photo, tmp_path, capsys):
    source = str(tmp_path / "deep.png")
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(source)
    status, err = run(capsys, "compress", source, str(tmp_path / "a.lic"))
    assert status == 1 and "lossy files hold 8 bits" in err and "--lossless" in err
    assert run(capsys, "compress", "-l", source, str(tmp_path / "a.lic"))[0] == 0


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_come_back_from_files_of_numpy(shape, dtype, tmp_path, capsys, rng):
    array = rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    np.save(tmp_path / "in.npy", array)
    assert run(capsys, "compress", "-l", str(tmp_path / "in.npy"), str(tmp_path / "a.lic"))[0] == 0
    assert run(capsys, "decompress", str(tmp_path / "a.lic"), str(tmp_path / "out.npy"))[0] == 0
    assert np.array_equal(np.load(tmp_path / "out.npy"), array)


@pytest.mark.parametrize("array, words", [
    (np.array({}, dtype=object), "array cannot be read"), (np.zeros((3, 3), np.float32), "array of float32"),
    (np.zeros(5, np.uint8), "shape (5,)"), (np.zeros((0, 5), np.uint8), "without pixels"),
])  # fmt: skip
def test_other_files_of_numpy_are_refused(array, words, tmp_path, capsys):
    np.save(tmp_path / "in.npy", array, allow_pickle=True)
    status, err = run(capsys, "compress", "-l", str(tmp_path / "in.npy"), str(tmp_path / "a.lic"))
    assert status == 1 and words in err and err.count("\n") == 1


def test_a_header_of_numpy_that_claims_too_much(tmp_path, capsys):
    np.save(tmp_path / "in.npy", np.zeros((10, 10), np.uint8))
    data = (tmp_path / "in.npy").read_bytes()
    for shape in (b"(99999, 99999), }", b"(-4, 10), }"):
        (tmp_path / "in.npy").write_bytes(data.replace(b"(10, 10), }".ljust(len(shape)), shape))
        status, err = run(capsys, "compress", "-l", str(tmp_path / "in.npy"), str(tmp_path / "a.lic"))
        assert status == 1 and err.startswith("error: ") and err.count("\n") == 1


def test_a_rotated_photograph_keeps_its_pixels_and_its_orientation(photo, tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    source = save(photo, tmp_path / "rotated.jpg", exif=exif)
    assert run(capsys, "compress", source, str(tmp_path / "a.lic"))[0] == 0
    image = codec.decompress((tmp_path / "a.lic").read_bytes())
    assert image.size == photo.size and image.getexif()[0x0112] == 6


@pytest.mark.parametrize("before, after", [("png", "png"), ("jpg", "png"), ("png", "jpg"), ("tif", "tif")])
def test_dots_per_inch_come_back(before, after, photo, tmp_path, capsys):
    source = save(photo, tmp_path / f"in.{before}", dpi=(300, 150))
    assert run(capsys, "compress", source, str(tmp_path / "a.lic"))[0] == 0
    assert run(capsys, "decompress", str(tmp_path / "a.lic"), str(tmp_path / f"out.{after}"))[0] == 0
    with Image.open(tmp_path / f"out.{after}") as image:
        assert [float(value) for value in image.info["dpi"]] == pytest.approx([300, 150], abs=0.05)


@pytest.mark.parametrize("exif", [b"", b"garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_exif_may_be_anything(exif, photo):
    image = codec.decompress(codec.compress(photo, exif=exif, lossless=True))
    assert image.info.get("exif", b"") == exif and "dpi" not in image.info


# ── conversion ──


def test_a_profile_decides_how_lab_becomes_rgb(photo):
    lab = ImageCms.profileToProfile(photo, SRGB_PROFILE, ImageCms.createProfile("LAB"), outputMode="LAB")
    lab.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert conversion.needed(lab) == "converted from LAB to RGB by its ICC profile"
    rgb = conversion.converted(lab)
    assert rgb.mode == "RGB" and "icc_profile" not in rgb.info
    assert psnr(np.asarray(rgb), np.asarray(photo)) > 35


SRGB_PROFILE = ImageCms.ImageCmsProfile(io.BytesIO(SRGB))


@pytest.mark.parametrize("profile", [b"nonsense", SRGB])
def test_a_profile_that_does_not_fit_is_ignored(profile, photo):
    cmyk = photo.convert("CMYK")
    cmyk.info["icc_profile"] = profile
    rgb = conversion.converted(cmyk)
    assert np.array_equal(np.asarray(rgb), np.asarray(cmyk.convert("RGB"))) and "icc_profile" not in rgb.info


def test_the_profile_of_an_rgb_picture_stays(photo):
    image = photo.quantize(20)
    image.info["icc_profile"] = SRGB
    assert codec.decompress(codec.compress(image)).info["icc_profile"] == SRGB


def test_hidden_colours_cost_nothing(photo, rng):
    """A sprite with garbage where nobody sees it takes what a clean one takes, within a percent."""
    alpha = Image.new("L", photo.size)
    alpha.paste(255, (30, 20, 70, 50))
    noise = Image.fromarray(rng.integers(0, 256, (*photo.size[::-1], 3), dtype=np.uint8))
    noise.paste(photo, mask=alpha)
    noise.putalpha(alpha)
    black = Image.composite(photo, Image.new("RGB", photo.size), alpha)
    black.putalpha(alpha)
    garbage, clean = (len(codec.compress(image, 80)) for image in (noise, black))
    assert garbage <= 1.01 * clean
    seen = np.asarray(alpha) > 0
    assert psnr(np.asarray(codec.decompress(codec.compress(noise, 80)))[seen], np.asarray(noise)[seen]) > 17
    assert codec.decompress(codec.compress(noise, lossless=True)).tobytes() == noise.tobytes()


def test_hidden_colours_continue_what_is_seen():
    pixels = np.zeros((40, 50, 4), np.uint8)
    pixels[:, :25] = (200, 100, 50, 255)
    pixels[:, 40:] = (100, 100, 50, 1)
    filled = conversion.fill_hidden(pixels)
    assert np.array_equal(filled[pixels[..., 3] > 0], pixels[pixels[..., 3] > 0]) and np.array_equal(filled[..., 3], pixels[..., 3])
    hidden = filled[:, 25:40, 0].astype(int)
    assert hidden.min() >= 100 and hidden.max() <= 200 and (filled[:, 25:40, 1:3] == (100, 50)).all()


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 9, 4), (5, 1, 4), (33, 17, 2)])
def test_a_picture_that_nobody_sees(shape, rng):
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    pixels[..., -1] = 0
    assert not conversion.fill_hidden(pixels).any()
