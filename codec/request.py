"""What a caller of `compress` asks for, checked once: one object from `api.py` down."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass

from .metrics import PSNR, TUNES

DEFAULT_QUALITY = 75.0
NEVER = "never"  # of `lossless`: a lossy file, whatever an exact one would take


@dataclass(frozen=True)
class Target:
    """What a file has to keep to, one of them: ceilings of its size, or floors of what it shows."""

    bytes: int | None = None
    bpp: float | None = None
    psnr: float | None = None  # dB
    ssimulacra2: float | None = None  # points, up to 100: equal pictures

    def ceiling(self, width: int, height: int) -> int | None:
        """In bytes, for a picture of so many pixels."""
        return self.bytes if self.bpp is None else int(self.bpp * width * height / 8)


@dataclass(frozen=True)
class Request:
    """How to code a picture."""

    quality: int | None  # hundredths; None with a target
    target: Target | None
    lossless: bool  # exact, whatever it takes
    lossy: bool  # never exact
    effort: int
    tune: str  # one of `metrics.TUNES`
    device: str
    threads: int
    progress: Callable[[float], None] | None

    @classmethod
    def of(
        cls,
        *,
        quality: float,
        lossless: bool | str,
        effort: int,
        tune: str,
        target_bytes: int | None,
        target_bpp: float | None,
        target_psnr: float | None,
        target_ssimulacra2: float | None,
        device: str,
        threads: int,
        progress: Callable[[float], None] | None,
    ) -> Request:
        """The arguments of `compress`. ValueError and TypeError for wrong ones, and for those that exclude one another."""
        if not 0 <= number("quality", quality) <= 100:
            raise ValueError(f"quality must be within 0 to 100, not {quality}")
        if integer("effort", effort) not in range(1, 10):
            raise ValueError(f"effort must be within 1 to 9, not {effort}")
        if tune not in TUNES:
            raise ValueError(f"tune must be one of {', '.join(TUNES)}, not {tune!r}")
        if isinstance(lossless, str) and lossless != NEVER:
            raise ValueError(f'lossless must be True, False or "{NEVER}", not {lossless!r}')
        exact = lossless != NEVER and bool(lossless)
        if tune != PSNR and (exact or effort == 1):
            raise ValueError(f"tune {tune} is for the search of lossy files, effort 2 and up")
        check_execution(device, threads)
        if target_bytes is not None:
            integer("target_bytes", target_bytes)
        targets = {"bytes": target_bytes, "bpp": target_bpp, "psnr": target_psnr, "ssimulacra2": target_ssimulacra2}
        targets = {name: value for name, value in targets.items() if value is not None}
        for name, value in targets.items():
            if name == "ssimulacra2":
                if not -math.inf < number(f"target_{name}", value) <= 100:
                    raise ValueError(f"target_{name} must be a finite number up to 100, not {value}")
            elif not 0 < number(f"target_{name}", value) < math.inf:
                raise ValueError(f"target_{name} must be a positive number, not {value}")
        others = {"lossless": exact, "quality": quality != DEFAULT_QUALITY}
        chosen = [f"target_{name}" for name in targets] + [name for name, given in others.items() if given]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} exclude one another: give one")
        return cls(
            quality=None if targets else round(float(quality) * 100),
            target=Target(**targets) if targets else None,
            lossless=exact,
            lossy=lossless == NEVER,
            effort=effort,
            tune=tune,
            device=device,
            threads=threads,
            progress=progress,
        )


def number(name: str, value) -> float:
    """The value of an argument. TypeError unless it is a number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    return value


def integer(name: str, value) -> int:
    """The value of an argument. TypeError unless it is an integer."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    return value


def check_execution(device: str, threads: int) -> None:
    """ValueError and TypeError for what no machine has."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f'device must be "auto", "cpu" or "cuda", not {device!r}')
    if integer("threads", threads) < 0:
        raise ValueError(f"threads must be 0 (all) or more, not {threads}")
