"""What a picture file says beside its pixels comes back: orientation, dots per inch, EXIF, colours; it never stops them."""

import contextlib
import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import png, png_file, save
from PIL import Image, ImageCms, ImageOps, PngImagePlugin
from test_exif import camera

import codec
from codec import container
from codec.picture import embedding, exif, icc, reading, writing
from codec.picture.metadata import MAX_BYTES, Metadata
from codec.picture.picture import from_input, remark_metadata, to_pil

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture
def small(photo) -> Image.Image:
    """A picture so small and of so few colours that its lossless coding takes no model."""
    return photo.crop((20, 10, 36, 22)).quantize(16).convert("RGB")


def test_a_rotated_photograph_keeps_its_pixels_and_its_orientation(photo, tmp_path, run):
    exif = Image.Exif()
    exif[0x0112] = 6
    source = save(photo, tmp_path / "rotated.jpg", exif=exif)
    assert run("compress", source, str(tmp_path / "a.lic"))[0] == 0
    image = codec.decompress((tmp_path / "a.lic").read_bytes())
    assert image.size == photo.size and image.getexif()[0x0112] == 6


def test_a_tiff_is_turned_by_pillow_and_says_so_no_more(small, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = reading.read_image(save(small, tmp_path / "rotated.tif", tiffinfo=exif))
    assert image.tobytes() == small.transpose(Image.Transpose.ROTATE_270).tobytes()
    assert 0x0112 not in codec.decompress(codec.compress(image, lossless=True)).getexif()


@pytest.mark.parametrize("before, after", [("png", "png"), ("jpg", "png"), ("png", "jpg"), ("tif", "tif")])
def test_dots_per_inch_come_back(before, after, small, tmp_path):
    through(save(small, tmp_path / f"in.{before}", dpi=(300, 150)), tmp_path / f"out.{after}")
    with Image.open(tmp_path / f"out.{after}") as image:
        assert [float(value) for value in image.info["dpi"]] == pytest.approx([300, 150], abs=0.05)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_dots_per_inch_come_back_beside_exif_without_them(suffix, small, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    options = {"tiffinfo": exif} if suffix == "tif" else {"exif": exif}
    if suffix == "webp":  # has no place for them but EXIF
        exif[0x011A], exif[0x011B], exif[0x0128] = 72.0, 72.0, 3
    through(save(small, tmp_path / f"in.{suffix}", dpi=(200, 200), **options), tmp_path / "out.png")
    again = codec.decompress((tmp_path / "out.lic").read_bytes())
    assert again.info["dpi"] == pytest.approx((182.88,) * 2 if suffix == "webp" else (200, 200), abs=0.05)
    assert again.getexif()[0x010E] == "a description"


def test_exif_is_left_as_it_is_whether_it_has_a_resolution_or_not(small):
    plain, noted = Image.Exif(), Image.Exif()
    plain[0x011A], plain[0x011B], plain[0x0128] = 72.0, 72.0, 2
    noted.get_ifd(0x8769)[0x927C] = b"by the maker"
    for block, dpi in ((plain.tobytes(), 72), (noted.tobytes(), 300), (b"garbage", 300)):
        small.info.update(exif=block, dpi=(300, 300))
        assert codec.decompress(codec.compress(small, lossless=True)).info == {"exif": block, "dpi": (dpi, dpi)}


@pytest.mark.parametrize("dpi", [300, (300,), ("a", "b"), None, (float("nan"), 1), (0, 0), (1, 2, 3), (1e9, 1)])
def test_dots_per_inch_may_be_anything(dpi, small):
    small.info["dpi"] = dpi
    assert codec.decompress(codec.compress(small, lossless=True)).info == {}


@pytest.mark.parametrize("exif", [b"", b"garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_exif_may_be_anything(exif, photo):
    image = codec.decompress(codec.compress(photo.crop((0, 0, 20, 10)), exif=exif, lossless=True))
    assert image.info.get("exif", b"") == exif and "dpi" not in image.info


# ── EXIF passes byte by byte ──

SUFFIXES = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF"}


def through(source, target) -> tuple[str, str]:
    """compress -l and decompress, without the command: what each would say. The file between is TARGET's NAME.lic."""
    target, said = Path(target), ([], [])
    image = reading.read_image(str(source), exact=True, remark=said[0].append)
    data = codec.compress(image, lossless=True)
    remark_metadata(image, codec.inspect(data).mode, dropped=False, remark=said[0].append)
    target.with_suffix(".lic").write_bytes(data)
    written = writing.image_bytes(codec.decompress(data), writing.format_of(str(target)), remark=said[1].append)
    target.write_bytes(written)
    return "; ".join(said[0]), "; ".join(said[1])


def exif_in(path) -> bytes:
    """The block in a file, without its prefix, as it stands there: found by its own text."""
    data = Path(path).read_bytes()
    if Path(path).suffix == ".avif":
        start = max(data.rfind(b"Exif\0\0MM\0*"), data.rfind(b"Exif\0\0II*\0"))
        return data[start + 6 :]
    with Image.open(path) as image:
        return image.info["exif"].removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_exif_of_a_camera_passes_byte_by_byte(suffix, order, small, tmp_path):
    block = camera(order)
    small.info["exif"] = block
    source = tmp_path / f"in.{suffix}"
    source.write_bytes(writing.image_bytes(small, SUFFIXES[suffix]))
    assert block[6:] in source.read_bytes()
    through(str(source), tmp_path / f"out.{suffix}")
    assert codec.decompress((tmp_path / "out.lic").read_bytes()).info["exif"].removeprefix(b"Exif\0\0") == block[6:]
    assert exif_in(tmp_path / f"out.{suffix}")[: len(block) - 6] == block[6:]


def test_an_artist_is_still_jürgen_and_no_resolution_is_invented(small, tmp_path):
    """A JPEG without JFIF: Pillow says 72 dots per inch of one whose EXIF says none."""
    small.save(tmp_path / "in.jpg", exif=camera(">"))
    data = (tmp_path / "in.jpg").read_bytes()
    (tmp_path / "in.jpg").write_bytes(data[:2] + data[2 + 18 :] if data[2:4] == b"\xff\xe0" else data)
    for image in (str(tmp_path / "in.jpg"), Image.open(tmp_path / "in.jpg")):
        if isinstance(image, str):
            image = reading.read_image(image)
        info = codec.decompress(codec.compress(image, lossless=True)).info
        assert info == {"exif": camera(">")}


def test_dots_per_inch_of_the_file_go_beside_exif_that_has_none(small, tmp_path):
    small.save(tmp_path / "in.jpg", exif=camera("<"), dpi=(300, 200))
    through(str(tmp_path / "in.jpg"), tmp_path / "out.jpg")
    info = codec.decompress((tmp_path / "out.lic").read_bytes()).info
    assert info == {"exif": camera("<"), "dpi": (300, 200)}
    with Image.open(tmp_path / "out.jpg") as image:
        assert (image.info["exif"], image.info["dpi"]) == (camera("<"), (300, 200))
    words = through(str(tmp_path / "in.jpg"), tmp_path / "out.webp")[1]
    assert "dots per inch left out: WEBP has no place" in words and exif_in(tmp_path / "out.webp") == camera("<")[6:]


def test_exif_in_several_segments_of_a_jpeg_is_one(small, tmp_path):
    block = exif.block({270: (2, b"long " * 20000 + b"\0"), 274: (3, b"\0\6")}, ">")
    small.save(tmp_path / "in.jpg")
    data, pieces = (tmp_path / "in.jpg").read_bytes(), [block[:60000], b"Exif\0\0" + block[60000:]]
    segments = b"".join(b"\xff\xe1" + (len(piece) + 2).to_bytes(2, "big") + piece for piece in pieces)
    (tmp_path / "in.jpg").write_bytes(data[:2] + segments + data[2:])
    words = through(str(tmp_path / "in.jpg"), tmp_path / "out.png")
    assert exif_in(tmp_path / "out.png") == block[6:] and "left out" not in words[0] + words[1]
    words = through(str(tmp_path / "in.jpg"), tmp_path / "out.jpg")[1]
    assert f"EXIF of {len(block)} bytes left out: JPEG holds at most 65533" in words
    with Image.open(tmp_path / "out.jpg") as image:  # which way is up is told all the same
        assert dict(image.getexif()) == {274: 6}


def test_the_orientation_of_an_avif_goes_before_the_one_in_its_exif(small, tmp_path):
    """Pillow writes the file's own and takes EXIF's out, or puts in what its reader wants: only that tag may change."""
    block = camera(">", orientation=None)
    small.info["exif"] = exif.with_orientation(block, 6)
    data = writing.image_bytes(small, "AVIF")
    assert data.count(small.info["exif"][6:]) == 1
    for inside in (exif.with_orientation(small.info["exif"], 3), exif.with_orientation(small.info["exif"], 1)):
        (tmp_path / "in.avif").write_bytes(data.replace(small.info["exif"][6:], inside[6:]))
        found = reading.read_image(str(tmp_path / "in.avif")).info["exif"]
        assert found.removeprefix(b"Exif\0\0") == small.info["exif"][6:]


# ── TIFF: descriptive tags, types and bytes as they stand ──

LAYOUT = {  # of a file that EXIF once came from; none of them is true of the file that is written
    254: 1, 256: 640, 257: 480, 258: (16, 16, 16), 259: 5, 262: 0, 266: 2, 273: 8, 277: 4, 278: 1, 279: 99999, 284: 2,
    317: 2, 320: (1, 2, 3), 322: 16, 323: 16, 324: 8, 325: 8, 330: 8, 338: 1, 339: 3, 347: b"tables", 512: 1,
    529: (1.0, 1.0, 1.0), 530: (2, 2), 531: 1, 532: (0.0, 255.0), 34675: b"no profile",
}  # fmt: skip


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16"])
def test_tags_of_another_files_layout_do_not_get_into_a_tiff(mode, small, tmp_path, run):
    exif_of_another = Image.Exif()
    for tag, value in (LAYOUT | {315: "by me"}).items():
        exif_of_another[tag] = value
    picture = (
        small.convert("L").point(lambda level: level * 257, "I").convert("I;16")
        if mode == "I;16"
        else small.convert(mode)
    )
    picture.info = {"exif": exif_of_another.tobytes()}
    for region in ((), ("--region", "0,0,8,8")):
        (tmp_path / "a.lic").write_bytes(codec.compress(picture, lossless=True))
        assert run("decompress", *region, str(tmp_path / "a.lic"), str(tmp_path / "a.tif"))[0] == 0
        with Image.open(tmp_path / "a.tif") as image:
            expected = picture.crop((0, 0, 8, 8)) if region else picture
            assert (image.mode, image.size, image.tobytes()) == (mode, expected.size, expected.tobytes())
            assert image.getexif()[315] == "by me"
            assert not set(image.tag_v2) & {254, 266, 317, 322, 347, 512, 529, 530, 531, 532, 34675}
        assert reading.read_image(str(tmp_path / "a.tif")).size == expected.size


def tiff_tags(path) -> dict[int, tuple[int, bytes]]:
    structure = exif.Structure(Path(path).read_bytes())
    tags = structure.directory()
    return {
        (directory, tag): (entry.type, structure.values(entry))
        for directory in (0, exif.CAMERA, exif.GPS)
        for tag, entry in (structure.below(tags[directory]) if directory else tags).items()
    }


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_goes_into_a_tiff_with_its_types_and_bytes_and_comes_back(order, small, tmp_path):
    small.save(tmp_path / "in.png", exif=camera(order), dpi=(300, 200))
    through(str(tmp_path / "in.png"), tmp_path / "a.tif")
    tags = tiff_tags(tmp_path / "a.tif")
    assert tags[0, 315] == (2, "Jürgen Müller".encode() + b"\0")
    assert tags[0, 40091] == (1, "Grüße".encode("utf-16-le") + b"\0\0")
    assert tags[exif.CAMERA, 37510][0] == 7 and tags[exif.CAMERA, 37510][1].startswith(b"UNICODE\0")
    assert tags[exif.GPS, 2] == (5, bytes(24))
    with Image.open(tmp_path / "a.tif") as image:  # and another reader finds all of it
        assert image.getexif().get_ifd(exif.CAMERA)[37500].startswith(b"MAKER")
        assert [round(value) for value in image.info["dpi"]] == [300, 200] and 513 not in image.tag_v2
    first = reading.read_image(str(tmp_path / "a.tif")).info["exif"]
    through(str(tmp_path / "a.tif"), tmp_path / "b.tif")
    assert reading.read_image(str(tmp_path / "b.tif")).info["exif"] == first
    kept = {key: value for key, value in tags.items() if key[1] in (270, 282, 283, 296, 315, 40091) or key[0]}
    assert {key: value for key, value in tiff_tags(tmp_path / "b.tif").items() if key in kept} == kept


@pytest.mark.parametrize(("extra", "words"), [
    ((315, 12, 1, 3.5, True), ""), ((270, 5, 1, (1, 0), True), ""), ((306, 3, 4, (1, 2, 3, 4), True), ""),
    ((700, 2, 4, "<x/>", True), ""), ((700, 3, 3, (1, 2, 3), True), "XMP (of another type, or too large) left out"),
    ((34675, 3, 3, (1, 2, 3), True), "ICC profile (of another type, or too large) left out"),
    ((34665, 4, 1, 8, True), ""), ((34665, 4, 1, 2**32 - 1, True), ""), ((34853, 2, 4, "abc", True), ""),
    ((33723, 4, 2, (1, 2), True), ""), ((34377, 7, 8, b"8BIM\x04\x04ab", True), "Photoshop's settings left out"),
    ((318, 12, 2, (0.3, 0.3), True), ""), ((40091, 1, 4, b"a\0b\0", True), ""),
])  # fmt: skip
def test_odd_tags_of_a_tiff_do_not_stop_its_pixels(extra, words, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    for bigtiff, order in ((False, "<"), (False, ">"), (True, "<")):
        tifffile.imwrite(
            tmp_path / "in.tif",
            pixels,
            photometric="rgb",
            metadata=None,
            extratags=[extra],
            bigtiff=bigtiff,
            byteorder=order,
        )
        compressed, _ = through(str(tmp_path / "in.tif"), tmp_path / "out.tif")
        assert words in compressed and ("left out" in compressed) == bool(words)
        with Image.open(tmp_path / "out.tif") as image:
            assert np.array_equal(np.asarray(image), pixels)


# ── text and raw profiles of PNG ──


def raw_profile(kind: str, content: bytes) -> str:
    digits = content.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    return f"\n{kind}\n{len(content):8}\n{lines}\n"


def png_with(small, tmp_path, *chunks: tuple[bytes, bytes]) -> str:
    """A PNG with chunks before its samples."""
    small.save(tmp_path / "plain.png")
    data = (tmp_path / "plain.png").read_bytes()
    (tmp_path / "in.png").write_bytes(data[:33] + png_file(*chunks)[8:-12] + data[33:])
    return str(tmp_path / "in.png")


PACKET = "<x:xmpmeta xmlns:x='adobe:ns:meta/'>é</x:xmpmeta>".encode()


@pytest.mark.parametrize(("kind", "name", "content", "key", "expected"), [
    ("exif", "exif", camera(">"), "exif", camera(">")), ("exif", "exif", camera("<")[6:], "exif", camera("<")),
    ("APP1", "generic profile", camera(">"), "exif", camera(">")), ("xmp", "xmp", PACKET, "xmp", PACKET),
    ("APP1", "generic profile", b"http://ns.adobe.com/xap/1.0/\0" + PACKET, "xmp", PACKET),
    ("icc", "icc", b"profile", "icc_profile", b"profile"),
])  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_raw_profiles_of_a_png_are_the_metadata_that_they_hold(
    packed, kind, name, content, key, expected, small, tmp_path
):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(f"Raw profile type {kind}", raw_profile(name, content), zip=packed)
    small.save(tmp_path / "in.png", pnginfo=chunks)
    compressed, _ = through(str(tmp_path / "in.png"), tmp_path / "out.png")
    assert "left out" not in compressed
    info = codec.decompress((tmp_path / "out.lic").read_bytes()).info
    assert info == {key: expected}
    with Image.open(tmp_path / "in.png") as image:  # and of an image that a program has opened
        assert codec.decompress(codec.compress(image, lossless=True)).info == info


@pytest.mark.parametrize(("kind", "text", "words"), [
    ("exif", "\nexif\n       9\n00\n", "Raw profile type exif left out: it cannot be read"),
    ("exif", "\nexif\n       1\n0g\n", "Raw profile type exif left out: it cannot be read"),
    ("exif", "no lines", "Raw profile type exif left out: it cannot be read"),
    ("iptc", raw_profile("iptc", b"8BIM"), "IPTC left out"), ("8bim", raw_profile("8bim", b"8BIM"), "IPTC left out"),
    ("APP1", raw_profile("generic profile", b"something"), "Raw profile type APP1 left out"),
])  # fmt: skip
def test_raw_profiles_that_are_none_are_left_out_with_a_word(kind, text, words, small, tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(f"Raw profile type {kind}", text)
    small.save(tmp_path / "in.png", pnginfo=chunks)
    assert words in through(str(tmp_path / "in.png"), tmp_path / "out.png")[0]
    assert codec.decompress((tmp_path / "out.lic").read_bytes()).info == {}


HUGE = zlib.compress(b"x" * 2_000_000)


@pytest.mark.parametrize(("chunk", "words"), [
    ((b"zTXt", b"w\0\0" + HUGE), "text left out"), ((b"iTXt", b"w\0\1\0\0\0" + HUGE), "text left out"),
    ((b"tEXt", b"transparency\0abc"), "text left out"), ((b"tEXt", b"exif\0garbage"), "text left out"),
    ((b"tEXt", b"icc_profile\0x"), "text left out"), ((b"zTXt", b"w\0\7garbage"), "text left out"),
    ((b"tEXt", b""), "text left out"),
    ((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"x" * (2**24 + 1)), "XML:com.adobe.xmp (damaged"),
    ((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**26))), "XML:com.adobe.xmp (damaged"),
    ((b"iCCP", b"name\0\0" + zlib.compress(bytes(2**26))), "ICC profile (damaged, or too large) left out"),
    ((b"iCCP", b"name\0\0garbage"), "ICC profile (damaged, or too large) left out"),
    ((b"iCCP", b"name\0\1x"), "ICC profile (damaged"),
    ((b"iCCP", b"name"), "ICC profile (damaged"), ((b"pHYs", b"\0\0"), "dots per inch (damaged"),
    ((b"gAMA", b"1"), "gAMA (damaged"),
    ((b"cHRM", b"1"), "cHRM (damaged"), ((b"cICP", b"\x09\x10\0"), "cICP (damaged"),
    ((b"cICP", b"\x09\x10\x09\1"), "cICP (damaged"),
    ((b"sRGB", b""), "sRGB (damaged"), ((b"mDCV", bytes(24)), "mDCV left out"), ((b"cLLI", bytes(8)), "cLLI left out"),
    ((b"tIME", b"x"), ""),
    ((b"bKGD", b""), ""), ((b"hIST", b"12345"), ""), ((b"sPLT", b""), ""), ((b"oFFs", b"x"), ""), ((b"prVt", b"x"), ""),
])  # fmt: skip
def test_odd_chunks_of_a_png_do_not_stop_its_pixels(chunk, words, small, tmp_path):
    compressed, _ = through(png_with(small, tmp_path, chunk), tmp_path / "out.png")
    assert words in compressed and ("left out" in compressed) == bool(words)
    image = codec.decompress((tmp_path / "out.lic").read_bytes())
    assert image.tobytes() == small.tobytes() and image.info == {}


def test_a_chunk_with_a_wrong_check_value_is_left_out(small, tmp_path):
    source = Path(png_with(small, tmp_path, (b"eXIf", camera(">")[6:])))
    data = source.read_bytes()
    source.write_bytes(data.replace("Jürgen".encode(), "Xürgen".encode()))
    compressed, _ = through(str(source), tmp_path / "out.png")
    assert "EXIF (damaged, or too large) left out" in compressed
    assert codec.decompress((tmp_path / "out.lic").read_bytes()).info == {}


# ── what colours mean ──


def profile(space: str) -> bytes:
    kind = {"gray": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}[space]
    return (
        icc.profile(0.7, None, gray=space == "gray").replace(b"RGB ", kind, 1)
        if space != "gray"
        else icc.profile(0.7, None, gray=True)
    )


def test_cicp_of_a_png_comes_back_and_other_formats_say_that_they_cannot(small, tmp_path):
    source = png_with(small, tmp_path, (b"cICP", bytes([9, 16, 0, 1])))
    through(source, tmp_path / "out.png")
    assert b"cICP\x09\x10\0\1" in (tmp_path / "out.png").read_bytes()
    assert codec.decompress((tmp_path / "out.lic").read_bytes()).info == {"cicp": (9, 16, 0, 1)}
    assert codec.inspect((tmp_path / "out.lic").read_bytes()).sections["cicp"] == 4 + 1 + 6
    for suffix in ("jpg", "webp", "tif", "bmp", "ppm", "npy"):
        words = through(source, tmp_path / f"out.{suffix}")[1]
        assert "CICP left out: " in words and "has no place for that" in words
    through(source, tmp_path / "out.avif")
    assert reading.read_image(str(tmp_path / "out.avif")).info["cicp"] == (9, 16, 0, 1)


def test_cicp_of_sixteen_bits_a_sample_comes_back(tmp_path, rng):
    pytest.importorskip("imagecodecs")
    deep = png(rng.integers(0, 2**16, (7, 9, 3)).astype(">u2"))
    (tmp_path / "in.png").write_bytes(deep[:33] + png_file((b"cICP", bytes([9, 16, 0, 1])))[8:-12] + deep[33:])
    through(tmp_path / "in.png", tmp_path / "out.png")
    assert b"cICP\x09\x10\0\1" in (tmp_path / "out.png").read_bytes()


def test_the_colours_of_an_avif_come_back(small, tmp_path):
    small.save(tmp_path / "in.avif")
    assert "cicp" not in reading.read_image(str(tmp_path / "in.avif")).info  # sRGB: nothing to say
    data = (tmp_path / "in.avif").read_bytes()
    place = data.index(b"colrnclx") + 8
    for primaries, transfer in ((9, 16), (12, 13), (1, 1), (9, 18)):
        numbers = primaries.to_bytes(2, "big") + transfer.to_bytes(2, "big")
        (tmp_path / "in.avif").write_bytes(data[:place] + numbers + data[place + 4 :])
        through(str(tmp_path / "in.avif"), tmp_path / "out.png")
        assert b"cICP" + bytes([primaries, transfer, 0, 1]) in (tmp_path / "out.png").read_bytes()


@pytest.mark.parametrize(
    "cicp", [5, "9", (9, 16, 0), (9, 16, 9, 1), (999, 1, 0, 1), (9.5, 1, 0, 1), object(), [9, 16, None, 1]]
)
def test_cicp_in_memory_may_be_anything(cicp, small):
    small.info["cicp"] = cicp
    assert codec.decompress(codec.compress(small, lossless=True)).info == {}


@pytest.mark.parametrize("cicp", [(9, 16, 0, 1), [12, 13, 0, 0], bytes([9, 18, 0, 1]), (9, 16, False, True)])
def test_cicp_in_memory_comes_back_as_four_numbers(cicp, small):
    small.info["cicp"] = cicp
    assert codec.decompress(codec.compress(small, lossless=True)).info == {
        "cicp": tuple(int(number) for number in cicp)
    }
    assert codec.decompress(codec.compress(small, lossless=True, icc_profile=b"")).info == {}


SRGB = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def gama(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 100000))


@pytest.mark.parametrize("chunks", [
    [gama(0.45455)], [gama(0.45)], [(b"cHRM", SRGB)], [gama(0.45455), (b"cHRM", SRGB)], [gama(1.0), (b"sRGB", b"\0")],
])  # fmt: skip
def test_gamma_and_primaries_of_srgb_say_nothing(chunks, small, tmp_path):
    assert "gAMA" not in through(png_with(small, tmp_path, *chunks), tmp_path / "out.png")[0]
    assert codec.decompress((tmp_path / "out.lic").read_bytes()).info == {}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("chunks", [[gama(1.0)], [gama(0.5556), (b"cHRM", SRGB)], [gama(0.45455), (b"cHRM", P3)]])
def test_other_gamma_and_primaries_become_an_icc_profile(chunks, mode, small, tmp_path):
    small = small.convert(mode)
    compressed, _ = through(png_with(small, tmp_path, *chunks), tmp_path / "out.png")
    if mode == "L" and len(chunks) == 2 and chunks[1][1] == P3:
        return  # primaries say nothing of gray
    assert "gAMA and cHRM became an ICC profile" in compressed
    with Image.open(tmp_path / "out.png") as image:
        described = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        to_srgb = ImageCms.buildTransform(described, ImageCms.createProfile("sRGB"), mode, "RGB")
        level = ImageCms.applyTransform(Image.new(mode, (1, 1), 128 if mode == "L" else (128,) * 3), to_srgb).getpixel(
            (0, 0)
        )
    gamma = int.from_bytes(chunks[0][1], "big") / 100000
    expected = 255 * (1.055 * (128 / 255) ** (1 / gamma / 2.4) - 0.055) if gamma != 0.45455 else 128
    assert level == pytest.approx((expected,) * 3, abs=1.5)


def test_primaries_of_p3_mean_p3(small, tmp_path):
    source = png_with(small, tmp_path, gama(0.45455), (b"cHRM", P3))
    through(source, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        described = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    red, green, blue = (
        described.profile.red_colorant[0],
        described.profile.green_colorant[0],
        described.profile.blue_colorant[0],
    )
    assert red == pytest.approx((0.51512, 0.24120, -0.00105), abs=2e-4)  # of Display P3, adapted to D50
    assert green == pytest.approx((0.29198, 0.69225, 0.04189), abs=2e-4)
    assert blue == pytest.approx((0.15710, 0.06657, 0.78407), abs=2e-4)


@pytest.mark.parametrize(
    "chunks", [[gama(0.0)], [gama(1000)], [gama(1), (b"cHRM", bytes(32))], [gama(1), (b"cHRM", b"\0\0\x7a\x26" * 8)]]
)
def test_gamma_and_primaries_that_no_colours_have_are_left_out(chunks, small, tmp_path):
    assert (
        "gAMA and cHRM left out: no colours have these numbers"
        in through(png_with(small, tmp_path, *chunks), tmp_path / "o.png")[0]
    )


@pytest.mark.parametrize(("mode", "space", "fits"), [
    ("L", "RGB", False), ("LA", "RGB", False), ("1", "RGB", False), ("I;16", "RGB", False), ("RGB", "gray", False),
    ("P", "gray", False),
    ("RGB", "CMYK", False), ("RGBA", "CMYK", False), ("L", "gray", True), ("RGB", "RGB", True), ("P", "RGB", True),
    ("LA", "gray", True),
])  # fmt: skip
def test_a_profile_of_other_colours_is_left_out_on_the_way_in(mode, space, fits, small, tmp_path):
    picture = small.convert("L").convert("I").convert("I;16") if mode == "I;16" else small.convert(mode)
    source = save(picture, tmp_path / "in.png", icc_profile=profile(space))
    compressed, _ = through(source, tmp_path / "out.png")
    assert (f"ICC profile of {space} left out" in compressed) == (not fits)
    info = codec.decompress((tmp_path / "out.lic").read_bytes()).info
    assert info.get("icc_profile", b"") == (profile(space) if fits else b"")


def test_a_palette_that_becomes_gray_leaves_its_profile_behind(photo, tmp_path, run):
    source = save(photo.convert("L").convert("P"), tmp_path / "in.png", icc_profile=profile("RGB"))
    status, words = run("compress", "-e", "1", source, str(tmp_path / "a.lic"))
    assert status == 0 and "converted from P to L; ICC profile of RGB left out, the picture is gray" in words
    assert codec.decompress((tmp_path / "a.lic").read_bytes()).info == {}


@pytest.mark.parametrize("suffix", ["webp", "png", "jpg", "tif"])
def test_a_gray_profile_stays_where_the_picture_stays_gray(suffix, small, tmp_path):
    source = save(small.convert("L"), tmp_path / "in.png", icc_profile=profile("gray"))
    words = through(source, tmp_path / f"out.{suffix}")[1]
    with Image.open(tmp_path / f"out.{suffix}") as image:
        assert ("icc_profile" in image.info) == (image.mode == "L") == (suffix != "webp")
    assert ("ICC profile of gray left out: it does not fit the picture in WEBP" in words) == (suffix == "webp")


# ── `info` holds anything ──


class Strange:
    def __len__(self):
        raise RuntimeError

    def __iter__(self):
        raise RuntimeError


KEYS = [
    "icc_profile",
    "exif",
    "xmp",
    "dpi",
    "gamma",
    "chromaticity",
    "cicp",
    "Raw profile type exif",
    "XML:com.adobe.xmp",
]


@pytest.mark.parametrize("value", [
    5, 2**40, -1, 0.0, True, [1, 2, 3], (1,), {"a": 1}, object(), Strange(), np.float32("nan"), range(10**9), 2.5j,
    "\ud800", np.zeros(3),
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("key", KEYS)
def test_what_info_holds_in_place_of_metadata_is_left_out(key, value, small):
    if key == "gamma" and isinstance(value, int) and value in (5, True):
        return  # which colours could have
    small.info[key] = value
    tracemalloc.start()
    try:
        metadata = from_input(small, lossless=True).metadata
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert metadata == Metadata()


@pytest.mark.parametrize("key", KEYS)
def test_more_bytes_than_a_file_of_ours_can_hold_are_left_out(key, small):
    small.info[key] = bytes(MAX_BYTES + 1)
    assert codec.decompress(codec.compress(small, lossless=True)).info == {}
    assert MAX_BYTES == container.MAX_METADATA


def test_bytes_of_any_kind_text_and_exif_objects_are_metadata(small):
    block = Image.Exif()
    block[315] = "by me"
    small.info.update(icc_profile=bytearray(b"icc"), exif=block, xmp="<é/>")
    info = codec.decompress(codec.compress(small, lossless=True)).info
    assert info == {"icc_profile": b"icc", "exif": block.tobytes(), "xmp": "<é/>".encode()}
    small.info = {"exif": memoryview(b"Exif\0\0garbage"), "xmp": memoryview(np.arange(4, dtype=np.uint16))}
    info = codec.decompress(codec.compress(small, lossless=True)).info
    assert info == {"exif": b"Exif\0\0garbage", "xmp": bytes([0, 0, 1, 0, 2, 0, 3, 0])}


# ── what an output format cannot hold ──


@pytest.mark.parametrize(("suffix", "given", "words"), [
    ("jpg", {"exif": b"Exif\0\0MM\0*" + bytes(70000)}, "EXIF of 70010 bytes left out: JPEG holds at most 65533"),
    ("jpg", {"xmp": b" " * 65505}, "XMP of 65505 bytes left out: JPEG holds at most 65504"),
    ("jpg", {"xmp": b" " * 65504}, ""),
    ("avif", {"exif": b"Exif\0\0"}, "EXIF left out: AVIF takes none that cannot be read"),
    ("png", {"exif": b"Exif\0\0"}, ""),
    ("avif", {"exif": b"garbage"}, "EXIF left out: AVIF takes none that cannot be read"),
    ("webp", {"exif": b"garbage"}, ""),
    ("tif", {"exif": b"garbage"}, "EXIF (it cannot be read) left out"),
    ("png", {"xmp": b"\xff\xfe<\0"}, "XMP left out: PNG holds UTF-8 only"),
    ("jpg", {"xmp": b"\xff\xfe<\0"}, ""),
    ("bmp", {"exif": b"garbage", "xmp": b"<x/>"}, "EXIF, XMP left out: BMP has no place for that"),
    ("gif", {"icc_profile": b"icc"}, "ICC profile left out: GIF has no place for that"),
    ("ppm", {"xmp": b"<x/>"}, "XMP left out: PPM has"),
    ("npy", {"xmp": b"<x/>"}, "XMP left out: an array has no place for that"),
    ("tif", {"exif": b"MM\0*" + bytes(10)}, ""),
])  # fmt: skip
def test_what_a_format_cannot_hold_is_left_out_with_a_word(suffix, given, words, small, tmp_path, run):
    (tmp_path / "a.lic").write_bytes(codec.compress(small, lossless=True, **given))
    status, err = run("decompress", str(tmp_path / "a.lic"), str(tmp_path / f"a.{suffix}"))
    assert status == 0 and err.count("\n") == 1
    assert words in err and ("left out" in err) == bool(words)


def test_a_profile_of_sixteen_megabytes_does_not_fit_into_a_jpeg(small, tmp_path, run):
    (tmp_path / "a.lic").write_bytes(codec.compress(small, lossless=True, icc_profile=bytes(255 * 65519 + 1)))
    status, err = run("decompress", str(tmp_path / "a.lic"), str(tmp_path / "a.jpg"))
    assert status == 0 and "ICC profile of 16707346 bytes left out: JPEG holds at most 16707345" in err


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["bmp", "ppm"])
def test_a_format_without_exif_gets_the_picture_upright(suffix, orientation, small, tmp_path):
    small.save(tmp_path / "in.png", exif=exif.of_orientation(orientation))
    words = through(str(tmp_path / "in.png"), tmp_path / f"out.{suffix}")[1]
    assert ("turned upright, as EXIF says" in words) == (orientation > 1)
    with Image.open(tmp_path / "in.png") as before, Image.open(tmp_path / f"out.{suffix}") as after:
        assert after.tobytes() == ImageOps.exif_transpose(before).tobytes()


def test_an_array_has_its_samples_as_they_lie_and_says_so(small, tmp_path):
    small.save(tmp_path / "in.png", exif=exif.of_orientation(6))
    words = through(str(tmp_path / "in.png"), tmp_path / "out.npy")[1]
    assert "not turned upright: orientation 6" in words
    assert np.array_equal(np.load(tmp_path / "out.npy"), np.asarray(small))


def test_without_metadata_nothing_of_it_is_left_and_a_turned_picture_says_so(small, tmp_path, run):
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"cICP", bytes([9, 16, 0, 1]))
    small.save(tmp_path / "in.png", exif=camera(">"), dpi=(300, 300), pnginfo=chunks)
    status, words = run("compress", "-l", "--no-metadata", str(tmp_path / "in.png"), str(tmp_path / "a.lic"))
    assert status == 0 and "orientation 6 is gone with EXIF" in words
    assert set(codec.inspect((tmp_path / "a.lic").read_bytes()).sections) == {"header", "planes"}
    (tmp_path / "a.lic").write_bytes(codec.compress(Image.open(tmp_path / "in.png"), lossless=True))
    assert run("decompress", "--no-metadata", str(tmp_path / "a.lic"), str(tmp_path / "out.png"))[0] == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.info == {}


# ── JPEG of phones and of Photoshop ──


def jpeg_with(small, tmp_path, *segments: tuple[int, bytes]) -> str:
    small.save(tmp_path / "plain.jpg")
    data = (tmp_path / "plain.jpg").read_bytes()
    middle = b"".join(
        bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content for marker, content in segments
    )
    (tmp_path / "in.jpg").write_bytes(data[:2] + middle + data[2:])
    return str(tmp_path / "in.jpg")


IPTC = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\5\x1c\2\5\0\0\0"
PIECE = b"ICC_PROFILE\0"


@pytest.mark.parametrize(("segment", "words"), [
    ((0xED, IPTC), "IPTC left out"), ((0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"), ""),
    ((0xED, b"Photoshop 3.0\0" + b"8BIM\3\xed\0\0\xff\xff\xff\xff"), ""),
    ((0xED, b"Photoshop 3.0\0" + b"8BIM\3\xed\0\0\0\0\0\0" + IPTC[14:]), "IPTC left out"),
    ((0xFE, b"a comment"), "text left out"), ((0xE0, b"JFIF\0\1"), ""), ((0xEE, b"Adobe"), ""),
    ((0xE0, b"JFXX\0\x10"), ""),
    ((0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"G" * 32 + bytes(8)), "extended XMP left out"),
    ((0xE1, b"Exif\0"), ""),
    ((0xE2, PIECE), "ICC profile (damaged, or too large) left out"), ((0xE2, PIECE + b"\1"), "ICC profile (damaged"),
    ((0xE2, PIECE + b"\2\3abc"), "ICC profile (damaged"), ((0xE2, PIECE + b"\1\2abc"), "ICC profile (damaged"),
    ((0xE2, b"MPF\0garbage"), "pictures behind this one left out"),
    ((0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0"), "gain map left out"),
    ((0xE2, b"FPXR\0"), ""), ((0xEB, b"JP\0\0"), ""), ((0xE1, b""), ""),
])  # fmt: skip
def test_odd_segments_of_a_jpeg_do_not_stop_its_pixels(segment, words, small, tmp_path):
    compressed, _ = through(jpeg_with(small, tmp_path, segment), tmp_path / "out.png")
    assert words in compressed and ("left out" in compressed) == bool(words)
    image = codec.decompress((tmp_path / "out.lic").read_bytes())
    with Image.open(tmp_path / "plain.jpg") as plain:
        assert image.tobytes() == plain.tobytes() and image.info == {}


def test_a_profile_in_several_segments_is_put_together_by_its_numbers(small, tmp_path):
    whole = profile("RGB")
    pieces = [
        PIECE + bytes([number, 3]) + whole[100 * (number - 1) : 100 * number if number < 3 else None]
        for number in (1, 2, 3)
    ]
    source = jpeg_with(small, tmp_path, *((0xE2, pieces[number]) for number in (2, 0, 1)))
    through(source, tmp_path / "out.png")
    assert codec.decompress((tmp_path / "out.lic").read_bytes()).info == {"icc_profile": whole}


NAMES = (
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" '
    'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" '
    'xmlns:xmpNote="http://ns.adobe.com/xmp/note/"'
)
DIRECTORY = (
    "<Container:Directory><rdf:Seq>"
    '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/></rdf:li>'
    '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap" Item:Length="999"/></rdf:li>'
    "</rdf:Seq></Container:Directory>"
)


def packet(attributes: str, elements: str) -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF {NAMES}>\n<rdf:Description rdf:about=""{attributes}>\n'
        f" <dc:creator>Jürgen &amp; Söhne</dc:creator>{elements}\n</rdf:Description></rdf:RDF>"
        '</x:xmpmeta>\n<?xpacket end="w"?>'
    ).encode()


@pytest.mark.parametrize(("attributes", "elements", "kept", "words"), [
    (' hdrgm:Version="1.0"', DIRECTORY, "", "gain map left out"),
    ("", "<hdrgm:Version>1.0</hdrgm:Version><hdrgm:BaseRenditionIsHDR/>", "", "gain map left out"),
    (' hdrgm:Version = \'1.0\' dc:format="hdrgm:Version=&quot;1.0&quot; &gt;"', "",
     ' dc:format="hdrgm:Version=&quot;1.0&quot; &gt;"', "gain map left out"),
    (' GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="9" GCamera:Other="2"', "", ' GCamera:Other="2"',
     "video of a motion photo left out"),
    ("", DIRECTORY, "", "pictures behind this one left out"),
    (' xmpNote:HasExtendedXMP="0123456789ABCDEF0123456789ABCDEF"', "", "", "extended XMP left out"),
])  # fmt: skip
def test_xmp_does_not_claim_what_the_picture_has_no_more(attributes, elements, kept, words, small, tmp_path):
    source = save(small, tmp_path / "in.jpg", xmp=packet(attributes, elements))
    assert words in through(source, tmp_path / "out.jpg")[0]
    assert codec.decompress((tmp_path / "out.lic").read_bytes()).info["xmp"] == packet(kept, "")
    with Image.open(source) as image:
        assert codec.decompress(codec.compress(image, lossless=True)).info["xmp"] == packet(kept, "")
        assert codec.decompress(codec.compress(image, lossless=True, xmp=b"as given")).info["xmp"] == b"as given"


def test_xmp_without_claims_passes_byte_by_byte_parsable_or_not(small, tmp_path):
    for content in (packet("", "<dc:title>x</dc:title>"), b"<x", b"\xff\xfe<\0", packet("", "")[:-30]):
        content = content.replace(NAMES[NAMES.index("xmlns:hdrgm") :].encode(), b"")
        through(save(small, tmp_path / "in.jpg", xmp=content), tmp_path / "out.jpg")
        with Image.open(tmp_path / "out.jpg") as image:
            assert image.info["xmp"] == content


@pytest.mark.parametrize("content", [
    packet(' hdrgm:Version="1.0"', "")[:-40],
    b'<!DOCTYPE x [<!ENTITY a "b">]>' + packet(' hdrgm:Version="1.0"', "").partition(b"?>")[2],
    packet(' hdrgm:Version="1.0"', "").decode().encode("utf-16"),
])  # fmt: skip
def test_xmp_that_claims_and_cannot_be_parsed_is_left_out(content, small, tmp_path):
    words = through(save(small, tmp_path / "in.jpg", xmp=content), tmp_path / "out.jpg")[0]
    assert "XMP (it claims what the picture has no more, and cannot be parsed) left out" in words
    assert codec.decompress((tmp_path / "out.lic").read_bytes()).info == {}


def test_the_second_picture_of_a_phone_is_named(small, tmp_path):
    small.save(tmp_path / "in.jpg", "MPO", save_all=True, append_images=[small.resize((8, 8))])
    assert "pictures behind this one left out" in through(str(tmp_path / "in.jpg"), tmp_path / "out.png")[0]


def test_a_byte_order_mark_before_a_claim_moves_no_cut(small, tmp_path):
    for start in (b"\xef\xbb\xbf", b"\n\n "):
        content = start + packet(' hdrgm:Version="1.0"', DIRECTORY).partition(b"?>")[2]
        through(save(small, tmp_path / "in.jpg", xmp=content), tmp_path / "out.jpg")
        expected = start + packet("", "").partition(b"?>")[2]
        assert codec.decompress((tmp_path / "out.lic").read_bytes()).info["xmp"] == expected


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def test_metadata_of_a_jp2_comes_back(small, tmp_path):
    small.save(tmp_path / "in.jp2")
    data = (tmp_path / "in.jp2").read_bytes()
    start, old = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    old_length = int.from_bytes(data[old : old + 4], "big")
    inside = data[start + 8 : old] + box(b"colr", b"\2\0\0" + profile("RGB")) + data[old + old_length : start + length]
    more = box(b"uuid", b"JpgTiffExif->JP2" + camera("<")[6:])
    more += box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + PACKET)
    (tmp_path / "in.jp2").write_bytes(data[:start] + box(b"jp2h", inside) + more + data[start + length :])
    through(tmp_path / "in.jp2", tmp_path / "out.png")
    info = codec.decompress((tmp_path / "out.lic").read_bytes()).info
    assert info == {"exif": camera("<")[6:], "xmp": PACKET, "icc_profile": profile("RGB")}


def test_what_follows_the_end_of_a_png_is_not_of_it(small, tmp_path):
    source = Path(save(small, tmp_path / "in.png"))
    source.write_bytes(source.read_bytes() + png_file((b"tEXt", b"a\0b"), (b"eXIf", camera(">")[6:]))[8:])
    assert through(source, tmp_path / "out.png") == ("", "")


# ── hostile metadata ──


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_damage_within_metadata_never_stops_the_pixels(format, small, tmp_path, rng):
    small.info = {"exif": camera(">"), "xmp": packet(' hdrgm:Version="1.0"', DIRECTORY)}
    data = writing.image_bytes(small, format)
    contents = [small.info["xmp"], camera(">")[6:] if format != "TIFF" else "Jürgen Müller".encode()]
    spans = [(data.index(content), len(content)) for content in contents]
    (tmp_path / "in.img").write_bytes(data)
    expected = reading.read_image(str(tmp_path / "in.img")).tobytes()
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 8)):
            start, length = spans[rng.integers(len(spans))]
            damaged[rng.integers(start, start + length)] = rng.choice([0, 0x7F, 0xFF, rng.integers(256)])
        (tmp_path / "in.img").write_bytes(damaged)
        image = reading.read_image(str(tmp_path / "in.img"))
        assert image.tobytes() == expected
        again = to_pil(from_input(image, lossless=True))
        for target in ("PNG", "JPEG", "TIFF"):
            writing.image_bytes(again, target)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "AVIF", "JPEG2000"])
def test_damage_anywhere_leaves_metadata_or_none(format, small, rng):
    small.info = {
        "exif": camera("<"),
        "xmp": PACKET,
        "icc_profile": profile("RGB"),
        "cicp": (9, 16, 0, 1),
        "dpi": (300, 300),
    }
    data = writing.image_bytes(small, format)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 12)):
            damaged[place] = rng.choice([0, 1, 0x7F, 0xFF, rng.integers(256)])
        rest, found = embedding.taken(bytes(damaged[: rng.integers(len(data) // 3, len(data) + 1)]), lambda words: None)
        assert len(rest) <= len(data)
        assert sum(len(value) for value in found.values() if isinstance(value, bytes)) <= 4 * len(data)


def test_nothing_in_metadata_makes_work_without_end(small, tmp_path):
    """Repeated, endless or nested without need: each of these took minutes or gigabytes where it was read as it claims."""
    bomb = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**24))
    chunks = [(b"iTXt", bomb)] * 2000 + [(b"zTXt", b"Raw profile type %d\0\0" % n + bomb[22:]) for n in range(1000)]
    words, _ = through(png_with(small, tmp_path, *chunks), tmp_path / "out.png")
    assert words == "text left out" and len(codec.decompress((tmp_path / "out.lic").read_bytes()).info["xmp"]) == 2**24
    spaces = packet(' hdrgm:Version="1.0"' + " " * 30000, "")
    claims = packet("", '<hdrgm:Version>1.0</hdrgm:Version><dc:x a="\'>"/>' * 200)
    for content, expected in (
        (spaces, packet(" " * 30000, "")),
        (claims, packet("", '<dc:x a="\'>"/>' * 200)),
    ):
        through(save(small, tmp_path / "in.jpg", xmp=content), tmp_path / "out.jpg")
        assert codec.decompress((tmp_path / "out.lic").read_bytes()).info["xmp"] == expected
    segments = [(0xE1, b"Exif\0\0" + bytes(60000))] * 400
    assert (
        "EXIF (damaged, or too large) left out"
        in through(jpeg_with(small, tmp_path, *segments), tmp_path / "out.png")[0]
    )
    small.info["exif"] = camera(">")
    data = writing.image_bytes(small, "AVIF")
    place = data.index(b"iloc") + 8
    (tmp_path / "in.avif").write_bytes(data[:place] + b"\0\0" + b"\xff" * 6 + data[place + 8 :])
    with contextlib.suppress(codec.ImageError):
        reading.read_image(str(tmp_path / "in.avif"))


def test_an_image_opened_by_our_plugin_has_the_metadata_of_the_file(small, tmp_path):
    import codec.pillow_plugin

    small.info.update(exif=camera(">"), cicp=(9, 16, 0, 1), dpi=(300.0, 200.0), xmp=PACKET)
    (tmp_path / "a.lic").write_bytes(codec.compress(small, lossless=True))
    with Image.open(tmp_path / "a.lic") as image:
        assert {key: value for key, value in image.info.items() if key != "lossless"} == small.info
