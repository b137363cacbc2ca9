"""Where networks run, with how many threads, apart from what the host program has set: none of it changes a file."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import torch
from torch.overrides import _pop_mode, _push_mode  # not documented; there since torch 2.0

from ..errors import UnsupportedError

# A forked child inherits OpenMP's idea of its threads but not the threads, and waits for them for ever: it runs on one.
_forked = False

# torch's thread count is two numbers: that of the calling thread, which alone counts for it, and one for the process, from
# which a thread takes its own when it first asks. `set_num_threads` changes both. So a change here is made in one thread
# only, by putting the number of the process back at once; no other thread starts from it, and none is left with it.
_thread_count = threading.Lock()


def _after_fork() -> None:
    global _forked, _thread_count
    _forked, _thread_count = True, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """torch as it is in a program that has set nothing, in this thread and for the duration; afterwards all is as it was.

    Left out are the host's autocast, inference mode, gradients, and whatever it has put between its calls and torch: a
    default device, modes that see functions or operators. Tensors that are made here may be kept and used anywhere.
    What torch has for the whole process is not touched, for other threads would see it, and the networks do not depend
    on it: they name the type of what they make (default type), take no products of float32 matrices (their precision),
    draw from generators of their own. Only without oneDNN (`torch.backends.mkldnn.enabled`), and where the host lets it
    round convolutions (`torch.backends.mkldnn.conv.fp32_precision`), an encoder may choose otherwise, as elsewhere.
    """
    modes = [_pop_mode() for _ in range(torch._C._len_torch_function_stack())]
    try:
        with contextlib.ExitStack() as settings:
            settings.enter_context(torch._C._DisableTorchDispatch())
            settings.enter_context(torch.inference_mode(False))
            for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
                settings.enter_context(torch.autocast(kind, enabled=False))
            settings.enter_context(torch.no_grad())
            yield
    finally:
        for mode in reversed(modes):
            _push_mode(mode)


@contextlib.contextmanager
def execution(device: str, threads: int) -> Iterator[str]:
    """`apart`, with a thread count for the duration (0: torch's own; 1 in a forked process); yields the device to run on.

    Safe in several threads at once, each with a count of its own. MemoryError where torch has no memory left.
    """
    threads = 1 if _forked else threads
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UnsupportedError("device cuda: no such device is available here")
    with _thread_count:
        before = torch.get_num_threads()
    try:
        if threads:
            _use_threads(threads)
        with apart():
            yield "cuda" if device != "cpu" and available else "cpu"
    except RuntimeError as error:
        # The last is how oneDNN says it.
        words = ("can't allocate memory", "could not create a primitive")
        if any(word in str(error) for word in words) or isinstance(error, torch.cuda.OutOfMemoryError):
            raise MemoryError(f"not enough memory: {str(error).splitlines()[0]}") from error
        raise
    finally:
        if threads:
            _use_threads(before)


def _use_threads(count: int) -> None:
    """The number of threads for this thread alone."""
    with _thread_count:
        if count == torch.get_num_threads():
            return
        of_process = _in_new_thread(torch.get_num_threads)
        torch.set_num_threads(count)
        if of_process != count:
            _in_new_thread(lambda: torch.set_num_threads(of_process))


def _in_new_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]
