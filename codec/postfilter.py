"""Post-filter: a small linear filter of the decoded picture, fitted by the encoder to this one picture (floor 3).

A synthesis network is right on average. What it leaves of one picture is still correlated with what it shows around each
pixel: less sharp than this picture was, or a colour off at edges. So, as video codecs do with their adaptive loop filter (Tsai et al.
2013), the encoder sends a filter that least squares find. Here it is a combination of a few basis filters that belong to the
model: those that were worth most on other pictures, most worth first. Some ten numbers, a byte each or less, take 2 % of the squared error.

Basis filters look at 7×7 pixels of all three colours, alike in the eight directions. In each colour, ten features: the pixel itself, and how far
the mean of each ring around it, of positions that mirroring and turning swap, is from it; and one constant.

    u8  n       number of coefficients; 0: no filter, nothing follows
    u8  e, o    e + 32·o: coefficients count in 2^-e; o is the order of their code
    bits        of each: Exp-Golomb code of order o of its magnitude, then its sign if it is not zero; most significant bit first,
                zeros up to a whole byte
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import FormatError

REACH = 3  # pixels on each side
RINGS = 10  # classes of positions, the middle among them
FEATURES = 3 * RINGS + 1
NONE = b"\0"
MAX_EXPONENT, MAX_ORDER, MAX_BITS = 24, 7, 16
STRIPE = 16  # rows that a fit looks at, of so many that about SAMPLE pixels are seen
SAMPLE = 1 << 17
STEP = 2.9  # best step of a coefficient times the square root of what its square costs in bits: √(12 / 2 ln 2)


@cache
def _rings() -> Tensor:
    """RINGS×7×7: the mean over a ring less the middle, the first the middle alone."""
    places: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, column in itertools.product(range(-REACH, REACH + 1), repeat=2):
        ring = tuple(sorted((abs(row), abs(column))))
        places.setdefault(ring, []).append((row + REACH, column + REACH))
    kernels = torch.zeros(RINGS, 2 * REACH + 1, 2 * REACH + 1, dtype=torch.float32)
    for kernel, ring in zip(kernels, sorted(places), strict=True):
        for place in places[ring]:
            kernel[place] = 1 / len(places[ring])
    kernels[1:, REACH, REACH] -= 1
    return kernels


def features(x: Tensor) -> Tensor:
    """Pictures B×3×(h + 6)×(w + 6), nominally in [0, 1] -> what filters combine: B×FEATURES×h×w."""
    kernels = _rings().to(x)[:, None].repeat(3, 1, 1, 1)
    constant = torch.ones_like(x[:, :1, REACH:-REACH, REACH:-REACH])
    return torch.cat((F.conv2d(x - 0.5, kernels, groups=3), constant), 1)


@dataclass
class Normal:
    """The normal equations of a fit: a picture's features and what they should add up to, in units of 1 / 255."""

    gram: Tensor  # float64 FEATURES×FEATURES
    target: Tensor  # float64 FEATURES×3
    seen: int = 0  # pixels in these
    pixels: int = 0  # pixels they stand for

    @classmethod
    def empty(cls) -> Normal:
        return cls(torch.zeros(FEATURES, FEATURES, dtype=torch.float64), torch.zeros(FEATURES, 3, dtype=torch.float64))

    def add(self, shown: Tensor, original: Tensor, share: float) -> None:
        """shown: 3×(h + 6)×(w + 6), what the synthesis makes of the pixels and those around them; original: 3×h×w, both in [0, 1];
        share: of the rows, those that are looked at."""
        shown, height = shown.clamp(0, 1), original.shape[1]
        every = max(1, round(1 / share))
        for top in range(0, height, STRIPE * every):
            bottom = min(height, top + STRIPE)
            seen = features(shown[None, :, top : bottom + 2 * REACH])[0].flatten(1)
            error = (original[:, top:bottom] - shown[:, top + REACH : bottom + REACH, REACH:-REACH]).flatten(1)
            seen, error = seen.double(), error.double()
            self.gram += (255**2 * (seen @ seen.T)).cpu()
            self.target += (255**2 * (seen @ error.T)).cpu()
            self.seen += seen.shape[1]
        self.pixels += original[0].numel()

    def __add__(self, other: Normal) -> Normal:
        return Normal(self.gram + other.gram, self.target + other.target, self.seen + other.seen, self.pixels + other.pixels)

    def project(self, basis: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """A, r: the squared error of the picture, in 8-bit levels and a mean over samples, falls by 2 r·c - c·A·c with coefficients c."""
        basis = basis.double().cpu()
        pulled = torch.einsum("fg,kcg->kcf", self.gram, basis)
        share = 1 / (3 * max(1, self.seen))
        gram = torch.einsum("kcf,lcf->kl", pulled, basis) * share
        return gram.numpy(), (torch.einsum("kcf,fc->k", basis, self.target) * share).numpy()


def together(parts: list[Normal | None]) -> Normal | None:
    """Those of a picture from those of its parts; None if one part has none."""
    return None if None in parts else sum(parts[1:], parts[0])


def fit(normal: Normal, basis: Tensor, trade_off: float) -> bytes:
    """What to send for a picture. basis: K×3×FEATURES; trade_off: bits a pixel for a squared error of one 8-bit level."""
    gram, target = normal.project(basis)
    weight = trade_off * normal.pixels
    exponent = int(np.clip(round(-np.log2(STEP / np.sqrt(max(weight, 1e-9)))), 0, MAX_EXPONENT))
    best, most = NONE, -8.0  # bits that the filter is worth beyond its own; without one there is a byte
    for count in range(2, len(target) + 1, 2):
        coefficients = _quantise(gram[:count, :count], target[:count], 2.0**-exponent)
        values = coefficients * 2.0**-exponent
        data = pack(exponent, coefficients)
        worth = weight * (2 * target[:count] @ values - values @ gram[:count, :count] @ values) - 8 * len(data)
        if worth > most:
            best, most = data, worth
    return best


def _quantise(gram: np.ndarray, target: np.ndarray, step: float) -> np.ndarray:
    """Coefficients in steps, one after the other; what rounding changes is made up for by those that are left."""
    found = np.zeros(len(target), np.int64)
    gram = gram + (1e-6 * np.trace(gram) / len(gram) + 1e-9) * np.eye(len(gram))  # of a flat picture it is singular
    for k in range(len(target)):
        rest = target[k:] - gram[k:, :k] @ (found[:k] * step)
        found[k] = np.clip(np.rint(np.linalg.solve(gram[k:, k:], rest)[0] / step), -(2**MAX_BITS) + 1, 2**MAX_BITS - 1)
    return found


def kernel(basis: Tensor, data: bytes) -> tuple[Tensor, Tensor] | None:
    """Weights 3×3×7×7 and biases of the filter, what it adds to a picture less 0.5; None for no filter."""
    exponent, coefficients, _ = read(data, len(basis))
    if not coefficients:
        return None
    values = torch.tensor(coefficients, dtype=torch.float64, device=basis.device) * 2.0**-exponent
    combined = torch.tensordot(values, basis[: len(values)].double(), 1)  # 3×FEATURES
    weight = torch.einsum("cdr,rij->cdij", combined[:, :-1].view(3, 3, RINGS), _rings().to(combined))
    return weight.to(basis.dtype), combined[:, -1].to(basis.dtype)


def apply(x: Tensor, kernel: tuple[Tensor, Tensor]) -> Tensor:
    """Pictures B×3×(h + 6)×(w + 6) -> B×3×h×w, filtered."""
    x = x.clamp(0, 1)
    return x[:, :, REACH:-REACH, REACH:-REACH] + F.conv2d(x - 0.5, *kernel).float()


def pack(exponent: int, coefficients: np.ndarray) -> bytes:
    """Trailing zeros are not sent."""
    count = int(np.flatnonzero(coefficients).max(initial=-1)) + 1
    if count == 0:
        return NONE
    codes = ["".join(_golomb(int(value), order) for value in coefficients[:count]) for order in range(MAX_ORDER + 1)]
    order, bits = min(enumerate(codes), key=lambda item: len(item[1]))
    size = -(-len(bits) // 8)
    return bytes((count, exponent + 32 * order)) + int(bits.ljust(8 * size, "0"), 2).to_bytes(size, "big")


def _golomb(value: int, order: int) -> str:
    binary = format(abs(value) + (1 << order), "b")
    return "0" * (len(binary) - 1 - order) + binary + ("" if value == 0 else str(int(value < 0)))


def read(data: bytes, most: int) -> tuple[int, list[int], int]:
    """Exponent, coefficients and how many bytes they took. Raises FormatError on what no encoder writes."""
    if not data:
        raise FormatError("damaged latents section: it ends before its post-filter")
    if data[0] == 0:
        return 0, [], 1
    count, (order, exponent) = data[0], divmod(data[1] if len(data) > 1 else 0, 32)
    if count > most or exponent > MAX_EXPONENT:
        raise FormatError("damaged latents section: its post-filter is none of the model's")
    bits = "".join(format(byte, "08b") for byte in data[2 : 2 + 8 * count])
    at, coefficients = 0, []
    for _ in range(count):
        first = bits.find("1", at)
        end = 2 * first - at + order + 1
        if first < 0 or first - at > MAX_BITS or end >= len(bits) + 1:
            raise FormatError("damaged latents section: it ends within its post-filter")
        value = int(bits[first:end], 2) - (1 << order)
        if value:
            if end >= len(bits):
                raise FormatError("damaged latents section: it ends within its post-filter")
            value, end = (-value if bits[end] == "1" else value), end + 1
        coefficients.append(value)
        at = end
    return exponent, coefficients, 2 + -(-at // 8)
