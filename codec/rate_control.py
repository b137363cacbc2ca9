"""From what is asked for (a quality, a size, a PSNR) to a file (floor 5).

A target is met by a search over the continuous quality. Sizes and PSNR are nearly linear in the quality (bytes in the
logarithm), and a glance at the linear part of the transform says where to begin; near its end the search keeps the
latents of the last analysis and only scales them. What is compared with the target is always real: the length of the
complete file, and the pixels that it decodes to.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from . import lossy, refine, weights
from .errors import TargetError
from .image import join
from .lossy import QUALITY_MAX, Encoder, Latents
from .metrics import psnr
from .networks.execution import execution
from .tiles import STRIDE, whole

PROBES = 10
# Accepted: files from 98.6 % of a ceiling on, PSNR up to 0.045 dB above a floor. The search aims inside that range.
BYTES_SLACK, BYTES_AIM = 0.014, 0.006
PSNR_SLACK, PSNR_AIM = 0.045, 0.02
PSNR_MARGIN = 0.002  # dB: another machine decodes pixels that differ by a level here and there
NEAR = 800  # hundredths of quality over which the latents of one analysis are as good as new ones
# What a glance predicts: log(bits per pixel) from log(non-zero linear latents per pixel): benchmarks/targets.py --fit.
GLANCE_RATE = (1.93, 1.07)
GLANCE_ERROR = 1.55  # true squared error over that of rounding the linear latents,
GLANCE_LOST = 1.2  # and what no rate removes, in 8-bit levels²


@dataclass(frozen=True)
class Target:
    """A ceiling in bytes, or a floor in dB: one of them."""

    bytes: int | None = None
    psnr: float | None = None


def encode(
    colour: np.ndarray,
    pack: Callable[[bytes, int, bytes], bytes],
    *,
    quality: int | None = None,
    target: Target | None = None,
    gray: bool = False,
    effort: int = 3,
    device: str = "auto",
    threads: int = 0,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """The complete file of a picture H×W×3 uint8, at a quality (hundredths) or at a target.

    pack: (model id, quality, latents section) -> the file. gray: the PSNR is that of the gray picture.
    progress: see `refine.refine`; a target begins anew with each attempt.
    Raises TargetError if no quality reaches the target; it names the nearest result.
    """
    if target is None:
        count, number = len(whole(*colour.shape[:2]).cut(lossy.BLOCK)), itertools.count()

        def infer(encoder: Encoder, quality: int) -> Latents:
            before = next(number)
            say = progress and (lambda part: progress((before + part) / count))
            return refine.refine(encoder, encoder.analyse(quality), quality, effort, say)

        model_id, section = lossy.encode(colour, quality, infer=infer, device=device, threads=threads)
        return pack(model_id, quality, section)
    with execution(device, threads) as place:
        encoder = Encoder(weights.load(weights.default_path(), place), colour)
        reference = join(colour, None, gray=True) if gray else colour

        def file(latents: Latents) -> bytes:
            return pack(encoder.model.model_id, latents.quality, encoder.write(latents))

        def decibels(latents: Latents) -> float:
            picture = encoder.picture(latents)
            return psnr(reference, join(picture, None, gray=True) if gray else picture)

        if target.bytes is not None:
            goal = _Goal(math.log(max(target.bytes, 0.5)), BYTES_AIM, BYTES_SLACK, ceiling=True)
            measure: Callable[[object], float] = lambda data: math.log(len(data))
            make: Callable[[Latents], object] = file
        else:
            goal = _Goal(target.psnr + PSNR_MARGIN, PSNR_AIM, PSNR_SLACK, ceiling=False)
            measure, make = decibels, lambda latents: latents
        curve = _glance(encoder, target.bytes is not None)
        analyses = _Analyses(encoder)

        def search_at(level: int, curve: np.ndarray, probes: int) -> _Search:
            def attempt(q: int) -> tuple[object, float]:
                result = make(refine.refine(encoder, analyses.at(q), q, level, progress))
                return result, measure(result)

            return _Search(goal, curve, attempt, probes).run()

        found = search_at(min(effort, refine.CHEAP), curve, PROBES)
        if effort > refine.CHEAP and found.best is not None:
            found = search_at(effort, curve + found.shift, PROBES // 2)
        if found.best is None:
            raise TargetError(_unreachable(target, found))
        return found.best if target.bytes is not None else file(found.best)


def _unreachable(target: Target, found: _Search) -> str:
    quality, value = found.nearest
    if target.bytes is not None:
        return f"{target.bytes} bytes cannot be reached: the smallest file has {round(math.exp(value))} (quality {quality / 100:g})"
    return f"{target.psnr:g} dB cannot be reached: the best is {value:.2f} dB (quality {quality / 100:g})"


class _Analyses:
    """Latents at any quality; those of a near quality are scaled instead of inferred anew."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        self.quality: int | None = None

    def at(self, quality: int) -> torch.Tensor:
        if self.quality is None or abs(quality - self.quality) > NEAR:
            self.quality, self.y = quality, self.encoder.analyse(quality)
        if quality == self.quality:
            return self.y
        gain = [self.encoder.network.log_gain(lossy.position(self.encoder.model, q)) for q in (quality, self.quality)]
        return self.y * (gain[0] - gain[1]).exp()


GRID = np.linspace(0, QUALITY_MAX, 11)


def _glance(encoder: Encoder, of_bytes: bool) -> np.ndarray:
    """Rough log(bytes), or PSNR in dB, at the qualities of GRID; the shape of the curve is better known than its height."""
    network = encoder.network
    pixels = encoder.height * encoder.width
    if not hasattr(network.analysis, "linear"):
        return np.linspace(math.log(0.1 * pixels / 8), math.log(2 * pixels / 8), len(GRID)) if of_bytes else GRID / 700 + 28
    patches = F.pixel_unshuffle(encoder.x - 0.5, STRIDE)[:, :, :, ::2]
    y = F.conv2d(patches, network.analysis.linear[:, :, None, None])
    weight = 255**2 * network.synthesis.linear.square().sum(0)[:, None, None]
    count = patches[0, 0].numel() * 3 * STRIDE**2  # samples
    values = []
    for quality in GRID:
        t = lossy.position(encoder.model, int(quality))
        gained = y * network.gain(t)
        rounded = gained.round()
        if of_bytes:
            density = (float(rounded.count_nonzero()) + 1) * 3 / count
            values.append(GLANCE_RATE[0] + GLANCE_RATE[1] * math.log(density) + math.log(pixels / 8))
        else:
            error = float((((rounded - gained) * network.log_inverse_gain(t).exp()).square() * weight).sum())
            values.append(-10 * math.log10((GLANCE_ERROR * error / count + GLANCE_LOST) / 255**2))
    return np.maximum.accumulate(np.array(values)) + np.arange(len(GRID)) * 1e-6


@dataclass(frozen=True)
class _Goal:
    """Values that rise with the quality; a ceiling accepts [value - slack, value], a floor [value, value + slack]."""

    value: float
    aim: float  # how far inside the search aims
    slack: float
    ceiling: bool

    def reached(self, value: float) -> bool:
        return value <= self.value if self.ceiling else value >= self.value

    def close(self, value: float) -> bool:
        return self.reached(value) and abs(value - self.value) <= self.slack

    @property
    def aimed(self) -> float:
        return self.value - self.aim if self.ceiling else self.value + self.aim


class _Search:
    """Quality, in hundredths, whose value comes closest to a goal and reaches it.

    curve: expected values at GRID. `attempt(quality)` gives (result, value). Every attempt shifts the curve through
    what was measured; once two attempts enclose the goal, the curve is bent to pass through both.
    `best` is the best result that reaches the goal, or None; `nearest` the (quality, value) nearest to the goal.
    """

    def __init__(self, goal: _Goal, curve: np.ndarray, attempt: Callable[[int], tuple[object, float]], probes: int):
        self.goal, self.curve, self.attempt, self.probes = goal, curve, attempt, probes
        self.known: dict[int, float] = {}
        self.best, self.best_value = None, math.nan

    def run(self) -> _Search:
        for _ in range(self.probes):
            quality = self._next()
            if quality is None:
                break
            result, value = self.attempt(quality)
            self.known[quality] = value
            better = self.best is None or abs(value - self.goal.value) < abs(self.best_value - self.goal.value)
            if self.goal.reached(value) and better:
                self.best, self.best_value = result, value
            if self.goal.close(value):
                break
        if self.best is None:  # the last resort: the end of the scale that is likeliest to reach it
            end = 0 if self.goal.ceiling else QUALITY_MAX
            if end not in self.known:
                result, self.known[end] = self.attempt(end)
                if self.goal.reached(self.known[end]):
                    self.best, self.best_value = result, self.known[end]
        return self

    @property
    def nearest(self) -> tuple[int, float]:
        return min(self.known.items(), key=lambda item: abs(item[1] - self.goal.value))

    @property
    def shift(self) -> float:
        """How far the curve was off where the search ended."""
        quality, value = self.nearest
        return value - self._expected(quality)

    def _expected(self, quality: float) -> float:
        return float(np.interp(quality, GRID, self.curve))

    def _solve(self, value: float) -> float:
        """Quality at which the curve, as it was given, has a value."""
        return float(np.interp(value, self.curve, GRID))

    def _next(self) -> int | None:
        aimed = self.goal.aimed
        below = max((q for q, value in self.known.items() if value < aimed), default=None)
        above = min((q for q, value in self.known.items() if value >= aimed), default=None)
        if below is not None and above is not None:
            if above <= below:  # not monotone at this scale: step further towards the safe side
                safe = min(self.known) if self.goal.ceiling else max(self.known)
                if self.goal.reached(self.known[safe]):
                    return None
                guess = safe + (-5 if self.goal.ceiling else 5)
                return guess if 0 <= guess <= QUALITY_MAX else None
            # The curve's error at both ends, interpolated.
            low, high = (self.known[q] - self._expected(q) for q in (below, above))
            inner = np.linspace(below, above, 65)
            values = np.interp(inner, GRID, self.curve) + np.linspace(low, high, 65)
            guess = round(float(np.interp(aimed, np.maximum.accumulate(values), inner)))
            guess = min(max(guess, below + 1), above - 1)
            return guess if below < guess < above else None
        if not self.known:
            return round(self._solve(aimed))
        quality, value = self.nearest
        guess = round(self._solve(aimed - value + self._expected(quality)))
        if below is None:  # everything measured is too high
            guess = min(guess, min(self.known) - 1)
        else:
            guess = max(guess, max(self.known) + 1)
        guess = min(max(guess, 0), QUALITY_MAX)
        return None if guess in self.known else guess
