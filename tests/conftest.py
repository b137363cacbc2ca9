"""What every test shares: the pictures of tests/data, and a tiny model that codes them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A crop of a Kodak photograph, 96×64 RGB."""
    with Image.open(DATA / "kodim23_crop.png") as image:
        image.load()
        return image


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2024)
