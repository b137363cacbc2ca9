"""Coders: one method, several behaviours.

`code(symbols, count, table)` passes `count` symbols of one table through and returns them. A writer takes the
symbols, a reader gets None and finds them, a counter adds up their code lengths. Whatever walks over the symbols
is therefore written once (see `code_grouped`).

The order of a queue: symbols are read in the order in which they were written.
"""

from __future__ import annotations

from typing import Protocol

import constriction
import numpy as np

from ..errors import FormatError
from .distributions import ESCAPE_BITS, Table

_LENGTHS = constriction.stream.model.Uniform(ESCAPE_BITS)
_UNIFORM = [None] + [constriction.stream.model.Uniform(1 << bits) for bits in range(1, ESCAPE_BITS + 1)]


class Coder(Protocol):
    def code(self, symbols: np.ndarray | None, count: int, table: Table) -> np.ndarray:
        """Pass `count` symbols (int32 [count]) of one table through."""


class QueueWriter:
    """Range encoder. `data()` gives the bytes written so far, without the zeros at their end."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def code(self, symbols: np.ndarray, count: int, table: Table) -> np.ndarray:
        coded, escaped = _fold(symbols, table)
        self._encoder.encode(coded, table.model)
        if len(escaped):
            lengths, low_bits = _split(escaped)
            self._encoder.encode(lengths, _LENGTHS)
            for length in range(1, ESCAPE_BITS):
                chosen = low_bits[lengths == length]
                if len(chosen):
                    self._encoder.encode(chosen, _UNIFORM[length])
        return symbols

    def data(self) -> bytes:
        return self._encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


class QueueReader:
    """Range decoder over bytes of a `QueueWriter`. Raises FormatError on data that no writer produces."""

    def __init__(self, data: bytes) -> None:
        words = np.frombuffer(data + bytes(-len(data) % 4), "<u4")
        self._decoder = constriction.stream.queue.RangeDecoder(words.astype(np.uint32))

    def code(self, symbols: None, count: int, table: Table) -> np.ndarray:
        try:
            coded = self._decoder.decode(table.model, count)
            found = coded + np.int32(table.low)
            if count and coded.max() == table.escape:  # none is larger
                places = np.flatnonzero(coded == table.escape)
                lengths = self._decoder.decode(_LENGTHS, len(places))
                values = np.left_shift(np.int32(1), lengths)
                for length in range(1, ESCAPE_BITS):
                    chosen = np.flatnonzero(lengths == length)
                    if len(chosen):
                        values[chosen] += self._decoder.decode(_UNIFORM[length], len(chosen))
                found[places] = _unfold(values, table)
        except (AssertionError, ValueError, OverflowError) as error:
            raise FormatError(f"entropy-coded data is damaged: {error}") from error
        return found


class BitCounter:
    """Adds up ideal code lengths; `bits` is what a writer would need, up to its last word."""

    def __init__(self) -> None:
        self.bits = 0.0

    def code(self, symbols: np.ndarray, count: int, table: Table) -> np.ndarray:
        self.bits += float(code_lengths(symbols, table).sum())
        return symbols


def code_lengths(symbols: np.ndarray, table: Table) -> np.ndarray:
    """Ideal code length in bits of each symbol (int32 [n]), escapes included: float64 [n]."""
    coded, escaped = _fold(symbols, table)
    bits = table.bits[coded]
    if len(escaped):
        lengths, _ = _split(escaped)
        bits[(symbols < table.low) | (symbols > table.high)] += np.log2(ESCAPE_BITS) + lengths
    return bits


def _fold(symbols: np.ndarray, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Symbols -> (coded values of the table, escape values ≥ 1 of those outside it: odd above, even below)."""
    outside = (symbols < table.low) | (symbols > table.high)
    coded = np.where(outside, np.int32(table.escape), symbols - np.int32(table.low)).astype(np.int32)
    far = symbols[outside]
    above = far > table.high
    return coded, np.where(above, 2 * (far - table.high) - 1, 2 * (table.low - far)).astype(np.int32)


def _unfold(values: np.ndarray, table: Table) -> np.ndarray:
    return np.where(values % 2 == 1, table.high + (values + 1) // 2, table.low - values // 2).astype(np.int32)


def _split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Elias-gamma parts of values ≥ 1: (floor(log2), bits below the leading one), both int32."""
    lengths = (np.frexp(values.astype(np.float64))[1] - 1).astype(np.int32)
    if len(lengths) and lengths.max() >= ESCAPE_BITS:
        raise ValueError(f"symbol too far outside its table: escape value {values.max()}")
    return lengths, values - np.left_shift(np.int32(1), lengths)


def code_grouped(coder: Coder, index: np.ndarray, tables: list[Table], symbols: np.ndarray | None) -> np.ndarray:
    """Code symbols whose tables differ: all symbols of one table together, tables in ascending order.

    index: integers [n], the table of each symbol; symbols: int32 [n], or None for a reader.
    Within a table the order of `index` is kept. Returns the symbols, int32 [n].
    """
    # numpy sorts small integers by radix, ten times faster.
    order = np.argsort(index.astype(np.min_scalar_type(len(tables))), kind="stable")
    counts = np.bincount(index, minlength=len(tables))
    result = np.empty(len(index), dtype=np.int32)
    start = 0
    for table, count in zip(tables, counts.tolist(), strict=True):
        if count:
            places = order[start : start + count]
            result[places] = coder.code(None if symbols is None else symbols[places], count, table)
            start += count
    return result


def grouped_lengths(symbols: np.ndarray, index: np.ndarray, tables: list[Table]) -> np.ndarray:
    """Ideal code length in bits of each symbol under the table of its index, float64, all of one shape."""
    bits = np.empty(symbols.shape)
    for number in np.unique(index):
        places = index == number
        bits[places] = code_lengths(symbols[places], tables[number])
    return bits
