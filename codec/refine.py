"""Per-image inference: better symbols for this one picture than one amortised pass finds (floor 4, above lossy.py).

What is minimised, how a symbol is chosen and how a target moves is stated in `step.py`; here it is done to a picture: which passes, the
derivatives, window by window, and the curvature, smoothed. The decoder, the file format and the decoder's time do not change.
docs/EFFORT.md says what each level does and brings. Tuned for MS-SSIM or SSIMULACRA 2, D is another quadratic form of the error
(`distortion.py`), in a unit that makes it the squared error of what is looked at first: qualities keep their meaning, roughly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import postfilter, step
from .container import QUALITY_MAX
from .distortion import Distortion
from .lossy import Choice, Encoder, Latents, fit_filter, position, transform_precision
from .metrics import MS_SSIM, PSNR, SSIMULACRA2
from .networks.transforms import RESPONSE
from .postfilter import Normal
from .quantiser import REACH
from .tiles import STRIDE, Tile, whole

CHEAP = 1  # the highest effort that is one amortised pass: what a search can pay at every probe


@dataclass(frozen=True)
class Plan:
    """What one level of effort does."""

    iterations: int
    moves: tuple[float, float]  # a of the first iteration and of the last, linear between them
    rate_weights: tuple[float, float]  # β, likewise: a bit that is saved costs others in later means, which iterations still to come find
    probes: int  # random vectors that h is measured with

    def at(self, iteration: int) -> tuple[float, float]:
        """a and β."""
        part = iteration / max(1, self.iterations - 1)
        return tuple(first + (last - first) * part for first, last in (self.moves, self.rate_weights))


PLANS = {
    2: Plan(1, (0.3, 0.3), (0.6, 0.6), 1),
    3: Plan(3, (0.3, 0.15), (0.65, 1.0), 1),
    4: Plan(4, (0.3, 0.12), (0.65, 1.1), 1),
    5: Plan(5, (0.3, 0.12), (0.65, 1.15), 2),
    6: Plan(8, (0.3, 0.08), (0.65, 1.3), 2),
    7: Plan(16, (0.3, 0.03), (0.8, 1.4), 4),
}
UNCHECKED = 3  # after so many iterations at most nobody looks whether J has fallen: it practically always has
# Weight of what derivatives show around a latent, against its channel's mean, in the logarithm; more, where the picture decides it.
NEARBY = {PSNR: 0.3, MS_SSIM: 0.6, SSIMULACRA2: 0.6}
EVERYWHERE = 8  # undecided latents that all of a channel count as, in the mean of its squares
PERIOD = 1024  # pixels after which random signs repeat themselves
WINDOW = 768  # pixels a side of what derivatives are taken of at once, to bound the memory; a multiple of HYPER_STRIDE
MARGIN = 64  # and what they see around: less than networks reach, for derivatives there are small and only choices depend on them


def refine(
    encoder: Encoder,
    y: Tensor,
    quality: int,
    effort: int,
    progress: Callable[[float], None] | None = None,
    tune: str = PSNR,
    unit: float | None = None,
) -> Latents:
    """The latents to write, from the amortised y, at an effort from 1 to 9.

    tune: what D is (`metrics.TUNES`); effort 1 does not look at it. unit: of D, see `unit_of`; None: this picture's own.
    progress: hears after each iteration (effort 2 and up) which part of all is done; the last is 1.
    """
    problem, plan = _Problem.of(encoder, y, quality, tune), PLANS.get(min(effort, max(PLANS)))
    unchecked = plan is not None and plan.iterations <= UNCHECKED
    # Where it is only looked at and never written, its means may be a little off; with three looks no trellis is needed either.
    rough = transform_precision(encoder.model.device) if unchecked else contextlib.nullcontext()
    with rough:
        choice = problem.choice(step.RATE_WEIGHT, uniform=unchecked and plan.iterations == UNCHECKED)
        amortised = latents = encoder.quantise(y, quality, z=problem.z, choice=choice)
    if plan is None:
        return amortised
    target, windows = y, _windows(encoder, tune)
    for number in range(plan.iterations):
        look = _look(encoder, latents, windows, 0 if number else plan.probes)
        if number == 0:
            problem = problem.measured(y, amortised, look, unit or look.unit)
        move = step.move(latents.decoded, target, look.gradient, problem.error_weight, problem.curvature)
        share, rate_weight = plan.at(number)
        target = step.moved(target, move, share)
        latents = encoder.quantise(target, quality, z=problem.z, choice=problem.choice(rate_weight))
        if look.normal:  # of the picture before, whose errors are alike: it is there already
            latents = replace(latents, filter=fit_filter(encoder.model, look.normal, quality), normal=look.normal)
        if progress:
            progress((number + 1) / plan.iterations)
    if unchecked:
        return latents
    return min(latents, amortised, key=problem.cost)  # of equals the first: more work is not thrown away


def unit_of(encoder: Encoder, quality: int, tune: str) -> float:
    """The squared error of a picture over the distortion that a search is tuned for, after one pass. Blocks of a picture need the same."""
    if tune == PSNR:
        return 1.0
    y = encoder.analyse(quality)
    problem = _Problem.of(encoder, y, quality)
    latents = encoder.quantise(y, quality, z=problem.z, choice=problem.choice(step.RATE_WEIGHT, uniform=True))
    return _look(encoder, latents, _windows(encoder, tune), 1).unit


@dataclass(frozen=True)
class _Problem:
    """J of a picture as a function of its symbols."""

    encoder: Encoder
    quality: int
    z: Tensor  # hyper-latents, rounded
    levels: Tensor  # table of each symbol: uint8 1×M×h×w
    lengths: Tensor  # code length of symbols -REACH..REACH: tables×(2·REACH + 1)
    curvature: Tensor  # h: 1×M×1×1 or 1×M×h×w
    tune: str
    error_weight: float  # of the distortion of samples in [0, 1] in J

    @classmethod
    def of(cls, encoder: Encoder, y: Tensor, quality: int, tune: str = PSNR) -> _Problem:
        """With the curvature that the inverse gains suggest."""
        model, z = encoder.model, encoder.infer_hyper(y)
        lengths = torch.from_numpy(step.code_lengths(model.latent_tables, REACH)).to(y.device)
        levels = encoder.levels(z, quality, tuple(y.shape[1:]))
        inverse_gain = encoder.network.log_inverse_gain(position(model, quality)).exp()
        trade_off = encoder.network.trade_off(float(position(model, quality)))
        weight = step.error_weight(step.slope(quality, QUALITY_MAX) * trade_off)
        curvature = step.guessed_curvature(weight, RESPONSE[model.config.transform], inverse_gain)
        return cls(encoder, quality, z, levels, lengths, curvature, tune, weight)

    def measured(self, y: Tensor, amortised: Latents, look: _Look, unit: float) -> _Problem:
        """With the curvature that a look at the amortised latents of y has found, and D in a unit."""
        weight = self.error_weight * unit
        squares = _smoothed(look.squares, step.undecided(y, amortised.decoded), NEARBY[self.tune])
        return replace(self, curvature=step.curvature(weight, squares), error_weight=weight)

    def choice(self, rate_weight: float, *, uniform: bool = False) -> Choice:
        """For `Encoder.quantise`: the least β·bits(k) + h (offset - o(k))². uniform: as if no symbol were on a trellis."""
        return self.encoder.choice(self.levels, self.curvature, rate_weight * self.lengths, uniform=uniform)

    def cost(self, latents: Latents) -> float:
        """J in earnest: bits of the coder, pixels of the decoder."""
        encoder, total = self.encoder, 0.0
        error = torch.zeros_like(encoder.x)  # none in the padding
        inside = (..., slice(encoder.height), slice(encoder.width))
        shown = torch.from_numpy(encoder.picture(latents)).to(error.device).permute(2, 0, 1)
        error[inside] = shown / 255 - encoder.x[inside]
        for tile in whole(encoder.height, encoder.width).cut(WINDOW):
            place = (..., *tile.slices(1))
            total += Distortion.of(self.tune, encoder.x[place]).value(error[place])
        return encoder.bits(latents) + self.error_weight * total


@dataclass(frozen=True)
class _Look:
    """What the derivatives of a picture's distortion (samples in [0, 1]) say about its decoded latents."""

    gradient: Tensor  # 1×M×h×w
    squares: Tensor | None  # with `probes`: the mean change of the picture by each latent, squared as the distortion does: 1×M×h×w
    normal: Normal | None  # what a post-filter could do about the error
    unit: float  # with `probes`: the squared error over the distortion


def _look(encoder: Encoder, latents: Latents, windows: list[_Window], probes: int) -> _Look:
    basis = encoder.model.postfilter
    kernel = None if basis is None else postfilter.kernel(basis, latents.filter)
    normal = None if basis is None else Normal.empty()
    gradient = torch.empty_like(latents.decoded)
    squares = torch.empty_like(latents.decoded) if probes else None
    errors, distortions = 0.0, 0.0
    for window in windows:
        tile, seen, distortion = window.tile, window.seen, window.distortion
        rows, columns = seen.slices(1)
        kept = _at(tile.inside(seen))
        original = encoder.x[:, :, rows, columns]
        with torch.enable_grad():
            at = latents.decoded[_at(seen)].contiguous(memory_format=torch.channels_last).requires_grad_()
            x = _synthesise(encoder, at, latents.quality)
        if squares is not None:
            total = torch.zeros_like(at)
            for number in range(probes):
                direction = distortion.random(partial(_signs, number, rows, columns, x))
                (slope,) = torch.autograd.grad(x, at, direction, retain_graph=True)
                total += slope.square_()
            squares[_at(tile)] = total[kept] / probes
        shown = x.detach()
        if normal:
            around = F.pad(shown, [postfilter.REACH] * 4, mode="replicate")
            _compare(encoder, around, original, tile, seen, normal)
        if kernel is None:
            difference = shown - original
            if probes:
                errors, distortions = errors + float(difference.square().sum()), distortions + distortion.value(difference)
            error = distortion.gradient(difference)
        else:
            with torch.enable_grad(), transform_precision(encoder.model.device):
                filtered = postfilter.apply(around.requires_grad_(), kernel)
                (error,) = torch.autograd.grad(filtered, around, distortion.gradient(filtered.detach() - original))
            error = error[:, :, postfilter.REACH : -postfilter.REACH, postfilter.REACH : -postfilter.REACH].contiguous()
        (slope,) = torch.autograd.grad(x, at, error)
        gradient[_at(tile)] = slope[kept]
    return _Look(gradient, squares, normal, errors / distortions if distortions else 1.0)


def _compare(encoder: Encoder, around: Tensor, original: Tensor, tile: Tile, seen: Tile, normal: Normal) -> None:
    """Add a tile, as far as it is in the picture. around: what is seen, with post-filter's REACH more on all sides."""
    inner = tile.inside(seen)
    bottom, right = (min(end, size) - start for end, size, start in ((tile.bottom, encoder.height, seen.top), (tile.right, encoder.width, seen.left)))
    if inner.top < bottom and inner.left < right:
        more = 2 * postfilter.REACH
        shown = around[0, :, inner.top : bottom + more, inner.left : right + more]
        share = postfilter.SAMPLE / (encoder.height * encoder.width)
        normal.add(shown, original[0, :, inner.top : bottom, inner.left : right], share)


def _signs(number: int, rows: slice, columns: slice, like: Tensor, scale: int) -> Tensor:
    """Random signs at a scale, 1×3×rows×columns >> scale: of a place in the picture always the same, whatever part of it is asked for."""
    down, across = (torch.arange(part.start >> scale, part.stop >> scale) % PERIOD for part in (rows, columns))
    return _pattern(number, scale)[:, :, down][..., across].to(like)


@lru_cache(maxsize=12)  # what the highest effort has
def _pattern(number: int, scale: int) -> Tensor:
    generator = torch.Generator().manual_seed(number + 1000 * scale)
    pattern = torch.randint(0, 2, (1, 3, PERIOD, PERIOD), generator=generator, dtype=torch.int8)
    return pattern.mul_(2).sub_(1)


def _smoothed(squares: Tensor, undecided: Tensor, nearby_weight: float) -> Tensor:
    """Squared changes by latent, smoothed: 1×M×h×w. Their level is that of the undecided ones."""
    by_channel, total = step.by_channel(squares, undecided, EVERYWHERE)
    # Around a latent there are few samples: a geometric mean of theirs and the channel's, at the same size.
    nearby = F.avg_pool2d(squares, 5, 1, 2, count_include_pad=False).clamp_min_(step.LEAST)
    found = nearby.log_().mul_(nearby_weight).add_(by_channel.log(), alpha=1 - nearby_weight).exp_()
    return found.mul_(total.sum() / (undecided * found).sum().clamp_min(1e-12))


@dataclass(frozen=True)
class _Window:
    """A part of the picture whose derivatives are in memory at once."""

    tile: Tile
    seen: Tile  # with what the synthesis sees of its surroundings
    distortion: Distortion  # of errors of what is seen


def _windows(encoder: Encoder, tune: str) -> list[_Window]:
    picture = whole(encoder.height, encoder.width)
    pairs = [(tile, tile.around(MARGIN, picture)) for tile in picture.cut(WINDOW)]
    return [_Window(tile, seen, Distortion.of(tune, encoder.x[(..., *seen.slices(1))])) for tile, seen in pairs]


def _at(tile: Tile) -> tuple:
    """The latents of a tile."""
    return (..., *tile.slices(STRIDE))


def _synthesise(encoder: Encoder, decoded: Tensor, quality: int) -> Tensor:
    with transform_precision(encoder.model.device):
        return encoder.network.synthesise(decoded, position(encoder.model, quality))
