"""Measures: every picture × every codec × every setting, in worker processes, each result appended at once.

Each codec gets fresh processes of its own, so that its peak memory holds nothing of another codec, and each process is
pinned to `threads` cores of its own (on Linux), so that seconds mean the same whatever a library thinks of threads.
The parent imports no codec, only the workers do.

Seconds are wall clock around one call in process. Before the first measurement of a setting a worker runs it once
unmeasured: models are loaded, caches warm. Peak memory is the high-water mark of the worker's resident set during the
call: interpreter, libraries, model and picture (about 45 MiB before any codec) included.
"""

import concurrent.futures
import ctypes
import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import metrics
from . import images, peers, perceptual, rows, viewer
from .provenance import commit, machine


@dataclass
class Outcome:
    """What came of a run: pictures read, codecs that took part with their versions, how much was done and what was not."""

    pictures: list[images.Picture] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    measured: int = 0
    kept: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)  # pictures and rows
    missing: list[str] = dataclasses.field(default_factory=list)  # codecs left out, with the hint


def evaluate(
    paths: Sequence[Path],
    specs: Sequence[str],
    file: Path,
    *,
    grids: Mapping[str, Sequence[float]] | None = None,
    lossless: bool = False,
    processes: int = 1,
    threads: int = 1,
    perceptual_metrics: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int, int], None] = lambda spec, done, total: None,
) -> Outcome:
    """Appends to `file` the rows that it lacks.

    grids: settings by spec, in place of a codec's own; lossless: the lossless mode instead of any grid.
    say: told of each failure as it happens; progress: told spec, rows done and rows in all.
    A picture that cannot be read, a codec that is missing and a call that fails are reported and left out.
    An unknown spec is a peers.UnknownCodec before anything is measured.
    """
    for spec in specs:
        peers.check(spec)
    outcome = Outcome()

    def complain(line: str, where: list[str]) -> None:
        where.append(line)
        say(line)

    known, damaged = rows.read(file)
    for line in damaged:
        complain(line, outcome.failures)
    known_keys = {row.key for row in known}
    pictures = outcome.pictures = identify(paths, lambda line: complain(line, outcome.failures))

    for spec in specs:
        with Workers(spec, processes, threads, perceptual_metrics) as workers:
            try:
                version, grid, has_lossless = workers.describe()
                if not (has_lossless if lossless else grid):
                    mode = "lossless" if lossless else "lossy"
                    raise peers.MissingCodec(f"{spec} is left out: it has no {mode} mode")
            except peers.MissingCodec as error:
                complain(str(error), outcome.missing)
                continue
            outcome.versions[spec] = version
            settings = [peers.LOSSLESS] if lossless else (grids or {}).get(spec, grid)
            tasks = [(picture, setting) for picture in pictures for setting in settings]
            todo = [(p, s) for p, s in tasks if (p.sha256, spec, s, version) not in known_keys]
            outcome.kept += len(tasks) - len(todo)
            progress(spec, len(tasks) - len(todo), len(tasks))
            for done, result in enumerate(workers.call(measure, todo), start=len(tasks) - len(todo) + 1):
                if isinstance(result, rows.Row):
                    rows.append(file, [result])
                    outcome.measured += 1
                else:
                    complain(result, outcome.failures)
                progress(spec, done, len(tasks))
    return outcome


def photograph(
    pictures: Sequence[images.Picture],
    specs: Sequence[str],
    folder: Path,
    known: Sequence[rows.Row],
    *,
    rates: Sequence[float] = viewer.RATES,
    processes: int = 1,
    threads: int = 1,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int, int], None] = lambda spec, done, total: None,
) -> None:
    """Takes the pictures that `folder` lacks for the report's viewer, at each of `rates` in bpp.

    `known` rows narrow the search for a setting.
    A codec that is missing or only lossless is passed over in silence, since `evaluate` has named it.
    """
    there = {shot.key for shot in viewer.read(folder)}
    for picture in pictures:
        if (picture.sha256, 0.0, "", "") not in there:
            viewer.append(folder, *viewer.take_original(picture))
    for spec in specs:
        with Workers(spec, processes, threads) as workers:
            try:
                version, grid, _ = workers.describe()
            except peers.MissingCodec:
                continue
            if not grid:
                continue
            own = [row for row in known if (row.codec, row.codec_version) == (spec, version) and not row.lossless]
            tasks = [
                (picture, rate, [row for row in own if row.image_sha256 == picture.sha256])
                for picture in pictures
                for rate in rates
                if (picture.sha256, rate, spec, version) not in there
            ]
            progress(f"{spec} for the viewer", 0, len(tasks))
            for done, result in enumerate(workers.call(_photograph, tasks), start=1):
                if isinstance(result, str):
                    say(result)
                else:
                    viewer.append(folder, *result)
                progress(f"{spec} for the viewer", done, len(tasks))


def identify(paths: Iterable[Path], complain: Callable[[str], None]) -> list[images.Picture]:
    """The pictures that can be read, each once; `complain` is told of the others."""
    pictures: dict[str, images.Picture] = {}
    for path in paths:
        try:
            picture = images.identify(path)
        except (OSError, ValueError, images.Image.DecompressionBombError) as error:
            complain(f"{path} is left out: {error}")
            continue
        if picture.sha256 in pictures:
            complain(f"{path} is left out: the same pixels as {pictures[picture.sha256].path}")
        else:
            pictures[picture.sha256] = picture
    return list(pictures.values())


class Workers:
    """The processes of one codec: started here, with `call` given work, ended by leaving the `with`.

    Each is pinned to `threads` cores; what cannot be pinned (outside Linux) is left to the codec's own thread option.
    """

    def __init__(self, spec: str, processes: int, threads: int, perceptual_metrics: Sequence[str] = ()):
        context = multiprocessing.get_context("spawn")  # a fork would inherit the parent's memory and threads
        self.spec = spec
        cores = context.SimpleQueue()
        for group in _core_groups(processes, threads):
            cores.put(group)
        self.pool = concurrent.futures.ProcessPoolExecutor(
            processes, context, _start_worker, (cores, spec, threads, tuple(perceptual_metrics))
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.pool.shutdown(wait=True, cancel_futures=True)

    def describe(self) -> tuple[str, Sequence[float], bool]:
        """Version, grid and whether there is a lossless mode. MissingCodec if it cannot be had, UnknownCodec for its spec."""
        try:
            return self.pool.submit(_describe).result()
        except (peers.MissingCodec, peers.UnknownCodec):
            raise
        except BrokenProcessPool:
            raise peers.MissingCodec(f"{self.spec} is left out: its process died while it was loaded") from None
        except Exception as error:  # a codec that is installed but broken
            raise peers.MissingCodec(f"{self.spec} is left out: {type(error).__name__}: {error}") from error

    def call(self, function: Callable, tasks: Iterable[tuple]):
        """Yields function(*task), or a complaint in words, as each task ends; a task is (picture, setting or rate, …)."""
        futures = {self.pool.submit(function, *task): task for task in tasks}
        for future in concurrent.futures.as_completed(futures):
            picture, wanted, *_ = futures[future]
            try:
                yield future.result()
            except BrokenProcessPool:
                # Which picture it was working on is not known: all unfinished ones fail together.
                yield f"{self.spec}: a process of this codec died near {picture.path}; the rest of its rows is left out"
                return
            except Exception as error:  # whatever a codec's library throws: this result is lost, the run is not
                yield f"{picture.path}: {self.spec} at {_words(wanted)}: {type(error).__name__}: {error}"


def _words(setting: float | None) -> str:
    return "lossless" if setting is peers.LOSSLESS else f"{setting:g}"


def _core_groups(processes: int, threads: int) -> list[list[int]]:
    """Disjoint groups of `threads` cores for the workers, as far as there are cores; [] means: do not pin."""
    if not hasattr(os, "sched_getaffinity"):
        return [[]] * processes
    cores = sorted(os.sched_getaffinity(0))
    return [[cores[(worker * threads + k) % len(cores)] for k in range(threads)] for worker in range(processes)]


# ── In a worker process ──────────────────────────────────────────────────────────────────────────────────────────────

_worker: "_Worker"


@dataclass
class _Worker:
    spec: str
    threads: int
    perceptual_metrics: Sequence[str]
    peer: peers.Peer | None = None
    warm: set = dataclasses.field(default_factory=set)  # settings that ran once


def _start_worker(cores, spec: str, threads: int, perceptual_metrics: Sequence[str]) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it lets running measurements end
    group = cores.get()
    if group:
        os.sched_setaffinity(0, group)
    _worker = _Worker(spec, threads, perceptual_metrics)


def _peer() -> peers.Peer:
    # Not in the initializer: what it raises breaks the pool instead of reaching the parent.
    if _worker.peer is None:
        _worker.peer = peers.build(_worker.spec, _worker.threads)
    return _worker.peer


def _describe() -> tuple[str, Sequence[float], bool]:
    return _peer().version, _peer().grid, _peer().lossless


def measure(picture: images.Picture, setting: float | None) -> rows.Row:
    """One row; to be run by Workers.call."""
    peer = _peer()
    image = images.load(picture.path)
    if setting not in _worker.warm:
        peer.decode(peer.encode(image, setting))
        _worker.warm.add(setting)
    data, encode_s, encode_peak = _timed(lambda: peer.encode(image, setting))
    decoded, decode_s, decode_peak = _timed(lambda: peer.decode(data))

    x, y = np.asarray(image), np.asarray(decoded)
    if y.shape != x.shape:
        raise ValueError(f"decoded to {decoded.size}, {decoded.mode}")
    if setting is peers.LOSSLESS and not np.array_equal(x, y):
        raise ValueError("not lossless: decoded pixels differ")
    try:
        ms_ssim, note = metrics.ms_ssim(x, y), ""
    except ValueError as error:
        ms_ssim, note = None, str(error)
    return rows.Row(
        image=picture.name,
        image_sha256=picture.sha256,
        width=picture.width,
        height=picture.height,
        codec=_worker.spec,
        codec_version=peer.version,
        setting=setting,
        bytes=len(data),
        bpp=metrics.bpp(len(data), picture.width, picture.height),
        psnr_rgb=_finite(metrics.psnr(x, y)),
        psnr_y=_finite(metrics.psnr_luma(x, y)),
        ms_ssim=ms_ssim,
        encode_s=encode_s,
        decode_s=decode_s,
        encode_peak_mib=encode_peak,
        decode_peak_mib=decode_peak,
        threads=_worker.threads,
        commit=commit(),
        machine=machine(),
        note=note,
        perceptual={name: perceptual.METRICS[name](image, decoded) for name in _worker.perceptual_metrics},
    )


def _photograph(picture: images.Picture, rate: float, known: Sequence[rows.Row]) -> tuple[viewer.Shot, bytes]:
    return viewer.take(_peer(), _worker.spec, picture, rate, known)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _timed(call):
    """The call's result, its seconds, and the peak of resident memory during it in MiB (None unless on Linux)."""
    _reset_peak_memory()
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    return result, seconds, _peak_memory_mib()


def _reset_peak_memory() -> None:
    if sys.platform == "linux":
        # What earlier calls freed but the allocator kept would count as memory of this one.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
        if trim:
            trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM to the present size


def _peak_memory_mib() -> float | None:
    if sys.platform != "linux":
        return None
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
