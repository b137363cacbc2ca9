"""What a network is made of. A configuration travels in every checkpoint and model file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UnsupportedError

# What networks and the walk know; of anything else a model file is newer than this program.
TRANSFORMS, PRIORS, CONTEXT_STEPS = ("residual", "convolutional"), ("hyperprior", "factorised"), (1, 4, 6)


@dataclass(frozen=True)
class LossyConfig:
    """Shape of a lossy model: transforms, prior and the range of its one continuous quality scale.

    Widths are channels at 1/4, 1/8 and 1/16 of the picture's resolution. `analysis_blocks` counts blocks at each of
    them, `synthesis_blocks` at 1/4 (half of them on the way down, half on the way up), 1/8 and, if there is a third, 1/16.
    """

    name: str
    transform: str = "residual"  # "residual" (blocks around a linear transform) or "convolutional" (textbook)
    prior: str = "hyperprior"  # "hyperprior" (with context on the mean) or "factorised"
    widths: tuple[int, int, int] = (96, 192, 320)
    analysis_blocks: tuple[int, int, int] = (1, 3, 1)
    synthesis_blocks: tuple[int, ...] = (2, 4)
    latent_channels: int = 384  # y, at 1/16
    hyper_latent_channels: int = 128  # z, at 1/64
    hyper_width: int = 192
    context_steps: int = 4  # decoding steps of the mean: 1, 4 or 6
    # Channels of z by the group in which they are decoded, each given those before it (`hyper.py`); none: each channel on its own.
    hyper_groups: tuple[int, ...] = ()
    # Quantiser: the unit of the trellis' grid, 0 for whole numbers; the lowest scale level that goes along the trellis; its states.
    trellis_step: float = 0.0
    trellis_level: int = 10
    trellis_states: int = 8
    # Trade-off grid: lambda weighs MSE in units of 8-bit levels squared against bits a pixel.
    rate_points: int = 9
    lambda_min: float = 0.0005
    lambda_max: float = 0.36

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> LossyConfig:
        """Inverse of `to_dict`; JSON lists become tuples. UnsupportedError for what this version does not know."""
        _require_known(cls, values)
        config = cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
        for name, known in (("transform", TRANSFORMS), ("prior", PRIORS), ("context_steps", CONTEXT_STEPS)):
            if (found := getattr(config, name)) not in known:
                raise UnsupportedError(f"a model with {name} {found!r}: a newer version made it")
        return config


@dataclass(frozen=True)
class LosslessConfig:
    """Shape of a lossless model: the network that sees each pixel, and its latents."""

    name: str
    width: int = 128  # of the trunk
    layers: int = 2  # residual layers in it
    head_width: int = 64  # of what turns it into one channel's mixture
    latent_channels: int = 8  # z, one position a 16×16 block; 0: a model without latents
    latent_width: int = 96

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> LosslessConfig:
        """Inverse of `to_dict`. UnsupportedError for unknown fields."""
        _require_known(cls, values)
        return cls(**values)


def _require_known(shape: type[LossyConfig | LosslessConfig], values: Iterable[str]) -> None:
    """A field that this version lacks changes what networks compute: without it another picture would be decoded."""
    if unknown := sorted(set(values) - {field.name for field in dataclasses.fields(shape)}):
        raise UnsupportedError(f"a model with {', '.join(unknown)} in its configuration: a newer version made it")


CONFIGS = {
    config.name: config
    for config in (
        LossyConfig(
            "base",
            analysis_blocks=(1, 4, 3),
            synthesis_blocks=(2, 5, 2),
            context_steps=6,
            hyper_groups=(8, 8, 16, 96),
            trellis_step=11 / 16,
            trellis_states=128,
            lambda_min=0.0016,
        ),
        LossyConfig(
            "tiny",
            widths=(16, 24, 32),
            analysis_blocks=(1, 1, 0),
            synthesis_blocks=(1, 1),
            latent_channels=48,
            hyper_latent_channels=8,
            hyper_width=24,
            hyper_groups=(2, 6),
            rate_points=3,
            trellis_step=11 / 16,
        ),
        # The textbook VAE of the literature (Ballé, Laparra and Simoncelli 2017): the baseline of every plot.
        LossyConfig(
            "textbook",
            transform="convolutional",
            prior="factorised",
            widths=(128, 128, 128),
            latent_channels=192,
            context_steps=1,
        ),
    )
}

LOSSLESS_CONFIGS = {
    config.name: config
    for config in (
        LosslessConfig("lossless-base"),
        LosslessConfig("lossless-plain", latent_channels=0),  # to see what latents are worth
        LosslessConfig("lossless-tiny", width=24, layers=1, head_width=16, latent_channels=2, latent_width=16),
    )
}
