"""The training loop: schedule, moving average, checkpoints, log.

Every random draw of a step depends on (seed, rank, step) alone, so that a resumed run continues as if it had
never stopped. Several processes (torchrun) average gradients with DistributedDataParallel; rank 0 writes.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor, nn

from ..networks.config import LosslessConfig, LossyConfig
from ..networks.hyper import HyperContext
from ..networks.layers import fast_bfloat16
from ..networks.model import LossyVAE
from .data import ImageFolder
from .encoded import Encoded, encode_crops
from .objective import hyper_rate, rate_distortion, scale_rate, synthesis_distortion
from .soap import SOAP
from .written import WrittenRateDistortion

CHECKPOINT = "checkpoint.pt"
PATCHES_FOR_PCA = 40_000
VALIDATION_POINTS = 5
# Phase: what it minimises, and which fields of encoded crops that sees.
PHASES = {
    "all": (rate_distortion, ()),
    "hyper": (hyper_rate, ()),
    "scales": (scale_rate, ("z", "residuals", "levels", "t")),
    "files": (None, ()),  # see `_objective`
    "decoder": (None, ()),
    "synthesis": (synthesis_distortion, ("x", "decoded", "t")),
}
ENCODED_CROPS = 1536  # for the phases after the first: 1 GB at 256² pixels
COUNTED_CROPS = 160  # a process, for the tables that symbols are chosen with while all weights train


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; printed, and saved in every checkpoint."""

    data: str
    out: str
    steps: int = 20_000
    warmup: int = 300
    decay: int = 5_000  # last steps, learning rate to zero; 0 leaves the weights stable, to be continued
    batch: int = 8  # crops a step and process
    crop: int = 128
    lr: float = 1e-3
    optimiser: str = "soap"  # or "adam"
    clip: float = 20.0
    ema: float = 0.998
    seed: int = 0
    # "all": everything, under noise; "hyper": the hyper-context alone, exact; "scales": the exact scale network alone, quantisation in the
    # loop; "files": everything but the hyper-context, under what the encoder writes; "decoder": the same for synthesis and scales
    # alone, whose derivatives are exact, since symbols do not depend on them; "synthesis": that network alone, whose weights no symbol
    # depends on: files keep their bytes.
    phase: str = "all"
    init: str | None = None
    precision: str = "auto"  # "auto", "float32" or "bfloat16"
    checkpoint_minutes: float = 5.0
    log_every: int = 50
    validate_every: int = 2_000
    limit: int | None = None  # images to load at most


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Warm-up–stable–decay, as a factor of the peak; the decay is linear to zero."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    return warm if config.decay == 0 else warm * min(1.0, (config.steps - step) / config.decay)


def optimiser(model: nn.Module, config: TrainingConfig, *, reduced: bool = False) -> torch.optim.Optimizer:
    """SOAP over the parameters that are to be trained; each group keeps its peak learning rate as `peak`.

    Few pictures of a batch touch a row of a table, and p(z) must keep up with z: tables learn faster. The linear
    transforms start near their optimum, and their entries are small: they learn slower.
    """
    factors = {"table": 3.0, "linear": 0.2}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(factors.get(name.rpartition(".")[2], 1.0), []).append(parameter)
    described = [
        {"params": parameters, "lr": factor * config.lr, "peak": factor * config.lr}
        for factor, parameters in sorted(groups.items())
    ]
    if config.optimiser == "adam":
        return torch.optim.AdamW(described, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return SOAP(described, reduced=reduced)


class Objective(nn.Module):
    """The loss as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module, function: Callable[..., dict[str, Tensor]]):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        return self.function(self.model, *batch)


def load_checkpoint(path: str | Path) -> dict:
    """A dictionary with `model_config`, `ema`, `history` and, in full checkpoints, the state of training.

    Reads checkpoints and the weights-only files of `export.snapshot`.
    """
    if Path(path).suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            averaged = {name: file.get_tensor(name).float() for name in file.keys()}
        return {
            "model_config": json.loads(metadata["config"]),
            "ema": averaged,
            "history": json.loads(metadata["history"]),
        }
    return torch.load(path, map_location="cpu", weights_only=True)


def save_atomically(state: dict, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


class Trainer:
    """One run of a lossy model: built from configurations, `run()` trains to the last step.

    What a lossless model does otherwise is in `lossless.LosslessTrainer`: data, start, batch, objective, validation.
    """

    def __init__(self, model_config: LossyConfig | LosslessConfig, config: TrainingConfig, *, resume: bool = False):
        self.config, self.model_config = config, model_config
        # Gradients of vanishing probabilities are denormal numbers, which processors handle many times slower.
        # Threads inherit the setting, so it comes before any work.
        torch.set_flush_denormal(True)
        self.rank = int(os.environ.get("RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        self.out = Path(config.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self._load_data()
        torch.manual_seed(config.seed)
        self.model = self._new_model()
        self.step = self.skipped = 0
        self.seconds = 0.0
        state = load_checkpoint(self.out / CHECKPOINT) if resume else None
        start: dict | None = None
        if state is None:
            if config.init:
                start = load_checkpoint(config.init)
                self._check_shape(start, config.init, grow=True)
                # A phase of its own begins the hyper-context.
                fresh = {name: value for name, value in self.model.state_dict().items() if ".hyper_context." in name}
                self.model.load_state_dict(fresh | start["ema"])
            else:
                self._start_fresh()
        else:
            self._check_shape(state, self.out / CHECKPOINT)
            self.model.load_state_dict(state["model"])
        self.model.to(self.device, memory_format=torch.channels_last)
        if config.phase == "scales":
            self._prepare_scales(calibrate=state is None)
        elif config.phase == "hyper":
            self._prepare_hyper(begin=state is None)
        elif config.phase == "synthesis":
            self._train_only(self.model.synthesis, self.model.log_inverse_gain)
        elif config.phase == "decoder":
            prior = self.model.prior
            self._train_only(self.model.synthesis, self.model.log_inverse_gain, prior.scale_network, prior.scale_offset)
        if config.phase != "hyper" and self._context is not None:
            self._context.requires_grad_(False)
        self.encoded = None if PHASES[config.phase][1] == () else self._encode(ENCODED_CROPS)
        self.ema = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.bfloat16 = fast_bfloat16(self.device) if config.precision == "auto" else config.precision == "bfloat16"
        self.optimiser = optimiser(self.model, config, reduced=self.bfloat16)
        if state is not None:
            self.ema = {name: value.to(self.device) for name, value in state["ema"].items()}
            peaks = [group["peak"] for group in self.optimiser.param_groups]
            self.optimiser.load_state_dict(state["optimiser"])
            for group, peak in zip(self.optimiser.param_groups, peaks, strict=True):
                group["peak"] = peak  # the learning rate of this run, should it differ
            self.step, self.skipped, self.seconds = state["step"], state["skipped"], state["seconds"]
        self.objective_function = self._objective()
        objective = Objective(self.model, self.objective_function)
        if self.world > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            objective = nn.parallel.DistributedDataParallel(objective, device_ids=devices)
        self.objective = objective
        # What trained this model, for the model file: the runs before this one, oldest first.
        self.history = start["history"] if start else state["history"][:-1] if state else []

    def _load_data(self) -> None:
        config = self.config
        self.data = ImageFolder(config.data, minimum=config.crop, device=self.device, limit=config.limit)
        self.validation = self.data.validation(min(256, config.crop * 2, self._largest_validation()))

    def _new_model(self) -> nn.Module:
        return LossyVAE(self.model_config)

    def _start_fresh(self) -> None:
        self.model.start_from_pca(self._patches())

    def _objective(self) -> Callable[..., dict[str, Tensor]]:
        if self.config.phase in ("files", "decoder"):
            return self._written()
        return PHASES[self.config.phase][0]

    def _written(self) -> WrittenRateDistortion:
        objective, rng = WrittenRateDistortion(self.model_config), np.random.default_rng((self.config.seed, self.rank))
        batches = [self._crops(rng, self.config.batch) for _ in range(-(-COUNTED_CROPS // self.config.batch))]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            objective.calibrate(self.model, batches, self._add_up)
        return objective

    def _add_up(self, counts: Tensor) -> None:
        """Counts on the CPU, of all processes. (NCCL takes nothing from there.)"""
        if self.world > 1:
            found = counts.to(self.device)
            dist.all_reduce(found)
            counts.copy_(found)

    def _check_shape(self, state: dict, path: str | Path, *, grow: bool = False) -> None:
        """grow: a model without hyper-context may get one."""
        shape, found = type(self.model_config), state["model_config"]
        if grow and isinstance(self.model_config, LossyConfig) and not found.get("hyper_groups"):
            found = {**found, "hyper_groups": self.model_config.hyper_groups}
        if found.keys() != self.model_config.to_dict().keys() or shape.from_dict(found) != self.model_config:
            raise ValueError(f"{path} holds a model {found['name']!r} of another shape")

    def _largest_validation(self) -> int:
        smallest = min(min(image.shape[1:]) for image in (self.data.held_back or self.data.train))
        return max(64, smallest // 64 * 64)

    def _patches(self) -> Tensor:
        rng = np.random.default_rng(self.config.seed)
        size = self.config.crop // 16 * 16
        crops = self.data.crops(max(8, PATCHES_FOR_PCA * 256 // size**2), size, rng).cpu()
        return crops.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 16, 16)

    def _train_only(self, *modules: nn.Module) -> None:
        self.model.requires_grad_(False)
        for module in modules:
            module.requires_grad_(True)

    def _prepare_scales(self, calibrate: bool) -> None:
        prior = self.model.prior
        self._train_only(prior.scale_network, prior.scale_offset)
        if calibrate:
            x, t = self._crops(np.random.default_rng((self.config.seed, self.rank)), 32)
            with torch.no_grad():
                prior.scale_network.calibrate(prior.infer(self.model.analyse(x, t)).round())

    @property
    def _context(self) -> HyperContext | None:
        return getattr(getattr(self.model, "prior", None), "hyper_context", None)

    def _prepare_hyper(self, begin: bool) -> None:
        """begin: unless it was trained before, with the channels in the order of their news."""
        if self._context is None:
            raise ValueError(f"the model {self.model_config.name!r} has no hyper-context")
        self._train_only(self._context)
        if begin and float(self._context.networks[0].layers[-1].step) == 0:
            x, t = self._crops(np.random.default_rng((self.config.seed, 0)), 32)
            with torch.no_grad():
                self._context.calibrate(self.model.prior.infer(self.model.analyse(x, t)).round(), t)

    def _encode(self, count: int) -> Encoded:
        """What the phases after the first are fitted to: so many crops at most.

        (A run that is resumed encodes anew, with the scales it has by then.)
        """
        network = LossyVAE(self.model_config)
        network.load_state_dict({name: value.cpu() for name, value in self.model.state_dict().items()})
        count = min(count, self.config.steps * self.config.batch)
        return encode_crops(network, self.data, count, self.config.crop, self.config.seed + self.rank)

    def _batch(self, step: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((self.config.seed, self.rank, step))
        if self.encoded is None:
            return self._crops(rng, self.config.batch)
        return tuple(values.to(self.device) for values in self.encoded.batch(self.config.batch, rng, PHASES[self.config.phase][1]))

    def _crops(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        x = self.data.crops(count, self.config.crop, rng).to(memory_format=torch.channels_last)
        # Stratified over the grid: every batch holds low and high rates.
        t = (np.arange(count) + rng.random(count)) / count * (self.model.config.rate_points - 1)
        return x, torch.from_numpy(rng.permutation(t).astype(np.float32)).to(self.device)

    def run(self) -> None:
        config = self.config
        started, last_save, window = time.monotonic() - self.seconds, time.monotonic(), []
        while self.step < config.steps:
            window.append(self._train_step())
            self.step += 1
            self.seconds = time.monotonic() - started
            if self.rank:
                continue
            if self.step % config.log_every == 0 or self.step == config.steps:
                self._log(window)
                window = []
            if self.step % config.validate_every == 0 or self.step == config.steps:
                self._validate()
            if time.monotonic() - last_save > 60 * config.checkpoint_minutes or self.step == config.steps:
                self.save()
                last_save = time.monotonic()

    def _train_step(self) -> dict[str, float]:
        config = self.config
        factor = learning_rate(self.step, config)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        batch = self._batch(self.step)
        torch.manual_seed(hash((config.seed, self.rank, self.step)) % 2**63)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            outcome = self.objective(*batch)
        loss = outcome["loss"].mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        if math.isfinite(float(norm)):  # equal on all ranks: gradients are averaged before
            self.optimiser.step()
            decay = min(config.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.ema.values()), list(self.model.state_dict().values()), 1 - decay)
        else:
            self.skipped += 1
        self.model.zero_grad(set_to_none=True)
        return {"norm": float(norm), **{key: float(value.detach().mean()) for key, value in outcome.items()}}

    def _log(self, window: list[dict[str, float]]) -> None:
        row = {key: sum(entry[key] for entry in window) / len(window) for key in window[0]}
        rate = self.step / max(self.seconds, 1e-9)
        left = (self.config.steps - self.step) / max(rate, 1e-9)
        quality = f"  psnr {10 * math.log10(255**2 / max(row['mse'], 1e-9)):.2f}" if "mse" in row else ""
        rates = "".join(f"  {key} {row[key]:.4f}" for key in ("bpp", "bpsp", "kl") if key in row)
        print(
            f"step {self.step}/{self.config.steps}  loss {row['loss']:.4f}{rates}{quality}"
            f"  norm {row['norm']:.2f}  {rate * self.config.batch * self.world:.1f} images/s  {left / 60:.0f} min left"
            + (f"  {self.skipped} skipped" if self.skipped else ""),
            flush=True,
        )
        self._write("log.csv", {"step": self.step, "seconds": round(self.seconds, 1), "skipped": self.skipped, **row})

    @torch.no_grad()
    def _validate(self) -> None:
        """Rate–distortion of the averaged weights on held-back pictures: symbols rounded, or as the encoder chooses them."""
        current = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        row: dict[str, float] = {"step": self.step, "seconds": round(self.seconds, 1)}
        total = 0.0
        function = self.objective_function if self.config.phase in ("files", "decoder") else partial(rate_distortion, noisy=False)
        for point in range(VALIDATION_POINTS):
            position = (0.5 + point) / VALIDATION_POINTS * (self.model.config.rate_points - 1)
            outcomes = []
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                for x in self.validation.split(4):
                    t = torch.full((len(x),), position, device=self.device)
                    outcomes.append(function(self.model, x.to(memory_format=torch.channels_last), t))
            bpp = torch.cat([o["bpp"] for o in outcomes])
            mse = torch.cat([o["mse"] for o in outcomes])
            row[f"bpp_{point}"] = float(bpp.mean())
            row[f"hyper_bpp_{point}"] = float(torch.cat([o["hyper_bpp"] for o in outcomes]).mean())
            row[f"psnr_{point}"] = float((10 * torch.log10(255**2 / mse)).mean())
            total += math.log(float((bpp + self.model.trade_off(position) * mse).mean()))
        self.model.load_state_dict(current)
        row["cost"] = math.exp(total / VALIDATION_POINTS)  # geometric mean of R + λD over the rates
        points = "  ".join(f"{row[f'bpp_{p}']:.3f}/{row[f'psnr_{p}']:.2f}" for p in range(VALIDATION_POINTS))
        print(f"validation at step {self.step}: cost {row['cost']:.4f}  bpp/psnr {points}", flush=True)
        self._write("validation.csv", row)

    def _write(self, name: str, row: dict) -> None:
        path = self.out / name
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row.keys())
            if new:
                writer.writeheader()
            writer.writerow(row)
        if self._events is not None:
            for key, value in row.items():
                if key != "step":
                    self._events.add_scalar(f"{path.stem}/{key}", value, row["step"])
            self._events.flush()

    @cached_property
    def _events(self):
        """What writes the same rows for TensorBoard; None where its package is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return SummaryWriter(self.out / "tensorboard", purge_step=self.step)

    def history_now(self) -> list[dict]:
        """Every run that made these weights, this one last."""
        done = {"steps_done": self.step, "minutes": round(self.seconds / 60, 1), "processes": self.world}
        return [*self.history, {**dataclasses.asdict(self.config), **done}]

    def save(self) -> None:
        history = self.history_now()
        save_atomically(
            {
                "model_config": self.model.config.to_dict(),
                "model": self.model.state_dict(),
                "ema": self.ema,
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
                "skipped": self.skipped,
                "seconds": self.seconds,
                "history": history,
            },
            self.out / CHECKPOINT,
        )
        (self.out / "config.json").write_text(json.dumps({"model": self.model.config.to_dict(), "training": history[-1]}, indent=1))
