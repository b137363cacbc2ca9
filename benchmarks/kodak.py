"""The lossy figures of README and docs: our codec and its peers on the Kodak images, from real files.

    python benchmarks/kodak.py FOLDER_OF_KODAK [--out DIR] [--codecs LIST] [--metrics LIST] [-j PROCESSES]

Appends to DIR/rows.jsonl what it lacks (a later commit's rows of our codec beside older ones), writes rows.csv,
summary.json and summary.md there, prints the summary and what we promise, and exits with 1 if a promise is broken.
The published curves beside this script are the anchors; VTM-9.1 is the one that counts.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from codec.evaluation import curves, images, rows, runner, summary
from codec.evaluation.bdrate import bd_rate
from codec.evaluation.columns import COLUMNS

HERE = Path(__file__).parent
GRIDS = {
    "lic": range(0, 101, 10),
    "lic:ms-ssim": range(0, 101, 10),
    "textbook": range(0, 101, 10),
    "jpeg": (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95),
    "webp:m6": (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95),
    "avif:s4": (10, 20, 30, 40, 50, 60, 70, 80, 90),
    "avif:s6": (10, 20, 30, 40, 50, 60, 70, 80, 90),
    "avif:psnr": (5, 10, 20, 30, 40, 50, 60, 70, 80, 90),
    "avif:s6:psnr": (5, 10, 20, 30, 40, 50, 60, 70, 80, 90),
    "jxl": (20, 30, 40, 50, 60, 70, 80, 88, 94, 97),
    "heic": (12, 20, 28, 36, 44, 52, 60, 70),
    "jpeg2000": (26, 28, 30, 32, 34, 36, 38, 40, 43),
    # As CompressAI measured them: standard Huffman tables; WebP's default method.
    "jpeg:plain": range(5, 100, 10),
    "webp:m4": range(5, 100, 10),
}


def promises(codecs: dict[str, curves.Measured]) -> list[tuple[bool, str]]:
    """What we promise of the default effort, each as (kept, figure)."""
    ours = codecs["lic"]
    low, high = ours.points("psnr")[0][[0, -1]]
    falling = [
        f"{image} {what} {ours.settings[s]:g}→{ours.settings[s + 1]:g}"
        for what, values in (("bytes", ours.bpp), ("PSNR", ours.quality["psnr"]))
        for s, i in np.argwhere(np.diff(values, axis=0) <= 0)
        for image in [ours.images[i]]
    ]
    checks = [
        (low <= 0.12 and high >= 1.8, f"quality 0 to 100 spans {low:.3f} to {high:.3f} bpp (about 0.1 to 1.8)"),
        (not falling, f"bytes and PSNR rise with quality on each image; exceptions: {falling or 'none'}"),
    ]
    for peer, most in (("webp:m6", -20.0), ("jpeg", -50.0)):
        percent = bd_rate(codecs[peer].curve("psnr"), ours.curve("psnr")).percent
        checks.append((percent <= most, f"BD-rate against {peer}: {percent:+.1f} % (at most {most:+.0f} %)"))
    return checks


def reproductions(codecs: dict[str, curves.Measured], published: dict[str, curves.Published]) -> list[tuple[bool, str]]:
    """Our harness against the published points of the same codec at comparable settings, within 2 %."""
    checks = []
    for name, anchor in (("jpeg:plain", "JPEG"), ("webp:m4", "WebP")):
        if name in codecs:
            percent = bd_rate(published[anchor].curve("psnr"), codecs[name].curve("psnr")).percent
            checks.append((abs(percent) <= 2, f"{name} against CompressAI's published {anchor}: {percent:+.2f} %"))
    return checks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "kodak")
    parser.add_argument("--codecs", default=",".join(GRIDS), help="specs, parted by commas (default: %(default)s)")
    parser.add_argument("--metrics", default="", metavar="LIST", help="optional ones; rows without them are made anew")
    parser.add_argument("-j", "--processes", type=int, default=1, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="cores of each process")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "rows.jsonl"
    specs = args.codecs.split(",")
    grids = {spec: [float(setting) for setting in GRIDS[spec]] for spec in specs if spec in GRIDS}
    outcome = runner.evaluate(
        images.find([args.folder]), specs, file, grids=grids, processes=args.processes, threads=args.threads,
        optional=[metric for metric in args.metrics.split(",") if metric],
        say=lambda line: print(line, file=sys.stderr),
        progress=lambda spec, done, total: print(f"\r{spec} {done}/{total} \x1b[K", end="", file=sys.stderr),
    )  # fmt: skip
    print(f"\r{outcome.measured} rows measured, {outcome.kept} kept\x1b[K", file=sys.stderr)

    known, _ = rows.read(file)
    rows.write_csv(args.out / "rows.csv", known)
    measured, remarks = curves.measured(known)
    codecs = {codec.name: codec for codec in measured}
    published = {curve.name: curve for curve in curves.read_published(HERE / "published_kodak.json")}
    report = summary.summarise(measured, published["VTM-9.1"], list(published.values()))
    checks = reproductions(codecs, published) + (promises(codecs) if "lic" in codecs else [])
    report["promises"] = [{"kept": bool(kept), "figure": figure} for kept, figure in checks]
    (args.out / "summary.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    lines = [f"Against {report['anchor']}, {len(report['images'])} images. Negative: fewer bits.", ""]
    lines += [summary.markdown(*summary.table(report)), ""]
    for metric in report["metrics"]:
        lines += [COLUMNS[metric].label, "", summary.markdown(*summary.metric_table(report, metric)), ""]
    verdicts = [f"- {'kept' if kept else 'BROKEN'}: {figure}" for kept, figure in checks]
    verdicts += [f"- {remark}" for remark in remarks]
    (args.out / "summary.md").write_text("\n".join(lines + verdicts) + "\n", "utf-8")
    print(summary.aligned(*summary.table(report)), *verdicts, sep="\n")
    return 0 if all(kept for kept, _ in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
