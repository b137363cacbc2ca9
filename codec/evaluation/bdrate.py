"""Bjøntegaard delta rate: how many more bits a codec needs than an anchor for the same quality, on average.

    BD-rate = 10^(mean over q of [log10 R_test(q) − log10 R_anchor(q)]) − 1        (Bjøntegaard, VCEG-M33, 2001)

R(q) interpolates the measured points with a monotone cubic (PCHIP) over quality q, in dB or a metric's own points; the
mean is the exact integral of the cubics over the range of q that both curves cover, so it has no sampling error.
"""

from typing import NamedTuple

import numpy as np


class BDRate(NamedTuple):
    percent: float  # negative: fewer bits than the anchor
    low: float  # the range of quality that counted
    high: float


class Pchip:
    """The monotone piecewise cubic of Fritsch and Carlson (SIAM J. Numer. Anal. 17, 1980), slopes by Fritsch and Butland.

    Inner slopes are weighted harmonic means of the neighbouring chords, 0 at a local extremum; end slopes are the
    three-point estimate, limited so that the curve keeps its shape. These are the choices of SciPy's PchipInterpolator.

    x: N ≥ 2 strictly increasing knots; y: N values. Anything else, and anything not finite, is a ValueError.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
            raise ValueError(f"PCHIP needs two points or more, got shapes {x.shape} and {y.shape}")
        if not (np.isfinite(x).all() and np.isfinite(y).all() and (np.diff(x) > 0).all()):
            raise ValueError(
                f"PCHIP needs finite values over strictly increasing knots, got {x.tolist()}, {y.tolist()}"
            )
        step = np.diff(x)
        chord = np.diff(y) / step
        slope = _slopes(step, chord)
        # On segment k, with t = x − x_k:  y = c0 + c1 t + c2 t² + c3 t³
        self.x = x
        self.coefficients = np.stack([  # 4×(N−1)
            y[:-1],
            slope[:-1],
            (3 * chord - 2 * slope[:-1] - slope[1:]) / step,
            (slope[:-1] + slope[1:] - 2 * chord) / step**2,
        ])  # fmt: skip
        c0, c1, c2, c3 = self.coefficients
        areas = step * (c0 + step * (c1 / 2 + step * (c2 / 3 + step * c3 / 4)))
        self._area_before = np.concatenate([[0.0], np.cumsum(areas)])

    def __call__(self, x):
        """Values at x (any shape), which must lie within the knots."""
        k, t = self._locate(x)
        c0, c1, c2, c3 = self.coefficients[:, k]
        return c0 + t * (c1 + t * (c2 + t * c3))

    def integral(self, low: float, high: float) -> float:
        return float(self._area_until(high) - self._area_until(low))

    def _area_until(self, x):
        k, t = self._locate(x)
        c0, c1, c2, c3 = self.coefficients[:, k]
        return self._area_before[k] + t * (c0 + t * (c1 / 2 + t * (c2 / 3 + t * c3 / 4)))

    def _locate(self, x):
        x = np.asarray(x, np.float64)
        if not ((self.x[0] <= x) & (x <= self.x[-1])).all():
            raise ValueError(f"{x} is outside of the curve, {self.x[0]} to {self.x[-1]}")
        k = np.clip(np.searchsorted(self.x, x, side="right") - 1, 0, len(self.x) - 2)
        return k, x - self.x[k]


def _slopes(step: np.ndarray, chord: np.ndarray) -> np.ndarray:
    if len(chord) == 1:
        return np.array([chord[0], chord[0]])
    monotone = chord[:-1] * chord[1:] > 0
    before, after = chord[:-1][monotone], chord[1:][monotone]
    step_before, step_after = step[:-1][monotone], step[1:][monotone]
    weight_before, weight_after = step_before + 2 * step_after, 2 * step_before + step_after
    inner = np.zeros(len(chord) - 1)
    inner[monotone] = (weight_before + weight_after) / (weight_before / before + weight_after / after)
    first = _end_slope(step[0], step[1], chord[0], chord[1])
    last = _end_slope(step[-1], step[-2], chord[-1], chord[-2])
    return np.concatenate([[first], inner, [last]])


def _end_slope(step: float, next_step: float, chord: float, next_chord: float) -> float:
    slope = ((2 * step + next_step) * chord - step * next_chord) / (step + next_step)
    if slope * chord <= 0:
        return 0.0
    if chord * next_chord <= 0 and abs(slope) > 3 * abs(chord):
        return 3 * chord
    return slope


def rate_curve(bpp, quality) -> Pchip:
    """log10(bpp) over quality, from points in any order.

    Points of infinite quality (lossless) are left out; of two points with equal quality the cheaper one counts.
    """
    points: dict[float, float] = {}
    for rate, value in zip(bpp, quality, strict=True):
        if np.isfinite(value):
            points[value] = min(rate, points.get(value, np.inf))
    knots = sorted(points)
    return Pchip(np.array(knots), np.log10([points[q] for q in knots]))


def bd_rate(anchor: Pchip, test: Pchip, span: tuple[float, float] = (-np.inf, np.inf)) -> BDRate:
    """BD-rate of `test` against `anchor`, both from `rate_curve`, over the qualities that both have within `span`.

    A ValueError if there are none.
    """
    low, high = max(anchor.x[0], test.x[0], span[0]), min(anchor.x[-1], test.x[-1], span[1])
    if not low < high:
        within = "" if span == (-np.inf, np.inf) else f" within {span[0]:g}–{span[1]:g}"
        raise ValueError(
            f"no quality in common{within}: {anchor.x[0]:.2f}–{anchor.x[-1]:.2f} and {test.x[0]:.2f}–{test.x[-1]:.2f}"
        )
    gain = (test.integral(low, high) - anchor.integral(low, high)) / (high - low)
    return BDRate(float(100 * (10**gain - 1)), float(low), float(high))


def bits_at_equal_quality(anchor: Pchip, test: Pchip, anchor_bpp: float) -> float:
    """Percent more bits of `test` where `anchor` spends `anchor_bpp`; a ValueError where one curve does not reach.

    The quality there is found by bisection on the anchor's curve, which must rise between its ends.
    """
    low, high = anchor.x[0], anchor.x[-1]
    target = np.log10(anchor_bpp)
    if not anchor(low) <= target <= anchor(high):
        raise ValueError(
            f"{anchor_bpp} bpp is outside of the anchor's {10 ** anchor(low):.3f}–{10 ** anchor(high):.3f}"
        )
    for _ in range(60):  # 60 halvings of a range below 100 dB: past the last bit of a double
        middle = (low + high) / 2
        low, high = (middle, high) if anchor(middle) < target else (low, middle)
    return float(100 * (10 ** (test(low) - target) - 1))
