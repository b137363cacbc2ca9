"""How far networks see: what is computed from a configuration is what derivatives say, and enough that blocks leave no seam."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import codec
from codec import lossy, weights
from codec.freeze import freeze
from codec.networks import reach
from codec.networks.config import CONFIGS, LossyConfig
from codec.networks.model import LossyVAE
from codec.tiles import HYPER_STRIDE, STRIDE
from codec.walk import walk_latents

NARROW = {"widths": (4, 6, 8), "latent_channels": 8, "hyper_latent_channels": 6, "hyper_width": 6, "rate_points": 2}
BASE = dataclasses.replace(CONFIGS["base"], **NARROW, hyper_groups=(2, 4))
SHAPES = {
    "base": BASE,
    "tiny": dataclasses.replace(CONFIGS["tiny"], **NARROW, hyper_groups=(2, 4)),
    "textbook": dataclasses.replace(CONFIGS["textbook"], **NARROW | {"widths": (4, 4, 4)}),
    "deep": dataclasses.replace(BASE, analysis_blocks=(3, 1, 2), synthesis_blocks=(5, 2, 3)),
    "wide quarters": dataclasses.replace(BASE, analysis_blocks=(4, 0, 0), synthesis_blocks=(9, 0)),
    "one step": dataclasses.replace(BASE, context_steps=1),
}
SIDE = 704  # pixels of the picture, and of a rectangle in it
EDGES = slice(320, 384)


def network(config: LossyConfig) -> LossyVAE:
    """Random in every weight: none hides what a network sees."""
    torch.manual_seed(3)
    model = LossyVAE(config).requires_grad_(False)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


def seen(output: torch.Tensor, inputs: torch.Tensor, stride: int) -> int:
    """How many pixels beyond EDGES the output depends on; inputs: with a sample every `stride` pixels."""
    (gradient,) = torch.autograd.grad((output * torch.randn_like(output)).sum(), inputs, retain_graph=True)
    found = []
    for axes in ((0, 1, 2), (0, 1, 3)):
        used = torch.nonzero(gradient.abs().sum(axes)).flatten()
        found += [EDGES.start - stride * int(used[0]), stride * (int(used[-1]) + 1) - EDGES.stop]
    assert min(found) >= 0 and max(found) < EDGES.start
    return max(found)


def rectangle(stride: int, beyond: int = 0) -> tuple:
    part = slice((EDGES.start - beyond) // stride, (EDGES.stop + beyond) // stride)
    return ..., part, part


@pytest.fixture(params=SHAPES)
def model(request) -> LossyVAE:
    return network(SHAPES[request.param])


T = torch.tensor([0.4])


def random(channels: int, stride: int) -> torch.Tensor:
    return torch.randn(1, channels, SIDE // stride, SIDE // stride, requires_grad=True)


def test_what_the_analysis_sees(model):
    x = random(3, 1)
    y = model.analyse(x, T)
    assert seen(y[rectangle(STRIDE)], x, 1) == reach.analysis(model.config)
    if model.config.prior == "hyperprior":
        z = model.prior.infer(y)
        assert seen(z[rectangle(HYPER_STRIDE)], x, 1) == reach.hyper_inference(model.config)
    else:
        assert reach.hyper_inference(model.config) == reach.analysis(model.config)


@pytest.mark.parametrize("beyond", [0, 3, 21])
def test_what_the_synthesis_sees(model, beyond):
    y = random(model.config.latent_channels, STRIDE)
    x = model.synthesise(y, T)
    assert seen(x[rectangle(1, beyond)], y, STRIDE) == reach.synthesis(model.config, beyond)


@pytest.mark.parametrize("reduce", [8, 16])
def test_what_a_preview_sees(model, reduce):
    y = random(model.config.latent_channels, STRIDE)
    assert seen(model.preview(y, T, reduce)[rectangle(reduce)], y, STRIDE) == reach.preview(model.config)


@pytest.mark.parametrize("beyond", [0, 80])
@pytest.mark.parametrize("shape", [shape for shape, config in SHAPES.items() if config.prior == "hyperprior"])
def test_what_decides_the_means_sees(shape, beyond):
    """Of symbols, and of hyper-latents."""
    model = network(SHAPES[shape])
    symbols, z = random(8, STRIDE), random(6, HYPER_STRIDE)
    y, _ = walk_latents(model.prior, model.prior.features(z, T), model.unit(T), lambda take, mean: take(symbols) + mean)
    y = y[rectangle(STRIDE, beyond)]
    found = max(seen(y, symbols, STRIDE), seen(y, z, HYPER_STRIDE))
    assert -(-found // HYPER_STRIDE) * HYPER_STRIDE == reach.context(model.config, beyond)


def test_the_shipped_model_sees_80_pixels_and_blocks_know_256():
    config = CONFIGS["base"]
    assert (reach.analysis(config), reach.synthesis(config, 3), reach.context(config, 80)) == (84, 80, 256)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    with Image.open(Path(__file__).parent / "data" / "kodim23.png") as image:
        return np.asarray(image)[:448, :448]


@pytest.fixture(scope="module")
def farsighted(pixels, tmp_path_factory) -> Path:
    """A model of the structure of `base` to which what is far away matters nearly as much as what is near."""
    torch.manual_seed(5)
    model = LossyVAE(dataclasses.replace(BASE, latent_channels=48)).requires_grad_(False)
    x = torch.tensor(pixels).permute(2, 0, 1)[None] / 255
    patches = x.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 16, 16)
    model.start_from_pca(patches)
    for name, weight in model.synthesis.named_parameters():
        if ".spatial.weight" in name:
            weight.fill_(1.0)
        elif ".mix_out.weight" in name:
            weight.mul_(10)
    torch.nn.init.normal_(model.synthesis.head.mix.weight, std=0.05)
    t, head = torch.ones(1), model.synthesis.head.mix.weight
    y = model.analyse(x, t)
    once, twice = model.synthesise(y, t), (head.mul_(2), model.synthesise(y, t))[1]
    head.mul_(0.4 / 2 / (twice - once).std())
    z = torch.randint(-3, 4, (8, 6, 6, 6)).float()
    model.prior.scale_network.calibrate(z)
    model.prior.hyper_context.calibrate(z, torch.zeros(8))
    path = tmp_path_factory.mktemp("models") / "farsighted.safetensors"
    weights.save(freeze(model), path)
    return path


@pytest.mark.parametrize("region", [(192, 128, 70, 60), (64, 256, 128, 64), (0, 0, 64, 64)])
def test_a_region_is_a_part_of_the_picture_of_a_farsighted_model(pixels, farsighted, region, monkeypatch):
    """With surroundings of 64 pixels, up to a hundredth of its samples were others."""
    for module in (lossy, weights):
        monkeypatch.setattr(module, "fast_bfloat16", lambda device: False)
    monkeypatch.setenv("CODEC_MODELS", str(farsighted.parent))
    monkeypatch.setenv("CODEC_MODEL", farsighted.stem)
    difference = seam(codec.compress(pixels, 80, effort=1, lossless="never"), region)
    assert difference.max() <= 1 and np.mean(difference > 0) < 0.001


def test_the_shipped_model_leaves_no_seam_between_tiles(pixels, monkeypatch):
    monkeypatch.delenv("CODEC_MODELS", raising=False)
    monkeypatch.delenv("CODEC_MODEL", raising=False)
    data = codec.compress(np.hstack([pixels[:64], pixels[64:128], pixels[128:192]]), effort=1)
    for region in ((960, 0, 128, 64), (1000, 5, 60, 50)):
        assert seam(data, region).max() <= 1
    assert seam(codec.compress(pixels, effort=1), (130, 190, 100, 64)).max() <= 1


def seam(data: bytes, region: tuple[int, int, int, int]) -> np.ndarray:
    """By how many levels the samples of a region are others than in the whole picture."""
    left, top, width, height = region
    whole, part = (np.asarray(codec.decompress(data, region=chosen), dtype=int) for chosen in (None, region))
    return np.abs(part - whole[top : top + height, left : left + width])
