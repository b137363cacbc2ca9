"""What a set of rows says, as numbers: BD-rates with their uncertainty, bits saved at given rates, seconds, memory.

The uncertainty is that of the choice of images: a 95 % percentile bootstrap (Efron 1979) that draws as many images as
there are, with replacement, the same ones for codec and anchor. Against a published curve there is none, since its
images are not known one by one.
"""

from collections.abc import Sequence

import numpy as np

from .bdrate import BDRate, bd_rate, bits_at_equal_quality
from .columns import COLUMNS
from .curves import Measured, Published, present

RATES = (0.15, 0.3, 0.6, 1.0, 1.5)  # bpp of the anchor at which bits at equal quality are told
_RESAMPLES = 1000


def summarise(codecs: Sequence[Measured], anchor: Measured | Published, published: Sequence[Published] = ()) -> dict:
    """A JSON-ready summary; what does not exist (no common quality, no MS-SSIM) is None, with the reason beside it."""
    metrics = present(codecs)
    return {
        "anchor": anchor.label,
        "images": list(codecs[0].images),
        "metrics": metrics,
        "codecs": [_codec(codec, anchor, metrics) for codec in codecs],
        "published": [_deltas(curve, anchor, metrics) | {"source": curve.source} for curve in published],
    }


def _codec(codec: Measured, anchor, metrics: Sequence[str]) -> dict:
    return _deltas(codec, anchor, metrics) | {
        "version": codec.version,
        "bpp_range": [float(v) for v in codec.bpp.mean(axis=1)[[0, -1]]],
        "encode_s": float(np.median(codec.encode_s)),
        "decode_s": float(np.median(codec.decode_s)),
        "encode_peak_mib": _largest(codec.encode_peak_mib),
        "decode_peak_mib": _largest(codec.decode_peak_mib),
    }


def _deltas(curve, anchor, metrics: Sequence[str]) -> dict:
    account = {"name": curve.name}
    for metric in metrics:
        account[f"bd_rate_{metric}"] = delta(curve, anchor, metric)
        account[f"bits_at_equal_{metric}"] = {f"{rate:g}": _bits(curve, anchor, metric, rate) for rate in RATES}
    return account


def delta(curve, anchor, metric: str) -> dict:
    """BD-rate in percent with its range of quality; with images also each image's and the bootstrap interval."""
    try:
        percent, low, high = _bd_rate(anchor, curve, metric)
    except ValueError as error:
        return {"percent": None, "why": str(error)}
    result = {"percent": percent, "range": [low, high]}
    if not curve.published and not anchor.published:
        result["interval"] = _bootstrap(curve, anchor, metric)
        result["per_image"] = {name: _image(curve, anchor, metric, i) for i, name in enumerate(curve.images)}
    return result


def _bd_rate(anchor, curve, metric: str, *images) -> BDRate:
    return bd_rate(anchor.curve(metric, *images), curve.curve(metric, *images), COLUMNS[metric].span)


def _image(curve: Measured, anchor: Measured, metric: str, index: int) -> float | None:
    try:
        return _bd_rate(anchor, curve, metric, [index]).percent
    except ValueError:
        return None


def _bootstrap(curve: Measured, anchor: Measured, metric: str) -> list[float] | None:
    """[2.5 %, 97.5 %] of the BD-rate over resampled images; None for one image, or if a resample has no BD-rate."""
    count = len(curve.images)
    if count < 2:
        return None
    draws = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))  # fixed: equal rows, equal summary
    try:
        percents = [_bd_rate(anchor, curve, metric, draw).percent for draw in draws]
    except ValueError:
        return None
    return [float(v) for v in np.percentile(percents, [2.5, 97.5])]


def _bits(curve, anchor, metric: str, rate: float) -> float | None:
    try:
        return bits_at_equal_quality(anchor.curve(metric), curve.curve(metric), rate)
    except ValueError:
        return None


def _largest(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmax(values))


def summarise_lossless(codecs: Sequence[Measured]) -> dict:
    """Bits per subpixel and speed in MB/s of raw pixels (3 bytes a pixel, 10⁶ bytes a MB)."""
    pixels = codecs[0].pixels
    megabytes = 3 * pixels.sum() / 1e6
    return {
        "images": list(codecs[0].images),
        "codecs": [
            {
                "name": codec.name,
                "version": codec.version,
                # Bits over subpixels of the whole set, so that a large image counts for what it is.
                "bits_per_subpixel": float((codec.bpp[0] * pixels).sum() / pixels.sum() / 3),
                "encode_s": float(np.median(codec.encode_s)),
                "decode_s": float(np.median(codec.decode_s)),
                "encode_mb_per_s": float(megabytes / codec.encode_s[0].sum()),
                "decode_mb_per_s": float(megabytes / codec.decode_s[0].sum()),
                "encode_peak_mib": _largest(codec.encode_peak_mib),
                "decode_peak_mib": _largest(codec.decode_peak_mib),
            }
            for codec in codecs
        ],
    }


# ── As text ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(summary: dict) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the lossy summary, for a terminal, Markdown or HTML: BD-rates, time and memory."""
    metrics = summary["metrics"]
    heads = ["codec", *(f"BD-rate {COLUMNS[metric].title}" for metric in metrics), *_RESOURCES]
    cells = [
        [_name(entry), *(percent(entry[f"bd_rate_{metric}"]["percent"]) for metric in metrics), *_resources(entry)]
        for entry in summary["codecs"] + summary["published"]
    ]
    return heads, cells


def metric_table(summary: dict, metric: str) -> tuple[list[str], list[list[str]]]:
    """The same of one of its metrics: BD-rates with interval and range, and bits at equal quality by rate."""
    heads = ["codec", "BD-rate", "95 % of images", "range", *(f"at {rate:g} bpp" for rate in RATES)]
    cells = []
    with_metric = [entry for entry in summary["published"] if entry[f"bd_rate_{metric}"]["percent"] is not None]
    for entry in summary["codecs"] + with_metric:
        delta, bits = entry[f"bd_rate_{metric}"], entry[f"bits_at_equal_{metric}"]
        interval, span = delta.get("interval"), delta.get("range")
        cells.append(
            [
                _name(entry),
                percent(delta["percent"]),
                f"{percent(interval[0])} … {percent(interval[1])}" if interval else "",
                "–".join(f"{end:.3g}" for end in span).replace("-", "−") if span else "",
                *(percent(bits[f"{rate:g}"]) for rate in RATES),
            ]
        )
    return heads, cells


def _name(entry: dict) -> str:
    return entry["name"] + (" (published)" if "source" in entry else "")


def lossless_table(summary: dict) -> tuple[list[str], list[list[str]]]:
    heads = ["codec", "bits/subpixel", "encode, MB/s", "decode, MB/s", *_RESOURCES]
    cells = [
        [
            entry["name"],
            f"{entry['bits_per_subpixel']:.3f}",
            f"{entry['encode_mb_per_s']:.3g}",
            f"{entry['decode_mb_per_s']:.3g}",
            *_resources(entry),
        ]
        for entry in summary["codecs"]
    ]
    return heads, cells


_RESOURCES = ("encode, ms", "decode, ms", "peak, MiB")


def _resources(entry: dict) -> list[str]:
    if "encode_s" not in entry:
        return ["", "", ""]
    peaks = [peak for peak in (entry["encode_peak_mib"], entry["decode_peak_mib"]) if peak is not None]
    times = [f"{1e3 * entry[key]:.1f}" for key in ("encode_s", "decode_s")]
    return [*times, f"{max(peaks):.0f}" if peaks else ""]


def percent(value: float | None) -> str:
    """With its sign, or a dash for None."""
    return "–" if value is None else f"{value:+.1f} %".replace("-", "−")


def aligned(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Columns for a terminal: the first flush left, the others flush right."""
    lines = [heads, *cells]
    widths = [max(len(line[k]) for line in lines) for k in range(len(heads))]
    pad = [str.ljust] + [str.rjust] * (len(heads) - 1)
    return "\n".join("  ".join(p(cell, w) for p, cell, w in zip(pad, line, widths, strict=True)) for line in lines)


def markdown(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(heads) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, rule, *cells])
