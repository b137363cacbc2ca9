"""What benchmarks/ holds: the published curves are curves with sources, and the promises notice when they are broken."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codec.evaluation import curves, viewer

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


def test_the_crops_of_a_sheet_are_where_the_worst_picture_is_worst_and_not_the_same_twice(rng):
    original = Image.fromarray(rng.integers(80, 176, (128, 160, 3), dtype=np.uint8))
    good, bad = original.copy(), original.copy()
    good.paste("red", (0, 0, 8, 8))
    bad.paste("blue", (100, 70, 132, 102))
    (left, top), second = load("sheets").worst_crops(original, [good, bad], 64, 2)
    assert left <= 100 and left + 64 >= 132 and top <= 70 and top + 64 >= 102
    assert max(abs(second[0] - left), abs(second[1] - top)) >= 32
    assert load("sheets").worst_crops(original, [bad], 400, 2) == [(0, 0)]


def test_sheets_show_the_original_beside_what_each_codec_makes_of_as_many_bytes(tmp_path, photo, monkeypatch, capsys):
    photo.save(tmp_path / "photo.png")
    words = [tmp_path, "--out", tmp_path / "out", "--codecs", "jpeg,webp:m0,flif", "--rates", "1", "--metrics", ""]
    monkeypatch.setattr("sys.argv", ["sheets.py", *map(str, words), "--crop", "40", "--crops", "1"])
    assert load("sheets").main() == 0
    path = tmp_path / "out" / "sheets" / "photo_1.png"
    assert capsys.readouterr().out == f"{path}\n"
    shots = [shot for shot in viewer.read(tmp_path / "out") if shot.codec]
    assert [shot.codec for shot in shots] == ["jpeg", "webp:m0"] and all(shot.bytes <= 96 * 64 / 8 for shot in shots)
    page = np.asarray(Image.open(path))
    assert page.shape[1] == 3 * 46 + 6
    panels = [page[-46:-6, 6 + 46 * k : 46 + 46 * k] for k in range(3)]
    whole = [np.asarray(photo), *(np.asarray(Image.open(tmp_path / "out" / "viewer" / shot.file)) for shot in shots)]
    places = [(y, x) for y in range(25) for x in range(57) if np.array_equal(whole[0][y : y + 40, x : x + 40], panels[0])]
    assert len(places) == 1
    for panel, picture in zip(panels, whole, strict=True):
        y, x = places[0]
        assert np.array_equal(panel, picture[y : y + 40, x : x + 40])
