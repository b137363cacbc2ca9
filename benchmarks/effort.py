"""Effort: what each level saves against one amortised pass (effort 1) with the same weights, and what it costs.

    python benchmarks/effort.py FOLDER [--efforts 3,4,5,6,7,9] [--qualities 10,35,60,85] [--limit N] [--threads 2]

Real files, decoded pixels. BD-rate: one curve a level, mean bits a pixel over mean PSNR. Cost: R + λD at the quality's
own λ; "no worse" counts the images and qualities at which a level costs no more than the level before it in the list.
Time and BD-rate promises are checked for the levels that have one; exit 1 if one is broken. Decoding is timed too:
files of every level take the same time, because the decoder does the same.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import codec
from codec import weights
from codec.evaluation import bdrate, images
from codec.metrics import psnr
from codec.picture.reading import read_image

PROMISES = {3: (2.0, 1.0), 5: (5.0, 2.0), 6: (6.0, 12.0), 9: (8.0, 60.0)}  # effort: BD-rate saved in percent, seconds an image


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--efforts", default="3,4,5,6,7,9", help="(default: %(default)s); 1 is always measured")
    parser.add_argument("--qualities", default="10,35,60,85", help="(default: %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--crop", type=int, metavar="PIXELS", help="only the middle square of each image")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    efforts = [1, *sorted({int(word) for word in args.efforts.split(",")} - {1})]
    qualities = [float(word) for word in args.qualities.split(",")]
    config = weights.load(weights.default_path()).config
    trade_offs = {q: config.lambda_min * (config.lambda_max / config.lambda_min) ** (q / 100) for q in qualities}
    codec.compress(np.zeros((64, 64, 3), np.uint8), lossless="never", threads=args.threads)

    # effort × image × quality
    figures = {effort: {"bpp": [], "psnr": [], "cost": [], "encode": [], "decode": []} for effort in efforts}
    paths = images.find([args.folder])[: args.limit]
    for number, path in enumerate(paths, start=1):
        pixels = np.asarray(read_image(str(path)).convert("RGB"))
        if args.crop:
            top, left = ((side - args.crop) // 2 for side in pixels.shape[:2])
            pixels = pixels[top : top + args.crop, left : left + args.crop]
        for effort, own in figures.items():
            rows = []
            for quality in qualities:
                if sys.stderr.isatty():
                    print(f"\r{number}/{len(paths)} effort {effort} quality {quality:g} \x1b[K", end="", file=sys.stderr)
                start = time.perf_counter()
                data = codec.compress(pixels, quality, effort=effort, threads=args.threads)
                encoded = time.perf_counter()
                decoded = np.asarray(codec.decompress(data, threads=args.threads))
                seconds = time.perf_counter() - encoded
                bpp = codec.inspect(data).bpp
                error = np.square(pixels.astype(float) - decoded).mean()
                rows.append((bpp, psnr(pixels, decoded), bpp + trade_offs[quality] * error, encoded - start, seconds))
            for key, values in zip(own, zip(*rows, strict=True), strict=True):
                own[key].append(values)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)

    curves = {effort: [np.mean(own[key], axis=0) for key in ("bpp", "psnr")] for effort, own in figures.items()}
    verdicts = {}
    print(f"{len(paths)} images, qualities {args.qualities}, {args.threads} threads; against effort 1")
    print("effort  BD-rate   R + λD   no worse   encode s: median   most   decode ms")
    for before, effort in zip([1, *efforts], efforts, strict=False):
        own = {key: np.array(values) for key, values in figures[effort].items()}
        saved = -bdrate.bd_rate(bdrate.rate_curve(*curves[1]), bdrate.rate_curve(*curves[effort])).percent if effort != 1 else 0.0
        cost = 100 * float((own["cost"] / figures[1]["cost"] - 1).mean())
        good = float((own["cost"] <= np.array(figures[before]["cost"]) * (1 + 1e-6)).mean())
        median, most, decode = np.median(own["encode"]), own["encode"].max(), 1e3 * np.median(own["decode"])
        print(f"{effort:6} {-saved:7.2f} % {cost:7.2f} % {100 * good:8.1f} % {median:18.2f} {most:6.2f} {decode:11.0f}")
        if effort != 1:
            verdicts[f"effort {effort} is no worse than {before} on 95 %"] = good >= 0.95
        if effort in PROMISES:
            least, longest = PROMISES[effort]
            verdicts[f"effort {effort} saves {least:g} %"] = saved >= least
            verdicts[f"effort {effort} takes at most {longest:g} s"] = median <= longest
    for name, good in verdicts.items():
        print(f"{'ok' if good else 'FAILED'}: {name}")
    return 0 if all(verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
