"""What examples/ holds runs, and keeps its promise: nothing is predicted from what is not known yet."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).parent.parent / "examples" / "lossless_next"


@pytest.fixture(scope="module")
def lossless_next():
    sys.path.insert(0, str(FOLDER))
    try:
        import least_squares
        import network
    finally:
        sys.path.remove(str(FOLDER))
    return least_squares, network


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(90, 120, (7, 9, 3)).astype(np.uint8)


def test_adaptive_predictions_see_nothing_of_what_comes_later(lossless_next, pixels):
    least_squares, _ = lossless_next
    before = least_squares.predict(pixels)
    pixels[4, 5, 0] += 50  # R of a pixel, which B of it sees, and G not
    after = least_squares.predict(pixels)
    assert np.array_equal(before[:4], after[:4]) and np.array_equal(before[4, :5], after[4, :5])
    assert np.array_equal(before[4, 5, :2], after[4, 5, :2]) and before[4, 5, 2] != after[4, 5, 2]


def test_the_network_with_its_weights_sees_nothing_of_what_comes_later(lossless_next, pixels):
    least_squares, network = lossless_next
    model = network.CanvasNetwork()
    model.load_state_dict(load_file(FOLDER / "weights.safetensors"))
    x, base = torch.from_numpy(pixels).float()[None], torch.full((1, 7, 9, 3), 100.0)
    adaptive = torch.from_numpy(least_squares.predict(pixels)).float()[None]
    with torch.no_grad():
        before = model.bits(x, base, adaptive)
        x[0, 4, 5, 0] += 50
        after = model.bits(x, base, adaptive)
    moved = (before - after).abs() > 1e-4  # products of another shape round otherwise
    assert not moved[0, :4].any() and not moved[0, 4, :5].any() and not moved[0, 4, 5, 0].any()
    assert moved[0, 4, 5, 1:].all() and moved[0, 5].any()  # in coding order: G, R, B
