"""Blocks: everything the transforms and priors are assembled from."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.01  # of the leaky rectifier below zero
# Values of an input up to which torch makes small convolutions products of matrices, whose precision a host program may have lowered.
AS_MATRICES = 20480


def multiply(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, onto: Tensor | None = None, activate: bool = False
) -> Tensor:
    """1x1 convolution, then added to `onto`, then the activation. `onto` is lost where no gradient is wanted.

    In one pass over memory where oneDNN is at hand.
    """
    kind = _at_once(x)
    if kind and torch.is_grad_enabled():
        y = _MultiplyWithGradient.apply(x, kind, weight, bias)
    elif kind and (onto is None or onto.dtype == kind):
        weight = weight.to(kind, memory_format=torch.channels_last)
        return _multiply_at_once(x.to(kind), weight, bias if bias is None else bias.to(kind), onto, activate)
    else:
        y = F.conv2d(x, weight, bias)
    y = y if onto is None else y.add_(onto)
    return activation(y) if activate else y


def _at_once(x: Tensor) -> torch.dtype | None:
    """What oneDNN's fused operators would compute with, where they can."""
    if x.device.type != "cpu" or not torch._C._get_mkldnn_enabled():
        return None
    kind = torch.bfloat16 if _autocast() else x.dtype
    return kind if kind in (torch.float32, torch.bfloat16) and _available(kind) else None


def _autocast() -> bool:
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()


@cache
def _available(kind: torch.dtype) -> bool:
    """Whether torch has oneDNN's convolutions with what follows them (what its compiler calls; not documented), and they do
    what is expected of them here, in this type: processors, and what ONEDNN_MAX_CPU_ISA leaves of them, differ."""
    x = torch.linspace(-1, 1, 8, dtype=torch.float32).view(1, 2, 2, 2)
    weight, bias = x.new_tensor([[0.5, -1], [2, 0.25]])[:, :, None, None], x.new_ones(2)
    close = partial(torch.allclose, **({"rtol": 0.02, "atol": 0.02} if kind == torch.bfloat16 else {}))
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        plain = F.conv2d(x, weight, bias)
        layer = x.to(kind), weight.to(kind), bias.to(kind)
        try:
            for onto, activate, keep in ((None, False, False), (None, True, False), (x, False, False), (x, True, False), (x, False, True)):
                expected = plain if onto is None else plain + onto
                expected = F.leaky_relu(expected, SLOPE) if activate else expected
                found = _multiply_at_once(*layer, None if onto is None else onto.to(kind, copy=True), activate, keep=keep)
                if not close(found.float(), expected):
                    return False
            return close(_multiply_at_once(*layer, None, False, times=layer[0]).float(), plain * x)
        except (AttributeError, RuntimeError, TypeError):
            return False


def _multiply_at_once(
    x: Tensor, weight: Tensor, bias: Tensor | None, onto: Tensor | None, activate: bool, *, keep: bool = False, times: Tensor | None = None
) -> Tensor:
    """keep: leave `onto` as it is; times: in place of `onto`, factors of what comes out. The convolution may also be depthwise."""
    layer = x, weight, bias, [weight.shape[-1] // 2] * 2, [1, 1], [1, 1], x.shape[1] // weight.shape[1]
    if times is not None:
        return torch.ops.mkldnn._convolution_pointwise.binary(x, times, *layer[1:], "mul", 1.0, None, [], None)
    if onto is None:
        return torch.ops.mkldnn._convolution_pointwise(*layer, *(("leaky_relu", [SLOPE], "") if activate else ("none", [], "")))
    if keep:
        y = torch.ops.mkldnn._convolution_pointwise.binary(x, onto, *layer[1:], "add", 1.0, None, [], None)
    else:
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
    """Whether the hardware multiplies bfloat16 faster than float32, as far as oneDNN may use it: GPUs; AMX tiles; AVX512-BF16 of AMD.

    With AVX512-BF16 of Intel's, where its tiles are missing or hidden by a virtual machine, oneDNN's bfloat16 runs at 0.6 of the speed
    of float32; with that of AMD at more than four times (Zen 5). False where an older torch does not tell.
    """
    if device.type != "cpu":
        return True
    tiles, instructions = (getattr(torch.cpu, name, bool) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    allowed = _most_allowed(os.environ)
    return allowed >= _TILES and tiles() or allowed >= _INSTRUCTIONS and instructions() and _of_amd()


_INSTRUCTIONS, _TILES = 1, 2
_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


def _most_allowed(environment: Mapping[str, str]) -> int:
    """What the environment leaves oneDNN, which reads the first name before the second, of its former self, and ignores unknown words."""
    most = environment.get("ONEDNN_MAX_CPU_ISA", environment.get("DNNL_MAX_CPU_ISA", "")).upper()
    if most in _WITHOUT_BFLOAT16:
        return 0
    return _INSTRUCTIONS if most.startswith("AVX") and "AMX" not in most else _TILES


@cache
def _of_amd() -> bool:
    """Whether the processor is of AMD: on Windows the name that Python knows says so, on Linux the first lines of a file of the system."""
    if "AuthenticAMD" in platform.processor():
        return True
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return "AuthenticAMD" in file.read(4096)
    except OSError:
        return False


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
        if torch.is_grad_enabled() and (kind := _at_once(x)):
            layers = self.mix_in, self.spatial, self.mix_out, self.expand, self.contract
            return _BlockWithGradient.apply(x, kind, *(values for layer in layers for values in (layer.weight, layer.bias)))
        x = self.mix_out(self.spatial(self.mix_in(x, activate=True)), onto=x)
        return self.contract(self.expand(x, activate=True), onto=x)


class _BlockWithGradient(torch.autograd.Function):
    """What `Block` does, and its derivatives, in as few passes over memory: these, not products, are what a gradient waits for."""

    @staticmethod
    def forward(ctx, x, kind, *parameters):
        x = x.to(kind)
        (w1, b1), (w2, b2), (w3, b3), (w4, b4), (w5, b5) = (
            (weight.to(kind, memory_format=torch.channels_last), bias.to(kind))
            for weight, bias in zip(parameters[::2], parameters[1::2], strict=True)
        )
        ctx.trains = any(ctx.needs_input_grad[2:])
        mixed = _multiply_at_once(x, w1, b1, None, True)
        moved = F.conv2d(mixed, w2, b2, padding=w2.shape[-1] // 2, groups=len(w2))
        middle = _multiply_at_once(moved, w3, b3, x, False, keep=True)
        wide = _multiply_at_once(middle, w4, b4, None, True)
        y = _multiply_at_once(wide, w5, b5, middle, False, keep=ctx.trains)
        if ctx.trains:
            ctx.save_for_backward(mixed, wide, w1, w2, w3, w4, w5, x, moved, middle)
        else:
            ctx.save_for_backward(_slopes(mixed), _slopes(wide), w1, w2, w3, w4, w5)
        return y

    @staticmethod
    def backward(ctx, gradient):
        mixed, wide, w1, w2, w3, w4, w5, *inputs = ctx.saved_tensors
        gradient = gradient.to(mixed.dtype).contiguous(memory_format=torch.channels_last)
        found: list[Tensor | None] = [None] * 10  # of weights and biases
        slopes = mixed, wide
        if ctx.trains:
            slopes = _slopes(mixed), _slopes(wide)
            x, moved, middle = inputs
            found[8:] = _gradients(gradient, wide, w5)
        inner = _multiply_at_once(gradient, _transposed(w5), None, None, False, times=slopes[1])
        if ctx.trains:
            found[6:8] = _gradients(inner, middle, w4)
        gradient = _multiply_at_once(inner, _transposed(w4), None, gradient, False, keep=True)
        if ctx.trains:
            found[4:6] = _gradients(gradient, moved, w3)
        inner = _multiply_at_once(gradient, _transposed(w3), None, None, False)
        if ctx.trains:
            found[2:4] = _gradients(inner, mixed, w2)
        inner = _multiply_at_once(inner, w2.flip(2, 3), None, None, False, times=slopes[0])
        if ctx.trains:
            found[:2] = _gradients(inner, x, w1)
        return _multiply_at_once(inner, _transposed(w1), None, gradient, False), None, *found


def _transposed(weight: Tensor) -> Tensor:
    return weight.transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _slopes(result: Tensor) -> Tensor:
    """Of the activation, from what came out of it: 1 where that is positive, else SLOPE."""
    if result.dtype != torch.bfloat16:
        return torch.full_like(result, SLOPE).masked_fill_(result > 0, 1.0)
    # The same from bits, which are ordered as numbers are, several times as fast. 2^60 times as much: beyond 1 if positive and not nearly zero.
    low, one = torch.tensor([SLOPE, 1.0], dtype=torch.bfloat16).view(torch.int16).tolist()
    return (result.view(torch.int16) + (60 << 7)).clamp_(low, one).view(torch.bfloat16)


class _MultiplyWithGradient(torch.autograd.Function):
    """x: B×C×h×w times a weight D×C×1×1, plus a bias, computed in `kind`; its derivatives are such products too."""

    @staticmethod
    def forward(ctx, x, kind, weight, bias):
        ctx.dtype, ctx.trains = x.dtype, ctx.needs_input_grad[2]
        weight = weight.to(kind, memory_format=torch.channels_last)
        x = x.to(kind)
        ctx.save_for_backward(weight, *((x,) if ctx.trains else ()))
        return _multiply_at_once(x, weight, bias if bias is None else bias.to(kind), None, False)

    @staticmethod
    def backward(ctx, gradient):
        weight, *inputs = ctx.saved_tensors
        gradient = gradient.to(weight.dtype).contiguous(memory_format=torch.channels_last)
        found = _gradients(gradient, inputs[0], weight) if ctx.trains else (None, None)
        to_x = _multiply_at_once(gradient, _transposed(weight), None, None, False).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        return to_x, None, found[0], found[1] if ctx.needs_input_grad[3] else None


def _gradients(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Of the weight and the bias of a convolution of x."""
    padding, groups = [weight.shape[-1] // 2] * 2, x.shape[1] // weight.shape[1]
    layer = [len(weight)], [1, 1], padding, [1, 1], False, [0, 0], groups
    return torch.ops.aten.convolution_backward(gradient, x, weight, *layer, [False, True, True])[1:]


def blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels) for _ in range(count)))


class Down(nn.Module):
    """Lower the resolution by a factor: pixel unshuffle, then a pointwise layer, which is a strided convolution."""

    def __init__(self, channels_in: int, channels_out: int, factor: int = 2):
        super().__init__()
        self.factor = factor
        self.mix = pointwise(channels_in * factor**2, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() <= AS_MATRICES:
            return self.mix(F.pixel_unshuffle(x, self.factor))
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
