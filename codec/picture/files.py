"""Bytes by name: read whole, and written whole or not at all. "-" is a pipe."""

import os
import secrets
import shutil
import stat
import sys
from pathlib import Path


def read_bytes(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def check_output(name: str, *, overwrite: bool) -> None:
    """OSError now rather than after the work if `name` cannot become a file."""
    if name == "-":
        if sys.stdout.isatty():
            raise OSError("refusing to write binary data to a terminal")
        return
    path = Path(name)
    if path.is_dir():
        raise IsADirectoryError(f"{name} is a directory")
    if not overwrite and path.exists():
        raise FileExistsError(f"{name} exists and is not to be replaced")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{name} cannot be written: there is no directory {path.parent}")


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

    The bytes go to a temporary file beside the target, which then takes its name; a link is followed to its target,
    and what is not a regular file (a device, a named pipe) is written to directly.
    """
    check_output(name, overwrite=overwrite)
    if name == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(os.path.realpath(name))
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        path.write_bytes(data)
        return
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
