"""Priors: what the next symbols look like, given what is already decoded.

A coded symbol is r = round(y - mean). Its table is picked by a scale index that depends on the hyper-latents
z and the rate point alone (exact integers at run time, `exact.py`); the mean is refined in several steps from
latents already known, in floating point: drift there moves a pixel a little and never desynchronises the coder.
(Ballé et al. 2018; Minnen, Ballé and Toderici 2018; step pattern after Li, Li and Lu 2023.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .config import LossyConfig
from .exact import ExactNetwork
from .hyper import HyperContext
from .layers import Block, Down, RateTable, Up, activation, multiply, pointwise

SCALE_LEVELS = 64  # standard deviations of the discretised Gaussians: a geometric ladder
SCALE_MIN, SCALE_MAX = 0.1, 256.0
SCALE_LOG_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALE_LEVELS - 1)


LEVEL_OF_ONE = -math.log(SCALE_MIN) / SCALE_LOG_STEP  # where a deviation of 1 stands on the ladder


def scale_to_index(scale: Tensor) -> Tensor:
    """Standard deviation -> position on the ladder (real)."""
    return LEVEL_OF_ONE + scale.clamp_min(1e-9).log() / SCALE_LOG_STEP


def index_to_scale(index: Tensor) -> Tensor:
    return SCALE_MIN * (index * SCALE_LOG_STEP).exp()


Place = tuple[slice, slice, slice]  # channels, rows and columns of latents M×h×w


def step_places(steps: int, channels: int) -> list[list[Place]]:
    """Which latents each step decodes: places of equal shape; those of all steps are a partition of the latents.

    With 4 steps, each quarter of the channels visits the four positions of every 2×2 cell in its own order,
    so that every step has neighbours of every kind. With 6, the first of the four is split once more, so that low
    frequencies go from coarse to fine: cells of even row and column, then of odd row and column, then the rest.
    Heights and widths of latents are multiples of 4, numbers of channels too.
    """
    if steps == 1:
        return [[(slice(None), slice(None), slice(None))]]
    # Diagonal first: the second step then sees its diagonal neighbours, the later ones all four sides.
    order = {(0, 0): 0, (0, 1): 2, (1, 0): 3, (1, 1): 1}
    size = channels // 4

    def places(step: int, cells: list[tuple[int, int]], stride: int) -> list[Place]:
        return [
            (
                slice(size * (place ^ step), size * ((place ^ step) + 1)),
                slice(row + 2 * cell_row, None, stride),
                slice(column + 2 * cell_column, None, stride),
            )
            for (row, column), place in order.items()
            for cell_row, cell_column in cells
        ]

    first = [[(0, 0)], [(1, 1)], [(0, 1), (1, 0)]]
    coarse = [places(0, cells, 4) for cells in first] if steps == 6 else [places(0, [(0, 0)], 2)]
    return coarse + [places(step, [(0, 0)], 2) for step in (1, 2, 3)]


def _part(x: Tensor, place: Place) -> Tensor:
    """The part of x: B×M×h×w, or B×M×1×1, at a place."""
    channels, rows, columns = place
    return x[:, channels, rows, columns] if x.shape[2] > 1 else x[:, channels]


def _read(x: Tensor, places: list[Place]) -> Tensor:
    """B×places×rows×columns×channels: channels last in memory, as x should be."""
    return torch.stack([_part(x, place).permute(0, 2, 3, 1) for place in places], 1)


def _write(x: Tensor, values: Tensor, places: list[Place]) -> Tensor:
    for part, place in zip(values.unbind(1), places, strict=True):
        _part(x, place).copy_(part)
    return x


class _Take(torch.autograd.Function):
    """What autograd would make of the slices, with one full-sized gradient in place of one for each."""

    @staticmethod
    def forward(ctx, x, places):
        ctx.shape, ctx.places = x.shape, places
        return _read(x, places)

    @staticmethod
    def backward(ctx, gradient):
        whole = gradient.new_zeros(ctx.shape)
        for part, place in zip(gradient.permute(0, 1, 4, 2, 3).unbind(1), ctx.places, strict=True):
            _part(whole, place).add_(part)  # of B×M×1×1, places share channels
        return whole, None


class _Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, values, places):
        ctx.places = places
        return _write(x.clone(), values, places)

    @staticmethod
    def backward(ctx, gradient):
        values = _read(gradient, ctx.places).permute(0, 1, 4, 2, 3)
        return _write(gradient.clone(), torch.zeros_like(values), ctx.places), values, None


def take(x: Tensor, places: list[Place]) -> Tensor:
    """x: B×M×h×w, or B×M×1×1 -> its parts, stacked: B×places×channels×rows×columns."""
    parts = _Take.apply(x, places) if torch.is_grad_enabled() else _read(x, places)
    return parts.permute(0, 1, 4, 2, 3)


def put(x: Tensor, values: Tensor, places: list[Place]) -> Tensor:
    """The inverse: x with other values at places. Written into x itself where no gradient is wanted."""
    return _Put.apply(x, values, places) if torch.is_grad_enabled() else _write(x, values, places)


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

    def forward(self, features: Tensor, known: Tensor, compressed: Tensor, unit: Tensor, places: list[Place]) -> Tensor:
        """compressed: the known latents as the network sees them. Means at the places, stacked."""
        width = features.shape[1]
        from_features, from_known = self.mix_in.weight.split((width, known.shape[1]), 1)
        h = multiply(features, from_features, self.mix_in.bias)
        h = self.spatial(multiply(compressed, from_known, onto=h, activate=True))
        h = take(h, [(slice(None), *place[1:]) for place in places])
        h = self.mix(activation(h.flatten(0, 1)), activate=True).unflatten(0, h.shape[:2])
        with torch.autocast(known.device.type, enabled=False):
            linear = take(self.linear(known), places)
        return at_places(self.head, h, places).float() * take(unit, places) + linear


def at_places(head: nn.Conv2d, h: Tensor, places: list[Place]) -> Tensor:
    """A pointwise layer at each place, for the channels of that place alone. h: B×places×W×rows×columns."""
    parts = zip(h.unbind(1), places, strict=True)
    return torch.stack([multiply(part, head.weight[channels], head.bias[channels]) for part, (channels, _, _) in parts], 1)


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
        # p(z): one logistic a channel and rate point; what training sees even where files know more of it.
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
        if config.hyper_groups:
            self.hyper_context = HyperContext(config)

    def infer(self, y: Tensor) -> Tensor:
        """Gained latents y: B×M×h×w, h and w multiples of 4 -> hyper-latents z: B×Cz×h/4×w/4."""
        magnitude = y.abs().log1p()
        h = self.analysis_in(torch.cat((magnitude, y.sign() * magnitude), 1), activate=True)
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

    def mean(
        self, step: int, features: Tensor, known: Tensor, compressed: Tensor, unit: Tensor, places: list[Place]
    ) -> Tensor:
        """Means of the latents of `step`, stacked, given those of earlier steps: B×M×h×w, zero elsewhere."""
        if step == 0:
            h = take(features, [(slice(None), *place[1:]) for place in places])
            return at_places(self.mean_head, h, places).float() * take(unit, places)
        return self.context[step - 1](features, known, compressed, unit, places)


def gaussian_bits(residual: Tensor, index: Tensor) -> Tensor:
    """Code length in bits of a residual under the zero-mean Gaussian at `index`, integrated over a unit interval."""
    scale = index_to_scale(index.clamp(0, SCALE_LEVELS - 1))
    distance = residual.abs()
    upper = torch.special.ndtr((0.5 - distance) / scale)
    lower = torch.special.ndtr((-0.5 - distance) / scale)
    return -(upper - lower).clamp_min(1e-9).log2()


def symbol_bits(symbols: Tensor, index: Tensor, levels: Tensor, config: LossyConfig) -> Tensor:
    """Code length in bits of quantised residuals under the zero-mean Gaussian at `index`; the levels of the file they are from say
    which of them stand on a trellis (`entropy/trellis.py`): for these it is that of the interval that is nearest."""
    bits = gaussian_bits(symbols, index)
    if not config.trellis_step:
        return bits
    count = symbols.abs()
    # From the nearer end to the farther; of positive ones the first is nearer to zero than its neighbour on the other side.
    near = torch.where(symbols > 0, (2 * count - 2).clamp_min(0.5), 2 * count - 1)
    far = torch.where(symbols > 0, 2 * count, 2 * count + 1).where(symbols != 0, torch.full_like(count, 0.5))
    scale = index_to_scale(index.clamp(0, SCALE_LEVELS - 1)) / config.trellis_step
    mass = (torch.special.ndtr(-near / scale) - torch.special.ndtr(-far / scale)).abs()
    return torch.where(levels < config.trellis_level, bits, -mass.clamp_min(1e-9).log2())
