"""The rows file: JSON lines, one row an image at one setting of one codec; appended to, never rewritten.

A row is a measurement: bytes are those of a complete file, distortions those of its decoded pixels.
What identifies it is its `key`; a row whose key exists need not be measured again. Later rows of a key replace earlier
ones, whose optional metrics stay where the later one has none.
"""

import csv
import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Row:
    image: str  # file name
    image_sha256: str  # of the RGB pixels, see images.py
    width: int
    height: int
    codec: str  # spec, such as avif:s6; see peers.py
    codec_version: str  # libraries, for ours also commit and model
    setting: float | None  # in the codec's own quality unit; None: lossless
    bytes: int
    bpp: float  # 8 · bytes / (width · height)
    psnr_rgb: float | None  # dB; None: decoded pixels are equal
    psnr_y: float | None  # dB; None: decoded luma is equal
    ms_ssim: float | None  # None: undefined, `note` says why
    encode_s: float  # wall clock, in process, after a warm-up
    decode_s: float
    encode_peak_mib: float | None  # of the whole process during the call; None where the system does not tell
    decode_peak_mib: float | None
    threads: int  # cores that the process was pinned to
    commit: str | None  # of the measuring program, if it ran from a checkout
    machine: str
    note: str = ""
    perceptual: dict[str, float | None] = field(default_factory=dict)  # optional metrics by name; None: undefined

    @property
    def key(self) -> tuple:
        return self.image_sha256, self.codec, self.setting, self.codec_version

    @property
    def lossless(self) -> bool:
        return self.setting is None

    @property
    def bits_per_subpixel(self) -> float:
        return self.bpp / 3


_REQUIRED = [f for f in dataclasses.fields(Row) if f.default is f.default_factory is dataclasses.MISSING]
_KNOWN = {f.name for f in dataclasses.fields(Row)}


def read(path: Path) -> tuple[list[Row], list[str]]:
    """All rows of a file, and a complaint for each damaged line, which is left out. No file: no rows."""
    rows: dict[tuple, Row] = {}
    complaints = []
    if not path.exists():
        return [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = _parse(line)
        except ValueError as error:
            complaints.append(f"{path.name}: line {number} is damaged and left out: {error}")
        else:
            earlier = rows.pop(row.key, row)
            rows[row.key] = dataclasses.replace(row, perceptual=earlier.perceptual | row.perceptual)
    return list(rows.values()), complaints


def _parse(line: bytes) -> Row:
    try:
        values = json.loads(line)
    except ValueError as error:  # includes what is not UTF-8
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    for f in _REQUIRED:
        if f.name not in values:
            raise ValueError(f"no field {f.name!r}")
        if type(values[f.name]) is int and isinstance(0.0, f.type):
            values[f.name] = float(values[f.name])
        if not isinstance(values[f.name], f.type):
            raise ValueError(f"field {f.name!r} is {values[f.name]!r}")
    return Row(**{name: value for name, value in values.items() if name in _KNOWN})


def append(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows, each in one write; a line that an interruption left unfinished stays alone on its line."""
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.writelines(json.dumps(dataclasses.asdict(row), allow_nan=False).encode() + b"\n" for row in rows)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """The same columns as a table; empty cells for None, one column for each perceptual metric met."""
    names = [f.name for f in dataclasses.fields(Row) if f.name != "perceptual"]
    metrics = sorted({name for row in rows for name in row.perceptual})
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(names + metrics)
        for row in rows:
            table.writerow([getattr(row, name) for name in names] + [row.perceptual.get(name) for name in metrics])
