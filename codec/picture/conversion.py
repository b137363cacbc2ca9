"""Any Pillow image as one that lossy coding takes: 8-bit gray or colour, with or without alpha."""

import io

import numpy as np
from PIL import Image, ImageCms

from ..errors import ImageError

CODED = ("L", "LA", "RGB", "RGBA")
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_INK_AND_LAB = ("CMYK", "LAB")  # what a profile then describes; beside YCbCr and HSV it describes the RGB they stand for
_STRIP = 512  # rows at once, even


def needed(image: Image.Image) -> str:
    """What `converted` does to an image, for people; empty if it does nothing."""
    if image.mode in CODED and "transparency" not in image.info:
        return ""
    source = "a transparent colour" if image.mode in CODED else image.mode
    profile = ""
    if image.mode in _INK_AND_LAB and image.info.get("icc_profile"):
        profile = " by its ICC profile" if _transform(image) else " without its ICC profile, which does not fit"
    return f"converted from {source} to {_target(image)}{profile}"


def converted(image: Image.Image) -> Image.Image:
    """The image in a mode of CODED; transparency becomes alpha. An image that is in such a mode is returned as it is.

    CMYK and LAB go to sRGB through the ICC profile, which is gone from the result's `info`: it describes the source. Without
    a profile, or with one that is damaged or of another space, they go as Pillow's `convert` has it, like all the others.
    ImageError for samples of more than 8 bits, and for a transparency or a palette that Pillow cannot apply.
    """
    if image.mode in DEEP:
        raise ImageError(
            f"samples of mode {image.mode}: lossy files hold 8 bits; convert with image.convert('L') after scaling them to "
            "0..255, or code without loss (lossless=True, --lossless)"
        )
    if image.mode == "F":
        raise ImageError("samples of mode F, floating point: convert them to integers, for lossy coding of 0..255 first")
    if image.mode in CODED and "transparency" not in image.info:
        return image
    try:
        transform = _transform(image)
        out = ImageCms.applyTransform(image, transform) if transform else image.convert(_target(image))
    except Exception as error:  # Pillow raises whatever the contents of `info` make it stumble over
        raise ImageError(f"mode {image.mode} cannot be converted to {_target(image)}: {error}") from error
    out.info = still_true(image)
    return out


def still_true(image: Image.Image) -> dict:
    """What `info` says beside transparency, of the image in a mode of CODED: a profile of ink or LAB not."""
    gone = ("transparency", "icc_profile") if image.mode in _INK_AND_LAB else ("transparency",)
    return {key: value for key, value in image.info.items() if key not in gone}


def _target(image: Image.Image) -> str:
    alpha = image.has_transparency_data or image.mode in ("La", "RGBa", "PA")
    gray = image.mode in ("1", "L", "LA", "La") or (image.mode == "P" and _is_gray(image))
    return ("L" if gray else "RGB") + ("A" if alpha else "")


def _is_gray(image: Image.Image) -> bool:
    """Whether a picture of mode P uses gray entries of its palette alone."""
    palette = image.getpalette("RGB") or []
    used = [palette[3 * index : 3 * index + 3] for index, count in enumerate(image.histogram()[:256]) if count]
    return all(len(set(entry)) == 1 for entry in used)


def _transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """To sRGB by the profile of an image of CMYK or LAB; None if it has none that does this."""
    profile = image.info.get("icc_profile")
    if image.mode not in _INK_AND_LAB or not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError):
        return None


def fill_hidden(pixels: np.ndarray) -> np.ndarray:
    """Colours under full transparency made cheap: H×W×2 or H×W×4 uint8, alpha last -> the same with other colours there.

    Each hidden pixel takes a mean of the visible ones around it, from a pyramid of halved pictures. Beside the result
    this takes less memory than the pixels.
    """
    if pixels[..., -1].all():
        return pixels
    height, width, channels = pixels.shape
    small = Image.new("LA" if channels == 2 else "RGBA", (-(-width // 2), -(-height // 2)))
    strips = [slice(top, min(top + _STRIP, height)) for top in range(0, height, _STRIP)]
    for rows in strips:
        strip = pixels[rows].copy()
        strip[..., -1] = np.where(strip[..., -1], 255, 0)
        small.paste(_halved(Image.fromarray(strip)), (0, rows.start // 2))
    small = _filled(small)
    out = pixels.copy()
    for rows in strips:
        box = (0, rows.start / 2, width / 2, rows.stop / 2)
        around = small.resize((width, rows.stop - rows.start), Image.Resampling.BILINEAR, box)
        around = np.asarray(around).reshape(rows.stop - rows.start, width, channels - 1)
        np.copyto(out[rows, :, :-1], around, where=out[rows, :, -1:] == 0)
    return out


def _filled(image: Image.Image) -> Image.Image:
    """An image of LA or RGBA with alpha 0 or 255 only -> without alpha, where that was 0 from coarser levels."""
    opaque, seen = image.convert(image.mode[:-1]), image.getchannel("A")
    if seen.getextrema()[0] or image.size == (1, 1):
        return opaque
    box = (0, 0, image.width / 2, image.height / 2)
    around = _filled(_halved(image)).resize(image.size, Image.Resampling.BILINEAR, box)
    around.paste(opaque, mask=seen)
    return around


def _halved(image: Image.Image) -> Image.Image:
    """Means of what is visible in squares of 2×2; alpha is 255 where there is any."""
    half = image.reduce(2)
    half.putalpha(half.getchannel("A").point(lambda alpha: 255 if alpha else 0))
    return half
