"""Pictures of an evaluation, for a paper: direct labels instead of legends, colours that colour-blind readers tell apart.

Each function returns a matplotlib Figure; `save` writes it as PNG and SVG. Matplotlib is imported on first use.
Measured codecs are full lines with points, published ones thin and grey; ours is vermilion and on top.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .columns import COLUMNS
from .curves import Measured, Published

OURS = "#d55e00"  # vermilion of Okabe and Ito's palette, as are the peers' colours; yellow is too light for lines
PEERS = ("#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f6f3f", "#8060c0")
PUBLISHED, PUBLISHED_INK = "#9a9a9a", "#707070"
INK, FAINT = "#333333", "#e4e4e4"

_TITLES = {
    "lic": "lic", "textbook": "textbook VAE", "jpeg": "JPEG", "webp": "WebP", "avif": "AVIF", "jxl": "JPEG XL", "heic": "HEIC",
    "jpeg2000": "JPEG 2000", "png": "PNG", "jpegls": "JPEG-LS", "flif": "FLIF", "compressai": "CompressAI",
}  # fmt: skip
_OPTIONS = {"s": "speed", "m": "method", "e": "effort"}


def title(spec: str) -> str:
    """A spec as a reader's words: avif:s6:420 → AVIF speed 6 420."""
    name, *options = spec.split(":")
    words = [f"{_OPTIONS[o[0]]} {o[1:]}" if o[0] in _OPTIONS and o[1:].isdigit() else o for o in options]
    return " ".join([_TITLES.get(name, name), *words])


def is_ours(spec: str) -> bool:
    return spec.split(":")[0] == "lic"


def colours(specs: Sequence[str]) -> dict[str, str]:
    """A colour for each spec: ours vermilion, the others in their order."""
    others = [spec for spec in specs if not is_ours(spec)]
    return {spec: OURS if is_ours(spec) else PEERS[others.index(spec) % len(PEERS)] for spec in specs}


def save(figure, stem: Path) -> None:
    """STEM.png (200 dpi) and STEM.svg, the same bytes for the same figure."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": stem.name, "svg.fonttype": "path"}):
        figure.savefig(stem.with_suffix(".png"), dpi=200, metadata={"Software": None})
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})


def rate_distortion(
    codecs: Sequence[Measured],
    published: Sequence[Published] = (),
    metric: str = "psnr",
    *,
    bpp: tuple[float, float] = (0.08, 2.2),
    size: tuple[float, float] = (6.4, 4.4),
):
    """Mean quality over mean bits a pixel (logarithmic) within the range of `bpp`. A ValueError if nothing lies there."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes(size)
    palette, labels = colours([codec.name for codec in codecs]), []
    shown: list[np.ndarray] = []
    for curve in [*published, *codecs]:
        try:
            rate, quality = curve.points(metric)
        except ValueError:  # not measured, or not published
            continue
        line_rate, line_quality = _clipped(rate, quality, *bpp)
        if not line_rate.size:
            continue
        if curve.published:
            colour, text = PUBLISHED_INK, curve.name
            axes.plot(line_rate, line_quality, color=PUBLISHED, linewidth=0.8, dashes=(4, 2), zorder=1)
        else:
            ours = is_ours(curve.name)
            colour, text, order = palette[curve.name], title(curve.name), 4 if ours else 3
            axes.plot(line_rate, line_quality, color=colour, linewidth=2.2 if ours else 1.3, zorder=order)
            axes.plot(rate, quality, "o", color=colour, markersize=4.5 if ours else 3, markeredgewidth=0, zorder=order)
        labels.append((line_rate[-1], line_quality[-1], text, colour))
        shown.append(line_quality)
    if not shown:
        raise ValueError(f"no curve has a point between {bpp[0]:g} and {bpp[1]:g} bpp")
    axes.set_xscale("log")
    axes.set_xlim(*bpp)
    low, high = min(v.min() for v in shown), max(v.max() for v in shown)
    axes.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    axes.yaxis.set_major_locator(MaxNLocator(12, steps=(1, 2, 5, 10)))
    _rate_ticks(axes, bpp)
    axes.set_xlabel("bits per pixel, mean over images")
    axes.set_ylabel(COLUMNS[metric].label + ", mean over images")
    if published:
        note = {"ha": "right", "fontsize": 7, "color": PUBLISHED_INK}
        axes.text(0.99, 0.02, "grey, dashed: as published", transform=axes.transAxes, **note)
    _label_ends(figure, axes, labels)
    return figure


def _clipped(rate: np.ndarray, quality: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The finite points between two rates, and where the lines to the next points outside cross these rates."""
    finite = np.isfinite(quality)
    rate, quality = rate[finite], quality[finite]
    edges = [edge for edge in (low, high) if rate.size and rate[0] < edge < rate[-1]]
    at_edges = np.interp(np.log(edges), np.log(rate), quality) if edges else []
    rate, quality = np.append(rate, edges), np.append(quality, at_edges)
    inside = np.argsort(rate)
    inside = inside[(rate[inside] >= low) & (rate[inside] <= high)]
    return rate[inside], quality[inside]


def bd_rate_against_decode_time(summary: dict, metric: str = "psnr", *, size=(6.4, 4.0)):
    """Bits against the anchor over decoding seconds: down and left is better. ValueError: no codec has a BD-rate."""
    entries = [e for e in summary["codecs"] if e[f"bd_rate_{metric}"]["percent"] is not None]
    if not entries:
        raise ValueError("no codec has a BD-rate")
    figure, axes = _axes(size)
    palette, labels, lines = colours([entry["name"] for entry in entries]), [], []
    for entry in entries:
        x, y = entry["decode_s"], entry[f"bd_rate_{metric}"]["percent"]
        interval = entry[f"bd_rate_{metric}"].get("interval")
        if interval:
            axes.plot([x, x], interval, color=palette[entry["name"]], linewidth=1, alpha=0.5, zorder=2)
            lines.append(((x, interval[0]), (x, interval[1])))
        axes.plot(x, y, "o", color=palette[entry["name"]], markersize=8 if is_ours(entry["name"]) else 6, zorder=3)
        labels.append((x, y, title(entry["name"]), palette[entry["name"]]))
    axes.axhline(0, color=INK, linewidth=0.6, zorder=1)
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    _time_ticks(axes)
    axes.set_xlabel("seconds to decode an image (median)")
    axes.set_ylabel(f"BD-rate ({COLUMNS[metric].title}) against {_anchor(summary)}, %")
    lines.append([(x, 0) for x in axes.get_xlim()])
    _label_points(figure, axes, labels, lines)
    return figure


def lossless_size_against_speed(summary: dict, *, size=(6.4, 4.0)):
    """Bits per subpixel over encoding and decoding speed; a line joins the two speeds of a codec."""
    figure, axes = _axes(size)
    entries = summary["codecs"]
    palette, labels, lines = colours([entry["name"] for entry in entries]), [], []
    for entry in entries:
        colour, y = palette[entry["name"]], entry["bits_per_subpixel"]
        encode, decode = entry["encode_mb_per_s"], entry["decode_mb_per_s"]
        axes.plot([encode, decode], [y, y], color=colour, linewidth=1.2, zorder=2)
        axes.plot(encode, y, "o", color=colour, markersize=6, zorder=3)
        axes.plot(decode, y, "o", color=colour, markersize=6, markerfacecolor="white", zorder=3)
        labels.append((max(encode, decode), y, title(entry["name"]), colour))
        lines.append(((encode, y), (decode, y)))
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    _time_ticks(axes)
    axes.set_xlabel("MB of pixels a second: ● encoding, ○ decoding")
    axes.set_ylabel("bits per subpixel")
    _label_points(figure, axes, labels, lines)
    return figure


def per_image_gain(entry: dict, anchor: str, metric: str = "psnr", *, width: float = 6.4):
    """BD-rate of one codec (an entry of a summary) on each image, sorted, with the mean curve's value and interval.

    A ValueError where no image has one.
    """
    delta = entry[f"bd_rate_{metric}"]
    images = {name: value for name, value in delta.get("per_image", {}).items() if value is not None}
    if not images:
        raise ValueError("no image has a BD-rate of its own")
    order = sorted(images, key=images.get, reverse=True)
    figure, axes = _axes((width, 1.1 + 0.17 * len(order)))
    colour = OURS if is_ours(entry["name"]) else PEERS[0]
    low, high = delta.get("interval") or [delta["percent"]] * 2
    axes.axvspan(low, high, color=colour, alpha=0.12, linewidth=0)
    axes.axvline(delta["percent"], color=colour, linewidth=1)
    axes.axvline(0, color=INK, linewidth=0.6)
    values = [images[name] for name in order]
    axes.plot(values, range(len(order)), "o", color=colour, markersize=4.5)
    axes.hlines(range(len(order)), 0, values, color=colour, linewidth=0.8, alpha=0.5)
    axes.set_yticks(range(len(order)), [Path(name).stem for name in order], fontsize=7)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.grid(axis="y", visible=False)
    words = f"BD-rate ({COLUMNS[metric].title}) of {title(entry['name'])} against {anchor}, %"
    axes.set_xlabel(f"{words}; band: 95 % over images")
    return figure


# ── Style ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _axes(size):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set(color=INK, fontsize=9)
    axes.yaxis.label.set(color=INK, fontsize=9)
    return figure, axes


def _anchor(summary: dict) -> str:
    return summary["anchor"] if "(" in summary["anchor"] else title(summary["anchor"])


def _rate_ticks(axes, bpp) -> None:
    ticks = [t for t in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6) if bpp[0] <= t <= bpp[1]]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()


def _time_ticks(axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()


def _label_ends(figure, axes, labels) -> None:
    """Names to the right of the curves' last points, moved apart vertically where they would overlap."""
    right = axes.get_xlim()[1]
    figure.draw_without_rendering()
    height = 8.2 * figure.dpi / 72  # of a line of text, in pixels
    inside = [(axes.transData.transform((x, y))[1], x, y, *rest) for x, y, *rest in labels]
    wanted = sorted(inside, key=lambda label: label[0])
    places = _apart([label[0] for label in wanted], height)
    to_data = axes.transData.inverted()
    for place, (_, x, y, text, colour) in zip(places, wanted, strict=True):
        target = to_data.transform((0, place))[1]
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}
        axes.annotate(
            text, (x, y), xytext=(right * 1.05, target), textcoords="data", va="center", fontsize=7, color=colour,
            annotation_clip=False, arrowprops=leader,
        )  # fmt: skip


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """The sorted values moved as little as needed to be `gap` apart: blocks that collide are centred together."""
    blocks: list[list] = []  # [sum of (value − its place in the block), count]
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and _start(blocks[-2]) + blocks[-2][1] * gap > _start(blocks[-1]):
            total, count = blocks.pop()
            blocks[-1][0] += total - count * blocks[-1][1] * gap
            blocks[-1][1] += count
    return [_start(block) + k * gap for block in blocks for k in range(block[1])]


def _start(block: list) -> float:
    total, count = block
    return total / count


def _label_points(figure, axes, labels, lines=()) -> None:
    """Names beside points, where they cover no point, no other name and none of `lines`, ((x0, y0), (x1, y1)) each."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    obstacles = [axes.transData.transform((x, y)) for x, y, *_ in labels]
    for line in lines:
        start, end = axes.transData.transform(line)
        obstacles += [start + share * (end - start) for share in np.linspace(0, 1, 60)]
    places = [(7, 0, "left"), (-7, 0, "right"), (0, 9, "center"), (0, -10, "center")]
    places += [(dx, dy, "left" if dx > 0 else "right") for dy in (8, -9, 16, -17) for dx in (7, -7)]
    taken = []
    for x, y, text, colour in labels:
        notes = []
        for dx, dy, align in places:
            note = axes.annotate(
                text, (x, y), (dx, dy), textcoords="offset points", ha=align, va="center", fontsize=8, color=colour
            )
            box = note.get_window_extent(renderer).padded(2)
            covered = sum(box.overlaps(other) for other in taken) + sum(box.contains(*point) for point in obstacles)
            notes.append((covered, len(notes), note, box))
        best = min(notes)
        taken.append(best[3])
        for other in notes:
            if other is not best:
                other[2].remove()
