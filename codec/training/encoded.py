"""Training crops as files will hold them: what is fitted last (scales, tables, synthesis) is fitted to what the encoder writes.

The encoder searches (`refine.py`): its symbols are smaller, and sharper about zero, than the rounded latents that networks
are trained with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import lossy, refine, weights
from ..container import QUALITY_MAX
from ..freeze import freeze
from ..networks.execution import execution
from ..networks.model import LossyVAE
from .data import ImageFolder

EFFORT = 3  # the default


@dataclass(frozen=True)
class Encoded:
    """N crops, on the CPU. Of the symbols, those beyond 16 bits are cut."""

    x: Tensor  # uint8 N×3×H×W
    t: Tensor  # float32 N: positions on the trade-off grid
    z: Tensor  # int16 N×Cz×h/4×w/4
    residuals: Tensor  # int16 N×M×h×w
    levels: Tensor  # uint8 N×M×h×w: the table of each
    decoded: Tensor  # float16 N×M×h×w: gained latents as a decoder has them

    def batch(self, count: int, rng: np.random.Generator, fields: Iterable[str]) -> list[Tensor]:
        """These fields of some of the crops, float32; x in [0, 1]."""
        chosen = torch.from_numpy(rng.choice(len(self.t), count))
        return [getattr(self, name)[chosen].float() / (255 if name == "x" else 1) for name in fields]


def encode_crops(
    network: LossyVAE,
    data: ImageFolder,
    count: int,
    size: int,
    seed: int,
    *,
    flat: float = 0.15,
    counts: tuple[np.ndarray, np.ndarray] | None = None,
) -> Encoded:
    """Code random crops of size×size pixels at random rates. flat: as for `ImageFolder.crops`; counts: as for `freeze`.

    ValueError where the scale network or the hyper-context is not exact yet.
    """
    model = weights.assemble(freeze(network, counts=counts))
    rng, found = np.random.default_rng(seed), []
    with execution("cpu", 0):
        for _ in range(count):
            quality = int(rng.integers(QUALITY_MAX + 1))
            x = (data.crops(1, size, rng, flat=flat)[0].cpu() * 255).round().to(torch.uint8)
            encoder = lossy.Encoder(model, np.ascontiguousarray(x.permute(1, 2, 0).numpy()))
            latents = refine.refine(encoder, encoder.analyse(quality), quality, EFFORT)
            levels = lossy.scale_levels(model, quality, latents.z, latents.residuals.shape)
            z, residuals = (torch.from_numpy(s).clamp(-(2**15), 2**15 - 1).to(torch.int16) for s in (latents.z, latents.residuals))
            t = lossy.position(model, quality)[0]
            found.append((x, t, z, residuals, torch.from_numpy(levels), latents.decoded[0].half().contiguous()))
    return Encoded(*(torch.stack(values) for values in zip(*found, strict=True)))
