"""The lossy method: pixels <-> the latents section of a file (floor 4).

Encode: pixels padded -> analysis -> hyper-latents z -> exact scales -> walk (means, residual symbols) -> entropy
coding, tile by tile. Decode is its mirror: all symbols of a tile are read before any floating-point network runs.
Large pictures go block by block, each with the surroundings that its networks look at: memory does not grow with them.

Latents section: the picture's own post-filter, if the model has a basis for one; for each tile, in order, the length of its entropy-coded
bytes and the CRC-32 of its symbols and bytes (both u32 little-endian); then the bytes of all tiles. docs/FORMAT.md says the same.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import hyperlatents, postfilter, weights
from .container import QUALITY_MAX
from .entropy.coder import BitCounter, Coder, QueueReader, QueueWriter, code_grouped
from .errors import FormatError, TruncatedError
from .metrics import PSNR
from .networks import reach
from .networks.exact import INPUT_MAX, OUTPUT_STEP
from .networks.execution import execution
from .networks.layers import fast_bfloat16
from .networks.priors import SCALE_LEVELS, put, step_places
from .postfilter import REACH
from .quantiser import choose, offsets
from .tiles import HYPER_STRIDE, STRIDE, TILE, Tile, covering, pad, tiles, whole
from .walk import Take, walk_latents

_TILE_ENTRY = struct.Struct("<II")
_SETTING = struct.Struct("<IIH")


# Pixels a side, multiples of TILE: what is coded at once. Smaller blocks need less memory and more time, for their
# surroundings: they are for pictures that fill the memory themselves.
BLOCK, SMALL_BLOCK = 2048, 1024
HUGE = 2**25  # pixels of a picture from which on blocks are small
# Surroundings in pixels. What is decoded, and what the encoder infers before it chooses symbols, is computed with all that networks
# see (`networks/reach.py`), so that blocks leave no seam. Of the choices around it an encoder knows this much at least: they are a
# little worse, at the seams, than they could be, and what they decode to is the same.
ENCODER_MARGIN = 128


def encode(
    pixels: np.ndarray,
    quality: int,
    *,
    infer: Callable[[Encoder, int], Latents] | None = None,
    tune: str = PSNR,
    device: str = "auto",
    threads: int = 0,
) -> tuple[bytes, bytes]:
    """pixels: H×W×3 uint8; quality: 0..10000 -> (model id, latents section).

    `infer` finds the latents of a block at a quality; None is one amortised pass. tune: whose model codes.
    """
    height, width, _ = pixels.shape
    setting = _SETTING.pack(width, height, quality)
    layout = tiles(height, width)
    streams: dict[Tile, tuple[bytes, int]] = {}
    with execution(device, threads) as place:
        model = weights.load(weights.default_path(tune=tune), place)
        normals = []
        margin = max(ENCODER_MARGIN, -(-reach.hyper_inference(model.config) // HYPER_STRIDE) * HYPER_STRIDE)
        for block in whole(height, width).cut(block_size(height, width)):
            seen = block.around(margin, whole(height, width))
            parts = [part.inside(seen) for tile in layout if (part := tile.common(seen))]
            encoder = Encoder(model, pixels[seen.slices(1)], parts)
            latents = (infer or amortise)(encoder, quality)
            for tile in layout:
                if tile.common(block):
                    streams[tile] = _write_tile(model, latents, setting, tile.inside(seen))
            normals.append(latents.normal)
        filter = fit_filter(model, postfilter.together(normals), quality)
        return model.model_id, _join(model, filter, [streams[tile] for tile in layout])


def block_size(height: int, width: int) -> int:
    """Pixels a side of the blocks of a picture."""
    return BLOCK if height * width < HUGE else SMALL_BLOCK


def amortise(encoder: Encoder, quality: int) -> Latents:
    """One pass of the inference networks, the nearest symbols."""
    return encoder.quantise(encoder.analyse(quality), quality)


def decode(
    latents: bytes,
    *,
    width: int,
    height: int,
    quality: int,
    model_id: bytes,
    model: weights.LossyModel | None = None,
    region: tuple[int, int, int, int] | None = None,
    reduce: int = 1,
    device: str = "auto",
    threads: int = 0,
) -> np.ndarray:
    """Latents section -> H×W×3 uint8. Raises FormatError on damage, UnsupportedError on an unknown model.

    model: one that is loaded already, which the id then does not choose.
    region: left, top, width and height of the pixels to decode; tiles far from it are not read. reduce: 1, or 8 or 16
    for a preview of ceil(H/reduce)×ceil(W/reduce) pixels, from the linear path of the synthesis alone.
    """
    left, top, columns, rows = region or (0, 0, width, height)
    wanted = covering(left, top, columns, rows)
    with execution(device, threads) as place:
        model = model or weights.load(weights.find(model_id), place)
        reader = _Reader(model, latents, quality, height, width)
        size = (wanted.bottom - wanted.top) // reduce, (wanted.right - wanted.left) // reduce
        out = np.empty((*size, 3), np.uint8)
        for block in wanted.cut(block_size(height, width) if reduce == 1 else BLOCK):
            to_rows, to_columns = block.inside(wanted).slices(reduce)
            out[to_rows, to_columns] = _reconstruct(reader, block, reduce)
    top, left = (top - wanted.top) // reduce, (left - wanted.left) // reduce
    return out[top : top - (-rows // reduce), left : left - (-columns // reduce)]


def count_bits(
    pixels: np.ndarray,
    quality: int,
    *,
    infer: Callable[[Encoder, int], Latents] | None = None,
    device: str = "auto",
    threads: int = 0,
) -> float:
    """Ideal code length in bits of what `encode` would write, without its headers."""
    with execution(device, threads) as place:
        encoder = Encoder(weights.load(weights.default_path(), place), pixels)
        return encoder.bits((infer or amortise)(encoder, quality))


@dataclass(frozen=True)
class Latents:
    """What a file says about a picture."""

    quality: int  # hundredths
    z: np.ndarray  # hyper-latents, int32 [Cz, h/4, w/4]
    residuals: np.ndarray  # symbols of the offsets from the means: int32 [M, h, w]
    decoded: Tensor  # the gained latents that a decoder finds: 1×M×h×w
    filter: bytes = postfilter.NONE  # what is done to the decoded picture,
    normal: postfilter.Normal | None = None  # and what it was fitted to


# Picks symbols for offsets of latents from their means, and says what they stand for; gets what `walk_latents` gives a visitor
# to see more of a step.
Choice = Callable[[Tensor, Take], tuple[Tensor, Tensor]]


class Encoder:
    """One picture, or a block of one, on its way into a file, at any quality: analyse, quantise, then measure or write.

    Used inside `execution`; what `refine.py` and `rate_control.py` do is made of these steps.
    layout: the tiles of the file, or what is seen of them; without it the pixels are a whole picture.
    """

    def __init__(self, model: weights.LossyModel, pixels: np.ndarray, layout: list[Tile] | None = None):
        self.model, self.network = model, model.network
        self.height, self.width, _ = pixels.shape
        self._layout = layout or tiles(self.height, self.width)
        self._pixels = torch.from_numpy(pad(pixels))[None].permute(0, 3, 1, 2)  # channels last in memory
        self._known: tuple[Tensor, int, Tensor] | None = None  # see `_features`

    @cached_property
    def x(self) -> Tensor:
        """The padded picture: 1×3×H×W in [0, 1]. Four times the memory of its pixels: only for who needs it whole."""
        return self._pixels.to(self.model.device).float() / 255

    def analyse(self, quality: int) -> Tensor:
        """Amortised inference of the gained latents: 1×M×h×w. Tile by tile: memory grows with the latents alone."""
        height, width = self._pixels.shape[2:]
        t = position(self.model, quality)
        shape = 1, self.model.config.latent_channels, height // STRIDE, width // STRIDE
        y = torch.empty(shape, dtype=torch.float32, device=self.model.device)
        margin = -(-reach.analysis(self.model.config) // STRIDE) * STRIDE
        for tile in tiles(self.height, self.width):
            seen = tile.around(margin, whole(self.height, self.width))
            rows, columns = seen.slices(1)
            x = self._pixels[:, :, rows, columns].to(self.model.device).float() / 255
            with transform_precision(self.model.device):
                part = self.network.analyse(x.contiguous(memory_format=torch.channels_last), t)
            (to_rows, to_columns), (from_rows, from_columns) = tile.slices(STRIDE), tile.inside(seen).slices(STRIDE)
            y[:, :, to_rows, to_columns] = part[:, :, from_rows, from_columns]
        return y

    def infer_hyper(self, y: Tensor) -> Tensor:
        """Amortised inference of the hyper-latents, rounded: 1×Cz×h/4×w/4; empty under a factorised prior."""
        if self.model.scales is None:
            return torch.zeros(1, 0, 0, 0, dtype=torch.float32)
        return self.network.prior.infer(y).round().clamp(-INPUT_MAX, INPUT_MAX)

    def quantise(
        self, y: Tensor, quality: int, *, z: Tensor | None = None, choice: Choice | None = None
    ) -> Latents:
        """Gained latents -> symbols. z: hyper-latents other than the inferred; choice: other than the nearest symbols."""
        z = self.infer_hyper(y) if z is None else z
        choice = choice or self.choice(self.levels(z, quality, tuple(y.shape[1:])), y.new_ones(1, 1, 1, 1), None)
        if self.model.scales is None:
            symbols, values = choice(y, lambda values: values)
            return Latents(quality, _symbols(z), _symbols(symbols), values)
        prior = self.network.prior
        features, unit = self._features(z, quality), self.network.unit(position(self.model, quality))
        chosen = []

        def visit(take: Take, mean: Tensor) -> Tensor:
            symbols, values = choice(take(y) - mean, take)
            chosen.append(symbols)
            return values + mean

        decoded, _ = walk_latents(prior, features, unit, visit)
        residuals = torch.empty_like(decoded)
        for symbols, places in zip(chosen, step_places(prior.steps, y.shape[1]), strict=True):
            residuals = put(residuals, symbols, places)
        return Latents(quality, _symbols(z), _symbols(residuals), decoded)

    def _features(self, z: Tensor, quality: int) -> Tensor:
        """Hyper-features, at full precision; a search quantises again and again with the same hyper-latents."""
        if self._known is None or self._known[0] is not z or self._known[1] != quality:
            with torch.autocast(z.device.type, enabled=False):
                self._known = z, quality, self.network.prior.features(z, position(self.model, quality))
        return self._known[2]

    def choice(self, levels: Tensor, curvature: Tensor, lengths: Tensor | None, *, uniform: bool = False) -> Choice:
        """`quantiser.choose` for `quantise`. levels: uint8 1×M×h×w; curvature: 1×M×h×w or with sides of 1. uniform: without a
        trellis, for latents that are only looked at."""
        config = replace(self.model.config, trellis_step=0.0) if uniform else self.model.config

        def best(offset: Tensor, take: Take) -> tuple[Tensor, Tensor]:
            weight = curvature if curvature.shape[1] == 1 else take(curvature)
            tile = None if self._tile is None else take(self._tile.expand(levels.shape))
            return choose(offset, take(levels), weight, lengths, config, tile)

        return best

    @cached_property
    def _tile(self) -> Tensor | None:
        """The number of the tile of each latent, 1×1×h×w; None where there is one."""
        if len(self._layout) == 1:
            return None
        height, width = (side // STRIDE for side in self._pixels.shape[2:])
        number = torch.zeros(1, 1, height, width, dtype=torch.int64, device=self.model.device)
        for index, tile in enumerate(self._layout):
            number[(..., *tile.slices(STRIDE))] = index
        return number

    def levels(self, z: Tensor, quality: int, shape: tuple[int, int, int]) -> Tensor:
        """The table of each symbol of the picture: uint8 1×M×h×w, tile by tile as the file has them."""
        levels = np.empty(shape, np.uint8)
        symbols = _symbols(z)
        for tile in self._layout:
            rows, columns = tile.slices(STRIDE)
            hyper_rows, hyper_columns = tile.slices(HYPER_STRIDE)
            part = (shape[0], rows.stop - rows.start, columns.stop - columns.start)
            tile_z = symbols[:, hyper_rows, hyper_columns]
            levels[:, rows, columns] = scale_levels(self.model, quality, tile_z, part)
        return torch.from_numpy(levels)[None].to(self.model.device, memory_format=torch.channels_last)

    def bits(self, latents: Latents) -> float:
        """Ideal code length of what `write` would write, without its headers."""
        counter = BitCounter()
        for tile in tiles(self.height, self.width):
            _code_tile(counter, self.model, latents.quality, tile, latents.z, latents.residuals)
        return counter.bits + 8 * self.filter_bytes(latents)

    def filter_bytes(self, latents: Latents) -> int:
        """Those of the section that say the post-filter, or that there is none."""
        return 0 if self.model.postfilter is None else len(latents.filter)

    def picture(self, latents: Latents) -> np.ndarray:
        """What a decoder will show: H×W×3 uint8."""
        picture = whole(self.height, self.width)
        pixels = _synthesise(self.model, latents.decoded, latents.quality, picture, picture, latents.filter)
        return pixels[: self.height, : self.width]

    def write(self, latents: Latents) -> bytes:
        """The latents section."""
        setting = _SETTING.pack(self.width, self.height, latents.quality)
        coded = [_write_tile(self.model, latents, setting, tile) for tile in tiles(self.height, self.width)]
        return _join(self.model, latents.filter, coded)


def transform_precision(device: str) -> contextlib.AbstractContextManager:
    """bfloat16 for the transforms where that is fast: their linear path stays in float32, so pixels move by a fraction
    of a level. The prior always runs in float32: its means must agree between encoder and decoder."""
    kind = torch.device(device)
    return torch.autocast(kind.type, torch.bfloat16, enabled=fast_bfloat16(kind))


def position(model: weights.LossyModel, quality: int) -> Tensor:
    """Place of a quality on the model's trade-off grid: a tensor of one value."""
    place = quality / QUALITY_MAX * (model.config.rate_points - 1)
    return torch.tensor([place], dtype=torch.float32, device=model.device)


def _reconstruct(reader: _Reader, block: Tile, reduce: int) -> np.ndarray:
    """The pixels of a block, uint8, 1/reduce in size: symbols -> latents -> synthesis."""
    model, network, config = reader.model, reader.model.network, reader.model.config
    margin = reach.preview(config) if reduce > 1 else reach.synthesis(config, REACH)
    seen, known = (block.around(pixels, reader.whole) for pixels in (margin, reach.context(config, margin)))
    z, values = reader.read(known)
    t = position(model, reader.quality)
    y = torch.from_numpy(values)[None].to(model.device, memory_format=torch.channels_last)
    if model.scales is not None:
        offset = y
        # The means of a preview may be a little off.
        with transform_precision(model.device) if reduce > 1 else contextlib.nullcontext():
            features = network.prior.features(torch.from_numpy(z)[None].to(model.device, torch.float32), t)
            y, _ = walk_latents(network.prior, features, network.unit(t), lambda take, mean: take(offset) + mean)
    rows, columns = seen.inside(known).slices(STRIDE)
    y = y[:, :, rows, columns]
    if reduce > 1:
        rows, columns = block.inside(seen).slices(reduce)
        return _levels(network.preview(y, t, reduce)[:, :, rows, columns])
    return _synthesise(model, y, reader.quality, seen, block, reader.filter)


def _synthesise(model: weights.LossyModel, y: Tensor, quality: int, known: Tile, block: Tile, filter: bytes) -> np.ndarray:
    """The latents of `known`, 1×M×h×w, -> the pixels of `block`, uint8, tile by tile."""
    out = np.empty((block.bottom - block.top, block.right - block.left, 3), np.uint8)
    kernel = None if model.postfilter is None else postfilter.kernel(model.postfilter, filter)
    for tile, x in _shown(model, y, quality, known, block, 0 if kernel is None else REACH):
        if kernel is not None:
            x = postfilter.apply(x, kernel)  # in float32: bfloat16 would move every fifth pixel by a level
        out[tile.inside(block).slices(1)] = _levels(x)
    return out


def _shown(
    model: weights.LossyModel, y: Tensor, quality: int, known: Tile, block: Tile, more: int
) -> Iterator[tuple[Tile, Tensor]]:
    """The latents of `known`, 1×M×h×w, -> the tiles of `block`, each with its pixels, not clipped, and `more` on all sides; beyond its
    edges a picture goes on as it ends."""
    t, margin = position(model, quality), reach.synthesis(model.config, more)
    for tile in block.cut(TILE):
        seen = tile.around(margin, known)
        rows, columns = seen.inside(known).slices(STRIDE)
        # Without a linear path, which stays in float32, less precision could move a pixel by two levels.
        with transform_precision(model.device) if model.config.transform == "residual" else contextlib.nullcontext():
            x = model.network.synthesise(y[:, :, rows, columns].contiguous(memory_format=torch.channels_last), t)
        rows, columns = (slice(part.start, part.stop + 2 * more) for part in tile.inside(seen).slices(1))
        yield tile, (F.pad(x, [more] * 4, mode="replicate") if more else x)[:, :, rows, columns]


def _levels(x: Tensor) -> np.ndarray:
    """1×3×H×W, nominally in [0, 1] -> H×W×3 uint8."""
    return (x[0] * 255).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _symbols(values: Tensor) -> np.ndarray:
    return values[0].round().to(torch.int32).contiguous().cpu().numpy()


def scale_levels(model: weights.LossyModel, quality: int, z: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The table of each residual symbol: uint8 [M, h, w]. Integers throughout: equal on every machine.

    z: int32 [Cz, h/4, w/4]; shape: M, h, w.
    """
    points = model.config.rate_points - 1
    low, fraction = divmod(quality * points, QUALITY_MAX)
    offsets = model.scale_offset
    above = offsets[min(low + 1, points)]
    # Linear interpolation between rate points, rounded half up, in OUTPUT_STEP.
    offset = (2 * (offsets[low] * (QUALITY_MAX - fraction) + above * fraction) + QUALITY_MAX) // (2 * QUALITY_MAX)
    position = torch.from_numpy(offset.astype(np.float32))[:, None, None].to(model.device)
    if model.scales is not None:
        position = model.scales(torch.from_numpy(z)[None].to(model.device, torch.float32))[0] + position
    # Small integers over a power of two, and the half that rounds: exact in float32.
    levels = (position * OUTPUT_STEP + 0.5).floor_().clamp_(0, SCALE_LEVELS - 1)
    return levels.to(torch.uint8).expand(shape).contiguous().cpu().numpy()


def _code_tile(
    coder: Coder,
    model: weights.LossyModel,
    quality: int,
    tile: Tile,
    z: np.ndarray | None,
    residuals: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pass the symbols of one tile through a coder: hyper-latents, then residuals by table.

    z and residuals: those of the whole picture, or None for a reader. Returns those of the tile, and the levels of the latter.
    """
    config = model.config
    rows, columns = tile.slices(STRIDE)
    shape = (config.latent_channels, rows.stop - rows.start, columns.stop - columns.start)
    tile_z = np.zeros((0, 0, 0), np.int32)
    if model.scales is not None:
        hyper_rows, hyper_columns = tile.slices(HYPER_STRIDE)
        hyper_shape = (config.hyper_latent_channels, hyper_rows.stop - hyper_rows.start, hyper_columns.stop - hyper_columns.start)
        given = None if z is None else z[:, hyper_rows, hyper_columns]
        tile_z = hyperlatents.code(coder, model, quality, hyper_shape, given)
    levels = scale_levels(model, quality, tile_z, shape)
    given = None if residuals is None else residuals[:, rows, columns].reshape(-1)
    return tile_z, code_grouped(coder, levels.reshape(-1), model.latent_tables, given).reshape(shape), levels


def _check_value(setting: bytes, z: np.ndarray, residuals: np.ndarray, stream: bytes) -> int:
    """CRC-32 of the setting (width, height, quality), the symbols of a tile as little-endian int32, hyper-latents
    first, and its coded bytes.

    The symbols catch a decoder that drifts, the bytes damage that happens to decode to the same symbols, the setting
    latents under a header that is not theirs.
    """
    check = zlib.crc32(setting)
    for symbols in (z, residuals):
        check = zlib.crc32(symbols.astype("<i4").tobytes(), check)
    return zlib.crc32(stream, check)


def _write_tile(model: weights.LossyModel, latents: Latents, setting: bytes, tile: Tile) -> tuple[bytes, int]:
    """The coded bytes of a tile and their check value; `tile` is in the coordinates of the latents."""
    writer = QueueWriter()
    z, residuals, _ = _code_tile(writer, model, latents.quality, tile, latents.z, latents.residuals)
    stream = writer.data()
    return stream, _check_value(setting, z, residuals, stream)


def fit_filter(model: weights.LossyModel, normal: postfilter.Normal | None, quality: int) -> bytes:
    """The post-filter that is worth most to a picture."""
    if model.postfilter is None or normal is None:
        return postfilter.NONE
    return postfilter.fit(normal, model.postfilter, model.network.trade_off(float(position(model, quality))))


def _join(model: weights.LossyModel, filter: bytes, coded: list[tuple[bytes, int]]) -> bytes:
    """The latents section of tiles in order."""
    begin = b"" if model.postfilter is None else filter
    # A check value that is wrong for every tile finds damage of the filter.
    entries = [_TILE_ENTRY.pack(len(stream), check ^ zlib.crc32(begin)) for stream, check in coded]
    return b"".join((begin, *entries, *(stream for stream, _ in coded)))


class _Reader:
    """Latents section -> symbols of any part of the picture; every tile that is read is checked."""

    def __init__(self, model: weights.LossyModel, data: bytes, quality: int, height: int, width: int):
        self.model, self.quality, self.whole = model, quality, whole(height, width)
        self._setting = _SETTING.pack(width, height, quality)
        count = -(-height // TILE) * -(-width // TILE)
        begin = 0 if model.postfilter is None else postfilter.read(data, len(model.postfilter))[2]
        self.filter = data[:begin]
        offset = begin + count * _TILE_ENTRY.size
        if len(data) < offset:  # before anything is made for each tile that a header claims
            raise TruncatedError(f"latents section of {len(data)} bytes is too short for {count} tiles")
        layout = tiles(height, width)
        self._coded: dict[Tile, tuple[bytes, int]] = {}
        for tile, (length, check) in zip(layout, _TILE_ENTRY.iter_unpack(data[begin:offset]), strict=True):
            self._coded[tile] = data[offset : offset + length], check ^ zlib.crc32(self.filter)
            offset += length
        if offset != len(data):
            raise FormatError(f"latents section of {len(data)} bytes does not match the lengths of its tiles")
        self._known: dict[Tile, tuple[np.ndarray, np.ndarray]] = {}

    def read(self, window: Tile) -> tuple[np.ndarray, np.ndarray]:
        """Hyper-latents int32 [Cz, h/4, w/4] and offsets from means, float32 [M, h, w], of a window. Windows come row by row."""
        config = self.model.config
        height, width = window.bottom - window.top, window.right - window.left
        hyper = config.hyper_latent_channels if self.model.scales is not None else 0
        z = np.empty((hyper, height // HYPER_STRIDE, width // HYPER_STRIDE), np.int32)
        values = np.empty((config.latent_channels, height // STRIDE, width // STRIDE), np.float32)
        self._known = {tile: symbols for tile, symbols in self._known.items() if tile.bottom > window.top}
        for tile in self._coded:
            part = tile.common(window)
            if part is None:
                continue
            if tile not in self._known:
                self._known[tile] = self._read_tile(tile)
            for symbols, out, stride in zip(self._known[tile], (z, values), (HYPER_STRIDE, STRIDE), strict=True):
                (to_rows, to_columns), (from_rows, from_columns) = (part.inside(frame).slices(stride) for frame in (window, tile))
                if len(out):
                    out[:, to_rows, to_columns] = symbols[:, from_rows, from_columns]
        return z, values

    def _read_tile(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        stream, check = self._coded[tile]
        z, residuals, levels = _code_tile(QueueReader(stream), self.model, self.quality, tile, None, None)
        if _check_value(self._setting, z, residuals, stream) != check:
            raise FormatError("the decoded symbols do not match their check value: the file is damaged")
        return z, offsets(residuals, levels, self.model.config)
