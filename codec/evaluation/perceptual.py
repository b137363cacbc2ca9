"""Optional perceptual metrics, each from a package that needs no download of weights."""

import importlib.util
import tempfile
from pathlib import Path

from PIL import Image


def _ssimulacra2(reference: Image.Image, image: Image.Image) -> float:
    """SSIMULACRA 2 (100: equal; 90: hardly visible; 70: high, 50: medium, 30: low quality); PyPI's `ssimulacra2`."""
    from ssimulacra2 import compute_ssimulacra2

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("reference.png", "image.png")]  # the package takes files
        for picture, path in zip((reference, image), paths, strict=True):
            picture.save(path, compress_level=1)
        return float(compute_ssimulacra2(*map(str, paths)))


METRICS = {"ssimulacra2": _ssimulacra2}
_PACKAGES = {"ssimulacra2": ("ssimulacra2", "scipy")}


def check(name: str) -> None:
    """ValueError, with what to do, unless the metric is known and its packages are installed."""
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    missing = [package for package in _PACKAGES[name] if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(f"metric {name}: pip install {' '.join(missing)}")
