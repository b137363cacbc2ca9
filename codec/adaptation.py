"""Changes of the lossless model for one picture, sent in its file: of the last layers of its heads.

A decoder runs the same network with other weights, so it takes no longer. The changes count in a step that is a power of
two not below the grid of the weights: sums stay exact. They are coded as the pixels are, each as a discretised logistic.

    u8  e       changes count in 2^-e
    u8  s       log2 of the scale of their distribution, in 1/8
    u32 length  of the stream that follows: values change + 128, head by head, weights before biases
"""

from __future__ import annotations

import copy
import math
import struct
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .entropy.mixtures import SCALE_STEPS, Arithmetic, Mixture, Stacks, ideal_bits
from .errors import FormatError
from .networks import lossless as net
from .networks.lossless import LosslessVAE
from .weights import LosslessModel

EXPONENTS = (5, 6, 7)  # of the steps that an encoder tries
SAMPLE = 1 << 17  # pixels that the changes are fitted to
STEPS, BATCH, LEARNING_RATE, BETAS = 800, 1024, 1e-2, (0.9, 0.98)
MAX_EXPONENT, MAX_SCALE = 14, 63
MAX_SUM = 2.0**16  # of the magnitudes of a unit's weights, far within what float64 adds up exactly
_HEAD = struct.Struct("<BBI")


def _parameters(network: LosslessVAE, heads: int) -> list[Tensor]:
    return [parameter.data for layer in network.heads_out[:heads] for parameter in (layer.weight, layer.bias)]


def _distribution(arithmetic: Arithmetic, count: int, scale: int) -> Mixture:
    column = np.zeros((count, 1))
    return arithmetic.mixture(column, column + 128.0, column + scale / SCALE_STEPS)


def pack(model: LosslessModel, exponent: int, changes: np.ndarray) -> bytes:
    """changes: integers -128..127, as `read` counts them."""
    mixtures = [_distribution(model.arithmetic, len(changes), scale) for scale in range(MAX_SCALE + 1)]
    bits = [ideal_bits(changes + 128, mixture).sum() for mixture in mixtures]
    scale = int(np.argmin(bits))
    stacks = Stacks([b""])
    stacks.push(changes + 128, mixtures[scale], [len(changes)])
    (stream,) = stacks.data()
    return _HEAD.pack(exponent, scale, len(stream)) + stream


def read(model: LosslessModel, data: bytes | memoryview, heads: int) -> tuple[LosslessModel, int]:
    """The model with the changes that `data` begins with, and their length in bytes; heads: 1 for gray, 3 for colour."""
    if len(data) < _HEAD.size:
        raise FormatError("damaged pixels section: it ends within the changes of the model")
    exponent, scale, length = _HEAD.unpack(data[: _HEAD.size])
    end = _HEAD.size + length
    if exponent > MAX_EXPONENT or scale > MAX_SCALE or end > len(data):
        raise FormatError(f"damaged pixels section: changes of the model {exponent}, {scale}, of {length} bytes")
    count = sum(parameter.numel() for parameter in _parameters(model.network, heads))
    stacks = Stacks([bytes(data[_HEAD.size : end])])
    changes = stacks.pop(_distribution(model.arithmetic, count, scale), [count]) - 128
    if not stacks.empty:
        raise FormatError("damaged pixels section: the changes of the model do not end where they should")
    network = copy.deepcopy(model.network)
    parameters = _parameters(network, heads)
    parts = torch.from_numpy(changes * 2.0**-exponent).split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter += part.reshape(parameter.shape)
    if max(float(layer.weight.abs().sum(1).max()) for layer in network.heads_out) > MAX_SUM:
        raise FormatError("damaged pixels section: changes of the model too large for exact sums")
    return replace(model, network=network), end


@torch.no_grad()
def fit(model: LosslessModel, seen: list[tuple[Tensor, ...]], pixels: int) -> bytes:
    """Changes that save bits on a sample of pixels, packed; b"" where they do not pay for themselves.

    seen: for each channel in coding order, of the sampled pixels: inputs of the last layer of its head, the differences
    of the channels before, levels, base and local scale, all float32; pixels: how many of the picture they stand for.
    """
    original = [parameter.float() for parameter in _parameters(model.network, len(seen))]

    def bits(parameters: list[Tensor], span) -> Tensor:
        total = torch.zeros((), dtype=torch.float32)
        for k, (inputs, known, levels, base, scale) in enumerate(seen):
            # In float64: a host program may have lowered the precision of products of float32.
            weight, bias = (parameter.double() for parameter in parameters[2 * k : 2 * k + 2])
            out = net.shifted(F.linear(inputs[span].double(), weight, bias).float(), known[span])
            total = total + net.logistic_bits(levels[span], out, base[span], scale[span]).sum()
        return total

    # Adam, at a rate that falls to zero. Written out: torch.optim imports the compiler, which takes more than a second.
    parameters = [parameter.clone().requires_grad_() for parameter in original]
    moments = [(torch.zeros_like(parameter), torch.zeros_like(parameter)) for parameter in original]
    count = len(seen[0][0])
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        span = torch.randint(count, (min(BATCH, count),), generator=generator)
        with torch.enable_grad():
            gradients = torch.autograd.grad(bits(parameters, span) / len(span), parameters)
        bias = math.sqrt(1 - BETAS[1] ** (step + 1)) / (1 - BETAS[0] ** (step + 1))
        rate = LEARNING_RATE * (1 - step / STEPS) * bias
        for parameter, gradient, (first, second) in zip(parameters, gradients, moments, strict=True):
            first.lerp_(gradient, 1 - BETAS[0])
            second.lerp_(gradient.square(), 1 - BETAS[1])
            parameter.addcdiv_(first, second.sqrt() + 1e-8, value=-rate)
    spans = [slice(start, start + 8 * BATCH) for start in range(0, count, 8 * BATCH)]

    def total(candidate: list[Tensor]) -> float:
        return sum(float(bits(candidate, span)) for span in spans) * pixels / count / 8

    best, packed = total(original), b""
    for exponent in EXPONENTS:
        step = 2.0**-exponent
        changes = [((a - b) / step).round().clamp(-128, 127) for a, b in zip(parameters, original, strict=True)]
        size = total([b + change * step for b, change in zip(original, changes, strict=True)])
        candidate = pack(model, exponent, torch.cat([change.flatten() for change in changes]).numpy().astype(np.int64))
        if size + len(candidate) < best:
            best, packed = size + len(candidate), candidate
    return packed
