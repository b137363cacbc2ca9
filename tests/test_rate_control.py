"""Targets: ceilings hold, floors hold, both are used well, and what cannot be reached is named."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import codec
from codec import lossy, rate_control, refine, weights
from codec.metrics import psnr
from codec.networks import ssimulacra2
from codec.networks.execution import execution
from codec.rate_control import GRID, Goal, Search

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


def points(reference: np.ndarray, image: np.ndarray) -> float:
    """SSIMULACRA 2 of H×W (gray) or H×W×C; alpha does not count."""
    three = [np.stack([x] * 3, 2) if x.ndim == 2 else x[..., :3] for x in (reference, image)]
    samples = [torch.from_numpy(x.transpose(2, 0, 1)[None] / np.float32(255)) for x in three]
    return float(ssimulacra2.score(ssimulacra2.inner(*samples)))


@pytest.mark.parametrize(
    "mode, options", [("RGB", {}), ("RGB", {"tune": "ssimulacra2"}), ("L", {"effort": 1}), ("RGBA", {"effort": 2})]
)
def test_ssimulacra2_is_a_floor_of_the_decoded_pixels(large, mode, options):
    image = large.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    for quality in (30, 80):
        wanted = points(np.asarray(image), decoded(codec.compress(image, quality, **options))) + 0.4
        found = points(np.asarray(image), decoded(codec.compress(image, target_ssimulacra2=wanted, **options)))
        assert wanted <= found <= wanted + 0.03 * (100 - wanted)


def test_a_floor_of_ssimulacra2_may_be_negative_and_names_the_best_where_it_is_too_high(photo):
    assert codec.compress(photo, target_ssimulacra2=-500) == codec.compress(photo, 0)
    words = r"SSIMULACRA 2 of {} cannot be reached: the best is -?[\d.]+ .quality 100"
    for floor in (99.9, 100):
        with pytest.raises(codec.TargetError, match=words.format(floor)):
            codec.compress(photo, target_ssimulacra2=floor, lossless="never")


def test_only_equal_pixels_have_100_points():
    few = np.random.default_rng(0).integers(0, 2, (40, 40, 1), dtype=np.uint8).repeat(3, 2) * 255  # a bit a pixel, exact
    data = codec.compress(few, target_ssimulacra2=100)
    assert codec.inspect(data).lossless and np.array_equal(decoded(data), few)
    with pytest.raises(codec.TargetError):
        codec.compress(few, target_ssimulacra2=100, lossless="never")


@pytest.mark.parametrize("size", [(7, 40), (40, 7), (1, 1)])
def test_a_picture_too_small_for_ssimulacra2_is_refused(size, photo):
    with pytest.raises(codec.ImageError, match="undefined below 8 pixels a side, got {}×{}".format(*size)):
        codec.compress(photo.resize(size), target_ssimulacra2=50)
    assert codec.decompress(codec.compress(photo.resize((8, 8)), target_ssimulacra2=-100)).size == (8, 8)


def test_the_points_of_a_picture_in_parts_are_those_of_the_mean_of_their_inner_sums(large, monkeypatch):
    image = np.asarray(large)[:200]
    monkeypatch.setattr(rate_control, "AT_ONCE", 200 * 384 - 1)
    monkeypatch.setattr(rate_control, "PART", 200)
    found = decoded(codec.compress(image, target_ssimulacra2=50))
    halves = [tuple(torch.from_numpy(x[:, place].transpose(2, 0, 1)[None] / np.float32(255)) for x in (image, found))
              for place in (slice(192), slice(192, 384))]  # fmt: skip
    inner = sum(float(ssimulacra2.inner(*half)) for half in halves) / 2
    assert 50 <= ssimulacra2.score(inner) <= 51
    assert abs(ssimulacra2.score(inner) - points(image, found)) > 0.001


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


def search(goal: Goal, truth, curve=GRID / 1000) -> Search:
    """Drafts are off by a little, and their results must not be used."""
    found = Search(goal, curve, rate_control.PROBES, rate_control.DRAFTS)
    while (asked := found.ask()) is not None:
        quality, draft = asked
        off = 0.01 * math.sin(9 * quality) if draft else 0
        found.tell(quality, draft, truth(quality) + off, None if draft else quality)
    return found


@pytest.mark.parametrize("ceiling", [True, False])
@pytest.mark.parametrize("value", [0.7, 3.0, 9.0])
@pytest.mark.parametrize(
    "truth", [lambda q: q / 1000, lambda q: q / 900 - 0.5, lambda q: 8 * math.sqrt(q / 6400) + 0.01 * math.sin(q)]
)
def test_the_search_needs_few_attempts_and_never_ends_on_the_wrong_side(ceiling, value, truth):
    goal = Goal(value, 0.01, 0.04, ceiling=ceiling)
    found = search(goal, truth)
    assert found.best is not None and goal.close(truth(found.best)) and len(found.known) + len(found.drafts) <= 8


def test_a_staircase_still_ends_on_the_right_side():
    """Values that jump over the range that would be accepted."""
    for ceiling in (True, False):
        found = search(Goal(4.5, 0.01, 0.02, ceiling=ceiling), lambda q: float(q // 1000))
        assert found.best // 1000 == (4 if ceiling else 5) and len(found.known) <= 11


def test_a_plateau_with_ripples_is_crossed():
    """Just beside the goal, as latents scaled from another quality make one: bytes that stay where they are for a while."""

    def truth(q: float) -> float:
        return 5 + 0.015 * math.sin(q / 20) if abs(q - 5000) < 200 else (q - math.copysign(200, q - 5000)) / 1000

    for ceiling, value in ((True, 4.97), (False, 5.03)):
        found = search(Goal(value, 0.01, 0.04, ceiling=ceiling), truth, curve=(GRID - (200 if ceiling else -200)) / 1000)
        assert found.best is not None and abs(truth(found.best) - value) <= 0.15  # not the end of the scale


def test_a_high_effort_makes_no_drafts(photo, monkeypatch):
    """They would cost as much as what is kept."""
    searches = []

    class Recorded(Search):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            searches.append(self)

    monkeypatch.setattr(rate_control, "Search", Recorded)
    monkeypatch.setitem(refine.PLANS, 5, dataclasses.replace(refine.PLANS[5], iterations=2))
    codec.compress(photo, target_bytes=900, effort=5)
    first, second = searches
    assert first.drafts and not second.drafts and 1 <= len(second.known) <= 5


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
    found = search(Goal(-5.0, 0.01, 0.02, ceiling=True), lambda q: q / 1000)
    assert found.best is None and found.nearest == (0, 0.0)
    found = search(Goal(15.0, 0.01, 0.02, ceiling=False), lambda q: q / 1000)
    assert found.best is None and found.nearest == (10000, 10.0)


@pytest.mark.parametrize("target", [{"target_bytes": 6000}, {"target_psnr": 27.0}, {"target_ssimulacra2": 20}])
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
    elif "target_ssimulacra2" in target:
        assert 20 <= points(np.asarray(picture), decoded(data)) <= 22
    else:
        assert 27.0 <= psnr(np.asarray(codec.decompress(data)), np.asarray(picture)) <= 27.1
