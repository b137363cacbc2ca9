"""How much processes help a batch: `compress IMAGES --output-dir` by -j N processes against one process with 1 and N threads.

    python benchmarks/batch.py FOLDER [--limit 64] [-j 2] [-q 75] [--rounds 3]

Whole commands, start of Python and torch included, all on the same N cores; they take turns after one that warms the
disk's cache, and of their seconds the median counts. A folder of fewer images gives some of them again under other names.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from codec.evaluation import images

# The command starts processes from some number of files on; this is the same command without.
ONE_PROCESS = "import sys; from codec import cli; cli.WORTH_PROCESSES = sys.maxsize; sys.exit(cli.main())"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=64, metavar="N", help="images of the batch (default: %(default)s)")
    parser.add_argument("-j", "--threads", type=int, default=2, metavar="N", help="processes, and cores (default: %(default)s)")
    parser.add_argument("-q", "--quality", default="75")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(default: %(default)s)")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: args.threads]
    if len(cores) < args.threads:
        parser.error(f"{args.threads} processes on {len(cores)} cores")
    os.sched_setaffinity(0, cores)  # the commands inherit it
    if not (paths := images.find([args.folder])):
        parser.error(f"no images in {args.folder}")
    ways = {
        "one": (["-c", ONE_PROCESS], 1),
        "threads": (["-c", ONE_PROCESS], args.threads),
        "processes": (["-m", "codec"], args.threads),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number in range(args.limit):
            source = paths[number % len(paths)]
            names.append(shutil.copy(source, Path(folder, f"{number}{source.suffix}")))

        def compress(way: str, names: list[str]) -> float:
            program, threads = ways[way]
            words = ["compress", *names, "--output-dir", Path(folder, way), "-q", args.quality, "-j", str(threads), "--quiet"]
            start = time.perf_counter()
            subprocess.run([sys.executable, *program, *words], check=True)
            return time.perf_counter() - start

        compress("one", names[:1])
        for _ in range(args.rounds):
            for way in ways:
                seconds[way].append(compress(way, names))
        for file in Path(folder, "one").iterdir():
            if file.read_bytes() != Path(folder, "processes", file.name).read_bytes():
                raise SystemExit(f"{file.name}: the processes made another file")
    one, threads, processes = (statistics.median(seconds[way]) for way in ways)
    print(
        f"{args.limit} images: {processes:.1f} s by {args.threads} processes, ×{one / processes:.2f} of one process with 1 thread "
        f"({one:.1f} s), ×{threads / processes:.2f} of one with {args.threads} ({threads:.1f} s)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
