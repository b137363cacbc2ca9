"""Hostile files for every decoder: `python benchmarks/fuzz.py --seconds 600 [--seed S] [--out DIR]`.

Real small files of all modes and both methods are damaged, and each result goes to `codec.decompress`, `codec.inspect` or
`codec.open`. What must happen is a picture or a CodecError, soon and in little memory; anything else is a finding, kept
under --out. Three depths of damage:

- bytes: of the file as it is. Mostly the first check value stops it.
- header, table, palette, ...: inside the container's own structure, and the header's check value made good. Contents of
  palettes and metadata are changed before they are packed, so that all their check values hold.
- forged: every check value of the file is zero and every computed one is, too, while it is decoded (`unchecked`): what
  somebody could send who computes the right ones. So damage reaches the inside of each decoder, and what comes after it.

The models are the small ones of the tests. docs/SECURITY.md has what campaigns found.
"""

import argparse
import collections
import contextlib
import hashlib
import io
import os
import resource
import struct
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import codec
from codec import container
from codec.container import Header, Tag
from codec.picture.picture import LAYOUTS

ROOT = Path(__file__).parent.parent
MAX_PIXELS = 2**16
SLOW = 5.0  # seconds of processor time
MEMORY = 2**30  # bytes beyond what the models and their first use take
METADATA = (*container.METADATA, Tag.PALETTE)


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """All check values are zero: in files that are packed here, and in what a decoder computes to compare."""
    crc32, zlib.crc32 = zlib.crc32, lambda data, value=0: 0
    try:
        yield
    finally:
        zlib.crc32 = crc32


def seeds() -> list[bytes]:
    """Files of every mode, lossy where there is such, and of every way of lossless coding."""
    files = [path.read_bytes() for path in sorted((ROOT / "tests/golden/v1").glob("*.lic")) if "two_tiles" not in path.name]
    files = [data for data in files if codec.inspect(data).width <= 64]
    return files + fresh(photo())


def photo() -> Image.Image:
    return Image.open(ROOT / "tests/data/kodim23_crop.png").convert("RGB").crop((0, 0, 21, 18))


def fresh(photo: Image.Image) -> list[bytes]:
    """Files of the picture and of others, with metadata, palettes and transparency."""
    exif = Image.Exif()
    exif[0x010E] = "a description"
    files = []
    for mode in ("L", "LA", "RGB", "RGBA"):
        image = photo.convert(mode)
        files.append(codec.compress(image, 40, exif=exif.tobytes(), xmp=b"<x/>", icc_profile=b"profile" * 9))
        image.info.update(cicp=(9, 16, 0, 1), exif=exif.tobytes(), dpi=(300.0, 200.0))
        files.append(codec.compress(image, lossless=True))
    clear = photo.quantize(7)
    clear.info["transparency"] = bytes([0, 128, 255])
    key = photo.copy()
    key.info["transparency"] = (1, 2, 3)
    for image in (photo.convert("1"), photo.quantize(7), clear, key, photo.convert("PA"), photo.convert("I")):
        files.append(codec.compress(image, lossless=True))
    ramp = np.arange(20 * 30 * 3, dtype=np.uint16).reshape(20, 30, 3)
    flat = np.full((30, 30, 4), 7, np.uint8)
    files += [codec.compress(array, lossless=True) for array in (ramp, ramp[..., 0], (ramp & 3).astype(np.uint8), flat)]
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


def _other_header(header: Header, models: list[bytes], rng: np.random.Generator) -> Header:
    """One or two fields changed; the values may be ones that no file can have."""
    sizes = [1, 2, 17, 64, 300, 1000, 2**20, 2**30, 2**31 - 1]
    change = {
        "width": int(rng.choice([*sizes, header.width + 1, header.height])),
        "height": int(rng.choice([*sizes, header.height + 1, header.width])),
        "mode": str(rng.choice(list(LAYOUTS))),
        "quality": int(rng.integers(10001)) if header.quality is not None else None,
        "model_id": models[rng.integers(len(models))],
        "method": str(rng.choice(["lossy", "lossless"])),
    }
    names = rng.choice(list(change), int(rng.integers(1, 3)), replace=False)
    return replace(header, **{name: change[name] for name in names})


def _other_table(table: list[tuple[int, int]], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Tags and lengths of a file, disordered, repeated, unknown or too large."""
    row = int(rng.integers(len(table)))
    tag, length = table[row]
    kind = rng.integers(4)
    if kind == 0:
        table[row] = int(rng.choice([0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 255])), length
    elif kind == 1:
        table[row] = tag, int(rng.choice([0, 1, 4, 5, length + 1, 2**20, 2**32, 2**62]))
    elif kind == 2:
        table.insert(row, (tag, length))
    else:
        del table[row]
    return table


def _packed(header: Header, table: list[tuple[int, int]], body: bytes) -> bytes:
    """A file, whatever its table says; the check value of the header holds."""
    out = container.MAGIC + bytes([container.VERSION])
    out += b"".join(coding.write(getattr(header, name)) for name, coding in container.HEADER_FIELDS.items())
    out += bytes([len(table)]) + b"".join(bytes([tag]) + container._LENGTH.write(length) for tag, length in table)
    return out + struct.pack("<I", zlib.crc32(out)) + body


def mutant(files: list[bytes], rng: np.random.Generator, *, forged: bool = False) -> tuple[str, bytes]:
    """(what was damaged, a file). `forged`: of files that were made `unchecked`, where this is called, too."""
    data = files[rng.integers(len(files))]
    if not forged and rng.random() < 0.3:
        return "bytes", damaged(data, rng)
    header, sections = container.unpack(data)
    table = [(int(tag), len(section)) for tag, section in sections.items()]
    part = rng.random()
    if part < 0.2:
        models = [container.read_header(other)[0].model_id for other in files]
        return "header", _packed(_other_header(header, models, rng), table, b"".join(sections.values()))
    if part < 0.3:
        return "table", _packed(header, _other_table(table, rng), b"".join(sections.values()))
    tag = list(sections)[rng.integers(len(sections))]
    other = container.unpack(files[rng.integers(len(files))])[1]
    if rng.random() < 0.1:
        sections[tag] = other.get(tag, sections[tag])
    elif tag in METADATA and rng.random() < 0.7:
        content = damaged(container.unpack_metadata(tag, sections[tag]), rng)
        sections[tag] = container.pack_metadata(tag, content) if content else b""
    elif tag is Tag.PIXELS:  # which has a check value of its own inside, over all of it
        body = damaged(sections[tag][:-8], rng)
        sections[tag] = body + struct.pack("<I", zlib.crc32(body)) + sections[tag][-4:]
    elif tag is Tag.LATENTS and forged and rng.random() < 0.9:  # of one tile
        stream = damaged(sections[tag][8:], rng)
        sections[tag] = struct.pack("<II", len(stream), 0) + stream
    else:
        sections[tag] = damaged(sections[tag][:-4], rng) + sections[tag][-4:]
    table = [(int(tag), len(section)) for tag, section in sections.items()]
    return tag.name.lower(), _packed(header, table, b"".join(sections.values()))


def execute(data: bytes, kind: float) -> str:
    """What came of it: "picture" or the name of a CodecError. Whatever else happens is raised.

    kind: 0 to 1, chooses between inspecting, opening lazily, a preview, a part, and the whole picture.
    """
    try:
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
            options = {"preview": 8} if kind < 0.3 else {"region": (1, 1, 5, 4)} if kind < 0.4 else {}
            codec.decompress(data, max_pixels=MAX_PIXELS, threads=1, **options)
        return "picture"
    except codec.CodecError as error:
        return type(error).__name__


def replay(data: bytes) -> set[str]:
    """All outcomes of one file."""
    return {execute(data, kind) for kind in (0.05, 0.15, 0.25, 0.35, 0.45)}


def hostile(rng: np.random.Generator) -> Iterator[tuple[str, bytes, Callable[[], str]]]:
    """Without end: (what was damaged, the file, a function that lets the codec have it)."""
    files, picture = seeds(), photo()
    with unchecked():
        open_files = fresh(picture)

    def attack(data: bytes, forged: bool, kind: float) -> str:
        with unchecked() if forged else contextlib.nullcontext():
            return execute(data, kind)

    while True:
        forged = rng.random() < 0.5
        with unchecked() if forged else contextlib.nullcontext():
            what, data = mutant(open_files if forged else files, rng, forged=forged)
        kind = rng.random()
        yield f"forged {what}" if forged else what, data, partial(attack, data, forged, kind)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("findings"))
    args = parser.parse_args()
    os.environ |= {"CODEC_MODELS": str(ROOT / "tests/golden/v1"), "CODEC_MODEL": "tiny", "CODEC_LOSSLESS_MODEL": "lossless-tiny"}
    warnings.simplefilter("ignore")  # Pillow's, about damaged EXIF
    Image.MAX_IMAGE_PIXELS = 2**27  # without its warning at the half of that
    counts, findings, number = collections.Counter(), collections.Counter(), 0
    attacks = hostile(np.random.default_rng(args.seed))
    started = told = time.monotonic()
    while (now := time.monotonic()) < started + args.seconds:
        what, data, attack = next(attacks)
        if number == 0:
            _limit_memory()
        number += 1
        begun, outcome, trouble, place = time.process_time(), "finding", "", what
        try:
            outcome = attack()
        except Exception as error:
            trouble = traceback.format_exc()
            place = str(traceback.extract_tb(error.__traceback__)[-1])
        if (seconds := time.process_time() - begun) > SLOW:
            trouble += f"{seconds:.1f} s of processor time\n"
        counts[what, outcome] += 1
        if trouble:
            findings[place] += 1
            if findings[place] <= 3:  # of one kind
                args.out.mkdir(parents=True, exist_ok=True)
                name = f"{what.replace(' ', '_')}_{hashlib.sha256(data).hexdigest()[:8]}"
                (args.out / f"{name}.lic").write_bytes(data)
                (args.out / f"{name}.txt").write_text(trouble)
                print(name, trouble.strip().splitlines()[-1], flush=True)
        if now > told + 60:
            told = now
            print(f"{number} executions, {findings.total()} findings, {now - started:.0f} s", flush=True)
    for what in sorted({what for what, _ in counts}):
        outcomes = {outcome: count for (one, outcome), count in sorted(counts.items()) if one == what}
        print(f"{what}: {sum(outcomes.values())}  {outcomes}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{number} executions, {findings.total()} findings of {len(findings)} kinds, peak {peak} MiB")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
