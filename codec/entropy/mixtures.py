"""Mixtures of discretised logistics in exact arithmetic, coded on a stack.

A `Mixture` gives each of the 256 values of a sample a frequency out of 2^20, computed from dyadic numbers and tables of
integers: the same on every machine. A value is coded as eight binary decisions, each halving the interval that
is left, with the probability of the upper half; a decoder evaluates the distribution in eight places only.

A stack (constriction's AnsCoder) returns last what was pushed first; popping from it with any distribution is how
bits-back coding draws a sample (Townsend, Bird and Barber 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import constriction
import numpy as np

from ..errors import FormatError

VALUES = 256
TOTAL_BITS = 20
WEIGHT_BITS = 16
LOGISTIC_REACH = 16  # the tabulated logistic reaches from -16 to 16
LOGISTIC_STEPS = 512  # entries a unit
LOGIT_STEPS = 32  # weights: logits count in 1/32
SCALE_STEPS = 8  # scales: powers of 2^(1/8)


def tables() -> dict[str, np.ndarray]:
    """The integer tables of this module, as they are stored in a model file when it is made."""
    t = np.arange(-LOGISTIC_REACH * LOGISTIC_STEPS, LOGISTIC_REACH * LOGISTIC_STEPS + 1) / LOGISTIC_STEPS
    steps = np.arange(12 * LOGIT_STEPS + 1) / LOGIT_STEPS
    return {
        "logistic": np.round(2.0**TOTAL_BITS / (1 + np.exp(-t))).astype(np.int32),
        "exponential": np.maximum(1, np.round(2.0**WEIGHT_BITS * np.exp(-steps))).astype(np.int32),
        "mantissa": np.round(4096 * np.exp2(-np.arange(SCALE_STEPS) / SCALE_STEPS)).astype(np.int32),
    }


class Arithmetic:
    """The tables of a model file, ready to build mixtures with. Raises ValueError if they are not such tables."""

    def __init__(self, logistic: np.ndarray, exponential: np.ndarray, mantissa: np.ndarray):
        expected = tables()
        for name, table in (("logistic", logistic), ("exponential", exponential), ("mantissa", mantissa)):
            if table.shape != expected[name].shape:
                raise ValueError(f"table {name} has {len(table)} entries instead of {len(expected[name])}")
        if np.any(np.diff(logistic) < 0) or logistic[0] < 0 or logistic[-1] > 1 << TOTAL_BITS:
            raise ValueError("the logistic table is not a distribution")
        self.logistic = logistic.astype(np.int64)
        self.exponential = exponential.astype(np.int64)
        self.mantissa = mantissa.astype(np.float64) / 4096

    def mixture(self, logits: np.ndarray, means: np.ndarray, log_scales: np.ndarray) -> Mixture:
        """All float64 [N, K], dyadic: logits, means in levels, log2 of scales in levels."""
        below = np.floor((logits.max(1, keepdims=True) - logits) * LOGIT_STEPS + 0.5)
        raw = self.exponential[np.minimum(below, len(self.exponential) - 1).astype(np.int64)]
        weights = (raw << WEIGHT_BITS) // raw.sum(1, keepdims=True)
        weights[:, 0] += (1 << WEIGHT_BITS) - weights.sum(1)
        return Mixture(self, weights, means, self.inverse(log_scales) * LOGISTIC_STEPS)

    def inverse(self, log_scales: np.ndarray) -> np.ndarray:
        """1 / scale, on the ladder of scales: a tabulated mantissa times a power of two."""
        steps = np.floor(log_scales * SCALE_STEPS + 0.5).astype(np.int64)
        return np.ldexp(self.mantissa[steps % SCALE_STEPS], -(steps // SCALE_STEPS))


@dataclass(frozen=True)
class Mixture:
    """Distributions of N samples. weights: int64 [N, K], sum 2^16; means, slopes (table entries a level): float64."""

    arithmetic: Arithmetic
    weights: np.ndarray
    means: np.ndarray
    slopes: np.ndarray

    def part(self, span: slice) -> Mixture:
        return Mixture(self.arithmetic, self.weights[span], self.means[span], self.slopes[span])

    def below(self, values: np.ndarray) -> np.ndarray:
        """Frequency of all values smaller than `values`: int64 [N], for values 1..255."""
        position = (values[:, None] - 0.5 - self.means) * self.slopes
        table = self.arithmetic.logistic
        half = len(table) // 2
        index = np.clip(np.floor(position + 0.5), -half, half).astype(np.int64) + half
        mass = (self.weights * table[index]).sum(1) >> WEIGHT_BITS
        return (mass * ((1 << TOTAL_BITS) - VALUES) >> TOTAL_BITS) + values

    def decide(self, choose) -> np.ndarray:
        """Halve the interval of values eight times; choose(step, p) tells which half: bool [N] from p: float64 [N]."""
        count = len(self.means)
        low, low_mass = np.zeros(count, np.int64), np.zeros(count, np.int64)
        high_mass = np.full(count, 1 << TOTAL_BITS, np.int64)
        for step in range(8):
            middle = low + (VALUES >> step + 1)
            mass = self.below(middle)
            upper = choose(step, (high_mass - mass) / (high_mass - low_mass))
            low = np.where(upper, middle, low)
            low_mass, high_mass = np.where(upper, mass, low_mass), np.where(upper, high_mass, mass)
        return low


_BIT = constriction.stream.model.Bernoulli(perfect=False)


class Stacks:
    """Stacks in step: of the values of a call, those before ends[0] are on the first, those from there to ends[1] on the next …

    Last in, first out. `data()` and the constructor are inverse.
    """

    def __init__(self, data: Sequence[bytes]):
        if any(one.endswith(b"\0") for one in data):  # constriction knows words of zero only
            raise FormatError("damaged stream: it ends in a zero byte, which no encoder writes")
        words = (np.frombuffer(one + bytes(-len(one) % 4), "<u4").astype(np.uint32) for one in data)
        stack = constriction.stream.stack.AnsCoder
        self._coders = [stack(some) if len(some) else stack() for some in words]

    def _parts(self, ends: Sequence[int]) -> list[tuple[constriction.stream.stack.AnsCoder, slice]]:
        return [(coder, slice(a, b)) for coder, a, b in zip(self._coders, [0, *ends], ends, strict=False) if a < b]

    def push(self, values: np.ndarray, mixture: Mixture, ends: Sequence[int]) -> None:
        """values: integers 0..255 [N], the distribution of each in `mixture`."""
        path = []

        def choose(step: int, p: np.ndarray) -> np.ndarray:
            upper = (values >> 7 - step & 1).astype(bool)
            path.append((upper.astype(np.int32), p))
            return upper

        mixture.decide(choose)
        parts = self._parts(ends)
        for upper, p in reversed(path):
            for coder, part in parts:
                coder.encode_reverse(upper[part], _BIT, p[part])

    def pop(self, mixture: Mixture, ends: Sequence[int]) -> np.ndarray:
        """The inverse of `push`: int64 [N]."""
        upper, parts = np.empty(len(mixture.means), bool), self._parts(ends)

        def choose(step: int, p: np.ndarray) -> np.ndarray:
            for coder, part in parts:
                upper[part] = coder.decode(_BIT, p[part])
            return upper

        return mixture.decide(choose)

    @property
    def empty(self) -> bool:
        return all(coder.is_empty() for coder in self._coders)

    def data(self) -> list[bytes]:
        """Little-endian words of each, without the zero bytes at the end."""
        return [coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0") for coder in self._coders]


def ideal_bits(values: np.ndarray, mixture: Mixture) -> np.ndarray:
    """Code length of each value: float64 [N]."""
    bits = np.zeros(len(values))

    def choose(step: int, p: np.ndarray) -> np.ndarray:
        upper = (values >> 7 - step & 1).astype(bool)
        bits[:] -= np.log2(np.where(upper, p, 1 - p))
        return upper

    mixture.decide(choose)
    return bits
