"""The post-filter: what is sent, what it does, what a fit finds."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from codec import postfilter
from codec.errors import FormatError
from codec.postfilter import FEATURES, NONE, REACH, Normal


def padded(x):
    return F.pad(x, [REACH] * 4, mode="replicate")


@pytest.fixture(scope="module")
def picture():
    generator = torch.Generator().manual_seed(2)
    return F.avg_pool2d(torch.rand(1, 3, 90, 70, generator=generator), 3, 1, 1).clamp(0.1, 0.9)


@pytest.fixture(scope="module")
def basis():
    return torch.randn(6, 3, FEATURES, generator=torch.Generator().manual_seed(1)) / 50


@pytest.mark.parametrize(
    "coefficients",
    [[1], [0, -1], [3, 0, 0, -2, 1], [2**16 - 1, -(2**16) + 1], [0] * 40 + [7], list(range(-60, 61, 7)), [1000, 4, 0, 1, -1]],
)
def test_coefficients_come_back(coefficients):
    data = postfilter.pack(9, np.array(coefficients))
    assert postfilter.read(data + b"rest", 255) == (9, coefficients, len(data))


def test_trailing_zeros_are_not_sent_and_nothing_is_one_byte():
    assert postfilter.pack(5, np.array([2, 0, 1, 0, 0])) == postfilter.pack(5, np.array([2, 0, 1]))
    assert postfilter.pack(5, np.zeros(4, int)) == NONE
    assert postfilter.read(NONE + b"rest", 8) == (0, [], 1)


@pytest.mark.parametrize("data", [b"", b"\3", b"\3\5", b"\3\5\0\0\0\0\0\0", b"\x09\5\xff\xff\xff", b"\1\x19\x80", b"\1\5\x01"])
def test_what_no_encoder_writes_is_an_error(data):
    with pytest.raises(FormatError):
        postfilter.read(data, 8)


def test_golden_bytes():
    # Order 0: 5 -> 00 110 and 0, -1 -> 0 10 and 1, 0 -> 1, 2 -> 0 11 and 0.
    assert postfilter.pack(6, np.array([5, -1, 0, 2])) == bytes((4, 6, 0b00110001, 0b01101100))
    # Order 2: 9 -> 0 1101 and 0, -7 -> 0 1011 and 1.
    assert postfilter.pack(0, np.array([9, -7])) == bytes((2, 2 * 32, 0b01101001, 0b01110000))


def test_a_kernel_does_what_its_features_say(picture, basis):
    data = postfilter.pack(3, np.array([4, -3, 2, 0, 1]))
    weight, bias = postfilter.kernel(basis, data)
    combined = torch.tensordot(torch.tensor([4.0, -3, 2, 0, 1]) / 8, basis[:5], 1)
    change = torch.einsum("cf,bfhw->bchw", combined, postfilter.features(padded(picture)))
    assert torch.allclose(postfilter.apply(padded(picture), (weight, bias)), picture + change, atol=1e-5)
    assert postfilter.kernel(basis, NONE) is None


def test_features_are_alike_in_eight_directions(picture):
    turned = postfilter.features(padded(picture.transpose(2, 3).flip(2)))
    assert torch.allclose(turned, postfilter.features(padded(picture)).transpose(2, 3).flip(2), atol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_fit_finds_the_filter_that_was_applied(picture, basis, share):
    sent = np.array([6, -5, 4, 3, -2, 2])
    original = postfilter.apply(padded(picture), postfilter.kernel(basis, postfilter.pack(7, sent)))
    normal = Normal.empty()
    normal.add(padded(picture)[0], original[0], share)
    assert normal.pixels == 90 * 70
    assert normal.seen < 90 * 70 or share == 1
    # So much is an error worth that coefficients are fine, and right.
    exponent, found, _ = postfilter.read(postfilter.fit(normal, basis, 1e3), 6)
    assert np.array(found) * 2.0**-exponent == pytest.approx(sent / 128, abs=2.0**-exponent)


def test_a_filter_that_is_not_worth_its_bits_is_not_sent(picture, basis):
    normal = Normal.empty()
    normal.add(padded(picture)[0], picture[0] + torch.randn(90, 70, generator=torch.Generator().manual_seed(3)) / 100, 1.0)
    assert postfilter.fit(normal, basis, 1e-6) == NONE
    assert postfilter.fit(Normal.empty(), basis, 1.0) == NONE
