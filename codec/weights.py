"""Model files: safetensors with a configuration, found by hash (floor 2).

A model file holds float16 and float32 network weights (`net.*`), the integer networks of scales (`scale.*`) and, if it has
them, of hyper-context (`hyper.*`), integer probability tables (`table.*`) and, if it has one, the basis of post-filters;
its metadata hold the configuration and how it was trained, both as JSON. A compressed file names its model by the first
four bytes of the SHA-256 of the model file.

Models are looked for among the packaged ones and, before them, in the folder that the environment variable
CODEC_MODELS names (every *.safetensors in it), where names and hashes are looked up first.
The model that compresses is `base`, or for the eye (tune "ssimulacra2") `eyes` where that lies beside it, or whatever the
tune the one that CODEC_MODEL names; for lossless pictures `lossless-base`, or the one that CODEC_LOSSLESS_MODEL names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn
from torch.overrides import TorchFunctionMode

from .entropy.distributions import Table
from .entropy.mixtures import Arithmetic, tables
from .entropy.trellis import POLYNOMIALS
from .errors import FormatError, UnsupportedError
from .metrics import PSNR, SSIMULACRA2
from .networks.config import LosslessConfig, LossyConfig
from .networks.exact import IntegerNetwork
from .networks.execution import apart
from .networks.hyper import LEVELS, PLACES, ExactHyperContext
from .networks.layers import fast_bfloat16
from .networks.lossless import ACTIVATION_MAX, WEIGHT_GRID, LosslessVAE
from .networks.model import LossyVAE
from .postfilter import FEATURES
from .tables import unpack_tables

PACKAGED = Path(__file__).parent / "weights"
DEFAULT_MODEL = "base"
TUNED_MODELS = {SSIMULACRA2: "eyes"}  # by tune: what is taken in place of the default model beside it
DEFAULT_LOSSLESS_MODEL = "lossless-base"
LAYOUT = "lic-lossy-1"
LOSSLESS_LAYOUT = "lic-lossless-1"
MODEL_ID_BYTES = 4


@dataclass(frozen=True)
class LossyModel:
    """A model ready to run. `network` computes in floating point, `scales` and the tables in integers."""

    model_id: bytes
    config: LossyConfig
    device: str
    training: dict
    network: LossyVAE
    scales: IntegerNetwork | None  # None: factorised prior, scales depend on the rate point alone
    scale_offset: np.ndarray  # int64 [rate points, M], in OUTPUT_STEP of the ladder of scales
    latent_tables: list[Table]  # one a scale level
    hyper_tables: list[Table]  # one a rate point and channel of z; with hyper-context, one a level and place (`networks/hyper.py`)
    hyper_context: ExactHyperContext | None = None
    postfilter: torch.Tensor | None = None  # basis: float32 K×3×features (`postfilter.py`)


class _Uninitialised(TorchFunctionMode):
    """No random numbers for weights that are about to be read. (The meta device, where weights have no values at all, makes
    torch import its compiler: that takes as long as importing torch.)"""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if function is torch.randn else function)(*args, **(kwargs or {}))


def _candidates() -> list[Path]:
    extra = os.environ.get("CODEC_MODELS")
    folders = ([Path(extra)] if extra else []) + [PACKAGED]
    files = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    return [path for path in files if not path.name.endswith(".stable.safetensors")]


def default_path(*, lossless: bool = False, tune: str = PSNR) -> Path:
    """The model that compresses, for a tune (`metrics.TUNES`). Raises UnsupportedError if it is not there."""
    if lossless:
        names = [os.environ.get("CODEC_LOSSLESS_MODEL", DEFAULT_LOSSLESS_MODEL)]
    elif "CODEC_MODEL" in os.environ:
        names = [os.environ["CODEC_MODEL"]]
    else:
        names = [TUNED_MODELS.get(tune, DEFAULT_MODEL), DEFAULT_MODEL]
    found = [path for path in _candidates() if path.stem in names]
    if not found:
        raise UnsupportedError(f"no model named {names[-1]!r} is installed")
    # Of the first folder that has any of them: a `base` of one's own goes before a packaged `eyes`.
    return min((path for path in found if path.parent == found[0].parent), key=lambda path: names.index(path.stem))


def find(model_id: bytes) -> Path:
    """The file whose hash begins with `model_id`. Raises UnsupportedError if none is installed."""
    for path in _candidates():
        if digest(path)[:MODEL_ID_BYTES] == model_id:
            return path
    raise UnsupportedError(f"the model {model_id.hex()} that made this file is not installed")


def digest(path: Path) -> bytes:
    """SHA-256 of a model file."""
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _digest(path: Path, modified: int, size: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@dataclass(frozen=True, eq=False)
class Frozen:
    """A model as its file holds it, in memory: what `assemble` makes ready to run and `save` writes. Made by `freeze.py`."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    data: bytes  # the file; made once, since safetensors writes metadata in a random order

    @classmethod
    def of(cls, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> Frozen:
        """tensors are copied: those of a network train on."""
        own = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
        return cls(own, metadata, serialise(own, metadata))

    @property
    def model_id(self) -> bytes:
        return hashlib.sha256(self.data).digest()[:MODEL_ID_BYTES]


def save(frozen: Frozen, path: Path) -> None:
    """Write a model file, lossy or lossless; whoever reads it meanwhile finds the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(frozen.data)
    temporary.chmod(0o644)
    os.replace(temporary, path)


def load(path: Path, device: str = "cpu") -> LossyModel:
    """Read a model file. Raises UnsupportedError for another layout, FormatError for a damaged file."""
    return _load(path, digest(path), device)


@lru_cache(maxsize=2)
@apart()
def _load(path: Path, sha256: bytes, device: str) -> LossyModel:
    with _errors_of(path):
        return _assemble(*_read(path), sha256[:MODEL_ID_BYTES], device)


@apart()
def assemble(frozen: Frozen, device: str = "cpu") -> LossyModel:
    """A frozen model, ready to run: what `load` gives of its file. ValueError where sums of an exact network would not be."""
    return _assemble(frozen.tensors, frozen.metadata, frozen.model_id, device)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Errors name the file, and are ours."""
    try:
        yield
    except UnsupportedError as error:
        raise UnsupportedError(f"{path.name}: {error}") from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(f"{path.name}: not a usable model file: {error}") from error


def _require_layout(metadata: dict[str, str], layout: str) -> None:
    if metadata.get("layout") != layout:
        raise UnsupportedError(f"model layout {metadata.get('layout')!r}, this version reads {layout!r}")


def _assemble(tensors: dict[str, torch.Tensor], metadata: dict[str, str], model_id: bytes, device: str) -> LossyModel:
    _require_layout(metadata, LAYOUT)
    config = LossyConfig.from_dict(json.loads(metadata["config"]))
    if config.trellis_step and config.trellis_states not in POLYNOMIALS:
        raise UnsupportedError(f"a trellis of {config.trellis_states} states, which this version does not know")
    with _Uninitialised():
        network = LossyVAE(config)
    for exact in ("scale_network", "hyper_context"):
        if hasattr(network.prior, exact):
            delattr(network.prior, exact)  # at run time its integers stand for it
    network.load_state_dict(
        {key[4:]: value.float() for key, value in tensors.items() if key.startswith("net.")}, assign=True
    )
    network.requires_grad_(False).to(device, memory_format=torch.channels_last)
    # What `transform_precision` would make of them for every picture; the textbook synthesis shows pictures in float32.
    if fast_bfloat16(torch.device(device)) and config.transform == "residual":
        for transform in (network.analysis, network.synthesis):
            for layer in transform.modules():
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                    layer.to(torch.bfloat16)
    scales = context = None
    if config.prior == "hyperprior":
        scales = IntegerNetwork({key[6:]: value for key, value in tensors.items() if key.startswith("scale.")}, device)
        if config.hyper_groups:
            integers = {key[6:]: value for key, value in tensors.items() if key.startswith("hyper.")}
            context = ExactHyperContext(config, integers)
    basis = tensors.get("postfilter.basis")
    if basis is not None and (basis.shape[1:] != (3, FEATURES) or len(basis) > 255):
        raise ValueError(f"a post-filter of {tuple(basis.shape)}")
    return LossyModel(
        model_id=model_id,
        config=config,
        device=device,
        training=json.loads(metadata.get("training", "{}")),
        network=network,
        scales=scales,
        scale_offset=tensors["table.scale_offset"].numpy().astype(np.int64),
        latent_tables=unpack_tables(tensors["table.latents"], tensors["table.latents_ranges"]),
        hyper_tables=_hyper_tables(tensors, config),
        hyper_context=context,
        postfilter=None if basis is None else basis.to(device),
    )


def _hyper_tables(tensors: dict[str, torch.Tensor], config: LossyConfig) -> list[Table]:
    if config.prior != "hyperprior":
        return []
    found = unpack_tables(tensors["table.hyper"], tensors["table.hyper_ranges"])
    if len(found) != (LEVELS * PLACES if config.hyper_groups else config.rate_points * config.hyper_latent_channels):
        raise ValueError(f"{len(found)} tables of hyper-latents")
    return found


# Lossless models: weights as integers in WEIGHT_GRID, the tables of `entropy.mixtures`, a linear prediction.


@dataclass(frozen=True)
class LosslessModel:
    """A lossless model ready to run, exactly: `network` in float64, all weights on their grid."""

    model_id: bytes
    config: LosslessConfig
    training: dict
    network: LosslessVAE
    arithmetic: Arithmetic
    coefficients: np.ndarray  # linear prediction of pictures that bring none of their own


def load_lossless(path: Path) -> LosslessModel:
    """Read a lossless model file. Raises UnsupportedError for another layout, FormatError for a damaged file."""
    return _load_lossless(path, digest(path))


@lru_cache(maxsize=2)
@apart()
def _load_lossless(path: Path, sha256: bytes) -> LosslessModel:
    with _errors_of(path):
        return _assemble_lossless(*_read(path), sha256[:MODEL_ID_BYTES])


@apart()
def assemble_lossless(frozen: Frozen) -> LosslessModel:
    """A frozen lossless model, ready to run: what `load_lossless` gives of its file. ValueError as for `assemble`."""
    return _assemble_lossless(frozen.tensors, frozen.metadata, frozen.model_id)


def _assemble_lossless(tensors: dict[str, torch.Tensor], metadata: dict[str, str], model_id: bytes) -> LosslessModel:
    _require_layout(metadata, LOSSLESS_LAYOUT)
    config = LosslessConfig.from_dict(json.loads(metadata["config"]))
    with _Uninitialised():
        network = LosslessVAE(config)
    state = {key[4:]: value.double() * WEIGHT_GRID for key, value in tensors.items() if key.startswith("net.")}
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False)
    _require_exact_sums(state)
    return LosslessModel(
        model_id=model_id,
        config=config,
        training=json.loads(metadata.get("training", "{}")),
        network=network,
        arithmetic=Arithmetic(**{name: tensors[f"table.{name}"].numpy() for name in tables()}),
        coefficients=tensors["table.coefficients"].numpy().astype(np.float64),
    )


def _require_exact_sums(state: dict[str, torch.Tensor]) -> None:
    """ValueError unless every sum of every layer is exact in float64: inputs are bounded, and multiples of 2^-12."""
    for name, weight in state.items():
        if name.endswith(".weight"):
            bound = float((weight.abs().sum(1) * ACTIVATION_MAX + state[name[:-6] + "bias"].abs()).max())
            if 2 * bound / WEIGHT_GRID * 2**12 >= 2**53:  # two layers may be added before the rounding
                raise ValueError(f"{name}: sums up to {bound} are not exact")
