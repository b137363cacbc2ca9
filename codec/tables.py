"""Probability tables of a lossy model: made of counts, and as a model file holds them (floor 2)."""

from __future__ import annotations

import numpy as np
import torch

from .entropy.distributions import Table, gaussian_weights, quantise, trellis_weights
from .networks.config import LossyConfig
from .networks.exact import INPUT_MAX
from .networks.hyper import LEVELS, PLACES, logistic_weights
from .networks.model import LossyVAE
from .networks.priors import SCALE_LEVELS, index_to_scale

# A table of residuals reaches this many deviations; what lies beyond is escaped.
DEVIATIONS = 5.0
# Residuals up to this magnitude are counted one by one; the widest tables end there too.
COUNTED = 1024
# Weight of the Gaussian, and of p(z), against real counts, in occurrences.
PSEUDO_COUNT, HYPER_PSEUDO_COUNT = 1000.0, 200.0
# Share of a wide uniform-like component mixed into every table: keeps surprises affordable.
FLOOR = 1e-5


def latent_tables(config: LossyConfig, counts: np.ndarray | None = None) -> list[Table]:
    """One table a scale level: a discretised Gaussian, corrected by how often each residual really occurred.

    counts: [SCALE_LEVELS, 2·COUNTED + 1] occurrences of the residuals -COUNTED..COUNTED on training images.
    Real residuals have a sharper peak and heavier tails than a Gaussian of the best scale: 1–2 % of the bits.
    """
    tables = []
    for level, scale in enumerate(index_to_scale(torch.arange(SCALE_LEVELS, dtype=torch.float64)).tolist()):
        trellis = config.trellis_step > 0 and level >= config.trellis_level
        width = 2 * config.trellis_step if trellis else 1.0
        reach = min(max(2, int(np.ceil(DEVIATIONS * scale / width))), COUNTED - 1)
        mass = trellis_weights(scale / config.trellis_step, reach) if trellis else gaussian_weights(scale, reach)
        if counts is not None:
            # A uniform quantiser's residuals are symmetric by assumption.
            found = counts[level] if trellis else counts[level] + counts[level][::-1]
            inside = found[COUNTED - reach : COUNTED + reach + 1]
            mass = PSEUDO_COUNT * mass + np.append(inside, found.sum() - inside.sum())
            mass /= mass.sum()
        tables.append(Table(-reach, quantise((1 - FLOOR) * mass + FLOOR / len(mass))))
    return tables


@torch.no_grad()
def hyper_tables(network: LossyVAE, counts: np.ndarray | None = None) -> list[Table]:
    """The tables of p(z), corrected by how often each value occurred, cut where less than one part in 10^5 lies beyond.

    counts: [tables, 2·INPUT_MAX + 1] occurrences of the hyper-latents -INPUT_MAX..INPUT_MAX, less the whole number that
    they are counted from. Tables: of hyper-context, LEVELS·PLACES; without it, one a rate point and channel.
    """
    prior, config = network.prior, network.config
    if config.hyper_groups:
        mass = np.stack([logistic_weights(table, INPUT_MAX)[:-1] for table in range(LEVELS * PLACES)])
    else:
        symbols = torch.arange(-INPUT_MAX, INPUT_MAX + 1, dtype=torch.float32)
        grid = symbols[None, None, :, None].expand(config.rate_points, config.hyper_latent_channels, -1, 1)
        bits = prior.z_bits(grid, torch.arange(config.rate_points).float())
        mass = torch.exp2(-bits).flatten(0, 1)[:, :, 0].double().numpy()
    if counts is not None:
        mass = HYPER_PSEUDO_COUNT * mass + counts
    tables = []
    for row in mass:
        inside = np.flatnonzero(row > 1e-5 * row.max())
        low, high = int(inside[0]), int(inside[-1])
        kept = row[low : high + 1]
        tail = max(float(row.sum() - kept.sum()), FLOOR * float(row.sum()))
        tables.append(Table(low - INPUT_MAX, quantise(np.append(kept, tail))))
    return tables


def pack_tables(tables: list[Table]) -> tuple[torch.Tensor, torch.Tensor]:
    """As a model file holds them: frequencies, int32, of one table after the other; ranges: int32 [tables, 2], lowest symbol and
    number of entries of each."""
    frequencies = np.concatenate([table.frequencies for table in tables]).astype(np.int32)
    ranges = np.array([(table.low, len(table.frequencies)) for table in tables], dtype=np.int32)
    return torch.from_numpy(frequencies), torch.from_numpy(ranges)


def unpack_tables(frequencies: torch.Tensor, ranges: torch.Tensor) -> list[Table]:
    """Inverse of `pack_tables`. ValueError where they are no tables."""
    ranges = ranges.numpy()
    ends = np.cumsum(ranges[:, 1])
    pieces = np.split(frequencies.numpy().astype(np.int64), ends[:-1])
    return [Table(int(low), piece) for low, piece in zip(ranges[:, 0], pieces, strict=True)]
