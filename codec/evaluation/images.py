"""The pictures of an evaluation: found, read as 8-bit RGB, and named by their pixels.

All codecs see the same H×W×3 uint8 pixels: palettes and greys are expanded, an alpha channel is laid over white (what a
browser's page shows), the EXIF orientation is left alone. Deeper pixels than 8 bits are refused, since half of the
peers cannot hold them.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image


@dataclass(frozen=True)
class Picture:
    path: Path
    sha256: str  # over "WIDTHxHEIGHT:" and the RGB bytes, so that a copy in another format is the same picture
    width: int
    height: int

    @property
    def name(self) -> str:
        return self.path.name


def find(arguments: Iterable[Path]) -> list[Path]:
    """Files as given; of a folder, the files directly in it whose suffix Pillow can read, by name."""
    paths: list[Path] = []
    for argument in arguments:
        if argument.is_dir():
            suffixes = Image.registered_extensions()
            paths += sorted(p for p in argument.iterdir() if p.suffix.lower() in suffixes and p.is_file())
        else:
            paths.append(argument)
    return paths


def load(path: Path) -> Image.Image:
    """The RGB pixels. ValueError for what is no picture or deeper than 8 bits, OSError for what cannot be read."""
    with Image.open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode}: more than 8 bits a sample")
        if image.has_transparency_data:
            over_white = Image.new("RGBA", image.size, "white")
            over_white.alpha_composite(image.convert("RGBA"))
            return over_white.convert("RGB")
        # A copy without the file's metadata, which some encoders would write into their files.
        return Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())


def identify(path: Path) -> Picture:
    image = load(path)
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes())
    return Picture(path, digest.hexdigest(), image.width, image.height)
