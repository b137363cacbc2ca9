"""The columns of quality: what each metric is, how it is measured, and on which scale curves and BD-rates have it.

To add a metric, add a Column to COLUMNS; rows, curves, summaries, comparisons, plots, report and viewer need nothing
else. PSNR and MS-SSIM are fields of every row. The others are optional: each needs a package or a program, none of
which fetches weights, and a column is there where its metric can be had.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .rows import Row

Measure = Callable[[np.ndarray, np.ndarray], float]  # (original, decoded), H×W×3 uint8 -> the metric


class MissingMetric(Exception):
    """A metric whose package or program is not here or does not run; the message says what to do."""


@dataclass(frozen=True)
class Column:
    """`scale` takes means over images to what curves and BD-rates have, which rises with quality."""

    name: str  # in rows and summaries
    title: str
    unit: str  # of the scale
    formula: str = ""  # of the scale, with the metric as m
    scale: Callable[[np.ndarray], np.ndarray] = lambda mean: mean
    field: str = ""  # of a row; else it is among its `perceptual` ones
    equal: float = np.nan  # what None stands for in the field
    span: tuple[float, float] = (-np.inf, np.inf)  # of the scale, that BD-rates count
    load: Callable[[], Measure] | None = None  # MissingMetric where it cannot be had
    default: bool = False  # measured unless another choice is made

    def value(self, row: Row) -> float:
        """nan: undefined, or not measured."""
        value = getattr(row, self.field) if self.field else row.perceptual.get(self.name, np.nan)
        return self.equal if value is None else value

    @property
    def label(self) -> str:
        """For an axis."""
        return ", ".join(word for word in (self.title, self.formula, self.unit) if word)


def decibels(loss: np.ndarray) -> np.ndarray:
    """−10 log₁₀ of what is 0 for equal pictures; inf at 0."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.asarray(loss, np.float64))


def _ssimulacra2() -> Measure:
    """PyPI's `ssimulacra2`: not the module that models are trained with, though they agree."""
    _need("ssimulacra2", "scipy")
    from ssimulacra2 import compute_ssimulacra2

    return lambda original, decoded: _through_files(original, decoded, compute_ssimulacra2)


def _butteraugli() -> Measure:
    """The program of libjxl: 3-norm, on a display of 80 cd/m²."""
    program = shutil.which("butteraugli_main")
    if program is None:
        raise MissingMetric("put libjxl's butteraugli_main on PATH (Debian: apt install libjxl-devtools)")

    def run(*paths: str) -> float:
        result = subprocess.run([program, *paths], capture_output=True, text=True)
        found = re.search(r"^3-norm: ([0-9.]+)$", result.stdout, re.MULTILINE)
        if result.returncode or not found:
            raise ValueError(f"{program}: {(result.stderr or result.stdout).strip()[-200:]}")
        return float(found[1])

    return lambda original, decoded: _through_files(original, decoded, run)


def _cvvdp() -> Measure:
    """PyPI's `cvvdp`, ColorVideoVDP, for its usual display: 30 inches, 4K, at 75 cm."""
    _need("pycvvdp", "torchvision", install="cvvdp")
    import pycvvdp
    import torch

    metric = pycvvdp.cvvdp(display_name="standard_4k", quiet=True, device=torch.device("cpu"))

    def measure(original: np.ndarray, decoded: np.ndarray) -> float:
        with torch.no_grad():
            return float(metric.predict(decoded, original, dim_order="HWC")[0])

    return measure


def _need(*modules: str, install: str = "") -> None:
    if any(importlib.util.find_spec(module) is None for module in modules):
        raise MissingMetric(f"pip install {install or modules[0]}")


def _through_files(original: np.ndarray, decoded: np.ndarray, measure: Callable[[str, str], float]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("original.png", "decoded.png")]
        for pixels, path in zip((original, decoded), paths, strict=True):
            Image.fromarray(pixels).save(path, compress_level=1)
        return float(measure(*paths))


COLUMNS = {
    column.name: column
    for column in (
        Column("psnr", "PSNR (RGB)", "dB", field="psnr_rgb", equal=np.inf),
        Column(
            "ms_ssim", "MS-SSIM", "dB", "−10 log₁₀(1 − m)", scale=lambda mean: decibels(1 - mean), field="ms_ssim"
        ),
        # 100: equal, 90: hardly visible, 70: high, 50: medium, 30: low quality.
        Column("ssimulacra2", "SSIMULACRA 2", "points", span=(40, 90), load=_ssimulacra2, default=True),
        Column("butteraugli", "Butteraugli 3-norm", "dB", "−10 log₁₀ m", scale=decibels, load=_butteraugli),
        Column("cvvdp", "CVVDP", "JOD", load=_cvvdp),  # 10: equal; a point less: three of four people see it
    )
}
OPTIONAL = tuple(name for name, column in COLUMNS.items() if column.load)
DEFAULT = tuple(name for name in OPTIONAL if COLUMNS[name].default)


def check(name: str) -> None:
    """ValueError unless it names an optional metric."""
    if name not in OPTIONAL:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(OPTIONAL)}")


def load(name: str) -> Measure:
    """MissingMetric where it cannot be had, whatever its package throws."""
    try:
        return COLUMNS[name].load()
    except MissingMetric:
        raise
    except Exception as error:
        raise MissingMetric(f"{type(error).__name__}: {error}") from error
