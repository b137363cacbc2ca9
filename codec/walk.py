"""The order in which latents become known, written once (floor 3).

Training estimates, the encoder quantises and the decoder reads through the same walk; they differ in the
visitor alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .networks.layers import compress
from .networks.priors import HyperPrior, put, step_places, take

Take = Callable[[Tensor], Tensor]


def walk_latents(
    prior: HyperPrior, features: Tensor, unit: Tensor, visit: Callable[[Take, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Decode the gained latents step by step.

    features: B×W×h×w; unit: B×M×1×1. `visit(take, mean)` gets the means of a step, and returns its latents; `take` picks
    those of the step, in the order of the means, from a tensor B×M×h×w or B×M×1×1.
    Returns (all latents, all means), both B×M×h×w float32.
    """
    batch, _, height, width = features.shape
    known = torch.empty(
        (batch, unit.shape[1], height, width),
        dtype=torch.float32, device=features.device, memory_format=torch.channels_last,
    ).zero_()
    means, compressed = torch.zeros_like(known), torch.zeros_like(known)
    steps = step_places(prior.steps, unit.shape[1])
    for step, places in enumerate(steps):
        at_step = partial(take, places=places)
        mean = prior.mean(step, features, known, compressed, unit, places)
        latents = visit(at_step, mean)
        means, known = put(means, mean, places), put(known, latents, places)
        if step + 1 < len(steps):
            compressed = put(compressed, compress(latents / at_step(unit)), places)
    return known, means
