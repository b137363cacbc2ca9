"""Samples of every layout: right, or refused with one line; never others. Each row of docs/INPUTS.md, "Cases tried"."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from pictures import png
from PIL import Image

from codec.errors import CodecError, ImageError
from codec.picture import samples
from codec.picture.picture import from_input
from codec.picture.reading import read_image

tifffile = pytest.importorskip("tifffile")
SIZE = (21, 37)  # rows, columns: odd, and more than one tile of 16


def read(data: bytes, path, *, exact: bool = True) -> tuple[np.ndarray, list[str]]:
    """The samples of a file that is read, H×W×C, and what is said; ImageError if it is refused, and then in one line."""
    path.write_bytes(data)
    remarks: list[str] = []
    try:
        image = read_image(str(path), exact=exact, remark=remarks.append)
        return from_input(image, lossless=exact).pixels, remarks
    except CodecError as error:
        assert type(error) is ImageError and "\n" not in str(error) and len(str(error)) > 15
        raise


def tiff_of(array: np.ndarray, **options) -> bytes:
    """By tifffile; the array is H×W or H×W×C, whatever `planarconfig`."""
    if options.get("planarconfig") == "separate":
        array = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **options)
    return buffer.getvalue()


def tiff(tags: dict[int, tuple[str, tuple]], data: bytes, order: str = "<") -> bytes:
    """Byte by byte: tag -> (type, "H" or "I", and the values); the data stand at offset 8."""
    place = 8 + len(data) + len(data) % 2
    head, behind = b"", b""
    for tag, (type, values) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}{type}", *values)
        if len(content) > 4:
            pointer = struct.pack(order + "I", place + 2 + 12 * len(tags) + 4 + len(behind))
            content, behind = pointer, behind + content
        head += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[type], len(values)) + content.ljust(4, b"\0")
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", place)
    return start + data.ljust(place - 8, b"\0") + struct.pack(order + "H", len(tags)) + head + bytes(4) + behind


def gray(pixels: bytes, width: int, height: int, **changed) -> bytes:
    """A TIFF of 8-bit gray in one strip, with other tags, or without those that are None."""
    tags = {
        "t256": ("H", (width,)), "t257": ("H", (height,)), "t258": ("H", (8,)), "t259": ("H", (1,)), "t262": ("H", (1,)),
        "t273": ("I", (8,)), "t277": ("H", (1,)), "t278": ("H", (height,)), "t279": ("I", (len(pixels),)),
    } | changed  # fmt: skip
    return tiff({int(tag[1:]): value for tag, value in tags.items() if value}, pixels)


GRID = list(itertools.product([None, "zlib"], [None, (16, 16)], "<>", ["contig", "separate"]))
KINDS = [  # photometric, samples, extra samples
    ("minisblack", 1, None), ("miniswhite", 1, None), ("minisblack", 2, ["unassalpha"]),
    ("minisblack", 2, ["unspecified"]), ("rgb", 3, None), ("rgb", 4, ["unassalpha"]), ("rgb", 4, ["unspecified"]), ("rgb", 4, ["assocalpha"]),
    ("rgb", 5, ["unassalpha", "unspecified"]), ("rgb", 5, ["unspecified", "unspecified"]), ("separated", 4, None),
    ("separated", 5, ["unspecified"]), ("cielab", 3, None),
]  # fmt: skip
TYPES = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("compression, tile, order, planes", GRID)
def test_a_tiff_is_read_to_the_last_sample_or_refused(dtype, compression, tile, order, planes, rng, tmp_path):
    right = 0
    for photometric, count, extra in KINDS:
        if count == 1 and planes == "separate":
            continue
        limits = np.iinfo(dtype)
        array = rng.integers(limits.min, limits.max, (*SIZE, count), dtype, endpoint=True)
        if dtype in (np.uint32, np.int16, np.int32):
            array = np.abs(array // 2**15) if array.itemsize == 4 else np.abs(array // 2)  # within 0 to 65535
        data = tiff_of(
            array[..., 0] if count == 1 else array, byteorder=order, compression=compression, tile=tile,
            photometric=photometric, planarconfig=planes, extrasamples=extra,
        )  # fmt: skip
        try:
            pixels, _ = read(data, tmp_path / "in.tif")
        except ImageError:
            continue
        expected = limits.max - array if photometric == "miniswhite" else array
        assert np.array_equal(pixels, expected), (photometric, count, extra)
        right += 1
    plain = {np.uint8: 4 if planes == "contig" else 2, np.uint16: 3 if planes == "contig" else 2}
    assert right >= plain.get(dtype, 0) - (dtype is np.uint16) * (order == ">")


@pytest.mark.parametrize("compression, tile, order, planes", GRID)
def test_what_lossy_coding_leaves_out_of_a_tiff_is_said(compression, tile, order, planes, rng, tmp_path):
    """8 bits a sample: the colours are those of the file, without extra samples, or it is refused."""
    for photometric, count, extra in KINDS:
        if count == 1 and planes == "separate" or photometric in ("separated", "cielab"):
            continue
        array = rng.integers(0, 256, (*SIZE, count), np.uint8)
        if "assocalpha" in (extra or ()) or "unassalpha" in (extra or ()):
            array[..., count - len(extra)] = 255
        data = tiff_of(
            array[..., 0] if count == 1 else array, byteorder=order, compression=compression, tile=tile,
            photometric=photometric, planarconfig=planes, extrasamples=extra,
        )  # fmt: skip
        try:
            pixels, remarks = read(data, tmp_path / "in.tif", exact=False)
        except ImageError:
            continue
        expected = 255 - array if photometric == "miniswhite" else array
        assert np.array_equal(pixels, expected[..., : pixels.shape[2]]), (photometric, count, extra)
        assert ("left out" in " ".join(remarks)) == (pixels.shape[2] < count), (photometric, count, extra, remarks)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("order", "<>")
def test_uncompressed_planes_of_sixteen_bits_are_read_by_the_other_reader(tile, order, rng, tmp_path):
    pytest.importorskip("imagecodecs")
    array = rng.integers(0, 2**16, (*SIZE, 3), np.uint16)
    data = tiff_of(array, photometric="rgb", planarconfig="separate", tile=tile, byteorder=order)
    assert np.array_equal(read(data, tmp_path / "in.tif")[0], array)
    with pytest.raises(ImageError, match="samples of 16 bits"):
        read(data, tmp_path / "in.tif", exact=False)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_sixteen_bits_of_which_zero_is_white_are_no_negative(compression, tile, tmp_path):
    ramp = np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE)
    data = tiff_of(ramp, photometric="miniswhite", compression=compression, tile=tile)
    assert np.array_equal(read(data, tmp_path / "in.tif")[0][..., 0], 65535 - ramp)


@pytest.mark.parametrize("dtype, extra, words", [
    (np.uint8, ["unspecified"], "1 extra sample a pixel"), (np.uint8, ["unspecified"] * 2, "2 extra samples a pixel"),
    (np.uint8, ["assocalpha"], "alpha has been multiplied into"), (np.uint16, ["unspecified"], "1 extra sample"),
    (np.uint8, ["unassalpha", "unspecified"], "1 extra sample a pixel"),
])  # fmt: skip
def test_extra_samples_are_not_dropped_without_loss(dtype, extra, words, tmp_path):
    data = tiff_of(np.full((8, 8, 3 + len(extra)), 100, dtype), photometric="rgb", extrasamples=extra)
    with pytest.raises(ImageError, match=words):
        read(data, tmp_path / "in.tif")


def test_signed_samples_are_no_unsigned_ones(tmp_path):
    with pytest.raises(ImageError, match="samples of 8 bits with a sign"):
        read(tiff_of(np.array([[-1, 1]], np.int8)), tmp_path / "in.tif")
    pixels, _ = read(tiff_of(np.array([[0, 32767]], np.int16)), tmp_path / "in.tif")
    assert pixels.ravel().tolist() == [0, 32767]
    with pytest.raises(ImageError, match="samples from -5 to 7"):
        read(tiff_of(np.array([[-5, 7]], np.int16)), tmp_path / "in.tif")


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_few_bits_are_spread_over_all_levels(bits, white_is_zero, compressed, rng, tmp_path):
    values = rng.integers(0, 2**bits, (5, 13))
    digits = ["".join(format(value, f"0{bits}b") for value in row) for row in values]
    data = b"".join(int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big") for row in digits)
    data = zlib.compress(data) if compressed else data
    source = gray(
        data, 13, 5, t258=("H", (bits,)), t259=("H", (8 if compressed else 1,)), t262=("H", (1 - white_is_zero,))
    )
    expected = values if not white_is_zero else 2**bits - 1 - values
    pixels = read(source, tmp_path / "in.tif")[0][..., 0]
    assert np.array_equal(pixels * (1 if bits > 1 else 255), expected * (255 // (2**bits - 1)))


@pytest.mark.parametrize("width", [12, 13])
def test_twelve_bits_are_kept_as_the_same_numbers_and_this_is_said(width, rng, tmp_path):
    values = rng.integers(0, 4096, (5, width))
    digits = ["".join(format(value, "012b") for value in row) for row in values]
    data = b"".join(int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big") for row in digits)
    pixels, remarks = read(gray(data, width, 5, t258=("H", (12,))), tmp_path / "in.tif")
    assert np.array_equal(pixels[..., 0], values) and remarks == ["samples of 12 bits kept as the same numbers of 16 bits"]


def palette_tiff(colours: list[int], **changed) -> bytes:
    return gray(bytes(range(4)), 4, 1, t262=("H", (3,)), t320=("H", tuple(colours)), **changed)


def test_a_palette_of_sixteen_bits_is_not_cut(tmp_path):
    even = [entry * 257 for entry in range(256)] * 3
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(palette_tiff(even))).convert("L"))[0], range(4))
    assert read(palette_tiff(even), tmp_path / "in.tif")[0].ravel().tolist() == [0, 1, 2, 3]
    odd = palette_tiff([entry * 255 for entry in range(256)] * 3)
    with pytest.raises(ImageError, match="entries of 16 bits"):
        read(odd, tmp_path / "in.tif")
    read(odd, tmp_path / "in.tif", exact=False)


def test_a_palette_that_was_written_in_eight_bits_is_not_black(tmp_path):
    data = palette_tiff([255 - entry for entry in range(256)] * 3)
    pixels, remarks = read(data, tmp_path / "in.tif", exact=False)
    assert pixels.ravel().tolist() == [255, 254, 253, 252] and "for 8 bits" in remarks[0]


def test_a_palette_of_the_wrong_length_is_refused(tmp_path):
    with pytest.raises(ImageError, match="a palette of 30 numbers"):
        read(palette_tiff([0] * 30), tmp_path / "in.tif")


@pytest.mark.parametrize("changed, words", [
    ({"t262": None}, "does not say what its samples mean"),
    ({"t278": ("H", (2,))}, "1 strips or tiles where there should be 3"),
    ({"t273": ("I", (0,))}, "0 strips or tiles where there should be 1"),
    ({"t279": ("I", (20,))}, "of 20 bytes, where the picture takes 30"),
    ({"t273": ("I", (8, 8)), "t279": ("I", (30, 30))}, "2 strips or tiles where there should be 1"),
    ({"t32997": ("H", (4,))}, "a TIFF of 4 pictures, one behind the other"),
    ({"t254": ("I", (1,)), "t330": ("I", (8,))}, "a smaller version of another one"),
    ({"t262": ("H", (0,)), "t284": ("H", (2,))}, "planes of their own"),
    ({"t266": ("H", (2,)), "t284": ("H", (2,))}, "planes of their own"),
    ({"t262": ("H", (6,))}, "YCbCr"),
])  # fmt: skip
def test_a_tiff_that_pillow_would_read_as_another_picture_is_refused(changed, words, tmp_path):
    assert np.array_equal(read(gray(bytes(range(30)), 6, 5), tmp_path / "in.tif")[0].ravel(), range(30))
    source = gray(bytes(range(30)), 6, 5, **changed)
    for exact in (True, False):
        with pytest.raises(ImageError, match=words):
            read(source, tmp_path / "in.tif", exact=exact)


@pytest.mark.parametrize("changed, refused", [
    ({}, False), ({530: ("H", (2, 2))}, True), ({530: None}, True), ({532: ("I", (15, 235, 128, 240, 128, 240))}, True),
    ({284: ("H", (2,)), 273: ("I", (8, 8, 8)), 279: ("I", (4, 4, 4))}, True), ({530: ("H", (2, 1))}, True),
])  # fmt: skip
def test_ycbcr_that_is_not_as_jpeg_has_it_is_refused(changed, refused, tmp_path):
    tags = {
        256: ("H", (2,)), 257: ("H", (2,)), 258: ("H", (8, 8, 8)), 259: ("H", (1,)), 262: ("H", (6,)), 273: ("I", (8,)),
        277: ("H", (3,)), 278: ("H", (2,)), 279: ("I", (12,)), 530: ("H", (1, 1)),
    } | changed  # fmt: skip
    data = tiff({tag: value for tag, value in tags.items() if value}, bytes([100, 128, 128] * 4))
    if refused or Image.open(io.BytesIO(data)).mode == "RGB":  # older versions of Pillow
        with pytest.raises(ImageError, match="YCbCr other than JPEG's"):
            read(data, tmp_path / "in.tif", exact=False)
    else:
        assert read(data, tmp_path / "in.tif", exact=False)[0].ravel().tolist() == [100] * 12


def test_inks_that_are_not_those_of_print_are_refused(tmp_path):
    data = tiff_of(np.zeros((4, 4, 4), np.uint8), photometric="separated", extratags=[(332, 3, 1, 2, True)])
    with pytest.raises(ImageError, match="inks other than"):
        read(data, tmp_path / "in.tif", exact=False)


# ── other formats ──


@pytest.mark.parametrize("largest, exact_is_right", [
    (1, True), (15, True), (51, True), (100, False), (254, False), (255, True),
])  # fmt: skip
@pytest.mark.parametrize("plain", [False, True])
def test_levels_of_a_pgm_that_do_not_spread_evenly_are_no_exact_picture(largest, exact_is_right, plain, tmp_path):
    values = [0, largest // 2, largest]
    body = " ".join(map(str, values)).encode() if plain else bytes(values)
    data = b"%s 3 1 %d\n" % (b"P2" if plain else b"P5", largest) + body
    if exact_is_right:
        assert read(data, tmp_path / "in.pgm")[0].ravel().tolist() == [value * 255 // largest for value in values]
    else:
        with pytest.raises(ImageError, match=f"samples of 0 to {largest}"):
            read(data, tmp_path / "in.pgm")
    assert read(data, tmp_path / "in.pgm", exact=False)[0].max() == 255


@pytest.mark.parametrize("largest, exact_is_right", [(4095, True), (1023, False), (65535, True), (40000, False)])
def test_deep_levels_of_a_pgm(largest, exact_is_right, tmp_path):
    data = b"P5 2 1 %d\n" % largest + np.array([1, largest], ">u2").tobytes()
    if exact_is_right and 65535 % largest == 0:
        assert read(data, tmp_path / "in.pgm")[0].ravel().tolist() == [65535 // largest, 65535]
    else:
        with pytest.raises(ImageError, match=f"samples of 0 to {largest}"):
            read(data, tmp_path / "in.pgm")


def dds(fourcc: bytes, *, dxgi: int = 0, caps: int = 0, depth: int = 0, length: int = 1, cube: int = 0) -> bytes:
    """A texture of 4×4 black pixels."""
    header = struct.pack("<7I44x", 124, 0x1007, 4, 4, 0, depth, 0) + struct.pack("<2I4s20x", 32, 4, fourcc)
    more = struct.pack("<5I", dxgi, 3, cube, length, 0) if fourcc == b"DX10" else b""
    return b"DDS " + header + struct.pack("<5I", 0x1000, caps, 0, 0, 0) + more + bytes(16 * 6)


@pytest.mark.parametrize("data, words", [
    (dds(b"DX10", dxgi=95), r"high dynamic range \(BC6H\)"), (dds(b"DX10", dxgi=96), r"high dynamic range \(BC6HS\)"),
    (dds(b"DX10", dxgi=84), r"a texture with a sign"), (dds(b"BC5S"), r"a texture with a sign"),
    (dds(b"DXT1", caps=0xFE00), "6 frames"), (dds(b"DXT1", caps=0x200000, depth=5), "5 frames"),
    (dds(b"DX10", dxgi=71, length=3), "3 frames"), (dds(b"DX10", dxgi=71, cube=4), "6 frames"),
])  # fmt: skip
def test_textures_that_are_more_than_a_picture_of_levels_are_refused(data, words, tmp_path):
    for exact in (True, False):
        with pytest.raises(ImageError, match=words):
            read(data, tmp_path / "in.dds", exact=exact)


def test_textures_that_are_pictures_are_read(tmp_path):
    for data in (dds(b"DXT1"), dds(b"DXT5"), dds(b"DX10", dxgi=71), dds(b"DX10", dxgi=98)):
        assert read(data, tmp_path / "in.dds")[0].shape == (4, 4, 4)


def test_a_texture_of_ten_bits_a_sample_is_not_cut(tmp_path):
    masks = (0x3FF00000, 0xFFC00, 0x3FF)
    header = struct.pack("<7I44x", 124, 0x1007, 2, 2, 8, 0, 0) + struct.pack("<8I", 32, 0x40, 0, 32, *masks, 0)
    with pytest.raises(ImageError, match="samples of 10 bits"):
        read(b"DDS " + header + struct.pack("<5I", 0x1000, 0, 0, 0, 0) + bytes(16), tmp_path / "in.dds")


def jpeg2000(array: np.ndarray, **options) -> bytes:
    return pytest.importorskip("imagecodecs").jpeg2k_encode(array, level=0, reversible=True, **options)


@pytest.mark.parametrize("codecformat", ["jp2", "j2k"])
@pytest.mark.parametrize("dtype, bits, words", [
    (np.uint8, 8, ""), (np.uint16, 16, ""), (np.int8, 8, "with a sign"), (np.int16, 16, "with a sign"),
    (np.uint16, 12, "samples of 12 bits"), (np.uint8, 4, "samples of 4 bits"), (np.uint8, 1, "samples of 1 bits"),
])  # fmt: skip
def test_gray_jpeg_2000_is_read_as_it_stands_or_refused(codecformat, dtype, bits, words, rng, tmp_path):
    array = rng.integers(0, 2 ** (bits - (np.dtype(dtype).kind == "i")), (16, 16)).astype(dtype)
    data = jpeg2000(array, codecformat=codecformat, bitspersample=bits)
    if words:
        with pytest.raises(ImageError, match=words):
            read(data, tmp_path / "in.jp2")
    else:
        assert np.array_equal(read(data, tmp_path / "in.jp2")[0][..., 0], array)


def changed(data: bytes, box: bytes, content: bytes, offset: int = 0) -> bytes:
    place = data.index(box) + 4 + offset
    return data[:place] + content + data[place + len(content) :]


def test_colours_of_jpeg_2000_that_pillow_would_take_for_srgb_are_refused(rng, tmp_path):
    data = jpeg2000(rng.integers(0, 256, (16, 16, 3), np.uint8), codecformat="jp2")
    assert read(data, tmp_path / "in.jp2")[0].shape == (16, 16, 3)
    with pytest.raises(ImageError, match="colour space 14"):
        read(changed(data, b"colr", b"\1\0\0\0\0\0\x0e"), tmp_path / "in.jp2")
    size = data.index(b"\xff\x4f\xff\x51") + 42
    with pytest.raises(ImageError, match="components of different kinds"):
        read(data[: size + 4] + b"\2\2" + data[size + 6 :], tmp_path / "in.jp2")


def with_box(data: bytes, type: bytes, content: bytes) -> bytes:
    """A JP2 with one box more in its header."""
    start = data.index(b"jp2h") - 4
    end = start + int.from_bytes(data[start : start + 4], "big")
    box = struct.pack(">I", 8 + len(content)) + type + content
    return data[:start] + struct.pack(">I", end - start + len(box)) + data[start + 4 : end] + box + data[end:]


@pytest.mark.parametrize("words, components, type, content", [
    ("", 4, b"cdef", struct.pack(">13H", 4, 0, 0, 1, 1, 0, 2, 2, 0, 3, 3, 1, 0)),
    ("alpha has been multiplied into", 4, b"cdef", struct.pack(">13H", 4, 0, 0, 1, 1, 0, 2, 2, 0, 3, 3, 2, 0)),
    ("components in another order", 3, b"cdef", struct.pack(">10H", 3, 0, 0, 3, 1, 0, 2, 2, 0, 1)),
    ("a palette in JPEG 2000", 1, b"pclr", struct.pack(">HB3B6B", 2, 3, 7, 7, 7, 1, 2, 3, 1, 2, 3)),
])  # fmt: skip
def test_components_of_jpeg_2000_that_are_not_what_pillow_takes_them_for_are_refused(
    words, components, type, content, rng, tmp_path
):
    shape = (16, 16, components) if components > 1 else (16, 16)
    array = rng.integers(0, 2 if type == b"pclr" else 256, shape, np.uint8)
    data = jpeg2000(array, codecformat="jp2")
    if type == b"pclr":  # Pillow does not look at it beside the space of gray: there is none then
        data = with_box(changed(data, b"colr", b"\1\0\0\0\0\0\x10"), type, content)
    else:
        data = with_box(data.replace(b"cdef", b"free"), type, content)
    if words:
        with pytest.raises(ImageError, match=words):
            read(data, tmp_path / "in.jp2")
    else:
        assert np.array_equal(read(data, tmp_path / "in.jp2")[0], array)


def psd(channels: int, mode: int, resources: bytes = b"") -> bytes:
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, channels, 2, 2, 8, mode)
    resources = struct.pack(">I", len(resources)) + resources
    return header + bytes(4) + resources + bytes(6) + bytes(range(4 * channels))


@pytest.mark.parametrize("channels, mode, words", [
    (5, 3, "2 extra channels"), (3, 1, "2 extra channels"), (3, 7, "3 channels that are no colours"),
    (1, 8, "inks of a duotone"),
])  # fmt: skip
def test_channels_of_photoshop_are_not_dropped_without_loss(channels, mode, words, tmp_path):
    with pytest.raises(ImageError, match=words):
        read(psd(channels, mode), tmp_path / "in.psd")
    if mode != 7:
        assert any(words in remark for remark in read(psd(channels, mode), tmp_path / "in.psd", exact=False)[1])
    assert read(psd(3, 3), tmp_path / "in.psd")[0].ravel().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


def test_layers_without_a_picture_of_them_are_refused(tmp_path):
    for real in (0, 1):
        source = psd(3, 3, b"8BIM" + struct.pack(">HHI", 1057, 0, 6) + struct.pack(">IBx", 1, real))
        if real:
            read(source, tmp_path / "in.psd")
        else:
            with pytest.raises(ImageError, match="layers without a picture"):
                read(source, tmp_path / "in.psd")


def test_the_largest_of_several_icons_is_read_and_this_is_said(tmp_path):
    for suffix, sizes in (("ico", [(16, 16), (32, 32), (48, 48)]), ("icns", None)):
        buffer = io.BytesIO()
        options = {"sizes": sizes} if sizes else {}
        Image.new("RGBA", (48, 48), (200, 100, 50, 255)).save(buffer, suffix.upper(), **options)
        pixels, remarks = read(buffer.getvalue(), tmp_path / f"in.{suffix}")
        assert pixels.shape[:2] == ((48, 48) if sizes else (1024, 1024)) and "the largest of" in remarks[0]


def test_an_icon_of_sixteen_bits_is_not_cut(rng, tmp_path):
    picture = png(rng.integers(0, 2**16, (16, 16, 3)).astype(">u2"))
    entry = struct.pack("<4B2H2I", 16, 16, 0, 0, 1, 48, len(picture), 22)
    with pytest.raises(ImageError, match="samples of 16 bits"):
        read(struct.pack("<3H", 0, 1, 1) + entry + picture, tmp_path / "in.ico")


def test_a_gain_map_of_an_avif_is_left_out_with_a_word():
    buffer, remarks = io.BytesIO(), []
    Image.new("RGB", (16, 16), (1, 2, 3)).save(buffer, "AVIF")
    data = buffer.getvalue()
    with Image.open(buffer) as image:
        assert samples.bits(image, data, exact=False, remark=remarks.append) == 8 and not remarks
        samples.bits(image, data.replace(b"MA1B", b"tmap", 1), exact=False, remark=remarks.append)
    assert remarks == ["gain map left out"]


def test_a_targa_whose_fourth_sample_is_not_alpha_is_no_invisible_picture(rng, tmp_path):
    array = rng.integers(0, 256, (3, 5, 4), np.uint8)
    array[..., 3] = 0
    header = struct.pack("<3B5x4H2B", 0, 0, 2, 0, 0, 5, 3, 32, 0x20)
    for exact in (True, False):
        pixels, remarks = read(header + array[..., [2, 1, 0, 3]].tobytes(), tmp_path / "in.tga", exact=exact)
        assert np.array_equal(pixels, array[..., :3]) and "not call alpha" in remarks[0]
    pixels, remarks = read(header[:-1] + b"\x28" + array[..., [2, 1, 0, 3]].tobytes(), tmp_path / "in.tga")
    assert np.array_equal(pixels, array) and not remarks


@pytest.mark.parametrize("suffix, data", [
    ("fits", b"".join(card.ljust(80) for card in (
        b"SIMPLE  =                    T", b"BITPIX  =                   16", b"NAXIS   =                    2",
        b"NAXIS1  =                    4", b"NAXIS2  =                    4", b"END")).ljust(2880) + bytes(2880)),
    ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"),
])  # fmt: skip
def test_formats_that_hold_no_levels_are_refused(suffix, data, tmp_path):
    (tmp_path / f"in.{suffix}").write_bytes(data)
    with Image.open(tmp_path / f"in.{suffix}") as image:
        assert image.format == suffix.upper()
    with pytest.raises(ImageError, match=f"files of the format {suffix.upper()} are not read"):
        read(data, tmp_path / f"in.{suffix}")
