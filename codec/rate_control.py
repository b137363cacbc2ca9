"""From what is asked for (a quality, a size, a likeness) to a file (floor 5).

A target is met by a search over the continuous quality. Sizes and PSNR are nearly linear in the quality (bytes in the
logarithm), and a glance at the linear part of the transform says where to begin, for a PSNR corrected by squares from
all over the picture; so is the logarithm of what SSIMULACRA 2 lacks of 100 points. Attempts that are likely to miss are
drafts, at half precision where that is faster. Near its end the search keeps the latents of the last analysis and only
scales them. What is accepted is always real: the length of the complete file, and the pixels that it decodes to.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from . import lossy, refine, weights
from .container import QUALITY_MAX, Envelope
from .errors import TargetError
from .lossy import Encoder, Latents
from .metrics import MS_SSIM, PSNR, SSIMULACRA2, psnr
from .networks import ssimulacra2
from .networks.execution import execution
from .networks.layers import multiply
from .picture.picture import join
from .request import Request
from .tiles import HYPER_STRIDE, STRIDE, whole

PROBES = 8  # and at most two more: a draft that turns out to be close, and the end of the scale
# Accepted: files from 98.6 % of a ceiling on, PSNR up to 0.045 dB above a floor, SSIMULACRA 2 up to 2.5 % of what the floor lacks
# of 100: it goes up and down by one. The search aims inside that range.
BYTES_SLACK, BYTES_AIM = 0.014, 0.006
PSNR_SLACK, PSNR_AIM = 0.045, 0.02
PSNR_MARGIN = 0.002  # dB: another machine decodes pixels that differ by a level here and there
POINTS_SLACK, POINTS_AIM = 0.025, 0.01  # of the logarithm of what is lacking
POINTS_MARGIN = 0.02  # points: as of PSNR, and the metric's other implementations differ by half of this
EQUAL = 1e-9  # points that stand for none in a logarithm; the least of pictures that differ are 1e-6
AT_ONCE = 2**23  # pixels of a picture whose points are those of the whole, in 170 bytes each,
PART = 2048  # and a side of the parts of a larger one
# Attempts are drafts until one is no further than NEARBY times the slack from the aim, and at most the first DRAFTS.
NEARBY, DRAFTS = 12, 3
NEAR = 300  # hundredths of quality over which the latents of one analysis are nearly as good as new ones
# What a glance predicts. They belong to the weights: `benchmarks/targets.py FOLDER --fit` writes these five lines.
GLANCE_RATE = (1.76, 1.156)  # log(bits per pixel) from log(non-zero linear latents per pixel)
GLANCE_ERROR = 1.47  # true squared error over that of rounding the linear latents,
GLANCE_LOST = 1.67  # and what no rate removes, in 8-bit levels²
GLANCE_SEAMS = (0.49, -0.55)  # dB that a sample loses at its seams, at quality 0, and what is added up to 100
GLANCE_POINTS = (3.27, -0.35, -1.16)  # log(points lacking of 100): a constant, by log(such latents per pixel), by quality / 100
# What effort 3 has more than one pass at the same quality: log(bytes), dB, and points lacking, in the logarithm, less.
REFINED = {PSNR: (0.045, 1.05, 0.08), MS_SSIM: (0.015, 0.1, 0.15), SSIMULACRA2: (0.015, 0.1, 0.18)}
ROUGH = 0.05  # points lacking, in the logarithm, either way: how well single passes need to know where the search at the effort begins
SAMPLED = 6  # a sample has one pixel in so many, in squares


def encode(colour: np.ndarray, request: Request, envelope: Envelope, *, gray: bool = False) -> bytes:
    """The complete file of a picture H×W×3 uint8, at a quality or at a target.

    envelope: what else the file holds. gray: a floor is that of the gray picture. progress begins anew with each attempt.
    Raises TargetError if no quality reaches the target; it names the nearest result.
    """
    if request.target is None:
        model_id, section = _Inference(colour, request, request.effort).encoded(request.quality)
        return envelope.file(model_id, request.quality, section)
    with execution(request.device, request.threads) as place:
        model = weights.load(weights.default_path(tune=request.tune), place)
        # The latents of a large picture are never all in memory.
        large = colour.shape[0] * colour.shape[1] >= lossy.HUGE
        seen = Encoder(model, _middle(colour) if large else colour)
        attempts = _ByBlocks(colour, request, envelope) if large else _AtOnce(seen, request, envelope)
        aim = _aim(colour, request, gray, place)
        curve = aim.curve(seen)
        goal = aim.goal if request.effort <= refine.CHEAP else aim.beginning
        # At a high effort, or by blocks, a draft costs as much.
        found = Search(goal, curve, PROBES, 0 if large else DRAFTS)
        _run(found, attempts, aim, min(request.effort, refine.CHEAP))
        if request.effort > refine.CHEAP:
            curve = curve + found.shift + aim.refined
            found = Search(aim.goal, curve, PROBES if request.effort < 5 else PROBES // 2, 0)
            _run(found, attempts, aim, request.effort)
        if found.best is None:
            raise TargetError(aim.unreachable(*found.nearest))
        return found.best.file


def _run(search: Search, attempts: _AtOnce | _ByBlocks, aim: _Bytes | _Decibels | _Points, effort: int) -> None:
    """All attempts that a search asks for."""
    while (asked := search.ask()) is not None:
        attempt = attempts.at(*asked, effort)
        search.tell(*asked, aim.value(attempt), attempt)


def _middle(colour: np.ndarray) -> np.ndarray:
    top, left = (max(0, side - lossy.BLOCK) // 2 for side in colour.shape[:2])
    return colour[top : top + lossy.BLOCK, left : left + lossy.BLOCK]


# ── attempts: a file at a quality, and what it shows ──────────────────────────────────────────────────────────────


class _Inference:
    """How the blocks of a picture are inferred, in order, at an effort: with one unit of distortion for all."""

    def __init__(self, colour: np.ndarray, request: Request, effort: int):
        self.colour, self.request, self.effort = colour, request, effort
        self.count = len(whole(*colour.shape[:2]).cut(lossy.block_size(*colour.shape[:2])))
        self.done, self.unit = 0, None

    def encoded(self, quality: int) -> tuple[bytes, bytes]:
        """Model id and latents section, of all blocks."""
        request = self.request
        run = {"tune": request.tune, "device": request.device, "threads": request.threads}
        return lossy.encode(self.colour, quality, infer=self._infer, **run)

    def _infer(self, encoder: Encoder, quality: int) -> Latents:
        tune = self.request.tune
        if self.count > 1 and self.unit is None:
            pixels = _sample(self.colour)
            self.unit = refine.unit_of(encoder if pixels is None else Encoder(encoder.model, pixels), quality, tune)
        say = self.request.progress and self._say
        latents = refine.refine(encoder, encoder.analyse(quality), quality, self.effort, say, tune, self.unit)
        self.done += 1
        return latents

    def _say(self, part: float) -> None:
        self.request.progress((self.done + part) / self.count)


class _AtOnce:
    """Attempts at a picture whose latents are all in memory; those of a near quality are scaled instead of inferred anew."""

    def __init__(self, encoder: Encoder, request: Request, envelope: Envelope):
        self.encoder, self.request, self.envelope = encoder, request, envelope
        self.quality: int | None = None

    def at(self, quality: int, draft: bool, effort: int) -> _LatentsOf:
        encoder, request = self.encoder, self.request
        y = self._analysis(quality)
        with lossy.transform_precision(encoder.model.device) if draft else contextlib.nullcontext():
            latents = refine.refine(encoder, y, quality, effort, request.progress, request.tune)
        return _LatentsOf(encoder, latents, self.envelope)

    def _analysis(self, quality: int) -> torch.Tensor:
        if self.quality is None or abs(quality - self.quality) > NEAR:
            self.quality, self.y = quality, self.encoder.analyse(quality)
        if quality == self.quality:
            return self.y
        gain = [self.encoder.network.log_gain(lossy.position(self.encoder.model, q)) for q in (quality, self.quality)]
        return self.y * (gain[0] - gain[1]).exp()


@dataclass(frozen=True)
class _LatentsOf:
    """What one attempt found."""

    encoder: Encoder
    latents: Latents
    envelope: Envelope

    @cached_property
    def file(self) -> bytes:
        return self.envelope.file(self.encoder.model.model_id, self.latents.quality, self.encoder.write(self.latents))

    def shown(self) -> np.ndarray:
        """What a decoder will show: H×W×3 uint8."""
        return self.encoder.picture(self.latents)


class _ByBlocks:
    """Attempts at a large picture."""

    def __init__(self, colour: np.ndarray, request: Request, envelope: Envelope):
        self.colour, self.request, self.envelope = colour, request, envelope

    def at(self, quality: int, draft: bool, effort: int) -> _FileOf:
        model_id, section = _Inference(self.colour, self.request, effort).encoded(quality)
        return _FileOf(self.envelope.file(model_id, quality, section), self, quality, model_id, section)


@dataclass(frozen=True)
class _FileOf:
    """What one attempt by blocks found."""

    file: bytes
    attempts: _ByBlocks
    quality: int
    model_id: bytes
    section: bytes

    def shown(self) -> np.ndarray:
        """What a decoder shows: H×W×3 uint8."""
        (height, width, _), request = self.attempts.colour.shape, self.attempts.request
        run = {"model_id": self.model_id, "device": request.device, "threads": request.threads}
        return lossy.decode(self.section, width=width, height=height, quality=self.quality, **run)


# ── aims: what a target asks of an attempt, in values that rise with the quality ──────────────────────────────────


def _aim(colour: np.ndarray, request: Request, gray: bool, device: str) -> _Bytes | _Decibels | _Points:
    height, width, _ = colour.shape
    ceiling = request.target.ceiling(width, height)
    if ceiling is not None:
        return _Bytes(ceiling, height * width, request.tune)
    if request.target.psnr is not None:
        return _Decibels(request.target.psnr, colour, gray, request.tune)
    return _Points(request.target.ssimulacra2, colour, gray, request.tune, device)


class _Bytes:
    """A ceiling of the whole file. Values: log(bytes)."""

    def __init__(self, ceiling: int, pixels: int, tune: str):
        self.ceiling, self.pixels, self.refined = ceiling, pixels, REFINED[tune][0]
        self.goal = self.beginning = Goal(math.log(max(ceiling, 0.5)), BYTES_AIM, BYTES_SLACK, ceiling=True)

    def value(self, attempt: _LatentsOf | _FileOf) -> float:
        return math.log(len(attempt.file))

    def curve(self, encoder: Encoder) -> np.ndarray:
        """Expected values at the qualities of GRID; encoder: of the picture, or of its middle."""
        return _glance(encoder, True) + math.log(self.pixels / (encoder.height * encoder.width))

    def unreachable(self, quality: int, value: float) -> str:
        smallest = f"the smallest file has {round(math.exp(value))} (quality {quality / 100:g})"
        return f"{self.ceiling} bytes cannot be reached: {smallest}"


class _Decibels:
    """A floor of the PSNR. Values: dB."""

    def __init__(self, floor: float, colour: np.ndarray, gray: bool, tune: str):
        self.floor, self.colour, self.gray, self.refined = floor, colour, gray, REFINED[tune][1]
        self.goal = self.beginning = Goal(floor + PSNR_MARGIN, PSNR_AIM, PSNR_SLACK, ceiling=False)

    def value(self, attempt: _LatentsOf | _FileOf) -> float:
        return _decibels(self.colour, attempt.shown(), self.gray)

    def curve(self, encoder: Encoder) -> np.ndarray:
        """Expected values at the qualities of GRID; encoder: of the picture, or of its middle."""
        curve = _glance(encoder, False)
        return curve + _sampled(encoder.model, self.colour, curve, self.goal.aimed, self.gray)

    def unreachable(self, quality: int, value: float) -> str:
        return f"{self.floor:g} dB cannot be reached: the best is {value:.2f} dB (quality {quality / 100:g})"


class _Points:
    """A floor of SSIMULACRA 2. Values: the logarithm, negative, of the points that are lacking of 100, for which they are
    nearly linear in the quality; what the search gains is nearly the same at all qualities then."""

    def __init__(self, floor: float, colour: np.ndarray, gray: bool, tune: str, device: str):
        self.floor, self.colour, self.gray, self.device = floor, colour, gray, device
        self.refined = REFINED[tune][2]
        lacking = max(100 - floor - POINTS_MARGIN, (100 - floor) / 2)
        self.goal = Goal(self._of(lacking), POINTS_AIM, POINTS_SLACK, ceiling=False)
        # Single passes only say where to begin: there, roughly, where the effort's own result will be.
        self.beginning = Goal(self.goal.aimed - self.refined - ROUGH, ROUGH, 2 * ROUGH, ceiling=False)
        height, width = colour.shape[:2]
        cuts = [_cuts(side, 1 if height * width <= AT_ONCE else -(-side // PART)) for side in (height, width)]
        self.parts = [(rows, columns) for rows in cuts[0] for columns in cuts[1]]
        self._known: ssimulacra2.Original | None = None

    @staticmethod
    def _of(lacking: float) -> float:
        return -math.log(max(lacking, EQUAL))

    def value(self, attempt: _LatentsOf | _FileOf) -> float:
        return self._of(100 - self.points(attempt.shown()))

    def points(self, shown: np.ndarray) -> float:
        """Of H×W×3 uint8; 100 of equal pictures alone. Of a picture above AT_ONCE the inner sum is a mean over its parts."""
        total = 0.0
        for part in self.parts:
            inner = ssimulacra2.inner(self._original(part), self._samples(shown[part]))
            total += float(inner) * shown[part].size / shown.size
        same = np.array_equal(join(self.colour, None, gray=self.gray), join(shown, None, gray=self.gray))
        return 100.0 if same else min(ssimulacra2.score(total), 100 - 1e-6)

    def _original(self, part: tuple[slice, slice]) -> ssimulacra2.Original:
        if len(self.parts) > 1:
            return ssimulacra2.Original.of(self._samples(self.colour[part]))
        if self._known is None:
            self._known = ssimulacra2.Original.of(self._samples(self.colour))
        return self._known

    def _samples(self, colour: np.ndarray) -> torch.Tensor:
        """As they are shown, gray in three equal planes: 1×3×H×W in [0, 1]."""
        planes = np.atleast_3d(join(colour, None, gray=self.gray)).transpose(2, 0, 1)
        planes = np.broadcast_to(planes, (3, *planes.shape[1:])).astype(np.float32)
        return torch.from_numpy(planes)[None].div_(255).to(self.device)

    def curve(self, encoder: Encoder) -> np.ndarray:
        """Expected values at the qualities of GRID; encoder: of the picture, or of its middle."""
        if not hasattr(encoder.network.analysis, "linear"):
            return -np.linspace(4.5, 2.5, len(GRID))
        density, _ = counts(encoder)
        start, slope, rise = GLANCE_POINTS
        return _rising(-(start + slope * np.log(density) + rise * GRID / QUALITY_MAX))

    def unreachable(self, quality: int, value: float) -> str:
        best = 100 - math.exp(-value)
        return f"SSIMULACRA 2 of {self.floor:g} cannot be reached: the best is {best:.2f} (quality {quality / 100:g})"


def _cuts(side: int, count: int) -> list[slice]:
    ends = np.linspace(0, side, count + 1).astype(int)
    return [slice(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]


# ── where a search begins ───────────────────────────────────────────────────────────────────────────────────────────

GRID = np.linspace(0, QUALITY_MAX, 11)


def _decibels(colour: np.ndarray, shown: np.ndarray, gray: bool) -> float:
    """PSNR of what a decoder will show."""
    return psnr(join(colour, None, gray=gray), join(shown, None, gray=gray))


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
    return _rising(values)


def _rising(values: np.ndarray) -> np.ndarray:
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
    value = _decibels(pixels, encoder.picture(latents), gray)
    expected = float(np.interp(quality, GRID, _glance(encoder, False)))
    return value - expected + GLANCE_SEAMS[0] + GLANCE_SEAMS[1] * quality / QUALITY_MAX


# ── the search ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Goal:
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


class Search:
    """Quality, in hundredths, whose value comes closest to a goal and reaches it.

    curve: expected values at GRID. `ask` says what to try, `tell` takes what came of it: of a draft only a rough value, and
    its result is not used. Every attempt shifts the curve through what was measured; once two attempts enclose the goal, the
    curve is bent to pass through both.
    `best` is the best result that reaches the goal, or None; `nearest` the (quality, value) nearest to the goal.
    """

    def __init__(self, goal: Goal, curve: np.ndarray, probes: int, drafts: int):
        self.goal, self.curve, self.probes, self.most_drafts = goal, curve, probes, drafts
        self.known: dict[int, float] = {}
        self.drafts: dict[int, float] = {}
        self.best, self.best_value = None, math.nan
        self._promising: int | None = None  # a draft that was close

    def ask(self) -> tuple[int, bool] | None:
        """The quality to try next, and whether a draft tells enough; None where the search has ended."""
        if self._promising is not None:
            return self._promising, False
        quality = self._next() if self.probes > 0 else None
        if quality is not None:
            return quality, self._rough() and quality not in self.drafts
        self.probes = 0
        end = 0 if self.goal.ceiling else QUALITY_MAX
        # The last resort: the end of the scale that is likeliest to reach the goal.
        return (end, False) if self.best is None and end not in self.known else None

    def tell(self, quality: int, draft: bool, value: float, result: object) -> None:
        """What came of what was asked for."""
        if draft:
            self.drafts[quality] = value
            if self.goal.close(value):
                self._promising = quality
            else:
                self.probes -= 1
            return
        self._promising = None
        self.known[quality] = value
        better = self.best is None or abs(value - self.goal.value) < abs(self.best_value - self.goal.value)
        if self.goal.reached(value) and better:
            self.best, self.best_value = result, value
        self.probes = 0 if self.goal.close(value) else self.probes - 1

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
