"""The objective of the last phase of all weights: R + λD of what the encoder writes.

Symbols are chosen as at effort 2 (`step.py`, `refine.PLANS`), with one look at the quantised picture; bits are those of the symbols, the error is
that of the picture. A symbol has no derivative. Two estimates stand for it:

Off the trellis, where nearly all symbols are zero, a small move of y or of its mean matters where it takes a symbol over a threshold. So
the expected J has the derivative (density of latents at thresholds) × (what J changes there). The density is that of the latents within
half a window of their nearest threshold; J changes by bits(k + 1) - bits(k) + g ± h, with g the derivative of λD (and of later
steps) with respect to ŷ and h half its curvature. A mean moves ŷ as well: its derivative is g less that. (Straight-through
derivatives of all latents push them towards what would be best if they alone were coded: together they overshoot.)

On the trellis thresholds depend on the path, and are as good as random: there the expected J of a latent is a smooth function of its distance e
from its mean, B(e) + g V(e) + h Var(e): bits, decoded offset and its variance. `calibrate` measures them by level, and the derivative is theirs.
(Bits are weighed, so symbols stand nearer to zero than targets do on average. The commitment of `objective.py` would pull all targets in; and
code lengths under uniform noise are a quarter steeper than what is really paid.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import refine, step
from ..entropy.distributions import Table
from ..networks.config import LossyConfig
from ..networks.exact import round_through
from ..networks.model import LossyVAE
from ..networks.priors import SCALE_LEVELS, gaussian_bits, put, step_places
from ..networks.transforms import RESPONSE
from ..quantiser import REACH, choose, first_level
from ..tables import COUNTED, latent_tables
from ..walk import Take, walk_latents
from .objective import WEIGHT_EXPONENT, uniform_noise

WINDOW = 0.6  # around a threshold, in symbols
# Half the curvature at a threshold, over what random signs show in the mean of a channel: derivatives on both sides of it differ by that.
THRESHOLD = 0.73
OUTLIER = 2  # magnitude of a symbol off the trellis, from which on it is one
ROUNDS = 3  # of tables, symbols chosen with them, and tables of these
BINS, BIN = 96, 1 / 8  # of distances from the mean; beyond them bits are those under uniform noise, and what is decoded follows the target
ENOUGH = 500  # latents in a bin, for a slope there to count as much as that of uniform noise
MEASURED_EVERY = 8  # steps between two measurements of the curvature
EVERYWHERE = 2  # undecided latents that all of a channel count as, in the mean of its squares


class WrittenRateDistortion:
    """A function of model, pictures x: B×3×H×W in [0, 1] and grid positions t: B; see `objective.rate_distortion`.

    The tables that symbols are chosen with are Gaussian until `calibrate` has made them those of the symbols that are chosen.
    """

    def __init__(self, config: LossyConfig):
        self.config = config
        self._choose_with(latent_tables(config))
        self.curves = _noise_curves()
        self._counts: Tensor | None = None
        self._moments: Tensor | None = None
        # Curvature by rate point and channel, as `transforms.RESPONSE`, which it starts from.
        self._response = torch.full((config.rate_points, config.latent_channels), RESPONSE[config.transform]).log()
        self._calls = 0

    def _choose_with(self, tables: list[Table]) -> None:
        self.lengths = _lengths(tables)
        self.slopes = _slopes(_lengths(latent_tables(self.config)), self.lengths, first_level(self.config))

    @torch.no_grad()
    def calibrate(self, model: LossyVAE, batches: list[tuple[Tensor, Tensor]], total: Callable[[Tensor], None] = lambda counts: None) -> None:
        """Tables by what this objective chooses on pictures and positions. Others, be they those of a longer search, push every scale the same
        way from the first step on, and all that depends on hyper-latents with them. total: adds up the counts of several processes."""
        for _ in range(ROUNDS):
            self._counts = torch.zeros(SCALE_LEVELS * (2 * COUNTED + 1), dtype=torch.long)
            self._moments = torch.zeros(4, SCALE_LEVELS * BINS, dtype=torch.float64)
            for x, t in batches:
                self(model, x, t)
            total(self._counts)
            total(self._moments)
            self.curves = _measured_curves(self._moments)
            self._choose_with(latent_tables(self.config, self._counts.view(SCALE_LEVELS, -1).numpy()))
        self._counts = self._moments = None

    def __call__(self, model: LossyVAE, x: Tensor, t: Tensor) -> dict[str, Tensor]:
        prior, pixels = model.prior, x.shape[2] * x.shape[3]
        share, rate_weight = refine.PLANS[2].at(0)
        self.lengths, self.slopes, self._response = (part.to(x.device) for part in (self.lengths, self.slopes, self._response))
        y = model.analyse(x, t)
        z = prior.infer(y)
        z_hat = round_through(z)
        index = prior.scale_index(z_hat, t)
        levels = index.detach().round().clamp(0, SCALE_LEVELS - 1).to(torch.uint8)
        trade_off = torch.tensor([model.trade_off(value) for value in t.tolist()], device=x.device)
        weight = trade_off**WEIGHT_EXPONENT
        features, unit = prior.features(z_hat, t), model.unit(t)
        inverse_gain = model.log_inverse_gain(t).exp().detach()
        error_weight = _spread(step.error_weight(trade_off))
        search_weight = error_weight * _spread(step.slope(t, self.config.rate_points - 1))
        picture = torch.arange(len(x), device=x.device)[:, None, None, None].expand(levels.shape)  # each has its own paths

        def visit(rate_weight: float, target: Tensor, curvature: Tensor):
            lengths = rate_weight * self.lengths
            return lambda take, mean: choose(
                take(target) - mean, take(levels), take(curvature), lengths, self.config, take(picture)
            )

        with torch.no_grad():
            # Curvatures here are of a weight of 1, and weighed where a symbol is chosen.
            first = visit(step.RATE_WEIGHT, y, search_weight * step.guessed_curvature(1, self._squares(t), inverse_gain))
            decoded, _ = walk_latents(prior, features, unit, lambda take, mean: first(take, mean)[1] + mean)
        gradient = self._look(model, x, decoded, t, y, inverse_gain)
        with torch.no_grad():
            stiff = step.curvature(1, self._squares(t)) * inverse_gain.square()
            move = step.move(decoded, y, gradient, 1, stiff)
        target = step.moved(y, move, share)
        curvature = search_weight * stiff
        second = visit(rate_weight, target, curvature)
        bit = _spread(weight / pixels / len(x))  # what the mean loss makes of one
        half = error_weight * inverse_gain.square()
        estimate = _Estimate(self, rate_weight, bit)
        found = []

        def written(take: Take, mean: Tensor) -> Tensor:
            at = (take(levels), take(index.detach()), take(curvature), take(THRESHOLD * self._squares(t) * half))
            decoded = _Quantise.apply(take(target), mean, second, take, estimate, at, found)
            if self._moments is not None:
                self._add_moments(take(target) - mean, found[-1], decoded - mean, take(levels))
            return decoded

        y_hat, _ = walk_latents(prior, features, unit, written)
        with torch.no_grad():
            symbols = torch.empty_like(y_hat)
            for values, places in zip(found, step_places(prior.steps, y.shape[1]), strict=True):
                symbols = put(symbols, values, places)
        if self._counts is not None:
            row = levels.long() * (2 * COUNTED + 1) + COUNTED
            self._counts += (row + symbols.long().clamp(-COUNTED, COUNTED)).flatten().bincount(minlength=len(self._counts)).cpu()
        hyper_bits = prior.z_bits(z + uniform_noise(z), t).sum((1, 2, 3))
        bpp = (_Bits.apply(index, symbols, levels, self.lengths, self.slopes).sum((1, 2, 3)) + hyper_bits) / pixels
        mse = 255**2 * (model.synthesise(y_hat, t) - x).square().mean((1, 2, 3))
        return {"loss": (bpp + trade_off * mse) * weight, "bpp": bpp, "hyper_bpp": hyper_bits / pixels, "mse": mse}

    def _add_moments(self, offset: Tensor, symbols: Tensor, values: Tensor, levels: Tensor) -> None:
        """Count, bits, and first and second moment of what is decoded, by level and distance."""
        bits = self.lengths.view(-1)[levels.long() * (2 * REACH + 1) + REACH + symbols.clamp(-REACH, REACH).long()]
        values = values * torch.where(offset < 0, -1.0, 1.0)
        place = offset.abs() / BIN
        within = place < BINS
        row = (levels.long() * BINS + place.long())[within]
        for total, part in zip(self._moments, (torch.ones_like(bits), bits, values, values.square()), strict=True):
            total += row.bincount(part[within].double(), minlength=len(total)).cpu()

    def _squares(self, t: Tensor) -> Tensor:
        """Squared change of a picture over that of a latent times its inverse gain: B×M×1×1."""
        low = t.floor().clamp(0, self.config.rate_points - 2).long()
        return torch.lerp(self._response[low], self._response[low + 1], (t - low)[:, None]).exp()[:, :, None, None]

    def _look(self, model: LossyVAE, x: Tensor, decoded: Tensor, t: Tensor, y: Tensor, inverse_gain: Tensor) -> Tensor:
        """The derivative of the squared error with respect to the latents; every now and then the curvature is measured too."""
        # Blocks leave derivatives out that nobody wants.
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            at = decoded.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            shown = model.synthesise(at, t)
            if self._calls % MEASURED_EVERY == 0:
                signs = torch.randint(0, 2, shown.shape, device=x.device, dtype=shown.dtype) * 2 - 1
                (found,) = torch.autograd.grad(shown, at, signs, retain_graph=True)
                self._measure(found.square(), step.undecided(y, decoded), inverse_gain, t)
            (gradient,) = torch.autograd.grad((shown - x).square().sum(), at)
        for parameter in trained:
            parameter.requires_grad_(True)
        self._calls += 1
        return gradient

    @torch.no_grad()
    def _measure(self, squares: Tensor, undecided: Tensor, inverse_gain: Tensor, t: Tensor) -> None:
        """Of a channel, for the pictures of a batch one by one; a moving average over what both rate points around a picture have had."""
        mean, _ = step.by_channel(squares, undecided, EVERYWHERE)
        found = (mean / inverse_gain.square()).clamp(1, 60).log()[:, :, 0, 0]
        for value, place in zip(found, t.tolist(), strict=True):
            low = min(int(place), self.config.rate_points - 2)
            for point, share in ((low, low + 1 - place), (low + 1, place - low)):
                self._response[point].lerp_(value, 0.05 * share)


class _Estimate:
    """What `_Quantise` needs beside tensors of a step."""

    def __init__(self, objective: WrittenRateDistortion, rate_weight: float, bit: Tensor):
        self.lengths, self.first, self.curves = objective.lengths, first_level(objective.config), objective.curves.to(bit.device)
        self.rate_weight, self.bit = rate_weight, bit[..., None]

    def derivatives(self, offset, symbols, levels, index, curvature, h) -> tuple[Tensor, ...]:
        """Of J with respect to the target and to the mean, each as (factor of g, what is added)."""
        row, size = levels.long() * (2 * REACH + 1) + REACH, symbols.abs()

        def bits(magnitude: Tensor) -> Tensor:
            return self.lengths.view(-1)[row + magnitude.clamp(0, REACH).long()]

        here = bits(size)
        further, nearer = bits(size + 1) - here, here - bits((size - 1).clamp_min(0))
        # Where the choice turns to the next symbol out and in, in magnitude.
        out = size + 0.5 + self.rate_weight * further / (2 * curvature) - offset.abs()
        inwards = offset.abs() - (size - 0.5 + self.rate_weight * nearer / (2 * curvature))
        inwards = torch.where(size > 0, inwards.abs(), torch.full_like(inwards, 9.0))
        window = (torch.minimum(out.abs(), inwards) < WINDOW / 2) / WINDOW
        outwards = torch.where(offset < 0, -1.0, 1.0) * self.bit
        jump = torch.where(out.abs() < inwards, further + h, nearer - h) * outwards
        place = offset.abs() / BIN
        slope, follows, spread = self.curves[:, levels.long() * BINS + place.clamp_max(BINS - 1).long()]
        beyond = place >= BINS
        follows = torch.where(beyond, 1.0, follows)
        noise = (gaussian_bits(offset + 0.5, index) - gaussian_bits(offset - 0.5, index)) * self.bit
        rate = torch.where(beyond, noise, (slope + h * spread) * outwards)
        off = levels < self.first
        one = torch.ones_like(offset)
        # An outlier is far from its thresholds, and tables are flat there: only on the whole way to zero is it seen what it costs.
        outlier = (size >= OUTLIER) & (window == 0)
        whole = (here - bits(torch.zeros_like(size))) / offset.abs().clamp_min(1) * outwards
        return (
            torch.where(off, torch.where(outlier, one, window), follows),
            torch.where(off, torch.where(outlier, whole, jump * window), rate),
            torch.where(off, 1 - window, 1 - follows),
            torch.where(off, -jump * window, -rate),
        )


class _Bits(torch.autograd.Function):
    """Code lengths of symbols, by the tables of their levels; a derivative with respect to the index alone. It does not end with the
    ladder: an index below the lowest level still hears that a symbol was not zero, and nothing else. (Zeros would push it down for ever.)"""

    @staticmethod
    def forward(ctx, index, symbols, levels, lengths, slopes):
        at = levels.long() * (2 * REACH + 1) + REACH + symbols.clamp(-REACH, REACH).long()
        ctx.save_for_backward(at, slopes, index < 0)
        return lengths.view(-1)[at]

    @staticmethod
    def backward(ctx, gradient):
        at, slopes, below = ctx.saved_tensors
        slope = slopes.view(-1)[at]
        return gradient * torch.where(below, slope.clamp_max(0), slope), None, None, None, None


class _Quantise(torch.autograd.Function):
    """Targets and means of a step -> latents as decoded; the symbols are appended to `found`."""

    @staticmethod
    def forward(ctx, target, mean, choice, take, estimate, at, found):
        symbols, values = choice(take, mean)
        found.append(symbols)
        ctx.save_for_backward(*estimate.derivatives(target - mean, symbols, *at))
        return mean + values

    @staticmethod
    def backward(ctx, gradient):
        to_target, target, to_mean, mean = ctx.saved_tensors
        return gradient * to_target + target, gradient * to_mean + mean, None, None, None, None, None


def _spread(values: Tensor) -> Tensor:
    """B -> B×1×1×1."""
    return values[:, None, None, None]


def _lengths(tables: list[Table]) -> Tensor:
    """Code lengths of symbols -REACH..REACH: levels×symbols."""
    return torch.from_numpy(step.code_lengths(tables, REACH))


def _slopes(gaussian: Tensor, lengths: Tensor, first: int) -> Tensor:
    """Change of code lengths, levels×symbols, from one level to the next: half of that between its neighbours, where both have its quantiser.
    Of Gaussian tables, since wide ones have few counts for each symbol, and what is drawn from noise below is no noise any more. In their flat
    tails it is that of less unlikely symbols: outliers ask for wider tables no less than those do. Its mean under the table that is in use
    (`lengths`) is zero, as that of a derivative of the likelihood must be; differences to one side alone have another."""
    level = torch.arange(len(lengths))
    begin, end = torch.where(level < first, 0, first), torch.where(level < first, first, len(lengths)) - 1
    lower, upper = torch.maximum(level - 1, begin), torch.minimum(level + 1, end)
    slopes = (gaussian[upper] - gaussian[lower]) / (upper - lower).clamp_min(1)[:, None]
    outwards = slopes[:, REACH:].cummin(1).values, slopes[:, : REACH + 1].flip(1).cummin(1).values.flip(1)
    slopes = torch.cat((outwards[1], outwards[0][:, 1:]), 1)
    probability = (-lengths).exp2()
    return slopes - (probability * slopes).sum(1, keepdim=True) / probability.sum(1, keepdim=True)


def _noise_curves() -> Tensor:
    """Slopes of bits, of what is decoded and of its variance under uniform noise: 3×(levels·BINS)."""
    at = ((torch.arange(BINS) + 0.5) * BIN).expand(SCALE_LEVELS, BINS)
    level = torch.arange(SCALE_LEVELS).float()[:, None].expand_as(at)
    bits = gaussian_bits(at + 0.5, level) - gaussian_bits(at - 0.5, level)
    return torch.stack((bits, torch.ones_like(bits), torch.zeros_like(bits))).flatten(1)


def _measured_curves(moments: Tensor) -> Tensor:
    """The same from counts and sums, 4×(levels·BINS): differences over two bins, those under noise where few latents are."""
    count, *sums = moments.view(4, SCALE_LEVELS, BINS)
    bits, value, square = (total / count.clamp_min(1) for total in sums)
    found = torch.stack((bits, value, square - value.square()))
    # Mirrored at zero: bits and variance are even, what is decoded is odd.
    before = torch.cat((found[..., :1] * torch.tensor([1, -1, 1])[:, None, None], found[..., :-1]), 2)
    after = torch.cat((found[..., 1:], found[..., -1:]), 2)
    fewest = torch.minimum(torch.cat((count[:, :1], count[:, :-1]), 1), torch.cat((count[:, 1:], torch.zeros_like(count[:, :1])), 1))
    noise = _noise_curves().view(found.shape).double()
    share = fewest / (fewest + ENOUGH)
    return torch.lerp(noise, (after - before) / (2 * BIN), share).flatten(1).float()
