"""The lossless method: 8-bit pixels <-> the pixels section of a file, with bits-back coding (floor 4).

A picture is cut into tiles of 256 × 256 pixels, and up to 16 of them are coded together on one stack: wavefront by
wavefront (x + 2y constant), so that the number of steps does not grow with the picture. What a decoder does at a wavefront,
in order (an encoder does the inverse of everything, backwards):

    pop the latents of the blocks that begin here, with p(z | earlier blocks)
    pop G, then R given G, then B given both, of all pixels of the wavefront, with p(x | neighbours, z)
    push the latents of the blocks that have ended here back, with q(z | the block's pixels): their bits are returned

So an encoder draws the latents of a block with bits that it has already written, those of later wavefronts, and a single
picture pays for hardly any latents: only the last block of a tile has none, which is where an encoder starts.
(Townsend, Bird and Barber 2019: "Practical lossless compression with latent variables using bits back coding".)

docs/FORMAT.md says the same.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import weights
from .entropy.mixtures import Mixture, Stack, ideal_bits
from .errors import FormatError, TruncatedError
from .networks import lossless as net
from .networks.execution import execution
from .networks.lossless import BLOCK, CHANNELS, MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, ORDER

TILE = 256
GROUP = 16  # tiles coded together
CHUNK = 16  # wavefronts between two that end blocks
FIRST_END = (BLOCK - 1) + 2 * (BLOCK - 1)  # wavefront of the last pixel of the first block
SMALL = 1 << 14  # pixels below which the model's own linear prediction is tried as well
_LENGTH = struct.Struct("<I")
_CHECK = struct.Struct("<I")
_OWN, _FITTED = 0, 1


def encode(
    pixels: np.ndarray, *, effort: int = 3, device: str = "auto", threads: int = 0
) -> tuple[bytes, bytes]:
    """pixels: H×W×1 or H×W×3 uint8 -> (model id, pixels section). `effort` is accepted: there is one way yet."""
    with execution("cpu", threads):
        model = weights.load_lossless(weights.default_path(lossless=True))
        height, width, channels = pixels.shape
        colour = pixels if channels == CHANNELS else np.repeat(pixels, CHANNELS, axis=2)
        fitted = net.fit_linear(torch.tensor(colour).permute(2, 0, 1)).numpy()
        choices = [fitted] if height * width > SMALL else [fitted, None]
        sections = [_write(model, colour, channels, coefficients, Stack) for coefficients in choices]
        return model.model_id, min(sections, key=len)


def count_bits(pixels: np.ndarray, *, threads: int = 0) -> dict[str, float]:
    """−ELBO in bits by the exact networks, along one encoding: `pixels`, `prior`, `posterior` and their net `total`."""
    with execution("cpu", threads):
        model = weights.load_lossless(weights.default_path(lossless=True))
        colour = np.repeat(pixels, CHANNELS // pixels.shape[2], axis=2)
        fitted = net.fit_linear(torch.from_numpy(np.ascontiguousarray(colour)).permute(2, 0, 1)).numpy()
        counter: list[_CountingStack] = []
        _write(model, colour, pixels.shape[2], fitted, lambda: counter.append(_CountingStack()) or counter[-1])
        parts = {name: sum(stack.bits[name] for stack in counter) for name in ("pixels", "prior", "posterior")}
        return parts | {"total": parts["pixels"] + parts["prior"] - parts["posterior"]}


def decode(
    section: bytes,
    *,
    width: int,
    height: int,
    channels: int,
    model_id: bytes,
    region: tuple[int, int, int, int] | None = None,
    device: str = "auto",
    threads: int = 0,
) -> np.ndarray:
    """Pixels section -> H×W×channels uint8. Raises FormatError on damage, UnsupportedError on an unknown model.

    region: left, top, width and height of the pixels to decode; groups of tiles that it does not touch are left out.
    """
    with execution("cpu", threads):
        model = weights.load_lossless(weights.find(model_id))
        return _read(model, section, height, width, channels, region or (0, 0, width, height))


class _CountingStack(Stack):
    """A stack that also adds up ideal code lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.bits = {"pixels": 0.0, "prior": 0.0, "posterior": 0.0}

    def push(self, values: np.ndarray, mixture: Mixture) -> None:
        kind = "pixels" if mixture.means.shape[1] > 1 else "prior"
        self.bits[kind] += float(ideal_bits(values, mixture).sum())
        super().push(values, mixture)

    def pop(self, mixture: Mixture) -> np.ndarray:
        values = super().pop(mixture)
        self.bits["posterior"] += float(ideal_bits(values, mixture).sum())
        return values


@dataclass(frozen=True)
class _Tile:
    top: int
    left: int
    height: int
    width: int


def _groups(height: int, width: int) -> list[list[_Tile]]:
    layout = [
        _Tile(top, left, min(TILE, height - top), min(TILE, width - left))
        for top in range(0, height, TILE)
        for left in range(0, width, TILE)
    ]
    return [layout[start : start + GROUP] for start in range(0, len(layout), GROUP)]


class _Group:
    """Tiles that are coded together: their canvases, and the order of their pixels and blocks.

    `levels` and `residuals` are canvases (tiles × rows × columns, 3), float64, indexed by the place of a pixel.
    """

    def __init__(self, model: weights.LosslessModel, tiles: list[_Tile], channels: int, coefficients: np.ndarray | None):
        self.model, self.network, self.tiles, self.channels = model, model.network, tiles, channels
        self.coefficients = torch.from_numpy(model.coefficients if coefficients is None else coefficients).double()
        self.rows = max(tile.height for tile in tiles)
        self.columns = max(tile.width for tile in tiles)
        self.stride = self.columns + MARGIN_LEFT + MARGIN_RIGHT
        self.area = (self.rows + MARGIN_TOP) * self.stride
        self.levels = np.full((len(tiles) * self.area, CHANNELS), 128.0)
        self.residuals = np.zeros((len(tiles) * self.area, CHANNELS))
        self.offsets = np.array([dy * self.stride + dx for dx, dy in net.NEIGHBOURS])

        which, y, x = [], [], []
        for number, tile in enumerate(tiles):
            rows, columns = np.mgrid[: tile.height, : tile.width]
            which.append(np.full(rows.size, number))
            y.append(rows.ravel())
            x.append(columns.ravel())
        which, y, x = map(np.concatenate, (which, y, x))
        wave = x + 2 * y
        order = np.argsort(wave, kind="stable")
        self.waves = int(wave.max()) + 1
        self.starts = np.searchsorted(wave[order], np.arange(self.waves + 1)).tolist()
        which, y, x = which[order], y[order], x[order]
        self.place = which * self.area + (y + MARGIN_TOP) * self.stride + x + MARGIN_LEFT
        widths = np.array([tile.width for tile in tiles])
        heights = np.array([tile.height for tile in tiles])
        self.leftmost = (x == 0) & (y + 1 < heights[which])
        self.rightmost = x == widths[which] - 1

        # Blocks. Their latents are kept on a grid with a margin of zeros: above, left and right.
        self.latents = model.config.latent_channels
        self.block_rows, self.block_columns = -(-self.rows // BLOCK), -(-self.columns // BLOCK)
        self.block_stride = self.block_columns + 2
        self.block_area = (self.block_rows + 1) * self.block_stride
        self.block_of = which * self.block_area + (y // BLOCK + 1) * self.block_stride + x // BLOCK + 1
        self.z = np.zeros((len(tiles) * self.block_area, self.latents))
        self.projected = torch.zeros(len(self.z), model.config.width, dtype=torch.float64)
        self.begin: dict[int, list[tuple[int, int]]] = {}
        self.end: dict[int, list[tuple[int, int]]] = {}
        if self.latents:
            self._schedule_blocks()

    def _schedule_blocks(self) -> None:
        for number, tile in enumerate(self.tiles):
            blocks = [(i, j) for i in range(-(-tile.height // BLOCK)) for j in range(-(-tile.width // BLOCK))]
            for i, j in blocks[:-1]:  # the last one has no latents
                place = number * self.block_area + (i + 1) * self.block_stride + j + 1
                corner = number * self.area + (i * BLOCK + MARGIN_TOP) * self.stride + j * BLOCK + MARGIN_LEFT
                height, width = min(BLOCK, tile.height - i * BLOCK), min(BLOCK, tile.width - j * BLOCK)
                first = BLOCK * j + 2 * BLOCK * i
                self.begin.setdefault(first, []).append((place, corner))
                # Blocks at an edge end as if they were whole: so W, N and NE are known on both sides, always.
                self.end.setdefault(first + FIRST_END, []).append((place, corner, height, width))

    def fill(self, pixels: np.ndarray) -> None:
        """Write the tiles of a picture H×W×3 into the canvases, with margins and residuals: for an encoder."""
        for number, tile in enumerate(self.tiles):
            part = pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
            padded = net.canvas(torch.tensor(part).permute(2, 0, 1).double())
            base = net.predict_linear(net.neighbours_of(padded[None], net.LINEAR), self.coefficients)
            canvas = self.levels[number * self.area : (number + 1) * self.area].reshape(-1, self.stride, CHANNELS)
            canvas[: padded.shape[1], : padded.shape[2]] = padded.permute(1, 2, 0).numpy()
            errors = self.residuals[number * self.area : (number + 1) * self.area].reshape(-1, self.stride, CHANNELS)
            inner = (slice(MARGIN_TOP, MARGIN_TOP + tile.height), slice(MARGIN_LEFT, MARGIN_LEFT + tile.width))
            errors[inner] = part - base.numpy().reshape(*part.shape) / net.BASE_STEPS

    def store(self, span: slice, pixels: np.ndarray, base: np.ndarray) -> None:
        """Pixels [N, 3] of one wavefront, just decoded, enter the canvases."""
        place = self.place[span]
        self.levels[place] = pixels
        self.residuals[place] = pixels - base
        right = place[self.rightmost[span]]
        left = place[self.leftmost[span]]
        for step in range(1, MARGIN_RIGHT + 1):
            self.levels[right + step] = self.levels[right]
        for step in range(1, MARGIN_LEFT + 1):
            self.levels[left + self.stride - step] = self.levels[left]

    def look(self, span: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is known about pixels before they are: trunk [N, width], base [N, 3], scale and its log2 [N, 1]."""
        place = self.place[span]
        near = torch.from_numpy(self.levels[place[:, None] + self.offsets])
        errors = torch.from_numpy(self.residuals[place[:, None] + self.offsets[: net.RESIDUALS]])
        base = net.predict_linear(near[:, : net.LINEAR], self.coefficients) / net.BASE_STEPS
        features, scale, log_scale = net.features_of(near, errors, base)
        z = self.projected[self.block_of[span]] if self.latents else None
        return self.network.trunk(features, z), base, scale, log_scale

    def mixture(self, k: int, seen: tuple[Tensor, Tensor, Tensor, Tensor], known: Tensor) -> Mixture:
        """Distribution of the k-th channel in coding order; known: levels [N, k] of the channels before it."""
        h, base, scale, log_scale = seen
        before = list(ORDER[:k])
        out = self.network.head(k, h, (known - base[:, before]) / scale)
        logits, means, log_scales = out.split(net.COMPONENTS, 1)
        means = base[:, ORDER[k], None] + means * scale
        return self.model.arithmetic.mixture(
            logits.numpy(), means.numpy(), (log_scales.clamp(-7, 6) + log_scale).numpy()
        )

    # Latents: 8-bit values, z = (value - 128) / LATENT_STEPS.

    def _latent_mixture(self, out: Tensor, limits: tuple[float, float]) -> Mixture:
        means, log_scales = net.on_grid(out, net.OUTPUT_GRID, 64.0).chunk(2, 1)
        steps = np.log2(net.LATENT_STEPS)
        means = means.reshape(-1, 1).numpy() * net.LATENT_STEPS + net.LATENT_LIMIT
        log_scales = log_scales.clamp(*limits).reshape(-1, 1).numpy() + steps
        return self.model.arithmetic.mixture(np.zeros_like(means), means, log_scales)

    def prior(self, wave: int) -> Mixture:
        """p(z) of the blocks that begin at a wavefront."""
        place = np.array([block[0] for block in self.begin[wave]])
        earlier = [self.z[place - 1], self.z[place - self.block_stride], self.z[place - self.block_stride + 1]]
        return self._latent_mixture(self.network.prior(torch.from_numpy(np.concatenate(earlier, 1))), net.LOG_SCALE_P)

    def posterior(self, wave: int) -> Mixture:
        """q(z|x) of the blocks that end at a wavefront."""
        blocks = np.zeros((len(self.end[wave]), BLOCK, BLOCK, CHANNELS))
        for block, (_, corner, height, width) in zip(blocks, self.end[wave], strict=True):
            rows = corner + self.stride * np.arange(height)[:, None] + np.arange(width)
            block[:height, :width] = self.residuals[rows]
        out = self.network.infer(torch.from_numpy(blocks).permute(0, 3, 1, 2))
        return self._latent_mixture(out, net.LOG_SCALE_Q)

    def latents_at(self, blocks: list) -> np.ndarray:
        z = self.z[[block[0] for block in blocks]]
        return (z * net.LATENT_STEPS).astype(np.int64).reshape(-1) + net.LATENT_LIMIT

    def set_latents(self, blocks: list, values: np.ndarray) -> None:
        place = [block[0] for block in blocks]
        z = (values.reshape(len(place), -1) - net.LATENT_LIMIT) / net.LATENT_STEPS
        self.z[place] = z
        self.projected[place] = self.network.from_latents(torch.from_numpy(z))

    def last_wave(self) -> int:
        return max([self.waves - 1, *self.end])

    # The two directions of the one walk that the docstring of this module describes.

    def write(self, stack: Stack) -> None:
        for first, last in reversed(list(self._chunks())):
            if last in self.end:
                self.set_latents(self.end[last], stack.pop(self.posterior(last)))
            chunk = slice(self.starts[min(first, self.waves)], self.starts[min(last + 1, self.waves)])
            seen = self.look(chunk)
            pixels = torch.from_numpy(self.levels[self.place[chunk]])
            mixtures = [
                self.mixture(k, seen, pixels[:, list(ORDER[:k])]) for k in range(CHANNELS if self.channels > 1 else 1)
            ]
            values = pixels.numpy().astype(np.int64)
            for wave in range(last, first - 1, -1):
                if wave < self.waves:
                    span = slice(self.starts[wave] - chunk.start, self.starts[wave + 1] - chunk.start)
                    for k in reversed(range(len(mixtures))):
                        stack.push(values[span, ORDER[k]], mixtures[k].part(span))
                if wave in self.begin:
                    stack.push(self.latents_at(self.begin[wave]), self.prior(wave))

    def read(self, stack: Stack) -> None:
        for wave in range(self.last_wave() + 1):
            if wave in self.begin:
                self.set_latents(self.begin[wave], stack.pop(self.prior(wave)))
            if wave < self.waves:
                span = slice(self.starts[wave], self.starts[wave + 1])
                seen = self.look(span)
                pixels = np.empty((span.stop - span.start, CHANNELS))
                for k in range(CHANNELS if self.channels > 1 else 1):
                    known = torch.from_numpy(pixels[:, list(ORDER[:k])])
                    pixels[:, ORDER[k]] = stack.pop(self.mixture(k, seen, known))
                if self.channels == 1:
                    pixels[:] = pixels[:, [ORDER[0]]]
                self.store(span, pixels, seen[1].numpy())
            if wave in self.end:
                stack.push(self.latents_at(self.end[wave]), self.posterior(wave))

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Ranges of wavefronts (first, last) such that blocks end only at the last of one."""
        first, end = 0, self.last_wave()
        while first <= end:
            last = min(end, first + (FIRST_END - first) % CHUNK)
            yield first, last
            first = last + 1

    def pixels(self, number: int) -> np.ndarray:
        tile = self.tiles[number]
        canvas = self.levels[number * self.area : (number + 1) * self.area].reshape(-1, self.stride, CHANNELS)
        inner = canvas[MARGIN_TOP : MARGIN_TOP + tile.height, MARGIN_LEFT : MARGIN_LEFT + tile.width]
        return inner[..., : self.channels].astype(np.uint8)


def _write(model: weights.LosslessModel, colour: np.ndarray, channels: int, coefficients, new_stack) -> bytes:
    head = bytes([_OWN]) if coefficients is None else bytes([_FITTED]) + coefficients.astype("<i2").tobytes()
    streams = []
    for tiles in _groups(*colour.shape[:2]):
        group = _Group(model, tiles, channels, coefficients)
        group.fill(colour)
        stack = new_stack()
        group.write(stack)
        streams.append(stack.data())
    table = b"".join(_LENGTH.pack(len(stream)) for stream in streams)
    body = head + table + b"".join(streams)
    return body + _CHECK.pack(zlib.crc32(body))


def _read(
    model: weights.LosslessModel, section: bytes, height: int, width: int, channels: int, region: tuple[int, int, int, int]
) -> np.ndarray:
    """Inverse of `_write`. The section is checked before it is decoded: a stream that no encoder wrote is not run."""
    if len(section) < 1 + _CHECK.size:
        raise TruncatedError(f"pixels section of {len(section)} bytes")
    body, (check,) = section[: -_CHECK.size], _CHECK.unpack(section[-_CHECK.size :])
    if zlib.crc32(body) != check:
        raise FormatError("damaged pixels section: its check value does not match")
    coefficients, offset = None, 1
    if body[0] == _FITTED:
        shape = model.coefficients.shape
        offset += 2 * model.coefficients.size
        if len(body) < offset:
            raise TruncatedError(f"pixels section of {len(section)} bytes")
        coefficients = np.frombuffer(body[1:offset], "<i2").reshape(shape).astype(np.float64)
    elif body[0] != _OWN:
        raise FormatError(f"damaged pixels section: prediction {body[0]}")
    count = -(-(-(-height // TILE) * -(-width // TILE)) // GROUP)
    end = offset + count * _LENGTH.size
    if len(body) < end:  # before anything is made for each tile that a header claims
        raise TruncatedError(f"pixels section of {len(section)} bytes is too short for {count} groups of tiles")
    groups = _groups(height, width)
    lengths = [length for (length,) in _LENGTH.iter_unpack(body[offset:end])]
    if end + sum(lengths) != len(body):
        raise FormatError(f"pixels section of {len(section)} bytes does not match the lengths of its groups")
    left, top, columns, rows = region
    out = np.empty((rows, columns, channels), np.uint8)
    for tiles, length in zip(groups, lengths, strict=True):
        stream = body[end : end + length]
        end += length
        if not any(_touch(tile, region) for tile in tiles):
            continue
        group = _Group(model, tiles, channels, coefficients)
        stack = Stack(stream)
        group.read(stack)
        if not stack.empty:
            raise FormatError("damaged pixels section: a stream does not end where its pixels do")
        for number, tile in enumerate(tiles):
            if _touch(tile, region):
                first_row, first_column = max(tile.top, top), max(tile.left, left)
                part = group.pixels(number)[first_row - tile.top :, first_column - tile.left :]
                part = part[: top + rows - first_row, : left + columns - first_column]
                out[first_row - top :, first_column - left :][: part.shape[0], : part.shape[1]] = part
    return out


def _touch(tile: _Tile, region: tuple[int, int, int, int]) -> bool:
    left, top, columns, rows = region
    return tile.top < top + rows and top < tile.top + tile.height and tile.left < left + columns and left < tile.left + tile.width
