"""Effort: each level costs no more than the one below, files stay decodable, windows agree with the whole."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import codec
from codec import cli, lossy, refine, weights
from codec.networks.config import LossyConfig
from codec.networks.model import LossyVAE
from codec.training.export import save_network

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    with Image.open(Path(__file__).parent / "data" / "kodim23.png") as image:
        return np.array(image)[100:220, 200:390]


@pytest.fixture
def few_iterations(monkeypatch):
    monkeypatch.setattr(refine, "PHASES", {level: (2, 0.4) for level in range(4, 10)})


def costs(pixels: np.ndarray, quality: int, efforts: list[int]) -> list[float]:
    """R + λD of the symbols that each effort chooses."""
    with lossy.execution("cpu", 0):
        encoder = lossy.Encoder(weights.load(weights.default_path()), pixels)
        y = encoder.analyse(quality)
        problem = refine._Problem.of(encoder, y, encoder.quantise(y, quality))
        return [problem.cost(refine.refine(encoder, y, quality, effort)) for effort in efforts]


@pytest.mark.parametrize("quality", [1000, 5000, 9000])
def test_a_higher_effort_costs_less(pixels, quality, few_iterations):
    one, three, four, five, six, nine = costs(pixels, quality, [1, 3, 4, 5, 6, 9])
    slack = 1.003  # a search compares estimates; only the least is measured in earnest
    assert one == three >= four and four * slack >= five and five * slack >= six and six * slack >= nine


def test_the_cost_is_that_of_the_real_file(pixels):
    """Bits of the coder and pixels of the decoder, not estimates."""
    with lossy.execution("cpu", 0):
        model = weights.load(weights.default_path())
        encoder = lossy.Encoder(model, pixels)
        y = encoder.analyse(4000)
        problem = refine._Problem.of(encoder, y, encoder.quantise(y, 4000))
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


def test_a_large_picture_is_refined_in_windows(pixels, monkeypatch, few_iterations):
    whole = costs(pixels, 5000, [6])[0]
    monkeypatch.setattr(refine, "WINDOW", 64)
    monkeypatch.setattr(refine, "MARGIN", 64)
    assert costs(pixels, 5000, [6])[0] == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize("size", [64, 832, 896, 960, 1024, 2048, 2560])
def test_windows_cover_every_pixel_once_and_are_bounded(size):
    spans = refine._spans(size)
    assert spans[0].start == 0 and spans[-1].stop == size
    assert all(a.stop == b.start for a, b in zip(spans, spans[1:], strict=False))
    for span in spans:
        assert span.seen_start <= span.start < span.stop <= span.seen_stop <= size
        assert span.seen_stop - span.seen_start <= refine.WINDOW + 2 * refine.MARGIN
        assert not any(edge % 64 for edge in (span.start, span.stop, span.seen_start, span.seen_stop))


def test_tiny_pictures_are_refined_too(few_iterations):
    for shape in ((1, 1, 3), (3, 70, 3)):
        image = np.full(shape, 77, np.uint8)
        assert codec.decompress(codec.compress(image, effort=6)).size == (shape[1], shape[0])


def test_progress_rises_to_the_end_through_all_windows(pixels, monkeypatch, few_iterations):
    monkeypatch.setattr(refine, "WINDOW", 64)
    monkeypatch.setattr(refine, "MARGIN", 0)
    for effort, steps in ((3, 0), (4, 2), (5, 4), (6, 6)):
        said = []
        codec.compress(pixels, 50, effort=effort, progress=said.append)
        assert said == pytest.approx([(k + 1) / (steps * 6) for k in range(steps * 6)])  # 120×190: 2×3 windows


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
    look = refine._Search.look

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return look(*arguments, **options)

    monkeypatch.setattr(refine._Search, "look", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["compress", str(tmp_path / "in.png"), str(tmp_path / "out.lic"), "-e", "9"])
    assert ended.value.code == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.lic"]
    assert (tmp_path / "out.lic").read_bytes() == b"old"


def test_a_factorised_model_is_quantised_by_rate_and_distortion(tmp_path, monkeypatch, pixels):
    torch.manual_seed(0)
    config = LossyConfig("plain", transform="convolutional", prior="factorised", widths=(8, 8, 8), latent_channels=12, rate_points=2)
    save_network(LossyVAE(config), tmp_path / "plain.safetensors", {})
    monkeypatch.setenv("CODEC_MODELS", str(tmp_path))
    monkeypatch.setenv("CODEC_MODEL", "plain")
    for effort in (4, 6):
        assert codec.decompress(codec.compress(pixels, 80, effort=effort)).size == (190, 120)
