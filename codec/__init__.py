"""A learned image codec: pictures to small files and back.

    data = codec.compress(image, quality=75)    # a PIL image or a uint8 array -> bytes
    image = codec.decompress(data)              # -> PIL image
    info = codec.inspect(data)                  # the header only
    image = codec.open("photo.lic")             # a lazy PIL image: size and mode at once, pixels when they are needed

Bad input raises a CodecError (see codec/errors.py), wrong arguments a ValueError or TypeError.
Importing this package does not import torch; the first compress or decompress does.
"""

from .api import Info, compress, decompress, inspect
from .errors import (
    CodecError,
    FormatError,
    ImageError,
    LimitError,
    RegionError,
    TargetError,
    TruncatedError,
    UnsupportedError,
)


def open(file):
    """A PIL image of one of our files, by name or binary file object: the header is read now, the pixels on demand.

    OSError (PIL.UnidentifiedImageError if it is not one of our files) as of Image.open.
    """
    from PIL import Image

    from .pillow_plugin import FORMAT

    return Image.open(file, formats=[FORMAT])


__version__ = "0.1.0"
__all__ = [
    "CodecError",
    "FormatError",
    "ImageError",
    "Info",
    "LimitError",
    "RegionError",
    "TargetError",
    "TruncatedError",
    "UnsupportedError",
    "compress",
    "decompress",
    "inspect",
    "open",
]
