"""Freezing a network: a model in memory is the one that its file holds, and nothing that trains on reaches it."""

import hashlib
import json

import numpy as np
import pytest
import torch

from codec import lossy, weights
from codec.errors import FormatError, UnsupportedError
from codec.freeze import freeze, freeze_lossless
from codec.networks.config import CONFIGS, LOSSLESS_CONFIGS
from codec.networks.lossless import LosslessVAE, fit_linear
from codec.networks.model import LossyVAE
from codec.postfilter import FEATURES
from codec.tables import COUNTED, latent_tables


@pytest.fixture
def network() -> LossyVAE:
    """Untrained, its exact networks quantised all the same."""
    torch.manual_seed(5)
    network = LossyVAE(CONFIGS["tiny"])
    z = torch.randint(-3, 4, (8, 8, 6, 6)).float()
    network.prior.scale_network.calibrate(z)
    network.prior.hyper_context.calibrate(z, torch.arange(8) % 3)
    return network


@pytest.fixture
def pixels(photo) -> np.ndarray:
    return np.asarray(photo)


def written(model: weights.LossyModel, pixels: np.ndarray) -> bytes:
    encoder = lossy.Encoder(model, pixels)
    return encoder.write(lossy.amortise(encoder, 6000))


def test_a_model_in_memory_codes_as_its_file_does(network, pixels, rng, tmp_path):
    counts = np.zeros((64, 2 * COUNTED + 1), int)
    counts[:, COUNTED - 3 : COUNTED + 4] = rng.integers(0, 1000, (64, 7))
    hyper = np.zeros((24 * 4, 2 * 127 + 1), int)
    frozen = freeze(network, counts=(counts, hyper), basis=torch.randn(2, 3, FEATURES), training={"images": 7})
    weights.save(frozen, tmp_path / "new" / "m.safetensors")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.safetensors"]
    data = (tmp_path / "new" / "m.safetensors").read_bytes()
    models = weights.assemble(frozen), weights.load(tmp_path / "new" / "m.safetensors")
    for model in models:
        assert model.model_id == frozen.model_id == hashlib.sha256(data).digest()[:4]
        assert model.training == {"images": 7} and model.postfilter.shape == (2, 3, FEATURES)
        assert model.latent_tables[30].frequencies.tolist() == latent_tables(network.config, counts)[30].frequencies.tolist()
    one, other = (model.network.state_dict() for model in models)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert len({written(model, pixels) for model in models}) == 1


def test_training_on_does_not_reach_a_frozen_model(network, pixels):
    frozen = freeze(network)
    model = weights.assemble(frozen)
    before = written(model, pixels)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(1)
    assert written(model, pixels) == written(weights.assemble(frozen), pixels) == before


def test_what_is_not_exact_yet_is_not_frozen():
    network = LossyVAE(CONFIGS["tiny"])
    with pytest.raises(ValueError, match="--phase scales first"):
        freeze(network)
    network.prior.scale_network.calibrate(torch.ones(1, 8, 4, 4))
    with pytest.raises(ValueError, match="--phase hyper first"):
        freeze(network)


def test_a_lossless_model_in_memory_is_the_one_that_its_file_holds(pixels, tmp_path):
    torch.manual_seed(5)
    network = LosslessVAE(LOSSLESS_CONFIGS["lossless-tiny"])
    coefficients = fit_linear(torch.from_numpy(pixels.copy()).permute(2, 0, 1)).numpy()
    frozen = freeze_lossless(network, coefficients)
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(1)
    weights.save(frozen, tmp_path / "m.safetensors")
    models = weights.assemble_lossless(frozen), weights.load_lossless(tmp_path / "m.safetensors")
    assert models[0].model_id == models[1].model_id == frozen.model_id
    one, other = (model.network.state_dict() for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(np.array_equal(model.coefficients, coefficients) for model in models)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"layout": "lic-lossy-9"}, UnsupportedError, "model layout 'lic-lossy-9', this version reads 'lic-lossy-1'"),
        ({"config": json.dumps(CONFIGS["tiny"].to_dict() | {"trellis_states": 5})}, UnsupportedError, "a trellis of 5"),
        ({"config": "{"}, FormatError, "not a usable model file"),
    ],
)
def test_a_file_that_is_no_model_of_this_version_is_named(network, tmp_path, changes, error, message):
    frozen = freeze(network)
    weights.save(weights.Frozen.of(frozen.tensors, frozen.metadata | changes), tmp_path / "m.safetensors")
    with pytest.raises(error, match=f"^m.safetensors: {message}"):
        weights.load(tmp_path / "m.safetensors")
