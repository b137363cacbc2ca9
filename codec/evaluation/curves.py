"""Rate–distortion curves: those measured, from rows, and those published, from a small JSON file.

Both kinds have `name`, `label` and `curve(metric)`; a measured one also knows each image.
The curve of a set of images has one point a setting: mean bpp over mean quality, as nearly every paper plots it.
"""

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .bdrate import Pchip, rate_curve
from .columns import COLUMNS
from .rows import Row


@dataclass(frozen=True)
class Measured:
    """One codec over S settings (rising in rate) and I images: arrays S×I."""

    name: str  # the spec
    version: str
    settings: tuple[float | None, ...]
    images: tuple[str, ...]
    pixels: np.ndarray  # of each image
    bpp: np.ndarray
    quality: Mapping[str, np.ndarray]  # of each metric that it has, S×I before any scale; nan where undefined
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
        quality = {metric: values[:, index] for metric, values in self.quality.items()}
        return dataclasses.replace(self, images=tuple(images), quality=quality, **arrays)

    def points(self, metric: str, images=slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Mean bpp and mean quality on its column's scale of each setting, over `images`, an index into the second axis.

        Images for which the metric is undefined do not count; ValueError if that leaves none or it was not measured.
        """
        column = COLUMNS[metric]
        if metric not in self.quality:
            raise ValueError(f"{self.name}: {column.title} was not measured")
        bpp, quality = self.bpp[:, images], self.quality[metric][:, images]
        defined = ~np.isnan(quality).any(axis=0)
        if not defined.any():
            raise ValueError(f"{self.name}: {column.title} is undefined for these images")
        return bpp[:, defined].mean(axis=1), column.scale(quality[:, defined].mean(axis=1))

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
        column = COLUMNS[metric]
        values = getattr(self, column.field, None)
        if values is None:
            raise ValueError(f"{self.name}: no {column.title} was published")
        return np.array(self.bpp), column.scale(np.array(values))

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
    return over_equal_images([_table(name, grid, common, names) for name, grid in grids.items()], remarks), remarks


def present(codecs: Sequence["Measured | Published"]) -> list[str]:
    """The metrics that any of the codecs has, in the columns' order."""
    return [metric for metric in COLUMNS if any(not codec.published and metric in codec.quality for codec in codecs)]


def over_equal_images(codecs: Sequence[Measured], remarks: list[str]) -> list[Measured]:
    """Codecs of equal images, quality set to nan where another one that has the metric lacks it for the image.

    So means of a metric are over the same images; `remarks` is told for how many it is missing.
    """
    undefined = {}
    for metric in present(codecs):
        lacking = [np.isnan(codec.quality[metric]).any(axis=0) for codec in codecs if metric in codec.quality]
        undefined[metric] = np.any(lacking, axis=0)
        if undefined[metric].any():
            count = f"{undefined[metric].sum()} of {len(undefined[metric])} images"
            remarks.append(f"{COLUMNS[metric].title} is undefined or was not measured for {count}")
    return [
        dataclasses.replace(
            codec, quality={m: np.where(undefined[m], np.nan, values) for m, values in codec.quality.items()}
        )
        for codec in codecs
    ]


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

    quality = {metric: array(column.value) for metric, column in COLUMNS.items()}
    return Measured(
        name=name,
        version=next(iter(grid.values())).codec_version,
        settings=tuple(settings),
        images=tuple(names[image] for image in images),
        pixels=array(lambda row: row.width * row.height)[0],
        bpp=array(lambda row: row.bpp),
        quality={metric: values for metric, values in quality.items() if not np.isnan(values).all()},
        **{
            attribute: array(lambda row, attribute=attribute: _number(getattr(row, attribute)))
            for attribute in ("encode_s", "decode_s", "encode_peak_mib", "decode_peak_mib")
        },
    )


def _number(value: float | None) -> float:
    return np.nan if value is None else value
