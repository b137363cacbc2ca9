"""SSIMULACRA 2 (J. Sneyers, Cloudinary, 2022) in torch: a distortion as people see it, with a derivative.

Two pictures are compared in XYB, libjxl's space of cone responses to linear light (X: red against green, Y: luminance,
B: blue against Y), at six scales, each of 2x2 means in linear light of the one before. Three maps a scale and plane:

    structure   1 - SSIM, whose first factor is 1 - (difference of the means)^2, without a stabiliser
    artifacts   where the candidate departs from its blur further than the original from its own (ringing, blocks)
    lost        where it departs less (blurring)

Of each map the mean and the 4-norm; their sum with 108 fitted weights is the *inner* sum: 0 for equal pictures, about
0.45 where the score is 90, 2.7 at 70, 6 at 50. The score is 100 minus a root of a cubic of it. That root's slope has no
bound at equality, so that what is trained on and searched by is the inner sum.

The structure map is computed from the difference e of the pictures, blur(e^2) - blur(e)^2, in place of two variances
and a covariance: the same number without their cancellation, 0 for equal pictures in any precision.

What the definition's C++ leaves to a recursive filter is here as in PyPI's `ssimulacra2` 0.3.0, with whose scores ours
agree (benchmarks/ssimulacra2_agreement.py): eleven taps of a Gaussian; zeros beyond the left and right edges, the
picture mirrored beyond the others; a picture of n < 6 scales takes the first 18 n weights; without a scale of 8x8
pixels the inner sum is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = 6
SMALLEST = 8  # pixels a side of a scale

_ABSORBANCE = (  # of linear red, green and blue by the three kinds of cones, as in libjxl's opsin_params.h
    (0.3, 1 - 0.078 - 0.3, 0.078),
    (0.23, 1 - 0.078 - 0.23, 0.078),
    (0.24342268924547819, 0.20476744424496821, 1 - 0.24342268924547819 - 0.20476744424496821),
)
_ABSORBANCE_BIAS = 0.0037930732552754493
_STABILISER = 0.0009  # of the variances
_SIGMA, _RADIUS = 1.5, 5  # pixels of each scale
_TINY = 1e-28  # a mean fourth power below it counts as 0 and has no slope: its root is 1e-7, float32's rounding of 1

# In the order (plane, scale, norm (0: mean, 1: 4-norm), map (0: structure, 1: artifacts, 2: lost)), the last fastest.
_WEIGHTS = (
    (0.0, 0.0007376606707406586, 0.0, 0.0, 0.0007793481682867309, 0.0),  # X, scale 0
    (0.0, 0.0004371155730107379, 0.0, 1.1041726426657346, 0.00066284834129271, 0.00015231632783718752),
    (0.0, 0.0016406437456599754, 0.0, 1.8422455520539298, 11.441172603757666, 0.0),
    (0.0007989109436015163, 0.000176816438078653, 0.0, 1.8787594979546387, 10.94906990605142, 0.0),
    (0.0007289346991508072, 0.9677937080626833, 0.0,
     0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053),
    (0.0004550992113792063, 0.0, 0.0, 0.0013648766163243398, 0.0, 0.0),
    (0.0, 0.0, 0.0, 7.466890328078848, 0.0, 17.445833984131262),  # Y, scale 0
    (0.0006235601634041466, 0.0, 0.0, 6.683678146179332, 0.00037724407979611296, 1.027889937768264),
    (225.20515300849274, 0.0, 0.0, 19.213238186143016, 0.0011401524586618361, 0.001237755635509985),
    (176.39317598450694, 0.0, 0.0, 24.43300999870476, 0.28520802612117757, 0.0004485436923833408),
    (0.0, 0.0, 0.0, 34.77906344483772, 44.835625328877896, 0.0),
    (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.0, 0.0008680556573291698, 0.0, 0.0, 0.0, 0.0),  # B, scale 0
    (0.0, 0.0005313191874358747, 0.0, 0.00016533814161379112, 0.0, 0.0),
    (0.0, 0.0, 0.0, 0.0004179171803251336, 0.0017290828234722833, 0.0),
    (0.0020827005846636437, 0.0, 0.0, 8.826982764996862, 23.19243343998926, 0.0),
    (95.1080498811086, 0.9863978034400682, 0.9834382792465353,
     0.0012286405048278493, 171.2667255897307, 0.9807858872435379),
    (0.0, 0.0, 0.0, 0.0005130064588990679, 0.0, 0.00010854057858411537),
)  # fmt: skip
_NEGLIGIBLE = 0.01  # a plane whose six weights at a scale sum to less is left out there: half of the work, 0.01 points
_WEIGHT_SUM_FACTOR = 0.9562382616834844
_CUBIC = (2.326765642916932, -0.020884521182843837, 6.248496625763138e-05)
_EXPONENT = 0.6276336467831387


class _Scale(NamedTuple):
    """Of the original, each B×planes×h×w; planes: those that count at this scale."""

    xyb: Tensor
    mean: Tensor  # blurred
    variance: Tensor  # the blurred squares minus the square of the mean
    edge: Tensor  # 1 + |xyb - mean|


@dataclass(frozen=True)
class Original:
    """What depends on the original alone, for comparing many candidates with it."""

    scales: tuple[_Scale, ...]
    shape: torch.Size

    @classmethod
    def of(cls, x: Tensor) -> Original:
        """x: B×3×H×W of sRGB in [0, 1], as of `inner`; B = 1 serves any number of candidates."""
        scales = []
        with torch.autocast(x.device.type, enabled=False):
            for xyb in _pyramid(x):
                mean, square = _blur(xyb, xyb.square())
                scales.append(_Scale(xyb, mean, square - mean.square(), 1 + (xyb - mean).abs()))
        return cls(tuple(scales), x.shape)


def inner(original: Original | Tensor, candidate: Tensor) -> Tensor:
    """The inner sum of each picture, B: 0 for equal ones, with a bounded derivative everywhere.

    candidate: B×3×H×W of sRGB in [0, 1], float64, or another float that is taken as float32, under autocast too.
    Values outside are allowed; what is darker than black is black.
    original: as the candidate, or what `Original.of` made of it.
    ValueError: shapes that do not fit.
    """
    shape = original.shape
    fits = candidate.dim() == 4 and candidate.shape[1] == 3 and candidate.shape[1:] == shape[1:]
    if not fits or shape[0] not in (1, len(candidate)):
        raise ValueError(f"B×3×H×W of equal sizes expected, got {tuple(shape)} and {tuple(candidate.shape)}")
    if isinstance(original, Tensor):
        original = Original.of(original)
    with torch.autocast(candidate.device.type, enabled=False):
        sums = [0 * candidate.float().sum((1, 2, 3))] if not original.scales else []
        terms = _terms(*candidate.shape[2:])
        for scale, xyb, (_, weights) in zip(original.scales, _pyramid(candidate), terms, strict=True):
            sums.append((_norms(*scale, xyb) * xyb.new_tensor(weights)).sum((1, 2)))
        return torch.stack(sums).sum(0)


def score(inner_sum: Tensor | float) -> Tensor | float:
    """SSIMULACRA 2: 100: equal pictures, 90: hardly visible, 70: high, 50: medium, 30: low quality; no lower bound."""
    s = inner_sum * _WEIGHT_SUM_FACTOR
    cubic = s * (_CUBIC[0] + s * (_CUBIC[1] + s * _CUBIC[2]))
    return 100 - 10 * cubic**_EXPONENT


def _norms(x: Tensor, x_mean: Tensor, x_variance: Tensor, x_edge: Tensor, y: Tensor) -> Tensor:
    """Of an original's scale and a candidate's planes y, B×planes×6: means of the three maps, then their 4-norms."""
    e = y - x
    e_mean, e_square, y_square = _blur(e, e.square(), y.square())
    y_mean = x_mean + e_mean
    e_mean_square = e_mean.square()
    e_variance = e_square - e_mean_square
    share = e_variance / (x_variance + (y_square - y_mean.square()) + _STABILISER)
    change = ((y - y_mean).abs() + 1 - x_edge) / x_edge
    maps = [F.relu(share + e_mean_square * (1 - share)), F.relu(change), F.relu(-change)]
    means = [part.mean((2, 3)) for part in maps]
    fourths = [_fourth_root(part.square().square().mean((2, 3))) for part in maps]
    return torch.stack(means + fourths, 2)


def _fourth_root(power: Tensor) -> Tensor:
    return torch.where(power > _TINY, power.clamp_min(_TINY).pow(0.25), 0)


@cache
def _terms(height: int, width: int) -> list[tuple[list[int], list[list[float]]]]:
    """For each scale the planes that count (0: X, 1: Y, 2: B), and of each its weights in the order of `_norms`."""
    count = 0
    while count < SCALES and min(height, width) >= SMALLEST:
        count, height, width = count + 1, -(-height // 2), -(-width // 2)
    flat = [weight for row in _WEIGHTS for weight in row]
    rows = [flat[6 * k : 6 * k + 6] for k in range(3 * count)]  # plane after plane
    terms = []
    for scale in range(count):
        planes = [plane for plane in range(3) if sum(rows[plane * count + scale]) >= _NEGLIGIBLE]
        terms.append((planes, [rows[plane * count + scale] for plane in planes]))
    while terms and not terms[-1][0]:
        terms.pop()
    return terms


def _pyramid(rgb: Tensor) -> list[Tensor]:
    """B×3×H×W of sRGB -> the planes that count, in XYB, at each scale."""
    rgb = rgb if rgb.dtype == torch.float64 else rgb.float()  # a decoder under autocast gives half floats
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp_min(0.04045) + 0.055) / 1.055).pow(2.4))
    scales: list[Tensor] = []
    for planes, _ in _terms(*rgb.shape[2:]):
        if scales:
            linear = F.avg_pool2d(linear, 2, ceil_mode=True, count_include_pad=False)
        scales.append(_xyb(linear, planes))
    return scales


def _xyb(linear: Tensor, planes: list[int]) -> Tensor:
    """With the metric's own scale and offsets, positive for all colours."""
    r, g, b = linear.unbind(1)

    def response(of_r: float, of_g: float, of_b: float) -> Tensor:
        # Not as a product of matrices, which some GPUs round to ten bits.
        absorbed = (of_r * r + of_g * g + of_b * b + _ABSORBANCE_BIAS).clamp_min(_ABSORBANCE_BIAS)
        return absorbed.pow(1 / 3) - _ABSORBANCE_BIAS ** (1 / 3)

    long, middle = response(*_ABSORBANCE[0]), response(*_ABSORBANCE[1])
    y = (long + middle) / 2
    make = (
        lambda: 7 * (long - middle) + 0.42,
        lambda: y + 0.01,
        lambda: response(*_ABSORBANCE[2]) - y + 0.55,
    )
    return torch.stack([make[plane]() for plane in planes], 1)


def _blur(*parts: Tensor) -> tuple[Tensor, ...]:
    """Each B×planes×h×w, h and w at least 5."""
    x = torch.cat(parts, 1)
    taps = x.new_tensor([math.exp(-((i / _SIGMA) ** 2) / 2) for i in range(-_RADIUS, _RADIUS + 1)])
    taps = (taps / taps.sum()).expand(x.shape[1], 1, -1)
    x = torch.cat((x[:, :, :_RADIUS].flip(2), x, x[:, :, -_RADIUS:].flip(2)), 2)
    x = F.conv2d(x, taps[:, :, :, None], groups=x.shape[1])
    x = F.conv2d(x, taps[:, :, None, :], padding=(0, _RADIUS), groups=x.shape[1])
    return x.chunk(len(parts), 1)
