"""compress, decompress and inspect: pictures in memory on one side, the bytes of a file on the other."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from . import container, planes
from .container import Header, Tag
from .errors import CodecError, FormatError, ImageError, RegionError, TargetError
from .metrics import PSNR, SSIMULACRA2_MIN_SIDE, bpp
from .picture.metadata import Metadata
from .picture.picture import LAYOUTS, PALETTE_MODES, Picture, check_size, from_input, join, shrink, split, to_pil
from .request import DEFAULT_QUALITY, Request, check_execution, integer

# The generic exact coder's rivalry with lossy files, by `planes.estimate`:
GRAPHICS = 3.0  # bits a pixel up to which it is tried before them: photographs have 7 and more, screenshots 0.3 to 2.5
LEAST = 0.4  # of the estimate: what a lossy file must have for it to be tried after that
DRAFT, SURE = 1, 0.8  # effort of a lossy draft, and the part of its bytes up to which nobody looks for a smaller one
# The learned lossless model is not tried on what the generic coder does better or nearly as well, for certain:
FEW_COLOURS = {1: 32, 3: 256}  # graphics: at most so many levels of gray, or colours
FEW_BITS = 1.0  # a sample, in the generic coding of the colour
FEW_BYTES = 64  # of that coding
LARGE = 2**23  # pixels from which on a sample decides how a lossless picture is coded: both ways would take long


@dataclass(frozen=True)
class Info:
    """What `inspect` reports."""

    width: int  # pixels
    height: int  # pixels
    mode: str  # Pillow's name; LA;16, RGB;16 and RGBA;16 are arrays of uint16 that Pillow lacks a mode for
    lossless: bool
    quality: float | None  # 0 to 100; None in lossless files
    model: str  # hex, the beginning of the SHA-256 of the model file that decodes it; zeros if none is needed
    sections: dict[str, int]  # bytes of each part of the file, "header" first; they sum to `bytes`
    bytes: int
    bpp: float  # bits per pixel of the whole file
    ways: dict[str, str] = field(default_factory=dict)  # how the samples of a lossless file are coded, by section


def compress(
    image: Image.Image | np.ndarray,
    quality: float = DEFAULT_QUALITY,
    *,
    lossless: bool | str = False,
    effort: int = 3,
    tune: str = PSNR,
    target_bytes: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    target_ssimulacra2: float | None = None,
    exif: bytes | None = None,
    icc_profile: bytes | None = None,
    xmp: bytes | None = None,
    device: str = "auto",
    threads: int = 0,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """The compressed file.

    image: a PIL image, or an array H×W or H×W×1..4 of uint8, with `lossless` also of uint16. Lossy files hold 8-bit gray or
        colour, with or without alpha: other modes are converted (docs/INPUTS.md), those of more bits are refused. Alpha is
        kept exactly, the colours under full transparency are not. With `lossless`, modes 1, L, LA, P, PA, RGB, RGBA,
        I;16, I;16B and I (0 to 65535).
    quality: 0 to 100, continuous, higher is better; counted in hundredths. 100 is the best lossy point.
    lossless: True: every pixel, palette and transparent colour comes back as it was. False: so it does where that takes no more
        bytes than the lossy file, or fits under a ceiling in bytes, as of screenshots and drawings (`inspect` tells, and the
        picture comes back in the mode that went in); only the generic coder is tried, and on photographs not even that.
        "never": the file is lossy.
    effort: 1 to 9, higher is slower; the decoder is not affected. With `lossless`, 4 and more adapt the model to the
        picture, seconds whatever its size.
    tune: "psnr", or "ms-ssim" for an encoder that works for structural similarity in place of the squared error: busy places
        may differ more, smooth ones less; or "ssimulacra2" for one that works for what people see, with a model of its own
        where there is one. The decoder is not affected; effort 1 has no tune, for it does not search.
    target_bytes, target_bpp (ceilings), target_psnr (a floor, in dB), target_ssimulacra2 (a floor, in points up to 100, which
        are equal pictures; smallest with the tune of that name): one of them instead of a quality.
    exif, icc_profile, xmp: None takes them from the PIL image's `info`, b"" drops them. With the ICC profile goes
        `info["cicp"]` (ITU-T H.273: primaries, transfer, matrix 0, full range), with EXIF `info["dpi"]`. What in `info` cannot
        be kept is left out, and so is an ICC profile of colour of a gray picture, or the reverse (docs/INPUTS.md).
    device: "auto", "cpu" or "cuda"; threads: 0 is all. Neither affects what can decode the file.
    progress: told the part that is done, 0 to 1, while a lossy effort of 2 or more works; a target begins anew with each attempt.

    ImageError for a picture that cannot be coded, TargetError for a target that no quality reaches, UnsupportedError
    where there is no model; ValueError and TypeError for wrong arguments.
    """
    request = Request.of(
        quality=quality,
        lossless=lossless,
        effort=effort,
        tune=tune,
        target_bytes=target_bytes,
        target_bpp=target_bpp,
        target_psnr=target_psnr,
        target_ssimulacra2=target_ssimulacra2,
        device=device,
        threads=threads,
        progress=progress,
    )
    metadata = {"exif": exif, "icc_profile": icc_profile, "xmp": xmp}
    source = from_input(image, lossless=request.lossless, **metadata)
    if request.lossless:
        return _exact_file(source, _encode_samples(source, effort=effort, device=device, threads=threads))
    height, width, _ = source.pixels.shape
    if target_ssimulacra2 is not None and min(height, width) < SSIMULACRA2_MIN_SIDE:
        raise ImageError(
            f"SSIMULACRA 2 is undefined below {SSIMULACRA2_MIN_SIDE} pixels a side, got {width}×{height}: take another target"
        )

    def lossy(effort: int) -> bytes:
        from . import rate_control  # imports torch

        colour, envelope = _for_lossy_files(source)
        return rate_control.encode(colour, replace(request, effort=effort), envelope, gray=source.mode.startswith("L"))

    def without_loss() -> bytes | None:
        try:
            whole = from_input(image, lossless=True, **metadata)
        except ImageError:  # a mode that has to be converted, or samples of more bits
            return None
        return _exact_file(whole, _generic(whole.pixels, whole.mode, None, effort=effort))

    if request.lossy:
        return lossy(effort)
    expected = planes.estimate(source.pixels)
    first = 8 * expected <= GRAPHICS * width * height
    ceiling = request.target and request.target.ceiling(width, height)
    return _no_larger(lossy, without_loss, expected, first=first, effort=effort, ceiling=ceiling)


def _no_larger(
    lossy: Callable[[int], bytes],
    exact: Callable[[], bytes | None],
    expected: float,
    *,
    first: bool,
    effort: int,
    ceiling: int | None,
) -> bytes:
    """The lossy file, or the exact one where that is no larger, or under the ceiling in bytes.

    lossy: effort -> file; exact: nothing -> file, or None where the picture has no exact form; expected: its bytes, roughly;
    first: whether to try it before the lossy one.
    """
    rival = None
    if first or ceiling is not None and LEAST * expected <= ceiling:
        rival = exact()
    if rival is None:
        data = lossy(effort)
        rival = exact() if ceiling is None and LEAST * expected <= len(data) else None
        return data if rival is None or len(rival) > len(data) else rival
    if ceiling is not None:
        return rival if len(rival) <= ceiling else lossy(effort)
    try:
        for level in sorted({min(DRAFT, effort), effort}):
            data = lossy(level)
            if len(rival) <= (1 if level == effort else SURE) * len(data):
                return rival
        return data
    except TargetError:  # a floor that only the exact file reaches
        return rival


def _exact_file(source: Picture, coded: tuple[bytes, dict[Tag, bytes]]) -> bytes:
    """coded: model id and sections of the samples."""
    model_id, sections = coded
    sections = sections | container.metadata_sections(vars(source.metadata))
    if source.palette is not None or source.transparency is not None:
        sections[Tag.PALETTE] = container.pack_palette(source.palette, source.transparency)
    height, width, _ = source.pixels.shape
    return container.pack(Header("lossless", model_id, width, height, source.mode, None), sections)


def _for_lossy_files(source: Picture) -> tuple[np.ndarray, container.Envelope]:
    """The colour H×W×3, and what else its file holds."""
    colour, alpha = split(source.pixels)
    sections = container.metadata_sections(vars(source.metadata))
    if alpha is not None:
        sections[Tag.ALPHA] = container.pack_alpha(alpha)
    height, width, _ = source.pixels.shape
    return colour, container.Envelope(width, height, source.mode, sections)


def decompress(
    data: bytes, *, region: tuple[int, int, int, int] | None = None, preview: int | None = None, device: str = "auto",
    threads: int = 0, max_pixels: int | None = None,
) -> Image.Image | np.ndarray:  # fmt: skip
    """The picture as a PIL image of the mode that went in; icc_profile, exif, xmp, cicp and dpi are in its `info`.

    Only where Pillow has no such mode, that is for a lossless file made from a uint16 array of two to four channels,
    it is an array H×W×C of uint16.

    region: (left, top, width, height) of the pixels wanted. A lossy file is read and computed there alone, a lossless one
        in whole tiles, of a picture below a megapixel in all of them; what is not read is not checked.
    preview: 8 or 16 for a picture that many times smaller, sides rounded up. From a lossy file it comes without the
        synthesis network, many times faster than the picture; a lossless file is decoded first. Modes 1, P and PA
        become L, RGB or RGBA. (Means of the linear path: close to the picture made smaller, not equal.)
    max_pixels: LimitError for a larger picture, before anything is allocated for it; None is 2^28. Of a region of a lossy
        file without alpha, only its own pixels count.
    FormatError (among them TruncatedError) for a file that is not ours or is damaged, UnsupportedError for one that
    needs a newer version or another model; ValueError and TypeError for wrong arguments.
    """
    data = _bytes(data)
    check_execution(device, threads)
    if max_pixels is not None and integer("max_pixels", max_pixels) < 1:
        raise ValueError(f"max_pixels must be at least 1, not {max_pixels}")
    if preview not in (None, 8, 16):
        raise ValueError(f"preview must be 8 or 16, not {preview!r}")
    if region is not None and preview is not None:
        raise ValueError("region and preview exclude one another: give one")
    header, sections = container.unpack(data)
    if region is None:
        region = 0, 0, header.width, header.height
    _check_region(region, header.width, header.height)
    partial = header.method == "lossy" and not header.has_alpha  # all else is decoded whole, and cut
    check_size(*(region[2:] if partial else (header.width, header.height)), max_pixels)
    metadata = Metadata(**container.metadata_of(sections))
    run = {"region": tuple(region), "device": device, "threads": threads}
    if header.method == "lossless":
        palette, transparency = None, None
        if Tag.PALETTE in sections:
            palette, transparency = container.unpack_palette(sections[Tag.PALETTE])
            if (palette is None) == (header.mode in PALETTE_MODES):
                raise FormatError(f"a picture of mode {header.mode} {'with' if palette else 'without'} a palette")
        pixels = _decode_samples(header, sections, **run)
        picture = Picture(pixels, header.mode, metadata, palette=palette, transparency=transparency)
        return to_pil(picture) if preview is None else to_pil(_preview(picture, preview))
    alpha = None
    if header.has_alpha:
        alpha = _cut(container.unpack_alpha(sections[Tag.ALPHA], header.width, header.height), region)
        if preview:
            alpha = shrink(alpha[..., np.newaxis], preview)[..., 0]

    from . import lossy  # imports torch

    colour = lossy.decode(
        sections[Tag.LATENTS],
        width=header.width,
        height=header.height,
        quality=header.quality,
        model_id=header.model_id,
        reduce=preview or 1,
        **run,
    )
    return to_pil(Picture(join(colour, alpha, gray=header.mode.startswith("L")), header.mode, metadata))


def _check_region(region, width: int, height: int) -> None:
    if not isinstance(region, (tuple, list)) or len(region) != 4:
        raise TypeError(f"region must be (left, top, width, height), not {region!r}")
    left, top, columns, rows = (integer("region", value) for value in region)
    if left < 0 or top < 0 or columns < 1 or rows < 1 or left + columns > width or top + rows > height:
        raise RegionError(f"region {left},{top},{columns},{rows} is not within the picture of {width}×{height}")


def _cut(pixels: np.ndarray, region: tuple[int, int, int, int]) -> np.ndarray:
    left, top, width, height = region
    return pixels[top : top + height, left : left + width]


def _preview(picture: Picture, factor: int) -> Picture:
    if picture.mode in ("1", *PALETTE_MODES):
        image = to_pil(picture)
        mode = "L" if picture.mode == "1" else "RGBA" if image.has_transparency_data else "RGB"
        picture = replace(from_input(image.convert(mode)), metadata=picture.metadata)
    return replace(picture, pixels=shrink(picture.pixels, factor))


def verify(
    data: bytes, image: Image.Image | np.ndarray, *, device: str = "auto", threads: int = 0,
    max_pixels: int | None = None,
) -> None:  # fmt: skip
    """CodecError unless `data` decodes, and if it is lossless, to the very picture that `image` is."""
    again = decompress(data, device=device, threads=threads, max_pixels=max_pixels)
    if inspect(data).lossless:
        if not from_input(again, lossless=True).looks_like(from_input(image, lossless=True)):
            raise CodecError("verification failed: the file does not decode to the picture that went in")


# Lossless samples. Section PIXELS holds the colour as the learned model codes it, and PLANES the channels that are
# left: alpha, or none, and then there is no such section. Without PIXELS, PLANES holds all channels.


def _encode_samples(source: Picture, *, effort: int, device: str, threads: int) -> tuple[bytes, dict[Tag, bytes]]:
    """Model id and sections: by the learned model or not, whichever is smaller; of a large picture, on a sample of it."""
    pixels, mode = source.pixels, source.mode
    run = {"effort": effort, "device": device, "threads": threads}
    ways = [_generic, *([_learned] if mode in container.BOTH_METHODS else [])]
    if len(ways) > 1 and pixels.shape[0] * pixels.shape[1] > LARGE:
        coded = _smaller(_sample(pixels), mode, ways, run)
        ways = [_learned] if Tag.PIXELS in coded[1] else [_generic]
        coded = _smaller(pixels, mode, ways, run)
        if sum(map(len, coded[1].values())) < pixels.nbytes:
            return coded
        ways = [_generic]
    return _smaller(pixels, mode, ways, run)


def _smaller(pixels: np.ndarray, mode: str, ways: list, run: dict) -> tuple[bytes, dict[Tag, bytes]]:
    best = None
    for way in ways:
        coded = way(pixels, mode, best, **run)
        if coded and (best is None or sum(map(len, coded[1].values())) < sum(map(len, best[1].values()))):
            best = coded
    return best


def _sample(pixels: np.ndarray) -> np.ndarray:
    """Sixteen pieces of at most 256×256 from all over a picture, none of it twice, side by side."""
    (top, height), (left, width) = (
        (np.linspace(0, side - piece, 4).astype(int), piece)
        for side in pixels.shape[:2]
        for piece in [max(1, min(256, side // 4))]
    )
    return np.vstack([np.hstack([pixels[y : y + height, x : x + width] for x in left]) for y in top])


def _generic(pixels: np.ndarray, mode: str, rival: None, *, effort: int, **run) -> tuple[bytes, dict[Tag, bytes]]:
    payload = planes.encode(pixels, bits=LAYOUTS[mode][1], effort=effort)
    return container.NO_MODEL, {Tag.PLANES: container.pack_samples(payload, pixels)}


def _learned(
    pixels: np.ndarray, mode: str, rival: tuple[bytes, dict[Tag, bytes]] | None, **run
) -> tuple[bytes, dict[Tag, bytes]] | None:
    """None where the generic coding of the same pixels, `rival`, says that the model is not worth its time."""
    channels = 1 if mode.startswith("L") else 3
    colour, rest = np.ascontiguousarray(pixels[..., :channels]), pixels[..., channels:]
    sections = {}
    if rest.size:
        sections[Tag.PLANES] = container.pack_samples(planes.encode(rest, effort=run["effort"]), rest)
    if rival and not _may_suit_the_model(colour, sum(map(len, rival[1].values())) - sum(map(len, sections.values()))):
        return None
    model_id, payload = _encode_by_model(colour, **run)
    return model_id, {Tag.PIXELS: container.pack_samples(payload, colour)} | sections


def _encode_by_model(colour: np.ndarray, **options) -> tuple[bytes, bytes]:
    """Model id and payload."""
    from . import lossless  # imports torch

    return lossless.encode(colour, **options)


def _may_suit_the_model(colour: np.ndarray, generic_bytes: int) -> bool:
    """Whether the learned model is worth its time; generic_bytes: what the generic coder takes for the colour."""
    if generic_bytes <= FEW_BYTES or 8 * generic_bytes < FEW_BITS * colour.size:
        return False
    channels = colour.shape[2]
    seen = np.zeros(256**channels, bool)
    for row in colour:  # never a wide copy of the whole
        seen[row.astype(np.uint32) @ (256 ** np.arange(channels, dtype=np.uint32))] = True
    return np.count_nonzero(seen) > FEW_COLOURS[channels]


def _decode_samples(
    header: Header, sections: dict[Tag, bytes], *, region: tuple[int, int, int, int], device: str, threads: int
) -> np.ndarray:
    """H×W×C of a region, as LAYOUTS says; FormatError unless they are the samples that were encoded.

    The check value of the samples needs all of them: of a part, only the coded bytes are checked.
    """
    channels, bits = LAYOUTS[header.mode]
    size = {"width": header.width, "height": header.height}
    parts = []
    if Tag.PIXELS in sections:
        from . import lossless  # imports torch

        colours = 1 if header.mode.startswith("L") else 3
        colour = lossless.decode(
            container.payload_of_samples(Tag.PIXELS, sections[Tag.PIXELS]), **size, channels=colours,
            model_id=header.model_id, region=region, device=device, threads=threads,
        )  # fmt: skip
        if region == (0, 0, header.width, header.height):
            container.check_samples(Tag.PIXELS, sections[Tag.PIXELS], colour)
        parts.append(colour)
        channels -= colours
    if Tag.PLANES in sections:
        payload = container.payload_of_samples(Tag.PLANES, sections[Tag.PLANES])
        rest = planes.decode(payload, **size, channels=channels, bits=bits)
        container.check_samples(Tag.PLANES, sections[Tag.PLANES], rest)
        parts.append(np.ascontiguousarray(_cut(rest, region)))
    return np.dstack(parts) if len(parts) > 1 else parts[0]


def inspect(data: bytes) -> Info:
    """What the header says; nothing is decoded. Errors as `decompress`."""
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
        ways=_ways(sections),
    )


def _ways(sections: dict[Tag, bytes]) -> dict[str, str]:
    ways = {"pixels": "model"} if Tag.PIXELS in sections else {}
    if Tag.PLANES in sections:
        ways["planes"] = planes.name(container.payload_of_samples(Tag.PLANES, sections[Tag.PLANES]))
    return ways


def _bytes(data) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be bytes, not {type(data).__name__}")
    return bytes(data)
