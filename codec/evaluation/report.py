"""The report: one HTML file without any reference to the network, to be opened from disk.

Tables and texts are written here; curves and the picture viewer are drawn by the script in report.html from one JSON
value. Decoded pictures travel as data: URLs of lossless WebP, so what the reader sees is what was decoded.
"""

import base64
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from . import plots, summary, viewer
from .columns import COLUMNS
from .curves import Measured, Published, present


def write(
    path: Path,
    codecs: Sequence[Measured],
    published: Sequence[Published],
    lossy: dict | None,
    lossless: dict | None,
    conditions: Sequence[str],
    remarks: Sequence[str],
) -> None:
    """Writes the page to `path`; pictures come from the viewer folder beside it.

    lossy, lossless: the summaries of summary.py, None where there is none. conditions: lines that say what was measured
    where and how. remarks: what was left out.
    """
    shots = viewer.latest(viewer.read(path.parent))
    metrics = present(codecs)
    data = {
        "metrics": [{"label": COLUMNS[metric].label, "unit": COLUMNS[metric].unit} for metric in metrics],
        "images": list(codecs[0].images) if codecs else [],
        "curves": [_measured(codec, colour, metrics) for codec, colour in _coloured(codecs)]
        + [_published(curve, metrics) for curve in published],
        "shots": [_shot(shot, path.parent) for shot in shots],
    }
    sections = [
        *(_lossy_tables(lossy) if lossy else []),
        *([_table("Lossless", *summary.lossless_table(lossless), note=_LOSSLESS_NOTE)] if lossless else []),
    ]
    sources = [f"{curve.name}: {curve.note}; {curve.source}" for curve in published]
    page = files(__package__).joinpath("report.html").read_text("utf-8")
    for mark, text in {
        "tables": "\n".join(sections),
        "conditions": _list(conditions),
        "remarks": "<h2>Left out</h2>" + _list(remarks) if remarks else "",
        "sources": "<h2>Sources of the published curves</h2>" + _list(sources) if sources else "",
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }.items():
        page = page.replace(f"<!--{mark}-->", text)
    path.write_text(page, "utf-8")


_LOSSY_NOTE = (
    "BD-rate: bits at equal quality, averaged over the common range; negative is fewer. Seconds are medians, memory is "
    "the largest peak of the whole process."
)
_METRIC_NOTE = (
    "The interval is a bootstrap over images. “at 0.3 bpp”: bits at equal quality where the anchor spends 0.3 bits a "
    "pixel. The range is that of the quality that counted"
)
_LOSSLESS_NOTE = "MB are 10⁶ bytes of raw pixels, three to a pixel. Memory is the largest peak of the whole process."


def _lossy_tables(lossy: dict) -> list[str]:
    tables = [_table(f"Lossy, against {lossy['anchor']}", *summary.table(lossy), note=_LOSSY_NOTE)]
    for metric in lossy["metrics"]:
        words = " ".join(word for word in (COLUMNS[metric].formula, "in " + COLUMNS[metric].unit) if word)
        tables.append(
            _table(COLUMNS[metric].title, *summary.metric_table(lossy, metric), note=f"{_METRIC_NOTE}, {words}.")
        )
    return tables


def _coloured(codecs: Sequence[Measured]):
    palette = plots.colours([codec.name for codec in codecs])
    return [(codec, palette[codec.name]) for codec in codecs]


def _measured(codec: Measured, colour: str, metrics: Sequence[str]) -> dict:
    """For each metric, the points of the mean (image 0) and of each image (1, 2, …): lists of S pairs, [] if undefined."""
    everything = [slice(None), *([i] for i in range(len(codec.images)))]

    def points(metric, images):
        try:
            return _points(*codec.points(metric, images))
        except ValueError:
            return []

    return {
        "name": codec.name,
        "title": plots.title(codec.name),
        "colour": colour,
        "ours": plots.is_ours(codec.name),
        "published": False,
        "settings": [f"setting {setting:g}" for setting in codec.settings],
        "points": [[points(metric, images) for images in everything] for metric in metrics],
    }


def _published(curve: Published, metrics: Sequence[str]) -> dict:
    def points(metric):
        try:
            return [_points(*curve.points(metric))]
        except ValueError:
            return []

    return {
        "name": curve.name,
        "title": curve.name,
        "colour": plots.PUBLISHED,
        "ours": False,
        "published": True,
        "settings": ["published"] * len(curve.bpp),
        "points": [points(metric) for metric in metrics],
    }


def _points(bpp: np.ndarray, quality: np.ndarray) -> list[list[float] | None]:
    """[bpp, quality] of each setting, None where the quality is undefined or infinite."""
    return [
        [round(float(x), 4), round(float(y), 3)] if np.isfinite(y) else None for x, y in zip(bpp, quality, strict=True)
    ]


def _shot(shot: viewer.Shot, folder: Path) -> dict:
    pixels = (folder / "viewer" / shot.file).read_bytes()
    return {
        "image": shot.image,
        "rate": shot.rate,
        "title": plots.title(shot.codec) if shot.codec else "original",
        "setting": shot.setting,
        "bytes": shot.bytes,
        "psnr": shot.psnr_rgb,
        "perceptual": _scores(shot),
        "source": "data:image/webp;base64," + base64.b64encode(pixels).decode("ascii"),
    }


def _scores(shot: viewer.Shot) -> str:
    """Behind the PSNR in a caption, as measured; metrics of other versions are passed over."""
    known = [(COLUMNS[name].title, value) for name, value in shot.perceptual.items() if name in COLUMNS]
    return "".join(f", {title} {value:.2f}" for title, value in known if value is not None)


def _table(title: str, heads: Sequence[str], cells: Sequence[Sequence[str]], note: str) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    rows = "\n".join(f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in line)}</tr>" for line in cells)
    return (
        f"<h2>{html.escape(title)}</h2>\n<div class=scroll><table>\n<tr>{head}</tr>\n{rows}\n</table></div>\n"
        f"<p class=note>{html.escape(note)}</p>"
    )


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
