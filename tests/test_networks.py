"""Shapes and cost of the configurations."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from codec import weights
from codec.errors import UnsupportedError
from codec.networks import layers
from codec.networks.config import CONFIGS, LossyConfig
from codec.networks.layers import Block, pointwise
from codec.networks.model import LossyVAE
from codec.networks.priors import put, step_places, take
from codec.walk import walk_latents


def decode_cost(config: LossyConfig) -> float:
    """Multiplications a pixel of all that a decoder's networks compute."""
    size, model, t = 128, LossyVAE(config), torch.zeros(1)
    y = torch.zeros(1, config.latent_channels, size // 16, size // 16)
    with FlopCounterMode(display=False) as counter:
        if config.prior == "hyperprior":
            z = torch.zeros(1, config.hyper_latent_channels, size // 64, size // 64)
            model.prior.scale_index(z, t)
            if config.hyper_groups:
                model.prior.hyper_context.bits(z, t)
            walk_latents(model.prior, model.prior.features(z, t), model.unit(t), lambda take, mean: mean)
        model.synthesise(y, t)
    return counter.get_total_flops() / 2 / size**2


def test_the_base_decoder_stays_below_45_thousand_multiplications_a_pixel(monkeypatch):
    monkeypatch.setattr(layers, "_at_once", lambda x: None)  # the counter does not know oneDNN's own operators
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


@pytest.mark.parametrize("change", [{"unheard_of": 1}, {"context_steps": 5}, {"transform": "swin"}, {"prior": "diffusion"}])
def test_a_configuration_with_what_is_unknown_here_is_a_newer_one(change):
    """Five steps were once walked as four, without a word."""
    with pytest.raises(UnsupportedError, match="newer"):
        LossyConfig.from_dict(CONFIGS["tiny"].to_dict() | change)


@pytest.mark.parametrize(("steps", "shares"), [(1, [1]), (4, [4, 4, 4, 4]), (6, [1, 1, 2, 4, 4, 4])])
def test_the_steps_of_the_walk_partition_the_latents(steps, shares):
    visits = torch.zeros(1, 8, 8, 12)
    for places, share in zip(step_places(steps, 8), shares, strict=True):
        step = put(torch.zeros_like(visits), take(torch.ones_like(visits), places), places)
        assert step.mean() == share / sum(shares)
        visits += step
    assert (visits == 1).all()


def test_taking_and_putting_differentiate_like_slices():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 4, 8, dtype=torch.float64, requires_grad=True)
    unit = torch.randn(2, 8, 1, 1, dtype=torch.float64, requires_grad=True)
    for places in step_places(6, 8):
        values = take(x, places).detach().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, unit, at=places: take(x, at) * take(unit, at), (x, unit))
        assert torch.autograd.gradcheck(lambda x, values, at=places: put(x, values, at), (x, values))


def test_a_mean_depends_on_latents_of_earlier_steps_alone():
    torch.manual_seed(0)
    config = CONFIGS["base"]
    model = LossyVAE(config)
    for step in model.prior.context:
        torch.nn.init.normal_(step.linear.weight)
    t = torch.tensor([3.0])
    y = 3 * torch.randn(1, config.latent_channels, 8, 12)
    features = model.prior.features(torch.randn(1, config.hyper_latent_channels, 2, 3).round(), t).detach()
    later = y.clone()
    for places in step_places(config.context_steps, config.latent_channels)[3:]:
        later = put(later, take(later, places) + 1, places)
    with torch.no_grad():
        means = [walk_latents(model.prior, features, model.unit(t), lambda take, mean, v=v: take(v))[1] for v in (y, later)]
    equal = [torch.equal(*(take(m, places) for m in means)) for places in step_places(config.context_steps, config.latent_channels)]
    assert equal == [True] * 4 + [False] * 2


def test_loading_models_does_not_import_the_compiler_of_torch():
    script = """
import sys, torch
before = set(sys.modules)
from codec import weights
weights.load(weights.default_path())
weights.load_lossless(weights.default_path(lossless=True))
new = set(sys.modules) - before
assert not {name for name in new if name.startswith(("sympy", "torch._dynamo", "torch._inductor"))}, len(new)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=weights.PACKAGED.parent.parent)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_layers_at_once_are_the_layers_one_by_one(kind):
    """The paths through oneDNN's fused operators, with a gradient and without, against the plain one."""
    torch.manual_seed(0)
    block = Block(16).to(kind)
    x = torch.randn(2, 16, 12, 8, dtype=kind).contiguous(memory_format=torch.channels_last)
    expected = block(x).detach()
    with torch.no_grad():
        at_once = block(x.clone())
        with torch.backends.mkldnn.flags(enabled=False):
            apart = block(x.clone())
    tolerance = 1e-5 if kind == torch.float32 else 0.05
    assert torch.allclose(at_once, expected, atol=tolerance) and torch.allclose(apart, expected, atol=tolerance)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("trains", [True, False])
def test_derivatives_at_once_are_those_one_by_one(trains):
    torch.manual_seed(0)
    layers_ = torch.nn.Sequential(pointwise(6, 16), Block(16), Block(16), pointwise(16, 5)).requires_grad_(trains)
    x = torch.randn(2, 6, 12, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    wanted = [x, *(layers_.parameters() if trains else ())]
    seeds = [torch.randn(2, 5, 12, 8) for _ in range(2)]

    def derivatives() -> list[torch.Tensor]:
        y = layers_(x)
        return [g for seed in seeds for g in torch.autograd.grad(y, wanted, seed, retain_graph=True)]

    at_once = derivatives()
    with torch.backends.mkldnn.flags(enabled=False):
        apart = derivatives()
    for one, other in zip(at_once, apart, strict=True):
        assert torch.allclose(one, other, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_slope_of_the_activation_is_known_from_what_comes_out(kind):
    result = torch.tensor([0.0, -0.0, 1e-9, -1e-9, 0.5, -0.5, 3e9, -3e9, 1.0, -300.0]).to(kind)
    expected = torch.tensor([layers.SLOPE, layers.SLOPE, 1, layers.SLOPE, 1, layers.SLOPE, 1, layers.SLOPE, 1, layers.SLOPE]).to(kind)
    assert torch.equal(layers._slopes(result), expected)
