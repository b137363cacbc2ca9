"""The lossless method: 8-bit pixels <-> the pixels section of a file, with bits-back coding (floor 4).

A picture is cut into tiles of 256 × 256 pixels, and up to 16 of them are coded in step, wavefront by wavefront (x + 2y
constant): the number of calls hardly grows with the picture. They share one stack, or have one each where there are more
than 16, so that a region is decoded in its own tiles alone. What a decoder does at a wavefront, in order (an encoder does
the inverse of everything, backwards):

    pop the latents of the blocks that begin here, with p(z | earlier blocks)
    pop G, then R given G, then B given both, of all pixels of the wavefront, with p(x | neighbours, z)
    push the latents of the blocks that have ended here back, with q(z | the block's pixels): their bits are returned

So an encoder draws the latents of a block with bits that it has already written, those of later wavefronts, and a single
picture pays for hardly any latents: only the last block of a tile has none, which is where an encoder starts.
(Townsend, Bird and Barber 2019: "Practical lossless compression with latent variables using bits back coding".)

Of a larger picture some weights may differ from those of the model file (`adaptation`). docs/FORMAT.md says the same.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import adaptation, weights
from .entropy.mixtures import Mixture, Stacks, ideal_bits
from .errors import FormatError, TruncatedError
from .networks import lossless as net
from .networks.execution import execution
from .networks.lossless import BLOCK, CHANNELS, MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, ORDER

TILE = 256
STEP = 16  # tiles coded in step
CHUNK = 16  # wavefronts between two that end blocks: an encoder evaluates so many at once, of one tile
PIECE = 2048  # pixels evaluated at once where any number could be
FIRST_END = (BLOCK - 1) + 2 * (BLOCK - 1)  # wavefront of the last pixel of the first block
SMALL = 1 << 14  # pixels below which the model's own linear prediction is tried as well
_LENGTH = struct.Struct("<I")
_CHECK = struct.Struct("<I")
ADAPT = 4  # effort from which on the model's last layers are adapted to a picture
_FITTED, _ALONE, _CHANGED = 1, 2, 4  # bits of the first byte: coefficients follow; each tile is a group; changes follow


def encode(
    pixels: np.ndarray, *, effort: int = 3, device: str = "auto", threads: int = 0
) -> tuple[bytes, bytes]:
    """pixels: H×W×1 or H×W×3 uint8 -> (model id, pixels section). From effort 4 on the model is adapted to the picture."""
    with execution("cpu", threads):
        model = weights.load_lossless(weights.default_path(lossless=True))
        fitted, count = _fitted(pixels), pixels.shape[0] * pixels.shape[1]
        if count <= SMALL:
            return model.model_id, min((_write(model, pixels, coefficients) for coefficients in (fitted, None)), key=len)
        changes = adaptation.fit(model, _sample(model, pixels, fitted), count) if effort >= ADAPT else b""
        return model.model_id, _write(model, pixels, fitted, changes)


def count_bits(pixels: np.ndarray, *, threads: int = 0) -> dict[str, float]:
    """−ELBO in bits by the exact networks, along one encoding: `pixels`, `prior`, `posterior` and their net `total`."""
    with execution("cpu", threads):
        model = weights.load_lossless(weights.default_path(lossless=True))
        counters: list[_CountingStacks] = []

        def counting(data: list[bytes]) -> _CountingStacks:
            counters.append(_CountingStacks(data))
            return counters[-1]

        _write(model, pixels, _fitted(pixels), new_stacks=counting)
        parts = {name: sum(stacks.bits[name] for stacks in counters) for name in ("pixels", "prior", "posterior")}
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


class _CountingStacks(Stacks):
    """Stacks that also add up ideal code lengths."""

    def __init__(self, data: list[bytes]) -> None:
        super().__init__(data)
        self.bits = {"pixels": 0.0, "prior": 0.0, "posterior": 0.0}

    def push(self, values: np.ndarray, mixture: Mixture, ends: list[int]) -> None:
        kind = "pixels" if mixture.means.shape[1] > 1 else "prior"
        self.bits[kind] += float(ideal_bits(values, mixture).sum())
        super().push(values, mixture, ends)

    def pop(self, mixture: Mixture, ends: list[int]) -> np.ndarray:
        values = super().pop(mixture, ends)
        self.bits["posterior"] += float(ideal_bits(values, mixture).sum())
        return values


@dataclass(frozen=True)
class _Tile:
    top: int
    left: int
    height: int
    width: int


def _groups(height: int, width: int, size: int) -> list[list[_Tile]]:
    """Tiles that share a stack, `size` of them."""
    layout = [
        _Tile(top, left, min(TILE, height - top), min(TILE, width - left))
        for top in range(0, height, TILE)
        for left in range(0, width, TILE)
    ]
    return [layout[start : start + size] for start in range(0, len(layout), size)]


def _in_step(groups: list, size: int) -> Iterator[list]:
    """Of groups of up to `size` tiles, as many at once as have no more than STEP."""
    count = STEP // size
    return (groups[start : start + count] for start in range(0, len(groups), count))


class _Tiles:
    """Groups of tiles that are coded in step: their canvases, and the order of their pixels and blocks.

    `levels` and `residuals` are canvases (tiles × rows × columns, 3), float64, indexed by the place of a pixel.
    """

    def __init__(self, model: weights.LosslessModel, groups: list[list[_Tile]], channels: int, coefficients: np.ndarray | None):
        tiles = sum(groups, [])
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
        self.group_of = np.repeat(np.arange(len(groups)), [len(group) for group in groups])  # of a tile
        counts = np.bincount(wave * len(groups) + self.group_of[which], minlength=self.waves * len(groups))
        self.ends = counts.reshape(self.waves, -1).cumsum(1).tolist()  # in each wavefront, of the pixels of each group
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
        """Write the tiles of a picture into the canvases, with margins and residuals: for an encoder."""
        for number, tile in enumerate(self.tiles):
            part = pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
            part = np.repeat(part, CHANNELS // self.channels, axis=2)
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

    def look(self, span: slice | np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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

    def sample(self, most: int) -> list[tuple[Tensor, ...]]:
        """Of so many pixels at most, for each channel in coding order: inputs of the last layer, the differences of the
        channels before, levels, base and scale. Latents take their likeliest values."""
        for wave, blocks in self.end.items():
            self.set_latents(blocks, np.floor(self.posterior(wave).means[:, 0] + 0.5).clip(0, 2 * net.LATENT_LIMIT - 1))
        chosen = np.random.default_rng(0).permutation(len(self.place))[:most]
        pieces = []
        for part in np.array_split(chosen, -(-len(chosen) // PIECE)):
            h, base, scale, _ = self.look(part)
            levels = torch.from_numpy(self.levels[self.place[part]])
            piece = []
            for k, channel in enumerate(ORDER[: self.channels]):
                before = list(ORDER[:k])
                known = (levels[:, before] - base[:, before]) / scale
                piece.append((self.network.hidden(k, h, known), known, levels[:, channel], base[:, channel], scale[:, 0]))
            pieces.append([[one.float() for one in tensors] for tensors in piece])
        return [tuple(map(torch.cat, zip(*tensors, strict=True))) for tensors in zip(*pieces, strict=True)]

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

    def ends_of(self, blocks: list) -> list[int]:
        """Where in the latents of these blocks those of each group end."""
        groups = self.group_of[[block[0] // self.block_area for block in blocks]]
        return (np.bincount(groups, minlength=self.group_of[-1] + 1).cumsum() * self.latents).tolist()

    def last_wave(self) -> int:
        return max([self.waves - 1, *self.end])

    # The two directions of the one walk that the docstring of this module describes.

    def write(self, stacks: Stacks) -> None:
        for first, last in reversed(list(self._chunks())):
            if last in self.end:
                self.set_latents(self.end[last], stacks.pop(self.posterior(last), self.ends_of(self.end[last])))
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
                        stacks.push(values[span, ORDER[k]], mixtures[k].part(span), self.ends[wave])
                if wave in self.begin:
                    stacks.push(self.latents_at(self.begin[wave]), self.prior(wave), self.ends_of(self.begin[wave]))

    def read(self, stacks: Stacks) -> None:
        for wave in range(self.last_wave() + 1):
            if wave in self.begin:
                self.set_latents(self.begin[wave], stacks.pop(self.prior(wave), self.ends_of(self.begin[wave])))
            if wave < self.waves:
                span = slice(self.starts[wave], self.starts[wave + 1])
                seen = self.look(span)
                pixels = np.empty((span.stop - span.start, CHANNELS))
                for k in range(CHANNELS if self.channels > 1 else 1):
                    known = torch.from_numpy(pixels[:, list(ORDER[:k])])
                    pixels[:, ORDER[k]] = stacks.pop(self.mixture(k, seen, known), self.ends[wave])
                if self.channels == 1:
                    pixels[:] = pixels[:, [ORDER[0]]]
                self.store(span, pixels, seen[1].numpy())
            if wave in self.end:
                stacks.push(self.latents_at(self.end[wave]), self.posterior(wave), self.ends_of(self.end[wave]))

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Ranges of wavefronts (first, last) such that blocks end only at the last of one.

        The more tiles, the shorter: what an encoder holds does not grow with them.
        """
        first, end = 0, self.last_wave()
        length = max(1, CHUNK >> (len(self.tiles) - 1).bit_length())  # a power of two, as CHUNK
        while first <= end:
            last = min(end, first + (FIRST_END - first) % length)
            yield first, last
            first = last + 1

    def cut(self, region: tuple[int, int, int, int], out: np.ndarray) -> None:
        """Copy what the tiles hold of a region into `out`, the pixels of that region."""
        left, top, columns, rows = region
        for number, tile in enumerate(self.tiles):
            if _touch(tile, region):
                first_row, first_column = max(tile.top, top), max(tile.left, left)
                part = self.pixels(number)[first_row - tile.top :, first_column - tile.left :]
                part = part[: top + rows - first_row, : left + columns - first_column]
                out[first_row - top :, first_column - left :][: part.shape[0], : part.shape[1]] = part

    def pixels(self, number: int) -> np.ndarray:
        tile = self.tiles[number]
        canvas = self.levels[number * self.area : (number + 1) * self.area].reshape(-1, self.stride, CHANNELS)
        inner = canvas[MARGIN_TOP : MARGIN_TOP + tile.height, MARGIN_LEFT : MARGIN_LEFT + tile.width]
        return inner[..., : self.channels].astype(np.uint8)


# What goes on between a picture and its tiles holds STEP of them at a time, and no second copy of the picture or the file.


def _fitted(pixels: np.ndarray) -> np.ndarray:
    """Coefficients of the linear prediction of a picture H×W×1 or H×W×3."""
    tensor = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    return net.fit_linear(tensor.permute(2, 0, 1).expand(CHANNELS, -1, -1)).numpy()


def _sample(model: weights.LosslessModel, pixels: np.ndarray, coefficients: np.ndarray) -> list[tuple[Tensor, ...]]:
    """What `adaptation.fit` looks at, of pixels from all over a picture."""
    layout = sum(_groups(*pixels.shape[:2], STEP), [])
    tiles = _Tiles(model, [layout[:: -(-len(layout) // STEP)]], pixels.shape[2], coefficients)
    tiles.fill(pixels)
    return tiles.sample(adaptation.SAMPLE)


def _write(
    model: weights.LosslessModel, pixels: np.ndarray, coefficients: np.ndarray | None, changes: bytes = b"", *,
    new_stacks=Stacks, alone: bool | None = None,
) -> bytes:  # fmt: skip
    """changes: of the model, as `adaptation` packs them; alone: whether each tile has its own stack, None goes by the size."""
    height, width, channels = pixels.shape
    if alone is None:
        alone = -(-height // TILE) * -(-width // TILE) > STEP
    head = bytes([_FITTED * (coefficients is not None) | _ALONE * alone | _CHANGED * bool(changes)])
    if coefficients is not None:
        head += coefficients.astype("<i2").tobytes()
    if changes:
        head += changes
        model, _ = adaptation.read(model, changes, channels)
    size = 1 if alone else STEP
    streams: list[bytes] = []
    for groups in _in_step(_groups(height, width, size), size):
        streams += _write_tiles(model, groups, pixels, coefficients, new_stacks([b""] * len(groups)))
    parts = [head, *(_LENGTH.pack(len(stream)) for stream in streams), *streams]
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    return b"".join([*parts, _CHECK.pack(check)])


def _write_tiles(model, groups: list[list[_Tile]], pixels: np.ndarray, coefficients, stacks: Stacks) -> list[bytes]:
    tiles = _Tiles(model, groups, pixels.shape[2], coefficients)
    tiles.fill(pixels)
    tiles.write(stacks)
    return stacks.data()


def _read(
    model: weights.LosslessModel, section: bytes, height: int, width: int, channels: int, region: tuple[int, int, int, int]
) -> np.ndarray:
    """Inverse of `_write`. The section is checked before it is decoded: a stream that no encoder wrote is not run."""
    if len(section) < 1 + _CHECK.size:
        raise TruncatedError(f"pixels section of {len(section)} bytes")
    body, (check,) = memoryview(section)[: -_CHECK.size], _CHECK.unpack(section[-_CHECK.size :])
    if zlib.crc32(body) != check:
        raise FormatError("damaged pixels section: its check value does not match")
    if body[0] > _FITTED + _ALONE + _CHANGED:
        raise FormatError(f"damaged pixels section: it begins with {body[0]}")
    coefficients, offset = None, 1
    if body[0] & _FITTED:
        shape = model.coefficients.shape
        offset += 2 * model.coefficients.size
        if len(body) < offset:
            raise TruncatedError(f"pixels section of {len(section)} bytes")
        coefficients = np.frombuffer(body[1:offset], "<i2").reshape(shape).astype(np.float64)
    if body[0] & _CHANGED:
        model, length = adaptation.read(model, body[offset:], channels)
        offset += length
    size = 1 if body[0] & _ALONE else STEP
    count = -(-(-(-height // TILE) * -(-width // TILE)) // size)
    end = offset + count * _LENGTH.size
    if len(body) < end:  # before anything is made for each tile that a header claims
        raise TruncatedError(f"pixels section of {len(section)} bytes is too short for {count} groups of tiles")
    edges = list(itertools.accumulate((length for (length,) in _LENGTH.iter_unpack(body[offset:end])), initial=end))
    if edges[-1] != len(body):
        raise FormatError(f"pixels section of {len(section)} bytes does not match the lengths of its groups")
    touched = [
        (group, slice(*ends))
        for group, ends in zip(_groups(height, width, size), itertools.pairwise(edges), strict=True)
        if any(_touch(tile, region) for tile in group)
    ]
    out = np.empty((region[3], region[2], channels), np.uint8)
    for some in _in_step(touched, size):
        tiles = _Tiles(model, [group for group, _ in some], channels, coefficients)
        stacks = Stacks([bytes(body[span]) for _, span in some])
        tiles.read(stacks)
        if not stacks.empty:
            raise FormatError("damaged pixels section: a stream does not end where its pixels do")
        tiles.cut(region, out)
        del tiles  # before the next are made
    return out


def _touch(tile: _Tile, region: tuple[int, int, int, int]) -> bool:
    left, top, columns, rows = region
    return tile.top < top + rows and top < tile.top + tile.height and tile.left < left + columns and left < tile.left + tile.width
