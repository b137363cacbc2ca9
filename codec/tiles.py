"""Pure geometry: padding, and the tiles that are entropy-coded on their own (floor 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STRIDE = 16  # pixels a latent
HYPER_STRIDE = 64  # pixels a hyper-latent; pictures are padded to whole ones
TILE = 1024  # pixels; a multiple of HYPER_STRIDE


@dataclass(frozen=True)
class Tile:
    """A rectangle of the padded picture, in pixels; all four are multiples of HYPER_STRIDE."""

    top: int
    left: int
    bottom: int
    right: int

    def slices(self, stride: int) -> tuple[slice, slice]:
        """The rows and columns of this tile on a grid of one sample every `stride` pixels."""
        return slice(self.top // stride, self.bottom // stride), slice(self.left // stride, self.right // stride)

    def inside(self, outer: Tile) -> Tile:
        """This tile in the coordinates of one that holds it."""
        return Tile(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)

    def common(self, other: Tile) -> Tile | None:
        """The rectangle that both cover, or None."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Tile(top, left, bottom, right) if top < bottom and left < right else None

    def around(self, margin: int, whole: Tile) -> Tile:
        """This tile and `margin` pixels on all sides, as far as the whole reaches.

        A network of that reach which runs on the surroundings, and is cut to the tile, gives what it gives on the whole.
        """
        grown = Tile(self.top - margin, self.left - margin, self.bottom + margin, self.right + margin)
        return whole.common(grown)

    def cut(self, size: int) -> list[Tile]:
        """Squares of `size` pixels, row by row; those on the right and at the bottom may be smaller."""
        return [
            Tile(top, left, min(top + size, self.bottom), min(left + size, self.right))
            for top in range(self.top, self.bottom, size)
            for left in range(self.left, self.right, size)
        ]


def padded_size(height: int, width: int) -> tuple[int, int]:
    return -(-height // HYPER_STRIDE) * HYPER_STRIDE, -(-width // HYPER_STRIDE) * HYPER_STRIDE


def whole(height: int, width: int) -> Tile:
    """The padded picture of one of height×width pixels."""
    return Tile(0, 0, *padded_size(height, width))


def tiles(height: int, width: int) -> list[Tile]:
    """Tiles of a picture of height×width pixels, row by row; they cover the padded picture."""
    return whole(height, width).cut(TILE)


def covering(left: int, top: int, width: int, height: int) -> Tile:
    """The smallest tile that holds a rectangle of pixels."""
    bottom, right = padded_size(top + height, left + width)
    return Tile(top // HYPER_STRIDE * HYPER_STRIDE, left // HYPER_STRIDE * HYPER_STRIDE, bottom, right)


def pad(pixels: np.ndarray) -> np.ndarray:
    """Repeat the last row and column up to whole hyper-latents. H×W×C -> H'×W'×C."""
    height, width = padded_size(*pixels.shape[:2])
    return np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)), mode="edge")
