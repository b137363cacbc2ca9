"""Distortion and rate: one definition each, NumPy only, double precision inside.

    psnr(x, y)       10 log10(peak² / MSE), MSE over all pixels and channels; dB
    psnr_luma(x, y)  the same on Y = 0.299 R + 0.587 G + 0.114 B (BT.601, full range, not rounded); dB
    ms_ssim(x, y)    5 scales, per channel, then averaged over the channels; 0…1
    bpp(n, w, h)     8 n / (w h): bits a pixel, from the bytes of a real file

Images are H×W or H×W×C arrays, uint8 (peak 255) or uint16 (peak 65535); both arguments have the same shape and dtype,
anything else is a ValueError that names them.
The PSNR of a *set* of images is, as in nearly every paper, the mean of the per-image PSNR, not the PSNR of the mean MSE
(the two differ by 0.05–0.45 dB on Kodak).
"""

import math

import numpy as np

PSNR, MS_SSIM, SSIMULACRA2 = TUNES = ("psnr", "ms-ssim", "ssimulacra2")  # by name: what an encoder may work for

_LUMA = np.array([0.299, 0.587, 0.114])

# Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment", Asilomar 2003.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))  # 11 taps, σ = 1.5 pixels
_WINDOW /= _WINDOW.sum()

SSIMULACRA2_MIN_SIDE = 8
MS_SSIM_MIN_SIDE = 161  # four halvings, each rounded up, must leave one window of 11: 161 → 81 → 41 → 21 → 11


def psnr(reference: np.ndarray, image: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; inf for equal images."""
    peak = _peak(reference, image)
    # Row by row, in integers: no wide copy of a large picture, and no rounding.
    total = sum(int(((x.astype(np.int64) - y) ** 2).sum()) for x, y in zip(reference, image, strict=True))
    return math.inf if total == 0 else 10 * math.log10(peak**2 * reference.size / total)


def psnr_luma(reference: np.ndarray, image: np.ndarray) -> float:
    """PSNR in dB of the luma of two H×W×3 images; inf for equal images."""
    peak = _peak(reference, image)
    if reference.ndim != 3 or reference.shape[2] != 3:
        raise ValueError(f"luma needs H×W×3 images, got {reference.shape}")
    return _decibels((reference.astype(np.float64) - image) @ _LUMA, peak)


def ms_ssim(reference: np.ndarray, image: np.ndarray) -> float:
    """Multi-scale structural similarity (Wang et al. 2003), 1 for equal images.

    Each channel on its own, then the mean over channels. The window is applied without padding; between scales, 2×2
    means, an odd last row or column counted twice; a negative contrast–structure mean (images that anticorrelate)
    counts as 0. A side below MS_SSIM_MIN_SIDE pixels is a ValueError: the measure is undefined there.
    """
    peak = _peak(reference, image)
    height, width = reference.shape[:2]
    if min(height, width) < MS_SSIM_MIN_SIDE:
        raise ValueError(f"MS-SSIM is undefined below {MS_SSIM_MIN_SIDE} pixels a side, got {width}×{height}")
    channels = zip(_planes(reference), _planes(image), strict=True)
    return float(np.mean([_ms_ssim_plane(x, y, peak) for x, y in channels]))


def bpp(num_bytes: int, width: int, height: int) -> float:
    """Bits a pixel of a file of `num_bytes` bytes."""
    return 8 * num_bytes / (width * height)


def _peak(reference: np.ndarray, image: np.ndarray) -> int:
    if reference.shape != image.shape or reference.dtype != image.dtype:
        raise ValueError(f"images differ in form: {reference.shape} {reference.dtype}, {image.shape} {image.dtype}")
    if reference.dtype not in (np.uint8, np.uint16) or reference.ndim not in (2, 3) or reference.size == 0:
        raise ValueError(
            f"images are H×W or H×W×C, uint8 or uint16, not empty; got {reference.shape} {reference.dtype}"
        )
    return int(np.iinfo(reference.dtype).max)


def _decibels(difference: np.ndarray, peak: int) -> float:
    mse = float(np.mean(np.square(difference)))
    return 10 * math.log10(peak**2 / mse) if mse else math.inf


def _planes(image: np.ndarray) -> np.ndarray:
    """H×W or H×W×C → C×H×W, float64, contiguous."""
    return np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1), dtype=np.float64)


def _ms_ssim_plane(x: np.ndarray, y: np.ndarray, peak: int) -> float:
    """MS-SSIM of two H×W planes: Π cs_s^w_s over the finer scales × ssim_5^w_5 at the coarsest."""
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    product = 1.0
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if scale:
            x, y = _halve(x), _halve(y)
        mean_x, mean_y = _blur(x), _blur(y)
        mean_xy, mean_squares = mean_x * mean_y, mean_x**2 + mean_y**2
        covariance = _blur(x * y) - mean_xy
        variances = _blur(x * x + y * y) - mean_squares
        similarity = (2 * covariance + c2) / (variances + c2)
        if scale == len(_SCALE_WEIGHTS) - 1:
            similarity *= (2 * mean_xy + c1) / (mean_squares + c1)
        product *= max(float(np.mean(similarity)), 0.0) ** weight
    return product


def _blur(plane: np.ndarray) -> np.ndarray:
    """The 11×11 Gaussian without padding, as two passes of 11 taps: H×W → (H−10)×(W−10)."""
    for _ in range(2):
        height, width = plane.shape
        # One convolution over all rows laid end to end; the 10 outputs that straddle two rows are cut off.
        rows = np.zeros(height * width)
        rows[: height * width - 10] = np.convolve(plane.ravel(), _WINDOW, "valid")
        plane = np.ascontiguousarray(rows.reshape(height, width)[:, : width - 10].T)
    return plane


def _halve(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    plane = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4
