"""What changed between two rows files, such as those of two commits: bits, quality, seconds, image by image.

Codecs are matched by spec, images by pixels. The BD-rate is that of the second file against the first, over the images
that both have; seconds are ratios of medians, which mean something only if one machine measured both files.
"""

from collections.abc import Sequence

import numpy as np

from . import summary
from .columns import COLUMNS
from .curves import Measured, measured, over_equal_images
from .rows import Row


def compare(before: Sequence[Row], after: Sequence[Row]) -> dict:
    """A JSON-ready account: `codecs` in both files, `only_before` and `only_after`, and `remarks`."""
    names = list(dict.fromkeys(row.codec for row in before))
    new_names = list(dict.fromkeys(row.codec for row in after))
    in_both = {row.image_sha256 for row in before} & {row.image_sha256 for row in after}
    changes, remarks = [], []
    for name in names:
        if name not in new_names:
            continue
        old, new = ([r for r in rows if r.codec == name and r.image_sha256 in in_both] for rows in (before, after))
        (tables_before, remarks_before), (tables_after, remarks_after) = measured(old), measured(new)
        remarks += remarks_before + remarks_after
        images = _common_images(tables_before, tables_after)
        if images:
            pair = [tables[0].of(images) for tables in (tables_before, tables_after)]
            changes.append(_change(*over_equal_images(pair, [])))
        else:
            remarks.append(f"{name}: no image has complete rows in both files")
    return {
        "codecs": changes,
        "only_before": [name for name in names if name not in new_names],
        "only_after": [name for name in new_names if name not in names],
        "remarks": remarks,
    }


def _common_images(before: Sequence[Measured], after: Sequence[Measured]) -> list[str]:
    if not before or not after:
        return []
    return [name for name in before[0].images if name in after[0].images]


def _change(old: Measured, new: Measured) -> dict:
    settings = [setting for setting in old.settings if setting in new.settings]
    before = [old.settings.index(setting) for setting in settings]
    after = [new.settings.index(setting) for setting in settings]
    metrics = [metric for metric in old.quality if metric in new.quality]
    quality = {metric: (old.quality[metric][before], new.quality[metric][after]) for metric in metrics}
    same = bool(settings) and np.array_equal(old.bpp[before], new.bpp[after]) and np.array_equal(*quality["psnr"])
    return {
        "name": old.name,
        "versions": [old.version, new.version],
        "images": list(old.images),
        "identical": same and len(settings) == len(old.settings) == len(new.settings),
        "metrics": metrics,
        **{f"bd_rate_{metric}": summary.delta(new, old, metric) for metric in metrics},
        "bytes_percent": _mean(100 * (new.bpp[after] / old.bpp[before] - 1)),  # at equal settings, and so are these:
        **{f"{metric}_change": _mean_change(*pair) for metric, pair in quality.items()},
        "encode_ratio": float(np.median(new.encode_s) / np.median(old.encode_s)),
        "decode_ratio": float(np.median(new.decode_s) / np.median(old.decode_s)),
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


def _mean_change(before: np.ndarray, after: np.ndarray) -> float | None:
    """Where both are defined; None where equal pictures became unequal ones, or the other way about."""
    with np.errstate(invalid="ignore"):
        change = np.where(before == after, 0.0, after - before)
    return _mean(change[~np.isnan(before)])


def text(account: dict) -> str:
    """A table of a line for each codec and metric, then what else there is to say."""
    heads = ["codec", "metric", "BD-rate", "95 % of images", "at equal settings", "bytes", "encode", "decode"]
    cells, lines = [], []
    for change in account["codecs"]:
        of_codec = [
            summary.percent(change["bytes_percent"]), f"×{change['encode_ratio']:.2f}", f"×{change['decode_ratio']:.2f}"
        ]  # fmt: skip
        for number, metric in enumerate(change["metrics"]):
            delta, difference = change[f"bd_rate_{metric}"], change[f"{metric}_change"]
            interval = delta.get("interval")
            cells.append(
                [
                    "" if number else change["name"],
                    COLUMNS[metric].title,
                    "no change" if change["identical"] else summary.percent(delta["percent"]),
                    " … ".join(map(summary.percent, interval)) if interval else "",
                    "–" if difference is None else f"{difference:+.4f}".replace("-", "−"),
                    *(["", "", ""] if number else of_codec),
                ]
            )
        images = {n: value for n, value in change["bd_rate_psnr"].get("per_image", {}).items() if value is not None}
        if images and not change["identical"]:
            best, worst = min(images, key=images.get), max(images, key=images.get)
            lines.append(
                f"{change['name']}: from {summary.percent(images[best])} ({best}) to {summary.percent(images[worst])} "
                f"({worst}); {change['versions'][0]} → {change['versions'][1]}"
            )
    for key, what in (("only_before", "only in the first file"), ("only_after", "only in the second file")):
        if account[key]:
            lines.append(f"{what}: {', '.join(account[key])}")
    return "\n".join([summary.aligned(heads, cells), *lines, *account["remarks"]])
