"""The basis of post-filters: what filters of single pictures have most in common."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..lossy import transform_precision
from ..networks.model import LossyVAE
from ..postfilter import FEATURES, REACH, Normal
from .encoded import Encoded

COUNT = 48
RIDGE = 0.02  # against the noise of a crop's own filter, where features are as large as the error


@torch.no_grad()
def fit_basis(network: LossyVAE, encoded: Encoded, count: int = COUNT) -> Tensor:
    """float32 count×3×FEATURES: the principal components of the best filters of encoded crops, in the metric in which features are white; a
    coefficient of 1 changes a picture by a squared error of one 8-bit level in the mean."""
    grams, targets, sizes = [], [], []
    for x, t, decoded in zip(encoded.x, encoded.t, encoded.decoded, strict=True):
        with transform_precision("cpu"):
            shown = network.synthesise(decoded[None].float().contiguous(memory_format=torch.channels_last), t[None])
        normal = Normal.empty()
        normal.add(F.pad(shown, [REACH] * 4, mode="replicate")[0], x.float() / 255, 1.0)
        error = (x.float() - 255 * shown[0].clamp(0, 1)).double().square().sum().clamp_min(x.numel() / 12)
        grams.append(normal.gram / error)
        targets.append(normal.target / error)
        sizes.append(normal.gram / x.numel())
    gram, target = torch.stack(grams), torch.stack(targets)
    mean = gram.mean(0)
    lower = torch.linalg.cholesky(mean + 1e-9 * mean.trace() / FEATURES * torch.eye(FEATURES, dtype=mean.dtype))
    white = torch.linalg.inv(lower)
    own = torch.linalg.solve(white @ gram @ white.T + RIDGE * torch.eye(FEATURES, dtype=mean.dtype), white @ target)
    components = torch.linalg.svd(own.flatten(1), full_matrices=False)[2][:count]
    basis = torch.einsum("fw,kfc->kcw", white, components.view(-1, FEATURES, 3))
    energy = torch.einsum("kcf,fg,kcg->k", basis, torch.stack(sizes).mean(0), basis)
    return (basis / energy.sqrt()[:, None, None]).float()
