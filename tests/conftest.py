"""What every test shares: the pictures of tests/data, and a tiny model that codes them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
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


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The small model of the golden files; it is what compresses while the fixture is in use."""
    folder = Path(__file__).parent / "golden" / "v1"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CODEC_MODELS", str(folder))
        environment.setenv("CODEC_MODEL", "tiny")
        environment.setenv("CODEC_LOSSLESS_MODEL", "lossless-tiny")
        yield folder / "tiny.safetensors"


settings.register_profile("long", max_examples=2000)  # pytest --hypothesis-profile=long: where a test leaves it open
