"""What goes with a picture beside its pixels: from the `info` of an image, which may hold anything, and back into one.

    icc_profile, exif, xmp   bytes, under these names as Pillow has them
    cicp                     what the colours mean, in numbers of ITU-T H.273: primaries, transfer, matrix (0: RGB),
                             full range (0 or 1)
    dpi                      dots per inch, across and down

Nothing here stops a picture: what cannot be kept is left out, and `remark` is told.
"""

import numbers
from collections.abc import Callable
from dataclasses import dataclass, fields

from PIL import Image

from . import exif as exif_block
from . import icc
from .png import RAW_PROFILE, XMP_KEYWORD
from .xmp import without_claims

MAX_BYTES = 2**24  # of each: what a file of ours can hold
_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"  # in a profile of the kind APP1
_INVENTED = (72, 72)  # dots per inch: what Pillow says of a JPEG whose EXIF does not say it


@dataclass(frozen=True)
class Metadata:
    """Empty is absent."""

    icc_profile: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    cicp: tuple[int, int, int, int] | None = None
    dpi: tuple[float, float] | None = None  # only where `exif` does not say it

    def info(self) -> dict:
        """As the `info` of an image has it."""
        present = {field.name: value for field in fields(self) if (value := getattr(self, field.name))}
        dpi = self.dpi or exif_block.resolution(self.exif)
        return present | ({"dpi": dpi} if dpi else {})


def gathered(
    info: dict, mode: str, *, icc_profile: bytes | None = None, exif: bytes | None = None, xmp: bytes | None = None,
    remark: Callable[[str], None] = lambda words: None,
) -> Metadata:  # fmt: skip
    """The metadata of an image with this `info`, of which the pixels of `mode` are coded.

    What is given replaces what `info` has, b"" drops it: with the ICC profile goes CICP, with EXIF the dots per inch.
    """
    profiles = _raw_profiles(info, remark)
    gray = not mode.startswith(("RGB", "P"))
    cicp = None
    if icc_profile is None:
        icc_profile, cicp = (
            _bytes(info, "icc_profile", "ICC profile", remark) or profiles.get("icc_profile", b""),
            _cicp(info, remark),
        )
        if not icc_profile and cicp is None:
            icc_profile = _profile_of_numbers(info, gray, remark)
    if not icc.fits(icc_profile, gray=gray):
        remark(f"ICC profile of {icc.space(icc_profile)} left out, the picture is {'gray' if gray else 'RGB'}")
        icc_profile = b""
    if xmp is None:
        xmp = _bytes(info, "xmp", "XMP", remark) or _bytes(info, XMP_KEYWORD, "XMP", remark) or profiles.get("xmp", b"")
        xmp, lost = without_claims(xmp)
        if lost:
            remark(f"{', '.join(lost)} left out")
    dpi = None
    if exif != b"":
        if exif is None:
            exif = _bytes(info, "exif", "EXIF", remark) or profiles.get("exif", b"")
        dpi = _dpi(info, exif)
        if dpi and not exif:
            exif, dpi = exif_block.of_resolution(*dpi), None
    return Metadata(icc_profile, exif, xmp, cicp, dpi)


def _bytes(info: dict, key: str, word: str, remark: Callable[[str], None]) -> bytes:
    """Bytes of any kind, text, or an Exif of Pillow's; b"" for anything else and for more than MAX_BYTES."""
    value = info.get(key)
    if value is None:
        return b""
    if isinstance(value, Image.Exif):
        try:
            value = value.tobytes()
        except Exception:  # it holds anything, too
            remark(f"{word} left out: Pillow cannot write it")
            return b""
    if isinstance(value, str):
        try:
            value = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            remark(f"{word} left out: text that cannot be encoded")
            return b""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        remark(f"{word} left out: it is of type {type(value).__name__}")
        return b""
    size = value.nbytes if isinstance(value, memoryview) else len(value)
    if size > MAX_BYTES:
        remark(f"{word} of {size} bytes left out: at most {MAX_BYTES} are kept")
        return b""
    return bytes(value)


def _raw_profiles(info: dict, remark: Callable[[str], None]) -> dict[str, bytes]:
    """What ImageMagick writes into text chunks of a PNG, in hex digits under a name and a length."""
    found: dict[str, bytes] = {}
    for key in [key for key in info if isinstance(key, str) and key.startswith(RAW_PROFILE)]:
        kind, value = key.removeprefix(RAW_PROFILE).lower(), info[key]
        if kind in ("iptc", "8bim"):
            remark("IPTC left out")
            continue
        try:
            if not isinstance(value, str) or len(value) > 3 * MAX_BYTES:
                raise ValueError
            _, _, length, digits = value.split("\n", 3)
            content = bytes.fromhex(digits)
            if len(content) != int(length) or len(content) > MAX_BYTES:
                raise ValueError
        except ValueError:
            remark(f"{key} left out: it cannot be read")
            continue
        if kind in ("exif", "app1") and content.startswith(exif_block.PREFIX):
            found["exif"] = content
        elif kind == "exif":
            found["exif"] = exif_block.PREFIX + content
        elif kind == "app1" and content.startswith(_XMP_PREFIX):
            found["xmp"] = content.removeprefix(_XMP_PREFIX)
        elif kind == "xmp":
            found["xmp"] = content
        elif kind in ("icc", "icm"):
            found["icc_profile"] = content
        else:
            remark(f"{key} left out")
    return found


def _cicp(info: dict, remark: Callable[[str], None]) -> tuple[int, int, int, int] | None:
    value = info.get("cicp")
    if value is None:
        return None
    try:
        primaries, transfer, matrix, full_range = value
        known = primaries in range(256) and transfer in range(256) and matrix == 0 and full_range in (0, 1)
    except Exception:  # it is anything
        known = False
    if not known:
        remark("cicp left out: it is not four numbers of RGB")
        return None
    return int(primaries), int(transfer), 0, int(full_range)


def _profile_of_numbers(info: dict, gray: bool, remark: Callable[[str], None]) -> bytes:
    """An ICC profile in place of gAMA and cHRM of a PNG, unless they say sRGB."""
    if "srgb" in info or not {"gamma", "chromaticity"} & set(info):
        return b""
    try:
        gamma, chromaticity = info.get("gamma"), info.get("chromaticity")
        if gamma is not None:
            if not isinstance(gamma, numbers.Real):
                raise ValueError("not a number")
            gamma = float(gamma)
        if chromaticity is not None:
            if not isinstance(chromaticity, (tuple, list)) or len(chromaticity) != 8:
                raise ValueError("not x and y of white, red, green and blue")
            chromaticity = tuple(float(value) for value in chromaticity)
        if icc.is_srgb(gamma, chromaticity):
            return b""
        profile = icc.profile(gamma, chromaticity, gray=gray)
    except Exception:  # anything, too
        remark("gAMA and cHRM left out: no colours have these numbers")
        return b""
    remark("gAMA and cHRM became an ICC profile")
    return profile


def _dpi(info: dict, exif: bytes) -> tuple[float, float] | None:
    """Dots per inch that `info` has and EXIF has not."""
    value = info.get("dpi")
    if value is None or exif_block.has_resolution(exif):
        return None
    if exif and value == _INVENTED and info.get("jfif_unit") not in (1, 2):
        return None
    try:
        x, y = value
        if not all(isinstance(one, numbers.Real) for one in (x, y)):
            return None
        return exif_block.plausible_resolution(float(x), float(y))
    except Exception:  # this of a picture's facts is a minor one
        return None
