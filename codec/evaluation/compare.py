"""What changed between two rows files, such as those of two commits: bits, quality, seconds, image by image.

Codecs are matched by spec, images by pixels. The BD-rate is that of the second file against the first, over the images
that both have; seconds are ratios of medians, which mean something only if one machine measured both files.
"""

from collections.abc import Sequence

import numpy as np

from . import summary
from .curves import Measured, measured
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
            changes.append(_change(tables_before[0].of(images), tables_after[0].of(images)))
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
    same = bool(settings) and all(
        np.array_equal(getattr(old, what)[before], getattr(new, what)[after]) for what in ("bpp", "psnr")
    )
    return {
        "name": old.name,
        "versions": [old.version, new.version],
        "images": list(old.images),
        "identical": same and len(settings) == len(old.settings) == len(new.settings),
        "bd_rate_psnr": summary.delta(new, old, "psnr"),
        "bd_rate_ms_ssim": summary.delta(new, old, "ms_ssim"),
        "bytes_percent": _mean(100 * (new.bpp[after] / old.bpp[before] - 1)),  # at equal settings
        "psnr_db": _mean(new.psnr[after] - old.psnr[before]),
        "encode_ratio": float(np.median(new.encode_s) / np.median(old.encode_s)),
        "decode_ratio": float(np.median(new.decode_s) / np.median(old.decode_s)),
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


def text(account: dict) -> str:
    heads = ["codec", "BD-rate PSNR", "95 % of images", "BD-rate MS-SSIM", "bytes", "PSNR, dB", "encode", "decode"]
    cells, lines = [], []
    for change in account["codecs"]:
        psnr = change["bd_rate_psnr"]
        interval = psnr.get("interval")
        cells.append(
            [
                change["name"],
                "no change" if change["identical"] else summary.percent(psnr["percent"]),
                " … ".join(map(summary.percent, interval)) if interval else "",
                summary.percent(change["bd_rate_ms_ssim"]["percent"]),
                summary.percent(change["bytes_percent"]),
                "–" if change["psnr_db"] is None else f"{change['psnr_db']:+.3f}",
                f"×{change['encode_ratio']:.2f}",
                f"×{change['decode_ratio']:.2f}",
            ]
        )
        images = {name: value for name, value in psnr.get("per_image", {}).items() if value is not None}
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
