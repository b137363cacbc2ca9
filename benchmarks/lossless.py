"""The lossless figures of README and docs: bits per subpixel and speed beside the peers, and what bits-back coding gives.

    python benchmarks/lossless.py FOLDER_OF_KODAK [--out DIR] [--codecs LIST] [-j PROCESSES] [--threads N]

Appends to DIR/rows.jsonl what it lacks, writes rows.csv, summary.json and summary.md there, prints the summary and what we
promise, and exits with 1 if a promise is broken. The table of bits-back coding is counted by the exact networks while
the files are written: what the latents would cost if their bits were not returned.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from codec import lossless, planes
from codec.evaluation import curves, images, rows, runner, summary

HERE = Path(__file__).parent
CODECS = "lic,lic:e4,jxl:e7,jxl:e9,webp,jpegls,png"


def bits_back(paths: list[Path], threads: int) -> dict:
    """Totals over the pictures in bits a subpixel: −ELBO by the exact networks, and its parts."""
    parts = {"pixels": 0.0, "prior": 0.0, "posterior": 0.0, "total": 0.0}
    samples = generic = 0
    for number, path in enumerate(paths, start=1):
        print(f"\rbits-back {number}/{len(paths)}\x1b[K", end="", file=sys.stderr, flush=True)
        pixels = np.array(Image.open(path).convert("RGB"))
        samples += pixels.size
        bits = lossless.count_bits(pixels, threads=threads)
        for name in parts:
            parts[name] += bits[name]
        generic += 8 * len(planes.encode(pixels)) < bits["total"]
    print("\r\x1b[K", end="", file=sys.stderr)
    return {name: total / samples for name, total in parts.items()} | {"pictures for the generic coder": generic}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "lossless")
    parser.add_argument("--codecs", default=CODECS, help="specs, parted by commas (default: %(default)s)")
    parser.add_argument("-j", "--processes", type=int, default=1, metavar="N")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="cores of each process")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "rows.jsonl"
    paths = images.find([args.folder])
    runner.evaluate(
        paths, args.codecs.split(","), file, lossless=True, processes=args.processes, threads=args.threads,
        say=lambda line: print(line, file=sys.stderr),
        progress=lambda spec, done, total: print(f"\r{spec} {done}/{total} \x1b[K", end="", file=sys.stderr),
    )  # fmt: skip
    print("\r\x1b[K", end="", file=sys.stderr)
    known, _ = rows.read(file)
    rows.write_csv(args.out / "rows.csv", known)
    measured, remarks = curves.measured(known, lossless=True)
    report = summary.summarise_lossless(measured)
    account = report["bits_back"] = bits_back(paths, args.processes * args.threads)
    figures = {entry["name"]: entry for entry in report["codecs"]}
    ours = figures["lic"]
    account["file"] = ours["bits_per_subpixel"]
    account["file if the bits of the latents were not returned"] = account["file"] + account["posterior"]
    gap = account["file"] / account["total"] - 1
    checks = [(gap <= 0.01, f"files are {100 * gap:+.2f} % above −ELBO of the same exact networks (at most 1 %)")]
    if "jxl:e7" in figures:
        peer = figures["jxl:e7"]["bits_per_subpixel"]
        own = ours["bits_per_subpixel"]
        checks.append((own < peer, f"{own:.3f} bits per subpixel; JPEG XL effort 7: {peer:.3f} ({100 * (own / peer - 1):+.1f} %)"))
    for key in ("encode_s", "decode_s"):
        checks.append((ours[key] <= 4, f"{key[:6]} {ours[key]:.2f} s a picture, median (at most 4 s)"))
    report["promises"] = [{"kept": bool(kept), "figure": figure} for kept, figure in checks]
    (args.out / "summary.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    verdicts = [f"- {'kept' if kept else 'BROKEN'}: {figure}" for kept, figure in checks] + [f"- {r}" for r in remarks]
    table = [[name, f"{value:.4f}" if isinstance(value, float) else str(value)] for name, value in account.items()]
    lines = [
        f"Lossless, {len(report['images'])} images.", "",
        summary.markdown(*summary.lossless_table(report)), "",
        "Bits per subpixel of bits-back coding:", "",
        summary.markdown(["part", "bits/subpixel"], table), "", *verdicts,
    ]  # fmt: skip
    (args.out / "summary.md").write_text("\n".join(lines) + "\n", "utf-8")
    print(summary.aligned(*summary.lossless_table(report)), *(f"{a}: {b}" for a, b in table), *verdicts, sep="\n")
    return 0 if all(kept for kept, _ in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
