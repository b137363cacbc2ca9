"""Per-image inference: better symbols for this one picture than one amortised pass finds (floor 4, above lossy.py).

What is minimised is J = R + λD: R the code length of the symbols in bits, D the squared error of the picture in 8-bit
levels (mean over the channels, summed over the pixels), λ the model's own trade-off at the quality, times SLOPES. The
decoder, the file format and the decoder's time do not change. docs/EFFORT.md says what each level does and brings.

Rate–distortion optimised quantisation. A latent at offset e from its mean costs, as symbol k,
    c(k, e) = β·bits(k) + h (e - k)²,
with bits(k) from the coder's own tables and h half the curvature of λD, one constant a channel, measured by sending
random signs backwards through the synthesis (Hutchinson 1990) and by changing symbols. Rounding minimises the second term alone.

Iterated inference. c assumes that the offset's target y is best for the picture, which the amortised y is not, and
that a choice does not matter to the symbols after it, whose means it moves. An iteration corrects the target:
    y ← y + a clip(ŷ - g / 2h - y),
with ŷ the latents as decoded now and g the derivative of J with respect to ŷ: that of λD through the synthesis, and
through the means of later steps that of the smoothed cost V(e + ½) - V(e - ½), V(e) = min over k of c(k, e). With a = 1
and without interaction, the next quantisation minimises J exactly in each symbol: unlike straight-through estimates
and stochastic annealing (Yang, Bamler and Mandt 2020) it is a Newton step and needs few iterations.

Hyper-latents. The same derivative, continued to z, names at each position the channel whose step by one promises most.
The step is tried, at every fourth position at a time, and kept where J falls in its neighbourhood; in a trial
h (y - ŷ)² stands for λD, so that no trial costs a synthesis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .entropy.coder import code_lengths
from .lossy import QUALITY_MAX, Choice, Encoder, Latents, hyper_point, nearest, position, scale_levels, transform_precision
from .networks.exact import INPUT_MAX, OUTPUT_STEP, round_through
from .networks.priors import SCALE_LEVELS
from .tiles import HYPER_STRIDE, STRIDE
from .walk import Take, walk_latents

CHEAP = 3  # the highest effort whose cost a search can pay at every probe
# Effort: (iterations, a at their beginning; it falls linearly). Each phase begins where the one before it ended.
PHASES = {4: (3, 0.4), 5: (2, 0.2), 6: (10, 0.2), 7: (12, 0.15), 8: (16, 0.1), 9: (24, 0.08)}
STIFFNESS = 1.25  # h over what single symbols show: others change with them
REGION = 0.8  # largest move of a target before it is scaled by a: the quadratic model holds nearby only
RATE_WEIGHT_ALONE, RATE_WEIGHT = 0.35, 0.92  # β without and with iterations: bits spent on a latent help later means
# λ here over that of the training objective, at quality 0 and 100. More than the amortised codec itself pays in bits for
# less error (0.8 to 1.05 along its curve): chosen on validation photographs, -10.2 against -9.5 % at level 4.
SLOPES = (1.7, 1.2)
REACH = 255  # symbols further out cost as much as this one when they are compared
WINDOW, MARGIN = 768, 64  # pixels; larger pictures are refined window by window, to bound the memory


def refine(
    encoder: Encoder, y: Tensor, quality: int, effort: int, progress: Callable[[float], None] | None = None
) -> Latents:
    """The latents to write, from the amortised y, at an effort from 1 to 9.

    progress: hears after each iteration (effort 4 and up) which part of all is done; the last is 1.
    """
    if effort <= 3:
        return encoder.quantise(y, quality)
    rounded = encoder.quantise(y, quality)
    problem = _Problem.of(encoder, y, rounded)
    if encoder.model.scales is None:
        chosen = encoder.quantise(y, quality, z=problem.z, choose=problem.choose(RATE_WEIGHT_ALONE))
        return min(chosen, rounded, key=problem.cost)
    target, z = y.clone(), problem.z.clone()
    height, width = y.shape[2] * STRIDE, y.shape[3] * STRIDE
    windows = [_Window(rows, columns) for rows in _spans(height) for columns in _spans(width)]
    for number, window in enumerate(windows):
        say = progress and (lambda part, before=number: progress((before + part) / len(windows)))
        found = _Search(problem.crop(window)).run(effort, say)
        target[window.kept(STRIDE)] = found.target[window.inside(STRIDE)]
        z[window.kept(HYPER_STRIDE)] = found.z[window.inside(HYPER_STRIDE)]
    refined = encoder.quantise(target, quality, z=z, choose=problem.at(z).choose(RATE_WEIGHT))
    return min(refined, rounded, key=problem.cost)  # of equals the first: more work is not thrown away


@dataclass(frozen=True)
class _Problem:
    """J of a picture, or of a part of it, as a function of its symbols."""

    encoder: Encoder
    quality: int
    x: Tensor  # 1×3×H×W
    y: Tensor  # amortised latents, gained: 1×M×h×w
    z: Tensor  # hyper-latents, rounded
    levels: Tensor  # table of each symbol: int64 1×M×h×w
    lengths: Tensor  # code length of symbols -REACH..REACH: tables×(2·REACH + 1)
    hyper_lengths: Tensor  # that of -INPUT_MAX..INPUT_MAX in each channel of z
    curvature: Tensor  # h: 1×M×1×1

    @classmethod
    def of(cls, encoder: Encoder, y: Tensor, rounded: Latents) -> _Problem:
        """rounded: the latents of one amortised pass."""
        model, quality = encoder.model, rounded.quality
        z = torch.from_numpy(rounded.z)[None].to(y)
        lengths = _lengths(model.latent_tables, REACH, y.device)
        hyper_tables = model.hyper_tables[hyper_point(model, quality)] if model.hyper_tables else []
        hyper_lengths = _lengths(hyper_tables, INPUT_MAX, y.device) if hyper_tables else lengths
        levels = torch.from_numpy(encoder.levels(z, quality, tuple(y.shape[1:])))[None].to(y.device)
        curvature = _curvature(encoder, y, rounded.decoded, quality)
        return cls(encoder, quality, encoder.x, y, z, levels, lengths, hyper_lengths, curvature)

    def crop(self, window: _Window) -> _Problem:
        return replace(
            self,
            x=self.x[window.seen(1)],
            y=self.y[window.seen(STRIDE)],
            z=self.z[window.seen(HYPER_STRIDE)],
            levels=self.levels[window.seen(STRIDE)],
        )

    def at(self, z: Tensor) -> _Problem:
        """With other hyper-latents. (In a window the borders of tiles are not seen; they are in the whole picture.)"""
        shape = tuple(self.levels.shape[1:])
        if self.x is self.encoder.x:
            levels = self.encoder.levels(z, self.quality, shape)
        else:
            levels = scale_levels(self.encoder.model, self.quality, z[0].to(torch.int32).cpu().numpy(), shape)
        return replace(self, z=z, levels=torch.from_numpy(levels.astype(np.int64))[None].to(z.device))

    def bits(self, symbols: Tensor) -> Tensor:
        return self.bits_at(self.levels, symbols)

    def bits_at(self, levels: Tensor, symbols: Tensor) -> Tensor:
        places = levels * (2 * REACH + 1) + (symbols.clamp(-REACH, REACH) + REACH).long()
        return self.lengths.view(-1)[places]

    def hyper_bits(self, z: Tensor) -> Tensor:
        places = (z[0].clamp(-INPUT_MAX, INPUT_MAX) + INPUT_MAX).long().flatten(1)
        return self.hyper_lengths.gather(1, places).view(z.shape)

    def best_symbol(self, offset: Tensor, weight: float, take: Take) -> tuple[Tensor, Tensor]:
        """(argmin, min) over k of weight·bits(k) + h (offset - k)², among the nearest integer, the next one towards
        zero, and zero."""
        levels, curvature = take(self.levels), take(self.curvature)
        first = nearest(offset, take)
        zero = levels * (2 * REACH + 1) + REACH
        best, least = first, math.inf
        for symbol in (first, first - first.sign(), None):
            lengths = self.lengths.view(-1)[zero if symbol is None else zero + symbol.clamp(-REACH, REACH).to(zero.dtype)]
            symbol = torch.zeros_like(first) if symbol is None else symbol
            cost = weight * lengths + curvature * (offset - symbol).square()
            if least is math.inf:
                best, least = symbol, cost
            else:
                best = torch.where(cost < least, symbol, best)
                least = torch.minimum(cost, least)
        return best, least

    def choose(self, weight: float) -> Choice:
        """For `Encoder.quantise`."""
        return lambda offset, take: self.best_symbol(offset, weight, take)[0]

    @property
    def error_weight(self) -> float:
        """Of a squared error of samples in [0, 1] in J: λ·255²/3."""
        return _trade_off(self.encoder, self.quality) * 255**2 / 3

    def cost(self, latents: Latents) -> float:
        """J in earnest: bits of the coder, pixels of the decoder, padding left out."""
        encoder = self.encoder
        original = (encoder.x[0] * 255).round().permute(1, 2, 0)[: encoder.height, : encoder.width].cpu().numpy()
        error = np.square(original.astype(np.float64) - encoder.picture(latents)).sum()
        return encoder.bits(latents) + self.error_weight / 255**2 * float(error)


class _Search:
    """Iterated inference on one window: `target` and `z` are the best found so far."""

    def __init__(self, problem: _Problem):
        self.problem, self.network = problem, problem.encoder.network
        self.t = position(problem.encoder.model, problem.quality)
        self.unit = self.network.unit(self.t)
        self.target, self.z = problem.y, problem.z
        self.least = torch.full_like(problem.z[:, :1], math.inf)
        self.tried = torch.zeros_like(problem.z, dtype=torch.bool)

    def run(self, effort: int, progress: Callable[[float], None] | None = None) -> _Search:
        target, done = self.problem.y, 0
        phases = {level: phase for level, phase in PHASES.items() if level <= effort}
        total = sum(iterations for iterations, _ in phases.values())
        for level, (iterations, size) in phases.items():
            if level > 6:
                self.measure(target)
                target, self.problem = self.target, self.problem.at(self.z)
            for iteration in range(iterations):
                gradient, hyper_gradient = self.look(target, hyper=level > 5)
                move = gradient.clamp(-REGION, REGION)
                target = target + size * (1 - iteration / iterations) * move
                if hyper_gradient is not None:
                    self.try_hyper(target, hyper_gradient)
                done += 1
                if progress:
                    progress(done / total)
        self.measure(target)  # where the smallest moves led: the best, as a rule
        return self

    def measure(self, target: Tensor) -> None:
        """`look` without derivatives."""
        decoded, means = self.decide(self.problem, target)
        self.keep(target, decoded, means, _blocks(self.problem.error_weight * self.distance(decoded), HYPER_STRIDE))

    def look(self, target: Tensor, *, hyper: bool) -> tuple[Tensor, Tensor | None]:
        """Measure J under a target, keep what is best at each position of z; (the whole move of the target, the
        derivative with respect to z)."""
        decoded, means = self.decide(self.problem, target)
        gradient, hyper_gradient, error = self.derivative(decoded, means, target, hyper=hyper)
        self.keep(target, decoded, means, error)
        return decoded - gradient / (2 * self.problem.curvature) - target, hyper_gradient

    def keep(self, target: Tensor, decoded: Tensor, means: Tensor, error: Tensor) -> None:
        """Keep a target, and the z at hand, at each position of z where J is the least so far. error: λD there."""
        problem, ratio = self.problem, HYPER_STRIDE // STRIDE
        cost = error + problem.hyper_bits(problem.z).sum(1, keepdim=True)
        cost = cost + _blocks(problem.bits((decoded - means).round()).sum(1, keepdim=True), ratio)
        better = cost < self.least
        self.least = torch.where(better, cost, self.least)
        self.z = torch.where(better, problem.z, self.z)
        everywhere = better.repeat_interleave(ratio, 2).repeat_interleave(ratio, 3)
        self.target = torch.where(everywhere, target, self.target)

    def distance(self, decoded: Tensor) -> Tensor:
        """Squared error of what latents decode to: 1×1×H×W, summed over the channels."""
        with transform_precision(self.problem.encoder.model.device):
            x = self.network.synthesise(decoded, self.t)
        return (x - self.problem.x).square().sum(1, keepdim=True)

    def decide(self, problem: _Problem, target: Tensor) -> tuple[Tensor, Tensor]:
        """(decoded latents, their means) under a target."""
        features = self.network.prior.features(problem.z, self.t)

        def visit(take: Take, mean: Tensor) -> Tensor:
            return problem.best_symbol(take(target) - mean, RATE_WEIGHT, take)[0] + mean

        return walk_latents(self.network.prior, features, self.unit, visit)

    def derivative(
        self, decoded: Tensor, means: Tensor, target: Tensor, *, hyper: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Derivatives of J with respect to the decoded latents and (if wanted) to z, and λD around each place of z."""
        problem, prior = self.problem, self.network.prior
        offset = target - means
        above, below = (problem.best_symbol(offset + move, 1.0, lambda values: values)[1] for move in (0.5, -0.5))
        slope = above - below
        symbols = (decoded - means).round()
        with torch.enable_grad():
            decoded, z = decoded.detach().requires_grad_(), problem.z.detach().requires_grad_(hyper)
            with transform_precision(problem.encoder.model.device):
                _, means = walk_latents(prior, prior.features(z, self.t), self.unit, lambda take, mean: take(decoded))
            error = problem.error_weight * self.distance(decoded)
            total = error.sum() - (slope * means).sum()
            if hyper:
                above, below = ((problem.levels + move).clamp(0, SCALE_LEVELS - 1) for move in (1, -1))
                widening = (problem.bits_at(above, symbols) - problem.bits_at(below, symbols)) / 2
                total = total + (widening * _scale_positions(problem.encoder.model.scales, z)).sum()
            total.backward()
        error = _blocks(error.detach(), HYPER_STRIDE)
        if hyper:
            rise = (problem.hyper_bits(problem.z + 1) - problem.hyper_bits(problem.z - 1)) / 2
            return decoded.grad, z.grad + rise, error
        return decoded.grad, None, error

    def try_hyper(self, target: Tensor, gradient: Tensor) -> None:
        """One step of one channel at each position of z, kept where it pays."""
        now = self.local_cost(self.problem, target)
        promise = gradient.abs().masked_fill(self.tried, 0)
        channel = promise.argmax(1, keepdim=True)
        chosen = torch.zeros_like(self.tried).scatter(1, channel, True) & (promise > 0)
        rows = torch.arange(gradient.shape[2], device=gradient.device)[:, None]
        columns = torch.arange(gradient.shape[3], device=gradient.device)[None, :]
        for row, column in ((0, 0), (1, 1), (0, 1), (1, 0)):
            places = (rows % 2 == row) & (columns % 2 == column)
            if not places.any():
                continue
            moved = self.problem.z - gradient.sign() * (chosen & places)
            trial = self.problem.at(moved.clamp(-INPUT_MAX, INPUT_MAX))
            cost = self.local_cost(trial, target)
            better = (cost < now) & places
            self.tried |= chosen & places
            if better.any():
                self.problem = self.problem.at(torch.where(better, trial.z, self.problem.z))
                now = torch.where(better, cost, now)
                # What was refused may pay now in the neighbourhood of what changed.
                near = F.max_pool2d(better.float(), 3, 1, 1) > 0
                self.tried &= ~near | (chosen & places)

    def local_cost(self, problem: _Problem, target: Tensor) -> Tensor:
        """J in the neighbourhood of each position of z, with h (y - ŷ)² for λD: 1×1×h/4×w/4."""
        with transform_precision(problem.encoder.model.device):  # for comparing, half precision is good enough
            decoded, means = self.decide(problem, target)
        cost = problem.bits((decoded - means).round()) + problem.curvature * (target - decoded).square()
        cost = _blocks(cost.sum(1, keepdim=True), HYPER_STRIDE // STRIDE)
        cost = cost + problem.hyper_bits(problem.z).sum(1, keepdim=True)
        return F.avg_pool2d(cost, 3, 1, 1, divisor_override=1)


def _blocks(values: Tensor, size: int) -> Tensor:
    """Sums over blocks of size×size."""
    return F.avg_pool2d(values, size, divisor_override=1)


def _lengths(tables: list, reach: int, device: torch.device) -> Tensor:
    """Code lengths of -reach..reach in each table."""
    symbols = np.arange(-reach, reach + 1, dtype=np.int32)
    return torch.from_numpy(np.stack([code_lengths(symbols, table) for table in tables]).astype(np.float32)).to(device)


def _scale_positions(network, z: Tensor) -> Tensor:
    """What the integer network adds to the positions on the ladder of scales, with straight-through gradients."""
    for weight, bias, multiplier, groups, shuffle, (low, high) in network.layers:
        z = F.conv2d(z, weight, bias, padding=weight.shape[-1] // 2, groups=groups)
        z = round_through(z * multiplier).clamp(low, high)
        z = F.pixel_shuffle(z, 2) if shuffle else z
    return z * OUTPUT_STEP


def _curvature(encoder: Encoder, y: Tensor, decoded: Tensor, quality: int) -> Tensor:
    """h, for steps of one: 1×M×1×1, mean over the middle of the picture.

    The derivative at the decoded latents, by channel, times what it misses: the synthesis makes more of a step than of a
    small move. That is seen by changing a few symbols, of latents that are nearly undecided.
    """
    rows, columns = (slice(max(0, size // 2 - 8), size // 2 + 8) for size in y.shape[2:])
    middle = decoded[:, :, rows, columns].contiguous(memory_format=torch.channels_last)
    lost = y[:, :, rows, columns] - middle
    generator = torch.Generator().manual_seed(0)
    undecided = lost.abs() > 0.25
    step = lost.sign() * (undecided & (torch.rand(lost.shape, generator=generator).to(lost) < 0.05))
    t = position(encoder.model, quality)
    with torch.enable_grad(), transform_precision(encoder.model.device):
        at = middle.clone().requires_grad_()
        x = encoder.network.synthesise(at, t)
        signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
        (slope,) = torch.autograd.grad((x * signs).sum(), at)
    squares = slope.square()
    # The mean of a channel, where it has undecided latents; everywhere counts as 8 of them.
    everywhere, active = squares.mean((2, 3), keepdim=True).clamp_min(1e-12), undecided.to(squares)
    squares = ((active * squares).sum((2, 3), keepdim=True) + 8 * everywhere) / (active.sum((2, 3), keepdim=True) + 8)
    with transform_precision(encoder.model.device):
        moved = (encoder.network.synthesise(middle + step, t) - x.detach()).square().sum()
    excess = (moved / (squares * step.square()).sum().clamp_min(1e-12)).clamp(1, 10)
    return _trade_off(encoder, quality) * 255**2 / 3 * STIFFNESS * excess * squares


def _trade_off(encoder: Encoder, quality: int) -> float:
    slope = SLOPES[0] + (SLOPES[1] - SLOPES[0]) * quality / QUALITY_MAX
    return slope * encoder.network.trade_off(float(position(encoder.model, quality)))


@dataclass(frozen=True)
class _Span:
    """Part of one side of the padded picture, in pixels: what is kept of a window, and what is seen of it."""

    start: int
    stop: int
    seen_start: int
    seen_stop: int


def _spans(size: int) -> list[_Span]:
    """Windows that cover a side; all borders are multiples of HYPER_STRIDE."""
    if size <= WINDOW + 2 * MARGIN:
        return [_Span(0, size, 0, size)]
    starts = range(0, size, WINDOW)
    return [
        _Span(start, min(start + WINDOW, size), max(0, start - MARGIN), min(start + WINDOW + MARGIN, size))
        for start in starts
    ]


@dataclass(frozen=True)
class _Window:
    rows: _Span
    columns: _Span

    def kept(self, stride: int) -> tuple:
        return (..., *(slice(s.start // stride, s.stop // stride) for s in (self.rows, self.columns)))

    def seen(self, stride: int) -> tuple:
        return (..., *(slice(s.seen_start // stride, s.seen_stop // stride) for s in (self.rows, self.columns)))

    def inside(self, stride: int) -> tuple:
        """What is kept, counted from the beginning of what is seen."""
        return (
            ...,
            *(
                slice((s.start - s.seen_start) // stride, (s.stop - s.seen_start) // stride)
                for s in (self.rows, self.columns)
            ),
        )
