"""Targets: are ceilings kept and floors met, how closely, and at what cost?

    python benchmarks/targets.py FOLDER [--effort 3] [--limit N] [--threads 0]
    python benchmarks/targets.py FOLDER --fit     with new weights: what GLANCE_RATE in rate_control.py should be

For every image: three sizes, one rate and one PSNR, chosen from its own range of qualities. Checked on complete files
and on decoded pixels: every ceiling holds and at least 98.5 % of it is used; every floor holds and is exceeded by at
most 0.05 dB; a target costs at most 2.5 times an encode at effort 3 (mean over the images; the median and the largest
are shown). Exit 1 if a check fails.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import codec
from codec.evaluation import images
from codec.imagefile import read_image
from codec.metrics import psnr

QUALITIES = {"bytes": (10.0, 50.0, 90.0), "bpp": (70.0,), "psnr": (40.0,)}  # whose results become the targets


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--effort", type=int, default=3)
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--fit", action="store_true", help="fit the guess that a search begins with")
    args = parser.parse_args()
    if args.fit:
        return fit(images.find([args.folder])[: args.limit])
    codec.compress(np.zeros((64, 64, 3), np.uint8))  # loads the model

    use, costs, failures = {"bytes": [], "bpp": [], "psnr": []}, {"bytes": [], "bpp": [], "psnr": []}, []
    paths = images.find([args.folder])[: args.limit]
    for path in paths:
        image = read_image(str(path)).convert("RGB")
        pixels = np.asarray(image)
        count = image.width * image.height
        for kind, qualities in QUALITIES.items():
            for quality in qualities:
                plain, seconds = timed(image, quality, threads=args.threads)
                quality_psnr = psnr(pixels, np.asarray(codec.decompress(plain)))
                # A little off, so that the answer is not the quality that gave the target.
                target = {"bytes": round(1.037 * len(plain)), "bpp": 8 * 1.037 * len(plain) / count, "psnr": quality_psnr + 0.17}[kind]
                data, spent = timed(image, effort=args.effort, threads=args.threads, **{f"target_{kind}": target})
                if kind == "psnr":
                    value = psnr(pixels, np.asarray(codec.decompress(data))) - target
                    good = 0 <= value <= 0.05
                else:
                    value = len(data) / (target if kind == "bytes" else target * count / 8)
                    good = 0.985 <= value <= 1
                use[kind].append(value)
                costs[kind].append(spent / seconds)
                if not good:
                    failures.append(f"{path.name}: {kind} {target:g}: {value:.4f}")
    print(f"{len(paths)} images, effort {args.effort}; used: part of the ceiling, or dB above the floor")
    print("target   used: least   mean   most   cost: mean  median   most")
    for kind, values in use.items():
        cost = costs[kind]
        print(f"{kind:8} {min(values):11.4f} {np.mean(values):6.4f} {max(values):6.4f} "
              f"{np.mean(cost):11.2f} {np.median(cost):7.2f} {max(cost):6.2f}")  # fmt: skip
    everything = np.concatenate(list(costs.values()))
    print(f"all targets: cost mean {everything.mean():.2f}, median {np.median(everything):.2f}")
    for line in failures:
        print(f"missed: {line}")
    verdicts = {"every target is met": not failures}
    if args.effort <= 3:
        verdicts["mean cost at most 2.5 encodes"] = everything.mean() <= 2.5
    for name, good in verdicts.items():
        print(f"{'ok' if good else 'FAILED'}: {name}")
    return 0 if all(verdicts.values()) else 1


def fit(paths: list[Path]) -> int:
    """Regression of log(bits per pixel) on what a glance counts; never on the images of the final benchmark."""
    from codec import lossy, rate_control, weights

    counted, actual = [], []
    for path in paths:
        pixels = np.asarray(read_image(str(path)).convert("RGB"))
        with lossy.execution("auto", 0) as place:
            encoder = lossy.Encoder(weights.load(weights.default_path(), place), pixels)
            constant, slope = rate_control.GLANCE_RATE
            size = np.log(encoder.height * encoder.width / 8)
            expected = rate_control._glance(encoder, True)
            for quality, value in list(zip(rate_control.GRID, expected, strict=True))[::2]:
                data = encoder.write(encoder.quantise(encoder.analyse(int(quality)), int(quality)))
                counted.append((value - size - constant) / slope)
                actual.append(np.log(len(data)) - size)
    slope, constant = np.polyfit(counted, actual, 1)
    rest = np.std(np.array(actual) - slope * np.array(counted) - constant)
    print(f"GLANCE_RATE = ({constant:.2f}, {slope:.3f})  # standard deviation {rest:.3f} over {len(paths)} images")
    return 0


def timed(image, *arguments, **options) -> tuple[bytes, float]:
    start = time.perf_counter()
    data = codec.compress(image, *arguments, **options)
    return data, time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
