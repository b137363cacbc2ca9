"""The order in which latents become known, written once (floor 3).

Training estimates, the encoder quantises and the decoder reads through the same walk; they differ in the
visitor alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .networks.priors import HyperPrior, step_masks


def walk_latents(
    prior: HyperPrior, features: Tensor, unit: Tensor, visit: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Decode the gained latents step by step.

    features: B×W×h×w; unit: B×M×1×1. `visit(mask, mean)` gets the bool mask M×h×w of a step and the means
    B×M×h×w, and returns the latents there (values outside the mask are ignored).
    Returns (all latents, all means), both B×M×h×w float32.
    """
    batch, _, height, width = features.shape
    masks = step_masks(prior.steps, unit.shape[1], height, width, features.device)
    known = torch.zeros(batch, unit.shape[1], height, width, device=features.device)
    means = torch.zeros_like(known)
    for step, mask in enumerate(masks):
        mean = prior.mean(step, features, known, unit)
        means = torch.where(mask, mean, means)
        known = torch.where(mask, visit(mask, mean), known)
    return known, means
