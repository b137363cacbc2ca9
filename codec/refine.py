"""Per-image inference: better latents for this one picture than one amortised pass finds (floor 4, above lossy.py)."""

from __future__ import annotations

from torch import Tensor

from .lossy import Encoder, Latents

CHEAP = 3  # the highest effort whose cost a search can pay at every probe


def refine(encoder: Encoder, y: Tensor, quality: int, effort: int) -> Latents:
    return encoder.quantise(y, quality)
