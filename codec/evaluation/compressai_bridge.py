"""CompressAI's model zoo as a peer, through its real bitstreams.

Its `compress` gives strings and a shape, not a file; the file written here is
    uint8 quality | uint16 width, height | uint16 rows, columns of the hyper-latent | uint32 length, bytes of each string
so that every byte that the decoder needs is counted.
"""

import functools
import struct

from PIL import Image

from .peer import MissingCodec, Peer, UnknownCodec

_HEADER = struct.Struct("<B4H")
_LENGTH = struct.Struct("<I")
_MULTIPLE = 64  # of the padded sides: six halvings from pixel to hyper-latent


def build(spec: str, name: str, metric: str, threads: int) -> Peer:
    """MODEL of compressai.zoo with its pretrained weights for `metric`; UnknownCodec, MissingCodec."""
    try:
        import compressai
        import torch
        from compressai.zoo import image_models
        from compressai.zoo.image import model_urls
    except ImportError as error:
        hint = "pip install compressai, in an environment of its own since it holds NumPy below 2"
        raise MissingCodec(f"{spec} is left out: {hint} ({error})") from None
    if name not in model_urls:
        raise UnknownCodec(f"{spec}: CompressAI's zoo has {', '.join(sorted(model_urls))}")
    if metric not in model_urls[name]:
        raise UnknownCodec(f"{spec}: {name} was trained for {', '.join(model_urls[name])}")
    torch.set_num_threads(threads)

    @functools.lru_cache(maxsize=2)
    def network(quality: int):
        try:
            return image_models[name](quality=quality, metric=metric, pretrained=True).eval()
        except OSError as error:  # urllib's errors are OSErrors
            cause = f"its pretrained weights cannot be downloaded ({error})"
            raise MissingCodec(f"{spec} is left out: {cause}; put them into torch.hub's checkpoints folder") from None

    qualities = tuple(sorted(model_urls[name][metric]))
    network(qualities[0])

    def encode(image: Image.Image, setting: float | None) -> bytes:
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        pixels = pixels.view(1, image.height, image.width, 3).permute(0, 3, 1, 2) / 255  # 1×3×H×W
        padding = (0, -image.width % _MULTIPLE, 0, -image.height % _MULTIPLE)
        with torch.no_grad():
            out = network(round(setting)).compress(torch.nn.functional.pad(pixels, padding))
        strings = [batch[0] for batch in out["strings"]]
        header = _HEADER.pack(round(setting), image.width, image.height, *out["shape"])
        return header + b"".join(_LENGTH.pack(len(s)) + s for s in strings)

    def decode(data: bytes) -> Image.Image:
        quality, width, height, *shape = _HEADER.unpack_from(data)
        strings, position = [], _HEADER.size
        while position < len(data):
            (length,) = _LENGTH.unpack_from(data, position)
            position += _LENGTH.size
            strings.append([data[position : position + length]])
            position += length
        with torch.no_grad():
            pixels = network(quality).decompress(strings, tuple(shape))["x_hat"][0, :, :height, :width]
        pixels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)  # H×W×3
        return Image.frombytes("RGB", (width, height), pixels.contiguous().numpy().tobytes())

    return Peer(
        version=f"compressai {compressai.__version__}, torch {torch.__version__}",
        encode=encode,
        decode=decode,
        lossless=False,
        grid=tuple(float(q) for q in qualities),
        limits=(qualities[0], qualities[-1]),
    )
