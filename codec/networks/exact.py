"""Bit-exact evaluation of whatever picks a probability.

Weights and activations are integers held in float32 tensors. While every partial sum stays below 2^24,
any order of summation, thread count, blocking or device gives the same integers; the bound is proved from
the weights when a network is loaded. Between layers one IEEE multiplication, round-half-even and a clamp
bring the sums back to small integers. Only pointwise and depthwise convolutions are used, which libraries
do not replace by transforms (Winograd, FFT) that would lose exactness.

Life cycle of `ExactNetwork`: trained as a float network; `calibrate` chooses activation steps and switches to
`forward` with the quantisation in the loop (straight-through gradients); `integers` freezes it into the
tensors of `IntegerNetwork`, which is all that the runtime knows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import multiply

ACTIVATION_MAX = 255  # activations after the rectifier: 0..255
WEIGHT_MAX = 127  # weights: -127..127
FEW = 512  # positions up to which torch's own product is faster than oneDNN, which reorders the weights
EXACT_LIMIT = 2**24  # integers below are exact in float32, and so are their sums
OUTPUT_STEP = 1 / 16  # fixed-point step of the network's output
OUTPUT_MAX = 2047  # largest output magnitude, in steps
INPUT_MAX = 127  # largest input magnitude (the input is integer: quantised hyper-latents)
# Layers of an exact network: (kernel size, 2× pixel shuffle after it). All but the last are rectified.
Plan = tuple[tuple[int, bool], ...]
SCALE_PLAN: Plan = ((1, False), (3, False), (1, True), (3, False), (1, True), (3, False), (1, False))


def round_through(x: Tensor) -> Tensor:
    """Round half to even; the gradient passes straight through."""
    return x + (x.round() - x).detach()


class ExactLayer(nn.Module):
    """One pointwise or depthwise convolution, optionally rectified, optionally followed by 2× pixel shuffle."""

    def __init__(self, channels_in: int, channels_out: int, *, size: int = 1, rectify: bool = True, shuffle: bool = False):
        super().__init__()
        self.groups = channels_in if size > 1 else 1
        self.rectify, self.shuffle = rectify, shuffle
        fan_in = size * size * channels_in // self.groups
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in // self.groups, size, size) * (1.4 * fan_in**-0.5))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        if size > 1:
            with torch.no_grad():
                self.weight.mul_(0.2)[:, :, size // 2, size // 2] += 1
        self.register_buffer("step", torch.tensor(0.0))  # of the output; 0: not quantised yet

    def weight_steps(self) -> Tensor:
        return self.weight.detach().abs().amax((1, 2, 3)).clamp_min(1e-8) / WEIGHT_MAX

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if self.step > 0:
            steps = self.weight_steps()[:, None, None, None]
            weight = round_through(weight / steps) * steps
        x = F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2, groups=self.groups)
        if self.step > 0:
            low, high = (0, ACTIVATION_MAX) if self.rectify else (-OUTPUT_MAX, OUTPUT_MAX)
            x = round_through((x / self.step).clamp(low, high)) * self.step
        elif self.rectify:
            x = x.relu()
        return F.pixel_shuffle(x, 2) if self.shuffle else x


class ExactNetwork(nn.Module):
    """Quantised hyper-latents z: B×Cz×h×w (integers) -> fixed-point values in float32; under the plan of scales B×M×4h×4w."""

    def __init__(self, channels_in: int, width: int, channels_out: int, plan: Plan = SCALE_PLAN):
        super().__init__()
        self.layers = nn.ModuleList()
        last = len(plan) - 1
        for index, (size, shuffle) in enumerate(plan):
            inner = channels_in if index == 0 else width
            outer = channels_out if index == last else width * (4 if shuffle else 1)
            self.layers.append(ExactLayer(inner, outer, size=size, rectify=index < last, shuffle=shuffle))
        with torch.no_grad():
            self.layers[-1].weight.mul_(0.5)

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            for layer in self.layers:
                z = layer(z)
        return z

    @torch.no_grad()
    def calibrate(self, z: Tensor) -> None:
        """Choose the activation steps from a batch of hyper-latents and start quantising."""
        for layer in self.layers:
            layer.step.zero_()
        for layer in self.layers:
            z = layer(z)
            # The 99.99th percentile fills the range; the few above it saturate.
            sample = z.flatten()[:: max(1, z.numel() // 1_000_000)]
            top = torch.quantile(sample, 0.9999).clamp_min(1e-3) if layer.rectify else None
            layer.step.fill_(top / ACTIVATION_MAX if layer.rectify else OUTPUT_STEP)

    @torch.no_grad()
    def integers(self) -> dict[str, Tensor]:
        """Freeze into the tensors of `IntegerNetwork`. Requires `calibrate`."""
        tensors: dict[str, Tensor] = {}
        step_in = torch.tensor(1.0)
        for index, layer in enumerate(self.layers):
            steps = layer.weight_steps()
            tensors[f"{index}.weight"] = (layer.weight / steps[:, None, None, None]).round().to(torch.int8)
            tensors[f"{index}.bias"] = (layer.bias / (steps * step_in)).round().to(torch.int32)
            tensors[f"{index}.multiplier"] = (steps * step_in / layer.step).to(torch.float32)
            step_in = layer.step
        return tensors


class IntegerNetwork:
    """The frozen `ExactNetwork`: same integers on every machine.

    Raises ValueError if a sum could leave the range in which float32 is exact.
    """

    def __init__(self, tensors: dict[str, Tensor], device: torch.device | str = "cpu", plan: Plan = SCALE_PLAN):
        self.layers = []
        bound_in = INPUT_MAX
        for index, (size, shuffle) in enumerate(plan):
            weight = tensors[f"{index}.weight"].to(torch.int64)
            bias = tensors[f"{index}.bias"].to(torch.int64)
            bound = int((weight.abs().sum((1, 2, 3)) * bound_in + bias.abs()).max())
            if bound >= EXACT_LIMIT:
                raise ValueError(f"layer {index}: sums up to {bound} are not exact in float32 (limit {EXACT_LIMIT})")
            self.layers.append(
                (
                    weight.to(device, torch.float32),
                    bias.to(device, torch.float32),
                    tensors[f"{index}.multiplier"].to(device, torch.float32)[:, None, None],
                    weight.shape[0] if size > 1 else 1,
                    shuffle,
                    (-OUTPUT_MAX, OUTPUT_MAX) if index == len(plan) - 1 else (0, ACTIVATION_MAX),
                )
            )
            bound_in = ACTIVATION_MAX

    @torch.no_grad()
    def __call__(self, z: Tensor) -> Tensor:
        """z: B×Cz×h×w integers within ±INPUT_MAX, float32 or float64 -> integers of that type, in OUTPUT_STEP; of scales B×M×4h×4w."""
        few = z[0, 0].numel() < FEW
        z = z.contiguous(memory_format=torch.channels_last)
        with torch.autocast(z.device.type, enabled=False):
            for weight, bias, multiplier, groups, shuffle, (low, high) in self.layers:
                weight, bias = weight.to(z.dtype), bias.to(z.dtype)
                if groups > 1:
                    z = F.conv2d(z, weight, bias, padding=1, groups=groups)
                else:
                    z = F.conv2d(z, weight, bias) if few else multiply(z, weight, bias)
                # The one rounding of the format: a float32 product, whatever type holds the sums.
                z = z.float().mul_(multiplier).round_().clamp_(low, high).to(z.dtype)
                if shuffle:
                    z = F.pixel_shuffle(z, 2)
        return z
