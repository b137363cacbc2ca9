"""Chunks of Zarr arrays as files of ours: numcodecs finds the codec "lic" by its entry point, Zarr (format 2) by numcodecs.

    zarr.create_array(store, shape=(50, 512, 512, 3), chunks=(1, 512, 512, 3), dtype="uint8", zarr_format=2, filters=None,
                      compressors=Lic(lossless=False, quality=80))
"""

from __future__ import annotations

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy

from . import api
from .errors import ImageError


class Lic(Codec):
    """Chunks H×W or H×W×1..4 of uint8, with `lossless` also of uint16; sides of length 1 before that do not count.

    lossless: the default, as of every codec of numcodecs; without it `quality` (0 to 100) counts. `effort`: 1 to 9.
    """

    codec_id = "lic"

    def __init__(self, lossless: bool = True, quality: float = api.DEFAULT_QUALITY, effort: int = 3):
        self.lossless, self.quality, self.effort = bool(lossless), float(quality), int(effort)

    def encode(self, buf) -> bytes:
        """One picture -> a file of ours. Raises ImageError for chunks that are no pictures.

        And for those in Fortran order or foreign byte order: who decodes takes our bytes for that order, silently.
        """
        chunk = np.asanyarray(buf)
        if not chunk.dtype.isnative or chunk.flags.f_contiguous and not chunk.flags.c_contiguous:
            raise ImageError(f"chunk of {chunk.dtype.str} in order {'CF'[not chunk.flags.c_contiguous]}: only native bytes in order C are coded")
        while chunk.ndim > 2 and chunk.shape[0] == 1:
            chunk = chunk[0]
        how = {"lossless": True} if self.lossless else {"quality": self.quality}
        return api.compress(np.require(chunk, requirements="C"), effort=self.effort, **how)

    def decode(self, buf, out=None):
        """The samples, in the shape of the picture, or in `out` in its own. Raises CodecError."""
        samples = np.asarray(api.decompress(ensure_contiguous_ndarray(buf).tobytes()))
        return ndarray_copy(np.ascontiguousarray(samples), out)
