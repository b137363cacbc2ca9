"""A step of the search: the same on arrays and on tensors, and what is said about each of its functions is true."""

import numpy as np
import pytest
import torch

from codec import step
from codec.entropy import coder
from codec.networks.config import CONFIGS
from codec.quantiser import REACH
from codec.tables import latent_tables

SHAPE = (2, 3, 5, 7)


@pytest.fixture
def latents(rng) -> dict[str, np.ndarray]:
    """Some of a batch: what was decoded, the targets, derivatives of different sizes, curvatures."""
    arrays = {name: rng.normal(size=SHAPE).astype(np.float32) for name in ("decoded", "target")}
    arrays["gradient"] = (rng.normal(size=SHAPE) * np.exp(rng.normal(size=SHAPE))).astype(np.float32)
    arrays["curvature"] = np.exp(rng.normal(size=SHAPE)).astype(np.float32)
    return arrays


def copies(arrays: dict[str, np.ndarray], make=np.array) -> list:
    return [make(array.copy()) for array in arrays.values()]


def test_a_whole_step_on_tensors_has_the_bits_of_one_on_arrays(latents):
    def results(make):
        decoded, target, gradient, squares = copies(latents, make)
        weight = step.error_weight(step.slope(4000, 10000) * 0.013)
        guess = step.guessed_curvature(weight, 5.0, squares)
        stiff = step.curvature(weight, squares)
        move = step.move(decoded, target, gradient, weight, stiff)
        return guess, stiff, move + 0, step.moved(target, move, 0.3), step.undecided(target, decoded)

    for array, tensor in zip(results(np.array), results(torch.from_numpy), strict=True):
        assert str(tensor.dtype) == f"torch.{array.dtype}"
        assert np.array_equal(array, tensor.numpy())


def test_means_by_channel_agree_to_rounding(latents):
    counted = step.undecided(latents["target"], latents["decoded"])
    arrays = step.by_channel(latents["curvature"], counted, 8)
    tensors = step.by_channel(torch.from_numpy(latents["curvature"]), torch.from_numpy(counted), 8)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert array.shape == tuple(tensor.shape) == (2, 3, 1, 1)
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-6)


def test_a_whole_move_leads_to_the_least_of_the_quadratic_model(latents):
    """λD around what was decoded is g (y - ŷ) + h (y - ŷ)²: at a new target that is near, its derivative is zero."""
    decoded, target, gradient, curvature = copies(latents)
    weight = 0.7
    move = step.move(decoded, target, gradient.copy(), weight, curvature)
    slope = weight * gradient + 2 * curvature * (target + move - decoded)
    near = abs(move) < step.REGION
    assert 0.2 < near.mean() < 0.8
    assert abs(slope[near]).max() < 1e-5


def test_a_move_is_clipped_on_both_sides(latents):
    decoded, target, gradient, curvature = copies(latents)
    move = step.move(decoded, target, 1e6 * gradient, 1.0, curvature)
    assert set(abs(move).flatten()) == {np.float32(step.REGION)}
    assert (np.sign(move) == -np.sign(gradient)).all()  # downhill
    assert abs(step.moved(target.copy(), move, 0.25) - target).max() <= 0.25 * step.REGION + 1e-6


def test_the_weight_cancels_where_the_curvature_has_it_too(latents):
    decoded, target, gradient, squares = copies(latents)
    once = step.move(decoded, target, gradient.copy(), 1, step.curvature(1, squares))
    heavy = step.move(decoded, target, gradient.copy(), 37.0, step.curvature(37.0, squares))
    np.testing.assert_allclose(once, heavy, rtol=1e-4, atol=1e-5)


def test_a_search_weighs_errors_more_than_training_did_and_most_at_the_lowest_rate():
    slopes = [step.slope(quality, 10000) for quality in (0, 2500, 5000, 10000)]
    assert slopes == sorted(slopes, reverse=True) and slopes[-1] > 1
    assert (slopes[0], slopes[-1]) == pytest.approx(step.SLOPES)
    places = torch.tensor([0.0, 1.75, 3.5, 7.0])  # of a grid of eight rates
    assert step.slope(places, 7).tolist() == pytest.approx(slopes)


def test_an_error_of_one_level_in_one_channel_weighs_a_third_of_the_trade_off():
    assert step.error_weight(0.3) * (1 / 255) ** 2 == pytest.approx(0.1)


def test_a_guess_is_quadratic_in_the_inverse_gain_and_a_measured_curvature_stiffer_than_its_squares():
    assert step.guessed_curvature(2.0, 5.0, 3.0) == 90.0
    assert step.curvature(2.0, 10.0) == pytest.approx(20 * step.STIFFNESS) and step.STIFFNESS > 1


def test_latents_far_from_what_was_decoded_are_undecided():
    y, decoded = np.float32([0.0, 0.2, 0.3, -0.3, 2.4]), np.float32([0.0, 0.0, 0.0, 0.0, 2.0])
    assert step.undecided(y, decoded).tolist() == [False, False, True, True, True]


def test_a_channel_with_nothing_that_counts_has_the_mean_of_all_and_one_with_much_its_own():
    squares = np.ones((1, 3, 20, 20), np.float32)
    counted = np.zeros(squares.shape, bool)
    counted[:, 1, :10] = True
    squares[:, 1, :10] = 5.0
    squares[:, 2] = 0.0
    mean, total = step.by_channel(squares, counted, 8)
    assert mean[0, 0, 0, 0] == 1.0
    assert mean[0, 1, 0, 0] == pytest.approx((200 * 5 + 8 * 3) / 208)
    assert 0 < mean[0, 2, 0, 0] < 1e-9  # its logarithm is finite
    assert total.flatten().tolist() == [0, 1000, 0]


def test_code_lengths_are_those_of_the_coder_by_table_and_symbol():
    tables = latent_tables(CONFIGS["tiny"])
    lengths = step.code_lengths(tables, REACH)
    assert lengths.shape == (len(tables), 2 * REACH + 1) and lengths.dtype == np.float32
    for number in (0, 20, len(tables) - 1):
        for symbol in (-REACH, -1, 0, 7):
            (bits,) = coder.code_lengths(np.array([symbol], np.int32), tables[number])
            assert lengths[number, REACH + symbol] == np.float32(bits)
    assert lengths[0, REACH] < 1 < lengths[-1, REACH]  # from sure zeros to wide tables
