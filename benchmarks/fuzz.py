"""Hostile files for every decoder: `python benchmarks/fuzz.py --executions 200000 [--out DIR]`.

Real small files of all modes and both methods are damaged, and each result goes to `codec.decompress`, `codec.inspect`
or Pillow's plugin. What must happen is a picture or a CodecError, soon and in little memory; anything else is a finding,
kept under --out. Besides plain damage of the bytes there is damage that survives the check values which would stop it
first: header fields and sections are changed inside the container's own structure, and the outer checks made good.

The models are the small ones of the tests. docs/SECURITY.md has what a campaign found.
"""

import argparse
import collections
import hashlib
import io
import os
import resource
import struct
import sys
import time
import traceback
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import codec
from codec import container
from codec.container import Header, Tag
from codec.image import LAYOUTS

ROOT = Path(__file__).parent.parent
MAX_PIXELS = 2**18
SLOW = 10.0  # seconds
MEMORY = 6 * 2**30


def seeds() -> list[bytes]:
    """Files of every mode, lossy where there is such, and of every way of lossless coding."""
    files = [path.read_bytes() for path in sorted((ROOT / "tests/golden/v1").glob("*.lic")) if "two_tiles" not in path.name]
    photo = Image.open(ROOT / "tests/data/kodim23_crop.png").convert("RGB").crop((0, 0, 40, 24))
    exif = Image.Exif()
    exif[0x010E] = "a description"
    for mode in ("L", "LA", "RGB", "RGBA"):
        files.append(codec.compress(photo.convert(mode), 40, exif=exif.tobytes(), xmp=b"<x/>", icc_profile=b"profile" * 9))
        files.append(codec.compress(photo.convert(mode), lossless=True))
    for image in (photo.convert("1"), photo.quantize(7), photo.convert("I"), Image.new("RGB", (30, 30), (1, 2, 3))):
        files.append(codec.compress(image, lossless=True))
    ramp = np.arange(60 * 50 * 3, dtype=np.uint16).reshape(50, 60, 3)
    files += [codec.compress(array, lossless=True) for array in (ramp, ramp[..., 0], (ramp & 3).astype(np.uint8))]
    return files


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four flips, insertions, deletions, repetitions or cuts."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(out) + 1))
        if rng.random() < 0.5:  # near the beginning, where lengths and headers are
            at = min(at, int(rng.integers(64)))
        kind = rng.integers(6)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.integers(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.choice([0, 1, 127, 128, 255])
        elif kind == 2:
            out[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 3:
            del out[at : at + int(rng.integers(1, 17))]
        elif kind == 4:
            out[at:at] = out[at : at + int(rng.integers(1, 33))]
        else:
            del out[at:]
    return bytes(out)


def _resealed(tag: Tag, section: bytes, rng: np.random.Generator) -> bytes:
    """A section with damage inside, and a check value of its own that holds where one can be made without decoding."""
    if tag is Tag.PIXELS:
        payload, outer = section[:-4], section[-4:]
        body = damaged(payload[:-4], rng)
        return body + struct.pack("<I", zlib.crc32(body)) + outer
    return damaged(section[:-4], rng) + section[-4:] if len(section) > 4 else damaged(section, rng)


def mutant(files: list[bytes], rng: np.random.Generator) -> tuple[str, bytes]:
    """(what was damaged, a file)."""
    data = files[rng.integers(len(files))]
    if rng.random() < 0.35:
        return "bytes", damaged(data, rng)
    header, sections = container.unpack(data)
    if rng.random() < 0.35:
        change = {
            "width": int(rng.choice([1, 2, header.width + 1, header.height, 64, 1000, 2**20, 2**31 - 1])),
            "height": int(rng.choice([1, 2, header.height - 1 or 1, header.width, 64, 1000, 2**20, 2**31 - 1])),
            "mode": str(rng.choice(list(LAYOUTS))),
            "quality": int(rng.integers(10001)) if header.quality is not None else None,
            "model_id": container.unpack(files[rng.integers(len(files))])[0].model_id,
        }
        names = rng.choice(list(change), int(rng.integers(1, 3)), replace=False)
        header, what = replace(header, **{name: change[name] for name in names}), "header"
    else:
        tag = list(sections)[rng.integers(len(sections))]
        other = container.unpack(files[rng.integers(len(files))])[1]
        if rng.random() < 0.1 and tag in other:
            sections[tag] = other[tag]  # of another picture
        else:
            sections[tag] = _resealed(tag, sections[tag], rng)
        what = tag.name.lower()
    return what, _packed(header, sections)


def _packed(header: Header, sections: dict[Tag, bytes]) -> bytes:
    """`container.pack` without the checks that no encoder fails."""
    checks, container._check_sections = container._check_sections, lambda *_: None
    try:
        return container.pack(header, sections)
    finally:
        container._check_sections = checks


def execute(data: bytes, rng: np.random.Generator) -> str:
    """What came of it: "picture" or the name of a CodecError. Whatever else happens is raised."""
    try:
        kind = rng.random()
        if kind < 0.1:
            codec.inspect(data)
        elif kind < 0.2:
            try:
                with codec.open(io.BytesIO(data)) as image:
                    if image.width * image.height <= MAX_PIXELS:
                        image.load()
            except (OSError, Image.DecompressionBombError) as error:  # what Pillow says of its own formats
                return type(error.__cause__ or error).__name__
        else:
            options = {"preview": 8} if kind < 0.25 else {"region": (0, 0, 1, 1)} if kind < 0.3 else {}
            codec.decompress(data, max_pixels=MAX_PIXELS, threads=1, **options)
        return "picture"
    except codec.CodecError as error:
        return type(error).__name__


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("findings"))
    args = parser.parse_args()
    os.environ |= {"CODEC_MODELS": str(ROOT / "tests/golden/v1"), "CODEC_MODEL": "tiny", "CODEC_LOSSLESS_MODEL": "lossless-tiny"}
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    rng = np.random.default_rng(args.seed)
    files, counts, findings = seeds(), collections.Counter(), 0
    started = time.monotonic()
    for number in range(args.executions):
        what, data = mutant(files, rng)
        begun, outcome, trouble = time.monotonic(), "finding", ""
        try:
            outcome = execute(data, rng)
        except Exception:
            trouble = traceback.format_exc()
        if (seconds := time.monotonic() - begun) > SLOW:
            trouble += f"{seconds:.1f} s\n"
        counts[what, outcome] += 1
        if trouble:
            findings += 1
            args.out.mkdir(parents=True, exist_ok=True)
            name = f"{what}_{hashlib.sha256(data).hexdigest()[:8]}"
            (args.out / f"{name}.lic").write_bytes(data)
            (args.out / f"{name}.txt").write_text(trouble)
            print(name, trouble.strip().splitlines()[-1], flush=True)
        if (number + 1) % 5000 == 0:
            print(f"{number + 1} executions, {findings} findings, {time.monotonic() - started:.0f} s", flush=True)
    for what in sorted({what for what, _ in counts}):
        outcomes = {outcome: count for (one, outcome), count in sorted(counts.items()) if one == what}
        print(f"{what}: {sum(outcomes.values())}  {outcomes}")
    print(f"{args.executions} executions, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
