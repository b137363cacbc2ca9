"""The objective: the β-ELBO of the lossy model, as a pure function.

With a Gaussian p(x|z) of variance β/2 the negative β-ELBO is, up to a constant, R + λ·D with λ = 1/β:
rate in bits a pixel, distortion as mean squared error in 8-bit levels. Additive uniform noise stands for
quantisation in the rate; reconstruction and context see rounded latents with straight-through gradients.

Straight-through gradients take the slope of D at a symbol ŷ for its slope at y. Where D is a parabola of curvature 2h they
lack 2h(y - ŷ): for all latents that are best in an interval of length one, the slope is negative below the threshold
and positive above it, and they pile up there, their symbols left to chance. `commitment` gives the difference back (it looks like
the commitment loss of VQ-VAE, van den Oord et al. 2017, and there it keeps codes from drifting).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..networks.exact import INPUT_MAX, OUTPUT_STEP, round_through
from ..networks.model import LossyVAE
from ..networks.priors import FactorisedPrior, gaussian_bits, symbol_bits
from ..networks.transforms import PATCH, RESPONSE, STRIDE
from ..walk import walk_latents

# The bits of a picture grow about like λ^0.55; weighting by its inverse lets a per cent of every rate be heard alike.
WEIGHT_EXPONENT = -0.55


def uniform_noise(x: Tensor) -> Tensor:
    return torch.rand_like(x) - 0.5


def estimate(
    model: LossyVAE, x: Tensor, t: Tensor, *, noisy: bool = True, scales: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Reconstructions, code lengths and quantisation errors of pictures x: B×3×H×W in [0, 1], sides multiples of 64, at grid positions t: B.

    Returns B×3×H×W, not clipped; the bits of each latent: "y" B×M×h×w and, with a hyperprior, "z" B×Cz×h/4×w/4; and what
    rounding takes from the gained latents, B×M×h×w, a function of the analysis alone. With `noisy=False` bits are those of the
    rounded symbols. scales: an integer network, in place of the one that is trained.
    """
    prior = model.prior
    y = model.analyse(x, t)
    bits: dict[str, Tensor] = {}
    if isinstance(prior, FactorisedPrior):
        y_hat, means = round_through(y), torch.zeros_like(y)
        index = prior.scale_index(y.shape, t)
    else:
        z = prior.infer(y)
        z_hat = round_through(z)
        bits["z"] = prior.z_bits(z + uniform_noise(z) if noisy else z_hat, t)
        index = prior.scale_index(z_hat, t) if scales is None else prior.scale_offset(t) + scales(z_hat) * OUTPUT_STEP
        y_hat, means = walk_latents(
            prior, prior.features(z_hat, t), model.unit(t), lambda take, mean: round_through(take(y) - mean) + mean
        )
    residual = y - means + uniform_noise(y) if noisy else y_hat - means
    bits["y"] = gaussian_bits(residual, index)
    return model.synthesise(y_hat, t), bits, y - y_hat.detach()


def commitment(model: LossyVAE, lost: Tensor, t: Tensor) -> Tensor:
    """What straight-through gradients leave out, as squared error in 8-bit levels a sample: B values.

    lost: what rounding takes from the gained latents, B×M×h×w.
    """
    inverse_gain = model.log_inverse_gain(t).exp().detach()
    return RESPONSE[model.config.transform] * 255**2 / PATCH * (inverse_gain * lost).square().sum(1).mean((1, 2))


def rate_distortion(model: LossyVAE, x: Tensor, t: Tensor, *, noisy: bool = True) -> dict[str, Tensor]:
    """R and D of pictures x: B×3×H×W in [0, 1] at grid positions t: B.

    Returns per-picture tensors of B values: `loss` (weighted R + λD), `bpp`, `hyper_bpp`, `mse` (8-bit levels²).
    With `noisy=False` the rate is that of the rounded symbols: the training estimate of the real file. Otherwise the loss
    includes the commitment.
    """
    pixels = x.shape[2] * x.shape[3]
    reconstruction, lengths, lost = estimate(model, x, t, noisy=noisy)
    hyper_bits = lengths["z"].sum((1, 2, 3)) if "z" in lengths else torch.zeros(len(x), device=x.device)
    bits = lengths["y"].sum((1, 2, 3)) + hyper_bits
    mse = 255**2 * (reconstruction - x).square().mean((1, 2, 3))
    trade_off = torch.tensor([model.trade_off(value) for value in t.tolist()], device=x.device)
    bpp = bits / pixels
    distortion = mse + commitment(model, lost, t) if noisy else mse
    loss = (bpp + trade_off * distortion) * trade_off**WEIGHT_EXPONENT
    return {"loss": loss, "bpp": bpp, "hyper_bpp": hyper_bits / pixels, "mse": mse}


def scale_rate(model: LossyVAE, z: Tensor, residuals: Tensor, levels: Tensor, t: Tensor) -> dict[str, Tensor]:
    """R alone, of symbols that are given, with the levels that they were coded at: what fitting the scale network needs.

    Returns per-picture `loss` (R, weighted as in `rate_distortion`) and `bpp`.
    """
    bits = symbol_bits(residuals, model.prior.scale_index(z, t), levels, model.config).sum((1, 2, 3))
    bpp = bits / (residuals.shape[2] * residuals.shape[3] * STRIDE**2)
    weight = torch.tensor([model.trade_off(value) ** WEIGHT_EXPONENT for value in t.tolist()], device=bits.device)
    return {"loss": bpp * weight, "bpp": bpp}


def hyper_rate(model: LossyVAE, x: Tensor, t: Tensor) -> dict[str, Tensor]:
    """R of the hyper-latents alone, given what is decoded of them: what training the hyper-context needs.

    Returns per-picture `loss`, R in bits a pixel, and the same as `bpp`.
    """
    with torch.no_grad():
        z = model.prior.infer(model.analyse(x, t)).round().clamp(-INPUT_MAX, INPUT_MAX)
    bpp = model.prior.hyper_context.bits(z, t) / (x.shape[2] * x.shape[3])
    return {"loss": bpp, "bpp": bpp}


def synthesis_distortion(model: LossyVAE, x: Tensor, decoded: Tensor, t: Tensor) -> dict[str, Tensor]:
    """D alone, of gained latents that are given: what training the synthesis network needs.

    Returns per-picture `loss` (the logarithm of the MSE, which is PSNR, levelled off at perfect pictures) and `mse`.
    """
    mse = 255**2 * (model.synthesise(decoded, t) - x).square().mean((1, 2, 3))
    return {"loss": (mse + 1).log(), "mse": mse}
