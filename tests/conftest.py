"""What tests share: a picture of tests/data, a tiny model that codes it, the command line, torch in another setting."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from codec import cli

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


@pytest.fixture
def run(capsys):
    """The command line in this process: arguments -> exit status, and what it says on stderr."""

    def run(*arguments: str) -> tuple[int, str]:
        status = cli.main(list(arguments))
        return status, capsys.readouterr().err

    return run


@contextlib.contextmanager
def setting(threads: int, mkldnn: bool):
    """torch with so many threads, and with oneDNN or without; no file may depend on either."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.mkldnn.flags(enabled=mkldnn):
            yield
    finally:
        torch.set_num_threads(before)


settings.register_profile("long", max_examples=2000)  # pytest --hypothesis-profile=long: where a test leaves it open
