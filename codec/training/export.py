"""From a trained network to a model file: integers, probability tables, record of the training."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from .. import weights
from ..entropy.distributions import Table, gaussian_weights, quantise
from ..networks.exact import INPUT_MAX, OUTPUT_STEP
from ..networks.model import LossyVAE
from ..networks.priors import SCALE_LEVELS, FactorisedPrior, index_to_scale
from .loop import Trainer

# A table reaches this many deviations; what lies beyond is escaped.
REACH = 5.0
# Share of a wide uniform-like component mixed into every table: keeps surprises affordable.
FLOOR = 1e-5


def latent_tables() -> list[Table]:
    """Discretised Gaussians on the ladder of scales."""
    tables = []
    for scale in index_to_scale(torch.arange(SCALE_LEVELS, dtype=torch.float64)).tolist():
        reach = max(2, int(np.ceil(REACH * scale)))
        mass = gaussian_weights(scale, reach)
        tables.append(Table(-reach, quantise((1 - FLOOR) * mass + FLOOR / len(mass))))
    return tables


@torch.no_grad()
def hyper_tables(network: LossyVAE) -> list[Table]:
    """p(z) at each rate point and channel, cut where less than one part in 10^5 lies beyond."""
    prior = network.prior
    tables = []
    symbols = torch.arange(-INPUT_MAX, INPUT_MAX + 1, dtype=torch.float32)
    for point in range(network.config.rate_points):
        t = torch.tensor([float(point)])
        grid = symbols[None, None, :, None].expand(1, network.config.hyper_latent_channels, -1, 1)
        mass = torch.exp2(-prior.z_bits(grid, t))[0, :, :, 0].double().numpy()  # Cz×symbols
        for row in mass:
            inside = np.flatnonzero(row > 1e-5 * row.max())
            low, high = int(inside[0]), int(inside[-1])
            kept = row[low : high + 1]
            tail = max(float(row.sum() - kept.sum()), FLOOR * float(row.sum()))
            tables.append(Table(low - INPUT_MAX, quantise(np.append(kept, tail))))
    return tables


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=True
        )
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _record(trainer: Trainer) -> dict:
    """Who trained this: commit, number of images, and every run with its settings; folders by name only."""
    runs = [{key: value for key, value in run.items() if key not in ("out", "init")} for run in trainer.history_now()]
    return {
        "commit": _commit(),
        "images": len(trainer.data.train),
        "runs": [{**run, "data": Path(run["data"]).name} for run in runs],
    }


def snapshot(trainer: Trainer, path: str | Path) -> None:
    """Write the averaged weights alone, in half precision, for a later run to continue from (--init)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (value.half() if value.ndim == 4 else value.float()).cpu().contiguous() for name, value in trainer.ema.items()
    }
    metadata = {"config": json.dumps(trainer.model.config.to_dict()), "history": json.dumps(_record(trainer)["runs"])}
    save_file(tensors, path, metadata=metadata)
    path.chmod(0o644)


def export(trainer: Trainer, path: str | Path) -> None:
    """Write the averaged weights of a trainer as a model file. Raises ValueError if the scale network is not exact yet."""
    network = LossyVAE(trainer.model.config)
    network.load_state_dict({name: value.cpu() for name, value in trainer.ema.items()})
    save_network(network, path, _record(trainer))


def save_network(network: LossyVAE, path: str | Path, training: dict) -> None:
    """Write a network as a model file, with its tables computed here."""
    prior = network.prior
    factorised = isinstance(prior, FactorisedPrior)
    if not factorised and float(prior.scale_network.layers[-1].step) == 0:
        raise ValueError("the scale network is not quantised yet: train with --phase scales first")
    weights.save(
        Path(path),
        network=network,
        scale_integers={} if factorised else prior.scale_network.integers(),
        scale_offset=(prior.scale_offset.table.detach() / OUTPUT_STEP).round().numpy(),
        latent_tables=latent_tables(),
        hyper_tables=[] if factorised else hyper_tables(network),
        training=training,
    )
