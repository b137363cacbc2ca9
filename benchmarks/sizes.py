"""Memory and time against the size of the picture: `python benchmarks/sizes.py PHOTOS --megapixels 1,10,100`.

The picture is a mosaic of the photographs of a folder. Every figure is taken in a process of its own, which holds the
source (a PNG file, opened by Pillow) and the result as the command line does; the peak is that of its resident set.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

REGION = 512  # pixels a side, from the middle
STRIPE = 400  # rows of the mosaic's stripes


def mosaic(folder: Path, pixels: float) -> Image.Image:
    """A square picture in stripes of parts of photographs, each mirrored every other time, so that none repeats itself."""
    side = round(pixels**0.5)
    out = np.empty((side, side, 3), np.uint8)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in Image.registered_extensions())
    rng = np.random.default_rng(0)
    parts = []
    for path in paths[:100]:
        with Image.open(path) as image:
            parts.append(np.asarray(image.convert("RGB"))[:STRIPE])
    for top in range(0, side, STRIPE):
        left = 0
        while left < side:
            part = parts[rng.integers(len(parts))]
            part = part[:, :: rng.choice([1, -1]), rng.permutation(3)][: side - top, : side - left]
            out[top : top + len(part), left : left + part.shape[1]] = part
            left += part.shape[1]
    return Image.fromarray(out)


def measure(task: str, source: Path, packed: Path, threads: int) -> dict:
    """Seconds and peak memory of one call, the start of the process and of torch not timed."""
    import codec

    Image.MAX_IMAGE_PIXELS = None
    lossless = "lossless" in task
    small = Image.effect_noise((64, 64), 30).convert("RGB")
    codec.decompress(codec.compress(small, lossless=lossless, threads=threads), threads=threads)
    options = {"threads": threads, "max_pixels": 2**30}
    started = time.perf_counter()
    if "encode" in task:
        with Image.open(source) as image:
            data = codec.compress(image, lossless=lossless, threads=threads)
        packed.write_bytes(data)
    else:
        data = packed.read_bytes()
        info = codec.inspect(data)
        if "region" in task:
            options["region"] = ((info.width - REGION) // 2, (info.height - REGION) // 2, REGION, REGION)
        elif "preview" in task:
            options["preview"] = 16
        codec.decompress(data, **options)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(seconds, 2), "peak_mib": round(peak), "bytes": len(data)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megapixels", default="1,10,50,100")
    parser.add_argument("--tasks", default="encode,decode,region,preview", help="also lossless-encode, lossless-decode, lossless-region")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="append JSON lines here")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for size in map(float, args.megapixels.split(",")):
            source = Path(folder, "source.png")
            mosaic(args.folder, size * 1e6).save(source, compress_level=1)
            for task in args.tasks.split(","):
                packed = Path(folder, "lossless.lic" if "lossless" in task else "lossy.lic")
                with context.Pool(1) as pool:
                    row = {"megapixels": size, "task": task, "threads": args.threads}
                    row |= pool.apply(measure, (task, source, packed, args.threads))
                print(json.dumps(row), flush=True)
                if args.out:
                    with args.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
