"""Any Pillow image as one that lossy coding takes: 8-bit gray or colour, with or without alpha."""

import io

import numpy as np
from PIL import Image, ImageCms

from .errors import ImageError

CODED = ("L", "LA", "RGB", "RGBA")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def needed(image: Image.Image) -> str:
    """What `converted` does to an image, for people; empty if it does nothing."""
    if image.mode in CODED and "transparency" not in image.info:
        return ""
    source = "a transparent colour" if image.mode in CODED else image.mode
    profile = " by its ICC profile" if _profile(image) else ""
    return f"converted from {source} to {_target(image)}{profile}"


def converted(image: Image.Image) -> Image.Image:
    """The image in a mode of CODED; transparency becomes alpha. An image that is in such a mode is returned as it is.

    CMYK, LAB and YCbCr go to sRGB through the ICC profile, which is gone from the result's `info`: it describes the source.
    Without a profile, or with one that is damaged or of another space, they go as Pillow's `convert` has it. ImageError
    for samples of more than 8 bits.
    """
    if image.mode in _DEEP:
        raise ImageError(
            f"samples of mode {image.mode}: lossy files hold 8 bits; convert with image.convert('L') after scaling them to "
            "0..255, or code without loss (lossless=True, --lossless)"
        )
    if image.mode in CODED and "transparency" not in image.info:
        return image
    if profile := _profile(image):
        try:
            srgb = ImageCms.createProfile("sRGB")
            out = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            out = image.convert("RGB")
    else:
        out = image.convert(_target(image))
    info = dict(image.info)
    info.pop("transparency", None)
    if image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        info.pop("icc_profile", None)
    out.info = info
    return out


def _target(image: Image.Image) -> str:
    alpha = image.has_transparency_data or image.mode in ("La", "RGBa", "PA")
    gray = image.mode in ("1", "L", "LA", "La")
    return ("L" if gray else "RGB") + ("A" if alpha else "")


def _profile(image: Image.Image) -> bytes | None:
    return image.info.get("icc_profile") if image.mode in ("CMYK", "LAB", "YCbCr") else None


def fill_hidden(pixels: np.ndarray) -> np.ndarray:
    """Colours under full transparency made cheap: H×W×2 or H×W×4 uint8, alpha last -> the same with other colours there.

    Each hidden pixel takes a mean of the visible ones around it, from a pyramid of halved pictures.
    """
    visible = pixels[..., -1] > 0
    if visible.all():
        return pixels
    colour = pixels[..., :-1].astype(np.float32)
    filled = _fill(colour * visible[..., None], visible.astype(np.float32))
    colour = np.where(visible[..., None], colour, filled).round().astype(np.uint8)
    return np.dstack([colour, pixels[..., -1]])


def _fill(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted sums H×W×C and weights H×W -> means everywhere; where there is no weight, those of coarser levels."""
    mean = total / np.maximum(weight, 1e-9)[..., None]
    if weight.min() > 0 or weight.size == 1:
        return mean
    coarse = _fill(_halved(total), _halved(weight[..., None])[..., 0])
    around = [
        Image.fromarray(np.ascontiguousarray(channel)).resize(weight.shape[::-1], Image.Resampling.BILINEAR)
        for channel in coarse.transpose(2, 0, 1)
    ]
    return np.where(weight[..., None] > 0, mean, np.dstack([np.asarray(channel) for channel in around]))


def _halved(x: np.ndarray) -> np.ndarray:
    """Sums of 2×2."""
    rows, columns = np.arange(0, x.shape[0], 2), np.arange(0, x.shape[1], 2)
    return np.add.reduceat(np.add.reduceat(x, rows, axis=0), columns, axis=1)
