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


def padded_size(height: int, width: int) -> tuple[int, int]:
    return -(-height // HYPER_STRIDE) * HYPER_STRIDE, -(-width // HYPER_STRIDE) * HYPER_STRIDE


def tiles(height: int, width: int) -> list[Tile]:
    """Tiles of a picture of height×width pixels, row by row; they cover the padded picture."""
    height, width = padded_size(height, width)
    return [
        Tile(top, left, min(top + TILE, height), min(left + TILE, width))
        for top in range(0, height, TILE)
        for left in range(0, width, TILE)
    ]


MARGIN = 64  # pixels around a tile that its transforms look at: no less than half their field of view


def windows(height: int, width: int) -> list[tuple[Tile, Tile]]:
    """The tiles of `tiles`, each with its surroundings of MARGIN pixels as far as the padded picture reaches.

    A transform that runs on the surroundings, and is cut to the tile, gives what it gives on the whole picture.
    """
    bottom, right = padded_size(height, width)
    return [
        (
            tile,
            Tile(
                max(0, tile.top - MARGIN), max(0, tile.left - MARGIN),
                min(bottom, tile.bottom + MARGIN), min(right, tile.right + MARGIN),
            ),
        )
        for tile in tiles(height, width)
    ]  # fmt: skip


def pad(pixels: np.ndarray) -> np.ndarray:
    """Repeat the last row and column up to whole hyper-latents. H×W×C -> H'×W'×C."""
    height, width = padded_size(*pixels.shape[:2])
    return np.pad(pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)), mode="edge")
