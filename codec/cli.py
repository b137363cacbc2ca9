"""The command line: `compress`, `decompress`, and `codec` with everything. Words only; the work is done in api.py.

stdout carries data, and what `inspect` was asked for; everything else goes to stderr. Exit 0: done, 1: a file failed,
2: wrong usage, 130 and 143: interrupted or terminated, with nothing half-written left behind.
"""

import argparse
import concurrent.futures.process
import contextlib
import dataclasses
import functools
import io
import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from . import __version__, api, metrics, program, request
from .errors import CodecError
from .picture import conversion, files, reading, writing
from .picture.metadata import Metadata
from .picture.picture import remark_metadata

SUFFIX = ".lic"


def main(argv: list[str] | None = None) -> int:
    """`codec COMMAND …`; `argv` without the program name. Returns the exit status, or raises SystemExit as argparse.

    Without `argv` this process is ours alone: its arguments are taken, and its streams and OpenMP are set (`program.py`).
    """
    if argv is None:
        return program.run(main, sys.argv[1:])
    parser = argparse.ArgumentParser(prog="codec", description="A learned image codec.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    run = None
    for name, (summary, load) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:  # only this one is imported and spelled out: `codec --help` stays immediate
            run = load(command)
    args = parser.parse_args(argv)
    return _guarded(run, args)


def main_compress() -> int:
    return program.run(main, ["compress", *sys.argv[1:]])


def main_decompress() -> int:
    return program.run(main, ["decompress", *sys.argv[1:]])


def _guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command so that SIGINT and SIGTERM unwind it: every `finally` on the way removes its temporary file."""

    def unwind(number, frame):
        raise SystemExit(128 + number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if in_main_thread else ()
    previous = [(number, signal.signal(number, unwind)) for number in numbers]
    try:
        return run(args)
    except KeyboardInterrupt:
        return 130
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


# ── compress ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _load_compress(parser: argparse.ArgumentParser) -> Callable:
    _add_files(parser, f"image file(s), then the output; with --output-dir all are inputs, each becomes NAME{SUFFIX}")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "-q", "--quality", type=quality, metavar="0..100",
        help="higher is better; fractions count; 100 is the best lossy point (default: 75)",
    )
    how.add_argument("-l", "--lossless", action="store_true", help="return every pixel exactly")
    parser.add_argument("--lossy", action="store_true", help="lossy even where an exact file is no larger, as of screenshots")
    how.add_argument("--target-bytes", type=count, metavar="N", help="at most N bytes; 20k is 20 000, 1.5M 1 500 000")
    how.add_argument("--target-bpp", type=positive, metavar="X", help="at most X bits per pixel")
    how.add_argument("--target-psnr", type=positive, metavar="DB", help="at least DB decibels")
    how.add_argument(
        "--target-ssimulacra2", type=points, metavar="S",
        help="at least S points of SSIMULACRA 2: 90 is hardly visible, 70 high, 50 medium; smallest with --tune ssimulacra2",
    )
    parser.add_argument(
        "-e", "--effort", type=int, choices=range(1, 10), default=3, metavar="1..9",
        help="higher is slower and smaller, for the encoder only (default: 3)",
    )
    parser.add_argument(
        "--tune", choices=metrics.TUNES, default=metrics.PSNR,
        help="what the encoder works for, beside a small file: a low squared error, a high structural similarity, or what people see (default: psnr)",
    )
    parser.add_argument("--first-frame", action="store_true", help="of an animation, code the first frame")
    parser.add_argument("--verify", action="store_true", help="decode before success is reported (always of lossless files)")
    _add_execution(parser)

    def run(args: argparse.Namespace) -> int:
        if args.lossy and args.lossless:
            parser.error("argument --lossy: not allowed with argument -l/--lossless")
        if args.tune != metrics.PSNR and (args.lossless or args.effort == 1):
            parser.error(f"--tune {args.tune} is for the search of lossy files: not with {'-l' if args.lossless else '-e 1'}")
        return _each_file(parser, args, SUFFIX, _compress)

    return run


def _compress(args: argparse.Namespace, source: str, target: str) -> tuple[bytes, str]:
    if writing.is_image_name(target) and Path(target).exists():  # hardly meant
        raise FileExistsError(f"{target} exists and is an image by its name: remove it first, or take another name")
    remarks: list[str] = []
    image = reading.read_image(
        source, first_frame=args.first_frame, max_pixels=args.max_pixels, exact=args.lossless, remark=remarks.append
    )
    data = api.compress(
        image,
        request.DEFAULT_QUALITY if args.quality is None else args.quality,
        lossless=request.NEVER if args.lossy else args.lossless,
        effort=args.effort,
        tune=args.tune,
        target_bytes=args.target_bytes,
        target_bpp=args.target_bpp,
        target_psnr=args.target_psnr,
        target_ssimulacra2=args.target_ssimulacra2,
        device=args.device,
        threads=args.threads,
        progress=args.progress,
        **_dropped_metadata(args),
    )
    info = api.inspect(data)
    if args.verify or info.lossless:
        api.verify(data, image, device=args.device, threads=args.threads, max_pixels=args.max_pixels)
    parts = f"  ({_parts(info)})" if args.verbose else ""
    if not info.lossless and not isinstance(image, np.ndarray) and (conversion_words := conversion.needed(image)):
        remarks.append(conversion_words)
    if info.lossless and not args.lossless:
        fits = args.target_bytes or args.target_bpp
        remarks.append("lossless, as the target allows" if fits else "lossless, which takes no more bytes than lossy")
    remark_metadata(image, info.mode, dropped=args.no_metadata, remark=remarks.append)
    if writing.is_image_name(target):
        remarks.append(f"a file of this codec, though its name ends in {Path(target).suffix}")
    return data, f"{_grouped(info.bytes)} B  {info.bpp:.3f} bpp{parts}{_remarked(remarks)}"


def _remarked(remarks: list[str]) -> str:
    """What the line about a file says after its figures."""
    return "  " + "; ".join(" ".join(words.split()) for words in remarks) if remarks else ""


def _dropped_metadata(args: argparse.Namespace) -> dict[str, bytes]:
    return dict.fromkeys(("exif", "icc_profile", "xmp"), b"") if args.no_metadata else {}


# ── decompress ────────────────────────────────────────────────────────────────────────────────────────────────────


def _load_decompress(parser: argparse.ArgumentParser) -> Callable:
    _add_files(
        parser,
        "compressed file(s), then the output, whose suffix picks the image format (PNG for -); "
        "with --output-dir all are inputs, each becomes NAME.png",
    )
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--region", type=rectangle, metavar="X,Y,W,H", help="only these pixels: left, top, width, height")
    part.add_argument("--preview", type=int, choices=(8, 16), help="a picture that many times smaller, much faster")
    _add_execution(parser)
    return lambda args: _each_file(parser, args, ".png", _decompress)


def _decompress(args: argparse.Namespace, source: str, target: str) -> tuple[bytes, str]:
    format = writing.format_of(target)
    data = files.read_bytes(source)
    part = {"region": args.region, "preview": args.preview, "max_pixels": args.max_pixels}
    image = api.decompress(data, **part, device=args.device, threads=args.threads)
    info = api.inspect(data)
    if args.no_metadata:
        for field in dataclasses.fields(Metadata):
            image.info.pop(field.name, None)
    remarks: list[str] = []
    content = writing.image_bytes(image, format, remark=remarks.append)
    return content, f"{info.width}×{info.height} {info.mode}{_remarked(remarks)}"


# ── inspect, and the commands of other folders ────────────────────────────────────────────────────────────────────


def _load_inspect(parser: argparse.ArgumentParser) -> Callable:
    parser.add_argument("files", nargs="+", metavar="FILE", help="compressed file; - is stdin")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="-vv: traceback of an error")
    return _inspect


def _inspect(args: argparse.Namespace) -> int:
    def show(name: str) -> None:
        info = api.inspect(files.read_bytes(name))
        if args.json:
            print(json.dumps({"file": name, **dataclasses.asdict(info)}))
            return
        how = "lossless" if info.lossless else f"quality {info.quality:g}"
        model = "no model" if info.model == "00000000" else f"model {info.model}"
        print(f"{name}: {info.width}×{info.height} {info.mode}, {how}, {model}")
        print(f"  {_grouped(info.bytes)} B  {info.bpp:.3f} bpp  ({_parts(info)})")

    shown = [_reported(args, name, functools.partial(show, name)) for name in args.files]  # of all files, whatever becomes of one
    return int(not all(shown))


def _parts(info: api.Info) -> str:
    ways = {part: f" by {way}" for part, way in info.ways.items()}
    return ", ".join(f"{part} {_grouped(length)}{ways.get(part, '')}" for part, length in info.sections.items())


def _load_evaluate(parser: argparse.ArgumentParser) -> Callable:
    from .evaluation.cli import add_arguments_evaluate, run_evaluate

    add_arguments_evaluate(parser)
    return run_evaluate


def _load_plot(parser: argparse.ArgumentParser) -> Callable:
    from .evaluation.cli import add_arguments_plot, run_plot

    add_arguments_plot(parser)
    return run_plot


def _load_compare(parser: argparse.ArgumentParser) -> Callable:
    from .evaluation.cli import add_arguments_compare, run_compare

    add_arguments_compare(parser)
    return run_compare


def _load_explain(parser: argparse.ArgumentParser) -> Callable:
    from .evaluation.cli import add_arguments_explain, run_explain

    add_arguments_explain(parser)
    return run_explain


def _load_sample(parser: argparse.ArgumentParser) -> Callable:
    from .evaluation.cli import add_arguments_sample, run_sample

    add_arguments_sample(parser)
    return run_sample


def _load_train(parser: argparse.ArgumentParser) -> Callable:
    from .training.cli import add_arguments, run

    add_arguments(parser)
    return run


COMMANDS = {  # name: (summary, function that adds the arguments to a parser and returns what runs them)
    "compress": ("compress images", _load_compress),
    "decompress": ("decompress to image files", _load_decompress),
    "inspect": ("show what the header of compressed files says", _load_inspect),
    "evaluate": ("measure codecs on a folder of images", _load_evaluate),
    "plot": ("draw what evaluate measured", _load_plot),
    "compare": ("set two measurements against each other", _load_compare),
    "explain": ("show where the bits of a picture go and what moving a latent does", _load_explain),
    "sample": ("draw a picture from the learned prior", _load_sample),
    "train": ("train a model", _load_train),
}


# ── many files: arguments, the loop, its words ────────────────────────────────────────────────────────────────────


def _add_files(parser: argparse.ArgumentParser, summary: str) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help=summary + "; - is stdin or stdout")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", metavar="OUT", help="the output, instead of the last FILE")
    where.add_argument("--output-dir", metavar="DIR", help="the folder for the outputs, made if missing")
    parser.add_argument("--no-overwrite", action="store_true", help="refuse to replace a file")


def _add_execution(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-metadata", action="store_true", help="drop ICC profile, EXIF and XMP")
    parser.add_argument("--max-pixels", type=count, metavar="N", help="refuse larger pictures (default: 2^28)")
    parser.add_argument("-j", "--threads", type=thread_count, default=0, metavar="N", help="0, the default, is all")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more; -vv: traceback of an error")


def _jobs(parser: argparse.ArgumentParser, args: argparse.Namespace, suffix: str) -> list[tuple[str, str]]:
    """Pairs of input and output names; exits with status 2 if the arguments do not make such pairs."""
    files = args.files
    if args.output_dir is not None:
        if "-" in files:
            parser.error("- cannot go to --output-dir: it has no name; use -o")
        jobs = [(name, str(Path(args.output_dir, Path(name).stem + suffix))) for name in files]
        sources: dict[str, str] = {}
        for source, target in jobs:
            if target in sources:
                parser.error(f"{sources[target]} and {source} would both become {target}")
            sources[target] = source
        return jobs
    if args.output is not None:
        files = [*files, args.output]
    if len(files) == 1:
        parser.error("the output is missing: name it last, or with -o (- is stdout)")
    if len(files) > 2:
        parser.error(f"{len(files)} files are neither IN OUT nor IN -o OUT: give --output-dir for several inputs")
    return [(files[0], files[1])]


def _each_file(parser: argparse.ArgumentParser, args: argparse.Namespace, suffix: str, convert: Callable) -> int:
    """Convert every input; a bad one is reported and the rest go on. Returns the exit status."""
    jobs = _jobs(parser, args, suffix)
    if folder := args.output_dir:
        if not _reported(args, folder, lambda: Path(folder).mkdir(parents=True, exist_ok=True)):
            return 1
    work = [(args, convert, source, target) for source, target in jobs]
    progress, failures = _Progress(len(jobs), shown=not args.quiet), 0
    args.progress = progress.part if progress.terminal else None
    with _in_parallel(args, jobs) as run:
        outcomes = run(work)
        for _ in work:
            with progress.step():
                try:
                    line, error = next(outcomes)
                except concurrent.futures.process.BrokenProcessPool:  # killed from outside, as for lack of memory
                    print("error: a process was killed: what is missing was not done; -j 1 needs less", file=sys.stderr)
                    return 1
                if error is None:
                    progress.say(line)
                else:
                    progress.clear()
                    print(error, end="", file=sys.stderr)
                    failures += 1
    return 1 if failures else 0


def _outcome(work: tuple) -> tuple[str, str | None]:
    """Convert one file, in whatever process: (what to say, None), or ("", the lines of the error)."""
    args, convert, source, target = work
    line, start, report = "", time.monotonic(), io.StringIO()

    def do() -> None:
        nonlocal line
        if files.is_same_file(target, source):
            raise FileExistsError("this file is both input and output")
        files.check_output(target, overwrite=not args.no_overwrite)
        data, figures = convert(args, source, target)
        files.write_bytes(target, data, overwrite=not args.no_overwrite)
        names = f"{_name(source, 'stdin')} → {_name(target, 'stdout')}"
        line = f"{names}  {figures}  {time.monotonic() - start:.1f} s"

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # remarks about metadata; what matters to pixels is an error
        done = _reported(args, source, do, report)
    return (line, None) if done else ("", report.getvalue())


WORTH_PROCESSES = 8  # files from which on processes of their own pay for their start: some seconds, for torch


@contextlib.contextmanager
def _in_parallel(args: argparse.Namespace, jobs: list[tuple[str, str]]) -> Iterator[Callable]:
    """What turns work into outcomes, in its order: in processes of one thread each where that is worth it, else here.

    Leaving it early ends the processes, which remove what they have half-written.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(args.threads or available, len(jobs))
    if processes < 2 or len(jobs) < WORTH_PROCESSES or args.device == "cuda":
        yield functools.partial(map, _outcome)
        return
    context = multiprocessing.get_context("spawn")
    args.threads, args.progress = 1, None
    pool = concurrent.futures.ProcessPoolExecutor(processes, context, initializer=_end_quietly)
    try:
        yield functools.partial(pool.map, _in_worker)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if sys.exc_info()[0] is not None:
            for process in multiprocessing.active_children():
                process.terminate()
        pool.shutdown(wait=True)


_converting = _terminated = False  # of a worker


def _end_quietly() -> None:
    """In a worker: SIGTERM ends it, and the terminal's SIGINT is left to the parent, which sends SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_worker)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _end_worker)


def _end_worker(number: int, frame) -> None:
    """The file at hand unwinds first. A library may swallow that, as torch does while it is imported: so again each second."""
    global _terminated
    if not _converting:
        os._exit(128 + signal.SIGTERM)
    if _terminated and number == signal.SIGTERM:
        return  # nothing may disturb the cleaning up
    _terminated = True
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 1, 1)
    sys.exit(128 + signal.SIGTERM)


def _in_worker(work: tuple) -> tuple[str, str | None]:
    """`_outcome`, after which a worker that is to end does so: the pool would give it the next file."""
    global _converting
    try:
        _converting = True
        return _outcome(work)
    finally:
        _converting = False
        if _terminated:
            os._exit(128 + signal.SIGTERM)


def _reported(args: argparse.Namespace, name: str, action: Callable, report: TextIO | None = None) -> bool:
    """Whether `action` succeeded; if not, one line says why, on stderr or in `report`."""
    try:
        action()
        return True
    except CodecError as error:
        failure, reason = error, str(error)
    except OSError as error:
        # The system's own words; the file is named already unless it is another one than `name`.
        elsewhere = f"{error.filename}: " if error.filename not in (None, name) else ""
        failure, reason = error, elsewhere + (error.strerror.lower() if error.strerror else str(error))
    except MemoryError as error:
        failure, reason = error, "not enough memory"
    except Exception as error:
        failure, reason = error, f"internal error, please report it with -vv: {type(error).__name__}: {error}"
    print(f"error: {_name(name, 'stdin')}: {' '.join(reason.split())}", file=report or sys.stderr)
    if args.verbose >= 2:
        traceback.print_exception(failure, file=report or sys.stderr)
    return False


class _Progress:
    """Narration, and below it a bar when stderr is a terminal and there are several files, or one that takes long."""

    WIDTH = 30

    def __init__(self, total: int, *, shown: bool):
        self.total, self.done, self.shown = total, 0, shown
        self.terminal = shown and sys.stderr is not None and sys.stderr.isatty()
        self.drawn = False

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        if self.total > 1:
            self.part(0)
        try:
            yield
        finally:
            self.clear()
            self.done += 1

    def part(self, fraction: float) -> None:
        """Draw the bar; fraction: of the file at hand."""
        if self.terminal:
            filled = int(self.WIDTH * (self.done + fraction) / self.total)
            bar = "#" * filled + "-" * (self.WIDTH - filled)
            label = f"{self.done}/{self.total}" if self.total > 1 else f"{100 * fraction:.0f} %"
            print(f"\r[{bar}] {label}", end="", file=sys.stderr, flush=True)
            self.drawn = True

    def clear(self) -> None:
        if self.drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self.drawn = False

    def say(self, line: str) -> None:
        self.clear()
        if self.shown:
            print(line, file=sys.stderr)


def _name(name: str, pipe: str) -> str:
    return pipe if name == "-" else name


def _grouped(count: int) -> str:
    return f"{count:,}".replace(",", "\u2009")  # thin space


# ── argument types: their errors are usage errors, and argparse says their names ──────────────────────────────────


def quality(text: str) -> float:
    if not 0 <= (value := float(text)) <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 to 100")
    return value


def positive(text: str) -> float:
    if not 0 < (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def points(text: str) -> float:
    if not -math.inf < (value := float(text)) <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not a number up to 100")
    return value


def count(text: str) -> int:
    factor = {"k": 1000, "M": 1000_000}.get(text[-1:], 1)
    value = positive(text[:-1] if factor > 1 else text) * factor
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than one")
    return int(value)


def rectangle(text: str) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in text.split(","))
    if len(numbers) != 4 or min(numbers) < 0 or min(numbers[2:]) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not X,Y,W,H in pixels")
    return numbers


def thread_count(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value
