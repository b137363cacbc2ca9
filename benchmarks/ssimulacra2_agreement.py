"""Our SSIMULACRA 2 against PyPI's `ssimulacra2`: `python benchmarks/ssimulacra2_agreement.py PHOTOS`.

Pairs are crops of a folder's photographs, of changing sizes, and what five kinds of damage of changing strength make of
them. Exit 1 where the scores of a pair differ by more than 0.1 points.
"""

import argparse
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from ssimulacra2 import compute_ssimulacra2

from codec.evaluation import images
from codec.networks import ssimulacra2

TOLERANCE = 0.1  # points
SIZES = ((384, 256), (255, 301), (320, 97), (64, 64))


def damaged(crop: Image.Image, kind: int, strength: float, rng: np.random.Generator) -> tuple[str, Image.Image]:
    """strength: 0 (hardly visible) to 1 (bad)."""
    pixels = np.asarray(crop, np.float64)
    if kind < 2:
        quality, buffer = round(95 - 85 * strength), io.BytesIO()
        crop.save(buffer, ("JPEG", "WEBP")[kind], quality=quality)
        return f"{('JPEG', 'WebP')[kind]} {quality}", Image.open(buffer).convert("RGB")
    if kind == 2:
        sigma = 1 + 19 * strength
        noisy = pixels + rng.normal(0, sigma, pixels.shape)
        return f"noise {sigma:.1f}", Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
    if kind == 3:
        radius = 0.3 + 2 * strength
        return f"blur {radius:.2f}", crop.filter(ImageFilter.GaussianBlur(radius))
    levels, steps = 1 + 11 * strength, 1 + round(strength)  # a cast of colour, and a picture out of place
    moved = np.roll(pixels, steps, axis=1) + levels * np.array([1, -0.5, 0.3])
    return f"shift {levels:.1f}", Image.fromarray(moved.round().clip(0, 255).astype(np.uint8))


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="a folder of photographs")
    parser.add_argument("--pairs", type=int, default=200)
    args = parser.parse_args()
    paths = images.find([args.photos])
    rng = np.random.default_rng(0)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("original.png", "damaged.png")]  # the package takes files
        for number in range(args.pairs):
            path = paths[number % len(paths)]
            photo = images.load(path)
            width, height = (min(a, b) for a, b in zip(SIZES[number % len(SIZES)], photo.size, strict=True))
            left, top = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
            crop = photo.crop((left, top, left + width, top + height))
            words, other = damaged(crop, number % 5, rng.random(), rng)
            for image, file in zip((crop, other), files, strict=True):
                image.save(file, compress_level=1)
            theirs = compute_ssimulacra2(*map(str, files))
            with torch.no_grad():
                ours = float(ssimulacra2.score(ssimulacra2.inner(tensor(crop), tensor(other))))
            rows.append({"photo": path.name, "size": crop.size, "damage": words, "ours": ours, "package": theirs})
            print(json.dumps(rows[-1]), flush=True)
    differences = np.abs([row["ours"] - row["package"] for row in rows])
    scores = [row["package"] for row in rows]
    print(
        f"{len(rows)} pairs, scores {min(scores):.1f} to {max(scores):.1f}: "
        f"difference at most {differences.max():.5f}, in the mean {differences.mean():.5f}"
    )
    return int(differences.max() > TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
