"""Samples of more than 8 bits: none is ever cut. The rows of docs/INPUTS.md about depth, and files of NumPy."""

import struct
import sys

import numpy as np
import pytest
from pictures import png, png_file, save
from PIL import Image

import codec

pytestmark = pytest.mark.usefixtures("tiny_model")


def tiff_rgb16(deep: np.ndarray, orientation: int = 1) -> bytes:
    height, width, _ = deep.shape
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14),
            (274, 3, 1, orientation), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, deep.nbytes)]  # fmt: skip
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


def by_tiff_encode(**options):
    return lambda deep: pytest.importorskip("imagecodecs").tiff_encode(deep.copy(), photometric="rgb", **options)  # it swaps in place


READABLE = {  # name: (channels, file of the array)
    "rgb.png": (3, DEEP_FILES["rgb.png"][1]),
    "interlaced.png": (3, DEEP_FILES["interlaced.png"][1]),
    "rgb.tif": (3, tiff_rgb16),
    "gray_alpha.png": (2, lambda deep: pytest.importorskip("imagecodecs").png_encode(deep)),
    "rgba.png": (4, lambda deep: pytest.importorskip("imagecodecs").png_encode(deep)),
    "rgba.tif": (4, by_tiff_encode(extrasample="unassalpha")),
    "big_endian.tif": (3, by_tiff_encode(byteorder=">", rowsperstrip=2)),
    "lzw.tif": (3, by_tiff_encode(compression="lzw", predictor=True)),
}


@pytest.mark.parametrize("name, method", [
    (name, method) for name in DEEP_FILES for method in ([], ["--lossless"]) if not (method and name in READABLE)
])  # fmt: skip
def test_deep_colour_is_never_cut(name, method, rng, tmp_path, run):
    bits, make = DEEP_FILES[name]
    (tmp_path / name).write_bytes(make(rng.integers(0, 2**16, (7, 9, 3), dtype=np.uint16)))
    with Image.open(tmp_path / name) as image:
        assert (image.mode, image.size) == ("RGB", (9, 7))
        image.load()
    status, err = run("compress", *method, str(tmp_path / name), str(tmp_path / "a.lic"))
    assert status == 1 and err.count("\n") == 1
    assert f"samples of {bits} bits, of which Pillow reads 8 in mode RGB" in err
    assert "--lossless" in err and "to 8 bits" in err


@pytest.fixture
def imagecodecs():
    return pytest.importorskip("imagecodecs")


@pytest.mark.parametrize("name", READABLE)
def test_colour_of_sixteen_bits_comes_back(name, imagecodecs, rng, tmp_path, run):
    channels, make = READABLE[name]
    deep = rng.integers(0, 2**16, (7, 9, channels), dtype=np.uint16)
    (tmp_path / name).write_bytes(make(deep))
    status, err = run("compress", "--lossless", str(tmp_path / name), str(tmp_path / "a.lic"))
    assert status == 0, err
    for target in ("out.png", "out.npy"):
        assert run("decompress", str(tmp_path / "a.lic"), str(tmp_path / target))[0] == 0
    assert np.array_equal(imagecodecs.png_decode((tmp_path / "out.png").read_bytes()), deep)
    assert np.array_equal(np.load(tmp_path / "out.npy"), deep)
    with Image.open(tmp_path / "out.png") as image:
        assert np.array_equal(np.asarray(image)[..., -channels:], deep >> 8)  # gray with alpha becomes RGBA
    status, err = run("decompress", str(tmp_path / "a.lic"), str(tmp_path / "out.jpg"))
    assert status == 1 and "16 bits a pixel: take a name in .png or .npy" in err and err.count("\n") == 1


def test_metadata_of_sixteen_bits_a_sample_come_back(imagecodecs, photo, rng, tmp_path, run):
    exif = Image.Exif()
    exif[0x010E] = "with IDAT in it"
    photo.save(tmp_path / "shallow.png", exif=exif, icc_profile=bytes(range(200)), dpi=(300, 300))
    shallow = (tmp_path / "shallow.png").read_bytes()
    deep = png(rng.integers(0, 2**16, (7, 9, 3)).astype(">u2"))
    (tmp_path / "in.png").write_bytes(deep[:33] + shallow[33 : shallow.rindex(b"IDAT") - 4] + deep[33:])
    for option, keys in (([], {"exif", "icc_profile", "dpi"}), (["--no-metadata"], set())):
        assert run("compress", "-l", str(tmp_path / "in.png"), str(tmp_path / "a.lic"))[0] == 0
        assert run("decompress", *option, str(tmp_path / "a.lic"), str(tmp_path / "out.png"))[0] == 0
        with Image.open(tmp_path / "out.png") as image:
            assert keys <= set(image.info) and ("icc_profile" in image.info) == ("icc_profile" in keys)
            assert image.getexif().get(0x010E) == (exif[0x010E] if keys else None)


def test_a_transparent_colour_of_sixteen_bits_becomes_alpha(imagecodecs, tmp_path, run):
    deep = np.array([[(1, 2, 3), (1, 2, 4)]], ">u2")
    data = png(deep)
    (tmp_path / "in.png").write_bytes(data[:33] + png_file((b"tRNS", deep[0, 0].tobytes()))[8:-12] + data[33:])
    assert run("compress", "-l", str(tmp_path / "in.png"), str(tmp_path / "a.lic"))[0] == 0
    assert codec.decompress((tmp_path / "a.lic").read_bytes()).tolist() == [[[1, 2, 3, 0], [1, 2, 4, 0xFFFF]]]


@pytest.mark.parametrize("orientation", [3, 6])
def test_what_two_readers_read_differently_is_refused(orientation, imagecodecs, rng, tmp_path, run):
    """Pillow turns a TIFF as it reads it, and the other reader does not."""
    (tmp_path / "in.tif").write_bytes(tiff_rgb16(rng.integers(0, 2**16, (7, 9, 3), dtype=np.uint16), orientation))
    status, err = run("compress", "-l", str(tmp_path / "in.tif"), str(tmp_path / "a.lic"))
    assert status == 1 and err.count("\n") == 1 and "two readers" in err


def test_deep_ink_is_not_taken_for_colour_with_alpha(imagecodecs, rng, tmp_path, run):
    ink = rng.integers(0, 2**16, (7, 9, 4), dtype=np.uint16)
    (tmp_path / "in.tif").write_bytes(imagecodecs.tiff_encode(ink, photometric="separated"))
    status, err = run("compress", "-l", str(tmp_path / "in.tif"), str(tmp_path / "a.lic"))
    assert status == 1 and "samples of 16 bits, of which Pillow reads 8 in mode CMYK" in err


@pytest.mark.parametrize("name", ["rgb.png", "rgb.tif"])
def test_a_deep_file_that_ends_early_is_one_line(name, imagecodecs, rng, tmp_path, run):
    data = READABLE[name][1](rng.integers(0, 2**16, (7, 9, 3), dtype=np.uint16))
    for length in (len(data) // 4, len(data) // 2, len(data) - 150):
        (tmp_path / name).write_bytes(data[:length])
        status, err = run("compress", "-l", str(tmp_path / name), str(tmp_path / "a.lic"))
        assert status == 1 and err.count("\n") == 1, err


def test_without_the_other_reader_the_error_names_the_extra(rng, tmp_path, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    (tmp_path / "in.png").write_bytes(png(rng.integers(0, 2**16, (7, 9, 3)).astype(">u2")))
    status, err = run("compress", "-l", str(tmp_path / "in.png"), str(tmp_path / "a.lic"))
    assert status == 1 and "pip install 'lic-codec[deep]'" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.jp2", "deep.pgm"])
def test_deep_gray_goes_in_without_loss_only(name, photo, tmp_path, run):
    source = str(tmp_path / name)
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(source)
    status, err = run("compress", source, str(tmp_path / "a.lic"))
    assert status == 1 and "lossy files hold 8 bits" in err and "--lossless" in err and err.count("\n") == 1
    assert run("compress", "-l", source, str(tmp_path / "a.lic"))[0] == 0
    with Image.open(source) as before:
        after = codec.decompress((tmp_path / "a.lic").read_bytes())
        assert (after.mode, after.tobytes()) == (before.mode, before.tobytes())


@pytest.mark.parametrize("method", [[], ["--lossless"]])
def test_floating_point_is_refused(method, photo, tmp_path, run):
    source = save(photo.convert("F"), tmp_path / "in.tif")
    status, err = run("compress", *method, source, str(tmp_path / "a.lic"))
    assert status == 1 and "mode F" in err and "integers" in err and err.count("\n") == 1


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_come_back_from_files_of_numpy(shape, dtype, tmp_path, run, rng):
    array = rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    np.save(tmp_path / "in.npy", array)
    assert run("compress", "-l", str(tmp_path / "in.npy"), str(tmp_path / "a.lic"))[0] == 0
    assert run("decompress", str(tmp_path / "a.lic"), str(tmp_path / "out.npy"))[0] == 0
    assert np.array_equal(np.load(tmp_path / "out.npy"), array)


@pytest.mark.parametrize("array, words", [
    (np.array({}, dtype=object), "array cannot be read"), (np.zeros((3, 3), np.float32), "array of float32"),
    (np.zeros(5, np.uint8), "shape (5,)"), (np.zeros((0, 5), np.uint8), "without pixels"),
])  # fmt: skip
def test_other_files_of_numpy_are_refused(array, words, tmp_path, run):
    np.save(tmp_path / "in.npy", array, allow_pickle=True)
    status, err = run("compress", "-l", str(tmp_path / "in.npy"), str(tmp_path / "a.lic"))
    assert status == 1 and words in err and err.count("\n") == 1


def test_a_header_of_numpy_that_claims_too_much(tmp_path, run):
    np.save(tmp_path / "in.npy", np.zeros((10, 10), np.uint8))
    data = (tmp_path / "in.npy").read_bytes()
    for shape in (b"(99999, 99999), }", b"(-4, 10), }"):
        (tmp_path / "in.npy").write_bytes(data.replace(b"(10, 10), }".ljust(len(shape)), shape))
        status, err = run("compress", "-l", str(tmp_path / "in.npy"), str(tmp_path / "a.lic"))
        assert status == 1 and err.startswith("error: ") and err.count("\n") == 1
