"""From a trained network to a model that codes: weights rounded, exact networks in integers, probability tables (floor 3).

A frozen model lies in memory. `weights.assemble` makes it ready to run, `weights.save` writes its file; what either gives
codes alike.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

from .entropy.mixtures import tables as mixture_tables
from .networks.exact import OUTPUT_STEP
from .networks.lossless import WEIGHT_GRID, LosslessVAE
from .networks.model import LossyVAE
from .networks.priors import FactorisedPrior, HyperPrior
from .tables import hyper_tables, latent_tables, pack_tables
from .weights import LAYOUT, LOSSLESS_LAYOUT, Frozen


def freeze(
    network: LossyVAE,
    *,
    counts: tuple[np.ndarray, np.ndarray] | None = None,
    basis: Tensor | None = None,
    training: dict | None = None,
) -> Frozen:
    """A lossy network as it is now; what is done to it later does not matter. Matrices become float16, vectors float32 (gains need it).

    counts: of residuals and of hyper-latents, as `latent_tables` and `hyper_tables` want them; None: tables by the network's
    own distributions. basis: of post-filters, float32 K×3×features; None: a model without. training: how it was trained,
    for the file. ValueError where a network that picks tables is not exact yet.
    """
    _require_exact(network)
    prior, of_latents, of_hyper = network.prior, *(counts or (None, None))
    tensors = {
        f"net.{key}": value.half() if value.ndim == 4 else value.float()
        for key, value in network.state_dict().items()
        if not key.startswith(("prior.scale_network.", "prior.hyper_context."))
    }
    tensors["table.scale_offset"] = (prior.scale_offset.table.detach() / OUTPUT_STEP).round().to(torch.int32)
    tensors["table.latents"], tensors["table.latents_ranges"] = pack_tables(latent_tables(network.config, of_latents))
    if not isinstance(prior, FactorisedPrior):
        tensors |= {f"scale.{key}": value for key, value in prior.scale_network.integers().items()}
        tensors["table.hyper"], tensors["table.hyper_ranges"] = pack_tables(hyper_tables(network, of_hyper))
    if network.config.hyper_groups:
        tensors |= {f"hyper.{key}": value for key, value in prior.hyper_context.integers().items()}
    if basis is not None:
        tensors["postfilter.basis"] = basis.float()
    return Frozen.of(tensors, _metadata(LAYOUT, network, training))


def freeze_lossless(network: LosslessVAE, coefficients: np.ndarray, *, training: dict | None = None) -> Frozen:
    """A lossless network as it is now, its weights as integers in WEIGHT_GRID.

    coefficients: the linear prediction of pictures that bring none of their own (`networks.lossless.fit_linear`).
    """
    tensors = {
        f"net.{key}": (value / WEIGHT_GRID).round().clamp(-(2**31), 2**31 - 1).to(torch.int32)
        for key, value in network.state_dict().items()
    }
    tensors |= {f"table.{name}": torch.from_numpy(table) for name, table in mixture_tables().items()}
    tensors["table.coefficients"] = torch.from_numpy(np.ascontiguousarray(coefficients, dtype=np.int16))
    return Frozen.of(tensors, _metadata(LOSSLESS_LAYOUT, network, training))


def _metadata(layout: str, network: LossyVAE | LosslessVAE, training: dict | None) -> dict[str, str]:
    return {"layout": layout, "config": json.dumps(network.config.to_dict()), "training": json.dumps(training or {})}


def _require_exact(network: LossyVAE) -> None:
    if not isinstance(network.prior, HyperPrior):
        return
    if float(network.prior.scale_network.layers[-1].step) == 0:
        raise ValueError("the scale network is not quantised yet: train with --phase scales first")
    if network.config.hyper_groups and float(network.prior.hyper_context.networks[0].layers[-1].step) == 0:
        raise ValueError("the hyper-context is not trained yet: train with --phase hyper first")
