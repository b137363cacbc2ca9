"""From a trained network to a model file: integers, probability tables, record of the training."""

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
from ..entropy.distributions import Table, gaussian_weights, quantise, trellis_weights
from ..networks.config import LossyConfig
from ..networks.exact import INPUT_MAX, OUTPUT_STEP
from ..networks.hyper import LEVELS, PLACES, ExactHyperContext, logistic_weights
from ..networks.lossless import LosslessVAE, fit_linear
from ..networks.model import LossyVAE
from ..networks.priors import SCALE_LEVELS, FactorisedPrior, HyperPrior, index_to_scale

if TYPE_CHECKING:
    from .encoded import Encoded
    from .loop import Trainer

# A table reaches this many deviations; what lies beyond is escaped.
REACH = 5.0
# Residuals up to this magnitude are counted one by one; the widest tables end there too.
COUNTED = 1024
CROPS = 1024  # of training images that are encoded to count symbols
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
        reach = min(max(2, int(np.ceil(REACH * scale / width))), COUNTED - 1)
        mass = trellis_weights(scale / config.trellis_step, reach) if trellis else gaussian_weights(scale, reach)
        if counts is not None:
            # A uniform quantiser's residuals are symmetric by assumption.
            found = counts[level] if trellis else counts[level] + counts[level][::-1]
            inside = found[COUNTED - reach : COUNTED + reach + 1]
            mass = PSEUDO_COUNT * mass + np.append(inside, found.sum() - inside.sum())
            mass /= mass.sum()
        tables.append(Table(-reach, quantise((1 - FLOOR) * mass + FLOOR / len(mass))))
    return tables


def count_symbols(encoded: Encoded, network: LossyVAE) -> tuple[np.ndarray, np.ndarray]:
    """Occurrences in encoded crops: of residuals by scale level, and of hyper-latents -INPUT_MAX..INPUT_MAX, less the whole number that
    they are counted from, by table: of hyper-context, or of the nearest rate point and the channel."""
    config, context = network.config, _exact_context(network)
    counts = np.zeros((SCALE_LEVELS, 2 * COUNTED + 1), dtype=np.int64)
    channels = np.arange(config.hyper_latent_channels)[:, None, None]
    hyper = np.zeros((LEVELS * PLACES if context else config.rate_points * len(channels), 2 * INPUT_MAX + 1), dtype=np.int64)
    for t, z, residuals, levels in zip(encoded.t, encoded.z, encoded.residuals, encoded.levels, strict=True):
        flat = levels.long() * counts.shape[1] + residuals.clamp(-COUNTED, COUNTED) + COUNTED
        counts += np.bincount(flat.flatten().numpy(), minlength=counts.size).reshape(counts.shape)
        z = z.numpy().astype(np.int32)
        index, whole = hyperlatents.indices(context, _quality(float(t), config), z) if context else (len(channels) * round(float(t)) + channels, 0)
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


@torch.no_grad()
def hyper_tables(network: LossyVAE, counts: np.ndarray | None = None) -> list[Table]:
    """The tables of p(z), corrected by how often each value occurred (`counts`, as `count_symbols` has them), cut where less than one part
    in 10^5 lies beyond."""
    prior, config = network.prior, network.config
    if config.hyper_groups:
        mass = np.stack([logistic_weights(table, INPUT_MAX)[:-1] for table in range(LEVELS * PLACES)])
    else:
        symbols = torch.arange(-INPUT_MAX, INPUT_MAX + 1, dtype=torch.float32)
        grid = symbols[None, None, :, None].expand(config.rate_points, config.hyper_latent_channels, -1, 1)
        mass = torch.exp2(-prior.z_bits(grid, torch.arange(config.rate_points).float())).flatten(0, 1)[:, :, 0].double().numpy()
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
    _require_exact(network)
    counts = basis = None
    if not isinstance(network.prior, FactorisedPrior):
        from .encoded import encode_crops
        from .postfilter import fit_basis

        size = min(256, *(side // 64 * 64 for image in trainer.data.train for side in image.shape[1:]))
        most = min(CROPS, 16 * len(trainer.data.train))
        for crops in (most // 4, most):  # the search depends on the tables that are made of what it finds
            encoded = encode_crops(network, trainer.data, crops, size, trainer.config.seed + 1, flat=0.0, counts=counts)
            counts = count_symbols(encoded, network)
        basis = fit_basis(network, encoded)
    save_network(network, path, _record(trainer), counts, basis)


def export_lossless(trainer: Trainer, path: str | Path) -> None:
    """Write the averaged weights of a lossless trainer as a model file, with a linear prediction for all pictures."""
    network = LosslessVAE(trainer.model.config)
    network.load_state_dict({name: value.cpu() for name, value in trainer.ema.items()})
    side = min(128, *(min(image.shape[1:]) for image in trainer.data.train))
    crops = [image[:, :side, :side].cpu() for image in trainer.data.train[::2]]
    coefficients = fit_linear(torch.cat(crops, 2))
    weights.save_lossless(Path(path), network=network, coefficients=coefficients.numpy(), training=_record(trainer))


def _require_exact(network: LossyVAE) -> None:
    if not isinstance(network.prior, HyperPrior):
        return
    if float(network.prior.scale_network.layers[-1].step) == 0:
        raise ValueError("the scale network is not quantised yet: train with --phase scales first")
    if network.config.hyper_groups and float(network.prior.hyper_context.networks[0].layers[-1].step) == 0:
        raise ValueError("the hyper-context is not trained yet: train with --phase hyper first")


def save_network(
    network: LossyVAE,
    path: str | Path,
    training: dict,
    counts: tuple[np.ndarray, np.ndarray] | None = None,
    basis: torch.Tensor | None = None,
) -> None:
    """Write a network as a model file, with its tables computed here; `counts` as `count_symbols` gives them, basis of post-filters
    as `postfilter.fit_basis` does."""
    _require_exact(network)
    prior = network.prior
    factorised = isinstance(prior, FactorisedPrior)
    weights.save(
        Path(path),
        network=network,
        scale_integers={} if factorised else prior.scale_network.integers(),
        scale_offset=(prior.scale_offset.table.detach() / OUTPUT_STEP).round().numpy(),
        latent_tables=latent_tables(network.config, counts and counts[0]),
        hyper_tables=[] if factorised else hyper_tables(network, counts and counts[1]),
        hyper_integers=prior.hyper_context.integers() if network.config.hyper_groups else {},
        training=training,
        postfilter=basis,
    )
