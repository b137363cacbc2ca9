"""What EXIF says and how blocks of it are taken apart and made: dots per inch, the descriptive tags of a TIFF."""

from PIL import Image

# EXIF's words for dots per inch, which are kept there: files need no section of their own for it.
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _INCH, _CENTIMETRE = 0x011A, 0x011B, 0x0128, 2, 3
_CAMERA, _MAKER_NOTE, _THUMBNAIL = 0x8769, 0x927C, 1
# TIFF has no EXIF block: these of its own tags describe the picture and not the layout of the file.
_DESCRIPTIVE_TIFF_TAGS = (270, 271, 272, 305, 306, 315, 316, 33432)
_EXIF_DIRECTORIES = (0x8769, 0x8825)  # camera, GPS


def with_resolution(info: dict) -> dict:
    """The metadata of an image; `dpi` goes into EXIF that has no resolution, or becomes all of it.

    EXIF with notes of the camera's maker or a thumbnail is left as it is: Pillow would break those.
    """
    try:
        x, y = (float(value) for value in info.get("dpi", ()))
        exif = Image.Exif()
        exif.load(info.get("exif"))
        strange = info.get("exif") and not len(exif)
        left = strange or _X_RESOLUTION in exif or exif.get_ifd(_THUMBNAIL) or _MAKER_NOTE in exif.get_ifd(_CAMERA)
    except Exception:  # dpi and EXIF are anybody's, and this of their facts is a minor one
        return info
    if left or not (0 < x < 1e6 and 0 < y < 1e6):
        return info
    exif[_X_RESOLUTION], exif[_Y_RESOLUTION], exif[_RESOLUTION_UNIT] = x, y, _INCH
    return {**info, "exif": exif.tobytes()}


def resolution(exif: bytes) -> dict:
    """{"dpi": (x, y)} if EXIF has it."""
    tags = Image.Exif()
    try:
        tags.load(exif)
        x, y, unit = float(tags[_X_RESOLUTION]), float(tags[_Y_RESOLUTION]), tags.get(_RESOLUTION_UNIT, _INCH)
    except Exception:  # EXIF is anybody's bytes, and this of its facts is a minor one
        return {}
    factor = {_INCH: 1, _CENTIMETRE: 2.54}.get(unit, 0)
    return {"dpi": (x * factor, y * factor)} if 0 < x * factor < 1e6 and 0 < y * factor < 1e6 else {}


def exif_of_tiff(image: Image.Image) -> bytes:
    source, kept = image.getexif(), Image.Exif()
    for tag in _DESCRIPTIVE_TIFF_TAGS:
        if tag in source:
            kept[tag] = source[tag]
    for directory in _EXIF_DIRECTORIES:
        if entries := source.get_ifd(directory):
            kept.get_ifd(directory).update(entries)
    return kept.tobytes() if len(kept) or any(kept.get_ifd(directory) for directory in _EXIF_DIRECTORIES) else b""
