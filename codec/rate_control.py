"""From what is asked for (a quality, a size, a PSNR) to a file (floor 5).

A target is met by a search over the continuous quality. Sizes and PSNR are nearly linear in the quality (bytes in the
logarithm), and a glance at the linear part of the transform says where to begin, for a PSNR corrected by squares from
all over the picture. Attempts that are likely to miss are drafts, at half precision where that is faster. Near its end
the search keeps the latents of the last analysis and only scales them. What is accepted is always real: the length of
the complete file, and the pixels that it decodes to.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from . import lossy, refine, weights
from .container import QUALITY_MAX
from .errors import TargetError
from .lossy import Encoder, Latents
from .metrics import MS_SSIM, PSNR, SSIMULACRA2, psnr
from .networks.execution import execution
from .networks.layers import multiply
from .picture.picture import join
from .tiles import HYPER_STRIDE, STRIDE, whole

PROBES = 8  # and at most two more: a draft that turns out to be close, and the end of the scale
# Accepted: files from 98.6 % of a ceiling on, PSNR up to 0.045 dB above a floor. The search aims inside that range.
BYTES_SLACK, BYTES_AIM = 0.014, 0.006
PSNR_SLACK, PSNR_AIM = 0.045, 0.02
PSNR_MARGIN = 0.002  # dB: another machine decodes pixels that differ by a level here and there
# Attempts are drafts until one is no further than NEARBY times the slack from the aim, and at most the first DRAFTS.
NEARBY, DRAFTS = 12, 3
NEAR = 300  # hundredths of quality over which the latents of one analysis are nearly as good as new ones
# What a glance predicts. They belong to the weights: `benchmarks/targets.py FOLDER --fit` writes these four lines.
GLANCE_RATE = (1.76, 1.156)  # log(bits per pixel) from log(non-zero linear latents per pixel)
GLANCE_ERROR = 1.47  # true squared error over that of rounding the linear latents,
GLANCE_LOST = 1.67  # and what no rate removes, in 8-bit levels²
GLANCE_SEAMS = (0.49, -0.55)  # dB that a sample loses at its seams, at quality 0, and what is added up to 100
REFINED = {PSNR: (0.045, 1.05), MS_SSIM: (0.015, 0.1), SSIMULACRA2: (0.015, 0.1)}  # log(bytes), and dB, that effort 3 has more than one pass at the same quality
SAMPLED = 6  # a sample has one pixel in so many, in squares


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
    tune: str = PSNR,
    device: str = "auto",
    threads: int = 0,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """The complete file of a picture H×W×3 uint8, at a quality (hundredths) or at a target.

    pack: (model id, quality, latents section) -> the file. gray: the PSNR is that of the gray picture.
    tune, progress: see `refine.refine`; a target begins anew with each attempt.
    Raises TargetError if no quality reaches the target; it names the nearest result.
    """
    if target is None:
        model_id, section = lossy.encode(colour, quality, infer=_inference(colour, effort, progress, tune), tune=tune, device=device, threads=threads)
        return pack(model_id, quality, section)
    with execution(device, threads) as place:
        large = colour.shape[0] * colour.shape[1] >= lossy.HUGE  # whose latents are never all in memory
        encoder = Encoder(weights.load(weights.default_path(tune=tune), place), _middle(colour) if large else colour)

        def file(latents: Latents) -> bytes:
            return pack(encoder.model.model_id, latents.quality, encoder.write(latents))

        def decibels(latents: Latents) -> float:
            return _decibels(encoder, latents, colour, gray)

        if target.bytes is not None:
            goal = _Goal(math.log(max(target.bytes, 0.5)), BYTES_AIM, BYTES_SLACK, ceiling=True)
            measure: Callable[[object], float] = lambda data: math.log(len(data))
            make: Callable[[Latents], object] = file
        else:
            goal = _Goal(target.psnr + PSNR_MARGIN, PSNR_AIM, PSNR_SLACK, ceiling=False)
            measure, make = decibels, lambda latents: latents
        curve = _glance(encoder, target.bytes is not None)
        if large and target.bytes is not None:
            curve = curve + math.log(colour.size / (encoder.height * encoder.width * 3))
        if target.psnr is not None:
            curve = curve + _sampled(encoder.model, colour, curve, goal.aimed, gray)
        analyses = _Analyses(encoder)

        def search_at(level: int, curve: np.ndarray, probes: int) -> _Search:
            def attempt(q: int, draft: bool) -> tuple[object, float]:
                if large:
                    return _attempt_by_blocks(colour, pack, target, q, _inference(colour, level, progress, tune), gray, tune, device, threads)
                y = analyses.at(q)
                with lossy.transform_precision(place) if draft else contextlib.nullcontext():
                    latents = refine.refine(encoder, y, q, level, progress, tune)
                result = make(latents)
                return result, measure(result)

            # At a high effort, or by blocks, a draft costs as much.
            drafts = DRAFTS if level <= refine.CHEAP and not large else 0
            return _Search(goal, curve, attempt, probes, drafts).run()

        found = search_at(min(effort, refine.CHEAP), curve, PROBES)
        if effort > refine.CHEAP:
            known = REFINED[tune][0 if target.bytes is not None else 1]
            found = search_at(effort, curve + found.shift + known, PROBES if effort < 5 else PROBES // 2)
        if found.best is None:
            raise TargetError(_unreachable(target, found))
        return found.best if large or target.bytes is not None else file(found.best)


def _inference(
    colour: np.ndarray, effort: int, progress: Callable[[float], None] | None, tune: str
) -> Callable[[Encoder, int], Latents]:
    """How the blocks of a picture are inferred, in order, at an effort."""
    count, number = len(whole(*colour.shape[:2]).cut(lossy.block_size(*colour.shape[:2]))), itertools.count()
    unit = None

    def infer(encoder: Encoder, quality: int) -> Latents:
        nonlocal unit
        before = next(number)
        if count > 1 and unit is None:
            pixels = _sample(colour)
            unit = refine.unit_of(encoder if pixels is None else Encoder(encoder.model, pixels), quality, tune)
        say = progress and (lambda part: progress((before + part) / count))
        return refine.refine(encoder, encoder.analyse(quality), quality, effort, say, tune, unit)

    return infer


def _middle(colour: np.ndarray) -> np.ndarray:
    top, left = (max(0, side - lossy.BLOCK) // 2 for side in colour.shape[:2])
    return colour[top : top + lossy.BLOCK, left : left + lossy.BLOCK]


def _attempt_by_blocks(
    colour: np.ndarray, pack: Callable, target: Target, quality: int, infer: Callable, gray: bool, tune: str, device: str, threads: int
) -> tuple[bytes, float]:
    """The file of a large picture at a quality, and its log(bytes) or its PSNR."""
    model_id, section = lossy.encode(colour, quality, infer=infer, tune=tune, device=device, threads=threads)
    data = pack(model_id, quality, section)
    if target.bytes is not None:
        return data, math.log(len(data))
    height, width, _ = colour.shape
    run = {"model_id": model_id, "device": device, "threads": threads}
    picture = lossy.decode(section, width=width, height=height, quality=quality, **run)
    return data, psnr(join(colour, None, gray=gray), join(picture, None, gray=gray))


def _decibels(encoder: Encoder, latents: Latents, colour: np.ndarray, gray: bool) -> float:
    """PSNR of what a decoder will show."""
    return psnr(join(colour, None, gray=gray), join(encoder.picture(latents), None, gray=gray))


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
    pixels = encoder.height * encoder.width
    if not hasattr(encoder.network.analysis, "linear"):
        return np.linspace(math.log(0.1 * pixels / 8), math.log(2 * pixels / 8), len(GRID)) if of_bytes else GRID / 700 + 28
    density, error = counts(encoder)
    if of_bytes:
        values = GLANCE_RATE[0] + GLANCE_RATE[1] * np.log(density) + math.log(pixels / 8)
    else:
        values = -10 * np.log10((GLANCE_ERROR * error + GLANCE_LOST) / 255**2)
    return np.maximum.accumulate(values) + np.arange(len(GRID)) * 1e-6


def counts(encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
    """At the qualities of GRID, with the linear transforms alone, in every second column of patches: rounded latents a
    pixel that are not zero, and the squared error of the picture, in 8-bit levels, that the rounding makes."""
    network = encoder.network
    patches = F.pixel_unshuffle(encoder.x - 0.5, STRIDE)[:, :, :, ::2]
    y = multiply(patches, network.analysis.linear[:, :, None, None])
    weight = 255**2 * network.synthesis.linear.square().sum(0)[:, None, None]
    samples = patches.numel()
    density, error = [], []
    for quality in GRID:
        t = lossy.position(encoder.model, int(quality))
        gained = y * network.gain(t)
        rounded = gained.round()
        density.append((float(rounded.count_nonzero()) + 1) * 3 / samples)
        error.append(float((((rounded - gained) * network.log_inverse_gain(t).exp()).square() * weight).sum()) / samples)
    return np.array(density), np.array(error)


def _sample(pixels: np.ndarray) -> np.ndarray | None:
    """Squares from all over a picture H×W×3, side by side; None of a small or narrow one."""
    side = HYPER_STRIDE
    count = min(8, round(math.sqrt(pixels[..., 0].size / SAMPLED) / side))  # in a row
    if count < 3 or min(pixels.shape[:2]) < count * side:
        return None
    rows, columns = (np.linspace(0, size - side, count).astype(int) for size in pixels.shape[:2])
    return np.vstack([np.hstack([pixels[y : y + side, x : x + side] for x in columns]) for y in rows])


def _sampled(model: weights.LossyModel, colour: np.ndarray, curve: np.ndarray, aimed: float, gray: bool) -> float:
    """What to add to the PSNR that a glance gives, around the quality where it says `aimed`."""
    pixels = _sample(colour)
    if pixels is None:
        return 0.0
    quality = round(float(np.interp(aimed, curve, GRID)))
    encoder = Encoder(model, pixels)
    with lossy.transform_precision(model.device):
        latents = refine.refine(encoder, encoder.analyse(quality), quality, refine.CHEAP)
    value = _decibels(encoder, latents, pixels, gray)
    expected = float(np.interp(quality, GRID, _glance(encoder, False)))
    return value - expected + GLANCE_SEAMS[0] + GLANCE_SEAMS[1] * quality / QUALITY_MAX


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

    curve: expected values at GRID. `attempt(quality, draft)` gives (result, value), for a draft only roughly, and its
    result is not used. Every attempt shifts the curve through what was measured; once two attempts enclose the goal, the
    curve is bent to pass through both.
    `best` is the best result that reaches the goal, or None; `nearest` the (quality, value) nearest to the goal.
    """

    def __init__(
        self, goal: _Goal, curve: np.ndarray, attempt: Callable[[int, bool], tuple[object, float]], probes: int, drafts: int
    ):
        self.goal, self.curve, self.attempt, self.probes, self.most_drafts = goal, curve, attempt, probes, drafts
        self.known: dict[int, float] = {}
        self.drafts: dict[int, float] = {}
        self.best, self.best_value = None, math.nan

    def run(self) -> _Search:
        for _ in range(self.probes):
            quality = self._next()
            if quality is None:
                break
            if self._rough() and quality not in self.drafts:
                _, self.drafts[quality] = self.attempt(quality, True)
                if not self.goal.close(self.drafts[quality]):
                    continue
            result, value = self.attempt(quality, False)
            self.known[quality] = value
            better = self.best is None or abs(value - self.goal.value) < abs(self.best_value - self.goal.value)
            if self.goal.reached(value) and better:
                self.best, self.best_value = result, value
            if self.goal.close(value):
                break
        if self.best is None:  # the last resort: the end of the scale that is likeliest to reach it
            end = 0 if self.goal.ceiling else QUALITY_MAX
            if end not in self.known:
                result, self.known[end] = self.attempt(end, False)
                if self.goal.reached(self.known[end]):
                    self.best, self.best_value = result, self.known[end]
        return self

    @property
    def nearest(self) -> tuple[int, float]:
        return min((self.known or self.drafts).items(), key=lambda item: abs(item[1] - self.goal.value))

    def _rough(self) -> bool:
        """Whether a draft tells enough."""
        return not self.known and len(self.drafts) < self.most_drafts and not any(map(self._nearby, self.drafts.values()))

    def _nearby(self, value: float) -> bool:
        return abs(value - self.goal.aimed) <= NEARBY * self.goal.slack

    @property
    def _points(self) -> dict[int, float]:
        """What was measured; drafts near the goal, where they are too rough, only as long as there is nothing else."""
        drafts = {q: value for q, value in self.drafts.items() if not (self.known and self._nearby(value))}
        return drafts | self.known

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
        aimed, known = self.goal.aimed, self._points
        below = max((q for q, value in known.items() if value < aimed), default=None)
        above = min((q for q, value in known.items() if value >= aimed), default=None)
        step = 3 ** len(known)  # at least: values need not rise with every hundredth
        if below is not None and above is not None:
            if above <= below:  # not monotone at this scale: step further towards the safe side
                safe = min(known) if self.goal.ceiling else max(known)
                if self.goal.reached(known[safe]):
                    return None
                guess = safe + (-step if self.goal.ceiling else step)
                return guess if 0 <= guess <= QUALITY_MAX else None
            # The curve's error at both ends, interpolated.
            low, high = (known[q] - self._expected(q) for q in (below, above))
            inner = np.linspace(below, above, 65)
            values = np.interp(inner, GRID, self.curve) + np.linspace(low, high, 65)
            guess = round(float(np.interp(aimed, np.maximum.accumulate(values), inner)))
            guess = min(max(guess, below + 1), above - 1)
            return guess if below < guess < above else None
        if not known:
            return round(self._solve(aimed))
        quality = min(known) if below is None else max(known)
        guess = round(self._solve(aimed - known[quality] + self._expected(quality)))
        guess = min(guess, quality - step) if below is None else max(guess, quality + step)
        guess = min(max(guess, 0), QUALITY_MAX)
        return None if guess in self.known else guess
