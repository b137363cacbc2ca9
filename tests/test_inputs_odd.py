"""Inputs and outputs that are a little odd, by the command line: the picture is coded, and one line says what is odd."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import codec
from codec.picture import ending


@pytest.fixture(scope="module")
def graphic() -> Image.Image:
    """A picture that the generic coder takes: no network is needed for it."""
    image = Image.new("RGB", (40, 24), (200, 30, 30))
    image.paste((20, 90, 200), (8, 8, 32, 16))  # along blocks of JPEG, so that it is as simple there
    return image


def jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


MODES = ["RGB", "L", "CMYK"]
JPEGS = [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}, {"restart_marker_rows": 1}, {"optimize": True}]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("mode", MODES)
def test_a_jpeg_that_lacks_only_its_last_marker_is_completed_and_no_other(mode, options, photo):
    data = jpeg(photo.convert(mode), **options)
    with Image.open(io.BytesIO(data)) as whole:
        for length in range(2, len(data), 97):
            completed = ending.completed(data[:length])
            assert completed is None or length > len(data) - 9
        for missing in range(9):
            completed = ending.completed(data[: len(data) - missing])
            assert (completed is not None) >= (missing in (1, 2)) and (missing or completed is None)
            if completed:
                with Image.open(io.BytesIO(completed)) as again:
                    assert np.array_equal(again, whole)


def test_a_jpeg_in_scans_of_which_the_last_is_missing_is_not_completed(photo):
    data = jpeg(photo, progressive=True)
    last_scan = data.rindex(b"\xff\xda")
    last_tables = data.rindex(b"\xff\xc4", 0, last_scan)
    assert ending.completed(data[:last_scan]) is None and ending.completed(data[:last_tables]) is None


@pytest.mark.parametrize("missing, words", [
    (2, "the last marker of the JPEG is missing"), (1, "the last marker"), (6, "truncated"),
])  # fmt: skip
def test_a_jpeg_without_its_last_marker_is_coded_and_this_is_said(missing, words, graphic, tmp_path, run):
    data = jpeg(graphic, subsampling=0)
    (tmp_path / "in.jpg").write_bytes(data[: len(data) - missing])
    status, err = run("compress", "-l", "-e", "1", str(tmp_path / "in.jpg"), str(tmp_path / "a.lic"))
    assert status == (missing > 2) and words in err and err.count("\n") == 1
    if missing <= 2:
        with Image.open(io.BytesIO(data)) as whole:
            assert np.array_equal(codec.decompress((tmp_path / "a.lic").read_bytes()), whole)


def test_exact_coding_of_a_jpeg_says_what_it_costs(graphic, tmp_path, run):
    graphic.save(tmp_path / "in.jpg")
    graphic.save(tmp_path / "in.png")
    for name, said in (("in.jpg", True), ("in.png", False)):
        status, err = run("compress", "-l", str(tmp_path / name), str(tmp_path / "a.lic"))
        assert status == 0 and ("several times" in err) == said


def test_our_format_under_the_name_of_another_says_so(graphic, tmp_path, run):
    graphic.save(tmp_path / "in.bmp")
    for name, said in (("new.png", True), ("new.lic", False), ("new.bin", False), ("new", False)):
        status, err = run("compress", "-l", str(tmp_path / "in.bmp"), str(tmp_path / name))
        assert status == 0 and ("a file of this codec, though its name ends in .png" in err) == said
    assert codec.decompress((tmp_path / "new.png").read_bytes()).tobytes() == graphic.tobytes()


@pytest.mark.parametrize("name, words", [
    ("out.jpg", "JPEG holds the pixels approximately"), ("out.avif", "AVIF holds the pixels approximately"),
    ("out.mpo", "MPO holds the pixels approximately"), ("out.tga", ""), ("out.webp", ""),
])  # fmt: skip
def test_formats_that_change_pixels_say_so(name, words, graphic, tmp_path, run):
    (tmp_path / "a.lic").write_bytes(codec.compress(graphic, lossless=True))
    status, err = run("decompress", str(tmp_path / "a.lic"), str(tmp_path / name))
    assert status == 0 and words in err and ("approximately" in err) == bool(words)


@pytest.mark.parametrize("name, words", [
    ("out.gif", "GIF does not hold"), ("out.icns", "ICNS does not hold"), ("out.pdf", "not written as PDF"),
    ("out.eps", "not written as EPS"), ("out.ico", "ICO holds at most 256×256"), ("out.h5", "not written as HDF5"),
])  # fmt: skip
def test_formats_that_cannot_hold_the_pixels_are_refused(name, words, graphic, tmp_path, run):
    """A wide picture, of more than 256 colours in its last row."""
    picture = graphic.resize((300, 20), Image.Resampling.NEAREST)
    row = np.dstack([np.arange(300) % 256, np.arange(300) // 256, np.zeros(300)]).astype(np.uint8)
    picture.paste(Image.fromarray(row), (0, 19))
    (tmp_path / "a.lic").write_bytes(codec.compress(picture, lossless=True))
    status, err = run("decompress", str(tmp_path / "a.lic"), str(tmp_path / name))
    assert status == 1 and words in err and ".png" in err and err.count("\n") == 1 and not (tmp_path / name).exists()


def test_an_icon_keeps_its_size(graphic, tmp_path, run):
    (tmp_path / "a.lic").write_bytes(codec.compress(graphic, lossless=True))
    assert run("decompress", str(tmp_path / "a.lic"), str(tmp_path / "out.ico"))[0] == 0
    with Image.open(tmp_path / "out.ico") as icon:
        assert icon.size == graphic.size and np.array_equal(icon.convert("RGB"), graphic)


@pytest.mark.parametrize("image, name, words", [
    (lambda image: image.quantize(8), "out.npy", "converted from P to RGB"),
    (lambda image: image.convert("1"), "out.npy", "converted from 1 to L"),
    (lambda image: image.quantize(8), "out.jp2", "converted from P to RGB"),
])  # fmt: skip
def test_a_palette_goes_into_no_format_without_one(image, name, words, graphic, tmp_path, run):
    source = image(graphic)
    (tmp_path / "a.lic").write_bytes(codec.compress(source, lossless=True))
    status, err = run("decompress", str(tmp_path / "a.lic"), str(tmp_path / name))
    assert status == 0 and words in err
    if name.endswith("npy"):
        assert np.array_equal(np.load(tmp_path / name), source.convert(words[-3:].strip() if "RGB" in words else "L"))


# ── metadata never blocks pixels ──


def png_with(image: Image.Image, chunk) -> bytes:
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    chunk(info)
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize("chunk", [
    lambda info: info.add_text("w", "x" * 2_000_000, zip=True),
    lambda info: info.add_itxt("w", "x" * 2_000_000, zip=True),
    lambda info: [info.add_text(f"w{index}", "x" * 1_000_000, zip=True) for index in range(70)],
    lambda info: info.add(b"iCCP", b"broken"), lambda info: info.add(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    lambda info: info.add(b"pHYs", b"\0"), lambda info: info.add(b"cHRM", b"\1"), lambda info: info.add(b"gAMA", b""),
    lambda info: info.add(b"tEXt", b""), lambda info: info.add(b"zTXt", b"key\0\0not zlib"),
    lambda info: info.add(b"iTXt", b"key\0"),
    lambda info: info.add_text("Raw profile type exif", "\nexif\n  9999999999\nzz\n"),
    lambda info: info.add(b"sRGB", b""), lambda info: info.add(b"tIME", b"\0\0\0"), lambda info: info.add(b"caNv", b"x"),
])  # fmt: skip
def test_no_chunk_of_metadata_blocks_a_png(chunk, graphic, tmp_path, run):
    (tmp_path / "in.png").write_bytes(png_with(graphic, chunk))
    status, err = run("compress", "-l", str(tmp_path / "in.png"), str(tmp_path / "a.lic"))
    assert status == 0 and err.count("\n") == 1, err
    assert codec.decompress((tmp_path / "a.lic").read_bytes()).tobytes() == graphic.tobytes()


def test_a_chunk_with_a_wrong_check_value_does_not_block_a_png(graphic, tmp_path, run):
    data = bytearray(png_with(graphic, lambda info: info.add_text("key", "value")))
    data[data.index(b"tEXtkey") + 12] ^= 1
    (tmp_path / "in.png").write_bytes(data)
    status, err = run("compress", "-l", str(tmp_path / "in.png"), str(tmp_path / "a.lic"))
    assert status == 0 and codec.decompress((tmp_path / "a.lic").read_bytes()).tobytes() == graphic.tobytes(), err


ODD_TAGS = [
    (315, 12, 1, 3.5, True), (700, 2, 4, "<x/>", True), (700, 3, 2, (1, 2), True), (282, 2, 4, "big", True),
    (282, 12, 1, 3.5, True),
    (296, 2, 4, "abc", True), (34675, 3, 2, (1, 2), True), (34665, 4, 1, 0xFFFFFF, True), (34853, 2, 4, "gps", True),
    (33723, 4, 2, (1, 2), True), (34377, 1, 4, b"8BIM", True), (270, 3, 1, 7, True), (306, 5, 1, (1, 0), True),
    (33432, 1, 3, b"(c)", True),
]  # fmt: skip


@pytest.mark.parametrize("tag", ODD_TAGS)
def test_no_tag_of_metadata_blocks_a_tiff(tag, graphic, tmp_path, run):
    tifffile = pytest.importorskip("tifffile")
    options = {"photometric": "rgb", "metadata": None, "software": False, "extratags": [tag]}
    tifffile.imwrite(tmp_path / "in.tif", np.asarray(graphic), **options)
    status, err = run("compress", "-l", str(tmp_path / "in.tif"), str(tmp_path / "a.lic"))
    assert status == 0 and err.count("\n") == 1, err
    assert codec.decompress((tmp_path / "a.lic").read_bytes()).tobytes() == graphic.tobytes()


@pytest.mark.parametrize("segment", [
    b"\xff\xe1\0\x0aExif\0\0II", b"\xff\xe1\0\x10Exif\0\0MM\0*\xff\xff\xff\xff", b"\xff\xe2\0\x06MPF\0",
    b"\xff\xe2\0\x0aMPF\0II*\0", b"\xff\xe2\0\x10ICC_PROFILE\0\1\2", b"\xff\xed\0\x10Photoshop 3.0\0",
    b"\xff\xee\0\x07Adobe", b"\xff\xfe\0\2", b"\xff\xe0\0\x07JFIF\0",
    b"\xff\xe1\0\x20http://ns.adobe.com/xap/1.0/\0<", b"\xff\xef\0\4xx",
])  # fmt: skip
def test_no_segment_of_metadata_blocks_a_jpeg(segment, graphic, tmp_path, run):
    data = jpeg(graphic)
    (tmp_path / "in.jpg").write_bytes(data[:2] + segment + data[2:])
    status, err = run("compress", "-l", str(tmp_path / "in.jpg"), str(tmp_path / "a.lic"))
    assert status == 0 and err.count("\n") == 1, err
    with Image.open(io.BytesIO(data)) as whole:
        assert np.array_equal(codec.decompress((tmp_path / "a.lic").read_bytes()), whole)


class Junk:
    def __bytes__(self) -> bytes:
        raise RuntimeError("junk")


@pytest.mark.parametrize("key", ["icc_profile", "exif", "xmp"])
@pytest.mark.parametrize("value", [
    5, 10**12, -1, 3.5, True, "text", "\ud800", ["a"], [1, 2], (300,), {"a": 1}, Junk(), Image.Exif(), object, range(10**9),
    memoryview(bytes(12)), bytearray(b"x"), np.zeros(4), np.zeros(3, "u1"), None,
])  # fmt: skip
def test_info_may_hold_anything(key, value, graphic):
    """Nothing is made of what is no bytes, least of all so many of them as a number says."""
    image = graphic.copy()
    image.info[key] = value
    try:
        kept = codec.decompress(codec.compress(image, lossless=True)).info.get(key, b"")
    except codec.CodecError as error:
        assert "\n" not in str(error)
        return
    assert isinstance(kept, bytes) and len(kept) < 100
    if isinstance(value, (int, float, list, dict, range)):
        assert kept == b""
