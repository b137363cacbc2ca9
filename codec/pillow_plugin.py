"""Pillow opens and saves our files once this module is imported: `import codec.pillow_plugin`.

    Image.open("photo.lic")                     # reads the header and the metadata; the pixels when they are needed
    image.save("photo.lic", quality=60)         # the options of codec.compress
    image.thumbnail((128, 128))                 # of a lossy file: from a preview where one is large enough, many times faster

Damage found while decoding is an OSError, as of Pillow's own formats; a header that is not ours makes Image.open go on
to other formats. Image.MAX_IMAGE_PIXELS is checked by Image.open, before anything is decoded.
"""

from __future__ import annotations

import inspect
from typing import IO

from PIL import Image, ImageFile

from . import api, container
from .errors import CodecError
from .picture.metadata import Metadata

FORMAT = "LIC"
SUFFIX = ".lic"
MIME = "image/x-lic"
HEADER_BYTES = 512  # no header of version 1 is longer
PREVIEWS = 16, 8  # times smaller, what decompress offers
_OPTIONS = {
    name
    for name, parameter in inspect.signature(api.compress).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
} | {"quality"}


class LicImageFile(ImageFile.ImageFile):
    format = FORMAT
    format_description = "learned image codec"

    def _open(self) -> None:
        self._start = self.fp.tell()
        try:
            header, lengths, position = container.read_header(self.fp.read(HEADER_BYTES))
            self._mode = header.mode
            if header.mode not in Image.MODES and header.mode != "I;16B":
                raise SyntaxError(f"Pillow has no mode {header.mode}: use codec.decompress")
            self._size = (header.width, header.height)
            sections = {}
            for tag, length in lengths.items():
                if tag in container.METADATA:
                    self.fp.seek(self._start + position)
                    sections[tag] = self.fp.read(length)
                position += length
            self.info.update(Metadata(**container.metadata_of(sections)).info())
        except CodecError as error:
            raise SyntaxError(str(error)) from error
        self.info["lossless"] = header.method == "lossless"
        self.tile = []
        self._pending, self._preview, self._pixels = True, None, header.width * header.height

    def draft(self, mode: str | None, size: tuple[int, int] | None):
        """As of JPEG files, which `thumbnail` calls: the picture becomes a preview that is at least `size`, if there is one.

        Returns (mode, box of the picture in the preview), or None where all stays as it was: in lossless files always.
        """
        if not self._pending or self._preview or size is None or self.info["lossless"]:
            return None
        scale = min(self.width // max(1, size[0]), self.height // max(1, size[1]))
        self._preview = next((factor for factor in PREVIEWS if factor <= scale), None)
        if self._preview is None:
            return None
        box = 0, 0, self.width / self._preview, self.height / self._preview
        self._size = tuple(-(-side // self._preview) for side in self.size)
        return self.mode, box

    def load(self):
        if self._pending:
            self.fp.seek(self._start)
            try:
                # Image.open has checked the size against Image.MAX_IMAGE_PIXELS, which is the caller's to set.
                image = api.decompress(self.fp.read(), preview=self._preview, max_pixels=self._pixels)
            except CodecError as error:
                raise OSError(str(error)) from error
            self.im, self.palette = image.im, image.palette
            self.info.update(image.info)
            self._pending = False
            if self._exclusive_fp:
                self.fp.close()
            self.fp = None
        return super().load()


def _save(image: Image.Image, file: IO[bytes], name: str | bytes) -> None:
    options = {key: value for key, value in image.encoderinfo.items() if key in _OPTIONS}
    if isinstance(options.get("exif"), Image.Exif):
        options["exif"] = options["exif"].tobytes()
    try:
        file.write(api.compress(image, **options))
    except CodecError as error:
        raise OSError(str(error)) from error


Image.register_open(FORMAT, LicImageFile, lambda prefix: prefix.startswith(container.MAGIC))
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, SUFFIX)
Image.register_mime(FORMAT, MIME)
