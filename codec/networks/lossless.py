"""The lossless VAE: latents z of 16×16 blocks, and p(x|z) pixel by pixel from a causal neighbourhood.

Every pixel x = (R, G, B) sees 24 neighbours that come before it on wavefronts x + 2y, a linear prediction of its
colours whose coefficients are fitted to the picture (least squares; they are in the file), the residuals of that
prediction at six neighbours, and the latents of its block. All differences are in units of a local scale, so that the
network is the same at every contrast. G is coded first, then R given G, B given both: each a mixture of discretised
logistics (Salimans et al. 2017) in those units.

q(z|x) sees the block alone, p(z) the latents of three earlier blocks: a decoder that moves along wavefronts knows
both in time, which lets bits-back coding work block by block (`codec/lossless.py`).

Exactness: in float64 every weight and every activation is rounded to a dyadic grid and bounded, so that all sums are
exact whatever their order; non-linear functions are comparisons, or tables of integers. In float32 the same code
trains, without rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LosslessConfig

BLOCK = 16  # pixels a latent position
# (dx, dy) of the causal neighbourhood, nearest first: dx + 2 dy < 0 on every one.
NEIGHBOURS = (
    (-1, 0), (0, -1), (1, -1), (-1, -1), (-2, 0), (0, -2), (1, -2), (-1, -2), (-2, -1), (2, -2), (-2, -2), (-3, 0),
    (3, -2), (-3, -1), (0, -3), (1, -3), (-1, -3), (2, -3), (-3, -2), (-2, -3), (3, -3), (0, -4), (1, -4), (-1, -4),
)  # fmt: skip
LINEAR = 14  # the nearest of them enter the linear prediction
RESIDUALS = 6  # and so many enter with their residuals
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP = 3, 3, 4
CHANNELS = 3
ORDER = (1, 0, 2)  # G, R, B
COMPONENTS = 3

BASE_STEPS = 16  # the linear prediction counts in 1/16 of a level
SCALE_TABLE_STEPS = 4  # local scales: powers of 2^(1/4)
SCALE_FLOOR = 3 * BASE_STEPS  # added to the sum of residuals, so that flat areas have a scale
INPUTS = CHANNELS * (len(NEIGHBOURS) + RESIDUALS) + 1 + CHANNELS
CLIP = 16.0  # normalised differences beyond say no more

WEIGHT_GRID = 2.0**-14
ACTIVATION_GRID = 2.0**-10
ACTIVATION_MAX = 2.0**9
OUTPUT_GRID = 2.0**-10
EARLIER = 3  # blocks whose latents are known on both sides when those of a block are coded: W, N, NE
LOG_SCALE_Q = (-3.0, 2.0)  # limits of log2 of the scales of z
LOG_SCALE_P = (-3.0, 4.0)
LATENT_STEPS = 8  # z counts in 1/8
LATENT_LIMIT = 128  # |z| <= 128 steps
TABLE_BITS = 20  # of a coded interval; each symbol has at least one of 2^20


def on_grid(x: Tensor, grid: float, limit: float) -> Tensor:
    """Rounded to multiples of `grid` and clamped in float64; unchanged in training."""
    if x.dtype != torch.float64:
        return x
    return (x * (1 / grid)).round().mul_(grid).clamp_(-limit, limit)


def local_scale(total: Tensor) -> tuple[Tensor, Tensor]:
    """total: sums of |residual| over RESIDUALS neighbours and all channels, in 1/16. Returns (scale in levels, log2).

    The scale is a power of two: dividing by it is exact.
    """
    exponent = torch.frexp(total + SCALE_FLOOR)[1].to(total.dtype)  # 2^(e-1) <= total < 2^e
    exponent = exponent - 9  # of the mean over 18 residuals in levels, roughly: 2^e / 16 / 18
    return torch.exp2(exponent), exponent


class Dense(nn.Linear):
    """A linear layer whose weights are on the grid in float64."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1.0):
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight, std=scale * inputs**-0.5)
        nn.init.zeros_(self.bias)


class LosslessVAE(nn.Module):
    def __init__(self, config: LosslessConfig):
        super().__init__()
        self.config = config
        width, side, latents = config.width, config.head_width, config.latent_channels
        self.enter = Dense(INPUTS, width, 1.0)
        self.middle = nn.ModuleList(Dense(width, width, 1.0) for _ in range(config.layers))
        # Per channel in coding order: from the trunk and what is known of the pixel, to the mixture.
        self.heads_in = nn.ModuleList(Dense(width + 3 * k, side, 1.4) for k in range(CHANNELS))
        self.heads_out = nn.ModuleList(Dense(side, 3 * COMPONENTS + k, 0.1) for k in range(CHANNELS))
        if latents:
            self.from_latents = Dense(latents, width, 1.0)
            block = CHANNELS * BLOCK * BLOCK
            self.infer_in = Dense(2 * block + 1, config.latent_width, 1.0)
            self.infer_middle = Dense(config.latent_width, config.latent_width, 1.4)
            self.infer_out = Dense(config.latent_width, 2 * latents, 0.3)
            self.prior_in = Dense(EARLIER * latents, config.latent_width // 2, 1.0)
            self.prior_out = Dense(config.latent_width // 2, 2 * latents, 0.1)
        with torch.no_grad():
            for head in self.heads_out:
                head.bias[COMPONENTS : 2 * COMPONENTS] = torch.linspace(-0.3, 0.3, COMPONENTS)
                head.bias[2 * COMPONENTS : 3 * COMPONENTS] = torch.linspace(-1.0, 0.5, COMPONENTS)

    # p(x|z)

    def trunk(self, features: Tensor, z: Tensor | None) -> Tensor:
        """features: N×INPUTS; z: N×width, `from_latents` of the pixel's block, or None -> N×width."""
        h = self.enter(features)
        if z is not None:
            h = h + z
        h = on_grid(F.relu(h), ACTIVATION_GRID, ACTIVATION_MAX)
        for layer in self.middle:
            h = on_grid(h + F.relu(layer(h)), ACTIVATION_GRID, ACTIVATION_MAX)
        return h

    def head(self, k: int, h: Tensor, known: Tensor) -> Tensor:
        """Mixture of the k-th channel in coding order; known: N×k, differences of the pixel's channels before it.

        Returns N×3·COMPONENTS: logits, means, log2 of scales, all in units of the local scale.
        """
        return shifted(self.heads_out[k](self.hidden(k, h, known)), known)

    def hidden(self, k: int, h: Tensor, known: Tensor) -> Tensor:
        """Inputs of the last layer of a head."""
        if k:
            known = known.clamp(-CLIP, CLIP)
            h = torch.cat([h, known, known.abs(), known.clamp(-2, 2)], 1)
        return on_grid(F.relu(self.heads_in[k](h)), ACTIVATION_GRID, ACTIVATION_MAX)

    # z

    def infer(self, blocks: Tensor) -> Tensor:
        """q(z|x) of blocks: N×3×16×16 differences from the linear prediction in levels -> N×2·latents: means, log2 scales."""
        flat = blocks.flatten(1)
        sizes = flat.abs()
        total = sizes.sum(1, keepdim=True)
        scale, log_scale = local_scale(on_grid(total * (18 * BASE_STEPS / flat.shape[1]), 1.0, 2.0**20))
        flat = (flat / scale).clamp(-CLIP, CLIP)
        h = torch.cat([flat, flat.abs(), log_scale], 1)
        h = on_grid(F.relu(self.infer_in(h)), ACTIVATION_GRID, ACTIVATION_MAX)
        h = on_grid(F.relu(self.infer_middle(h)), ACTIVATION_GRID, ACTIVATION_MAX)
        return self.infer_out(h)

    def prior(self, earlier: Tensor) -> Tensor:
        """p(z) given the latents of the blocks W, N, NE: N×3·latents -> N×2·latents: means, log2 scales."""
        h = on_grid(F.relu(self.prior_in(earlier)), ACTIVATION_GRID, ACTIVATION_MAX)
        return self.prior_out(h)


def shifted(out: Tensor, known: Tensor) -> Tensor:
    """Outputs of the last layer of a head, the slopes at their end times `known` added to the means."""
    out = on_grid(out, OUTPUT_GRID, 64.0)
    if not known.shape[1]:
        return out
    mean = out[:, COMPONENTS : 2 * COMPONENTS] + (out[:, 3 * COMPONENTS :] * known.clamp(-CLIP, CLIP)).sum(1, keepdim=True)
    mean = on_grid(mean, OUTPUT_GRID, 64.0)
    return torch.cat([out[:, :COMPONENTS], mean, out[:, 2 * COMPONENTS : 3 * COMPONENTS]], 1)


def logistic_bits(x: Tensor, out: Tensor, base: Tensor, scale: Tensor) -> Tensor:
    """Code length in bits of levels x: N under the mixture `out` around `base`: N in units of `scale`: N. Differentiable."""
    k = COMPONENTS
    weights = out[:, :k].log_softmax(1)
    inverse = torch.exp2(-out[:, 2 * k : 3 * k].clamp(-7, 6)) / scale[:, None]
    centre = (x - base)[:, None] - out[:, k : 2 * k] * scale[:, None]
    high, low = (centre + 0.5) * inverse, (centre - 0.5) * inverse
    high = high.masked_fill((x == 255)[:, None], 40.0)
    low = low.masked_fill((x == 0)[:, None], -40.0)
    flip = torch.ones_like(high).masked_fill_(high + low > 0, -1.0)  # differences of small numbers keep their digits
    mass = (torch.sigmoid(flip * high) - torch.sigmoid(flip * low)).abs()
    floor = 2.0**-TABLE_BITS
    probability = (weights.exp() * mass).sum(1) * (1 - 256 * floor) + floor
    return -torch.log2(probability)


def features_of(neighbours: Tensor, residuals: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """neighbours: N×24×3 levels, residuals: N×6×3 levels, base: N×3 levels.

    Returns the inputs N×INPUTS, the local scale N×1 and its log2.
    """
    total = residuals.abs().sum((1, 2), keepdim=False)[:, None] * BASE_STEPS
    scale, log_scale = local_scale(total)
    near = (neighbours - base[:, None, :]).flatten(1) / scale
    errors = residuals.flatten(1) / scale
    features = torch.cat([near, errors], 1).clamp(-CLIP, CLIP)
    level = on_grid(base * 2.0**-7 - 1, ACTIVATION_GRID, 2.0)
    return torch.cat([features, log_scale, level], 1), scale, log_scale


# Canvases: a picture (or tile) with the margin that its neighbourhoods reach into. All of a margin is known before it
# is needed: 128 above the picture; left of a row the first pixel of the row above; right of it its own last pixel.


def canvas(pixels: Tensor) -> Tensor:
    """...×3×H×W -> ...×3×(H+MARGIN_TOP)×(W+MARGIN_LEFT+MARGIN_RIGHT)."""
    *lead, height, width = pixels.shape
    out = pixels.new_full((*lead, height + MARGIN_TOP, width + MARGIN_LEFT + MARGIN_RIGHT), 128)
    out[..., MARGIN_TOP:, MARGIN_LEFT:-MARGIN_RIGHT] = pixels
    out[..., MARGIN_TOP + 1 :, :MARGIN_LEFT] = pixels[..., :-1, :1]
    out[..., MARGIN_TOP:, -MARGIN_RIGHT:] = pixels[..., -1:]
    return out


def neighbours_of(padded: Tensor, count: int = len(NEIGHBOURS), *, every: int = 1) -> Tensor:
    """B×3×(H+..)×(W+..) canvas -> N×count×3 with N = B·H·W; or only those of `every` so many rows."""
    height, width = padded.shape[2] - MARGIN_TOP, padded.shape[3] - MARGIN_LEFT - MARGIN_RIGHT
    slices = [
        padded[:, :, MARGIN_TOP + dy : MARGIN_TOP + dy + height : every, MARGIN_LEFT + dx : MARGIN_LEFT + dx + width]
        for dx, dy in NEIGHBOURS[:count]
    ]
    return torch.stack(slices, 1).permute(0, 3, 4, 1, 2).reshape(-1, count, CHANNELS)


COEFFICIENT_STEPS = 4096  # linear prediction: coefficients count in 1/4096
FIT_PIECE = 4096  # pixels that a fit takes up at once, in float64: what stays in a cache


def regressors(near: Tensor) -> tuple[Tensor, Tensor]:
    """near: N×LINEAR×3 levels -> (W: N×3, differences of the other neighbours from it: N×3·(LINEAR-1))."""
    west = near[:, 0]
    return west, (near[:, 1:] - west[:, None]).flatten(1)


def predict_linear(near: Tensor, coefficients: Tensor) -> Tensor:
    """near: N×LINEAR×3 levels, coefficients: 3·(LINEAR-1)×3 integers -> N×3 predictions, integers in 1/16 of a level.

    Exact in float64.
    """
    west, differences = regressors(near)
    correction = torch.floor((differences @ coefficients) * (BASE_STEPS / COEFFICIENT_STEPS) + 0.5)
    return (west * BASE_STEPS + correction).clamp_(0, 255 * BASE_STEPS)


def fit_linear(pixels: Tensor, *, passes: int = 2, most: int = 200_000) -> Tensor:
    """Least squares, weighted by the local activity: pixels 3×H×W -> coefficients 3·(LINEAR-1)×3, integers in int16.

    Of a large picture some rows of some parts are looked at, about `most` pixels. For an encoder: it need not be exact.
    """
    parts = [part for band in pixels.split(256, 1) for part in band.split(256, 2)]
    parts = parts[:: -(-len(parts) // 16)]
    every = max(1, round(sum(part[0].numel() for part in parts) / most)) // 2 * 2 + 1  # both rows of interlaced pictures
    near = torch.cat([neighbours_of(canvas(part.float())[None], LINEAR, every=every) for part in parts])
    target = torch.cat([part[:, ::every].flatten(1).T for part in parts]).float()
    west, differences = regressors(near)
    target = target - west
    activity = 1 + differences.abs().mean(1, keepdim=True)
    solution = None
    for _ in range(passes):
        size = differences.shape[1]
        gram, moment, total = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, CHANNELS, dtype=torch.float64), 0.0
        for x, y, active in zip(*(values.split(FIT_PIECE) for values in (differences, target, activity)), strict=True):
            x, y = x.double(), y.double()
            if solution is None:
                weight = torch.ones_like(active)
            else:
                weight = 1 / (active + 0.25 * (y - x @ solution).abs().sum(1, keepdim=True)).square()
            weighted = x * weight
            gram += weighted.T @ x
            moment += weighted.T @ y
            total += float(weight.sum())
        gram.diagonal().add_(1e-3 * total + 1e-9)
        solution = torch.linalg.solve(gram, moment)
    return (solution * COEFFICIENT_STEPS).round().clamp(-32768, 32767)
