"""Blocks: everything the transforms and priors are assembled from."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.01  # of the leaky rectifier below zero


def multiply(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, onto: Tensor | None = None, activate: bool = False
) -> Tensor:
    """1x1 convolution, then added to `onto`, then the activation. `onto` is lost where no gradient is wanted.

    In one pass over memory where oneDNN is at hand.
    """
    if not torch.is_grad_enabled() and x.device.type == "cpu" and torch._C._get_mkldnn_enabled() and _available():
        kind = torch.bfloat16 if _autocast() else x.dtype
        if kind != torch.float64 and (onto is None or onto.dtype == kind):
            weight = weight.to(kind, memory_format=torch.channels_last)
            return _multiply_at_once(x.to(kind), weight, bias if bias is None else bias.to(kind), onto, activate)
    y = F.conv2d(x, weight, bias)
    y = y if onto is None else y.add_(onto)
    return activation(y) if activate else y


def _autocast() -> bool:
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()


@cache
def _available() -> bool:
    """Whether torch has oneDNN's convolutions with what follows them (what its compiler calls; not documented), and they do
    what is expected of them here."""
    x, weight, bias = torch.linspace(-1, 1, 8).view(1, 2, 2, 2), torch.tensor([[0.5, -1], [2, 0.25]])[:, :, None, None], torch.ones(2)
    with torch.autocast("cpu", enabled=False):
        plain = F.conv2d(x, weight, bias)
        for onto, activate in ((None, False), (None, True), (x, False), (x, True)):
            expected = plain if onto is None else plain + onto
            try:
                found = _multiply_at_once(x, weight, bias, None if onto is None else onto.clone(), activate)
            except (AttributeError, RuntimeError, TypeError):
                return False
            if not torch.allclose(found, F.leaky_relu(expected, SLOPE) if activate else expected):
                return False
    return True


def _multiply_at_once(x: Tensor, weight: Tensor, bias: Tensor | None, onto: Tensor | None, activate: bool) -> Tensor:
    layer = x, weight, bias, [0, 0], [1, 1], [1, 1], 1
    if onto is None:
        return torch.ops.mkldnn._convolution_pointwise(*layer, *(("leaky_relu", [SLOPE], "") if activate else ("none", [], "")))
    y = torch.ops.mkldnn._convolution_pointwise_.binary(onto, *layer, "add", 1.0, None, [], None)
    return activation(y) if activate else y


class Pointwise(nn.Conv2d):
    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor, *, onto: Tensor | None = None, activate: bool = False) -> Tensor:
        return multiply(x, self.weight, self.bias, onto=onto, activate=activate)


def pointwise(channels_in: int, channels_out: int, *, scale: float = 1.0) -> Pointwise:
    """1x1 convolution, normal initialisation with variance scale²/channels_in, zero bias."""
    layer = Pointwise(channels_in, channels_out)
    nn.init.normal_(layer.weight, std=scale * channels_in**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


def depthwise(channels: int, size: int = 3) -> nn.Conv2d:
    """Depthwise convolution of odd `size`, started near the identity."""
    layer = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels)
    nn.init.normal_(layer.weight, std=0.3 / size)
    with torch.no_grad():
        layer.weight[:, :, size // 2, size // 2] += 1
    nn.init.zeros_(layer.bias)
    return layer


def activation(x: Tensor) -> Tensor:
    """Leaky rectifier, written over x: for what a convolution has just made, which no gradient needs as it was."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def compress(x: Tensor) -> Tensor:
    """sign(x)·log(1 + |x|): latents for a network, to which small ones matter as much as large ones."""
    return x.sign() * x.abs().log1p()


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 faster than float32."""
    if device.type == "cpu":
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(probe and probe())
    return True


class Block(nn.Module):
    """Depthwise-separable residual block followed by a residual pointwise pair (as in EVC and DCVC).

    B×C×h×w -> B×C×h×w, written over x where no gradient is wanted; 6C² + 9C multiplications a position. Both branches start small, so that a
    new block is nearly the identity: depth can be added to a trained network.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.mix_in = pointwise(channels, channels, scale=1.4)
        self.spatial = depthwise(channels)
        self.mix_out = pointwise(channels, channels, scale=0.1)
        self.expand = pointwise(channels, 2 * channels, scale=1.4)
        self.contract = pointwise(2 * channels, channels, scale=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix_out(self.spatial(self.mix_in(x, activate=True)), onto=x)
        return self.contract(self.expand(x, activate=True), onto=x)


def blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels) for _ in range(count)))


class Down(nn.Module):
    """Lower the resolution by a factor: pixel unshuffle, then a pointwise layer, which is a strided convolution."""

    def __init__(self, channels_in: int, channels_out: int, factor: int = 2):
        super().__init__()
        self.factor = factor
        self.mix = pointwise(channels_in * factor**2, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.mix.weight.view(len(self.mix.weight), -1, self.factor, self.factor)
        return F.conv2d(x, weight, self.mix.bias, stride=self.factor)


class Up(nn.Module):
    """Double the resolution: a pointwise layer, then pixel shuffle."""

    def __init__(self, channels_in: int, channels_out: int, factor: int = 2, *, scale: float = 1.0):
        super().__init__()
        self.factor = factor
        self.mix = pointwise(channels_in, channels_out * factor**2, scale=scale)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.mix(x), self.factor)


class RateTable(nn.Module):
    """A vector of C values for every point of the trade-off grid, interpolated linearly between them."""

    def __init__(self, points: int, channels: int, initial: Tensor | float = 0.0):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(points, channels) + initial)

    def forward(self, t: Tensor) -> Tensor:
        """t: B positions on the grid, 0..points-1. Returns B×C×1×1."""
        low = t.floor().clamp(0, self.table.shape[0] - 2).long()
        fraction = (t - low)[:, None]
        return torch.lerp(self.table[low], self.table[low + 1], fraction)[:, :, None, None]
