"""Effort: each level costs no more than the one below, files stay decodable, tiles agree with the whole."""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import codec
from codec import cli, lossy, refine, step, weights
from codec.freeze import freeze
from codec.networks.config import LossyConfig
from codec.networks.model import LossyVAE

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    with Image.open(Path(__file__).parent / "data" / "kodim23.png") as image:
        return np.array(image)


@pytest.fixture(scope="module")
def pixels(photo) -> np.ndarray:
    return photo[100:220, 200:390]


@pytest.fixture
def few_iterations(monkeypatch):
    fewer = {level: dataclasses.replace(plan, iterations=min(plan.iterations, level)) for level, plan in refine.PLANS.items()}
    monkeypatch.setattr(refine, "PLANS", fewer)


def costs(pixels: np.ndarray, quality: int, efforts: list[int]) -> list[float]:
    """R + λD of the symbols that each effort chooses, with the shipped weights: the tiny model's hardly move."""
    with lossy.execution("cpu", 0):
        encoder = lossy.Encoder(weights.load(weights.PACKAGED / f"{weights.DEFAULT_MODEL}.safetensors"), pixels)
        y = encoder.analyse(quality)
        problem = refine._Problem.of(encoder, y, quality)
        return [problem.cost(refine.refine(encoder, y, quality, effort)) for effort in efforts]


@pytest.mark.parametrize("quality", [1000, 5000, 9000])
def test_a_higher_effort_costs_less(photo, quality):
    one, two, three, four, five, six, seven, nine = costs(photo[100:292, 100:356], quality, [1, 2, 3, 4, 5, 6, 7, 9])
    # A path through a trellis turns on little: on a crop of this size the cost moves by half a percent with the last bit of a latent.
    assert one > two > three > five and four < 1.01 * three and five < 1.01 * four and six < 1.01 * five and seven == nine < 1.01 * six


def test_the_cost_is_that_of_the_real_file(pixels):
    """Bits of the coder and pixels of the decoder, not estimates."""
    with lossy.execution("cpu", 0):
        model = weights.load(weights.default_path())
        encoder = lossy.Encoder(model, pixels)
        y = encoder.analyse(4000)
        problem = refine._Problem.of(encoder, y, 4000)
        latents = refine.refine(encoder, y, 4000, 4)
        data = encoder.write(latents)
        cost = problem.cost(latents)
    decoded = lossy.decode(
        data, width=pixels.shape[1], height=pixels.shape[0], quality=4000, model_id=model.model_id, device="cpu"
    )
    error = np.square(decoded.astype(float) - pixels).sum() / 3
    trade_off = problem.error_weight * 3 / 255**2
    assert cost == pytest.approx(8 * len(data) + trade_off * error, rel=0.02)


@pytest.mark.parametrize("effort", [4, 5, 7])
def test_files_of_every_effort_decode_to_what_the_encoder_saw(pixels, effort, few_iterations):
    data = codec.compress(pixels, 40, effort=effort)
    with lossy.execution("auto", 0) as place:
        encoder = lossy.Encoder(weights.load(weights.default_path(), place), pixels)
        expected = encoder.picture(refine.refine(encoder, encoder.analyse(4000), 4000, effort))
    assert np.abs(np.asarray(codec.decompress(data)).astype(int) - expected).max() <= 1
    assert codec.inspect(data).quality == 40


def test_the_same_input_gives_the_same_file(pixels, few_iterations):
    assert codec.compress(pixels, 60, effort=6, threads=1) == codec.compress(pixels, 60, effort=6, threads=1)


def test_a_large_picture_is_refined_tile_by_tile(photo, monkeypatch):
    whole = costs(photo[:192, 320:576], 5000, [3, 4])
    monkeypatch.setattr(refine, "WINDOW", 64)
    # Half precision differs in the last bit, and a path through a trellis turns on little (see above).
    assert costs(photo[:192, 320:576], 5000, [3, 4]) == pytest.approx(whole, rel=0.015)


def test_tiny_pictures_are_refined_too(few_iterations):
    for shape in ((1, 1, 3), (3, 70, 3)):
        image = np.full(shape, 77, np.uint8)
        assert codec.decompress(codec.compress(image, effort=6)).size == (shape[1], shape[0])


def test_progress_rises_to_the_end(pixels, few_iterations):
    for effort, steps in ((1, 0), (2, 1), (3, 3), (4, 4), (6, 6)):
        said = []
        codec.compress(pixels, 50, effort=effort, progress=said.append)
        assert said == pytest.approx([(k + 1) / steps for k in range(steps)])


def test_a_long_search_draws_a_bar_on_a_terminal_only(pixels, tmp_path, monkeypatch, capsys, few_iterations):
    Image.fromarray(pixels).save(tmp_path / "in.png")
    words = ["compress", str(tmp_path / "in.png"), str(tmp_path / "out.lic"), "-e", "6"]
    assert cli.main(words) == 0 and "%" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main([*words, "--quiet"]) == 0 and not capsys.readouterr().err
    assert cli.main(words) == 0
    drawn = capsys.readouterr().err
    assert "] 17 %" in drawn and "] 100 %\r\x1b[K" in drawn and drawn.endswith(" s\n")


def test_an_interrupted_search_leaves_nothing_half_written(pixels, tmp_path, monkeypatch):
    Image.fromarray(pixels).save(tmp_path / "in.png")
    (tmp_path / "out.lic").write_bytes(b"old")
    move = step.move

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return move(*arguments)

    monkeypatch.setattr(step, "move", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["compress", str(tmp_path / "in.png"), str(tmp_path / "out.lic"), "-e", "9"])
    assert ended.value.code == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.lic"]
    assert (tmp_path / "out.lic").read_bytes() == b"old"


def test_a_factorised_model_is_quantised_by_rate_and_distortion(tmp_path, monkeypatch, pixels):
    torch.manual_seed(0)
    config = LossyConfig("plain", transform="convolutional", prior="factorised", widths=(8, 8, 8), latent_channels=12, rate_points=2)
    weights.save(freeze(LossyVAE(config)), tmp_path / "plain.safetensors")
    monkeypatch.setenv("CODEC_MODELS", str(tmp_path))
    monkeypatch.setenv("CODEC_MODEL", "plain")
    for effort in (3, 4):
        assert codec.decompress(codec.compress(pixels, 80, effort=effort)).size == (190, 120)
