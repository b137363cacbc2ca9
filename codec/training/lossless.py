"""Lossless training: crops with the neighbourhoods they need, and the negative ELBO in bits a subpixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks import lossless as net
from ..networks.lossless import LosslessVAE
from .data import ImageFolder
from .loop import Trainer

KL_WARMUP = 2000  # steps


def _with_prediction(image: Tensor) -> tuple[Tensor, Tensor]:
    """Canvases of a picture 3×H×W uint8 (uint8) and of its linear prediction in 1/16 of a level (int16)."""
    pixels = image.double()
    padded = net.canvas(pixels)
    base = net.predict_linear(net.neighbours_of(padded[None], net.LINEAR), net.fit_linear(pixels))
    # In the margins the prediction is what is there: residuals are zero.
    padded_base = padded * net.BASE_STEPS
    padded_base[:, net.MARGIN_TOP :, net.MARGIN_LEFT : -net.MARGIN_RIGHT] = base.T.reshape(pixels.shape)
    return padded.to(torch.uint8), padded_base.to(torch.int16)


class PixelFolder:
    """Canvases of pixel-exact pictures and of their linear predictions, to cut crops from."""

    def __init__(self, images: list[Tensor]):
        self.train = images
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            self.pictures = list(pool.map(_with_prediction, images))
        areas = torch.tensor([image.shape[1] * image.shape[2] for image in images], dtype=torch.float64)
        self.weights = (areas / areas.sum()).numpy()

    def crop(self, index: int, top: int, left: int, size: int) -> tuple[Tensor, Tensor]:
        """Canvas crops for `size`² pixels: levels and predictions in levels, both float32."""
        window = (slice(None), slice(top, top + size + net.MARGIN_TOP), slice(left, left + size + 6))
        pixels, base = self.pictures[index]
        return pixels[window].float(), base[window].float() / net.BASE_STEPS

    def crops(self, count: int, size: int, rng) -> Tensor:
        """count×2×3×(size+4)×(size+6): levels and predictions."""
        batch = []
        for index in rng.choice(len(self.pictures), count, p=self.weights):
            _, height, width = self.pictures[index][0].shape
            top = int(rng.integers(height - net.MARGIN_TOP - size + 1))
            left = int(rng.integers(width - 6 - size + 1))
            batch.append(torch.stack(self.crop(int(index), top, left, size)))
        return torch.stack(batch)


def logistic_log_density(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log2 of the density of a logistic."""
    t = (z - mean) * torch.exp2(-log_scale)
    return (F.logsigmoid(t) + F.logsigmoid(-t)) / math.log(2) - log_scale


def negative_elbo(model: LosslessVAE, batch: Tensor, kl_weight: Tensor | float = 1.0) -> dict[str, Tensor]:
    """batch: B×2×3×(H+4)×(W+6), levels and linear predictions on canvases.

    Returns per-picture tensors in bits a subpixel: `loss`, `bpsp` (−ELBO), `kl`.
    """
    levels, base = batch[:, 0], batch[:, 1]
    count, _, height, width = levels.shape
    height, width = height - net.MARGIN_TOP, width - 6
    inner = (slice(None), slice(None), slice(net.MARGIN_TOP, None), slice(net.MARGIN_LEFT, -net.MARGIN_RIGHT))
    residual = levels - base
    x = levels[inner].permute(0, 2, 3, 1).reshape(-1, 3)
    flat_base = base[inner].permute(0, 2, 3, 1).reshape(-1, 3)
    features, scale, _ = net.features_of(
        net.neighbours_of(levels), net.neighbours_of(residual, net.RESIDUALS), flat_base
    )
    z_pixels, kl = None, torch.zeros(count)
    if model.config.latent_channels:
        rows, columns = height // net.BLOCK, width // net.BLOCK
        blocks = residual[inner].unflatten(3, (columns, net.BLOCK)).unflatten(2, (rows, net.BLOCK))
        blocks = blocks.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, net.BLOCK, net.BLOCK)
        mean, log_scale = model.infer(blocks).float().chunk(2, 1)
        log_scale = log_scale.clamp(*net.LOG_SCALE_Q)
        noise = torch.rand_like(mean).clamp(1e-6, 1 - 1e-6).logit()
        z = mean + torch.exp2(log_scale) * noise
        grid = F.pad(z.unflatten(0, (count, rows, columns)), (0, 0, 1, 1, 1, 0))  # zeros outside
        earlier = [grid[:, 1:, :-2], grid[:, :-1, 1:-1], grid[:, :-1, 2:]]
        p_mean, p_log_scale = model.prior(torch.cat(earlier, 3).flatten(0, 2)).float().chunk(2, 1)
        log_ratio = logistic_log_density(z, mean, log_scale) - logistic_log_density(z, p_mean, p_log_scale.clamp(*net.LOG_SCALE_P))
        kl = log_ratio.sum(1).reshape(count, -1).sum(1) / (3 * height * width)
        z_pixels = model.from_latents(z.unflatten(0, (count, rows, columns)))
        z_pixels = z_pixels.repeat_interleave(net.BLOCK, 1).repeat_interleave(net.BLOCK, 2).flatten(0, 2)
    h = model.trunk(features, z_pixels)
    bits = torch.zeros(len(x))
    for k, channel in enumerate(net.ORDER):
        before = list(net.ORDER[:k])
        known = (x[:, before] - flat_base[:, before]) / scale
        out = model.head(k, h, known).float()
        bits = bits + net.logistic_bits(x[:, channel], out, flat_base[:, channel], scale[:, 0])
    likelihood = bits.reshape(count, -1).sum(1) / (3 * height * width)
    return {"loss": likelihood + kl_weight * kl, "bpsp": likelihood + kl, "kl": kl}


class LosslessTrainer(Trainer):
    """One run of a lossless model; see `Trainer`."""

    def _load_data(self) -> None:
        config = self.config
        folder = ImageFolder(config.data, minimum=config.crop, device=self.device, limit=config.limit)
        # Gray pictures are coded as G alone, in the neighbourhood of three equal channels: an eighth of the pictures.
        gray = [image[1:2].expand(3, -1, -1) for image in folder.train[::8]]
        self.data = PixelFolder([*folder.train, *gray])
        self.data.skipped = folder.skipped
        held_back = PixelFolder(folder.held_back or folder.train[:1])
        side = min(128, *(min(image.shape[1:]) for image in held_back.train)) // net.BLOCK * net.BLOCK
        crops = [
            torch.stack(held_back.crop(index, (image.shape[1] - side) // 2, (image.shape[2] - side) // 2, side))
            for index, image in enumerate(held_back.train[:16])
        ]
        self.validation = torch.stack(crops)

    def _new_model(self) -> LosslessVAE:
        return LosslessVAE(self.model_config)

    def _start_fresh(self) -> None:
        pass

    def _objective(self) -> Callable[..., dict[str, Tensor]]:
        return negative_elbo

    def _batch(self, step: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((self.config.seed, self.rank, step))
        # Latents that cost before they help would be given up (Sønderby et al. 2016).
        kl_weight = torch.tensor(min(1.0, 0.1 + step / KL_WARMUP))
        return self.data.crops(self.config.batch, self.config.crop, rng), kl_weight

    @torch.no_grad()
    def _validate(self) -> None:
        """−ELBO of the averaged weights on held-back pictures."""
        current = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        torch.manual_seed(0)
        outcomes = [negative_elbo(self.model, crop) for crop in self.validation.split(1)]
        self.model.load_state_dict(current)
        bpsp, kl = (float(torch.cat([outcome[key] for outcome in outcomes]).mean()) for key in ("bpsp", "kl"))
        print(f"validation at step {self.step}: {bpsp:.4f} bits a subpixel, of these latents {kl:.4f}", flush=True)
        self._write("validation.csv", {"step": self.step, "seconds": round(self.seconds, 1), "bpsp": bpsp, "kl": kl})
