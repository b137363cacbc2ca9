"""BD-rate against SciPy's PCHIP, the package `bjontegaard` and published figures; all values recorded, nothing imported."""

import json
from pathlib import Path

import numpy as np
import pytest

from codec.evaluation.bdrate import Pchip, bd_rate, bits_at_equal_quality, rate_curve

PUBLISHED = Path(__file__).parents[1] / "benchmarks" / "published_kodak.json"


def published(name):
    curve = next(c for c in json.loads(PUBLISHED.read_text("utf-8"))["curves"] if c["name"] == name)
    return rate_curve(curve["bpp"], curve["psnr_rgb"])


def test_pchip_equals_scipy():
    # scipy 1.17.1 PchipInterpolator: a flat piece, a local maximum, a steep end.
    curve = Pchip([0.0, 1, 1.5, 4, 5, 7], [0.0, 2, 2.5, 2.5, 1, 6])
    expected = [0.6272321428571428, 2.2685714285714287, 2.5, 1.75, 5.497458333333335]
    assert curve([0.25, 1.2, 2, 4.5, 6.9]) == pytest.approx(expected, abs=1e-13)
    assert curve.integral(0.5, 6) == pytest.approx(11.359375, abs=1e-12)
    turning = Pchip([0.0, 1, 2], [0.0, 1, -5])
    assert turning([0.3, 1.8]) == pytest.approx([0.657, -3.16], abs=1e-13)


def test_pchip_of_two_points_is_a_line_and_keeps_its_knots():
    line = Pchip([1.0, 3], [5.0, 9])
    assert line([1.0, 2.0, 3.0]) == pytest.approx([5, 7, 9], abs=1e-14)
    assert line.integral(1, 3) == pytest.approx(14, abs=1e-13)


def test_pchip_never_overshoots():
    rng = np.random.default_rng(4)
    for _ in range(50):
        x, y = np.cumsum(rng.uniform(0.1, 3, 8)), np.cumsum(rng.uniform(0, 1, 8))
        assert (np.diff(Pchip(x, y)(np.linspace(x[0], x[-1], 500))) >= -1e-12).all()


@pytest.mark.parametrize(
    "name, against_vtm, against_bpg",
    [
        # anchors computed independently with SciPy; papers print −7.0 for ELIC, −5.9 for QARV (against VTM-18).
        ("VTM-18.0", -0.2, -19.1),
        ("BPG-444", 22.0, 0.0),
        ("HM", 23.3, 0.8),
        ("AV1", 16.2, -6.2),
        ("WebP", 78.7, 44.2),
        ("JPEG", 208.5, 143.0),
        ("mbt2018-mean", 21.3, -3.3),
        ("ELIC", -7.0, -26.6),
        ("QARV", -5.9, -21.7),
        ("EVC-SS", 7.1, -13.8),
        ("HPCM-Large", -20.0, -36.8),
    ],
)
def test_published_curves_give_the_published_bd_rates(name, against_vtm, against_bpg):
    assert bd_rate(published("VTM-9.1"), published(name)).percent == pytest.approx(against_vtm, abs=0.051)
    assert bd_rate(published("BPG-444"), published(name)).percent == pytest.approx(against_bpg, abs=0.051)


def test_bd_rate_equals_the_package_bjontegaard():
    # bjontegaard 1.3.0, method "pchip"; on 2000 random curves the two differed by less than 1e-12.
    anchor = rate_curve([0.12, 0.25, 0.5, 0.9, 1.6], [27.1, 29.9, 32.8, 35.6, 39.0])
    test = rate_curve([0.1, 0.22, 0.41, 0.85, 1.5], [26.5, 29.8, 32.5, 36.1, 39.4])
    percent, low, high = bd_rate(anchor, test)
    assert percent == pytest.approx(-11.472253197716519, abs=1e-9)
    assert (low, high) == (27.1, 39.0)


def test_ten_percent_fewer_bits_everywhere_is_minus_ten():
    rates, decibels = np.array([0.1, 0.3, 0.7, 1.5]), [27.0, 31, 35, 39]
    anchor, test = rate_curve(rates, decibels), rate_curve(0.9 * rates, decibels)
    assert bd_rate(anchor, test).percent == pytest.approx(-10, abs=1e-12)
    assert bd_rate(test, anchor).percent == pytest.approx(100 / 9, abs=1e-12)
    assert bits_at_equal_quality(anchor, test, 0.5) == pytest.approx(-10, abs=1e-10)


def test_point_order_lossless_points_and_ties_do_not_matter():
    plain = rate_curve([0.1, 0.3, 0.7], [27, 31, 35])
    messy = rate_curve([0.7, 9.0, 0.1, 0.3, 0.35], [35, np.inf, 27, 31, 31])
    assert bd_rate(plain, messy).percent == 0


def test_curves_without_common_quality_are_an_error():
    with pytest.raises(ValueError, match=r"no quality in common: 27.00–31.00 and 31.00–35.00"):
        bd_rate(rate_curve([0.1, 0.3], [27, 31]), rate_curve([0.3, 0.7], [31, 35]))


def test_qualities_outside_of_a_span_do_not_count():
    scores, rates = [20.0, 40, 60, 90], np.array([0.1, 0.3, 0.7, 1.5])
    anchor, test = rate_curve(rates, scores), rate_curve(rates * [0.5, 0.9, 0.9, 0.9], scores)
    inside = bd_rate(anchor, test, (60, 90))
    assert inside.percent == pytest.approx(-10) and (inside.low, inside.high) == (60, 90)
    assert bd_rate(anchor, test).percent < -15
    with pytest.raises(ValueError, match="no quality in common within 95–99: 20.00–90.00 and 20.00–90.00"):
        bd_rate(anchor, test, (95, 99))


def test_a_rate_beyond_the_anchor_is_an_error():
    curve = rate_curve([0.1, 0.3], [27, 31])
    with pytest.raises(ValueError, match="2.0 bpp is outside of the anchor's 0.100–0.300"):
        bits_at_equal_quality(curve, curve, 2.0)


@pytest.mark.parametrize("x, y", [([1.0], [1.0]), ([1.0, 1], [1.0, 2]), ([1.0, 2], [1.0, np.nan]), ([1.0, 2], [1.0])])
def test_pchip_refuses_what_is_not_a_curve(x, y):
    with pytest.raises(ValueError, match="PCHIP needs"):
        Pchip(x, y)
