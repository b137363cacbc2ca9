"""The lossy method: pixels <-> the latents section of a file (floor 4).

Encode: tiles padded -> analysis -> hyper-latents z -> exact scales -> walk (means, residual symbols) -> entropy
coding, tile by tile. Decode is its mirror: all symbols of a tile are read before any floating-point network runs.

Latents section: for each tile, in order, the length of its entropy-coded bytes and the CRC-32 of its symbols and bytes
(both u32 little-endian); then the bytes of all tiles. docs/FORMAT.md says the same.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from . import weights
from .entropy.coder import BitCounter, Coder, QueueReader, QueueWriter, code_grouped
from .errors import FormatError, TruncatedError, UnsupportedError
from .networks.exact import INPUT_MAX, OUTPUT_STEP
from .networks.execution import execution
from .networks.layers import fast_bfloat16
from .networks.priors import SCALE_LEVELS
from .tiles import HYPER_STRIDE, STRIDE, Tile, pad, padded_size, tiles, windows
from .walk import walk_latents

QUALITY_MAX = 10_000  # quality in hundredths
_TILE_ENTRY = struct.Struct("<II")
_SETTING = struct.Struct("<IIH")
SYMBOL_MAX = 1 << 18  # largest residual magnitude that is coded


def encode(pixels: np.ndarray, quality: int, *, device: str = "auto", threads: int = 0) -> tuple[bytes, bytes]:
    """One amortised pass. pixels: H×W×3 uint8; quality: 0..10000 -> (model id, latents section)."""
    with execution(device, threads) as place:
        encoder = Encoder(weights.load(weights.default_path(), place), pixels)
        return encoder.model.model_id, encoder.write(encoder.quantise(encoder.analyse(quality), quality))


def decode(
    latents: bytes, *, width: int, height: int, quality: int, model_id: bytes, device: str = "auto", threads: int = 0
) -> np.ndarray:
    """Latents section -> H×W×3 uint8. Raises FormatError on damage, UnsupportedError on an unknown model."""
    with execution(device, threads) as place:
        model = weights.load(weights.find(model_id), place)
        z, residuals = _read(model, latents, quality, height, width)
        return _reconstruct(model, z, residuals, quality)[:height, :width]


def count_bits(pixels: np.ndarray, quality: int, *, device: str = "auto", threads: int = 0) -> float:
    """Ideal code length in bits of what `encode` would write, without its headers."""
    with execution(device, threads) as place:
        encoder = Encoder(weights.load(weights.default_path(), place), pixels)
        return encoder.bits(encoder.quantise(encoder.analyse(quality), quality))


@dataclass(frozen=True)
class Latents:
    """What a file says about a picture."""

    quality: int  # hundredths
    z: np.ndarray  # hyper-latents, int32 [Cz, h/4, w/4]
    residuals: np.ndarray  # int32 [M, h, w]
    decoded: Tensor  # the gained latents that a decoder finds: 1×M×h×w


def nearest(offset: Tensor) -> Tensor:
    """The symbols of one amortised pass: offsets of the latents from their means, rounded."""
    return offset.round().clamp(-SYMBOL_MAX, SYMBOL_MAX)


class Encoder:
    """One picture on its way into a file, at any quality: analyse, quantise, then measure or write.

    Used inside `execution`; what `refine.py` and `rate_control.py` do is made of these steps.
    """

    def __init__(self, model: weights.LossyModel, pixels: np.ndarray):
        self.model, self.network = model, model.network
        self.height, self.width, _ = pixels.shape
        self._pixels = torch.from_numpy(pad(pixels)).permute(2, 0, 1)[None]  # channels last in memory

    @cached_property
    def x(self) -> Tensor:
        """The padded picture: 1×3×H×W in [0, 1]. Four times the memory of its pixels: only for who needs it whole."""
        return self._pixels.to(self.model.device).float() / 255

    def analyse(self, quality: int) -> Tensor:
        """Amortised inference of the gained latents: 1×M×h×w. Tile by tile: memory grows with the latents alone."""
        height, width = self._pixels.shape[2:]
        t = position(self.model, quality)
        y = torch.empty(1, self.model.config.latent_channels, height // STRIDE, width // STRIDE, device=self.model.device)
        for tile, seen in windows(self.height, self.width):
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
            return torch.zeros(1, 0, 0, 0)
        return self.network.prior.infer(y).round().clamp(-INPUT_MAX, INPUT_MAX)

    def quantise(
        self, y: Tensor, quality: int, *, z: Tensor | None = None, choose: Callable[[Tensor], Tensor] = nearest
    ) -> Latents:
        """Gained latents -> symbols. z: hyper-latents other than the inferred; `choose` picks a symbol for each offset."""
        z = self.infer_hyper(y) if z is None else z
        if self.model.scales is None:
            residuals = choose(y)
            return Latents(quality, _symbols(z), _symbols(residuals), residuals)
        t, prior = position(self.model, quality), self.network.prior
        residuals = torch.zeros_like(y)

        def visit(mask: Tensor, mean: Tensor) -> Tensor:
            chosen = choose(y - mean)
            residuals.copy_(torch.where(mask, chosen, residuals))
            return chosen + mean

        decoded, _ = walk_latents(prior, prior.features(z, t), self.network.unit(t), visit)
        return Latents(quality, _symbols(z), _symbols(residuals), decoded)

    def levels(self, z: Tensor, quality: int, shape: tuple[int, int, int]) -> np.ndarray:
        """The table of each residual symbol of the picture: int64 [M, h, w], tile by tile as the file has them."""
        levels = np.empty(shape, np.int64)
        symbols = _symbols(z)
        for tile in tiles(self.height, self.width):
            rows, columns = tile.slices(STRIDE)
            hyper_rows, hyper_columns = tile.slices(HYPER_STRIDE)
            part = (shape[0], rows.stop - rows.start, columns.stop - columns.start)
            tile_z = symbols[:, hyper_rows, hyper_columns]
            levels[:, rows, columns] = scale_levels(self.model, quality, tile_z, part)
        return levels

    def bits(self, latents: Latents) -> float:
        """Ideal code length of what `write` would write, without its headers."""
        counter = BitCounter()
        for tile in tiles(self.height, self.width):
            _code_tile(counter, self.model, latents.quality, tile, latents.z, latents.residuals)
        return counter.bits

    def picture(self, latents: Latents) -> np.ndarray:
        """What a decoder will show: H×W×3 uint8."""
        return _synthesise(self.model, latents.decoded, latents.quality)[: self.height, : self.width]

    def write(self, latents: Latents) -> bytes:
        """The latents section."""
        return _write(self.model, latents.z, latents.residuals, latents.quality, self.height, self.width)


def transform_precision(device: str) -> contextlib.AbstractContextManager:
    """bfloat16 for the transforms where that is fast: their linear path stays in float32, so pixels move by a fraction
    of a level. The prior always runs in float32: its means must agree between encoder and decoder."""
    kind = torch.device(device)
    return torch.autocast(kind.type, torch.bfloat16, enabled=fast_bfloat16(kind))


def position(model: weights.LossyModel, quality: int) -> Tensor:
    """Place of a quality on the model's trade-off grid: a tensor of one value."""
    place = quality / QUALITY_MAX * (model.config.rate_points - 1)
    return torch.tensor([place], dtype=torch.float32, device=model.device)


def _reconstruct(model: weights.LossyModel, z: np.ndarray, residuals: np.ndarray, quality: int) -> np.ndarray:
    """Symbols -> padded picture, uint8."""
    network = model.network
    t = position(model, quality)
    y = torch.from_numpy(residuals)[None].to(model.device, torch.float32)
    if model.scales is not None:
        symbols = y
        features = network.prior.features(torch.from_numpy(z)[None].to(model.device, torch.float32), t)
        y, _ = walk_latents(network.prior, features, network.unit(t), lambda mask, mean: symbols + mean)
    return _synthesise(model, y, quality)


def _synthesise(model: weights.LossyModel, y: Tensor, quality: int) -> np.ndarray:
    """Latents 1×M×h×w -> padded picture, uint8, tile by tile."""
    height, width = y.shape[2] * STRIDE, y.shape[3] * STRIDE
    t = position(model, quality)
    out = np.empty((height, width, 3), np.uint8)
    for tile, seen in windows(height, width):
        rows, columns = seen.slices(STRIDE)
        with transform_precision(model.device):
            x = model.network.synthesise(y[:, :, rows, columns].contiguous(), t)[0]
        (to_rows, to_columns), (from_rows, from_columns) = tile.slices(1), tile.inside(seen).slices(1)
        x = (x[:, from_rows, from_columns] * 255).round().clamp(0, 255).to(torch.uint8)
        out[to_rows, to_columns] = x.permute(1, 2, 0).cpu().numpy()
    return out


def _symbols(values: Tensor) -> np.ndarray:
    return values[0].round().to(torch.int32).contiguous().cpu().numpy()


def scale_levels(model: weights.LossyModel, quality: int, z: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The table of each residual symbol: int64 [M, h, w]. Integers throughout: equal on every machine.

    z: int32 [Cz, h/4, w/4]; shape: M, h, w.
    """
    points = model.config.rate_points - 1
    low, fraction = divmod(quality * points, QUALITY_MAX)
    offsets = model.scale_offset
    above = offsets[min(low + 1, points)]
    # Linear interpolation between rate points, rounded half up, in OUTPUT_STEP.
    offset = (2 * (offsets[low] * (QUALITY_MAX - fraction) + above * fraction) + QUALITY_MAX) // (2 * QUALITY_MAX)
    position = np.broadcast_to(offset[:, None, None], shape)
    if model.scales is not None:
        added = model.scales(torch.from_numpy(z)[None].to(model.device, torch.float32))[0]
        position = position + added.cpu().numpy().astype(np.int64)
    steps = round(1 / OUTPUT_STEP)
    return np.clip((2 * position + steps) // (2 * steps), 0, SCALE_LEVELS - 1)


def hyper_point(model: weights.LossyModel, quality: int) -> int:
    """Nearest rate point, halves up: the tables of p(z) are not interpolated."""
    return (2 * quality * (model.config.rate_points - 1) + QUALITY_MAX) // (2 * QUALITY_MAX)


def _code_tile(
    coder: Coder,
    model: weights.LossyModel,
    quality: int,
    tile: Tile,
    z: np.ndarray | None,
    residuals: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pass the symbols of one tile through a coder: hyper-latents channel by channel, then residuals by table.

    z and residuals: those of the whole picture, or None for a reader. Returns those of the tile.
    """
    config = model.config
    rows, columns = tile.slices(STRIDE)
    shape = (config.latent_channels, rows.stop - rows.start, columns.stop - columns.start)
    tile_z = np.zeros((0, 0, 0), np.int32)
    if model.scales is not None:
        hyper_rows, hyper_columns = tile.slices(HYPER_STRIDE)
        hyper_shape = (config.hyper_latent_channels, hyper_rows.stop - hyper_rows.start, hyper_columns.stop - hyper_columns.start)
        point = hyper_point(model, quality)
        channel = np.repeat(np.arange(hyper_shape[0]), hyper_shape[1] * hyper_shape[2])
        given = None if z is None else z[:, hyper_rows, hyper_columns].reshape(-1)
        tile_z = code_grouped(coder, channel, model.hyper_tables[point], given).reshape(hyper_shape)
        # A damaged stream may hold anything; what the scale network is proved for is bounded.
        if np.abs(tile_z).max() > INPUT_MAX:
            raise FormatError(f"hyper-latent {np.abs(tile_z).max()} is out of range: the file is damaged")
    levels = scale_levels(model, quality, tile_z, shape)
    given = None if residuals is None else residuals[:, rows, columns].reshape(-1)
    return tile_z, code_grouped(coder, levels.reshape(-1), model.latent_tables, given).reshape(shape)


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


def _write(
    model: weights.LossyModel, z: np.ndarray, residuals: np.ndarray, quality: int, height: int, width: int
) -> bytes:
    setting = _SETTING.pack(width, height, quality)
    table, streams = b"", []
    for tile in tiles(height, width):
        writer = QueueWriter()
        tile_z, tile_residuals = _code_tile(writer, model, quality, tile, z, residuals)
        streams.append(writer.data())
        table += _TILE_ENTRY.pack(len(streams[-1]), _check_value(setting, tile_z, tile_residuals, streams[-1]))
    return table + b"".join(streams)


def _read(
    model: weights.LossyModel, data: bytes, quality: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `_write`; every tile is checked."""
    config = model.config
    layout = tiles(height, width)
    offset = len(layout) * _TILE_ENTRY.size
    if len(data) < offset:
        raise TruncatedError(f"latents section of {len(data)} bytes is too short for {len(layout)} tiles")
    entries = list(_TILE_ENTRY.iter_unpack(data[:offset]))
    if offset + sum(length for length, _ in entries) != len(data):
        raise FormatError(f"latents section of {len(data)} bytes does not match the lengths of its tiles")
    padded_height, padded_width = padded_size(height, width)
    residuals = np.empty((config.latent_channels, padded_height // STRIDE, padded_width // STRIDE), np.int32)
    hyper = config.hyper_latent_channels if model.scales is not None else 0
    z = np.empty((hyper, padded_height // HYPER_STRIDE, padded_width // HYPER_STRIDE), np.int32)
    setting = _SETTING.pack(width, height, quality)
    for tile, (length, check) in zip(layout, entries, strict=True):
        stream = data[offset : offset + length]
        offset += length
        tile_z, tile_residuals = _code_tile(QueueReader(stream), model, quality, tile, None, None)
        if _check_value(setting, tile_z, tile_residuals, stream) != check:
            raise FormatError("the decoded symbols do not match their check value: the file is damaged")
        rows, columns = tile.slices(STRIDE)
        residuals[:, rows, columns] = tile_residuals
        if hyper:
            rows, columns = tile.slices(HYPER_STRIDE)
            z[:, rows, columns] = tile_z
    return z, residuals
