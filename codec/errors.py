"""Every error that bad input can cause.

    CodecError
    ├── FormatError          not one of our files, or a damaged one
    │   └── TruncatedError   the file ends before its own lengths say so
    ├── UnsupportedError     well-formed, but beyond this version: a newer file, an unknown model, method or mode
    ├── LimitError           larger than a limit that protects memory and time
    ├── RegionError          a region that is not within the picture
    ├── ImageError           the input picture cannot be coded as it is
    └── TargetError          no setting reaches the size or the quality that was asked for

The message of each is one line that names the offending value.
A wrong argument (quality 200, effort "high") is a programming error instead: ValueError or TypeError.
"""


class CodecError(Exception):
    """Root of the tree above: catch this one to handle any bad input."""


class FormatError(CodecError):
    """Not one of our files, or a damaged one."""


class TruncatedError(FormatError):
    """The file ends before its own lengths say so."""


class UnsupportedError(CodecError):
    """Well-formed, but beyond this version of the program or the models that it has."""


class LimitError(CodecError):
    """Larger than a limit that protects memory and time."""


class RegionError(CodecError):
    """A region that is not within the picture."""


class ImageError(CodecError):
    """The input picture cannot be coded as it is."""


class TargetError(CodecError):
    """No setting reaches the size or the quality that was asked for."""
