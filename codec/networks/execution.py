"""Where networks run, and with how many threads; neither changes what a file says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from ..errors import UnsupportedError

# A forked child inherits OpenMP's idea of its threads but not the threads, and waits for them for ever: it runs on one.
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def execution(device: str, threads: int) -> Iterator[str]:
    """Thread count for the duration (0: torch's own; 1 in a forked process), no gradients; yields the device to run on."""
    threads = 1 if _forked else threads
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UnsupportedError("device cuda: no such device is available here")
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            yield "cuda" if device != "cpu" and available else "cpu"
    finally:
        if threads:
            torch.set_num_threads(before)
