"""The pictures of the report's viewer: for a picture and a rate, every codec's decoded pixels at (nearly) equal bytes.

For each codec the greatest setting whose file is no larger than the rate allows is searched, by bisection between the
settings that the rows already know. Decoded pixels are kept in DIR/viewer as lossless WebP, which every browser reads
exactly, whatever the codec; viewer.jsonl beside them says what each one is.
"""

import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from .. import metrics
from . import images, peers
from .rows import Row

RATES = (0.25, 0.5, 1.0)  # bpp


@dataclass(frozen=True)
class Shot:
    """One decoded picture, or the original (codec "")."""

    image: str
    image_sha256: str
    rate: float  # bpp asked for
    codec: str
    codec_version: str
    setting: float | None
    bytes: int  # more than asked only where the codec's least setting is too large
    psnr_rgb: float | None
    file: str  # beside viewer.jsonl
    perceptual: dict[str, float | None] = field(default_factory=dict)  # as of a row

    @property
    def key(self) -> tuple:
        return self.image_sha256, self.rate, self.codec, self.codec_version


def read(folder: Path) -> list[Shot]:
    """The shots of an evaluation, the last of each key; lines that are no shot are left out."""
    shots: dict[tuple, Shot] = {}
    path = folder / "viewer" / "viewer.jsonl"
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            shot = Shot(**json.loads(line))
        except (ValueError, TypeError):
            continue
        if (path.parent / shot.file).exists():
            shots[shot.key] = shot
    return list(shots.values())


def latest(shots: Sequence[Shot]) -> list[Shot]:
    """Of each picture, rate and codec the shot that was taken last."""
    return list({shot.key[:-1]: shot for shot in shots}.values())


def append(folder: Path, shot: Shot, pixels: bytes) -> None:
    """Keeps the picture and its line; the picture first, so that no line lacks its picture."""
    (folder / "viewer").mkdir(parents=True, exist_ok=True)
    (folder / "viewer" / shot.file).write_bytes(pixels)
    with open(folder / "viewer" / "viewer.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(shot)) + "\n")


def take_original(picture: images.Picture) -> tuple[Shot, bytes]:
    image = images.load(picture.path)
    return _shot(picture, 0.0, "", "", None, picture.path.stat().st_size, None, {}), _exact(image)


def take(
    peer: peers.Peer,
    spec: str,
    picture: images.Picture,
    rate: float,
    known: Sequence[Row],
    judge: Callable[[np.ndarray, np.ndarray], dict[str, float | None]] = lambda original, decoded: {},
) -> tuple[Shot, bytes]:
    """The picture at the rate; `known` are rows of this picture and codec, `judge` gives the optional metrics."""
    image = images.load(picture.path)
    limit = rate * picture.width * picture.height / 8
    setting, data = _largest_within(lambda s: peer.encode(image, s), limit, peer, [(r.setting, r.bytes) for r in known])
    decoded = peer.decode(data)
    x, y = np.asarray(image), np.asarray(decoded)
    psnr = metrics.psnr(x, y)
    psnr_or_none = psnr if np.isfinite(psnr) else None
    shot = _shot(picture, rate, spec, peer.version, setting, len(data), psnr_or_none, judge(x, y))
    return shot, _exact(decoded)


def _shot(picture, rate, spec, version, setting, size, psnr, perceptual) -> Shot:
    name = "_".join([picture.sha256[:12], f"{rate:g}", spec.replace(":", "-")]) if spec else picture.sha256[:12]
    return Shot(picture.name, picture.sha256, rate, spec, version, setting, size, psnr, name + ".webp", perceptual)


def _exact(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=50, method=3)
    return buffer.getvalue()


def _largest_within(
    encode: Callable[[float], bytes], limit: float, peer: peers.Peer, known: Sequence[tuple[float, int]]
) -> tuple[float, bytes]:
    """Setting and file: the largest file within `limit` bytes as bisection finds it, else that of the least setting."""
    within = [setting for setting, size in known if size <= limit]
    beyond = [setting for setting, size in known if size > limit]
    low, high = max(within, default=peer.limits[0]), min(beyond, default=peer.limits[1])
    data = encode(low)
    if len(data) > limit:
        return low, data
    at_high = encode(high)
    if len(at_high) <= limit:
        return high, at_high
    smallest_step = 0.1 if peer.continuous else 1
    while high - low > smallest_step:
        middle = (low + high) / 2 if peer.continuous else (low + high) // 2
        candidate = encode(middle)
        if len(candidate) <= limit:
            low, data = middle, candidate
        else:
            high = middle
    return low, data
