"""Seconds and memory of our codec (default effort, and effort 1) beside AVIF (speeds 4 and 6) and WebP (method 6): ratios within one run.

    python benchmarks/speed.py FOLDER [--threads 2] [--repeats 3] [--out FILE.json]

One process for each codec, all pinned to the same cores; they work in turn, image by image, so that whatever else the
machine does meets all of them alike. Of the repeats of an image the fastest counts; ratios are medians over images.
Memory is the largest high-water mark of the codec's own process, interpreter and libraries included.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

import numpy as np

from codec.evaluation import images, runner
from codec.evaluation.provenance import commit, machine

SETTINGS = {"lic": 55.0, "lic:e1": 57.5, "avif:s4": 53.0, "avif:s6": 53.0, "webp:m6": 53.0}  # 0.65 to 0.7 bpp on Kodak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--codecs", default=",".join(SETTINGS), help="CODEC or CODEC=SETTING (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    args = parser.parse_args()
    settings = dict(word.partition("=")[::2] for word in args.codecs.split(","))
    settings = {spec: float(setting) if setting else SETTINGS[spec] for spec, setting in settings.items()}
    pictures = runner.identify(images.find([args.folder]), lambda line: print(line, file=sys.stderr))

    best: dict[str, list] = {spec: [] for spec in settings}
    with contextlib.ExitStack() as stack:
        workers = {spec: stack.enter_context(runner.Workers(spec, 1, args.threads)) for spec in settings}
        for number, picture in enumerate(pictures, start=1):
            print(f"\r{number}/{len(pictures)} \x1b[K", end="", file=sys.stderr, flush=True)
            repeats = {spec: [] for spec in settings}
            for _ in range(args.repeats):
                for spec, setting in settings.items():
                    (row,) = workers[spec].call(runner.measure, [(picture, setting)])
                    if isinstance(row, str):
                        print(row, file=sys.stderr)
                        return 1
                    repeats[spec].append(row)
            for spec, own in repeats.items():
                best[spec].append(
                    {
                        "encode_s": min(row.encode_s for row in own),
                        "decode_s": min(row.decode_s for row in own),
                        "bpp": own[0].bpp,
                        "psnr": own[0].psnr_rgb,
                        "encode_peak_mib": max(row.encode_peak_mib or 0 for row in own),
                        "decode_peak_mib": max(row.decode_peak_mib or 0 for row in own),
                        "version": own[0].codec_version,
                    }
                )
    print("\r\x1b[K", end="", file=sys.stderr)

    figures = {spec: _figures(own, best) for spec, own in best.items()}
    account = {
        "commit": commit(), "machine": machine(), "cores": args.threads, "images": len(pictures),
        "repeats": args.repeats, "settings": settings, "codecs": figures,
    }  # fmt: skip
    print(f"{machine()}; pinned to {args.threads} cores; {len(pictures)} images, fastest of {args.repeats}")
    for spec, own in figures.items():
        print(
            f"{spec:10} {own['bpp']:.3f} bpp {own['psnr']:.2f} dB  encode {1e3 * own['encode_s']:8.1f} ms  "
            f"decode {1e3 * own['decode_s']:7.2f} ms  peak {own['encode_peak_mib']:.0f} / {own['decode_peak_mib']:.0f} MiB"
        )
        for other, ratio in own["ratios"].items():
            if other != spec and spec == next(iter(figures)):
                print(f"{'':10} against {other}: encode ×{ratio['encode']:.2f}, decode ×{ratio['decode']:.2f}")
    if args.out:
        args.out.write_text(json.dumps(account, indent=1) + "\n", "utf-8")
    return 0


def _figures(own: list[dict], best: dict[str, list]) -> dict:
    def ratio(other: list[dict], key: str) -> float:
        return float(np.median([mine[key] / theirs[key] for mine, theirs in zip(own, other, strict=True)]))

    return {
        "version": own[0]["version"],
        "bpp": float(np.mean([image["bpp"] for image in own])),
        "psnr": float(np.mean([image["psnr"] for image in own])),
        "encode_s": float(np.median([image["encode_s"] for image in own])),
        "decode_s": float(np.median([image["decode_s"] for image in own])),
        "encode_peak_mib": max(image["encode_peak_mib"] for image in own),
        "decode_peak_mib": max(image["decode_peak_mib"] for image in own),
        "ratios": {s: {"encode": ratio(o, "encode_s"), "decode": ratio(o, "decode_s")} for s, o in best.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
