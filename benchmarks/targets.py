"""Targets: are ceilings kept and floors met, how closely, and at what cost?

    python benchmarks/targets.py FOLDER [--effort 3] [--limit N] [--threads 0]
    python benchmarks/targets.py FOLDER --fit     with new weights: writes the constants GLANCE_… of codec/rate_control.py

For every image: three sizes, one rate, one PSNR and one SSIMULACRA 2 (with the tune for it), chosen from its own range
of qualities. Checked on complete files and on decoded pixels: every ceiling holds and at least 98.5 % of it is used;
every floor holds and is exceeded by at most 0.05 dB, or by 3 % of what it lacks of 100 points; a target costs at most
2.5 times an encode at effort 3 (mean over the images; the median and the largest are shown). Exit 1 if a check fails.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch

import codec
from codec.evaluation import images
from codec.metrics import PSNR, SSIMULACRA2, psnr
from codec.networks import ssimulacra2
from codec.picture.reading import read_image

QUALITIES = {"bytes": (10.0, 50.0, 90.0), "bpp": (70.0,), "psnr": (40.0,), "ssimulacra2": (50.0,)}  # whose results become the targets


def points(reference: np.ndarray, image: np.ndarray) -> float:
    """SSIMULACRA 2 of two pictures H×W×3."""
    samples = (torch.from_numpy(x.transpose(2, 0, 1)[None] / np.float32(255)) for x in (reference, image))
    with torch.no_grad():
        return float(ssimulacra2.score(ssimulacra2.inner(*samples)))


FLOORS = {  # how it is measured, what is added to the value at a quality, by how much the result may exceed it
    "psnr": (psnr, 0.17, lambda target: 0.05),
    "ssimulacra2": (points, 0.6, lambda target: 0.03 * (100 - target)),
}


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
    codec.compress(np.zeros((64, 64, 3), np.uint8), lossless="never")  # loads the model

    use, costs, failures = {kind: [] for kind in QUALITIES}, {kind: [] for kind in QUALITIES}, []
    paths = images.find([args.folder])[: args.limit]
    for path in paths:
        image = read_image(str(path)).convert("RGB")
        pixels = np.asarray(image)
        count = image.width * image.height
        for kind, qualities in QUALITIES.items():
            for quality in qualities:
                how = {"threads": args.threads, "tune": SSIMULACRA2 if kind == "ssimulacra2" else PSNR}
                plain, seconds = timed(image, quality, **how)
                # A little off, so that the answer is not the quality that gave the target.
                if kind in FLOORS:
                    judge, off, most = FLOORS[kind]
                    target = judge(pixels, np.asarray(codec.decompress(plain))) + off
                else:
                    target = round(1.037 * len(plain)) if kind == "bytes" else 8 * 1.037 * len(plain) / count
                data, spent = timed(image, effort=args.effort, **how, **{f"target_{kind}": target})
                if kind in FLOORS:
                    value = judge(pixels, np.asarray(codec.decompress(data))) - target
                    good = 0 <= value <= most(target)
                else:
                    value = len(data) / (target if kind == "bytes" else target * count / 8)
                    good = 0.985 <= value <= 1
                use[kind].append(value)
                costs[kind].append(spent / seconds)
                if not good:
                    failures.append(f"{path.name}: {kind} {target:g}: {value:.4f}")
    print(f"{len(paths)} images, effort {args.effort}; used: part of the ceiling, or dB or points above the floor")
    print("target      used: least   mean   most   cost: mean  median   most")
    for kind, values in use.items():
        cost = costs[kind]
        print(f"{kind:11} {min(values):11.4f} {np.mean(values):6.4f} {max(values):6.4f} "
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
    """Regressions of real bytes, decibels and points on what a glance counts, put into codec/rate_control.py.

    Never on the images of the final benchmark.
    """
    from codec import lossy, rate_control, weights

    rows, seams = [], []
    for path in paths:
        pixels = np.asarray(read_image(str(path)).convert("RGB"))
        with lossy.execution("auto", 0) as place:
            model = weights.load(weights.default_path(), place)
            sample = rate_control._sample(pixels)
            counts = [rate_control.counts(lossy.Encoder(model, part)) for part in (pixels, sample) if part is not None]
            for place in range(0, len(rate_control.GRID), 2):
                quality = int(rate_control.GRID[place])
                bits, decibels, lacking = measure(model, pixels, quality)
                density, error = (values[place] for values in counts[0])
                rows.append((density, error, bits, decibels, lacking, quality / rate_control.QUALITY_MAX))
                if sample is not None:
                    own = counts[1][1][place], measure(model, sample, quality)[1]
                    seams.append((quality / rate_control.QUALITY_MAX, error, decibels, *own))
    density, error, bits, decibels, lacking, quality = np.array(rows).T
    slope, constant = np.polyfit(np.log(density), np.log(bits), 1)
    rest = np.std(np.log(bits) - slope * np.log(density) - constant)
    terms = np.stack([np.ones_like(density), np.log(density), quality], 1)
    points_fit, *_ = np.linalg.lstsq(terms, np.log(lacking), rcond=None)
    true = 255**2 * 10 ** (-decibels / 10)

    def scatter(ratio: float) -> float:  # of the logarithm of the error, if GLANCE_LOST is so many GLANCE_ERROR
        return float(np.std(np.log(true) - np.log(error + ratio)))

    ratio = min(np.geomspace(1e-3, 10, 200), key=scatter)
    factor = float(np.exp(np.mean(np.log(true) - np.log(error + ratio))))
    place, error, decibels, own, sampled = np.array(seams).T
    correction = decibels - sampled - 10 * np.log10((own + ratio) / (error + ratio))
    rise, start = np.polyfit(place, correction, 1)
    found = {
        "GLANCE_RATE": f"({constant:.2f}, {slope:.3f})",
        "GLANCE_ERROR": f"{factor:.2f}",
        "GLANCE_LOST": f"{factor * ratio:.2f}",
        "GLANCE_SEAMS": f"({start:.2f}, {rise:.2f})",
        "GLANCE_POINTS": "({:.2f}, {:.2f}, {:.2f})".format(*points_fit),
    }
    source = Path(rate_control.__file__)
    text = source.read_text("utf-8")
    for name, value in found.items():
        print(f"{name} = {value}")
        text, count = re.subn(rf"^{name} = [^#\n]*(?=  #)", f"{name} = {value}", text, flags=re.MULTILINE)
        assert count == 1, f"{name} is not where it was"
    source.write_text(text, "utf-8")
    decibels, sampled = 10 / np.log(10) * scatter(ratio), np.std(correction - rise * place - start)
    off = np.std(np.log(lacking) - terms @ points_fit)
    scatters = f"log-rate {rest:.3f}, log-points {off:.3f}, PSNR {decibels:.2f} dB, with a sample {sampled:.2f} dB"
    print(f"standard deviations over {len(paths)} images: {scatters}; written to {source.name}")
    return 0


def measure(model, pixels: np.ndarray, quality: int) -> tuple[float, float, float]:
    """Bits per pixel, PSNR, and the points of SSIMULACRA 2 that are lacking of 100, of one amortised pass."""
    from codec import lossy, refine

    encoder = lossy.Encoder(model, pixels)
    latents = refine.refine(encoder, encoder.analyse(quality), quality, refine.CHEAP)
    shown = encoder.picture(latents)
    return 8 * len(encoder.write(latents)) / pixels[..., 0].size, psnr(pixels, shown), 100 - points(pixels, shown)


def timed(image, *arguments, **options) -> tuple[bytes, float]:
    start = time.perf_counter()
    data = codec.compress(image, *arguments, **options)
    return data, time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
