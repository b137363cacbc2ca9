"""Blocks: everything the transforms and priors are assembled from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """1x1 convolution.

    On one thread torch leaves that of one picture to a matrix product of half the speed, unless it is dilated, which
    changes nothing for a kernel of one position.
    """
    dilation = 1 if torch.is_grad_enabled() or x.is_cuda else 2
    return F.conv2d(x, weight, bias, dilation=dilation, groups=groups)


class Pointwise(nn.Conv2d):
    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return multiply(x, self.weight, self.bias)


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
    return F.leaky_relu(x, 0.01, inplace=True)


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

    B×C×h×w -> B×C×h×w; 6C² + 9C multiplications a position. Both branches start small, so that a
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
        x = self.mix_out(self.spatial(activation(self.mix_in(x)))).add_(x)
        return self.contract(activation(self.expand(x))).add_(x)


def blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels) for _ in range(count)))


class Down(nn.Module):
    """Halve the resolution: pixel unshuffle, then a pointwise layer."""

    def __init__(self, channels_in: int, channels_out: int, factor: int = 2):
        super().__init__()
        self.factor = factor
        self.mix = pointwise(channels_in * factor**2, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(F.pixel_unshuffle(x, self.factor))


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
