"""The README's two pictures, and further ones for docs: from committed rows and one photograph.

    python benchmarks/figures.py --photo KODAK/kodim23.png [--rows benchmarks/results/kodak/rows.jsonl] [--out docs/images]

rd.png    rate–distortion curves: ours, its peers, and published ones
crop.png  one part of one photograph at equal bytes: original, JPEG, WebP, AVIF and ours
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from codec.evaluation import curves, images, peers, plots, rows, viewer

HERE = Path(__file__).parent
CURVES = ("textbook", "jpeg", "webp:m6", "jxl", "avif:psnr", "lic")  # drawn in this order, so the last ones lie on top
PUBLISHED = ("VTM-9.1", "BPG-444", "bmshj2018-hyperprior", "bmshj2018-factorized", "ELIC")
PANELS = ("jpeg", "webp:m6", "avif:s4", "lic")


def rate_distortion(file: Path):
    known, complaints = rows.read(file)
    for line in complaints:
        print(line, file=sys.stderr)
    codecs, _ = curves.measured([row for row in known if row.codec in CURVES])
    codecs.sort(key=lambda codec: CURVES.index(codec.name))
    published = [c for c in curves.read_published(HERE / "published_kodak.json") if c.name in PUBLISHED]
    return plots.rate_distortion(codecs, published, bpp=(0.1, 2.0))


def crop(photo: Path, rate: float, box: tuple[int, int, int, int], specs):
    """Panels side by side; below each: codec, bytes of the whole file, PSNR of the whole image."""
    picture = images.identify(photo)
    truth = images.load(photo)
    panels = [("original", f"{3 * picture.width * picture.height:,} B raw", truth)]
    for spec in specs:
        shot, pixels = viewer.take(peers.build(spec), spec, picture, rate, known=[])
        panels.append(
            (
                plots.title(spec.split(":")[0]),
                f"{shot.bytes:,} B, {shot.psnr_rgb:.2f} dB",
                Image.open(io.BytesIO(pixels)),
            )
        )
    left, top, width, height = box
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panel_width = 10 / len(panels)
    figure = Figure(figsize=(10, panel_width * height / width + 0.42))
    FigureCanvasAgg(figure)
    for k, (name, numbers, image) in enumerate(panels):
        label = 0.42 / figure.get_figheight()
        axes = figure.add_axes((k / len(panels) + 0.002, label, 1 / len(panels) - 0.004, 1 - label))
        axes.imshow(np.asarray(image)[top : top + height, left : left + width], interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        colour = plots.OURS if name == plots.title("lic") else plots.INK
        middle = (k + 0.5) / len(panels)
        figure.text(middle, label * 0.72, name, ha="center", va="center", fontsize=10, fontweight="bold", color=colour)
        figure.text(middle, label * 0.26, numbers.replace(",", "\u2009", numbers.count(",") - ("dB" in numbers)),
                    ha="center", va="center", fontsize=8.5, color=plots.INK)  # fmt: skip
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, default=HERE / "results" / "kodak" / "rows.jsonl")
    parser.add_argument("--photo", type=Path, help="without it, crop.png is not made")
    parser.add_argument("--rate", type=float, default=0.2, metavar="BPP", help="of every file of crop.png")
    parser.add_argument("--box", default="130,190,180,220", metavar="X,Y,W,H", help="part of the photograph")
    parser.add_argument("--panels", default=",".join(PANELS), metavar="LIST", help="codecs of crop.png")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "images")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.rows.exists():
        plots.save(rate_distortion(args.rows), args.out / "rd")
    else:
        print(f"no rd.png: {args.rows} does not exist", file=sys.stderr)
    if args.photo:
        box = tuple(int(word) for word in args.box.split(","))
        crop(args.photo, args.rate, box, args.panels.split(",")).savefig(args.out / "crop.png", dpi=180)
    return 0


if __name__ == "__main__":
    sys.exit(main())
