"""What benchmarks/ holds: the published curves are curves with sources, and the promises notice when they are broken."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from codec.evaluation import curves

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PUBLISHED = curves.read_published(BENCHMARKS / "published_kodak.json")


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("curve", PUBLISHED, ids=lambda curve: curve.name)
def test_a_published_curve_rises_and_names_its_source(curve):
    assert curve.family in ("classical", "learned") and curve.source.split()[0].count("/") == 1
    assert (np.diff(curve.bpp) > 0).all() and (np.diff(curve.psnr_rgb) > 0).all()
    assert curve.ms_ssim is None or (np.diff(curve.ms_ssim) > 0).all() and max(curve.ms_ssim) < 1


def codec(name, factor, low=0.1, high=2.0, count=11):
    """A made-up codec on two images: 6 dB for each doubling of the rate."""
    bpp = factor * np.geomspace(low, high, count)[:, None] * np.array([[1.0, 1.2]])
    psnr = 30 + 6 * np.log2(bpp / factor)
    settings, images = tuple(np.linspace(0, 100, count)), ("a.png", "b.png")
    return curves.Measured(name, "1", settings, images, np.ones(2), bpp, {"psnr": psnr}, *[bpp] * 4)


def test_promises_are_kept_by_a_codec_of_half_of_webps_bits():
    codecs = {"lic": codec("lic", 0.5, 0.2, 4.0), "webp:m6": codec("webp:m6", 1.0), "jpeg": codec("jpeg", 2.0)}
    checks = load("kodak").promises(codecs)
    assert [kept for kept, _ in checks] == [True] * 4
    assert checks[2][1].startswith("BD-rate against webp:m6: -50.0 %")


def test_promises_are_broken_by_a_narrow_span_a_fall_or_too_many_bits():
    narrow = codec("lic", 0.9, 0.3, 1.0)
    narrow.quality["psnr"][4, 1] = narrow.quality["psnr"][3, 1]
    codecs = {"lic": narrow, "webp:m6": codec("webp:m6", 1.0), "jpeg": codec("jpeg", 1.2)}
    checks = load("kodak").promises(codecs)
    assert [kept for kept, _ in checks] == [False] * 4
    assert "b.png PSNR 30→40" in checks[1][1]
