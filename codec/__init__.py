"""A learned image codec: pictures to small files and back.

    data = codec.compress(image, quality=75)    # a PIL image or a uint8 array -> bytes
    image = codec.decompress(data)              # -> PIL image
    info = codec.inspect(data)                  # the header only

Bad input raises a CodecError (see codec/errors.py), wrong arguments a ValueError or TypeError.
Importing this package does not import torch; the first compress or decompress does.
"""

from .api import Info, compress, decompress, inspect
from .errors import (
    CodecError,
    FormatError,
    ImageError,
    LimitError,
    TargetError,
    TruncatedError,
    UnsupportedError,
)

__version__ = "0.1.0"
__all__ = [
    "CodecError",
    "FormatError",
    "ImageError",
    "Info",
    "LimitError",
    "TargetError",
    "TruncatedError",
    "UnsupportedError",
    "compress",
    "decompress",
    "inspect",
]
