"""How far networks see beyond the edge of a rectangle, in pixels, from a configuration alone.

Large pictures are computed in rectangles, each with the surroundings that its networks look at; with less there are
seams. Rectangles begin and end at whole hyper-latents (64 pixels), so at whole samples of every layer: layers that change
the resolution see no further than the rectangle, and what is computed beyond its edge is rounded up to whole samples of
the coarser layer. Exact: nothing beyond counts, and something at the very end of it does.
"""

from __future__ import annotations

from ..tiles import HYPER_STRIDE, STRIDE
from .config import LossyConfig


def analysis(config: LossyConfig) -> int:
    """Pixels that latents see."""
    if config.transform != "residual":
        seen = 0
        for _ in range(4):  # a strided 5×5 convolution: two finer samples beyond twice what is asked for
            seen = 2 * seen + 2
        return seen
    return sum(count * stride for count, stride in zip(config.analysis_blocks, (4, 8, 16), strict=True))


def hyper_inference(config: LossyConfig) -> int:
    """Pixels that hyper-latents see: those that the latents see which they see."""
    return analysis(config) + (2 * STRIDE if config.prior == "hyperprior" else 0)  # one block at 1/32


def synthesis(config: LossyConfig, beyond: int = 0) -> int:
    """The latents that pixels see, those up to `beyond` from the edge too; in pixels, a multiple of STRIDE."""
    if config.transform != "residual":
        for _ in range(4):  # a transposed 5×5 convolution of stride 2, whose last sample sees one more than its first
            beyond = (beyond + 1) // 2 + 1
        return STRIDE * beyond
    quarter, eighth, sixteenth = (*config.synthesis_blocks, 0)[:3]
    inwards = quarter // 2
    seen = _whole(_whole(beyond, 4) + 4 * (quarter - inwards), 8) + 8 * eighth
    # The way down through the linear reconstruction, and the one from the latents.
    return max(_whole(seen + 4 * inwards, STRIDE), _whole(seen, STRIDE) + STRIDE * sixteenth)


def preview(config: LossyConfig) -> int:
    """The latents that the pixels of a preview see, in pixels."""
    return 0 if config.transform == "residual" else synthesis(config)


def context(config: LossyConfig, beyond: int) -> int:
    """The symbols that latents up to `beyond` pixels from the edge see; in pixels, a multiple of HYPER_STRIDE."""
    if config.prior != "hyperprior":
        return _whole(beyond, HYPER_STRIDE)
    dilations = [2 if config.context_steps == 6 and step < 3 else 1 for step in range(1, config.context_steps)]
    latents = _whole(beyond, STRIDE) + STRIDE * sum(dilations)
    features = _whole(latents + STRIDE, 2 * STRIDE) + 2 * STRIDE  # a block at 1/16, and one at 1/32
    return _whole(features, HYPER_STRIDE)


def _whole(pixels: int, stride: int) -> int:
    return -(-pixels // stride) * stride
