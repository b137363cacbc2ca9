"""Where networks run, and with how many threads; neither changes what a file says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ..errors import UnsupportedError

@contextlib.contextmanager
def execution(device: str, threads: int) -> Iterator[str]:
    """Thread count for the duration, no gradients; yields the device to run on."""
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
