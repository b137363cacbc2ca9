"""Measures: every picture × every codec × every setting, in worker processes, each result appended at once.

Each codec gets fresh processes of its own, so that its peak memory holds nothing of another codec, and each process is
pinned to `threads` cores of its own (on Linux), so that seconds mean the same whatever a library thinks of threads.
The parent imports no codec, only the workers do. The optional metrics are measured by a process beside each worker, so
that their libraries take no memory of a codec's.

Seconds are wall clock around one call in process. Before the first measurement of a setting a worker runs it once
unmeasured: models are loaded, caches warm. Peak memory is the high-water mark of the worker's resident set during the
call: interpreter, libraries, model and picture (about 45 MiB before any codec) included.
"""

import concurrent.futures
import ctypes
import dataclasses
import functools
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
from . import columns, images, peers, rows, viewer
from .provenance import commit, machine


@dataclass
class Outcome:
    """What came of a run: pictures read, codecs that took part with their versions, how much was done and what was not."""

    pictures: list[images.Picture] = dataclasses.field(default_factory=list)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    measured: int = 0
    kept: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)  # pictures and rows
    missing: list[str] = dataclasses.field(default_factory=list)  # codecs and metrics left out, with the hint


def evaluate(
    paths: Sequence[Path],
    specs: Sequence[str],
    file: Path,
    *,
    grids: Mapping[str, Sequence[float]] | None = None,
    lossless: bool = False,
    processes: int = 1,
    threads: int = 1,
    optional: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int, int], None] = lambda spec, done, total: None,
) -> Outcome:
    """Appends to `file` the rows that it lacks, and anew those that lack one of the optional metrics.

    grids: settings by spec, in place of a codec's own; lossless: the lossless mode instead of any grid.
    optional: metrics, see columns.py; one that cannot be had is reported and left out.
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
    known_keys = None  # asked for when a process is there
    pictures = outcome.pictures = identify(paths, lambda line: complain(line, outcome.failures))

    for spec in specs:
        with Workers(spec, processes, threads, optional) as workers:
            try:
                version, grid, has_lossless = workers.describe()
                if not (has_lossless if lossless else grid):
                    mode = "lossless" if lossless else "lossy"
                    raise peers.MissingCodec(f"{spec} is left out: it has no {mode} mode")
            except peers.MissingCodec as error:
                complain(str(error), outcome.missing)
                continue
            outcome.versions[spec] = version
            if known_keys is None:
                missing = workers.missing_metrics()
                for line in missing.values():
                    complain(line, outcome.missing)
                wanted = set(optional) - set(missing)
                known_keys = {row.key for row in known if wanted <= set(row.perceptual)}
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
    optional: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int, int], None] = lambda spec, done, total: None,
) -> None:
    """Takes the pictures that `folder` lacks for the report's viewer, at each of `rates` in bpp.

    `known` rows narrow the search for a setting. A codec that is missing or only lossless and a metric that is missing
    are passed over in silence, since `evaluate` has named them.
    """
    shots = viewer.read(folder)
    there = None  # asked for when a process is there
    originals = {shot.image_sha256 for shot in shots if not shot.codec}
    for picture in pictures:
        if picture.sha256 not in originals:
            viewer.append(folder, *viewer.take_original(picture))
    for spec in specs:
        with Workers(spec, processes, threads, optional) as workers:
            try:
                version, grid, _ = workers.describe()
            except peers.MissingCodec:
                continue
            if not grid:
                continue
            if there is None:
                wanted = set(optional) - set(workers.missing_metrics())
                there = {shot.key for shot in shots if wanted <= set(shot.perceptual)}
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

    def __init__(self, spec: str, processes: int, threads: int, optional: Sequence[str] = ()):
        context = multiprocessing.get_context("spawn")  # a fork would inherit the parent's memory and threads
        self.spec = spec
        cores = context.SimpleQueue()
        for group in _core_groups(processes, threads):
            cores.put(group)
        self.pool = concurrent.futures.ProcessPoolExecutor(
            processes, context, _start_worker, (cores, spec, threads, tuple(optional))
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

    def missing_metrics(self) -> dict[str, str]:
        """Of the optional metrics those that cannot be had, each with the reason."""
        return self.pool.submit(_missing_metrics).result()

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
    judge: "_Judge"
    peer: peers.Peer | None = None
    warm: set = dataclasses.field(default_factory=set)  # settings that ran once


def _start_worker(cores, spec: str, threads: int, optional: Sequence[str]) -> None:
    global _worker
    _ignore_interrupts()
    group = cores.get()
    if group:
        os.sched_setaffinity(0, group)
    _worker = _Worker(spec, threads, _Judge(optional))


def _peer() -> peers.Peer:
    # Not in the initializer: what it raises breaks the pool instead of reaching the parent.
    if _worker.peer is None:
        _worker.peer = peers.build(_worker.spec, _worker.threads)
    return _worker.peer


def _describe() -> tuple[str, Sequence[float], bool]:
    return _peer().version, _peer().grid, _peer().lossless


def _missing_metrics() -> dict[str, str]:
    return _worker.judge.missing()


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
    notes = []
    try:
        ms_ssim = metrics.ms_ssim(x, y)
    except ValueError as error:
        ms_ssim = None
        notes.append(str(error))
    values, complaints = _worker.judge(x, y)
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
        note="; ".join(notes + complaints),
        perceptual=values,
    )


def _photograph(picture: images.Picture, rate: float, known: Sequence[rows.Row]) -> tuple[viewer.Shot, bytes]:
    return viewer.take(_peer(), _worker.spec, picture, rate, known, lambda x, y: _worker.judge(x, y)[0])


class _Judge:
    """A process that measures the optional metrics, started when first needed; no failure of theirs gets out of it."""

    def __init__(self, optional: Sequence[str]):
        self.optional = optional
        self.process = self.pipe = None

    def missing(self) -> dict[str, str]:
        return self._call(_load_metrics, self.optional) or {} if self.optional else {}

    def __call__(self, original: np.ndarray, decoded: np.ndarray) -> tuple[dict[str, float | None], list[str]]:
        """Each metric that can be had, None where it is undefined for this picture, and in words why."""
        if not self.optional:
            return {}, []
        died = dict.fromkeys(self.optional), ["the process of the metrics died"]
        return self._call(_measure_metrics, self.optional, original, decoded) or died

    def _call(self, function: Callable, *arguments):
        """Its result, or None if the process dies; the next call gets a new one."""
        try:
            if self.process is None:
                context = multiprocessing.get_context("spawn")
                self.pipe, theirs = context.Pipe()
                self.process = context.Process(target=_serve_metrics, args=(theirs,), daemon=True)  # ends with this one
                self.process.start()
                theirs.close()
            self.pipe.send((function, arguments))
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process = None
            return None


def _ignore_interrupts() -> None:
    """Ctrl-C is the parent's: it lets running measurements end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)




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


# ── In the process of the metrics ────────────────────────────────────────────────────────────────────────────────────


def _serve_metrics(pipe) -> None:
    """Answers calls until the other end is closed."""
    _ignore_interrupts()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that libraries clean up when the worker ends
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(function(*arguments))


@functools.cache
def _metric(name: str) -> columns.Measure | str:
    """How it is measured, or why it cannot be."""
    try:
        return columns.load(name)
    except columns.MissingMetric as error:
        return str(error)


def _load_metrics(names: Sequence[str]) -> dict[str, str]:
    return {name: f"metric {name} is left out: {why}" for name in names if isinstance(why := _metric(name), str)}


def _measure_metrics(names: Sequence[str], original: np.ndarray, decoded: np.ndarray) -> tuple[dict, list[str]]:
    """As _Judge gives them."""
    values, complaints = {}, []
    for name in names:
        if isinstance(measure := _metric(name), str):
            continue
        try:
            values[name] = _finite(measure(original, decoded))
        except Exception as error:  # whatever a metric's library throws: this value is lost, the row is not
            values[name] = None
            complaints.append(f"{name}: {type(error).__name__}: {error}")
    return values, complaints
