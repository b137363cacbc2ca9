"""From a trained network to a model file: counts of what it writes, a basis of post-filters, record of the training."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file

from .. import hyperlatents, weights
from ..container import QUALITY_MAX
from ..freeze import freeze, freeze_lossless
from ..networks.config import LossyConfig
from ..networks.exact import INPUT_MAX
from ..networks.hyper import LEVELS, PLACES, ExactHyperContext
from ..networks.lossless import LosslessVAE, fit_linear
from ..networks.model import LossyVAE
from ..networks.priors import SCALE_LEVELS, FactorisedPrior
from ..tables import COUNTED
from .encoded import Encoded, encode_crops
from .postfilter import fit_basis

if TYPE_CHECKING:
    from .loop import Trainer

CROPS = 1024  # of training images that are encoded to count symbols


def count_symbols(encoded: Encoded, network: LossyVAE) -> tuple[np.ndarray, np.ndarray]:
    """Occurrences in encoded crops, of residuals by scale level and of hyper-latents by table: as `freeze` wants them.

    Without hyper-context the table of a hyper-latent is that of the nearest rate point and the channel.
    """
    config, context = network.config, _exact_context(network)
    counts = np.zeros((SCALE_LEVELS, 2 * COUNTED + 1), dtype=np.int64)
    channels = np.arange(config.hyper_latent_channels)[:, None, None]
    tables = LEVELS * PLACES if context else config.rate_points * len(channels)
    hyper = np.zeros((tables, 2 * INPUT_MAX + 1), dtype=np.int64)
    for t, z, residuals, levels in zip(encoded.t, encoded.z, encoded.residuals, encoded.levels, strict=True):
        flat = levels.long() * counts.shape[1] + residuals.clamp(-COUNTED, COUNTED) + COUNTED
        counts += np.bincount(flat.flatten().numpy(), minlength=counts.size).reshape(counts.shape)
        z = z.numpy().astype(np.int32)
        if context:
            index, whole = hyperlatents.indices(context, _quality(float(t), config), z)
        else:
            index, whole = len(channels) * round(float(t)) + channels, 0
        flat = index * hyper.shape[1] + (z - whole).clip(-INPUT_MAX, INPUT_MAX) + INPUT_MAX
        hyper += np.bincount(flat.reshape(-1), minlength=hyper.size).reshape(hyper.shape)
    return counts, hyper


def _quality(t: float, config: LossyConfig) -> int:
    """Of a position on the trade-off grid."""
    return round(t / (config.rate_points - 1) * QUALITY_MAX)


def _exact_context(network: LossyVAE) -> ExactHyperContext | None:
    if not network.config.hyper_groups:
        return None
    return ExactHyperContext(network.config, network.prior.hyper_context.integers())


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
    """Write the averaged weights of a trainer as a model file. Raises ValueError if a network that picks tables is not exact yet."""
    network = LossyVAE(trainer.model.config)
    network.load_state_dict({name: value.cpu() for name, value in trainer.ema.items()})
    counts = basis = None
    if not isinstance(network.prior, FactorisedPrior):
        size = min(256, *(side // 64 * 64 for image in trainer.data.train for side in image.shape[1:]))
        most = min(CROPS, 16 * len(trainer.data.train))
        for crops in (most // 4, most):  # the search depends on the tables that are made of what it finds
            encoded = encode_crops(network, trainer.data, crops, size, trainer.config.seed + 1, flat=0.0, counts=counts)
            counts = count_symbols(encoded, network)
        basis = fit_basis(network, encoded)
    weights.save(freeze(network, counts=counts, basis=basis, training=_record(trainer)), Path(path))


def export_lossless(trainer: Trainer, path: str | Path) -> None:
    """Write the averaged weights of a lossless trainer as a model file, with a linear prediction for all pictures."""
    network = LosslessVAE(trainer.model.config)
    network.load_state_dict({name: value.cpu() for name, value in trainer.ema.items()})
    side = min(128, *(min(image.shape[1:]) for image in trainer.data.train))
    crops = [image[:, :side, :side].cpu() for image in trainer.data.train[::2]]
    coefficients = fit_linear(torch.cat(crops, 2)).numpy()
    weights.save(freeze_lossless(network, coefficients, training=_record(trainer)), Path(path))
