"""SSIMULACRA 2 in torch: the package's scores, a derivative that is right and bounded, pictures of all sizes."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from codec.networks.ssimulacra2 import Original, inner, score


def tensor(image: Image.Image, dtype=torch.float32) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].to(dtype) / 255


def saved(image: Image.Image, kind: str, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(buffer).convert("RGB")


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, sigma, (*image.size[::-1], 3))
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def pair(height, width, amount, dtype=torch.float64, batch=1):
    """A picture of noise, and the same with more noise of that amount."""
    generator = torch.Generator().manual_seed(0)
    x = 0.1 + 0.8 * torch.rand((batch, 3, height, width), generator=generator, dtype=dtype)
    return x, x + amount * (torch.rand(x.shape, generator=generator, dtype=dtype) - 0.5)


DAMAGE = {
    "jpeg 10": lambda image: saved(image, "JPEG", 10),
    "jpeg 60": lambda image: saved(image, "JPEG", 60),
    "jpeg 95": lambda image: saved(image, "JPEG", 95),
    "webp 5": lambda image: saved(image, "WEBP", 5),
    "webp 80": lambda image: saved(image, "WEBP", 80),
    "noise 2": lambda image: noisy(image, 2),
    "noise 20": lambda image: noisy(image, 20),
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "a pixel to the side": lambda image: Image.fromarray(np.roll(np.asarray(image), 1, axis=1)),
    "brighter": lambda image: image.point(lambda level: min(255, level + 8)),
}


@pytest.mark.parametrize("size", [(96, 64), (75, 64), (33, 57), (12, 20)])  # 4 scales, odd sides, on edge, 1 scale
@pytest.mark.parametrize("damage", DAMAGE)
def test_scores_are_those_of_the_package(damage, size, photo, tmp_path):
    package = pytest.importorskip("ssimulacra2")
    original = photo.crop((0, 0, *size))
    other = DAMAGE[damage](original)
    for image, name in ((original, "x.png"), (other, "y.png")):
        image.save(tmp_path / name)
    expected = package.compute_ssimulacra2(str(tmp_path / "x.png"), str(tmp_path / "y.png"))
    assert expected < 99.5
    assert float(score(inner(tensor(original), tensor(other)))) == pytest.approx(expected, abs=0.02)


def test_a_picture_of_all_six_scales_scores_as_with_the_package(tmp_path):
    package = pytest.importorskip("ssimulacra2")
    path = str(Path(__file__).parent / "data" / "kodim23.png")
    original = Image.open(path).convert("RGB")
    other = saved(original, "JPEG", 30)
    other.save(tmp_path / "y.png")
    expected = package.compute_ssimulacra2(path, str(tmp_path / "y.png"))
    assert float(score(inner(tensor(original), tensor(other)))) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_pictures_have_an_inner_sum_of_zero_a_score_of_100_and_no_slope(dtype, photo):
    x = tensor(photo, dtype)
    y = x.clone().requires_grad_()
    s = inner(x, y)
    assert s.item() == 0 and score(s).item() == 100
    assert (torch.autograd.grad(s.sum(), y)[0] == 0).all()


@pytest.mark.parametrize("height, width", [(8, 9), (17, 16)])
def test_the_derivative_is_that_of_finite_differences(height, width):
    x, y = pair(height, width, 0.2)
    original = Original.of(x)
    assert torch.autograd.gradcheck(lambda y: inner(original, y), y.requires_grad_(), eps=1e-7, rtol=1e-4)


def test_the_derivative_towards_both_pictures_is_that_of_finite_differences():
    x, y = pair(9, 8, 0.2)
    assert torch.autograd.gradcheck(inner, (x.requires_grad_(), y.requires_grad_()), eps=1e-7, rtol=1e-4)


@pytest.mark.parametrize("base", [0.0, 0.5, 1.0])
def test_the_derivative_stays_bounded_on_the_way_to_equality(base):
    """A 4-norm's root has an infinite slope at 0; flat black is where XYB and the variances are steepest."""
    noise = torch.rand((1, 3, 40, 48), generator=torch.Generator().manual_seed(1)) - 0.5
    x = torch.full_like(noise, base)
    for exponent in range(1, 12):
        y = (x + 10.0**-exponent * noise).requires_grad_()
        slope = torch.autograd.grad(inner(x, y).sum(), y)[0].norm()
        assert slope < 40, exponent


def test_what_is_precomputed_changes_nothing_and_serves_many_candidates():
    x, y = pair(40, 35, 0.3, torch.float32)
    candidates = torch.cat([x, y, (x + y) / 2])
    together = inner(Original.of(x), candidates)
    assert torch.equal(inner(Original.of(x), y), inner(x, y))
    assert torch.allclose(together, torch.cat([inner(x, one[None]) for one in candidates]), rtol=1e-4, atol=1e-5)
    assert together[0] < 1e-5 and together[1] > together[2] > 0.01


def test_a_batch_of_pairs_is_each_pair_by_itself():
    x, y = pair(24, 31, 0.3, batch=3)
    assert torch.allclose(inner(x, y), torch.cat([inner(x[k : k + 1], y[k : k + 1]) for k in range(3)]), rtol=1e-9)


def test_the_transposed_jacobian_of_torch_func_is_the_derivative():
    x, y = pair(24, 31, 0.3)
    value, transposed = torch.func.vjp(lambda y: inner(x, y), y)
    (expected,) = torch.autograd.grad(inner(x, y.requires_grad_()).sum(), y)
    assert torch.allclose(transposed(torch.ones_like(value))[0], expected, rtol=1e-9)


def test_autocast_and_half_floats_do_not_coarsen_it():
    x, y = pair(40, 35, 0.05, torch.float32)
    half = y.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert inner(x, half).dtype == torch.float32
        assert torch.equal(inner(x, half), inner(x, half.float()))


@pytest.mark.parametrize("height, width", [(1, 1), (7, 7), (7, 300), (300, 7)])
def test_a_picture_below_eight_pixels_a_side_has_no_scale_and_scores_100(height, width):
    x, y = pair(height, width, 0.3, torch.float32)
    y.requires_grad_()
    s = inner(x, y)
    assert s.tolist() == [0] and score(s).tolist() == [100]
    assert (torch.autograd.grad(s.sum(), y)[0] == 0).all()


def test_values_outside_of_the_range_are_taken():
    x, y = pair(16, 16, 3.0, torch.float32)
    y.requires_grad_()
    s = inner(x, y)
    assert s.isfinite().all() and torch.autograd.grad(s.sum(), y)[0].isfinite().all()


@pytest.mark.parametrize("shape", [(1, 3, 16, 17), (2, 1, 16, 16), (3, 16, 16)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="of equal sizes expected"):
        inner(torch.zeros(1, 3, 16, 16), torch.zeros(shape))


def test_two_originals_do_not_stand_for_three_candidates():
    with pytest.raises(ValueError, match="of equal sizes expected"):
        inner(torch.zeros(2, 3, 16, 16), torch.zeros(3, 3, 16, 16))
