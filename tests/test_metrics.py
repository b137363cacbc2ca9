"""PSNR and MS-SSIM: hand-made values, bounds, and a published implementation's value on a picture made here."""

import math

import numpy as np
import pytest

from codec import metrics


def picture(height=176, width=208):
    """A smooth, a busy and a hard-edged channel, and a coarsely quantised copy with a texture added."""
    v, u = np.mgrid[:height, :width]
    smooth = 128 + 100 * np.sin(u / 7) * np.cos(v / 11)
    image = np.stack([smooth, (u * v) % 251, 255 * (((u // 9) + (v // 5)) % 2)], -1).astype(np.uint8)
    worse = (image // 24 * 24 + ((u * 7 + v * 13) % 17)[..., None]).clip(0, 255).astype(np.uint8)
    return image, worse


def test_psnr_of_a_known_error_is_its_formula():
    black = np.zeros((4, 4, 3), np.uint8)
    one_off = black.copy()
    one_off[0, 0, 0] = 3  # MSE = 9 / 48
    assert metrics.psnr(black, one_off) == pytest.approx(10 * math.log10(255**2 * 48 / 9), abs=1e-12)


def test_psnr_of_equal_images_is_infinite():
    image, _ = picture()
    assert metrics.psnr(image, image) == math.inf
    assert metrics.psnr_luma(image, image) == math.inf


def test_psnr_uses_the_peak_of_the_depth():
    black = np.zeros((4, 4), np.uint16)
    assert metrics.psnr(black, black + np.uint16(65535)) == 0.0


def test_differences_do_not_wrap_around_in_unsigned_arithmetic():
    white, black = np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8)
    assert metrics.psnr(black, white) == metrics.psnr(white, black) == 0.0


def test_luma_weighs_green_most():
    black = np.zeros((8, 8, 3), np.uint8)
    off = [black + np.eye(3, dtype=np.uint8)[channel] * 10 for channel in range(3)]
    red, green, blue = (metrics.psnr_luma(black, image) for image in off)
    assert green < red < blue
    assert green == pytest.approx(10 * math.log10(255**2 / 5.87**2), abs=1e-9)


def test_ms_ssim_agrees_with_pytorch_msssim():
    # pytorch_msssim 1.0.0, data_range=255, on the same two pairs; its window is float32, hence the seventh digit.
    image, worse = picture()
    assert metrics.ms_ssim(image, worse) == pytest.approx(0.99147434791336, abs=2e-7)
    assert metrics.ms_ssim(image, np.roll(image, 5, axis=1)) == pytest.approx(0.2474156824058449, abs=2e-7)


def test_ms_ssim_of_equal_images_is_one_and_symmetric_otherwise():
    image, worse = picture()
    assert metrics.ms_ssim(image, image) == pytest.approx(1.0, abs=1e-12)
    assert metrics.ms_ssim(image, worse) == pytest.approx(metrics.ms_ssim(worse, image), abs=1e-12)


def test_ms_ssim_averages_channels():
    image, worse = picture()
    alone = [metrics.ms_ssim(image[..., c], worse[..., c]) for c in range(3)]
    assert metrics.ms_ssim(image, worse) == pytest.approx(np.mean(alone), abs=1e-12)


def test_ms_ssim_takes_odd_sides_down_to_its_smallest():
    image, worse = picture(metrics.MS_SSIM_MIN_SIDE, 173)
    assert 0.9 < metrics.ms_ssim(image, worse) < 1
    with pytest.raises(ValueError, match="173×160"):
        metrics.ms_ssim(image[:-1], worse[:-1])


def test_ms_ssim_of_a_negative_is_zero_not_complex():
    image, _ = picture()
    assert metrics.ms_ssim(image[..., 1], 255 - image[..., 1]) == 0.0


def test_images_of_another_form_are_named_in_the_error():
    with pytest.raises(ValueError, match=r"\(2, 2\) uint8, \(2, 3\) uint8"):
        metrics.psnr(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        metrics.psnr(np.zeros((2, 2)), np.zeros((2, 2)))


def test_bpp_counts_the_whole_file():
    assert metrics.bpp(12288, 768, 512) == 0.25
