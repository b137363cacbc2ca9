"""Every kind of picture file goes in and comes back: the rows of docs/INPUTS.md, with files that Pillow makes here."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
from pictures import lab, png, png_file, save
from PIL import Image

import codec
from codec.metrics import psnr
from codec.picture import reading

pytestmark = pytest.mark.usefixtures("tiny_model")


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
def test_lossy_takes_every_kind_of_file(name, photo, tmp_path, run):
    make, options, mode, words = FILES[name]
    source = save(make(photo), tmp_path / name, **options)
    status, err = run("compress", "--lossy", "-q", "100", source, str(tmp_path / "a.lic"))
    assert status == 0 and (words in err if words else "converted" not in err), err
    info = codec.inspect((tmp_path / "a.lic").read_bytes())
    assert run("decompress", str(tmp_path / "a.lic"), str(tmp_path / "out.png"))[0] == 0
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
def test_lossless_returns_every_kind_of_file(name, photo, tmp_path, run):
    make, options, _, _ = FILES[name]
    source = save(make(photo.crop((0, 0, 40, 30))), tmp_path / name, **options)
    status, err = run("compress", "-l", source, str(tmp_path / "a.lic"))
    assert status == 0 and "converted" not in err, err
    with Image.open(source) as before:
        after = codec.decompress((tmp_path / "a.lic").read_bytes())
        assert (after.mode, after.tobytes()) == (before.mode, before.tobytes())


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr", "HSV", "RGBX", "RGBa", "La", "F"])
def test_lossless_coding_refuses_the_modes_that_it_cannot_return(mode):
    with pytest.raises(codec.ImageError, match=f"mode {mode} cannot be coded without loss"):
        codec.compress(Image.new(mode, (3, 3)), lossless=True)


@pytest.mark.parametrize(("method", "words"), [
    ([], "mode P cannot be converted to LA: "), (["-l"], "transparency of 300 bytes cannot be kept"),
])  # fmt: skip
def test_more_alpha_than_a_palette_can_have_is_one_line(method, words, tmp_path, run):
    header = struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0)
    chunks = ((b"PLTE", bytes(6)), (b"tRNS", b"\7" * 300), (b"IDAT", zlib.compress(b"\0\0\1")))
    (tmp_path / "in.png").write_bytes(png_file((b"IHDR", header), *chunks))
    status, err = run("compress", *method, str(tmp_path / "in.png"), str(tmp_path / "a.lic"))
    assert status == 1 and words in err and err.count("\n") == 1


@pytest.mark.parametrize("transparency", ["x", 3.5, (1, 2), -1, 999])
@pytest.mark.parametrize("mode", ["1", "P", "L", "RGB"])
def test_transparency_may_be_anything(mode, transparency):
    image = Image.new(mode, (3, 3))
    image.info["transparency"] = transparency
    with contextlib.suppress(codec.ImageError):
        assert codec.inspect(codec.compress(image, lossless="never")).mode.endswith("A")
    with contextlib.suppress(codec.ImageError):
        codec.compress(image)


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
    image = reading.read_image(str(tmp_path / "in.png"))
    alpha = codec.decompress(codec.compress(image, lossless="never")).getchannel("A")
    expected = [0 if sample == levels[transparent] else 255 for sample in levels]
    assert list(alpha.tobytes()) == expected
    again = codec.decompress(codec.compress(image, lossless=True))
    assert list(again.convert("LA").getchannel("A").tobytes()) == expected


@pytest.mark.parametrize("suffix", ["gif", "webp", "avif", "png", "tif"])
def test_animations_and_documents_need_a_choice(suffix, photo, tmp_path, run):
    source = str(tmp_path / f"film.{suffix}")
    photo.save(source, save_all=True, append_images=[photo.rotate(180)])
    status, err = run("compress", source, str(tmp_path / "a.lic"))
    assert status == 1 and "2 frames: only the first can be coded, with --first-frame" in err
    assert run("compress", "--first-frame", source, str(tmp_path / "a.lic"))[0] == 0


def test_the_picture_of_a_phone_is_its_first_frame(photo, tmp_path, run):
    source = str(tmp_path / "phone.jpg")
    photo.save(source, format="MPO", save_all=True, append_images=[photo.resize((20, 20))])
    assert run("compress", source, str(tmp_path / "a.lic"))[0] == 0
    assert codec.inspect((tmp_path / "a.lic").read_bytes()).width == photo.width


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
    assert reading.read_image(str(tmp_path / "in.psd")).getcolors() == [(64, (255, 0, 0))]


def test_an_interlaced_file_is_read_like_any_other(photo, tmp_path, run):
    photo = photo.crop((20, 10, 53, 29))
    (tmp_path / "in.png").write_bytes(png(np.asarray(photo), interlaced=True))
    with Image.open(tmp_path / "in.png") as image:
        assert image.info["interlace"] == 1
    assert run("compress", str(tmp_path / "in.png"), str(tmp_path / "a.lic"))[0] == 0
    assert run("compress", "-l", str(tmp_path / "in.png"), str(tmp_path / "b.lic"))[0] == 0
    assert codec.compress(photo) == (tmp_path / "a.lic").read_bytes()
    assert codec.decompress((tmp_path / "b.lic").read_bytes()).tobytes() == photo.tobytes()


def bmp_565() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    return b"BM" + struct.pack("<IHHI", 98, 0, 0, 66) + header + bytes(range(32))


def test_sixteen_bits_a_pixel_are_not_sixteen_a_sample(tmp_path):
    (tmp_path / "in.bmp").write_bytes(bmp_565())
    assert reading.read_image(str(tmp_path / "in.bmp")).mode == "RGB"
