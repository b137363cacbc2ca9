"""Bytes by name: read whole, and written whole or not at all. "-" is stdin or stdout.

Names of what is open already (/dev/stdin, /dev/stdout, /dev/fd/63, as shells make of <(…) and >(…)), named pipes and
devices are streams too: read to their end, written to as they are, never replaced. docs/INPUTS.md, "Streams and names".
"""

import errno
import os
import re
import secrets
import shutil
import stat
import sys
from pathlib import Path

from ..errors import LimitError

MOST = 2**31  # bytes from a stream, whose size nobody knows: more than the largest picture needs, and an end to /dev/zero
_PIECE = 2**20
_STANDARD = ("stdin", "stdout", "stderr")
_OPEN_ALREADY = re.compile(r"/dev/(?:stdin|stdout|stderr)|/(?:dev|proc/self)/fd/[0-9]+" if os.name == "posix" else "(?!)")


def _number(name: str) -> int | None:
    """Of what is open already under such a name."""
    if not _OPEN_ALREADY.fullmatch(name):
        return None
    last = name.rpartition("/")[2]
    number = _STANDARD.index(last) if last in _STANDARD else int(last)
    if number < len(_STANDARD) and getattr(sys, f"__{_STANDARD[number]}__") is None:  # what is there instead is not meant
        raise OSError(errno.EBADF, f"{_STANDARD[number]} is closed")
    return number


def is_stream(name: str) -> bool:
    """Whether `name` is no file that could be replaced: a pipe, a device, what is open already."""
    if name == "-" or _OPEN_ALREADY.fullmatch(name):
        return True
    found = _found(name)
    return found is not None and not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode)


def is_same_file(name: str, other: str) -> bool:
    """Whether two names are of one file that exists. OSError if the second is not there."""
    return not is_stream(name) and not is_stream(other) and _found(name) is not None and os.path.samefile(name, other)


def _found(name: str) -> os.stat_result | None:
    """What a name leads to, a link's target; None if that is not there yet. OSError for what no file can be."""
    try:
        return os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_bytes(name: str) -> bytes:
    """All bytes of a file or a stream. OSError, LimitError for a stream beyond MOST."""
    if name == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, "stdin is closed")
        return _read_stream(sys.stdin.buffer)
    number = _number(name)
    with open(name if number is None else os.dup(number), "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else _read_stream(file)


def _read_stream(file) -> bytes:
    if file.isatty():
        raise OSError("refusing to read a picture from a terminal")
    pieces, size = [], 0
    while piece := file.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > MOST:
            raise LimitError(f"more than {MOST} bytes come from a stream")
    return b"".join(pieces)


def check_output(name: str, *, overwrite: bool) -> None:
    """OSError now rather than after the work if `name` cannot become a file."""
    if name == "-":
        if sys.stdout is None:
            raise OSError(errno.EBADF, "stdout is closed")
        if sys.stdout.isatty():
            raise OSError("refusing to write binary data to a terminal")
        return
    number = _number(name)
    if number is not None:
        if os.isatty(number):
            raise OSError("refusing to write binary data to a terminal")
        import fcntl  # of POSIX systems, as such names are

        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(f"{name} is open for reading only")
        return
    found = _found(name)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{name} is a directory")
    if not overwrite and found is not None and stat.S_ISREG(found.st_mode):
        raise FileExistsError(f"{name} exists and is not to be replaced")
    if not name:
        raise FileNotFoundError("the output has no name")
    folder = Path(name) if name.endswith((os.sep, os.altsep or os.sep)) else Path(name).parent
    for place in (folder, Path(os.path.realpath(name)).parent):  # that of the name, and that of what a link leads to
        if not place.is_dir():
            raise FileNotFoundError(f"{name} cannot be written: there is no directory {place}")


def _take_name(temporary: Path, path: Path) -> None:
    """Rename unless something has that name, even if it has come this moment: FileExistsError."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: hold the name with an empty file first
        path.touch(exist_ok=False)
        try:
            os.replace(temporary, path)
        except BaseException:
            path.unlink()
            raise


def write_bytes(name: str, data: bytes, *, overwrite: bool = True) -> None:
    """All of `data` under `name`, or, whatever happens, what was there before.

    The bytes go to a temporary file beside the target, which then takes its name; a link is followed to its target, which
    need not exist. A stream gets them as far as it takes them. OSError.
    """
    check_output(name, overwrite=overwrite)
    if name == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if is_stream(name):
        number = _number(name)
        with open(name if number is None else os.dup(number), "wb") as file:
            file.write(data)
        return
    path = Path(os.path.realpath(name))
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            if path.exists():
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
        else:
            _take_name(temporary, path)
    except FileExistsError as error:
        raise FileExistsError(f"{name} exists and is not to be replaced") from error
    except OSError as error:
        raise OSError(f"{name} cannot be written: {(error.strerror or str(error)).lower()}") from error
    finally:
        if temporary.exists():  # on a read-only system even the removal of nothing is an error
            temporary.unlink()
