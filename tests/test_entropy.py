"""Tables are exact, and every coder is the mirror of the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.entropy.coder import BitCounter, QueueReader, QueueWriter, code_grouped
from codec.entropy.distributions import PRECISION, TOTAL, Table, gaussian_weights, quantise
from codec.errors import FormatError


def gaussian_table(scale: float, reach: int) -> Table:
    return Table(-reach, quantise(gaussian_weights(scale, reach)))


TABLES = [gaussian_table(scale, reach) for scale, reach in ((0.1, 2), (0.7, 4), (3.0, 12), (40.0, 100))]


def check_round_trip(index: np.ndarray, symbols: np.ndarray, tables: list[Table]) -> bytes:
    """What a writer wrote a reader finds, and a counter counts it: the contract of a coder."""
    writer, counter = QueueWriter(), BitCounter()
    assert np.array_equal(code_grouped(writer, index, tables, symbols), symbols)
    code_grouped(counter, index, tables, symbols)
    data = writer.data()
    assert np.array_equal(code_grouped(QueueReader(data), index, tables, None), symbols)
    # The last words flush the state, at most two of 32 bits; zeros at the end are not kept.
    assert counter.bits - 64 <= 8 * len(data) <= counter.bits * 1.0001 + 64
    return data


def test_symbols_come_back_in_the_order_of_their_places(rng):
    index = rng.integers(0, len(TABLES), 5000)
    symbols = np.rint(rng.normal(0, np.array([0.1, 0.7, 3, 40])[index])).astype(np.int32)
    check_round_trip(index, symbols, TABLES)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-(2**18), 2**18)), max_size=40))
def test_symbols_far_outside_their_table_are_escaped(pairs):
    index = np.array([pair[0] for pair in pairs], dtype=np.int64)
    check_round_trip(index, np.array([pair[1] for pair in pairs], dtype=np.int32), TABLES)


def test_a_known_message_has_known_bytes():
    """Golden words: neither our tables nor constriction's coder may drift."""
    index = np.array([0, 1, 2, 3, 3, 2, 1, 0, 2, 2])
    symbols = np.array([0, -1, 4, 77, -400, 0, 1, 0, -3, 13], dtype=np.int32)
    assert check_round_trip(index, symbols, TABLES).hex() == GOLDEN_WORDS


GOLDEN_WORDS = "d06eaf3a5f10136e"


@pytest.mark.parametrize("frequency", [1, 2, 3, 1000, TOTAL // 3])
def test_constriction_codes_exactly_our_frequencies(frequency):
    """100 000 times the same symbol costs 100 000 times its code length: one unit of 2^24 more or less would show."""
    table = Table(-1, np.array([5, frequency, 1000, TOTAL - frequency - 1005], dtype=np.int64))
    writer = QueueWriter()
    writer.code(np.zeros(100_000, dtype=np.int32), 100_000, table)
    bits = 8 * len(writer.data())
    expected = 100_000 * (PRECISION - np.log2(frequency))
    # The coder itself loses about 10^-4 bits a symbol at 24-bit precision with a 64-bit state.
    assert expected <= bits <= expected * 1.00002 + 64


def test_quantised_frequencies_sum_to_the_total_and_none_is_zero():
    frequencies = quantise(np.array([1e-30, 0.0, 1.0, 3.0]))
    assert frequencies.sum() == TOTAL and frequencies.min() == 1
    assert frequencies[3] == pytest.approx(0.75 * TOTAL, rel=1e-6)


def test_gaussian_weights_are_a_distribution():
    weights = gaussian_weights(2.5, 9)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert np.allclose(weights[:-1], weights[:-1][::-1]) and len(weights) == 20


def test_a_table_that_does_not_sum_up_is_refused():
    with pytest.raises(ValueError, match="not a probability table"):
        Table(0, np.array([1, 2, 3]))


def test_noise_decodes_to_symbols_or_to_a_format_error(rng):
    for _ in range(50):
        reader = QueueReader(rng.bytes(63))
        try:
            found = code_grouped(reader, rng.integers(0, len(TABLES), 300), TABLES, None)
        except FormatError:
            continue
        assert found.dtype == np.int32 and np.abs(found).max() < 2**20
