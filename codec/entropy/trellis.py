"""Trellis-coded quantisation: offsets of latents <-> symbols (floor 1).

Two quantisers share a grid of unit step, each with every second point of it: one has 0, 1, 3, 5, … and -2, -4, …, the other
is its mirror image; both have zero. A state says which of them comes next, and the parity of each symbol, which is a
number of points from zero, leads to the next state. So symbols cost what those of a step of two units do, and the encoder,
which looks for the best path through the states, finds points nearly twice as dense: about 1 dB at high rates
(Marcellin and Fischer 1990; the eight states are those of dependent quantisation in video coding, Schwarz et al. 2019,
whose two quantisers differ in the probability of zero).

Mirroring makes symbols of both quantisers alike for a symmetric offset: their tables need no state. All symbols are read at once,
and the states follow from them, integers throughout.

A list of symbols is cut into lanes, so that few steps run one after the other: symbol i stands in lane i mod lanes, and each lane
begins in state 0.
"""

from __future__ import annotations

import numpy as np

STAGES = 256  # longest lane
NEXT = np.array([[0, 2], [5, 7], [1, 3], [6, 4], [2, 0], [4, 6], [3, 1], [7, 5]], np.intp)  # [state, parity]; odd states mirror
STATES = len(NEXT)

# Every state is reached in two ways, 0 and 1: from which state, by which parity. Way × state.
_FROM, _PARITY = np.array([[divmod(int(way), 2) for way in np.flatnonzero(NEXT.reshape(-1) == state)] for state in range(STATES)]).transpose(2, 1, 0)
_BRANCH = 2 * (_FROM & 1) + _PARITY  # row of `costs` in `search`
_IMPOSSIBLE = np.float32(1e30)


def points(symbols: np.ndarray) -> np.ndarray:
    """Where the symbols of the quantiser that is not mirrored stand on the grid."""
    return 2 * symbols - (symbols > 0)


def _lanes(values: np.ndarray, fill) -> np.ndarray:
    """[…, n] -> […, stages, lanes]."""
    count = values.shape[-1]
    lanes = max(1, -(-count // STAGES))
    stages = -(-count // lanes)
    padded = np.full((*values.shape[:-1], stages * lanes), fill, values.dtype)
    padded[..., :count] = values
    return padded.reshape(*values.shape[:-1], stages, lanes)


def mirrored(lists: list[np.ndarray]) -> list[np.ndarray]:
    """Lists of symbols (integers [n]) -> which of them belong to the mirrored quantiser: bool [n]."""
    parities = [_lanes(symbols & 1, 0) for symbols in lists]
    odd = np.zeros((max((len(p) for p in parities), default=0), sum(p.shape[1] for p in parities)), np.intp)
    ends = np.cumsum([p.shape[1] for p in parities]).tolist()
    for parity, end in zip(parities, ends, strict=True):
        odd[: len(parity), end - parity.shape[1] : end] = parity
    found = np.empty(odd.shape, bool)
    state, following = np.zeros(odd.shape[1], np.intp), NEXT.reshape(-1)
    for parity, out in zip(odd, found, strict=True):
        np.not_equal(state & 1, 0, out=out)
        state = following[2 * state + parity]
    return [
        found[: len(parity), end - parity.shape[1] : end].reshape(-1)[: len(symbols)]
        for symbols, parity, end in zip(lists, parities, ends, strict=True)
    ]


def offsets(lists: list[np.ndarray]) -> list[np.ndarray]:
    """Lists of symbols (integers [n]) -> where they stand on the grid: integers [n]."""
    return [np.where(mirror, -points(s), points(s)) for s, mirror in zip(lists, mirrored(lists), strict=True)]


def search(costs: list[np.ndarray]) -> list[np.ndarray]:
    """The cheapest path of each list (Viterbi 1967).

    costs: float32 [4, n]: of the best symbol of each kind at each place: even and odd ones of the quantiser that is not
    mirrored, then of the other. Returns the kinds on the path, 0..3: integers [n].
    """
    parts = [_lanes(cost, 0) for cost in costs]
    for cost, part in zip(costs, parts, strict=True):
        part.reshape(4, -1)[1::2, cost.shape[1] :] = _IMPOSSIBLE
    stages, lanes = max((p.shape[1] for p in parts), default=0), sum(p.shape[2] for p in parts)
    table = np.zeros((stages, 4, lanes), np.float32)
    table[:, 1::2] = _IMPOSSIBLE
    ends = np.cumsum([p.shape[2] for p in parts]).tolist()
    for part, end in zip(parts, ends, strict=True):
        table[: part.shape[1], :, end - part.shape[2] : end] = part.transpose(1, 0, 2)
    total = np.full((STATES, lanes), _IMPOSSIBLE, np.float32)
    total[0] = 0
    second = np.empty((stages, STATES, lanes), bool)  # which way led here
    ways, step = np.empty((2, STATES, lanes), np.float32), np.empty((2, STATES, lanes), np.float32)
    for branch, better in zip(table, second, strict=True):
        np.take(total, _FROM, 0, out=ways)
        np.take(branch, _BRANCH, 0, out=step)
        ways += step
        np.less(ways[1], ways[0], out=better)
        np.minimum(ways[0], ways[1], out=total)
    state, lane = total.argmin(0), np.arange(lanes)
    kinds = np.empty((stages, lanes), np.intp)
    before, branches = _FROM.reshape(-1), _BRANCH.reshape(-1)
    for better, out in zip(second[::-1], kinds[::-1], strict=True):
        way = state + STATES * better[state, lane]
        np.take(branches, way, out=out)
        state = before[way]
    return [
        kinds[: part.shape[1], end - part.shape[2] : end].reshape(-1)[: cost.shape[1]]
        for cost, part, end in zip(costs, parts, ends, strict=True)
    ]
