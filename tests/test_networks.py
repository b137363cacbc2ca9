"""Shapes and cost of the configurations."""

import pytest
import torch
from torch import nn

from codec import weights
from codec.networks.config import CONFIGS, LossyConfig
from codec.networks.exact import ExactLayer
from codec.networks.model import LossyVAE
from codec.walk import walk_latents


LAYERS = (nn.Conv2d, nn.ConvTranspose2d, ExactLayer)


def decode_cost(config: LossyConfig) -> float:
    """Multiplications a pixel of everything that a decoder computes."""
    size, count = 128, 0
    model = LossyVAE(config)

    def add(layer, inputs, output):
        nonlocal count
        at = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        positions = at[0, 0].numel() // (4 if getattr(layer, "shuffle", False) else 1)
        count += positions * layer.weight.numel()

    for layer in model.modules():
        if isinstance(layer, LAYERS):
            layer.register_forward_hook(add)
    t = torch.zeros(1)
    y = torch.zeros(1, config.latent_channels, size // 16, size // 16)
    with torch.inference_mode():
        if config.prior == "hyperprior":
            z = torch.zeros(1, config.hyper_latent_channels, size // 64, size // 64)
            model.prior.scale_index(z, t)
            walk_latents(model.prior, model.prior.features(z, t), model.unit(t), lambda mask, mean: mean)
        model.synthesise(y, t)
    if config.transform == "residual":
        count += model.synthesis.linear.numel() * y[0, 0].numel()
    return count / size**2


def test_the_base_decoder_stays_below_45_thousand_multiplications_a_pixel():
    assert 15_000 < decode_cost(CONFIGS["base"]) < 45_000


def test_the_shipped_model_is_a_file_of_at_most_24_megabytes():
    path = weights.PACKAGED / f"{weights.DEFAULT_MODEL}.safetensors"
    assert path.stat().st_size <= 24e6
    assert weights.load(path).config == CONFIGS["base"]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_codes_a_picture(name):
    torch.manual_seed(0)
    model = LossyVAE(CONFIGS[name])
    t = torch.tensor([0.0, 1.5])
    with torch.inference_mode():
        y = model.analyse(torch.rand(2, 3, 64, 128), t)
        assert y.shape == (2, CONFIGS[name].latent_channels, 4, 8)
        assert model.synthesise(y, t).shape == (2, 3, 64, 128)


def test_a_configuration_survives_its_file():
    for config in CONFIGS.values():
        assert LossyConfig.from_dict(config.to_dict() | {"widths": list(config.widths)}) == config
    with pytest.raises(TypeError):
        LossyConfig.from_dict({"name": "x", "unheard_of": 1})
