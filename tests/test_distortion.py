"""Distortion: a quadratic form with its derivative and its random vectors; what an encoder tuned for it writes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import codec
from codec import cli, lossy, metrics, rate_control, refine
from codec.distortion import Distortion
from codec.networks import ssimulacra2


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    with Image.open(Path(__file__).parent / "data" / "kodim23.png") as image:
        return np.array(image)[100:292, 100:356]


@pytest.fixture(scope="module")
def x(pixels) -> torch.Tensor:
    return torch.from_numpy(pixels[:48, :64]).permute(2, 0, 1)[None].float() / 255


def noise(x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_is_the_squared_error(x):
    distortion, e = Distortion.of("psnr", x), noise(x)
    assert distortion.value(e) == pytest.approx(float(e.square().sum()))
    assert torch.equal(distortion.gradient(e), 2 * e)
    signs = noise(x, 1).sign()
    assert torch.equal(distortion.random(lambda scale: signs), signs)


def test_the_gradient_is_that_of_the_value(x):
    distortion, e, direction = Distortion.of("ms-ssim", x.double()), noise(x).double(), noise(x, 1).double()
    change = distortion.value(e + direction) - distortion.value(e - direction)
    assert float((distortion.gradient(e) * direction).sum()) == pytest.approx(change / 2)


def test_random_vectors_have_the_form_as_their_covariance(x):
    distortion, e = Distortion.of("ms-ssim", x), noise(x)
    generator = torch.Generator().manual_seed(0)

    def signs(scale: int) -> torch.Tensor:
        return torch.randint(0, 2, (1, 3, x.shape[2] >> scale, x.shape[3] >> scale), generator=generator) * 2.0 - 1

    found = [float((distortion.random(signs) * e).sum()) ** 2 for _ in range(3000)]
    assert np.mean(found) == pytest.approx(distortion.value(e), rel=0.1)  # their standard error is 2.6 %


def test_it_tells_errors_apart_as_ms_ssim_does(pixels):
    """The same noise in smooth places or in busy ones, and as coarse or as fine grain."""
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    fine = 3 * noise(x)
    coarse = torch.nn.functional.interpolate(3 * noise(x[:, :, ::4, ::4]), scale_factor=4.0)
    half = torch.zeros_like(x)
    half[..., : x.shape[3] // 2] = 1
    distortion = Distortion.of("ms-ssim", x)

    def lost(e: torch.Tensor) -> float:
        shown = ((x + e)[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()
        return 1 - metrics.ms_ssim(pixels, shown)

    errors = [fine, coarse, fine * half, fine * (1 - half), coarse * half, coarse * (1 - half)]
    expected, found = np.log([lost(e) for e in errors]), np.log([distortion.value(e) for e in errors])
    assert np.corrcoef(expected, found)[0, 1] > 0.95


def ssimulacra2_score(reference, image):
    pictures = (torch.from_numpy(part.copy()).permute(2, 0, 1)[None].float() / 255 for part in (reference, image))
    return float(ssimulacra2.score(ssimulacra2.inner(*pictures)))


@pytest.mark.parametrize("tune, measure", [("ms-ssim", metrics.ms_ssim), ("ssimulacra2", ssimulacra2_score)])
@pytest.mark.parametrize("effort", [3, 4])
def test_a_tuned_file_is_better_by_its_own_measure(pixels, effort, tune, measure, monkeypatch):
    """Smaller and better by it at the same quality, for a lower PSNR; with the shipped model, whose decoder is worth the search."""
    for name in ("CODEC_MODELS", "CODEC_MODEL"):
        monkeypatch.delenv(name, raising=False)
    plain, tuned = (codec.compress(pixels, 30, effort=effort, tune=name) for name in ("psnr", tune))
    shown, other = (np.asarray(codec.decompress(data)) for data in (plain, tuned))
    assert len(tuned) < len(plain)
    assert measure(pixels, other) > measure(pixels, shown)
    assert metrics.psnr(pixels, other) < metrics.psnr(pixels, shown)


def test_half_of_the_visual_derivative_is_the_exact_one(pixels):
    """Both halves say the same about the error as a whole; without an error there is none."""
    x = torch.from_numpy(pixels[:64, :64].copy()).permute(2, 0, 1)[None].float() / 255
    error = 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    form, visual = Distortion.of("ms-ssim", x), Distortion.of("ssimulacra2", x)
    shown = (x + error).requires_grad_()
    (exact,) = torch.autograd.grad(ssimulacra2.inner(x, shown).sum(), shown)
    exact *= (form.gradient(error) * error).sum() / (exact * error).sum()
    assert torch.allclose(visual.gradient(error), (form.gradient(error) + exact) / 2, rtol=1e-4, atol=1e-6)
    assert not visual.gradient(torch.zeros_like(x)).any()


@pytest.mark.usefixtures("tiny_model")
def test_targets_are_met_under_a_tune(pixels):
    data = codec.compress(pixels, target_bpp=1.0, tune="ms-ssim")
    assert 0.9 < codec.inspect(data).bpp <= 1.0


@pytest.mark.usefixtures("tiny_model")
def test_blocks_share_a_unit(pixels, monkeypatch):
    """Else a seam would show where they meet."""
    monkeypatch.setattr(lossy, "BLOCK", 1024)
    units, search = [], refine.refine
    monkeypatch.setattr(refine, "refine", lambda *arguments: units.append(arguments[6]) or search(*arguments))
    for picture in (np.tile(pixels, (7, 1, 1)), np.tile(pixels[:40], (1, 5, 1))):  # the second is too narrow for a sample
        units.clear()
        codec.compress(picture, 30, tune="ms-ssim")
        assert len(units) > 1 and len(set(units)) == 1 and units[0] > 0


@pytest.mark.usefixtures("tiny_model")
@pytest.mark.parametrize("tune", metrics.TUNES)
def test_flat_pictures_and_single_pixels_are_tuned_too(tune):
    for shape in ((1, 1, 3), (70, 3)):
        assert codec.decompress(codec.compress(np.full(shape, 77, np.uint8), tune=tune, lossless="never")).size == shape[1::-1]


def test_a_tune_is_for_lossy_files_that_are_searched(pixels, tmp_path, capsys):
    for wrong in ({"tune": "vmaf"}, {"tune": "ms-ssim", "lossless": True}, {"tune": "ms-ssim", "effort": 1}):
        with pytest.raises(ValueError, match="tune"):
            codec.compress(pixels, **wrong)
    for words in (["-l"], ["-e", "1"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["compress", "in.png", str(tmp_path / "out.lic"), "--tune", "ms-ssim", *words])
        assert ended.value.code == 2 and f"not with {words[0]}" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny_model")
def test_the_command_line_and_pillow_pass_it_on(pixels, tmp_path):
    import codec.pillow_plugin

    picture = Image.fromarray(pixels[:64, :64])
    picture.save(tmp_path / "in.png")
    assert cli.main(["compress", str(tmp_path / "in.png"), str(tmp_path / "out.lic"), "--tune", "ms-ssim", "-q", "80"]) == 0
    picture.save(tmp_path / "pillow.lic", tune="ms-ssim", quality=80)
    tuned = codec.compress(picture, 80, tune="ms-ssim")
    assert (tmp_path / "out.lic").read_bytes() == (tmp_path / "pillow.lic").read_bytes() == tuned != codec.compress(picture, 80)
    assert rate_control.REFINED.keys() == refine.NEARBY.keys() == set(metrics.TUNES)
