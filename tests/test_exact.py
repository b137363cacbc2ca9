"""Whatever picks a probability is the same integer on every machine and in every setting."""

import numpy as np
import pytest
import torch
from conftest import setting

from codec.networks.exact import INPUT_MAX, OUTPUT_STEP, ExactNetwork, IntegerNetwork


@pytest.fixture(scope="module")
def trained() -> ExactNetwork:
    """A network with weights as wild as training makes them, calibrated."""
    torch.manual_seed(1)
    network = ExactNetwork(16, 48, 40)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.abs().mean())
    network.calibrate(hyper_latents(2))
    return network


def hyper_latents(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(1, 16, 9, 11, generator=generator) * 3
    z[0, 3, 4, 5] = INPUT_MAX
    return z.round().clamp(-INPUT_MAX, INPUT_MAX)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # the flags of oneDNN mention Intel GPUs
def test_integers_agree_under_every_setting(trained):
    """1/2 threads, oneDNN on/off, contiguous/channels-last, float32/float64."""
    z = hyper_latents(3)
    network = IntegerNetwork(trained.integers())
    expected = network(z)
    assert torch.equal(expected, expected.round()) and expected.unique().numel() > 100
    for count in (1, 2):
        for mkldnn in (True, False):
            with setting(count, mkldnn):
                assert torch.equal(network(z), expected)
                assert torch.equal(network(z.contiguous(memory_format=torch.channels_last)), expected)
                assert torch.equal(network(z.double()), expected.double())


def test_numpy_integers_give_the_same_first_layer(trained):
    """An independent evaluation in int64, without any float but the one multiplication."""
    tensors, z = trained.integers(), hyper_latents(4)
    weight = tensors["0.weight"].numpy().astype(np.int64)[:, :, 0, 0]
    total = np.einsum("oc,chw->ohw", weight, z[0].numpy().astype(np.int64)) + tensors["0.bias"].numpy()[:, None, None]
    product = total.astype(np.float32) * tensors["0.multiplier"].numpy()[:, None, None]
    expected = np.clip(np.rint(product), 0, 255)
    first = torch.nn.functional.conv2d(z, tensors["0.weight"].float(), tensors["0.bias"].float())
    got = (first * tensors["0.multiplier"][:, None, None]).round().clamp(0, 255)
    assert np.array_equal(got[0].numpy(), expected)


def test_the_integers_are_what_training_saw(trained):
    """Quantisation in the loop and the frozen network differ by a few steps at most, from ties alone."""
    z = hyper_latents(5)
    simulated = trained(z) / OUTPUT_STEP
    difference = (IntegerNetwork(trained.integers())(z) - simulated).abs()
    assert difference.mean() < 0.05 and difference.max() <= 8


def test_a_network_whose_sums_could_leave_float32_is_refused(trained):
    tensors = trained.integers()
    tensors["4.bias"] = torch.full_like(tensors["4.bias"], 2**24)
    with pytest.raises(ValueError, match="layer 4: sums up to"):
        IntegerNetwork(tensors)


def test_sums_at_the_limit_are_exact_in_float32():
    """The bound itself: 2^24 - 1 built from products of 127 and 255, in any order."""
    weight = torch.full((1, 518, 1, 1), 127.0)
    x = torch.full((1, 518, 3, 3), 255.0)
    assert 518 * 127 * 255 < 2**24
    assert torch.equal(torch.nn.functional.conv2d(x, weight).long(), torch.full((1, 1, 3, 3), 518 * 127 * 255))
