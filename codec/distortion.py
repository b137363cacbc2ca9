"""Distortion: what a search weighs against bits, as a quadratic form of a picture's error (floor 2).

PSNR: the sum of the squares. MS-SSIM (Wang, Simoncelli and Bovik 2003): for small errors 1 - SSIM is, at each scale, their variance
over twice the picture's in the window that moves over both, plus a constant. So errors are squared at three scales, and weigh less where
the picture is busy at that scale. Left out: the two coarsest scales, and that SSIM does not see the error's mean in a window (which the
next scale sees). A quadratic form has what `refine.py` needs beside its derivative: random vectors with it as their covariance, for the curvature.

SSIMULACRA 2: its inner sum (`networks/ssimulacra2.py`) has kinks and fourth roots, and so no useful curvature at a picture. Its exact derivative
is followed, half and half with that of MS-SSIM's form, whose curvature and value stand for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from .metrics import PSNR, SSIMULACRA2
from .networks import ssimulacra2

SHARES = (0.1, 0.4, 0.5)  # of the scales, each half the size of the one before
WINDOW = 9  # pixels a side, of the scale
EXACT = 0.5  # share of SSIMULACRA 2's own derivative; 0.3 and 1 are worse by half a per cent and two of the bits (five CID22 photographs)
STABILISER = 2 * 0.03**2  # added to twice the variance of samples in [0, 1]; SSIM has half of that


@dataclass(frozen=True)
class Distortion:
    """Of errors e: 1×3×h×w, in whatever unit, h and w multiples of 4."""

    weights: tuple[Tensor, ...]  # of a squared error at each scale: 1×3×h/2^s×w/2^s, or with sides of 1

    @classmethod
    def of(cls, tune: str, x: Tensor) -> Distortion:
        """x: the picture, 1×3×h×w in [0, 1]; tune: one of `metrics.TUNES`."""
        if tune == PSNR:
            return cls((torch.ones(1, 1, 1, 1, dtype=x.dtype, device=x.device),))
        weights, original = [], x.contiguous()  # pooling is three times as fast on planes
        x = original
        for scale, share in enumerate(SHARES):
            mean = _window_mean(x)
            variance = (_window_mean(x.square()) - mean.square()).clamp_min_(0)
            weights.append(_window_mean(share * 4**scale / (2 * variance + STABILISER)))
            x = _half(x)
        return VisualDistortion(tuple(weights), original) if tune == SSIMULACRA2 else cls(tuple(weights))

    def value(self, e: Tensor) -> float:
        total = 0.0
        for scale, weight in enumerate(self.weights):
            e = _half(e) if scale else e
            total += float((weight * e.square()).sum())
        return total

    def gradient(self, e: Tensor) -> Tensor:
        parts = []
        for scale, weight in enumerate(self.weights):
            e = _half(e) if scale else e
            parts.append(2 * weight * e)
        return _spread(parts)

    def random(self, signs: Callable[[int], Tensor]) -> Tensor:
        """A vector r with E[r rᵀ] the form's matrix. signs: ±1, independent, of a scale: 1×3×h/2^s×w/2^s."""
        return _spread([weight.sqrt() * signs(scale) for scale, weight in enumerate(self.weights)])


@dataclass(frozen=True)
class VisualDistortion(Distortion):
    """MS-SSIM's form with a derivative that is half SSIMULACRA 2's."""

    original: Tensor  # 1×3×h×w in [0, 1]

    @cached_property
    def _known(self) -> ssimulacra2.Original:
        return ssimulacra2.Original.of(self.original)

    def gradient(self, e: Tensor) -> Tensor:
        """The two derivatives are of different units: SSIMULACRA 2's gets the size at which both say the same about the error as a whole."""
        form = super().gradient(e)
        with torch.enable_grad():
            shown = (self.original + e).detach().contiguous().requires_grad_()
            (exact,) = torch.autograd.grad(ssimulacra2.inner(self._known, shown).sum(), shown)
        along = float((exact * e).sum())
        if along <= 0:  # a picture without a scale of 8×8 pixels, or without an error
            return form
        return form.lerp_(exact.mul_(float((form * e).sum()) / along), EXACT)


def _window_mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, WINDOW, 1, WINDOW // 2, count_include_pad=False)


def _half(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


def _spread(parts: list[Tensor]) -> Tensor:
    """One part for each scale -> their sum at the first; as the adjoint of means over squares a value is divided among its pixels."""
    return reduce(lambda coarse, fine: fine + F.interpolate(coarse / 4, scale_factor=2.0), reversed(parts))
