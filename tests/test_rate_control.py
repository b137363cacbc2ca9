"""Targets: ceilings hold, floors hold, both are used well, and what cannot be reached is named."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import codec
from codec import lossy, rate_control, refine, weights
from codec.metrics import psnr
from codec.networks.execution import execution
from codec.rate_control import GRID, _Goal, _Search

pytestmark = pytest.mark.usefixtures("tiny_model")


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(codec.decompress(data))


@pytest.fixture(scope="module")
def large(photo) -> Image.Image:
    return photo.resize((384, 256), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("quality", [10, 40, 96])
@pytest.mark.parametrize("effort", [3, 4])
def test_a_size_is_a_ceiling_of_the_whole_file(large, quality, effort):
    image = large.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    wanted = 29 + len(codec.compress(image, quality, exif=b"Exif\0\0MM\0*rest"))
    data = codec.compress(image, target_bytes=wanted, effort=effort, exif=b"Exif\0\0MM\0*rest")
    assert 0.985 * wanted <= len(data) <= wanted
    assert decoded(data).shape == (256, 384, 4)


def test_a_rate_is_a_ceiling_too(large):
    rate = 8 * (len(codec.compress(large, 60)) + 5) / (384 * 256)
    assert 0.985 * rate <= codec.inspect(codec.compress(large, target_bpp=rate)).bpp <= rate


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("effort", [3, 4])
def test_a_psnr_is_a_floor_of_the_decoded_pixels(large, mode, effort):
    image = large.convert(mode)
    wanted = psnr(np.asarray(image), decoded(codec.compress(image, 50))) + 0.3
    found = psnr(np.asarray(image), decoded(codec.compress(image, target_psnr=wanted, effort=effort)))
    assert wanted <= found <= wanted + 0.05


def test_what_cannot_be_reached_is_an_error_that_names_the_nearest(photo):
    smallest = len(codec.compress(photo, 0))
    with pytest.raises(codec.TargetError, match=f"10 bytes .*smallest file has {smallest} .quality 0"):
        codec.compress(photo, target_bytes=10)
    with pytest.raises(codec.TargetError, match="smallest file"):
        codec.compress(photo, target_bpp=1e-9)
    with pytest.raises(codec.TargetError, match=r"99 dB .*the best is [\d.]+ dB .quality 100"):
        codec.compress(photo, target_psnr=99)


def test_more_bytes_than_the_best_quality_needs_give_the_best_quality(photo):
    assert codec.compress(photo, target_bytes=10**7, lossless="never") == codec.compress(photo, 100)
    assert codec.compress(photo, target_psnr=1) == codec.compress(photo, 0)


def search(goal: _Goal, truth, curve=GRID / 1000) -> _Search:
    """Drafts are off by a little, and their results must not be used."""

    def attempt(q, draft):
        return (None, truth(q) + 0.01 * math.sin(9 * q)) if draft else (q, truth(q))

    return _Search(goal, curve, attempt, rate_control.PROBES, rate_control.DRAFTS).run()


@pytest.mark.parametrize("ceiling", [True, False])
@pytest.mark.parametrize("value", [0.7, 3.0, 9.0])
@pytest.mark.parametrize(
    "truth", [lambda q: q / 1000, lambda q: q / 900 - 0.5, lambda q: 8 * math.sqrt(q / 6400) + 0.01 * math.sin(q)]
)
def test_the_search_needs_few_attempts_and_never_ends_on_the_wrong_side(ceiling, value, truth):
    goal = _Goal(value, 0.01, 0.04, ceiling=ceiling)
    found = search(goal, truth)
    assert found.best is not None and goal.close(truth(found.best)) and len(found.known) + len(found.drafts) <= 8


def test_a_staircase_still_ends_on_the_right_side():
    """Values that jump over the range that would be accepted."""
    for ceiling in (True, False):
        found = search(_Goal(4.5, 0.01, 0.02, ceiling=ceiling), lambda q: float(q // 1000))
        assert found.best // 1000 == (4 if ceiling else 5) and len(found.known) <= 11


def test_a_plateau_with_ripples_is_crossed():
    """Just beside the goal, as latents scaled from another quality make one: bytes that stay where they are for a while."""

    def truth(q: float) -> float:
        return 5 + 0.015 * math.sin(q / 20) if abs(q - 5000) < 200 else (q - math.copysign(200, q - 5000)) / 1000

    for ceiling, value in ((True, 4.97), (False, 5.03)):
        found = search(_Goal(value, 0.01, 0.04, ceiling=ceiling), truth, curve=(GRID - (200 if ceiling else -200)) / 1000)
        assert found.best is not None and abs(truth(found.best) - value) <= 0.15  # not the end of the scale


def test_a_high_effort_makes_no_drafts(photo, monkeypatch):
    """They would cost as much as what is kept."""
    made = []
    attempt = _Search.run

    def run(self):
        found = attempt(self)
        made.append((len(found.drafts), len(found.known)))
        return found

    monkeypatch.setattr(_Search, "run", run)
    monkeypatch.setitem(refine.PLANS, 5, dataclasses.replace(refine.PLANS[5], iterations=2))
    codec.compress(photo, target_bytes=900, effort=5)
    (first, second), (none, few) = made
    assert first >= 1 and none == 0 and 1 <= few <= 5


def test_drafts_and_samples_are_rough_but_right(photo):
    """What they say is near the truth: for a sample after its correction, for the squares of a picture of one texture."""
    with execution("cpu", 0):
        model = weights.load(weights.default_path())
        pixels = np.tile(np.asarray(photo)[:64, :64], (6, 8, 1))
        sample = rate_control._sample(pixels)
        assert sample.shape == (192, 192, 3) and np.array_equal(sample[:64, :64], pixels[:64, :64])
        assert rate_control._sample(pixels[:200, :200]) is None
        encoder = lossy.Encoder(model, pixels)
        curve = rate_control._glance(encoder, False)
        added = rate_control._sampled(model, pixels, curve, float(curve[5]), False)
        true = psnr(pixels, encoder.picture(refine.refine(encoder, encoder.analyse(5000), 5000, refine.CHEAP)))
    assert abs(curve[5] + added - true) < 1.5


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two models in a folder of one's own, which are `base` and `eyes` there; nothing else chooses."""
    golden = Path(__file__).parent / "golden" / "v1"
    for source, name in (("tiny", "base"), ("trellis", "eyes")):
        (tmp_path / f"{name}.safetensors").write_bytes((golden / f"{source}.safetensors").read_bytes())
    monkeypatch.setenv("CODEC_MODELS", str(tmp_path))
    monkeypatch.delenv("CODEC_MODEL")
    return tmp_path


def model_of(data: bytes) -> str:
    codec.decompress(data)  # finds it by its id
    return codec.inspect(data).model


def test_a_tune_for_the_eye_takes_the_model_for_it(folder, photo):
    base, eyes = (weights.digest(folder / f"{name}.safetensors")[:4].hex() for name in ("base", "eyes"))
    for options in ({}, {"target_bytes": 900}):
        assert model_of(codec.compress(photo, tune="ssimulacra2", **options)) == eyes
        for tune in ("psnr", "ms-ssim"):
            assert model_of(codec.compress(photo, tune=tune, **options)) == base


def test_a_folder_without_a_model_for_the_eye_has_its_one_model(folder, photo):
    """A packaged one was not made for it."""
    (folder / "eyes.safetensors").unlink()
    base = weights.digest(folder / "base.safetensors")[:4].hex()
    assert model_of(codec.compress(photo, tune="ssimulacra2")) == base


def test_the_model_that_the_environment_names_serves_every_tune(folder, photo, monkeypatch):
    monkeypatch.setenv("CODEC_MODEL", "base")
    base = weights.digest(folder / "base.safetensors")[:4].hex()
    assert model_of(codec.compress(photo, tune="ssimulacra2")) == base
    monkeypatch.setenv("CODEC_MODEL", "absent")
    with pytest.raises(codec.UnsupportedError, match="absent"):
        codec.compress(photo, tune="ssimulacra2")


def test_the_end_of_the_scale_is_the_nearest_where_nothing_reaches():
    found = search(_Goal(-5.0, 0.01, 0.02, ceiling=True), lambda q: q / 1000)
    assert found.best is None and found.nearest == (0, 0.0)
    found = search(_Goal(15.0, 0.01, 0.02, ceiling=False), lambda q: q / 1000)
    assert found.best is None and found.nearest == (10000, 10.0)


@pytest.mark.parametrize("target", [{"target_bytes": 6000}, {"target_psnr": 27.0}])
def test_targets_of_pictures_that_are_coded_block_by_block(target, monkeypatch):
    with Image.open(Path(__file__).parent / "data" / "kodim23.png") as image:
        picture = image.convert("RGB").crop((100, 100, 400, 300))
    monkeypatch.setattr(lossy, "HUGE", 1000)
    monkeypatch.setattr(lossy, "BLOCK", 128)
    monkeypatch.setattr(lossy, "SMALL_BLOCK", 128)
    monkeypatch.setattr("codec.tiles.TILE", 128)
    monkeypatch.setattr(lossy, "TILE", 128)
    data = codec.compress(picture, **target)
    if "target_bytes" in target:
        assert 0.97 * 6000 <= len(data) <= 6000
    else:
        assert 27.0 <= psnr(np.asarray(codec.decompress(data)), np.asarray(picture)) <= 27.1
