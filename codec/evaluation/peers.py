"""The codecs under test: ours and what a user would pick instead, each a builder of a few lines below.

A spec is a name and options, parted by colons: `jpeg`, `avif:s6:420`, `lic:e9`, `compressai:mbt2018-mean`.
To add a codec, write a builder and put it under a name with @codec; the rest of the evaluation needs nothing else.
"""

import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version as installed_version
from pathlib import Path

from PIL import Image, features

from ..metrics import TUNES
from . import compressai_bridge
from .peer import LOSSLESS, MissingCodec, Options, Peer, UnknownCodec, build, check, codec, names
from .provenance import commit

__all__ = ["LOSSLESS", "MissingCodec", "Peer", "UnknownCodec", "build", "check", "names"]  # all that others need of `peer.py`


def _pillow_decode(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    return image.convert("RGB")  # loads


def _pillow_encode(format: str, lossy: dict | None, lossless: dict | None, key="quality", kind=round):
    """An `encode` that saves through Pillow; the setting is passed as `key`, the other options as given."""

    def encode(image: Image.Image, setting: float | None) -> bytes:
        options = lossless if setting is LOSSLESS else lossy
        if options is None:
            raise ValueError(f"{format} has no {'lossless' if setting is LOSSLESS else 'lossy'} mode here")
        chosen = {} if setting is LOSSLESS else {key: kind(setting)}
        buffer = io.BytesIO()
        image.save(buffer, format, **options, **chosen)
        return buffer.getvalue()

    return encode


def _need(available: bool, spec: str, hint: str) -> None:
    if not available:
        raise MissingCodec(f"{spec} is left out: {hint}")


@codec("lic")
def _lic(options: Options, threads: int) -> Peer:
    """Ours; e1…e9 is the effort; :ms-ssim is tuned for that. Lossy files even of graphics: curves are of those."""
    import codec

    effort, tune = options.number("e", 3), options.choice(*TUNES)

    def encode(image, setting):
        if setting is LOSSLESS:
            return codec.compress(image, lossless=True, effort=effort, threads=threads)
        return codec.compress(image, quality=setting, lossless="never", effort=effort, tune=tune, threads=threads)

    return _our_peer(encode, threads)


@codec("textbook")
def _textbook(options: Options, threads: int) -> Peer:
    """The VAE of textbooks (Ballé, Laparra and Simoncelli 2017), our model file of that name; effort 1: no search."""
    import codec
    from codec.weights import PACKAGED

    _need((PACKAGED / "textbook.safetensors").exists(), options.spec, "its weights are not installed")

    def encode(image, setting):
        before = os.environ.get("CODEC_MODEL")
        os.environ["CODEC_MODEL"] = "textbook"
        try:
            return codec.compress(image, quality=setting, lossless="never", effort=1, threads=threads)
        finally:
            os.environ.pop("CODEC_MODEL")
            if before is not None:
                os.environ["CODEC_MODEL"] = before

    return replace(_our_peer(encode, threads), lossless=False)


def _our_peer(encode: Callable[[Image.Image, float | None], bytes], threads: int) -> Peer:
    import codec

    model = codec.inspect(encode(Image.new("RGB", (16, 16)), 50)).model
    return Peer(
        version=f"{codec.__version__} commit {commit() or 'unknown'} model {model}",
        encode=encode,
        decode=lambda data: codec.decompress(data, threads=threads).convert("RGB"),
        grid=(0, 15, 30, 45, 60, 75, 90, 100),
        continuous=True,
    )


@codec("jpeg")
def _jpeg(options: Options, threads: int) -> Peer:
    """libjpeg-turbo; 4:2:0 or :444; Huffman tables optimised, or :plain with the standard's tables."""
    chroma, tables = options.choice("420", "444"), options.choice("optimised", "plain")
    lossy = {"subsampling": {"420": 2, "444": 0}[chroma], "optimize": tables == "optimised"}
    return Peer(
        version=f"libjpeg-turbo {features.version('libjpeg_turbo')}",
        encode=_pillow_encode("JPEG", lossy, None),
        decode=_pillow_decode,
        lossless=False,
        grid=(5, 10, 20, 35, 50, 70, 85, 95),
        limits=(1, 100),
    )


@codec("webp")
def _webp(options: Options, threads: int) -> Peer:
    """libwebp; m0…m6 is the method (6: slowest); lossy is always 4:2:0.

    Lossless with quality 80, which means effort there: 100 gains 1 % and takes 20 times as long.
    """
    _need(features.check("webp"), options.spec, "this Pillow was built without WebP")
    method = options.number("m", 6)
    return Peer(
        version=f"libwebp {features.version('webp')}",
        encode=_pillow_encode("WEBP", {"method": method}, {"method": method, "lossless": True, "quality": 80}),
        decode=_pillow_decode,
        grid=(1, 10, 25, 45, 65, 80, 90, 97),
    )


@codec("avif")
def _avif(options: Options, threads: int) -> Peer:
    """libavif over libaom; s0…s10 is the speed (0: slowest); 4:4:4 or :420; tuned as it comes, or for :psnr.

    As it comes means for the eye from libaom 3.13 on (`tune=iq`), which gives up decibels: curves of PSNR need :psnr.
    """
    _need(features.check("avif"), options.spec, 'pip install "pillow>=11.3"')
    speed, chroma = options.number("s", 4), options.choice("444", "420")
    lossy = {"speed": speed, "max_threads": threads, "subsampling": {"444": "4:4:4", "420": "4:2:0"}[chroma]}
    if options.choice("default", "psnr") == "psnr":
        lossy["advanced"] = {"tune": "psnr"}

    def encode(image, setting):
        if setting is not LOSSLESS:
            return _pillow_encode("AVIF", lossy, None)(image, setting)
        import imagecodecs  # Pillow's AVIF cannot switch off the colour transform
        import numpy as np

        return bytes(imagecodecs.avif_encode(np.asarray(image), level=100, speed=speed, numthreads=threads))

    return Peer(
        version=f"libavif {features.version('avif')}",
        encode=encode,
        decode=_pillow_decode,
        grid=(10, 25, 40, 50, 60, 70, 80, 90),
        limits=(0, 99),
    )


@codec("jxl")
def _jxl(options: Options, threads: int) -> Peer:
    """libjxl; e1…e9 is the effort.

    Below quality 18 or so libjxl codes at half the resolution, a kink in every curve of PSNR: the grid starts above it.
    """
    try:
        import pillow_jxl
    except ImportError:
        raise MissingCodec(f"{options.spec} is left out: pip install pillow-jxl-plugin") from None
    pillow_jxl.JpegXLImagePlugin.DECODE_THREADS = threads
    common = {"effort": options.number("e", 7), "num_threads": threads}
    return Peer(
        version=f"pillow-jxl-plugin {installed_version('pillow-jxl-plugin')}",
        encode=_pillow_encode("JXL", common, common | {"lossless": True}),
        decode=_pillow_decode,
        grid=(20, 30, 42, 55, 68, 80, 89, 95),
        limits=(1, 99),
    )


@codec("heic")
def _heic(options: Options, threads: int) -> Peer:
    """libheif over x265; 4:4:4 or :420."""
    try:
        import pillow_heif
    except ImportError:
        raise MissingCodec(f"{options.spec} is left out: pip install pillow-heif") from None
    pillow_heif.register_heif_opener(decode_threads=threads)
    lossy = {"chroma": options.choice("444", "420")}
    lossless = {"chroma": "444", "quality": -1, "matrix_coefficients": 0}
    return Peer(
        version=f"pillow-heif {installed_version('pillow-heif')}, {pillow_heif.libheif_info()['HEIF']}",
        encode=_pillow_encode("HEIF", lossy, lossless),
        decode=_pillow_decode,
        grid=(12, 20, 28, 36, 44, 52, 60, 70),
    )


@codec("jpeg2000")
def _jpeg2000(options: Options, threads: int) -> Peer:
    """OpenJPEG, 9/7 wavelet, colour transform; the setting is the PSNR in dB that its rate control aims at."""
    _need(features.check("jpg_2000"), options.spec, "this Pillow was built without OpenJPEG")
    lossy = {"irreversible": True, "mct": 1, "quality_mode": "dB"}
    return Peer(
        version=f"OpenJPEG {features.version('jpg_2000')}",
        encode=_pillow_encode("JPEG2000", lossy, {"irreversible": False, "mct": 1}, "quality_layers", lambda q: [q]),
        decode=_pillow_decode,
        grid=(26, 28, 30, 32, 34, 37, 40, 44),
        limits=(20, 50),
        continuous=True,
    )


@codec("png")
def _png(options: Options, threads: int) -> Peer:
    return Peer(
        version=f"Pillow {installed_version('pillow')}, zlib {features.version('zlib')}",
        encode=_pillow_encode("PNG", None, {"optimize": True}),
        decode=_pillow_decode,
    )


@codec("jpegls")
def _jpegls(options: Options, threads: int) -> Peer:
    """CharLS, channels interleaved, no colour transform."""
    try:
        import imagecodecs
    except ImportError:
        raise MissingCodec(f"{options.spec} is left out: pip install imagecodecs") from None
    import numpy as np

    return Peer(
        version=imagecodecs.jpegls_version(),
        encode=lambda image, setting: bytes(imagecodecs.jpegls_encode(np.asarray(image))),
        decode=lambda data: Image.fromarray(imagecodecs.jpegls_decode(data)),
    )


@codec("flif")
def _flif(options: Options, threads: int) -> Peer:
    """The program `flif`; its seconds include starting it and files in a temporary folder."""
    program = shutil.which("flif")
    _need(program is not None, options.spec, "install the program flif and put it on PATH")
    effort = options.number("e", 60)

    def through_files(source_suffix, source: bytes, target_suffix, *arguments) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source_path, target_path = Path(folder, "source" + source_suffix), Path(folder, "target" + target_suffix)
            source_path.write_bytes(source)
            command = [program, *arguments, str(source_path), str(target_path)]
            subprocess.run(command, check=True, capture_output=True)
            return target_path.read_bytes()

    def encode(image, setting):
        pixels = io.BytesIO()
        image.save(pixels, "PPM")
        return through_files(".ppm", pixels.getvalue(), ".flif", "-e", f"-E{effort}")

    line = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.splitlines()
    return Peer(
        version=line[0] if line else "flif",
        encode=encode,
        decode=lambda data: _pillow_decode(through_files(".flif", data, ".ppm", "-d")),
    )


@codec("compressai")
def _compressai(options: Options, threads: int) -> Peer:
    """CompressAI's zoo, `compressai:MODEL` or `compressai:MODEL:ms-ssim`; the setting is its quality, 1…8."""
    model = options.take("the model's name")
    return compressai_bridge.build(options.spec, model, options.choice("mse", "ms-ssim"), threads)
