"""Every kind of picture file goes in and comes back: the rows of docs/INPUTS.md, with files that Pillow makes here."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

import codec
from codec import cli, conversion, imagefile
from codec.metrics import psnr

pytestmark = pytest.mark.usefixtures("tiny_model")

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.createProfile("LAB")


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


def lab(photo: Image.Image) -> Image.Image:
    image = ImageCms.profileToProfile(photo, ImageCms.createProfile("sRGB"), LAB, outputMode="LAB")
    image.info.clear()
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
    "lab.tif": (lab, {}, "RGB", "converted from LAB to RGB"),
    "ycbcr.tif": (lambda p: p.convert("YCbCr"), {}, "RGB", "converted from YCbCr to RGB"),
    "rgba.tif": (with_alpha, {"compression": "tiff_lzw"}, "RGBA", ""),
    "fax.tif": (lambda p: p.convert("1"), {"compression": "group4"}, "L", "converted from 1 to L"),
    "still.gif": (lambda p: p.quantize(30), {"transparency": 2}, "RGBA", "converted from P to RGBA"),
    "rgb.bmp": (lambda p: p, {}, "RGB", ""),
    "palette.bmp": (lambda p: p.quantize(9), {}, "RGB", "converted from P to RGB"),
    "rgba.tga": (with_alpha, {}, "RGBA", ""),
    "rgb.ppm": (lambda p: p, {}, "RGB", ""),
    "rgb.jp2": (lambda p: p, {}, "RGB", ""),
    "rgb.pcx": (lambda p: p, {}, "RGB", ""),
    "rgb.sgi": (lambda p: p, {}, "RGB", ""),
    "rgba.dds": (with_alpha, {}, "RGBA", ""),
    "rgba.qoi": (with_alpha, {}, "RGBA", ""),
    "icon.ico": (lambda p: with_alpha(p).resize((32, 32)), {"sizes": [(32, 32)]}, "RGBA", ""),
    "rgba.webp": (with_alpha, {"lossless": True}, "RGBA", ""),
    "rgba.avif": (with_alpha, {}, "RGBA", ""),
    "dot.png": (lambda p: p.crop((0, 0, 1, 1)), {}, "RGB", ""),
    "line.png": (lambda p: p.crop((0, 0, 90, 1)), {}, "RGB", ""),
    "column.png": (lambda p: with_alpha(p).crop((0, 0, 1, 60)), {}, "RGBA", ""),
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


@pytest.mark.parametrize(("method", "words"), [
    ([], "mode P cannot be converted to RGBA: "), (["-l"], "transparency of 300 bytes cannot be kept"),
])  # fmt: skip
def test_more_alpha_than_a_palette_can_have_is_one_line(method, words, tmp_path, capsys):
    header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    chunks = ((b"PLTE", bytes(6)), (b"tRNS", b"\7" * 300), (b"IDAT", zlib.compress(b"\0\0\1")))
    (tmp_path / "in.png").write_bytes(png_file((b"IHDR", header), *chunks))
    status, err = run(capsys, "compress", *method, str(tmp_path / "in.png"), str(tmp_path / "a.lic"))
    assert status == 1 and words in err and err.count("\n") == 1


@pytest.mark.parametrize("transparency", ["x", 3.5, (1, 2), -1, 999])
@pytest.mark.parametrize("mode", ["1", "P", "L", "RGB"])
def test_transparency_may_be_anything(mode, transparency):
    image = Image.new(mode, (3, 3))
    image.info["transparency"] = transparency
    with contextlib.suppress(codec.ImageError):
        assert codec.inspect(codec.compress(image)).mode.endswith("A")


@pytest.mark.parametrize("suffix", ["gif", "webp", "avif", "png", "tif"])
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


def png_file(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in (*chunks, (b"IEND", b""))
    )


def png(pixels: np.ndarray, *, interlaced: bool = False) -> bytes:
    """A PNG as Pillow does not write it: H×W×3 of uint8 or big-endian uint16, in the seven passes of Adam7 or in one."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [pixels[y::down, x::right] for x, y, right, down in passes] if interlaced else [pixels]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", *pixels.shape[1::-1], 8 * pixels.itemsize, 2, 0, 0, interlaced)
    return png_file((b"IHDR", header), (b"IDAT", zlib.compress(rows)))


@pytest.mark.parametrize(("bits", "levels"), [
    (1, [0, 255] * 4), (2, [0, 85, 170, 255] * 2), (4, [0, 17, 34, 51, 204, 221, 238, 255]),
])  # fmt: skip
@pytest.mark.parametrize("transparent", [0, 1])
def test_a_transparent_level_of_few_bits(bits, levels, transparent, tmp_path):
    samples = "".join(format(level >> (8 - bits), f"0{bits}b") for level in levels)
    row = int(samples, 2).to_bytes(bits, "big")
    header = struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)
    level = struct.pack(">H", transparent)
    data = png_file((b"IHDR", header), (b"tRNS", level), (b"IDAT", zlib.compress(b"\0" + row)))
    (tmp_path / "in.png").write_bytes(data)
    image = imagefile.read_image(str(tmp_path / "in.png"))
    alpha = codec.decompress(codec.compress(image)).getchannel("A")
    expected = [0 if sample == levels[transparent] else 255 for sample in levels]
    assert list(alpha.tobytes()) == expected
    again = codec.decompress(codec.compress(image, lossless=True))
    assert list(again.convert("LA").getchannel("A").tobytes()) == expected


def test_an_interlaced_file_is_read_like_any_other(photo, tmp_path, capsys):
    photo = photo.crop((20, 10, 53, 29))
    (tmp_path / "in.png").write_bytes(png(np.asarray(photo), interlaced=True))
    with Image.open(tmp_path / "in.png") as image:
        assert image.info["interlace"] == 1
    assert run(capsys, "compress", str(tmp_path / "in.png"), str(tmp_path / "a.lic"))[0] == 0
    assert run(capsys, "compress", "-l", str(tmp_path / "in.png"), str(tmp_path / "b.lic"))[0] == 0
    assert codec.compress(photo) == (tmp_path / "a.lic").read_bytes()
    assert codec.decompress((tmp_path / "b.lic").read_bytes()).tobytes() == photo.tobytes()


def psd(layers: int) -> bytes:
    """8×8 of one red in Photoshop's format, with blue layers that do not show."""
    record = struct.pack(">4iH", 0, 0, 1, 1, 3) + b"".join(struct.pack(">hI", channel, 3) for channel in range(3))
    record += b"8BIMnorm" + bytes([255, 0, 2, 0]) + struct.pack(">I", 12) + bytes(8) + b"\1x\0\0"
    data = b"".join(struct.pack(">HB", 0, level) for level in (0, 0, 255))
    info = struct.pack(">h", layers) + record * layers + data * layers
    info += bytes(len(info) % 2)
    section = struct.pack(">I", len(info)) + info + struct.pack(">I", 0)
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 8, 8, 8, 3) + struct.pack(">II", 0, 0)
    return header + struct.pack(">I", len(section)) + section + struct.pack(">H", 0) + b"\xff" * 64 + bytes(128)


def test_layers_are_not_frames(tmp_path):
    (tmp_path / "in.psd").write_bytes(psd(2))
    with Image.open(tmp_path / "in.psd") as image:
        assert image.n_frames == 2
    assert imagefile.read_image(str(tmp_path / "in.psd")).getcolors() == [(64, (255, 0, 0))]


def bmp_565() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    return b"BM" + struct.pack("<IHHI", 98, 0, 0, 66) + header + bytes(range(32))


def test_sixteen_bits_a_pixel_are_not_sixteen_a_sample(tmp_path):
    (tmp_path / "in.bmp").write_bytes(bmp_565())
    assert imagefile.read_image(str(tmp_path / "in.bmp")).mode == "RGB"


def tiff_rgb16(deep: np.ndarray) -> bytes:
    height, width, _ = deep.shape
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14),
            (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, deep.nbytes)]  # fmt: skip
    data = deep.astype("<u2").tobytes()
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I3H", 14 + len(data), 16, 16, 16) + data + directory


def by_imagecodecs(encoder: str, **options):
    def make(deep: np.ndarray) -> bytes:
        encode = getattr(pytest.importorskip("imagecodecs"), encoder)
        return encode(deep >> (16 - options.get("bitspersample", 16)), **options)

    return make


DEEP_FILES = {  # name: (bits, file of the array H×W×3 of uint16); Pillow reads all of them as 8-bit RGB
    "rgb.png": (16, lambda deep: png(deep.astype(">u2"))),
    "interlaced.png": (16, lambda deep: png(deep.astype(">u2"), interlaced=True)),
    "rgb.tif": (16, tiff_rgb16),
    "rgb.ppm": (16, lambda deep: b"P6 9 7 65535\n" + deep.astype(">u2").tobytes()),
    "twelve.ppm": (12, lambda deep: b"P6 9 7 4095\n" + (deep >> 4).astype(">u2").tobytes()),
    "plain.ppm": (16, lambda deep: b"P3 9 7 65535\n" + " ".join(map(str, deep.ravel())).encode()),
    "rgb.sgi": (16, lambda deep: struct.pack(">hBBHHHH500x", 474, 0, 2, 3, 9, 7, 3)
                + deep.transpose(2, 0, 1).astype(">u2").tobytes()),
    "ten.avif": (10, by_imagecodecs("avif_encode", bitspersample=10)),
    "twelve.avif": (12, by_imagecodecs("avif_encode", bitspersample=12)),
    "rgb.jp2": (16, by_imagecodecs("jpeg2k_encode")),
    "rgb.j2k": (16, by_imagecodecs("jpeg2k_encode", codecformat="j2k")),
}  # fmt: skip


@pytest.mark.parametrize("method", [[], ["--lossless"]])
@pytest.mark.parametrize("name", DEEP_FILES)
def test_deep_colour_is_never_cut(name, method, rng, tmp_path, capsys):
    bits, make = DEEP_FILES[name]
    (tmp_path / name).write_bytes(make(rng.integers(0, 2**16, (7, 9, 3), dtype=np.uint16)))
    with Image.open(tmp_path / name) as image:
        assert (image.mode, image.size) == ("RGB", (9, 7))
        image.load()
    status, err = run(capsys, "compress", *method, str(tmp_path / name), str(tmp_path / "a.lic"))
    assert status == 1 and err.count("\n") == 1
    assert f"samples of {bits} bits, of which Pillow reads 8 in mode RGB" in err
    assert "--lossless" in err and "to 8 bits" in err


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.jp2", "deep.pgm"])
def test_deep_gray_goes_in_without_loss_only(name, photo, tmp_path, capsys):
    source = str(tmp_path / name)
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(source)
    status, err = run(capsys, "compress", source, str(tmp_path / "a.lic"))
    assert status == 1 and "lossy files hold 8 bits" in err and "--lossless" in err and err.count("\n") == 1
    assert run(capsys, "compress", "-l", source, str(tmp_path / "a.lic"))[0] == 0
    with Image.open(source) as before:
        after = codec.decompress((tmp_path / "a.lic").read_bytes())
        assert (after.mode, after.tobytes()) == (before.mode, before.tobytes())


@pytest.mark.parametrize("method", [[], ["--lossless"]])
def test_floating_point_is_refused(method, photo, tmp_path, capsys):
    source = save(photo.convert("F"), tmp_path / "in.tif")
    status, err = run(capsys, "compress", *method, source, str(tmp_path / "a.lic"))
    assert status == 1 and "mode F" in err and "integers" in err and err.count("\n") == 1


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


def test_a_tiff_is_turned_by_pillow_and_says_so_no_more(photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = imagefile.read_image(save(photo, tmp_path / "rotated.tif", tiffinfo=exif))
    assert image.tobytes() == photo.transpose(Image.Transpose.ROTATE_270).tobytes()
    assert 0x0112 not in codec.decompress(codec.compress(image)).getexif()


@pytest.mark.parametrize("before, after", [("png", "png"), ("jpg", "png"), ("png", "jpg"), ("tif", "tif")])
def test_dots_per_inch_come_back(before, after, photo, tmp_path, capsys):
    source = save(photo, tmp_path / f"in.{before}", dpi=(300, 150))
    assert run(capsys, "compress", source, str(tmp_path / "a.lic"))[0] == 0
    assert run(capsys, "decompress", str(tmp_path / "a.lic"), str(tmp_path / f"out.{after}"))[0] == 0
    with Image.open(tmp_path / f"out.{after}") as image:
        assert [float(value) for value in image.info["dpi"]] == pytest.approx([300, 150], abs=0.05)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_dots_per_inch_come_back_beside_exif_without_them(suffix, photo, tmp_path, capsys):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    options = {"tiffinfo": exif} if suffix == "tif" else {"exif": exif}
    if suffix == "webp":  # has no place for them but EXIF
        exif[0x011A], exif[0x011B], exif[0x0128] = 72.0, 72.0, 3
    source = save(photo, tmp_path / f"in.{suffix}", dpi=(200, 200), **options)
    assert run(capsys, "compress", source, str(tmp_path / "a.lic"))[0] == 0
    again = codec.decompress((tmp_path / "a.lic").read_bytes())
    assert again.info["dpi"] == pytest.approx((182.88,) * 2 if suffix == "webp" else (200, 200), abs=0.05)
    assert again.getexif()[0x010E] == "a description"


def test_exif_that_has_a_resolution_or_what_cannot_be_moved_is_left_as_it_is(photo):
    plain, noted = Image.Exif(), Image.Exif()
    plain[0x011A], plain[0x011B], plain[0x0128] = 72.0, 72.0, 2
    noted.get_ifd(0x8769)[0x927C] = b"by the maker"
    for exif in (plain.tobytes(), noted.tobytes(), b"garbage"):
        image = photo.copy()
        image.info.update(exif=exif, dpi=(300, 300))
        assert codec.decompress(codec.compress(image)).info["exif"] == exif


@pytest.mark.parametrize("dpi", [300, (300,), ("a", "b"), None, (float("nan"), 1), (0, 0), (1, 2, 3), (1e9, 1)])
def test_dots_per_inch_may_be_anything(dpi, photo):
    image = photo.copy()
    image.info["dpi"] = dpi
    assert codec.decompress(codec.compress(image)).info == {}


@pytest.mark.parametrize("exif", [b"", b"garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_exif_may_be_anything(exif, photo):
    image = codec.decompress(codec.compress(photo, exif=exif, lossless=True))
    assert image.info.get("exif", b"") == exif and "dpi" not in image.info


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr", "HSV", "RGBX", "RGBa", "La", "F"])
def test_lossless_coding_refuses_the_modes_that_it_cannot_return(mode):
    with pytest.raises(codec.ImageError, match=f"mode {mode} cannot be coded without loss"):
        codec.compress(Image.new(mode, (3, 3)), lossless=True)


# ── conversion ──


def ink_profile() -> bytes:
    """An ICC profile of CMYK, with inks unlike those of Pillow's formula: of each corner the CIELAB colour, in 8 bits."""
    corners = np.indices((2, 2, 2, 2)).reshape(4, 16).T  # cyan varies slowest
    colours = (255, 128, 128) + corners @ [(-40, -40, -40), (-60, 60, 0), (-20, 0, 70), (-120, 0, 0)]
    identity = np.arange(256, dtype=np.uint8).tobytes()
    table = b"mft1" + struct.pack(">4x4B9i", 4, 3, 2, 0, *(65536 * np.eye(3, dtype=int)).ravel())
    table += identity * 4 + colours.clip(0, 255).astype(np.uint8).tobytes() + identity * 3
    white = struct.pack(">3i", 63190, 65536, 54061)
    header = struct.pack(">I4xI4s4s4s12x4s28x", 144 + len(table), 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp") + white
    return header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


def test_a_profile_decides_how_the_ink_of_a_jpeg_becomes_rgb(tmp_path, capsys):
    ink = Image.new("CMYK", (32, 32), (0, 255, 0, 0))
    source = save(ink, tmp_path / "in.jpg", quality=100, icc_profile=ink_profile())
    status, err = run(capsys, "compress", source, str(tmp_path / "a.lic"))
    assert status == 0 and "converted from CMYK to RGB by its ICC profile" in err
    assert "icc_profile" not in codec.inspect((tmp_path / "a.lic").read_bytes()).sections
    seen = Image.new("LAB", (1, 1), (195, 188, 128))
    expected = ImageCms.profileToProfile(seen, LAB, ImageCms.createProfile("sRGB"), outputMode="RGB").getpixel((0, 0))
    converted = conversion.converted(imagefile.read_image(source)).getpixel((16, 16))
    assert np.abs(np.subtract(converted, expected)).max() <= 3
    assert np.abs(np.subtract(converted, ink.convert("RGB").getpixel((0, 0)))).max() > 30


def test_a_profile_decides_how_lab_becomes_rgb(photo):
    image = lab(photo)
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(LAB).tobytes()
    assert conversion.needed(image) == "converted from LAB to RGB by its ICC profile"
    rgb = conversion.converted(image)
    assert rgb.mode == "RGB" and "icc_profile" not in rgb.info
    assert psnr(np.asarray(rgb), np.asarray(photo)) > 35


@pytest.mark.parametrize("profile", [b"nonsense", SRGB, ink_profile()[:-500]])
def test_a_profile_that_does_not_fit_is_ignored_and_this_is_said(profile, photo, tmp_path, capsys):
    cmyk = photo.convert("CMYK")
    source = save(cmyk, tmp_path / "in.tif", icc_profile=profile)
    status, err = run(capsys, "compress", source, str(tmp_path / "a.lic"))
    assert status == 0 and "converted from CMYK to RGB without its ICC profile, which does not fit" in err
    rgb = conversion.converted(imagefile.read_image(source))
    assert np.array_equal(np.asarray(rgb), np.asarray(cmyk.convert("RGB"))) and "icc_profile" not in rgb.info


@pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
def test_beside_other_coordinates_of_rgb_the_profile_stays(mode, photo):
    image = photo.convert(mode)
    image.info["icc_profile"] = SRGB
    assert codec.decompress(codec.compress(image)).info["icc_profile"] == SRGB


@pytest.mark.parametrize(("mode", "target"), [
    ("1", "L"), ("P", "RGB"), ("PA", "RGBA"), ("La", "LA"), ("RGBa", "RGBA"), ("RGBX", "RGB"), ("HSV", "RGB"),
    ("YCbCr", "RGB"), ("CMYK", "RGB"), ("LAB", "RGB"),
])  # fmt: skip
def test_images_in_memory_of_the_other_modes(mode, target, photo):
    via = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}.get(mode, "RGB")
    image = photo.convert(via).convert(mode)
    image.info.clear()
    assert conversion.needed(image) == f"converted from {mode} to {target}"
    assert codec.inspect(codec.compress(image)).mode == target
    if mode not in ("1", "P"):
        assert psnr(np.asarray(conversion.converted(image)), np.asarray(photo.convert(target))) > 35


def test_the_profile_of_an_rgb_picture_stays(photo):
    image = photo.quantize(20)
    image.info["icc_profile"] = SRGB
    assert codec.decompress(codec.compress(image)).info["icc_profile"] == SRGB


def test_hidden_colours_cost_nothing(photo, rng):
    """A sprite with garbage where nobody sees it is coded as a clean one is; `fill_hidden` sees to both."""
    alpha = Image.new("L", photo.size)
    alpha.paste(255, (30, 20, 70, 50))
    noise = Image.fromarray(rng.integers(0, 256, (*photo.size[::-1], 3), dtype=np.uint8))
    noise.paste(photo, mask=alpha)
    noise.putalpha(alpha)
    black = Image.composite(photo, Image.new("RGB", photo.size), alpha)
    black.putalpha(alpha)
    assert codec.compress(noise, 80) == codec.compress(black, 80)
    files = [codec.compress(image, 80) for image in (noise, noise.convert("RGB"))]
    filled, untouched = (codec.inspect(data).sections["latents"] for data in files)
    assert filled < 0.9 * untouched
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
    assert hidden.min() >= 98 and hidden.max() <= 202 and np.abs(filled[:, 25:40, 1:3] - (100.0, 50.0)).max() <= 2


@pytest.mark.parametrize("size", [(513, 3), (1100, 1), (1026, 31)])
def test_hidden_colours_are_as_smooth_where_strips_meet(size):
    """A ramp from top to bottom of which every third row is hidden is the same ramp again, strips of the work or not."""
    pixels = np.zeros((*size, 2), np.uint8)
    pixels[..., 0] = np.linspace(20, 220, size[0])[:, None]
    pixels[..., 1] = 255
    hidden = pixels.copy()
    hidden[1::3] = 0
    assert np.abs(conversion.fill_hidden(hidden)[..., 0] - pixels[..., 0].astype(int)).max() <= 4


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 9, 4), (5, 1, 4), (33, 17, 2)])
def test_a_picture_that_nobody_sees(shape, rng):
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    pixels[..., -1] = 0
    assert not conversion.fill_hidden(pixels).any()
