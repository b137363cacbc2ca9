"""Training on a handful of small pictures: it learns, resumes, splits over processes, and ends in a model file."""

import argparse
import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import codec
from codec import tables
from codec.entropy.distributions import trellis_weights
from codec.networks.config import CONFIGS, LossyConfig
from codec.networks.exact import round_through
from codec.networks.model import LossyVAE
from codec.networks.priors import gaussian_bits, index_to_scale, scale_to_index, symbol_bits
from codec.quantiser import REACH, choose
from codec.training import cli, export, loop, objective, written
from codec.training.data import ImageFolder
from codec.training.loop import CHECKPOINT, Trainer, TrainingConfig, learning_rate, load_checkpoint
from codec.training.objective import rate_distortion
from codec.training.soap import SOAP
from codec.training.written import WrittenRateDistortion

KODIM = Path(__file__).parent / "data" / "kodim23.png"
WEIGHTS = Path(codec.__file__).parent / "weights"


@pytest.fixture(autouse=True)
def few_crops(monkeypatch):
    """Encoded for what is fitted last."""
    monkeypatch.setattr(loop, "ENCODED_CROPS", 16)
    monkeypatch.setattr(loop, "COUNTED_CROPS", 16)
    monkeypatch.setattr(export, "CROPS", 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six crops of a photograph, one picture too small, one file that is no picture."""
    folder = tmp_path_factory.mktemp("images")
    with Image.open(KODIM) as image:
        for index in range(6):
            image.crop((100 * index, 40 * index, 100 * index + 160, 40 * index + 144)).save(folder / f"crop{index}.png")
        image.crop((0, 0, 50, 50)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def configuration(folder: Path, out: Path, **changes) -> TrainingConfig:
    settings = {"steps": 6, "warmup": 2, "decay": 2, "batch": 2, "crop": 64, "log_every": 3, "precision": "float32"}
    return TrainingConfig(data=str(folder), out=str(out), **{**settings, **changes})


def command(*arguments) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.run(parser.parse_args([str(argument) for argument in arguments]))


def test_pictures_that_cannot_be_used_are_counted(folder):
    data = ImageFolder(folder, minimum=64)
    assert data.skipped == 2 and len(data.train) + len(data.held_back) == 6 and data.held_back
    crops = data.crops(5, 64, np.random.default_rng(0))
    assert crops.shape == (5, 3, 64, 64) and 0 <= crops.min() and crops.max() <= 1
    with pytest.raises(ValueError, match="no usable image"):
        ImageFolder(folder, minimum=1000)


def test_the_schedule_warms_up_stays_and_decays_to_zero():
    config = TrainingConfig(data="", out="", steps=100, warmup=10, decay=20)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == 0.1 and rates[9:81] == [1.0] * 72 and 0 < rates[99] < 0.1
    assert np.all(np.diff(rates[80:]) < 0)


def test_a_new_model_is_a_working_transform_coder(folder):
    """The PCA start: before any training, more rate buys more quality, and the prior's guess of its cost is sane."""
    torch.manual_seed(0)
    model = LossyVAE(CONFIGS["tiny"])
    data = ImageFolder(folder, minimum=64)
    crops = data.crops(64, 64, np.random.default_rng(1))
    model.start_from_pca(crops.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 16, 16))
    x = data.validation(128)[:1]
    outcomes = [rate_distortion(model, x, torch.tensor([t]), noisy=False) for t in (0.0, 1.0, 2.0)]
    assert outcomes[0]["mse"] > outcomes[1]["mse"] > outcomes[2]["mse"]
    assert 0.05 < outcomes[0]["bpp"] < outcomes[1]["bpp"] < outcomes[2]["bpp"] < 3


def test_the_textbook_transforms_start_as_a_linear_transform_and_its_inverse(folder):
    """With channels enough for every component, nothing is lost; the components are the latents, in pixel units."""
    torch.manual_seed(0)
    config = LossyConfig("wide", transform="convolutional", prior="factorised", widths=(24, 96, 384), latent_channels=768)
    model = LossyVAE(config)
    crops = ImageFolder(folder, minimum=64).crops(8, 64, np.random.default_rng(1))
    model.start_from_pca(crops.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 16, 16))
    with torch.no_grad():
        y = model.analysis(crops, torch.zeros(8))
        assert torch.allclose(model.synthesis(y, y, torch.zeros(8)), crops, atol=1e-4)
    assert torch.allclose(y.square().mean((0, 2, 3)).sqrt(), model.deviation, rtol=1e-3, atol=1e-5)
    assert torch.allclose(y.square().sum(), (crops - 0.5).square().sum(), rtol=1e-3)


def test_the_commitment_completes_straight_through_gradients(folder, monkeypatch):
    """Of a linear, orthonormal synthesis: with it, the gradient at rounded latents is that at the latents themselves."""
    monkeypatch.setitem(objective.RESPONSE, "residual", 1.0)
    torch.manual_seed(0)
    model = LossyVAE(CONFIGS["tiny"])
    crops = ImageFolder(folder, minimum=64).crops(4, 64, np.random.default_rng(1))
    model.start_from_pca(crops.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 16, 16))
    t = torch.tensor([0.0, 0.5, 1.0, 2.0])
    latents = model.analyse(crops, t).detach()

    def slope(distortion) -> torch.Tensor:
        y = latents.clone().requires_grad_()
        return torch.autograd.grad(distortion(y).sum(), y)[0]

    def mse(y) -> torch.Tensor:
        return 255**2 * (model.synthesise(y, t) - crops).square().mean((1, 2, 3))

    exact = slope(mse)
    rounded = slope(lambda y: mse(round_through(y)))
    complete = slope(lambda y: mse(round_through(y)) + objective.commitment(model, y - y.round().detach(), t))
    assert torch.allclose(complete, exact, atol=1e-4 * float(exact.abs().max()))
    assert not torch.allclose(rounded, exact, atol=0.1 * float(exact.abs().max()))


def test_training_lowers_the_objective(folder, tmp_path):
    config = configuration(folder, tmp_path, steps=60, decay=20, batch=4, lr=2e-4, validate_every=20, log_every=100, ema=0.9)
    trainer = Trainer(CONFIGS["tiny"], config)
    trainer._validate()
    trainer.run()
    cost = np.genfromtxt(tmp_path / "validation.csv", delimiter=",", names=True)["cost"]
    assert len(cost) == 4 and cost[-1] < 0.998 * cost[0]  # at the start, and after 20, 40 and 60 steps
    assert np.all(np.diff(cost[1:]) < 0)
    assert trainer.skipped == 0


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(folder, tmp_path):
    whole = Trainer(CONFIGS["tiny"], configuration(folder, tmp_path / "whole"))
    whole.run()
    part = Trainer(CONFIGS["tiny"], configuration(folder, tmp_path / "part"))
    for _ in range(4):
        part._train_step()
        part.step += 1
    part.save()
    resumed = Trainer(CONFIGS["tiny"], configuration(folder, tmp_path / "part"), resume=True)
    assert resumed.step == 4
    resumed.run()
    for name, value in whole.ema.items():
        assert torch.equal(value, resumed.ema[name]), name


def test_tensorboard_gets_the_rows_of_the_log(folder, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Trainer(CONFIGS["tiny"], configuration(folder, tmp_path, validate_every=6)).run()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("log", "validation"):
        table = np.atleast_1d(np.genfromtxt(tmp_path / f"{name}.csv", delimiter=",", names=True))
        for key in set(table.dtype.names) - {"step"}:
            scalars = events.Scalars(f"{name}/{key}")
            assert [scalar.step for scalar in scalars] == list(table["step"])
            assert [scalar.value for scalar in scalars] == pytest.approx(list(table[key]), rel=1e-6)


def test_a_step_that_is_not_finite_is_skipped_and_counted(folder, tmp_path):
    trainer = Trainer(CONFIGS["tiny"], configuration(folder, tmp_path))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    cut = trainer._batch
    trainer._batch = lambda step: (cut(step)[0] * float("nan"), cut(step)[1])
    trainer._train_step()
    assert trainer.skipped == 1
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_two_processes_train_one_model(folder, tmp_path):
    """DistributedDataParallel over gloo: both see other crops, one writes, all works as for one process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    arguments = ["--data", folder, "--out", tmp_path, "--config", "tiny", "--steps", 3, "--batch", 2, "--crop", 64, "-j", 1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "codec", "train", *map(str, arguments)],
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    state = load_checkpoint(tmp_path / CHECKPOINT)
    assert state["step"] == 3 and state["history"][-1]["processes"] == 2


def test_a_trained_model_compresses(folder, tmp_path, monkeypatch, photo, capsys):
    """From pictures to a model file to a compressed picture: train, fit the exact networks, export, use."""
    common = ("--data", folder, "--config", "tiny", "--batch", 2, "--crop", 64, "-j", 1, "--log-every", 5)
    assert command(*common, "--out", tmp_path / "a", "--steps", 5, "--snapshot", tmp_path / "a.stable.safetensors") == 0
    hyper = ("--phase", "hyper", "--init", tmp_path / "a.stable.safetensors", "--steps", 5)
    assert command(*common, *hyper, "--out", tmp_path / "b") == 0
    scales = ("--phase", "scales", "--init", tmp_path / "b" / CHECKPOINT, "--steps", 5)
    assert command(*common, *scales, "--out", tmp_path / "c", "--export", tmp_path / "m" / "mine.safetensors") == 0
    assert "images/s" in capsys.readouterr().out
    monkeypatch.setenv("CODEC_MODELS", str(tmp_path / "m"))
    monkeypatch.setenv("CODEC_MODEL", "mine")
    decoded = codec.decompress(codec.compress(photo, 50))
    assert np.mean((np.array(decoded, float) - np.array(photo)) ** 2) < 0.3 * np.var(np.array(photo))


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (("--config", "huge"), 2, "unknown configuration 'huge'"),
        (("--crop", "100"), 2, "multiple of 64"),
        (("--phase", "scales"), 2, "needs --init"),
        (("--data", "no-such-folder"), 1, "no usable image"),
    ],
)
def test_wrong_requests_end_in_one_line(folder, tmp_path, capsys, arguments, status, message):
    assert command("--data", folder, "--out", tmp_path, *arguments) == status
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def last_phase(phase: str, folder: Path, out: Path) -> Trainer:
    """Ready to run it, after those before."""
    init = None
    for name in ("all", "hyper", "scales"):
        Trainer(CONFIGS["tiny"], configuration(folder, out / name, phase=name, steps=3, init=init)).run()
        init = str(out / name / CHECKPOINT)
    return Trainer(CONFIGS["tiny"], configuration(folder, out / phase, phase=phase, steps=3, init=init))


def test_training_the_synthesis_alone_changes_no_symbol(folder, tmp_path):
    trainer = last_phase("synthesis", folder, tmp_path)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    x, t = trainer.validation[:2], torch.tensor([0.5, 1.5])
    outcomes = [rate_distortion(trainer.model, x, t, noisy=False)]
    trainer.run()
    outcomes.append(rate_distortion(trainer.model, x, t, noisy=False))
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("synthesis.", "log_inverse_gain.")) for name in changed)
    assert torch.equal(outcomes[0]["bpp"], outcomes[1]["bpp"])


def test_training_the_decoder_under_what_the_encoder_writes_leaves_the_encoder_alone(folder, tmp_path):
    trainer = last_phase("decoder", folder, tmp_path)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    x, t = trainer.validation[:2], torch.tensor([0.5, 1.5])
    latents = trainer.model.analyse(x, t), trainer.model.prior.infer(trainer.model.analyse(x, t))
    trainer.run()
    again = trainer.model.analyse(x, t), trainer.model.prior.infer(trainer.model.analyse(x, t))
    assert all(torch.equal(*pair) for pair in zip(latents, again, strict=True))
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    parts = ("synthesis.", "log_inverse_gain.", "prior.scale_network.", "prior.scale_offset.")
    assert {part for part in parts for name in changed if name.startswith(part)} == set(parts)
    assert all(name.startswith(parts) for name in changed)


def test_the_hyper_context_learns_what_hyper_latents_have_in_common(folder, tmp_path):
    """It begins with a logistic a channel; nothing else moves."""
    Trainer(CONFIGS["tiny"], configuration(folder, tmp_path / "all", steps=3)).run()
    init = str(tmp_path / "all" / CHECKPOINT)
    trainer = Trainer(CONFIGS["tiny"], configuration(folder, tmp_path / "hyper", phase="hyper", steps=30, decay=0, lr=1e-2, init=init))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    batch = trainer._crops(np.random.default_rng(1), 8)
    with torch.no_grad():
        bits = [float(objective.hyper_rate(trainer.model, *batch)["bpp"].sum())]
    trainer.run()
    with torch.no_grad():
        bits.append(float(objective.hyper_rate(trainer.model, *batch)["bpp"].sum()))
    assert bits[1] < 0.95 * bits[0]
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("prior.hyper_context.networks.") for name in changed)


def test_a_model_without_hyper_context_may_get_one_and_no_other_shape_fits(folder, tmp_path):
    plain = dataclasses.replace(CONFIGS["tiny"], hyper_groups=())
    Trainer(plain, configuration(folder, tmp_path / "all", steps=3)).run()
    init = str(tmp_path / "all" / CHECKPOINT)
    assert Trainer(CONFIGS["tiny"], configuration(folder, tmp_path / "b", phase="hyper", init=init)).model.config == CONFIGS["tiny"]
    with pytest.raises(ValueError, match="another shape"):
        Trainer(dataclasses.replace(CONFIGS["tiny"], hyper_groups=(4, 4), hyper_width=28), configuration(folder, tmp_path / "c", init=init))
    with pytest.raises(ValueError, match="another shape"):  # of a run, half of it
        Trainer(CONFIGS["tiny"], configuration(folder, tmp_path / "all", phase="hyper"), resume=True)
    with pytest.raises(ValueError, match="no hyper-context"):
        Trainer(plain, configuration(folder, tmp_path / "d", phase="hyper", init=init))


def test_symbols_that_no_table_expects_ask_for_wider_ones():
    """In flat tails, and from below the ladder, where nothing asks for narrower ones."""
    config = CONFIGS["tiny"]
    objective = WrittenRateDistortion(config)
    index = torch.tensor([-5.0, -5.0, 3.0, 30.0], requires_grad=True)
    symbols, levels = torch.tensor([0.0, 200, 200, 2]), torch.tensor([0, 0, 3, 30], dtype=torch.uint8)
    bits = written._Bits.apply(index, symbols, levels, objective.lengths, objective.slopes)
    assert bits.tolist() == objective.lengths[levels.long(), REACH + symbols.long()].tolist()
    bits.sum().backward()
    assert float(index.grad[0]) == 0 and (index.grad[1:3] < -1).all()
    # Where a table is as wide as the symbols that it is for, the derivative is that of a Gaussian's code length.
    gaussian = torch.tensor(30.0, requires_grad=True)
    symbol_bits(symbols[3], gaussian, levels[3], config).backward()
    assert float(index.grad[3]) == pytest.approx(float(gaussian.grad), rel=0.1)


def test_symbols_that_are_as_their_table_says_ask_for_no_other(rng):
    """At the end of the ladder and beside the first level of the trellis too, where tables have one neighbour only; and with wide tables of few
    counts, whose differences are noise."""
    config = CONFIGS["tiny"]
    objective = WrittenRateDistortion(config)
    counts = np.zeros((64, 2 * tables.COUNTED + 1), int)
    middle = slice(tables.COUNTED - REACH, tables.COUNTED + REACH + 1)
    for level, row in enumerate(np.exp2(-objective.lengths.double().numpy())):
        counts[level, middle] = rng.multinomial(2000, row / row.sum())
    for known in (None, counts):
        objective._choose_with(tables.latent_tables(config, known))
        probability = torch.exp2(-objective.lengths)
        assert float((probability * objective.slopes).sum(1).abs().max()) < 0.002
        assert float((probability * objective.slopes.abs()).sum(1)[config.trellis_level :].min()) > 0.05


def test_training_under_what_the_encoder_writes_moves_every_part(folder, tmp_path):
    trainer = last_phase("files", folder, tmp_path)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    x, t = trainer.validation[:2], torch.tensor([0.5, 1.5])
    with torch.no_grad():
        written = trainer.objective.function(trainer.model, x, t)
    rounded = rate_distortion(trainer.model, x, t, noisy=False)
    assert (written["loss"] < rounded["loss"]).all()  # symbols were chosen, not rounded
    trainer.run()
    assert not trainer.skipped
    same = {name for name, value in trainer.model.named_parameters() if torch.equal(value, before[name])}
    assert same == {name for name in before if name.startswith("prior.hyper_context.")}


def test_at_the_start_no_scale_is_pushed_by_its_table(folder, tmp_path, monkeypatch):
    """Symbols that the objective chooses are as its tables say, level by level: what is left of the derivatives has a mean of zero."""
    trainer = last_phase("files", folder, tmp_path)
    model, apply, seen = trainer.model, written._Bits.apply, []

    def heard(index, symbols, levels, *rest):
        seen.append((symbols, levels))
        return apply(index, symbols, levels, *rest)

    monkeypatch.setattr(written._Bits, "apply", heard)
    batches = [trainer._crops(np.random.default_rng(seed), 4) for seed in range(6)]

    def push(objective: WrittenRateDistortion) -> float:
        """Of the means by level, weighted by the symbols there; in bits a level."""
        seen.clear()
        with torch.no_grad():
            for x, t in batches:
                objective(model, x, t)
        symbols, levels = (torch.cat([values.flatten() for values in part]).long() for part in zip(*seen, strict=True))
        slopes = objective.slopes[levels, REACH + symbols]
        sums, count = torch.zeros(64).index_add(0, levels, slopes), levels.bincount(minlength=64)
        kept = count > 500
        return float(sums[kept].abs().sum() / count[kept].sum())

    monkeypatch.setattr(tables, "PSEUDO_COUNT", 50.0)  # Gaussian occurrences a table, of some thousands here
    own = WrittenRateDistortion(model.config)
    before = push(own)
    own.calibrate(model, batches)
    assert push(own) < 0.4 * before


def test_a_derivative_that_knows_how_symbols_are_chosen():
    """Its mean over targets in an interval is what the cost rises by from end to end, over the length; for means too."""
    config = dataclasses.replace(CONFIGS["tiny"], trellis_step=0.0)
    objective = WrittenRateDistortion(config)
    count, level, h, best = 100_001, 24, 3.0, 0.7
    shape = (1, 1, 1, count, 1)
    target = torch.linspace(-0.1, 1.1, count).view(shape)  # over one threshold, which is at 0.5 and more
    levels, curvature = torch.full(shape, level, dtype=torch.uint8), torch.full(shape, 4.0)
    constants = levels, torch.full(shape, float(level)), curvature, torch.full(shape, h)
    rate_weight = 0.5
    found: list = []
    y, mean = target.clone().requires_grad_(), torch.zeros(shape).requires_grad_()

    def choice(take, at):
        return choose(target - at, levels, curvature, rate_weight * objective.lengths, config)

    estimate = written._Estimate(objective, rate_weight, torch.ones(1, 1, 1, 1))
    decoded = written._Quantise.apply(y, mean, choice, None, estimate, constants, found)
    (h * (decoded - best).square()).sum().backward()
    bits = objective.lengths[level, REACH + found[0].long()]
    cost = (bits + h * (decoded.detach() - best).square()).flatten()
    assert set(found[0].flatten().tolist()) == {0.0, 1.0}
    assert float(y.grad.mean()) == pytest.approx(float((cost[-1] - cost[0]) / 1.2), rel=0.01)
    # Moved by a mean, symbols change the other way, and what they stand for moves along.
    along = 2 * h * (decoded.detach() - best)
    assert torch.allclose(mean.grad, along - y.grad, atol=1e-4)


def test_finer_steps_are_worth_what_the_derivative_says(monkeypatch):
    """All latents of the shipped model larger, and smaller again in the synthesis: what J does, against the derivative that is made up."""
    model = LossyVAE(CONFIGS["base"])
    model.load_state_dict(load_checkpoint(WEIGHTS / "base.stable.safetensors")["ema"])
    with Image.open(KODIM) as image:
        parts = [np.asarray(image.crop((left, 128, left + 256, 384))) for left in (0, 256, 512)]
    x = (torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2) / 255).contiguous(memory_format=torch.channels_last)
    function, t = WrittenRateDistortion(model.config), torch.tensor([2.0, 4.0, 6.0])
    monkeypatch.setattr(written, "ROUNDS", 1)
    monkeypatch.setattr(written, "MEASURED_EVERY", 10**9)  # the first call alone: random signs would make every loss another one
    torch.manual_seed(0)
    function.calibrate(model, [(x, t), (x.flip(0), t)])
    finer = [(model.log_gain.table, 1), (model.log_inverse_gain.table, -1)]

    @torch.no_grad()
    def loss(by: float) -> float:
        for table, sign in finer:
            table += sign * by
        found = float(function(model, x, t)["loss"].mean())
        for table, sign in finer:
            table -= sign * by
        return found

    function(model, x, t)["loss"].mean().backward()
    derivative = sum(sign * float(table.grad.sum()) for table, sign in finer)
    # 0.03 of J apart; 0.08 with slopes of bits under uniform noise, 0.26 with a commitment on the trellis.
    assert derivative / loss(0) == pytest.approx((loss(0.08) - loss(-0.08)) / 0.16 / loss(0), abs=0.07)


def test_code_lengths_of_a_trellis_are_those_of_its_tables():
    config = CONFIGS["tiny"]
    symbols = torch.arange(-12.0, 13)
    for level in (config.trellis_level, 25):
        levels = torch.full((25,), level, dtype=torch.uint8)
        bits = symbol_bits(symbols, levels.float(), levels, config)
        scale = float(index_to_scale(torch.tensor(float(level)))) / config.trellis_step
        assert torch.exp2(-bits).numpy() == pytest.approx(trellis_weights(scale, 12)[:-1], abs=1e-6)


def test_code_lengths_are_those_of_a_discretised_gaussian():
    scale = 2.0
    residual = torch.arange(-30.0, 31)
    bits = gaussian_bits(residual, scale_to_index(torch.tensor(scale)))
    assert torch.exp2(-bits).sum() == pytest.approx(1, abs=1e-5)
    # Differential entropy of a Gaussian: the discretisation of a wide one costs nothing.
    entropy = (torch.exp2(-bits) * bits).sum()
    assert float(entropy) == pytest.approx(0.5 * np.log2(2 * np.pi * np.e * (scale**2 + 1 / 12)), abs=0.01)


def test_soap_sees_through_a_rotation():
    """A badly conditioned quadratic whose axes no coordinate shows: Adam crawls, SOAP does not."""
    generator = torch.Generator().manual_seed(3)
    left, right = (torch.linalg.qr(torch.randn(24, 24, generator=generator))[0] for _ in range(2))
    curvature = torch.logspace(0, -4, 24)
    losses = {}
    for kind in (SOAP, torch.optim.Adam):
        weight = torch.nn.Parameter(left @ torch.randn(24, 24, generator=torch.Generator().manual_seed(4)) @ right)
        optimiser = kind([weight], lr=0.01)
        for _ in range(400):
            loss = (curvature[:, None] * curvature * (left.T @ weight @ right.T) ** 2).sum()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        losses[kind] = float(loss.detach())
    assert losses[SOAP] < 0.5 * losses[torch.optim.Adam]


def test_soap_is_adam_where_there_are_no_directions():
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 40)) for _ in range(2)]
    optimisers = [SOAP([weights[0]], lr=0.01, betas=(0.9, 0.98)), torch.optim.Adam([weights[1]], lr=0.01, betas=(0.9, 0.98))]
    for _ in range(30):
        for weight, optimiser in zip(weights, optimisers, strict=True):
            weight.grad = weight.detach() ** 3 - 0.1
            optimiser.step()
    assert torch.allclose(*weights, atol=1e-5)


def test_some_crops_have_flat_parts_in_whole_levels(folder):
    """What no photograph shows must be seen in training all the same: a network may make anything of it."""
    crops = ImageFolder(folder, minimum=64).crops(200, 64, np.random.default_rng(0))
    pieces = crops.unfold(2, 16, 16).unfold(3, 16, 16).flatten(4)  # 200×3×4×4×256
    flat = (pieces.amax(4) == pieces.amin(4)).all(1).flatten(1)
    assert 0.03 < flat.any(1).float().mean() < 0.3 and flat.all(1).any()
