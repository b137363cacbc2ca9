"""Quantisation: offsets of latents from their means <-> the symbols that a file holds (floor 3).

The offset of a latent is coded as a symbol k that stands for o(k). A model with a uniform quantiser has o(k) = k. One with a
trellis has o(k) on the grid of `entropy/trellis.py` where the scale level says that a symbol is likely to be anything but
zero; the rest, and what is left of them in number is most, have o(k) = k there too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .entropy import trellis
from .networks.config import LossyConfig
from .networks.priors import SCALE_LEVELS, step_places

SYMBOL_MAX = 1 << 18  # largest symbol magnitude that is coded
FAR = 3.0  # off the trellis: what lies further from its mean is missed no more than that, when nothing is sent for it
REACH = 255  # symbols further out cost as much as this one when they are compared


def choose(
    offset: Tensor, levels: Tensor, curvature: Tensor, lengths: Tensor | None, config: LossyConfig, tile: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Symbols k that minimise lengths[level, k] + h (offset - o(k))², and their o(k), of the latents of one step.

    offset, float32, and levels, uint8: places×channels×rows×columns, with any dimensions before them; curvature: h, the same
    or with sides of 1. lengths: tables×(2·REACH + 1), weighted code lengths; None: nothing but the error counts. tile: which
    tile each latent belongs to, None for one tile. Candidates are the nearest symbols, the next ones and zero.
    """
    # Channels last, as they are in memory; this is the order of the trellis too.
    offset, levels, curvature = (values.movedim(-3, -1) for values in (offset, levels, curvature))
    shape, flat = offset.shape, offset.reshape(-1)
    level, curvature = levels.reshape(-1), curvature.expand(shape).reshape(-1)
    symbols = flat.round().clamp_(-SYMBOL_MAX, SYMBOL_MAX)
    if lengths is not None:
        places = ((symbols != 0) & (level < first_level(config))).nonzero()[:, 0]  # most are zero
        near, exact, weight = symbols[places], flat[places], curvature[places]
        row = level[places].long() * (2 * REACH + 1) + REACH
        flat_lengths = lengths.view(-1)
        coded, cost = _cheapest(exact, weight, row, flat_lengths, (near - near.sign(), near))
        nothing = weight * exact.clamp(-FAR, FAR).square() + flat_lengths[row]
        symbols[places] = torch.where(nothing <= cost, torch.zeros_like(near), coded)
    values = symbols.clone()
    if config.trellis_step:
        places = (level >= first_level(config)).nonzero()[:, 0]
        counts = [len(places)]
        if tile is not None:
            owner = tile.movedim(-3, -1).reshape(-1)[places]
            places, counts = places[owner.argsort(stable=True)], owner.bincount().tolist()
        row = level[places].long() * (2 * REACH + 1) + REACH
        weight = curvature[places] * config.trellis_step**2
        found, grid = _along_trellis(flat[places] / config.trellis_step, weight, row, lengths, counts, config.trellis_states)
        symbols[places], values[places] = found, grid * config.trellis_step
    return tuple(found.view(shape).movedim(-1, -3) for found in (symbols, values))


def offsets(symbols: np.ndarray, levels: np.ndarray, config: LossyConfig) -> np.ndarray:
    """The o(k) of the symbols of a tile, int32 [M, h, w], whose levels are uint8 [M, h, w]: float32 [M, h, w]."""
    values = symbols.astype(np.float32)
    if config.trellis_step:
        places = list(_trellis_places(levels, config))
        lists = trellis.offsets([symbols.reshape(-1)[at] for at in places], config.trellis_states)
        for at, grid in zip(places, lists, strict=True):
            values.reshape(-1)[at] = grid.astype(np.float32) * np.float32(config.trellis_step)
    return values


def first_level(config: LossyConfig) -> int:
    """The lowest scale level that goes along the trellis."""
    return config.trellis_level if config.trellis_step else SCALE_LEVELS


def _trellis_places(levels: np.ndarray, config: LossyConfig) -> Iterator[np.ndarray]:
    """For each step: which latents of a tile, flat, are on its trellis, in order."""
    likely = levels.reshape(-1) >= first_level(config)
    for order in _orders(config.context_steps, levels.shape):
        yield order[likely[order]]


@lru_cache(maxsize=4)
def _orders(steps: int, shape: tuple[int, int, int]) -> list[np.ndarray]:
    """For each step the numbers of its latents, flat, in the order of the trellis."""
    number = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    return [
        np.concatenate([number[place].transpose(1, 2, 0).reshape(-1) for place in places])
        for places in step_places(steps, shape[0])
    ]


def _cheapest(
    offset: Tensor, weight: Tensor, row: Tensor, lengths: Tensor | None, candidates: tuple[Tensor, ...], points=lambda symbols: symbols
) -> tuple[Tensor, Tensor]:
    """The best of the candidates and its cost, each [n]; of equals the first. row: where lengths have the zero of its table."""
    best = least = None
    for symbol in candidates:
        cost = weight * (offset - points(symbol)).square()
        if lengths is not None:
            cost += lengths[row + symbol.clamp(-REACH, REACH).long()]
        if best is None:
            best, least = symbol, cost
        else:
            best, least = torch.where(cost < least, symbol, best), torch.minimum(cost, least)
    return best, least


def _along_trellis(
    x: Tensor, weight: Tensor, row: Tensor, lengths: Tensor | None, counts: list[int], states: int
) -> tuple[Tensor, Tensor]:
    """Symbols and points on the grid for offsets x in units of the grid, [n]: lists of `counts`, one after the other."""
    lengths = None if lengths is None else lengths.view(-1)
    symbols, costs = [], []
    zero = torch.zeros_like(x)
    cost_of_zero = _cheapest(x, weight, row, lengths, (zero,))[1]
    for v in (x, -x):
        near = torch.where(v > 0.5, (v + 1) / 2, v / 2).round_().clamp_(-SYMBOL_MAX, SYMBOL_MAX)
        cost = _cheapest(v, weight, row, lengths, (near,), _points)[1]
        other, cost_of_other = _cheapest(v, weight, row, lengths, (near - 1, near + 1), _points)
        odd = near.remainder(2) != 0
        even, cost_of_even = torch.where(odd, other, near), torch.where(odd, cost_of_other, cost)
        symbols += [torch.where(cost_of_zero < cost_of_even, zero, even), torch.where(odd, near, other)]
        costs += [torch.minimum(cost_of_zero, cost_of_even), torch.where(odd, cost, cost_of_other)]
    table = torch.stack(costs).cpu().numpy()
    ends = np.cumsum([0, *counts])
    kinds = trellis.search([table[:, start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)], states)
    kind = torch.from_numpy(np.concatenate(kinds)).to(x.device)
    found = torch.stack(symbols).gather(0, kind[None])[0]
    return found, torch.where(kind > 1, -_points(found), _points(found))


def _points(symbols: Tensor) -> Tensor:
    """`trellis.points`."""
    return 2 * symbols - (symbols > 0).to(symbols.dtype)
