"""`codec evaluate`, `plot`, `compare`, `explain`, `sample`: arguments and words; the modules beside this one do the work.

stdout carries the summary (with --json as JSON), everything else goes to stderr. Exit 0: done; 1: a picture or a row
failed, or there was nothing to do; 2: an argument that makes no sense.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

DEFAULT_CODECS = "lic,jpeg,webp,avif,jxl"
DEFAULT_LOSSLESS_CODECS = "lic,png,webp,jxl:e7,jxl:e9,jpegls,avif,flif"


def add_arguments_evaluate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGES", help="image files, or folders of them")
    add(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="rows, tables, plots and report go here; rows there are kept",
    )
    add("--codecs", metavar="LIST", help=f"parted by commas (default: {DEFAULT_CODECS}; with --lossless "
        f"{DEFAULT_LOSSLESS_CODECS}); options follow a colon, as in lic:e9, avif:s6, webp:m4, compressai:mbt2018-mean")  # fmt: skip
    add("--lossless", action="store_true", help="measure the lossless modes")
    add("--grid", action="append", default=[], metavar="CODEC=A,B,…", help="settings of one codec instead of its own")
    add("-j", "--processes", type=_count, default=0, metavar="N", help="at a time; 0, the default: one for each core")
    add("--threads", type=_positive, default=1, metavar="N", help="cores of each process (default: 1)")
    add("--metrics", metavar="LIST", help="beside PSNR and MS-SSIM, parted by commas, of ssimulacra2 (the default, where "
        "its package is), butteraugli, cvvdp; '' for none")  # fmt: skip
    add("--viewer", type=_count, default=3, metavar="N", help="pictures for the report's viewer (default: 3; 0: none)")
    _add_drawing(parser)


def add_arguments_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="DIR", help="the folder of an evaluation, or a rows file")
    _add_drawing(parser)


def add_arguments_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=Path, metavar="A.jsonl", help="rows, or the folder of an evaluation")
    parser.add_argument("after", type=Path, metavar="B.jsonl", help="rows, or the folder of an evaluation")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")


def add_arguments_explain(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("image", metavar="IMAGE", help="an image file")
    files = "bits.png, channels.png, traversal.png and explain.json"
    add("--out", type=Path, required=True, metavar="DIR", help=f"{files} go here")
    _add_model_run(parser)


def add_arguments_sample(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", required=True, metavar="FILE.png", help="the picture; - is stdout")
    add("--seed", type=_count, default=0, metavar="N", help="another seed, another picture (default: 0)")
    add("--size", type=_size, default=(512, 512), metavar="WxH", help="in pixels (default: 512x512)")
    _add_model_run(parser)


def _add_model_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-q", "--quality", type=_quality, default=75.0, metavar="0..100", help="as of compress (default: 75)")
    add("-j", "--threads", type=_count, default=0, metavar="N", help="0, the default, is all")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
    add("--quiet", action="store_true", help="say nothing but errors")


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--anchor", metavar="NAME", help="a codec measured or published (default: the first that is not ours)")
    add(
        "--published",
        type=Path,
        metavar="FILE",
        help="published curves to lay over, such as benchmarks/published_kodak.json",
    )
    add("--json", action="store_true", help="the summary as JSON")
    add("--quiet", action="store_true", help="say nothing but errors")


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no count")
    return int(text)


def _positive(text: str) -> int:
    if not _count(text):
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def _quality(text: str) -> float:
    if not 0 <= (value := float(text)) <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 to 100")
    return value


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write WIDTHxHEIGHT, such as 512x512")
    return int(width), int(height)


def run_evaluate(args: argparse.Namespace) -> int:
    from . import columns, images, peers, rows, runner

    codecs = args.codecs or (DEFAULT_LOSSLESS_CODECS if args.lossless else DEFAULT_CODECS)
    specs = list(dict.fromkeys(spec for spec in codecs.split(",") if spec))
    if args.metrics is None:
        metrics = [] if args.lossless else list(columns.DEFAULT)
    else:
        metrics = [name for name in dict.fromkeys(args.metrics.split(",")) if name]
    try:
        grids = dict(map(_grid, args.grid))
        for spec in [*specs, *grids]:
            peers.check(spec)
        for name in metrics:
            columns.check(name)
        if stray := [spec for spec in grids if spec not in specs]:
            raise ValueError(f"--grid of {stray[0]}, which is not among --codecs")
        published = _published(args)
        file = args.out / "rows.jsonl"
        anchors = [*specs, *(curve.name for curve in published), *(row.codec for row in rows.read(file)[0])]
        if args.anchor and args.anchor not in anchors:  # better said before an hour's work than after it
            raise ValueError(f"no anchor {args.anchor!r}; there are {', '.join(dict.fromkeys(anchors))}")
    except (ValueError, OSError) as error:
        return _error(error, 2)
    try:
        paths = images.find(args.images)
        if not paths:
            return _error(f"no images in {', '.join(map(str, args.images))}", 1)
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _error(error, 1)

    progress = _Progress(not args.quiet and sys.stderr.isatty())
    common = {
        "processes": args.processes or max(1, _cores() // args.threads),
        "threads": args.threads,
        "optional": metrics,
        "say": progress.say,
        "progress": progress,
    }
    try:
        outcome = runner.evaluate(paths, specs, file, grids=grids, lossless=args.lossless, **common)
        if args.viewer and not args.lossless:
            known, _ = rows.read(file)
            runner.photograph(outcome.pictures[: args.viewer], list(outcome.versions), args.out, known, **common)
    except peers.UnknownCodec as error:
        return _error(error, 2)
    finally:
        progress.clear()
    if not args.quiet:
        print(f"{outcome.measured} rows measured, {outcome.kept} were there", file=sys.stderr)
    drawn = _draw(args, file, published)
    return 1 if outcome.failures else drawn


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _grid(argument: str) -> tuple[str, list[float]]:
    spec, equals, settings = argument.partition("=")
    try:
        values = [float(setting) for setting in settings.split(",")]
    except ValueError:
        values = []
    if not equals or not values:
        raise ValueError(f"--grid {argument}: write CODEC=A,B,… with numbers")
    return spec, values


def run_plot(args: argparse.Namespace) -> int:
    file = _rows_file(args.out)
    if not file.exists():
        return _error(f"{file}: no such file", 1)
    try:
        published = _published(args)
    except (ValueError, OSError) as error:
        return _error(error, 2)
    return _draw(args, file, published)


def run_compare(args: argparse.Namespace) -> int:
    from . import compare, rows

    both = []
    for path in map(_rows_file, (args.before, args.after)):
        if not path.exists():
            return _error(f"{path}: no such file", 1)
        known, damaged = rows.read(path)
        for line in damaged:
            _error(line, 1)
        both.append([row for row in known if not row.lossless])
    account = compare.compare(*both)
    print(json.dumps(account) if args.json else compare.text(account))
    return 0


def run_explain(args: argparse.Namespace) -> int:
    from ..errors import CodecError
    from ..picture import files, reading

    try:
        picture = reading.read_image(args.image, first_frame=True)
        args.out.mkdir(parents=True, exist_ok=True)

        from . import latents  # imports torch

        explanation = latents.explain(picture, args.quality, device=args.device, threads=args.threads)
        figures = explanation.figures()
        text = json.dumps(figures, indent=1) + "\n"
        files.write_bytes(str(args.out / "explain.json"), text.encode())
        latents.draw(explanation, args.out)
    except CodecError as error:
        return _error(f"{args.image}: {error}", 1)
    except OSError as error:
        return _error(_system_words(error, args.image), 1)
    except ImportError as error:
        return _error(f"no plots: pip install matplotlib ({error})", 1)
    if not args.quiet:
        names = {
            "header and lengths": "overhead_bytes",
            "latents": "latent_bytes",
            "hyper-latents": "hyper_latent_bytes",
            "last words": "unexplained_bytes",
        }
        parts = ", ".join(f"{name} {figures[key]:.0f}" for name, key in names.items())
        size = f"{figures['file_bytes']} B  {figures['bpp']:.3f} bpp"
        print(f"{args.image} → {args.out}  {size}  ({parts})", file=sys.stderr)
    if not figures["agrees"]:
        off = figures["unexplained_bytes"]
        return _error(f"{args.image}: the code lengths miss the file of {figures['file_bytes']} bytes by {off:.0f}", 1)
    return 0


def run_sample(args: argparse.Namespace) -> int:
    from ..errors import CodecError
    from ..picture import files, writing

    try:
        kind = writing.format_of(args.out)  # before the work
        files.check_output(args.out, overwrite=True)

        from . import latents  # imports torch

        picture, size = latents.sample(*args.size, args.quality, args.seed, device=args.device, threads=args.threads)
        files.write_bytes(args.out, writing.image_bytes(picture, kind))
    except CodecError as error:
        return _error(f"{args.out}: {error}", 1)
    except OSError as error:
        return _error(_system_words(error, args.out), 1)
    if not args.quiet:
        words = f"{picture.width}×{picture.height}, from {size} B of latents"
        print(f"seed {args.seed} → {args.out}  {words}", file=sys.stderr)
    return 0


def _system_words(error: OSError, name: str) -> str:
    return f"{error.filename or name}: {error.strerror.lower()}" if error.strerror else str(error)


def _rows_file(path: Path) -> Path:
    return path / "rows.jsonl" if path.is_dir() else path


def _published(args: argparse.Namespace) -> list:
    from . import curves

    return curves.read_published(args.published) if args.published else []


def _draw(args: argparse.Namespace, file: Path, published: list) -> int:
    """Tables, plots and report beside a rows file, from it alone; the summary on stdout."""
    from . import columns, curves, plots, report, rows, summary

    folder = file.parent
    known, damaged = rows.read(file)
    for line in damaged:
        _error(line, 1)
    lossy_codecs, remarks = curves.measured(known)
    lossless_codecs, more = curves.measured(known, lossless=True)
    remarks += more
    if not lossy_codecs and not lossless_codecs:
        for remark in remarks:
            _error(remark, 1)
        return _error(f"{file}: no rows to draw", 1)
    rows.write_csv(folder / "rows.csv", known)

    lossy = lossless = None
    texts = []
    if lossy_codecs:
        named = {curve.name: curve for curve in [*published, *lossy_codecs]}
        others = [codec for codec in lossy_codecs if not plots.is_ours(codec.name)]
        if args.anchor and args.anchor not in named:
            return _error(f"no anchor {args.anchor!r}; there are {', '.join(named)}", 2)
        anchor = named[args.anchor] if args.anchor else [*others, *lossy_codecs][0]
        lossy = summary.summarise(lossy_codecs, anchor, published)
        texts.append(f"BD-rate against {lossy['anchor']}, {len(lossy['images'])} images; negative: fewer bits")
        texts.append(summary.aligned(*summary.table(lossy)))
        for metric in lossy["metrics"]:
            texts.append(f"\n{columns.COLUMNS[metric].label}")
            texts.append(summary.aligned(*summary.metric_table(lossy, metric)))
    if lossless_codecs:
        lossless = summary.summarise_lossless(lossless_codecs)
        texts.append(f"lossless, {len(lossless['images'])} images")
        texts.append(summary.aligned(*summary.lossless_table(lossless)))
    account = {"lossy": lossy, "lossless": lossless, "remarks": remarks}
    (folder / "summary.json").write_text(json.dumps(account, indent=1) + "\n", "utf-8")
    print(json.dumps(account) if args.json else "\n".join(texts))
    for remark in remarks:
        print(remark, file=sys.stderr)

    try:
        pictures = _figures(lossy_codecs, published, lossy, lossless)
        for name, figure in pictures.items():
            plots.save(figure, folder / name)
    except ImportError:
        print("no plots: pip install matplotlib", file=sys.stderr)
    report.write(folder / "report.html", lossy_codecs, published, lossy, lossless, _conditions(known), remarks)
    if not args.quiet:
        print(f"{folder / 'report.html'}", file=sys.stderr)
    return 1 if damaged else 0


def _figures(codecs, published, lossy, lossless) -> dict:
    from . import plots

    pictures = {}

    def draw(name: str, function, *arguments) -> None:
        try:
            pictures[name] = function(*arguments)
        except ValueError as error:
            print(f"no plot {name}: {error}", file=sys.stderr)

    if lossy:
        for metric in lossy["metrics"]:
            draw(f"rd_{metric}", plots.rate_distortion, codecs, published, metric)
            draw(f"bd_rate_{metric}_decode_time", plots.bd_rate_against_decode_time, lossy, metric)
            for entry in lossy["codecs"]:
                if entry["name"] != lossy["anchor"] and len(entry[f"bd_rate_{metric}"].get("per_image", ())) > 1:
                    name = f"gain_{metric}_{entry['name'].replace(':', '-')}"
                    draw(name, plots.per_image_gain, entry, plots.title(lossy["anchor"]), metric)
    if lossless:
        pictures["lossless"] = plots.lossless_size_against_speed(lossless)
    return pictures


def _conditions(known) -> list[str]:
    versions = {row.codec: row.codec_version for row in known}
    lines = [f"{codec}: {version}" for codec, version in versions.items()]
    lines.append("machine: " + "; ".join(sorted({row.machine for row in known})))
    lines.append("commit of the measuring program: " + ", ".join(sorted({str(row.commit) for row in known})))
    lines.append("cores of each process: " + ", ".join(sorted({str(row.threads) for row in known})))
    return lines


def _error(reason, status: int) -> int:
    print(f"error: {' '.join(str(reason).split())}", file=sys.stderr)
    return status


class _Progress:
    """One line on a terminal: codec, rows done, time left; complaints go above it."""

    def __init__(self, shown: bool):
        self.shown, self.spec = shown, None

    def __call__(self, spec: str, done: int, total: int) -> None:
        if not self.shown:
            return
        now = time.monotonic()
        if spec != self.spec:
            self.spec, self.start, self.first = spec, now, done
        left = (now - self.start) / (done - self.first) * (total - done) if done > self.first else None
        words = "" if left is None else f"  {left / 60:.1f} min left"
        print(f"\r\x1b[K{spec}  {done}/{total}{words}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        self.clear()
        _error(line, 1)
