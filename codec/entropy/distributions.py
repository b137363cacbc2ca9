"""Exact probability tables.

A table gives each integer symbol of [low, low + n - 2] and one escape symbol (the last) a frequency; frequencies
are positive integers that sum to 2^24. Tables are computed once, when a model is exported, and stored in the
model file as integers: no machine ever recomputes them with its own `erf` or `exp`.

constriction takes probabilities as floats, adds one unit to each symbol and distributes the rest in proportion.
Given integers `frequency - 1`, whose sum is exactly the rest, its fixed-point intervals are exactly ours
(tested against golden words).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import constriction
import numpy as np

PRECISION = 24
TOTAL = 1 << PRECISION
ESCAPE_BITS = 20  # escaped magnitudes stay below 2^20


@dataclass(frozen=True)
class Table:
    """Distribution of one symbol. frequencies: int64 [n], positive, sum 2^24; the last one is the escape."""

    low: int
    frequencies: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        f = self.frequencies
        if f.ndim != 1 or len(f) < 2 or f.min() < 1 or int(f.sum()) != TOTAL:
            raise ValueError(f"not a probability table: {len(f)} entries, sum {int(f.sum())}")

    @property
    def escape(self) -> int:
        """Coded value that stands for a symbol outside [low, high]."""
        return len(self.frequencies) - 1

    @property
    def high(self) -> int:
        return self.low + self.escape - 1

    @cached_property
    def model(self) -> constriction.stream.model.Categorical:
        return constriction.stream.model.Categorical((self.frequencies - 1).astype(np.float64), perfect=False)

    @cached_property
    def bits(self) -> np.ndarray:
        """Code length of each coded value in bits, float64 [n]."""
        return PRECISION - np.log2(self.frequencies)


def quantise(probabilities: np.ndarray) -> np.ndarray:
    """Non-negative weights [n] -> frequencies int64 [n], each at least 1, sum 2^24."""
    weights = np.asarray(probabilities, dtype=np.float64)
    frequencies = 1 + np.floor(weights * ((TOTAL - len(weights)) / weights.sum())).astype(np.int64)
    frequencies[np.argmax(frequencies)] += TOTAL - frequencies.sum()
    return frequencies


def gaussian_weights(scale: float, reach: int) -> np.ndarray:
    """Mass of a zero-mean Gaussian on the unit intervals around -reach..reach, then its tails: float64 [2·reach + 2]."""
    edges = np.arange(reach + 1) + 0.5
    tails = np.array([math.erfc(edge / (scale * math.sqrt(2))) for edge in edges])  # P(|r| > edge)
    one_side = -np.diff(tails) / 2  # symbols 1..reach
    return np.concatenate((one_side[::-1], [1 - tails[0]], one_side, [tails[-1]]))


def trellis_weights(scale: float, reach: int) -> np.ndarray:
    """Mass of a zero-mean Gaussian on what is nearest to the symbols -reach..reach of a trellis' quantiser (`trellis.points`), scale
    in units of its grid, then its tails: float64 [2·reach + 2]."""
    edges = [2 * k + 1 for k in range(-reach - 1, 0)] + [0.5] + [2 * k for k in range(1, reach + 1)]
    below = np.array([math.erfc(-edge / (scale * math.sqrt(2))) / 2 for edge in edges])
    return np.append(np.diff(below), below[0] + 1 - below[-1])
