"""Trellis-coded quantisation: the grid, the states, the search, and what it is for."""

import itertools

import numpy as np
import pytest

from codec.entropy import trellis


def mirrors(parities: list[int], states: int) -> list[int]:
    """Whether each symbol is mirrored: the recurrence, without states."""
    mirror, parity = ([j for j in range(1, 12) if polynomial >> j & 1] for polynomial in trellis.POLYNOMIALS[states])
    found: list[int] = []
    for i in range(len(parities)):
        found.append((sum(found[i - j] for j in mirror if j <= i) + sum(parities[i - j] for j in parity if j <= i)) % 2)
    return found


def test_both_quantisers_have_zero_and_together_every_point_of_the_grid():
    mine = trellis.points(np.arange(-4, 5))
    assert mine.tolist() == [-8, -6, -4, -2, 0, 1, 3, 5, 7]
    assert sorted({*mine.tolist(), *(-mine).tolist()}) == list(range(-8, 9))


def test_positions_by_hand():
    # The sum of the last three mirrors and the parity two before: 0, 0, then 1, 1 + 1, 1 + 1 + 0, 0 + 0 + 1, 1 + 0 + 0 + 0.
    symbols = np.array([1, 3, -1, 2, -2, 1, 1])
    assert trellis.mirrored([symbols], 8)[0].tolist() == [False, False, True, False, False, True, True]
    assert trellis.offsets([symbols], 8)[0].tolist() == [1, 5, 2, 3, -4, -1, -1]


@pytest.mark.parametrize("states", [8, 128])
def test_lanes_begin_anew(rng, states):
    """Symbol i of a list stands in lane i mod lanes, wherever else the list is decoded."""
    lists = [rng.integers(-3, 4, count) for count in (0, 1, 5, 256, 257, 1000)]
    together = trellis.offsets(lists, states)
    for symbols, found in zip(lists, together, strict=True):
        lanes = max(1, -(-len(symbols) // trellis.STAGES))
        for lane in range(lanes):
            alone = symbols[lane::lanes].tolist()
            for symbol, value, mirror in zip(alone, found[lane::lanes].tolist(), mirrors(alone, states), strict=True):
                point = 2 * symbol - (symbol > 0)
                assert value == (-point if mirror else point)


@pytest.mark.parametrize("states", [8, 128])
def test_search_finds_the_cheapest_path(rng, states):
    costs = [rng.random((4, count)).astype(np.float32) for count in (9, 1, 0, 7)]
    for cost, kinds in zip(costs, trellis.search(costs, states), strict=True):
        found = []
        for parities in itertools.product((0, 1), repeat=cost.shape[1]):
            path = [2 * mirror + parity for mirror, parity in zip(mirrors(parities, states), parities, strict=True)]
            found.append((float(cost[path, range(len(path))].sum()), path))
        assert kinds.tolist() == min(found)[1]


@pytest.mark.parametrize("states", [8, 128])
def test_the_decoder_sees_the_kinds_that_the_search_chose(rng, states, monkeypatch):
    monkeypatch.setattr(trellis, "_AT_ONCE", 5 * states)  # several groups of lanes
    costs = [rng.random((4, count)).astype(np.float32) for count in (3000, 10)]
    kinds = trellis.search(costs, states)
    for kind, mirror in zip(kinds, trellis.mirrored([kind & 1 for kind in kinds], states), strict=True):
        assert (mirror == (kind > 1)).all()


@pytest.mark.parametrize("scale, states, gain", [(1.0, 8, 0.5), (4.0, 8, 0.8), (4.0, 128, 1.0)])
def test_it_is_worth_its_while(rng, scale, states, gain):
    """Gaussian offsets at the bits of a uniform quantiser: less error, in dB, of 1.53 that any quantiser could win."""
    x = rng.normal(0, scale, 40_000)

    def entropy(symbols):
        share = np.unique(symbols, return_counts=True)[1] / len(symbols)
        return -(share * np.log2(share)).sum()

    uniform = np.round(x)
    for step in np.arange(0.5, 0.8, 0.01):
        costs, choices = [], []
        for v in (x / step, -x / step):
            near = np.where(v > 0.5, np.round((v + 1) / 2), np.round(v / 2)).astype(int)
            other = np.where(v > trellis.points(near), near + 1, near - 1)
            pair = np.stack([np.where(near & 1, other, near), np.where(near & 1, near, other)])
            choices.append(pair)
            costs.append((v - trellis.points(pair)) ** 2)
        kinds = trellis.search([np.concatenate(costs).astype(np.float32)], states)[0]
        symbols = np.concatenate(choices)[kinds, np.arange(len(x))]
        if entropy(symbols) < entropy(uniform):
            break
    else:
        pytest.fail("no step is as cheap")
    error = np.square(step * trellis.offsets([symbols], states)[0] - x).mean()
    assert 10 * np.log10(np.square(uniform - x).mean() / error) > gain
