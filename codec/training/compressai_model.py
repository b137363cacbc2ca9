"""Our networks as a CompressAI model, under the name "lic" in its registry: its losses, trainers and evaluation run on them.

    from codec.training.compressai_model import LearnedImageCodec
    net = LearnedImageCodec("base", quality=50)            # to train, RateDistortionLoss(lmbda=net.lmbda)
    net = LearnedImageCodec.from_file("weights.safetensors", quality=50).eval()  # a model file; None: the one that compresses

Strings are complete files of ours, which `decompress` understands as well if the model file is installed. ImportError
where the library is not installed: it is in the extra `compressai`, in an environment of its own since it holds NumPy
below 2.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from compressai.models import CompressionModel
from compressai.registry import register_model
from torch import Tensor, nn

from .. import container, lossy, weights
from ..container import Header, Tag
from ..errors import UnsupportedError
from ..freeze import freeze
from ..networks.config import CONFIGS, LossyConfig
from ..networks.exact import INPUT_MAX
from ..networks.model import LossyVAE
from ..networks.priors import HyperPrior
from ..tiles import HYPER_STRIDE
from .objective import estimate

CALIBRATION = 64  # grids of 4×4 hyper-latents a rate point


class _Auxiliary(nn.Module):
    """CompressAI's trainers insist on a second optimiser, of parameters of this name; our prior has none of them."""

    def __init__(self):
        super().__init__()
        self.quantiles = nn.Parameter(torch.zeros(1))


@register_model("lic")
class LearnedImageCodec(CompressionModel):
    """One of our lossy models at one quality.

    config: a LossyConfig or the name of one. quality: 0 to 100, may be set at any time. ValueError for others.
    """

    def __init__(self, config: LossyConfig | str = "base", quality: float = 75.0):
        super().__init__()
        if isinstance(config, str):
            if config not in CONFIGS:
                raise ValueError(f"unknown configuration {config!r}; known: {', '.join(CONFIGS)}")
            config = CONFIGS[config]
        if not 0 <= quality <= 100:
            raise ValueError(f"quality must be within 0 to 100, not {quality}")
        self.quality = quality
        self.network = LossyVAE(config)
        self.auxiliary = _Auxiliary()
        self._coded: weights.LossyModel | None = None  # what compresses: these weights, frozen

    @classmethod
    def from_file(cls, path: str | Path | None = None, quality: float = 75.0) -> LearnedImageCodec:
        """A model file, ready to compress; it cannot be trained: its exact scale network is integers.

        CodecError for a file that is no such model.
        """
        model = weights.load(Path(path) if path else weights.default_path())
        net = cls(model.config, quality)
        net.network, net._coded = copy.deepcopy(model.network), model
        return net.eval()

    @classmethod
    def from_state_dict(cls, state_dict: dict) -> LearnedImageCodec:
        extra = state_dict["_extra_state"]
        net = cls(LossyConfig.from_dict(extra["config"]), extra["quality"])
        net.load_state_dict(state_dict)
        return net

    def get_extra_state(self) -> dict:
        return {"config": self.network.config.to_dict(), "quality": self.quality}

    def set_extra_state(self, state: dict) -> None:
        self.quality, self._coded = state["quality"], None

    @property
    def lmbda(self) -> float:
        """What RateDistortionLoss wants to be told for this quality: bits a pixel for a squared error in 8-bit levels."""
        return self.network.trade_off(float(self._position(1)))

    def _position(self, count: int) -> Tensor:
        grid = self.quality / 100 * (self.network.config.rate_points - 1)
        return torch.full((count,), grid, device=self.auxiliary.quantiles.device)

    def aux_loss(self) -> Tensor:
        return self.auxiliary.quantiles.square().sum()

    def train(self, mode: bool = True) -> LearnedImageCodec:
        if mode:
            if not self._trainable:
                raise UnsupportedError("a model file cannot be trained: take its .stable.safetensors, or a checkpoint")
            self._coded = None
        return super().train(mode)

    @property
    def _trainable(self) -> bool:
        return not isinstance(self.network.prior, HyperPrior) or hasattr(self.network.prior, "scale_network")

    def forward(self, x: Tensor) -> dict:
        """x: B×3×H×W in [0, 1] -> {"x_hat": B×3×H×W, "likelihoods": {"y": B×M×h×w, "z": B×Cz×h/4×w/4}}.

        With additive noise in training mode, of the rounded symbols otherwise; a factorised prior has no "z".
        """
        height, width = x.shape[2:]
        padded = F.pad(x, (0, -width % HYPER_STRIDE, 0, -height % HYPER_STRIDE), mode="replicate")
        scales = None if self._trainable else self._integer_scales
        x_hat, bits, _ = estimate(self.network, padded, self._position(len(x)), noisy=self.training, scales=scales)
        likelihoods = {name: torch.exp2(-values) for name, values in bits.items()}
        return {"x_hat": x_hat[:, :, :height, :width], "likelihoods": likelihoods}

    def _integer_scales(self, z: Tensor) -> Tensor:
        return self._coded.scales(z.to(self._coded.device)).to(z.device)

    @torch.no_grad()
    def update(self, scale_table=None, force: bool = False, update_quantiles: bool = False) -> bool:
        """Freeze the weights into what codes: integers and tables. False if that was done, and not `force`.

        A scale network that is not exact yet becomes so here, with steps that suit hyper-latents drawn from p(z);
        `codec train --phase scales` fits it better. The arguments but `force` are CompressAI's own and not used.
        """
        if not self._trainable or (self._coded is not None and not force):
            return False
        prior = self.network.prior
        if isinstance(prior, HyperPrior) and float(prior.scale_network.layers[-1].step) == 0:
            prior.scale_network.calibrate(self._draw_hyper())
        self._coded = weights.assemble(freeze(self.network))
        return True

    def _draw_hyper(self) -> Tensor:
        prior, generator = self.network.prior, torch.Generator().manual_seed(0)
        points = self.network.config.rate_points
        t = torch.arange(points, device=self.auxiliary.quantiles.device).float().repeat_interleave(CALIBRATION)
        uniform = torch.rand(len(t), self.network.config.hyper_latent_channels, 4, 4, generator=generator)
        logistic = torch.logit(uniform, 1e-4).to(t.device)
        return (prior.z_mean(t) + prior.z_log_scale(t).exp() * logistic).round().clamp(-INPUT_MAX, INPUT_MAX)

    def _ready(self) -> weights.LossyModel:
        if self._coded is None:
            raise UnsupportedError("the weights are not frozen yet: call update() before compress() and decompress()")
        return self._coded

    @torch.no_grad()
    def compress(self, x: Tensor) -> dict:
        """x: B×3×H×W in [0, 1], rounded to 8 bits -> {"strings": [B files], "shape": (h/4, w/4)}.

        UnsupportedError before `update`.
        """
        model, quality = self._ready(), round(100 * self.quality)
        height, width = x.shape[2:]
        files = []
        for picture in (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu():
            encoder = lossy.Encoder(model, np.ascontiguousarray(picture.numpy()))
            latents = encoder.write(lossy.amortise(encoder, quality))
            header = Header("lossy", model.model_id, width, height, "RGB", quality)
            files.append(container.pack(header, {Tag.LATENTS: latents}))
        return {"strings": [files], "shape": (-(-height // HYPER_STRIDE), -(-width // HYPER_STRIDE))}

    def decompress(self, strings: list[list[bytes]], shape: tuple[int, int]) -> dict:
        """Inverse of `compress`: {"x_hat": B×3×H×W in [0, 1]}, 8-bit levels. FormatError for a damaged file.

        Pictures of one batch have one size; `shape` is not needed, the files hold it.
        """
        model, pictures = self._ready(), []
        for data in strings[0]:
            header, sections = container.unpack(data)
            pixels = lossy.decode(
                sections[Tag.LATENTS],
                width=header.width,
                height=header.height,
                quality=header.quality,
                model_id=header.model_id,
                model=model,
            )
            pictures.append(torch.from_numpy(pixels).permute(2, 0, 1) / 255)
        return {"x_hat": torch.stack(pictures).to(self.auxiliary.quantiles.device)}
