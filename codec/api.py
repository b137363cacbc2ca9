"""compress, decompress and inspect: pictures in memory on one side, the bytes of a file on the other."""

import math
import numbers
from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import container
from .container import Header, Tag
from .errors import UnsupportedError
from .image import Picture, check_size, from_input, join, split, to_pil
from .metrics import bpp

DEFAULT_QUALITY = 75.0
_METADATA = {Tag.ICC_PROFILE: "icc_profile", Tag.EXIF: "exif", Tag.XMP: "xmp"}


@dataclass(frozen=True)
class Info:
    """What `inspect` reports."""

    width: int  # pixels
    height: int  # pixels
    mode: str  # Pillow's name: L, LA, RGB, RGBA
    lossless: bool
    quality: float | None  # 0 to 100; None in lossless files
    model: str  # hex, the beginning of the SHA-256 of the model file that decodes it
    sections: dict[str, int]  # bytes of each part of the file, "header" first; they sum to `bytes`
    bytes: int
    bpp: float  # bits per pixel of the whole file


def compress(
    image: Image.Image | np.ndarray,
    quality: float = DEFAULT_QUALITY,
    *,
    lossless: bool = False,
    effort: int = 3,
    target_bytes: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    exif: bytes | None = None,
    icc_profile: bytes | None = None,
    xmp: bytes | None = None,
    device: str = "auto",
    threads: int = 0,
) -> bytes:
    """The compressed file.

    image: a PIL image of mode L, LA, RGB or RGBA, or a uint8 array H×W or H×W×1..4.
    quality: 0 to 100, continuous, higher is better; counted in hundredths. 100 is the best lossy point.
    effort: 1 to 9, higher is slower; the decoder is not affected.
    target_bytes, target_bpp (ceilings), target_psnr (a floor, in dB): one of them instead of a quality.
    exif, icc_profile, xmp: None takes them from the PIL image, b"" drops them.
    device: "auto", "cpu" or "cuda"; threads: 0 is all. Neither affects what can decode the file.

    ImageError for a picture that cannot be coded, TargetError for a target that no quality reaches, UnsupportedError for what this version does not offer yet;
    ValueError and TypeError for wrong arguments.
    """
    if not 0 <= _number("quality", quality) <= 100:
        raise ValueError(f"quality must be within 0 to 100, not {quality}")
    if _integer("effort", effort) not in range(1, 10):
        raise ValueError(f"effort must be within 1 to 9, not {effort}")
    _check_execution(device, threads)
    if target_bytes is not None:
        _integer("target_bytes", target_bytes)
    targets = {"target_bytes": target_bytes, "target_bpp": target_bpp, "target_psnr": target_psnr}
    wanted = [name for name, value in targets.items() if value is not None]
    for name in wanted:
        if not 0 < _number(name, targets[name]) < math.inf:
            raise ValueError(f"{name} must be a positive number, not {targets[name]}")
    others = {"lossless": lossless, "quality": quality != DEFAULT_QUALITY}
    chosen = wanted + [name for name, given in others.items() if given]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} exclude one another: give one")
    source = from_input(image, icc_profile=icc_profile, exif=exif, xmp=xmp)
    if lossless:
        raise UnsupportedError("lossless coding is not available in this version")

    from . import rate_control  # imports torch

    colour, alpha = split(source.pixels)
    height, width, _ = colour.shape
    sections = {}
    if alpha is not None:
        sections[Tag.ALPHA] = container.pack_alpha(alpha)
    for tag, name in _METADATA.items():
        if content := getattr(source, name):
            sections[tag] = container.pack_metadata(tag, content)

    def pack(model_id: bytes, hundredths: int, latents: bytes) -> bytes:
        header = Header("lossy", model_id, width, height, source.mode, hundredths)
        return container.pack(header, {Tag.LATENTS: latents, **sections})

    target = None
    if wanted:
        if target_bpp is not None:
            target_bytes = int(target_bpp * width * height / 8)
        target = rate_control.Target(bytes=target_bytes, psnr=target_psnr)
    return rate_control.encode(
        colour,
        pack,
        quality=None if wanted else round(float(quality) * 100),
        target=target,
        gray=source.mode.startswith("L"),
        effort=effort,
        device=device,
        threads=threads,
    )


def decompress(
    data: bytes, *, device: str = "auto", threads: int = 0, max_pixels: int | None = None
) -> Image.Image:
    """The picture as a PIL image of the mode that went in; ICC profile, EXIF and XMP are in its `info`.

    max_pixels: LimitError for a larger picture, before anything is allocated for it; None is 2^28.
    FormatError (among them TruncatedError) for a file that is not ours or is damaged, UnsupportedError for one that
    needs a newer version or another model; ValueError and TypeError for wrong arguments.
    """
    data = _bytes(data)
    _check_execution(device, threads)
    if max_pixels is not None and _integer("max_pixels", max_pixels) < 1:
        raise ValueError(f"max_pixels must be at least 1, not {max_pixels}")
    header, sections = container.unpack(data)
    check_size(header.width, header.height, max_pixels)
    if header.method == "lossless":
        raise UnsupportedError("a lossless file: this version does not decode them yet")
    metadata = {
        name: container.unpack_metadata(tag, sections[tag]) for tag, name in _METADATA.items() if tag in sections
    }
    alpha = None
    if header.has_alpha:
        alpha = container.unpack_alpha(sections[Tag.ALPHA], header.width, header.height)

    from . import lossy  # imports torch

    colour = lossy.decode(
        sections[Tag.LATENTS],
        width=header.width,
        height=header.height,
        quality=header.quality,
        model_id=header.model_id,
        device=device,
        threads=threads,
    )
    pixels = join(colour, alpha, gray=header.mode.startswith("L"))
    return to_pil(Picture(pixels, **metadata))


def inspect(data: bytes) -> Info:
    """What the header says; only the header and the length of `data` are looked at. Errors as `decompress`."""
    data = _bytes(data)
    header, sections = container.unpack(data)
    lengths = {tag.name.lower(): len(section) for tag, section in sections.items()}
    return Info(
        width=header.width,
        height=header.height,
        mode=header.mode,
        lossless=header.method == "lossless",
        quality=None if header.quality is None else header.quality / 100,
        model=header.model_id.hex(),
        sections={"header": len(data) - sum(lengths.values())} | lengths,
        bytes=len(data),
        bpp=bpp(len(data), header.width, header.height),
    )


def _number(name: str, value) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    return value


def _integer(name: str, value) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    return value


def _bytes(data) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be bytes, not {type(data).__name__}")
    return bytes(data)


def _check_execution(device: str, threads: int) -> None:
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f'device must be "auto", "cpu" or "cuda", not {device!r}')
    if _integer("threads", threads) < 0:
        raise ValueError(f"threads must be 0 (all) or more, not {threads}")
