"""Hyper-latents given what is already decoded of them: exact, whatever decodes, and worth its bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import setting

from codec import hyperlatents, weights
from codec.entropy.coder import BitCounter, QueueReader, QueueWriter
from codec.errors import FormatError
from codec.freeze import freeze
from codec.networks.config import CONFIGS
from codec.networks.exact import INPUT_MAX
from codec.networks.hyper import LEVELS, PLACES, logistic_weights
from codec.networks.model import LossyVAE

QUALITY = 5000  # grid position 1
SHAPES = [(8, 1, 1), (8, 1, 3), (8, 5, 4), (8, 8, 8)]


def hyper_latents(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Channels and neighbours that have something in common, one that is nearly always zero, one value far out."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 2, (1, *shape[1:]))
    z = np.rint(common + np.roll(common, 1, 2) + rng.normal(0, 0.6, shape)).astype(np.int32)
    z[5] = rng.random(shape[1:]) < 0.02
    z[3, 0, 0] = -INPUT_MAX
    return z


@pytest.fixture(scope="module")
def trained() -> LossyVAE:
    torch.manual_seed(1)
    network = LossyVAE(CONFIGS["tiny"])
    batch = torch.from_numpy(np.stack([hyper_latents((8, 6, 6), seed) for seed in range(32)])).float()
    network.prior.scale_network.calibrate(batch)
    context, t = network.prior.hyper_context, torch.arange(32) % 3
    context.calibrate(batch, t)
    optimiser = torch.optim.Adam(context.parameters(), lr=5e-3)
    for _ in range(60):
        optimiser.zero_grad()
        context.bits(batch, t).mean().backward()
        optimiser.step()
    return network


@pytest.fixture(scope="module")
def model(trained) -> weights.LossyModel:
    return weights.assemble(freeze(trained))


def write(model: weights.LossyModel, z: np.ndarray) -> bytes:
    writer = QueueWriter()
    assert np.array_equal(hyperlatents.code(writer, model, QUALITY, z.shape, z), z)
    return writer.data()


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_written_is_read(model, shape):
    z = hyper_latents(shape, 7)
    assert np.array_equal(hyperlatents.code(QueueReader(write(model, z)), model, QUALITY, shape, None), z)


def test_bits_are_written_counted_and_trained_for_alike(trained, model):
    """The bytes, the counter, the length of each symbol, and what training minimises: within what tables round."""
    z = hyper_latents((8, 30, 30), 8)
    counter = BitCounter()
    hyperlatents.code(counter, model, QUALITY, z.shape, z)
    lengths = hyperlatents.lengths(model, QUALITY, z)
    assert lengths.shape == z.shape and lengths.sum() == pytest.approx(counter.bits)
    assert counter.bits <= 8 * len(write(model, z)) <= counter.bits + 64
    with torch.no_grad():
        expected = trained.prior.hyper_context.bits(torch.from_numpy(z)[None].float(), torch.tensor([1.0]))
        assert counter.bits == pytest.approx(float(expected), rel=0.03)


def test_what_is_known_saves_bits(trained, model):
    """Against the entropy of each channel on its own."""
    z = hyper_latents((8, 30, 30), 9)
    alone = 0.0
    for channel in z:
        count = np.unique(channel, return_counts=True)[1]
        alone -= (count * np.log2(count / channel.size)).sum()
    assert hyperlatents.lengths(model, QUALITY, z).sum() < 0.8 * alone


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_tables_are_the_same_in_every_setting(model):
    z = hyper_latents((8, 9, 7), 10)
    expected = hyperlatents.indices(model.hyper_context, QUALITY, z)
    assert len(np.unique(expected[0])) > 30
    for count in (1, 2):
        for mkldnn in (True, False):
            with setting(count, mkldnn):
                for found, right in zip(hyperlatents.indices(model.hyper_context, QUALITY, z), expected, strict=True):
                    assert np.array_equal(found, right)


def test_every_symbol_is_decoded_once_and_sees_nothing_later(model):
    shape = (8, 5, 4)
    seen = np.zeros(shape, int)
    for place in model.hyper_context.places(shape[1:]):
        seen[place] += 1
    assert (seen == 1).all()
    z = hyper_latents(shape, 11)
    before = hyperlatents.indices(model.hyper_context, QUALITY, z)
    last = model.hyper_context.places(shape[1:])[-1]
    z[last] += 1
    assert all(np.array_equal(*pair) for pair in zip(before, hyperlatents.indices(model.hyper_context, QUALITY, z), strict=True))


def test_damage_ends_in_an_error_before_a_network_sees_it(model):
    """Values out of the range that sums are proved for."""
    z = hyper_latents((8, 4, 4), 12)
    z[int(model.hyper_context.groups[0][0]), 0, 0] = 1000
    writer = QueueWriter()
    with pytest.raises(FormatError, match="hyper-latent 1000 is out of range"):
        hyperlatents.code(writer, model, QUALITY, z.shape, z)
    rng = np.random.default_rng(0)
    for _ in range(50):
        data = rng.integers(0, 256, 40, dtype=np.uint8).tobytes()
        try:
            assert np.abs(hyperlatents.code(QueueReader(data), model, QUALITY, (8, 4, 4), None)).max() <= INPUT_MAX
        except FormatError:
            pass


@pytest.mark.parametrize("table", [0, 3, 50, LEVELS * PLACES - 1])
def test_masses_are_those_of_a_logistic(table):
    mass = logistic_weights(table, 40)
    assert mass.sum() == pytest.approx(1) and (mass >= 0).all()
    mean = (mass[:-1] * np.arange(-40, 41)).sum()
    assert mean == pytest.approx((table % PLACES - PLACES // 2) / PLACES, abs=0.6)


def test_a_model_whose_groups_are_not_its_channels_is_refused(trained, tmp_path):
    path = Path(tmp_path) / "wrong.safetensors"
    network = LossyVAE(CONFIGS["tiny"])
    network.load_state_dict(trained.state_dict())
    network.prior.hyper_context.order[0] = network.prior.hyper_context.order[1]
    weights.save(freeze(network), path)
    with pytest.raises(FormatError, match="groups of hyper-latents"):
        weights.load(path)
