"""How much processes help a batch: `compress` of copies of the images of a folder with -j 1 against -j N, whole commands.

    python benchmarks/batch.py FOLDER [--count 64] [-j 2]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from codec.evaluation import images


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=64, metavar="N", help="images of the batch (default: 64)")
    parser.add_argument("-j", "--threads", type=int, default=2, metavar="N")
    args = parser.parse_args()
    paths = images.find([args.folder])
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number in range(args.count):
            source = paths[number % len(paths)]
            names.append(shutil.copy(source, Path(folder, f"{number}{source.suffix}")))
        seconds = {}
        for threads in (1, args.threads):
            start = time.perf_counter()
            command = [sys.executable, "-m", "codec", "compress", *names, "--output-dir", f"{folder}/{threads}", "--quiet"]
            subprocess.run([*command, "-j", str(threads)], check=True)
            seconds[threads] = time.perf_counter() - start
    ratio = seconds[1] / seconds[args.threads]
    print(f"{args.count} images: {seconds[1]:.1f} s alone, {seconds[args.threads]:.1f} s by {args.threads}: ×{ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
