"""Priors: what the next symbols look like, given what is already decoded.

A coded symbol is r = round(y - mean). Its table is picked by a scale index that depends on the hyper-latents
z and the rate point alone (exact integers at run time, `exact.py`); the mean is refined in several steps from
latents already known, in floating point: drift there moves a pixel a little and never desynchronises the coder.
(Ballé et al. 2018; Minnen, Ballé and Toderici 2018; step pattern after Li, Li and Lu 2023.)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LossyConfig
from .exact import ExactNetwork
from .layers import Block, Down, RateTable, Up, activation, pointwise

SCALE_LEVELS = 64  # standard deviations of the discretised Gaussians: a geometric ladder
SCALE_MIN, SCALE_MAX = 0.1, 256.0
SCALE_LOG_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALE_LEVELS - 1)


LEVEL_OF_ONE = -math.log(SCALE_MIN) / SCALE_LOG_STEP  # where a deviation of 1 stands on the ladder


def scale_to_index(scale: Tensor) -> Tensor:
    """Standard deviation -> position on the ladder (real)."""
    return LEVEL_OF_ONE + scale.clamp_min(1e-9).log() / SCALE_LOG_STEP


def index_to_scale(index: Tensor) -> Tensor:
    return SCALE_MIN * (index * SCALE_LOG_STEP).exp()


def step_masks(steps: int, channels: int, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Which latents each step decodes: bool steps×M×h×w, a partition of all latents.

    With 4 steps, each quarter of the channels visits the four positions of every 2×2 cell in its own order,
    so that every step has neighbours of every kind; with 2 steps, halves and a checkerboard. With 6, the first of the
    four is split once more, so that low frequencies go from coarse to fine: cells of even row and column, then of odd
    row and column, then the rest.
    """
    if steps == 1:
        return torch.ones(1, channels, height, width, dtype=torch.bool, device=device)
    row = torch.arange(height, device=device)[:, None] % 2
    column = torch.arange(width, device=device)[None, :] % 2
    groups = min(steps, 4)
    group = torch.arange(channels, device=device)[:, None, None] * groups // channels
    if steps == 2:
        order = (row + column + group) % 2
    else:
        # Diagonal first: the second step then sees its diagonal neighbours, the later ones all four sides.
        position = torch.tensor([[0, 2], [3, 1]], device=device)[row, column]
        order = position ^ group
        if steps == 6:
            cell_row = torch.arange(height, device=device)[:, None] // 2 % 2
            cell_column = torch.arange(width, device=device)[None, :] // 2 % 2
            coarse = torch.where(cell_row != cell_column, 2, cell_row)
            order = torch.where(order == 0, coarse, order + 2)
    return order[None] == torch.arange(steps, device=device)[:, None, None, None]


class FactorisedPrior(nn.Module):
    """Independent zero-mean Gaussians whose variance is learned per channel and rate point."""

    steps = 1

    def __init__(self, config: LossyConfig):
        super().__init__()
        self.scale_offset = RateTable(config.rate_points, config.latent_channels, LEVEL_OF_ONE)

    def scale_index(self, shape: torch.Size, t: Tensor) -> Tensor:
        return self.scale_offset(t).expand(shape)


class ContextStep(nn.Module):
    """Mean of one step: a network on hyper-features and known latents, plus a linear filter on the latter.

    `dilation` is the distance of the neighbours that are known by then.
    """

    def __init__(self, config: LossyConfig, dilation: int):
        super().__init__()
        width, channels = config.hyper_width, config.latent_channels
        self.mix_in = pointwise(width + channels, width)
        self.spatial = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, groups=width)
        self.mix = pointwise(width, width, scale=1.4)
        self.head = pointwise(width, channels, scale=0.01)
        self.linear = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, features: Tensor, known: Tensor, unit: Tensor) -> Tensor:
        relative = known / unit
        compressed = relative.sign() * relative.abs().log1p()
        h = activation(self.mix_in(torch.cat((features, compressed.to(features.dtype)), 1)))
        h = activation(self.mix(activation(self.spatial(h))))
        with torch.autocast(known.device.type, enabled=False):
            linear = self.linear(known)
        return self.head(h).float() * unit + linear


class HyperPrior(nn.Module):
    """Gaussians whose scale comes from z and whose mean comes from z and earlier steps.

    All latents here are "gained": multiplied by the per-channel gain of the rate point.
    `unit` is gain times initial deviation: B×M×1×1, the natural size of a gained latent.
    """

    def __init__(self, config: LossyConfig):
        super().__init__()
        self.steps = config.context_steps
        m, width, hyper, points = config.latent_channels, config.hyper_width, config.hyper_latent_channels, config.rate_points
        self.analysis_in = pointwise(2 * m, width)
        self.analysis_down = Down(width, width)
        self.analysis_block = Block(width)
        self.analysis_out = Down(width, hyper)
        # p(z): one logistic a channel and rate point.
        self.z_mean = RateTable(points, hyper)
        self.z_log_scale = RateTable(points, hyper, math.log(0.5))
        self.features_in = pointwise(hyper, width)
        self.features_rate = RateTable(points, width)
        self.features_up1 = Up(width, width)
        self.features_block1 = Block(width)
        self.features_up2 = Up(width, width)
        self.features_block2 = Block(width)
        self.mean_head = pointwise(width, m, scale=0.01)
        self.context = nn.ModuleList(
            ContextStep(config, dilation=2 if self.steps == 6 and step < 3 else 1) for step in range(1, self.steps)
        )
        self.scale_offset = RateTable(points, m)
        self.scale_network = ExactNetwork(hyper, width, m)

    def infer(self, y: Tensor) -> Tensor:
        """Gained latents y: B×M×h×w, h and w multiples of 4 -> hyper-latents z: B×Cz×h/4×w/4."""
        magnitude = y.abs().log1p()
        h = activation(self.analysis_in(torch.cat((magnitude, y.sign() * magnitude), 1)))
        h = self.analysis_block(activation(self.analysis_down(h)))
        return self.analysis_out(h).float()

    def z_bits(self, z: Tensor, t: Tensor) -> Tensor:
        """Code length of z under p(z), in bits, same shape as z; differentiable in everything."""
        scale = self.z_log_scale(t).exp().clamp(0.02, 50)
        distance = (z - self.z_mean(t)).abs()
        probability = torch.sigmoid((0.5 - distance) / scale) - torch.sigmoid((-0.5 - distance) / scale)
        return -probability.clamp_min(1e-9).log2()

    def features(self, z: Tensor, t: Tensor) -> Tensor:
        """Quantised z -> hyper-features at 1/16: B×W×4h×4w."""
        h = activation(self.features_in(z) + self.features_rate(t).to(z.dtype))
        h = self.features_block1(self.features_up1(h))
        return self.features_block2(self.features_up2(h))

    def scale_index(self, z: Tensor, t: Tensor) -> Tensor:
        """Quantised z -> position on the ladder of scales, real, B×M×4h×4w (training; see `exact.py`)."""
        return self.scale_offset(t) + self.scale_network(z)

    def mean(self, step: int, features: Tensor, known: Tensor, unit: Tensor) -> Tensor:
        """Mean of the latents of `step`, given those of earlier steps (zero elsewhere): B×M×h×w."""
        if step == 0:
            return self.mean_head(features).float() * unit
        return self.context[step - 1](features, known, unit)


def gaussian_bits(residual: Tensor, index: Tensor) -> Tensor:
    """Code length in bits of a residual under the zero-mean Gaussian at `index`, integrated over a unit interval."""
    scale = index_to_scale(index.clamp(0, SCALE_LEVELS - 1))
    distance = residual.abs()
    upper = torch.special.ndtr((0.5 - distance) / scale)
    lower = torch.special.ndtr((-0.5 - distance) / scale)
    return -(upper - lower).clamp_min(1e-9).log2()
