"""p(z), given what is already decoded of z.

Hyper-latents are few, and a tenth of a small file. Their channels say much the same about a place, and so do places side by side: a
fifth of their bits is known by then. So they are decoded in steps: groups of channels, those with most news first, on the black squares
of a chessboard, then all groups on the white ones (as He et al. 2021 and 2022 do for latents). In each step an exact network (`exact.py`)
sees what is known, zero elsewhere, and the rate, and gives each symbol a logistic, whose scale and mean pick a table.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from .config import LossyConfig
from .exact import OUTPUT_STEP, ExactNetwork, IntegerNetwork, Plan

WIDTH = 128
RATES = 16  # how the highest rate is told, and 0 the lowest: about as large as hyper-latents are
PLAN: Plan = ((1, False), (3, False), (1, False), (3, False), (1, False), (1, False))
# Scales of the logistics, a geometric ladder, and places of their means between two whole numbers: a table for each pair.
LEVELS, PLACES = 24, 4
SCALE_MIN, SCALE_MAX = 0.04, 6.0
LOG_STEP = math.log(SCALE_MAX / SCALE_MIN) / (LEVELS - 1)
OUTPUTS = round(1 / OUTPUT_STEP)  # steps of a unit


class HyperContext(nn.Module):
    """Networks of the steps, in order."""

    def __init__(self, config: LossyConfig):
        super().__init__()
        channels, self.groups = config.hyper_latent_channels, config.hyper_groups
        self.register_buffer("order", torch.arange(channels).float())  # of the channels; of a type that can be averaged
        self.last_point = config.rate_points - 1
        self.networks = nn.ModuleList(ExactNetwork(channels + 1, WIDTH, 2 * size, PLAN) for _ in range(2) for size in self.groups)

    def bits(self, z: Tensor, t: Tensor) -> Tensor:
        """Rounded z: B×Cz×h×w at grid positions t: B -> its code length in bits: B values, differentiable in the networks."""
        known, total = self._nothing_but_rate(z, t), torch.zeros(len(z), device=z.device)
        for network, channels, half in zip(self.networks, *self.steps(z.shape[2:]), strict=True):
            half = half.to(z.device)
            mean, level = network(known).chunk(2, 1)
            part = z[:, channels]
            scale = SCALE_MIN * (level.clamp(0, LEVELS - 1) * LOG_STEP).exp()
            distance = (part - mean).abs()
            probability = torch.sigmoid((0.5 - distance) / scale) - torch.sigmoid((-0.5 - distance) / scale)
            total = total - (probability.clamp_min(1e-9).log2() * half).sum((1, 2, 3))
            known = known.index_add(1, channels, part * half)
        return total

    def _nothing_but_rate(self, z: Tensor, t: Tensor) -> Tensor:
        """What is known at first: B×(Cz + 1)×h×w."""
        rate = (t / self.last_point * RATES).round()[:, None, None, None]
        return torch.cat((torch.zeros_like(z), rate.expand(-1, -1, *z.shape[2:])), 1)

    @torch.no_grad()
    def calibrate(self, z: Tensor, t: Tensor) -> None:
        """Begin, quantised, from a batch of rounded z: channels in the order of their entropy, each with a logistic of its own deviation,
        activation steps by what the networks make of it."""
        entropy = z.new_zeros(z.shape[1])
        for value in z.unique().tolist():
            share = (z == value).float().mean((0, 2, 3))
            entropy -= share * share.clamp_min(1e-9).log2()
        self.order.copy_(entropy.argsort(descending=True))
        level = (z.square().mean((0, 2, 3)).sqrt() * math.sqrt(3) / math.pi / SCALE_MIN).clamp_min(1).log() / LOG_STEP
        known = self._nothing_but_rate(z, t)
        known[:, :-1] = z
        for network, channels in zip(self.networks, self.steps(z.shape[2:])[0], strict=True):
            network.layers[-1].weight.mul_(0.1)
            network.layers[-1].bias[len(channels) :] = level[channels]
            network.calibrate(known)

    def steps(self, size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each step the channels that it decodes, and the positions: bool h×w."""
        black = chessboard(size)
        return 2 * list(self.order.long().split(self.groups)), [*len(self.groups) * [black], *len(self.groups) * [~black]]

    def integers(self) -> dict[str, Tensor]:
        """Freeze into the tensors of `ExactHyperContext`."""
        tensors = {f"{step}.{name}": value for step, network in enumerate(self.networks) for name, value in network.integers().items()}
        return {"order": self.order.to(torch.int32), **tensors}


def chessboard(size: tuple[int, int]) -> Tensor:
    """The squares that come first."""
    rows, columns = (torch.arange(side) for side in size)
    return (rows[:, None] + columns) % 2 == 0


class ExactHyperContext:
    """The frozen `HyperContext`. Raises ValueError if its sums may not be exact."""

    def __init__(self, config: LossyConfig, tensors: dict[str, Tensor]):
        order = tensors["order"].numpy().astype(np.int64)
        if sorted(order) != list(range(config.hyper_latent_channels)) or sum(config.hyper_groups) != len(order):
            raise ValueError("groups of hyper-latents that are not all channels")
        self.groups = np.split(order, np.cumsum(config.hyper_groups)[:-1])
        self._networks = [
            IntegerNetwork({name.removeprefix(f"{step}."): value for name, value in tensors.items() if name.startswith(f"{step}.")}, plan=PLAN)
            for step in range(2 * len(self.groups))
        ]

    def places(self, size: tuple[int, int]) -> list[tuple[np.ndarray, ...]]:
        """What each step decodes, as an index of z: by channel, then by row and column."""
        black = chessboard(size).numpy()
        halves = np.nonzero(black), np.nonzero(~black)
        return [(channels[:, None], *half) for half in halves for channels in self.groups]

    @torch.no_grad()
    def predict(self, step: int, known: np.ndarray, place: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        """known: int32 (Cz + 1)×h×w within ±INPUT_MAX: hyper-latents, zero where they are not known yet, and the rate, 0 to RATES.
        The tables of the step's symbols, and the whole number that each of them is counted from."""
        count, _ = np.broadcast_shapes(*(part.shape for part in place))
        out = self._networks[step](torch.from_numpy(known)[None].float())[0].to(torch.int32).numpy()
        mean, level = (part[:, place[1], place[2]] for part in np.split(out, [count]))
        quarter = (mean + OUTPUTS // PLACES // 2) // (OUTPUTS // PLACES)
        whole = (quarter + PLACES // 2) // PLACES
        level = ((level + OUTPUTS // 2) // OUTPUTS).clip(0, LEVELS - 1)
        return PLACES * level + quarter - PLACES * whole + PLACES // 2, whole


def logistic_weights(table: int, reach: int) -> np.ndarray:
    """Mass of a table's logistic on the unit intervals around -reach..reach, then its tails: float64 [2·reach + 2]."""
    level, place = divmod(table, PLACES)
    scale, mean = SCALE_MIN * math.exp(level * LOG_STEP), (place - PLACES // 2) / PLACES
    edges = np.arange(-reach, reach + 2) - 0.5 - mean
    # From the nearer tail: differences of numbers close to 1 lose what is small.
    below, above = (1 / (1 + np.exp(np.clip(-sign * edges / scale, -700, 700))) for sign in (1, -1))
    mass = np.where(edges[:-1] < 0, below[1:] - below[:-1], above[:-1] - above[1:])
    return np.append(mass, below[0] + above[-1])
