"""Pictures and files that Pillow does not make by itself."""

import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

LAB = ImageCms.createProfile("LAB")


def save(image: Image.Image, path, **options) -> str:
    """The name of the file."""
    image.save(path, **options)
    return str(path)


def lab(photo: Image.Image) -> Image.Image:
    image = ImageCms.profileToProfile(photo, ImageCms.createProfile("sRGB"), LAB, outputMode="LAB")
    image.info.clear()
    return image


def png_file(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in (*chunks, (b"IEND", b""))
    )


def png(pixels: np.ndarray, *, interlaced: bool = False) -> bytes:
    """A PNG as Pillow does not write it: H×W×3 of uint8 or big-endian uint16, in the seven passes of Adam7 or in one."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [pixels[y::down, x::right] for x, y, right, down in passes] if interlaced else [pixels]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", *pixels.shape[1::-1], 8 * pixels.itemsize, 2, 0, 0, interlaced)
    return png_file((b"IHDR", header), (b"IDAT", zlib.compress(rows)))
