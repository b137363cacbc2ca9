"""The networks of a lossy model under one roof; parameter names are the keys of model files."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LossyConfig
from .layers import RateTable, multiply
from .priors import SCALE_LEVELS, FactorisedPrior, HyperPrior, scale_to_index
from .transforms import PATCH, STRIDE, Analysis, Synthesis, start_convolutions, transforms


class LossyVAE(nn.Module):
    """Analysis, synthesis, gains and prior.

    A position t on the trade-off grid (0..rate_points-1, real) picks per-channel gains: gained latents
    y·gain(t) are quantised with unit steps, and divided by the inverse gain before synthesis
    (Cui et al. 2021, interpolated in the logarithm).
    """

    def __init__(self, config: LossyConfig):
        super().__init__()
        self.config = config
        self.analysis, self.synthesis = transforms(config)
        self.prior = HyperPrior(config) if config.prior == "hyperprior" else FactorisedPrior(config)
        lambdas = torch.tensor([self.trade_off(point) for point in range(config.rate_points)])
        # The high-resolution step of a transform coder at this trade-off: 0.02/sqrt(lambda) in pixel units.
        log_gain = (50 * lambdas.sqrt()).log()[:, None]
        self.log_gain = RateTable(config.rate_points, config.latent_channels, log_gain)
        self.log_inverse_gain = RateTable(config.rate_points, config.latent_channels, -log_gain)
        self.register_buffer("deviation", torch.ones(config.latent_channels))

    def trade_off(self, t: float) -> float:
        """Lambda at a position on the grid: bits a pixel worth spending per unit of MSE in 8-bit levels."""
        low, high = math.log(self.config.lambda_min), math.log(self.config.lambda_max)
        return math.exp(low + (high - low) * t / (self.config.rate_points - 1))

    def gain(self, t: Tensor) -> Tensor:
        return self.log_gain(t).exp()

    def unit(self, t: Tensor) -> Tensor:
        """Natural size of a gained latent: B×M×1×1."""
        return self.gain(t) * self.deviation[:, None, None]

    def analyse(self, x: Tensor, t: Tensor) -> Tensor:
        """x: B×3×H×W in [0, 1] -> gained latents B×M×H/16×W/16, float32."""
        return self.analysis(x, t) * self.gain(t)

    def synthesise(self, y: Tensor, t: Tensor) -> Tensor:
        """Gained latents -> x: B×3×H×W, float32, not clipped."""
        return self.synthesis(y * self.log_inverse_gain(t).exp(), y, t)

    def preview(self, y: Tensor, t: Tensor, reduce: int) -> Tensor:
        """Gained latents -> B×3×H/reduce×W/reduce: the means of squares of `reduce` pixels (8 or 16) of the linear path.

        Without a linear path, those of the whole synthesis.
        """
        if not isinstance(self.synthesis, Synthesis):
            return F.avg_pool2d(self.synthesise(y, t), reduce)
        # As pixel shuffle orders them: channel, row and column of a patch.
        weight = self.synthesis.linear.view(3, STRIDE, STRIDE, -1).permute(3, 0, 1, 2)
        weight = F.avg_pool2d(weight, reduce).flatten(1).T[:, :, None, None]
        return F.pixel_shuffle(multiply(y * self.log_inverse_gain(t).exp(), weight), STRIDE // reduce) + 0.5

    @torch.no_grad()
    def start_from_pca(self, patches: Tensor) -> None:
        """Start as a working transform coder. patches: N×3×16×16 in [0, 1] from the training images."""
        if isinstance(self.analysis, Analysis):
            flat = F.pixel_unshuffle(patches - 0.5, STRIDE).flatten(1).double()  # N×768
            second_moment = flat.T @ flat / len(flat)
            values, vectors = torch.linalg.eigh(second_moment)
            count = self.config.latent_channels
            assert count <= PATCH
            basis = vectors.flip(1)[:, :count].T.float()  # M×768, orthonormal rows, falling variance
            deviation = values.flip(0)[:count].clamp_min(1e-12).sqrt().float()
            self.analysis.linear.copy_(basis)
            self.synthesis.linear.copy_(basis.T)
        else:
            deviation = start_convolutions(self.analysis, self.synthesis, patches).clamp_min(1e-6)
        self.deviation.copy_(deviation)
        start = scale_to_index(deviation * self.log_gain.table.exp())
        self.prior.scale_offset.table.copy_(start.clamp(0, SCALE_LEVELS - 1))
