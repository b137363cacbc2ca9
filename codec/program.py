"""A process of our own: what is set before a command runs, and how it ends. A library call does none of this.

Streams that the caller has closed stay closed for us: their numbers are held, so that no file that is opened later gets
one of them. Words for people never stop the work: what a console cannot show is written in other characters, and a
reader of stderr that has gone is not missed. What goes to stdout is asked for, and if it does not arrive, the exit
status says so.
"""

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable

# How long OpenMP's threads (of GNU's library, which torch brings on Linux) wait in a loop before they sleep: some 12
# microseconds, as pauses between two layers take. Its own 300 000 are milliseconds, which on a machine with other work
# are taken from the thread that is waited for.
SPIN = "1000"
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")  # by any of which somebody may have chosen


def run(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """The exit status of a command; stdout has taken all of its output, or the status is not 0."""
    _choose_waiting()
    _hold_streams()
    _let_words_pass()
    try:
        status = command(arguments)
    except SystemExit as end:  # argparse, and signals
        status = end.code
    except BrokenPipeError:  # the reader of stdout has enough
        status = 1
    except OSError as error:
        status = _failed(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):  # without this the interpreter complains once more as it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            status = status or _failed(error)
    return status or 0


def _failed(error: OSError) -> int:
    where = f"{error.filename}: " if error.filename else ""
    print(f"error: {where}{(error.strerror or str(error)).lower()}", file=sys.stderr)
    return 1


def _choose_waiting() -> None:
    """Before torch is loaded, which loads OpenMP; unless somebody has chosen already."""
    if not any(name in os.environ for name in WAITING):
        os.environ[WAITING[0]] = SPIN


class _Closed(io.TextIOBase):
    """stdout where there is none."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "stdout is closed")

    @property
    def buffer(self):
        raise OSError(errno.EBADF, "stdout is closed")


class _Words(io.TextIOWrapper):
    """stderr, heard or not."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _hold_streams() -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                held = os.open(os.devnull, os.O_RDWR)
                if held == number:
                    os.set_inheritable(held, True)
                else:
                    os.dup2(held, number)
                    os.close(held)
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = _Words(open(os.devnull, "wb"), "utf-8")


def _let_words_pass() -> None:
    codecs.register_error(_OTHERWISE, _otherwise)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_OTHERWISE)
    if type(sys.stderr) is io.TextIOWrapper:
        how = {"line_buffering": True, "write_through": sys.stderr.write_through}
        sys.stderr = _Words(sys.stderr.buffer, sys.stderr.encoding, _OTHERWISE, **how)


_OTHERWISE = "codec.otherwise"
_PLAIN = {"×": "x", "→": "->", "…": "...", "–": "-", "−": "-", "≥": ">=", "·": "*", "\u2009": " ", "λ": "lambda", "²": "^2"}


def _otherwise(error: UnicodeError) -> tuple[str, int]:
    """One character that an encoding lacks, in others; bytes of a file name that are no text, as numbers."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        plain = f"\\x{ord(character) - 0xDC00:02x}"
    else:
        plain = _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode()
    return plain, error.start + 1
