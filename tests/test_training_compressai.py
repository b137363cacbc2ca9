"""Our networks on CompressAI's side, with the real library: its loss, its training and evaluation functions."""

import argparse

import numpy as np
import pytest
import torch

pytest.importorskip("compressai")
pytestmark = pytest.mark.filterwarnings("ignore:.*weights_only.*")

from compressai.losses import RateDistortionLoss  # noqa: E402
from compressai.registry import MODELS  # noqa: E402
from compressai.utils.eval_model.__main__ import inference, inference_entropy_estimation  # noqa: E402
from examples import train  # noqa: E402  (CompressAI installs it under this name)

import codec  # noqa: E402
from codec.errors import UnsupportedError  # noqa: E402
from codec.training.compressai_model import LearnedImageCodec  # noqa: E402
from codec.training.objective import rate_distortion  # noqa: E402


@pytest.fixture(scope="module")
def x(photo) -> torch.Tensor:
    return torch.from_numpy(np.asarray(photo) / np.float32(255)).permute(2, 0, 1)[None]  # 1×3×64×96


@pytest.fixture(scope="module")
def trained(x) -> tuple[LearnedImageCodec, list[float]]:
    """A model that CompressAI's own functions trained, and the loss before and after each epoch."""
    torch.manual_seed(0)
    net = MODELS["lic"]("tiny", quality=60)
    net.network.start_from_pca(x.unfold(2, 16, 4).unfold(3, 16, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 16, 16))
    loader = torch.utils.data.DataLoader([x[0, :, :, :64], x[0, :, :, 32:]] * 8, batch_size=4)
    optimisers = train.configure_optimizers(net, argparse.Namespace(learning_rate=1e-3, aux_learning_rate=1e-3))
    criterion = RateDistortionLoss(lmbda=net.lmbda)
    losses = [float(train.test_epoch(0, loader, net, criterion))]
    for epoch in range(4):
        train.train_one_epoch(net, criterion, loader, *optimisers, epoch, 1.0)
        losses.append(float(train.test_epoch(epoch, loader, net, criterion)))
    return net, losses


@pytest.mark.parametrize("config, names", [("tiny", {"y", "z"}), ("textbook", {"y"})])
def test_the_rate_of_its_loss_is_that_of_our_objective(config, names, x):
    net = LearnedImageCodec(config, quality=60).eval()
    x = torch.nn.functional.pad(x, (0, 32, 0, 0), mode="replicate")
    with torch.no_grad():
        out = net(x)
        loss = RateDistortionLoss(lmbda=net.lmbda)(out, x)
        ours = rate_distortion(net.network, x, net._position(1), noisy=False)
    assert set(out["likelihoods"]) == names
    assert float(loss["bpp_loss"]) == pytest.approx(float(ours["bpp"]), rel=1e-5)
    assert float(loss["loss"]) == pytest.approx(float(ours["bpp"] + net.lmbda * ours["mse"]), rel=1e-5)


def test_its_training_functions_train_ours(trained):
    losses = trained[1]
    assert losses[-1] < 0.97 * losses[0] and losses[-1] == min(losses)


def test_a_checkpoint_comes_back_and_its_evaluation_runs_on_real_files(trained, x, tmp_path):
    torch.save({"state_dict": trained[0].state_dict()}, tmp_path / "checkpoint.pth.tar")
    net = LearnedImageCodec.from_state_dict(torch.load(tmp_path / "checkpoint.pth.tar")["state_dict"]).eval()
    with pytest.raises(UnsupportedError, match="call update"):
        net.compress(x)
    assert net.update(force=True) and not net.update()
    large = x.repeat(1, 1, 3, 2)[0]  # its MS-SSIM wants more than 160 pixels
    with torch.no_grad():
        files, estimate = (function(net, large) for function in (inference, inference_entropy_estimation))
    assert net.quality == 60 and files["psnr-rgb"] == pytest.approx(estimate["psnr-rgb"], abs=0.1)
    assert files["bpp"] == pytest.approx(estimate["bpp"], rel=0.05)


def test_a_model_file_evaluates_as_our_own_program_does(tiny_model, photo, x):
    net = LearnedImageCodec.from_file(quality=40)
    out = net.compress(x)
    assert out["strings"] == [[codec.compress(photo, 40, exif=b"", icc_profile=b"", xmp=b"")]] and out["shape"] == (1, 2)
    decoded = net.decompress(**out)["x_hat"]
    assert np.array_equal((decoded[0] * 255).round().byte().permute(1, 2, 0), codec.decompress(out["strings"][0][0]))
    with torch.no_grad():
        estimate = net(x)
    assert float((estimate["x_hat"].clamp(0, 1) - decoded).abs().max()) < 1.01 / 255 and estimate["x_hat"].shape == x.shape
    bits = -sum(float(values.log2().sum()) for values in estimate["likelihoods"].values())
    assert codec.inspect(out["strings"][0][0]).sections["latents"] * 8 == pytest.approx(bits, rel=0.1)
    with pytest.raises(UnsupportedError, match="cannot be trained"):
        net.train()


@pytest.mark.parametrize("words", [{"config": "huge"}, {"quality": 101}])
def test_what_does_not_exist_is_named(words):
    with pytest.raises(ValueError, match="huge|101"):
        LearnedImageCodec(**words)
