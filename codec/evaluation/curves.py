"""Rate–distortion curves: those measured, from rows, and those published, from a small JSON file.

Both kinds have `name`, `label` and `curve(metric)`; a measured one also knows each image.
The curve of a set of images has one point a setting: mean bpp over mean quality, as nearly every paper plots it.
"""

import collections
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .bdrate import Pchip, rate_curve
from .rows import Row

METRICS = ("psnr", "ms_ssim")
METRIC_LABELS = {"psnr": "PSNR (RGB), dB", "ms_ssim": "MS-SSIM, −10 log₁₀(1 − m), dB"}


def decibels(ms_ssim: np.ndarray) -> np.ndarray:
    """MS-SSIM 0…1 on the logarithmic scale that papers use, −10 log10(1 − m); inf at 1."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(1 - np.asarray(ms_ssim, np.float64))


@dataclass(frozen=True)
class Measured:
    """One codec over S settings (rising in rate) and I images: arrays S×I."""

    name: str  # the spec
    version: str
    settings: tuple[float | None, ...]
    images: tuple[str, ...]
    pixels: np.ndarray  # of each image
    bpp: np.ndarray
    psnr: np.ndarray  # dB, inf where equal
    ms_ssim: np.ndarray  # nan where undefined
    encode_s: np.ndarray
    decode_s: np.ndarray
    encode_peak_mib: np.ndarray  # nan where unknown
    decode_peak_mib: np.ndarray
    published = False

    @property
    def label(self) -> str:
        return self.name

    def of(self, images: Sequence[str]) -> "Measured":
        """The same codec over some of its images, in the order given."""
        index = [self.images.index(name) for name in images]
        arrays = {f.name: getattr(self, f.name)[..., index] for f in dataclasses.fields(self) if f.type is np.ndarray}
        return dataclasses.replace(self, images=tuple(images), **arrays)

    def points(self, metric: str, images=slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Mean bpp and mean quality in dB of each setting, over `images` (an index into the second axis).

        Images too small for MS-SSIM do not count for it; ValueError if that leaves none.
        """
        bpp = self.bpp[:, images]
        if metric == "psnr":
            return bpp.mean(axis=1), self.psnr[:, images].mean(axis=1)
        ms_ssim = self.ms_ssim[:, images]
        defined = ~np.isnan(ms_ssim).any(axis=0)
        if not defined.any():
            raise ValueError(f"{self.name}: MS-SSIM is undefined for these images")
        return bpp[:, defined].mean(axis=1), decibels(ms_ssim[:, defined].mean(axis=1))

    def curve(self, metric: str, images=slice(None)) -> Pchip:
        return rate_curve(*self.points(metric, images))


@dataclass(frozen=True)
class Published:
    """A curve read from a publication: no images, no seconds, its own test conditions."""

    name: str
    family: str  # classical or learned
    source: str
    bpp: tuple[float, ...]
    psnr_rgb: tuple[float, ...]
    ms_ssim: tuple[float, ...] | None
    note: str = ""
    published = True

    @property
    def label(self) -> str:
        return f"{self.name} (published)"

    def points(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """As of Measured; ValueError if the source does not give the metric."""
        if metric == "psnr":
            return np.array(self.bpp), np.array(self.psnr_rgb)
        if self.ms_ssim is None:
            raise ValueError(f"{self.name}: no MS-SSIM was published")
        return np.array(self.bpp), decibels(self.ms_ssim)

    def curve(self, metric: str) -> Pchip:
        return rate_curve(*self.points(metric))


def read_published(path: Path) -> list[Published]:
    """benchmarks/published_kodak.json or a file like it. ValueError names what is wrong with it."""
    try:
        return [Published(**curve) for curve in json.loads(path.read_text("utf-8"))["curves"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of published curves: {error!r}") from None


def measured(rows: Sequence[Row], *, lossless: bool = False) -> tuple[list[Measured], list[str]]:
    """The curves of all codecs over the images that all of them have, in the order of first rows; remarks on the rest.

    Of a codec in several versions, the one measured last counts; of its rows, the largest full grid.
    """
    remarks: list[str] = []
    grids: dict[str, dict] = {}  # codec → (setting, image) → row
    for name, own in _by_codec(r for r in rows if r.lossless == lossless).items():
        version = own[-1].codec_version
        if any(row.codec_version != version for row in own):
            remarks.append(f"{name}: rows of other versions than {version} are left out")
        grids[name] = _largest_grid([row for row in own if row.codec_version == version], remarks)

    if not grids:
        return [], remarks
    names = _distinct_names(rows)
    complete = [{image for _, image in grid} for grid in grids.values()]
    common = [image for image in names if all(image in own for own in complete)]
    lacking = collections.defaultdict(list)  # codecs → pictures that they lack
    for image in names:
        codecs = [name for name, own in zip(grids, complete, strict=True) if image not in own]
        lacking[", ".join(codecs)].append(names[image])
    for codecs, left_out in lacking.items():
        if codecs:
            some = ", ".join(left_out[:3]) + (f" and {len(left_out) - 3} more" if len(left_out) > 3 else "")
            remarks.append(f"left out of all means for lack of complete rows of {codecs}: {some}")
    if not common:
        return [], remarks
    return [_table(name, grid, common, names) for name, grid in grids.items()], remarks


def _distinct_names(rows: Sequence[Row]) -> dict[str, str]:
    """Image hash → file name, by name, with the hash's beginning behind it where two pictures share a file name."""
    names = {row.image_sha256: row.image for row in rows}
    count = collections.Counter(names.values())
    ordered = sorted(names.items(), key=lambda item: item[::-1])
    return {image: name if count[name] == 1 else f"{name} ({image[:6]})" for image, name in ordered}


def _by_codec(rows) -> dict[str, list[Row]]:
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row.codec].append(row)
    return groups


def _largest_grid(rows: Sequence[Row], remarks: list[str]) -> dict[tuple, Row]:
    """The most rows that form a full grid: settings, and images that have all of them. (setting, image) → row.

    So a picture in the middle of an interrupted run is left out, and so is a setting that was tried on a few pictures.
    """
    by_place = {(row.setting, row.image_sha256): row for row in rows}
    images_of = collections.defaultdict(set)
    for setting, image in by_place:
        images_of[setting].add(image)
    candidates = []
    for least in {len(images) for images in images_of.values()}:
        settings = [setting for setting, images in images_of.items() if len(images) >= least]
        images = set.intersection(*(images_of[setting] for setting in settings))
        candidates.append((len(settings) * len(images), settings, images))
    _, settings, images = max(candidates, key=lambda candidate: candidate[0])
    if len(settings) < len(images_of):
        left_out = ", ".join(f"{setting:g}" for setting in sorted(set(images_of) - set(settings)))
        remarks.append(f"{rows[0].codec}: settings {left_out} are left out, some images lack them")
    return {(setting, image): by_place[setting, image] for setting in settings for image in images}


def _table(name: str, grid: dict[tuple, Row], images: Sequence[str], names: dict[str, str]) -> Measured:
    settings = sorted({setting for setting, _ in grid}, key=lambda s: sum(grid[s, image].bpp for image in images))

    def array(value) -> np.ndarray:
        return np.array([[value(grid[setting, image]) for image in images] for setting in settings], np.float64)

    return Measured(
        name=name,
        version=next(iter(grid.values())).codec_version,
        settings=tuple(settings),
        images=tuple(names[image] for image in images),
        pixels=array(lambda row: row.width * row.height)[0],
        bpp=array(lambda row: row.bpp),
        psnr=array(lambda row: np.inf if row.psnr_rgb is None else row.psnr_rgb),
        ms_ssim=array(lambda row: np.nan if row.ms_ssim is None else row.ms_ssim),
        **{
            attribute: array(lambda row, attribute=attribute: _number(getattr(row, attribute)))
            for attribute in ("encode_s", "decode_s", "encode_peak_mib", "decode_peak_mib")
        },
    )


def _number(value: float | None) -> float:
    return np.nan if value is None else value
