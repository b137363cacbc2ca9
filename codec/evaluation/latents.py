"""What a model has learned, as pictures: where the bits of a picture go, and pictures drawn from the prior.

Code lengths are those of the coder's own tables, for the very symbols of the file. A sample is a file too: its symbols
are drawn from the tables that would code them, z first, then the residuals, whose tables z picks through the integer
network; the decoder turns them into a picture like those of any file (means through the walk, then synthesis).
Matplotlib is imported on first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .. import container, hyperlatents, lossy, refine, weights
from ..container import Header, Tag
from ..entropy.coder import code_grouped, grouped_lengths
from ..entropy.distributions import Table
from ..lossy import Encoder, Latents
from ..networks.execution import execution
from ..picture.picture import check_size, from_input, split
from ..tiles import HYPER_STRIDE, STRIDE, padded_size, tiles
from .plots import INK, OURS, PEERS

TILE_ENTRY_BYTES = 8  # length and check value before the streams, docs/FORMAT.md
EFFORT = 3  # as the default of `compress`
CHANNELS_SHOWN = 24  # bars
MOVED_CHANNELS = 5  # rows of the traversal strip
MOVES = (-2.0, -1.0, 0.0, 1.0, 2.0)  # in root mean squares of the channel over the picture
WINDOW, VIEW = 8, 3  # latents on each side of the moved one: decoded, shown

# ── Where the bits go ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Explanation:
    """One picture in one file."""

    pixels: np.ndarray  # H×W×3 uint8
    quality: int  # hundredths
    data: bytes  # the file
    overhead: int  # bytes of it that hold no symbols: header and tile lengths
    tile_count: int
    latent_bits: np.ndarray  # code length of each residual: float64 [M, h, w]
    hyper_bits: np.ndarray  # that of each hyper-latent: float64 [Cz, h/4, w/4], or [0, 0, 0]
    strip: list[Traversal]

    @property
    def bits(self) -> float:
        return float(self.latent_bits.sum() + self.hyper_bits.sum())

    @property
    def unexplained(self) -> float:
        """Bytes of the file beyond its overhead and its code lengths: the last words of the tiles' streams."""
        return len(self.data) - self.overhead - self.bits / 8

    @property
    def agrees(self) -> bool:
        """Whether the file is what its code lengths say, but for half a percent and a few words."""
        return abs(self.unexplained) <= 0.005 * len(self.data) + 24 + 8 * self.tile_count

    def figures(self) -> dict:
        """All but the pictures, for JSON."""
        height, width, _ = self.pixels.shape
        return {
            "width": width,
            "height": height,
            "quality": self.quality / 100,
            "file_bytes": len(self.data),
            "overhead_bytes": self.overhead,
            "latent_bytes": self.latent_bits.sum() / 8,
            "hyper_latent_bytes": self.hyper_bits.sum() / 8,
            "unexplained_bytes": self.unexplained,
            "agrees": self.agrees,
            "bpp": 8 * len(self.data) / (width * height),
            "latent_bits_by_channel": _rounded(self.latent_bits.sum((1, 2))),
            "hyper_latent_bits_by_channel": _rounded(self.hyper_bits.sum((1, 2))),
            "bpp_map": [_rounded(row) for row in self.heat()],
            "traversal": [
                {"channel": moved.channel, "row": moved.row, "column": moved.column, "moves": _rounded(moved.moves)}
                for moved in self.strip
            ],
        }

    def heat(self) -> np.ndarray:
        """Bits a pixel, latents and hyper-latents, of each square of 16×16 pixels: float64 [h, w]; their sum times 256
        is `bits`."""
        heat = self.latent_bits.sum(0) / STRIDE**2
        if self.hyper_bits.size:
            heat = heat + spread(self.hyper_bits.sum(0))
        return heat


@dataclass(frozen=True)
class Traversal:
    """One latent moved, everything else as it is."""

    channel: int
    row: int  # of the moved latent
    column: int
    moves: np.ndarray  # in quantisation steps
    pictures: np.ndarray  # what the decoder shows around it, one for each move: float32 [moves, H, W, 3], not clipped


def _rounded(values: np.ndarray) -> list[float]:
    return np.round(values, 4).tolist()


def spread(hyper_bits: np.ndarray) -> np.ndarray:
    """Bits a pixel of hyper-latents [h/4, w/4] on the grid of the latents [h, w]."""
    return np.kron(hyper_bits, np.ones((HYPER_STRIDE // STRIDE,) * 2)) / HYPER_STRIDE**2


def explain(picture: Image.Image, quality: float, *, device: str = "auto", threads: int = 0) -> Explanation:
    """Code a picture (its colours; alpha and metadata are not the model's) and look into the file. CodecError."""
    pixels, _ = split(from_input(picture).pixels)
    height, width, _ = pixels.shape
    hundredths = round(quality * 100)
    with execution(device, threads) as place:
        encoder = Encoder(weights.load(weights.default_path(), place), pixels)
        latents = refine.refine(encoder, encoder.analyse(hundredths), hundredths, EFFORT)
        section = encoder.write(latents)
        header = Header("lossy", encoder.model.model_id, width, height, "RGB", hundredths)
        data = container.pack(header, {Tag.LATENTS: section})
        layout = tiles(height, width)
        latent_bits, hyper_bits = bits_by_symbol(encoder, latents)
        used = np.argsort(-latent_bits.sum((1, 2)), kind="stable")[:MOVED_CHANNELS]
        return Explanation(
            pixels=pixels,
            quality=hundredths,
            data=data,
            overhead=len(data) - len(section) + TILE_ENTRY_BYTES * len(layout) + encoder.filter_bytes(latents),
            tile_count=len(layout),
            latent_bits=latent_bits,
            hyper_bits=hyper_bits,
            strip=[traverse(encoder, latents, int(channel)) for channel in used],
        )


def bits_by_symbol(encoder: Encoder, latents: Latents) -> tuple[np.ndarray, np.ndarray]:
    """Code length of each residual [M, h, w] and of each hyper-latent [Cz, h/4, w/4] under the tables of the file."""
    model, z = encoder.model, latents.z
    levels = encoder.levels(torch.from_numpy(z)[None], latents.quality, latents.residuals.shape)[0].cpu().numpy()
    latent_bits = grouped_lengths(latents.residuals, levels, model.latent_tables)
    if model.scales is None:
        return latent_bits, np.zeros(z.shape)
    hyper_bits = np.empty(z.shape)
    for tile in tiles(encoder.height, encoder.width):
        place = (slice(None), *tile.slices(HYPER_STRIDE))
        hyper_bits[place] = hyperlatents.lengths(model, latents.quality, z[place])
    return latent_bits, hyper_bits


def traverse(encoder: Encoder, latents: Latents, channel: int) -> Traversal:
    """Move the latent of a channel at the picture's centre and decode its surroundings each time."""
    y = latents.decoded
    row, column = encoder.height // 2 // STRIDE, encoder.width // 2 // STRIDE
    unit = max(1.0, float(y[0, channel].square().mean().sqrt()))
    moves = np.array(MOVES) * unit
    top, left = max(0, row - WINDOW), max(0, column - WINDOW)
    window = y[:, :, top : row + WINDOW + 1, left : column + WINDOW + 1].repeat(len(moves), 1, 1, 1)
    window[:, channel, row - top, column - left] += torch.from_numpy(moves).to(window)
    t = lossy.position(encoder.model, latents.quality)
    with lossy.transform_precision(encoder.model.device):
        x = encoder.network.synthesise(window, t).float()
    rows, columns = _around(row - top), _around(column - left)
    # Latents at the border may lie beyond the picture's own edge: that is padding, not shown.
    end = encoder.height - STRIDE * top, encoder.width - STRIDE * left
    pictures = x[:, :, : end[0], : end[1]][:, :, rows, columns].permute(0, 2, 3, 1).cpu().numpy()
    return Traversal(channel, row, column, moves, pictures)


def _around(place: int) -> slice:
    return slice(STRIDE * max(0, place - VIEW), STRIDE * (place + VIEW + 1))


# ── Samples ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Dice:
    """A coder whose symbols are drawn from the tables instead of read."""

    def __init__(self, seed: int):
        self._random = np.random.default_rng(seed)

    def code(self, symbols: None, count: int, table: Table) -> np.ndarray:
        ends = np.cumsum(table.frequencies[:-1])  # escapes, of a few parts in a million, are not drawn
        drawn = self._random.integers(0, ends[-1], count)
        return (np.searchsorted(ends, drawn, side="right") + table.low).astype(np.int32)


def sample(
    width: int, height: int, quality: float, seed: int, *, device: str = "auto", threads: int = 0
) -> tuple[Image.Image, int]:
    """A picture drawn from the prior, and the bytes of the latents that say it. CodecError."""
    check_size(width, height, None)
    hundredths, dice = round(quality * 100), Dice(seed)
    with execution(device, threads) as place:
        model = weights.load(weights.default_path(), place)
        encoder = Encoder(model, np.zeros((height, width, 3), np.uint8))  # of the picture only its size matters
        padded_height, padded_width = padded_size(height, width)
        z = np.zeros((0, 0, 0), np.int32)
        if model.scales is not None:
            shape = model.config.hyper_latent_channels, padded_height // HYPER_STRIDE, padded_width // HYPER_STRIDE
            z = np.empty(shape, np.int32)
            for tile in tiles(height, width):
                place = (slice(None), *tile.slices(HYPER_STRIDE))
                z[place] = hyperlatents.code(dice, model, hundredths, z[place].shape, None)
        shape = model.config.latent_channels, padded_height // STRIDE, padded_width // STRIDE
        levels = encoder.levels(torch.from_numpy(z)[None], hundredths, shape)[0].cpu().numpy()
        residuals = code_grouped(dice, levels.reshape(-1), model.latent_tables, None).reshape(shape)
        section = encoder.write(Latents(hundredths, z, residuals, decoded=torch.empty(0, dtype=torch.float32)))
        pixels = lossy.decode(
            section, width=width, height=height, quality=hundredths, model_id=model.model_id, device=device
        )
    return Image.fromarray(pixels), len(section)


# ── Drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def draw(explanation: Explanation, folder: Path) -> list[Path]:
    """bits.png, channels.png and traversal.png in `folder`."""
    figures = {"bits": _draw_heat, "channels": _draw_channels, "traversal": _draw_traversal}
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure(explanation).savefig(
            paths[-1], dpi=160, bbox_inches="tight", pad_inches=0.08, metadata={"Software": None}
        )
    return paths


def _figure(width: float, height: float):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_heat(explanation: Explanation):
    """The picture, and over its grey the bits a pixel of latents and of hyper-latents, each on a scale of its own."""
    pixels = explanation.pixels
    height, width, _ = pixels.shape
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    size = len(explanation.data)
    maps = [("latents", explanation.latent_bits, explanation.latent_bits.sum(0) / STRIDE**2)]
    if explanation.hyper_bits.size:
        maps.append(("hyper-latents", explanation.hyper_bits, spread(explanation.hyper_bits.sum(0))))
    aspect = min(max(height / width, 0.3), 2.5)
    figure = _figure(4.6 * (1 + len(maps)), 4.2 * aspect + 0.7)
    first, *others = figure.subplots(1, 1 + len(maps))
    first.imshow(pixels)
    _title(first, f"{size} bytes, {8 * size / (height * width):.3f} bpp at quality {explanation.quality / 100:g}")
    for axes, (name, bits, heat) in zip(others, maps, strict=True):
        axes.imshow(grey, cmap="gray", vmin=-100, vmax=255)
        rows, columns = heat.shape
        extent = (-0.5, columns * STRIDE - 0.5, rows * STRIDE - 0.5, -0.5)
        shown = axes.imshow(heat, cmap="inferno", alpha=0.65, extent=extent, vmin=0, interpolation="nearest")
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
        _title(axes, f"{name}: {bits.sum() / (height * width):.3f} bpp, {bits.sum() / 8 / size:.1%} of the file")
        bar = figure.colorbar(shown, ax=axes, shrink=0.7, aspect=30, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, colors=INK, length=2)
        bar.ax.set_title("bpp", fontsize=7, color=INK)
    for axes in (first, *others):
        axes.set_axis_off()
    return figure


def _draw_channels(explanation: Explanation):
    """A bar a channel, the most used first; hyper-latents in another colour."""
    kinds = [("y", explanation.latent_bits, OURS), ("z", explanation.hyper_bits, PEERS[0])]
    bars = [(bits.sum(), f"{kind}{number}", colour) for kind, of, colour in kinds for number, bits in enumerate(of)]
    bars.sort(key=lambda bar: -bar[0])
    shown, total = bars[:CHANNELS_SHOWN], explanation.bits
    figure = _figure(6.0, 0.9 + 0.2 * len(shown))
    axes = figure.add_subplot()
    shares = [100 * bits / total for bits, _, _ in shown]
    axes.barh(range(len(shown)), shares, color=[colour for _, _, colour in shown], height=0.75)
    for place, (share, (bits, _, _)) in enumerate(zip(shares, shown, strict=True)):
        axes.text(share, place, f" {share:.2f} %  {bits / 8:.0f} B", va="center", fontsize=7, color=INK)
    axes.set_yticks(range(len(shown)), [name for _, name, _ in shown], fontsize=7, color=INK)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.25 * max(shares))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(INK)
    words = "share of the bits by channel, y latents, z hyper-latents"
    if hidden := len(bars) - len(shown):
        words += f"; the other {hidden} channels hold {100 - sum(shares):.1f} %"
    _title(axes, words)
    return figure


def _draw_traversal(explanation: Explanation):
    """A row a channel: the decoded picture for each move, and half the difference between the outermost."""
    strip = explanation.strip
    size, (rows, columns) = 1.25, strip[0].pictures.shape[1:3]
    figure = _figure(size * (len(MOVES) + 1) + 0.8, (size * max(0.5, rows / columns) + 0.22) * len(strip) + 0.35)
    grid = figure.subplots(len(strip), len(MOVES) + 1, squeeze=False)
    for axes_row, moved in zip(grid, strip, strict=True):
        for axes, move, picture in zip(axes_row, moved.moves, moved.pictures, strict=False):
            axes.imshow(picture.clip(0, 1))
            _title(axes, f"{move:+.0f} steps".replace("-", "−") if move else "as decoded")
        change = (moved.pictures[-1] - moved.pictures[0]) / 2
        axes_row[-1].imshow(0.5 + 0.5 * change / max(1e-6, np.abs(change).max()))
        _title(axes_row[-1], "its change")
        share = explanation.latent_bits[moved.channel].sum() / explanation.bits
        axes_row[0].set_ylabel(f"y{moved.channel}\n{share:.1%} of the bits", fontsize=7, color=INK)
        for axes in axes_row:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
    return figure


def _title(axes, words: str) -> None:
    axes.set_title(words, fontsize=8, color=INK)
