"""Training images: a folder decoded once into memory, random crops cut from it."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

HELD_BACK = 0.02  # share of the files that validation keeps for itself


def list_images(folder: Path) -> list[Path]:
    """Files below `folder` that Pillow has a reader for, in a fixed order."""
    known = set(Image.registered_extensions())
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in known)


def _read(path: Path) -> Tensor | None:
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def _flattened(crop: Tensor, rng: np.random.Generator) -> Tensor:
    """A crop 3×S×S with flat parts: clipped levels, or a rectangle of one colour or of a ramp, up to all of it.

    Photographs have few perfectly flat areas, and what a network makes of them without having seen any is anything.
    """
    if rng.random() < 0.3:
        gain, offset = rng.uniform(1.2, 3), rng.uniform(-0.7, 0.7)
        return ((crop - 0.5) * gain + 0.5 + offset).clamp(0, 1).mul(255).round().div(255)
    size = crop.shape[1]
    height, width = (min(size, int(size * side)) for side in rng.uniform(0.3, 1.5, 2))
    top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
    colours = (rng.random(3), np.full(3, rng.random()), rng.integers(0, 2, 3), np.full(3, rng.integers(0, 2)), np.full(3, 0.5))
    colour = torch.tensor(np.array(colours[rng.integers(len(colours))], np.float32)).view(3, 1, 1).to(crop.device)
    if rng.random() < 0.3:
        slope = rng.normal(0, 0.5 / size, 2)
        ramp = np.arange(height)[:, None] * slope[0] + np.arange(width) * slope[1]
        colour = (colour + torch.from_numpy(ramp.astype(np.float32)).to(crop.device)).clamp(0, 1)
    crop = crop.clone()
    crop[:, top : top + height, left : left + width] = colour.mul(255).round().div(255)
    return crop


class ImageFolder:
    """Images of a folder as uint8 3×H×W tensors, split into training and held-back ones by file name.

    `device` holds the pixels: on an accelerator the crops are cut there and training never waits for data.
    Images smaller than `minimum` pixels on a side, and files that do not decode, are left out and counted.
    Raises ValueError if nothing usable is left.
    """

    def __init__(self, folder: str | Path, *, minimum: int, device: torch.device | str = "cpu", limit: int | None = None):
        paths = list_images(Path(folder))[:limit]
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(_read, paths))
        self.train: list[Tensor] = []
        self.held_back: list[Tensor] = []
        self.skipped = 0
        for path, image in zip(paths, images, strict=True):
            if image is None or min(image.shape[1:]) < minimum:
                self.skipped += 1
                continue
            # By name, so that a picture stays on its side when the folder grows.
            draw = int.from_bytes(hashlib.sha256(path.stem.encode()).digest()[:4], "big") / 2**32
            (self.held_back if draw < HELD_BACK else self.train).append(image.to(device))
        if not self.held_back and len(self.train) > 1:
            self.held_back.append(self.train.pop())
        if not self.train:
            raise ValueError(f"{folder}: no usable image of at least {minimum}x{minimum} pixels among {len(paths)} files")
        areas = np.array([image.shape[1] * image.shape[2] for image in self.train], dtype=np.float64)
        self.weights = areas / areas.sum()

    def crops(self, count: int, size: int, rng: np.random.Generator, *, flat: float = 0.15) -> Tensor:
        """Random crops, count×3×size×size float32 in [0, 1]: images drawn by area, flipped or transposed at random,
        a third of them from a larger window that is scaled down (hides source artefacts, multiplies the data), and a
        share `flat` with flat parts."""
        batch = []
        for index in rng.choice(len(self.train), count, p=self.weights):
            image = self.train[index]
            window = size
            if rng.random() < 0.33:
                window = int(rng.integers(size, min(2 * size, *image.shape[1:]) + 1))
            top = int(rng.integers(image.shape[1] - window + 1))
            left = int(rng.integers(image.shape[2] - window + 1))
            crop = image[:, top : top + window, left : left + window].float().div_(255)
            if window != size:
                crop = F.interpolate(crop[None], (size, size), mode="bicubic", antialias=True)[0].clamp_(0, 1)
            if rng.random() < 0.5:
                crop = crop.flip(2)
            if rng.random() < 0.25:
                crop = crop.transpose(1, 2)
            if rng.random() < flat:
                crop = _flattened(crop, rng)
            batch.append(crop)
        return torch.stack(batch)

    def validation(self, size: int, count: int = 16) -> Tensor:
        """Centre crops of held-back images, N×3×size×size float32 in [0, 1]; the same at every call."""
        batch = []
        for image in (self.held_back or self.train)[:count]:
            top, left = (image.shape[1] - size) // 2, (image.shape[2] - size) // 2
            batch.append(image[:, top : top + size, left : left + size].float() / 255)
        return torch.stack(batch)
