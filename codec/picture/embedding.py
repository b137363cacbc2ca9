"""Metadata in and out of image files of other formats.

On the way in it is taken out of the file before Pillow sees that, so that no metadata stops a picture; on the way out
each format gets what it can hold. `remark` is told what does not come along.
"""

import io
from collections.abc import Callable
from dataclasses import fields

from PIL import Image, PngImagePlugin

from . import boxes, exif, icc, jpeg, png, tiff
from .metadata import MAX_BYTES, Metadata

Remark = Callable[[str], None]

_HELD = {  # format of Pillow's: what it can hold
    "PNG": ("icc_profile", "exif", "xmp", "cicp", "dpi"),
    "AVIF": ("icc_profile", "exif", "xmp", "cicp"),
    "WEBP": ("icc_profile", "exif", "xmp"),
    "JPEG": ("icc_profile", "exif", "xmp", "dpi"),
    "MPO": ("icc_profile", "exif", "xmp", "dpi"),
    "TIFF": ("icc_profile", "exif", "xmp", "dpi"),
    "BMP": ("dpi",),
}
_JPEGS = ("JPEG", "MPO")
_WORDS = {"icc_profile": "ICC profile", "exif": "EXIF", "xmp": "XMP", "cicp": "CICP", "dpi": "dots per inch"}
_SEGMENT = 65533  # bytes of a segment of JPEG
_LIMITS = {"exif": _SEGMENT, "xmp": _SEGMENT - 29, "icc_profile": 255 * (_SEGMENT - 14)}  # in JPEG
_UPRIGHT = {  # orientation: what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# ── in ──


def taken(data: bytes, remark: Remark) -> tuple[bytes, dict]:
    """An image file for Pillow, without its metadata if we read the format, and that metadata under Pillow's names."""
    found, lost = {}, []
    if data.startswith(png.SIGNATURE):
        data, found, lost = png.take(data, MAX_BYTES)
    elif data.startswith(b"\xff\xd8\xff"):
        data, found, lost = jpeg.take(data, MAX_BYTES)
    elif tiff.is_tiff(data):
        data, found, lost = tiff.take(data, MAX_BYTES)
    elif boxes.is_avif(data):
        data, found, lost = boxes.take_avif(data, MAX_BYTES)
    elif data.startswith(boxes.JP2_SIGNATURE):
        found = boxes.take_jp2(data, MAX_BYTES)
    if lost:
        remark(f"{', '.join(lost)} left out")
    return data, found


def put(image: Image.Image, found: dict, remark: Remark) -> None:
    """What `taken` has found into the `info` of the image, which is loaded."""
    info = image.info
    if image.format == "AVIF" and "exif" in found:
        # The file's own orientation goes before EXIF's; Pillow puts it into EXIF.
        wanted = exif.orientation(info.get("exif", b"")) or 1
        if (exif.orientation(found["exif"]) or 1) != wanted:
            try:
                found = found | {"exif": exif.with_orientation(found["exif"], wanted)}
            except ValueError:
                remark("EXIF left out: it cannot be read")
                found = {key: value for key, value in found.items() if key != "exif"}
    if image.format == "GIF" and info.get("comment"):
        remark("text left out")
    info.update(found)


# ── out ──


def as_shown(image: Image.Image, format: str) -> Image.Image:
    """The image as Pillow reads it from a file of `file_of`: upright, if it has no place for EXIF, or is a TIFF."""
    turned = exif.orientation(_found(image.info).exif) or 1
    kept = turned == 1 or "exif" in _HELD.get(format, ()) and format != "TIFF"
    return image if kept else image.transpose(_UPRIGHT[turned])


class _Block(Image.Exif):
    """EXIF for Pillow's writer of AVIF, which takes the orientation out of it and would write the rest anew."""

    def __init__(self, block: bytes):
        super().__init__()
        self.block = block
        if value := exif.orientation(block):
            self[exif.ORIENTATION] = value

    def __len__(self) -> int:
        return 1

    def tobytes(self, offset: int = 8) -> bytes:
        return self.block


def remark_loss(info: dict, remark: Remark) -> None:
    """The words for a file that holds samples alone, as they are."""
    found = _found(info)
    if (turned := exif.orientation(found.exif) or 1) > 1:
        remark(f"not turned upright: orientation {turned}")
    _remark_loss(found, (), "an array", remark)


def _found(info: dict) -> Metadata:
    return Metadata(**{field.name: value for field in fields(Metadata) if (value := info.get(field.name))})


def _remark_loss(found: Metadata, held: tuple[str, ...], where: str, remark: Remark) -> None:
    lost = {key: word for key, word in _WORDS.items() if getattr(found, key) and key not in held}
    if "exif" in lost and not exif.says_more_than(found.exif, exif.ORIENTATION, *exif.RESOLUTION):
        del lost["exif"]
    if "dpi" in lost and exif.has_resolution(found.exif):  # that is gone or kept together with EXIF
        del lost["dpi"]
    if lost:
        remark(f"{', '.join(lost.values())} left out: {where} has no place for that")


def file_of(image: Image.Image, format: str, options: dict, remark: Remark) -> bytes:
    """A file of a format of Pillow's with the metadata that it can hold, of the image's `info`; options: of Image.save.

    A picture whose orientation the format cannot say is turned upright. What Pillow's writers raise.
    """
    found, held = _found(image.info), _HELD.get(format, ())
    kept = {key: value for key in _WORDS if key in held and (value := getattr(found, key))}
    turned = exif.orientation(found.exif) or 1
    if "exif" not in held and turned > 1:
        image = image.transpose(_UPRIGHT[turned])
        remark("turned upright, as EXIF says")
    _remark_loss(found, held, format, remark)
    if format in _JPEGS:
        if "exif" in kept and not kept["exif"].startswith(exif.PREFIX):
            kept["exif"] = exif.PREFIX + kept["exif"]
        for key, limit in _LIMITS.items():
            if len(kept.get(key, b"")) > limit:
                size = len(kept.pop(key))
                remark(f"{_WORDS[key]} of {size} bytes left out: JPEG holds at most {limit}")
        if turned > 1 and "exif" not in kept:
            kept["exif"] = exif.of_orientation(turned)
    if "icc_profile" in kept and not icc.fits(kept["icc_profile"], gray=_is_gray_in(format, image.mode)):
        remark(f"ICC profile of {icc.space(kept.pop('icc_profile'))} left out: it does not fit the picture in {format}")
    dpi = kept.get("dpi")
    if dpi and not 1 <= min(dpi) <= max(dpi) <= 65535:  # which JPEG cannot say, and nobody means
        dpi = None
    # All by name, for what is not said Pillow takes from `info`.
    options = (
        options | {key: kept.get(key, b"") for key in ("icc_profile", "exif", "xmp")} | ({"dpi": dpi} if dpi else {})
    )
    if format == "PNG":
        options["pnginfo"] = _chunks(kept, remark)
    elif format == "AVIF" and "exif" in kept:
        if exif.is_readable(kept["exif"]):
            options["exif"] = _Block(kept["exif"])
        else:
            remark("EXIF left out: AVIF takes none that cannot be read")
            options["exif"] = b""
    elif format == "TIFF":
        for key in ("exif", "xmp", "dpi"):
            options.pop(key, None)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    data = buffer.getvalue()
    if format == "TIFF":
        data, lost = tiff.with_metadata(data, kept.get("exif", b""), kept.get("xmp", b""), dpi)
        if lost:
            remark(f"{', '.join(lost)} left out")
    elif format == "AVIF" and "cicp" in kept:
        coloured = boxes.with_colours(data, kept["cicp"])
        if coloured is None:
            remark("CICP left out: Pillow's AVIF has no place for it")
        data = coloured or data
    return data


def _chunks(kept: dict, remark: Remark) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    if "cicp" in kept:
        chunks.add(b"cICP", bytes(kept["cicp"]))
    if "xmp" in kept:
        try:
            kept["xmp"].decode("utf-8")
            chunks.add_itxt(png.XMP_KEYWORD, kept["xmp"])
        except UnicodeDecodeError:
            remark("XMP left out: PNG holds UTF-8 only")
    return chunks


def _is_gray_in(format: str, mode: str) -> bool:
    """Whether a picture of a gray mode is gray in a file of this format too, as Pillow writes it."""
    if not mode.startswith(("1", "L", "I")):
        return False
    buffer = io.BytesIO()
    Image.new(mode, (1, 1)).save(buffer, format)
    with Image.open(buffer) as image:
        return not image.mode.startswith(("RGB", "P"))
