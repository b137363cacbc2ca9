"""Hyper-latents through a coder: which table codes each of them (floor 3).

In a model without hyper-context the tables of p(z) belong to the channel and to the rate point nearest to the quality; in one with it
(`networks/hyper.py`), to what is already decoded of the tile and to the quality.
"""

from __future__ import annotations

import numpy as np

from .container import QUALITY_MAX
from .entropy.coder import Coder, code_grouped, grouped_lengths
from .entropy.distributions import Table
from .errors import FormatError
from .networks.exact import INPUT_MAX
from .networks.hyper import RATES, ExactHyperContext
from .weights import LossyModel


def code(coder: Coder, model: LossyModel, quality: int, shape: tuple[int, int, int], z: np.ndarray | None) -> np.ndarray:
    """Pass the hyper-latents of a tile, int32 Cz×h×w, through a coder; None for a reader. Raises FormatError on what no encoder writes."""
    if model.hyper_context is None:
        given = None if z is None else z.reshape(-1)
        return _checked(code_grouped(coder, _channels(shape).reshape(-1), _tables(model, quality), given).reshape(shape))
    known = _nothing_but_rate(shape, quality)
    for step, place in enumerate(model.hyper_context.places(shape[1:])):
        index, whole = model.hyper_context.predict(step, known, place)
        given = None if z is None else (z[place] - whole).reshape(-1)
        # Checked in each step: what the next network is proved for is bounded.
        known[place] = _checked(code_grouped(coder, index.reshape(-1), model.hyper_tables, given).reshape(index.shape) + whole)
    return known[:-1]


def lengths(model: LossyModel, quality: int, z: np.ndarray) -> np.ndarray:
    """Code length of each hyper-latent of a tile, int32 Cz×h×w, in bits."""
    if model.hyper_context is None:
        return grouped_lengths(z, _channels(z.shape), _tables(model, quality))
    index, whole = indices(model.hyper_context, quality, z)
    return grouped_lengths(z - whole, index, model.hyper_tables)


def indices(context: ExactHyperContext, quality: int, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The table of each hyper-latent of a tile, int32 Cz×h×w, and the whole number that it is counted from."""
    index, whole, known = np.empty_like(z), np.empty_like(z), _nothing_but_rate(z.shape, quality)
    for step, place in enumerate(context.places(z.shape[1:])):
        index[place], whole[place] = context.predict(step, known, place)
        known[place] = z[place]
    return index, whole


def _checked(z: np.ndarray) -> np.ndarray:
    """A damaged stream may hold anything; what the exact networks are proved for is bounded."""
    if np.abs(z).max(initial=0) > INPUT_MAX:
        raise FormatError(f"hyper-latent {np.abs(z).max()} is out of range: the file is damaged")
    return z


def _nothing_but_rate(shape: tuple[int, int, int], quality: int) -> np.ndarray:
    """What is known at first of Cz×h×w hyper-latents, and one channel more."""
    known = np.zeros((shape[0] + 1, *shape[1:]), np.int32)
    known[-1] = (2 * RATES * quality + QUALITY_MAX) // (2 * QUALITY_MAX)
    return known


def _channels(shape: tuple[int, ...]) -> np.ndarray:
    """The channel of each element."""
    return np.broadcast_to(np.arange(shape[0])[:, None, None], shape)


def _tables(model: LossyModel, quality: int) -> list[Table]:
    """Those of the nearest rate point, halves up: they are not interpolated."""
    point = (2 * quality * (model.config.rate_points - 1) + QUALITY_MAX) // (2 * QUALITY_MAX)
    count = model.config.hyper_latent_channels
    return model.hyper_tables[point * count : (point + 1) * count]
