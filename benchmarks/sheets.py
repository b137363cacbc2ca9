"""Contact sheets at equal bytes: the original, our codec and its peers side by side, where they differ most.

    python benchmarks/sheets.py PHOTOS --out DIR [--rates 0.15,0.3,0.6] [--codecs lic,avif:s4,jxl]

Of each photograph and rate DIR/sheets has a PNG: a column a codec, whose file is the largest within the rate, and a row
for each of the crops that SSIMULACRA 2 likes least of the codec that it likes least. Captions have the bytes of the
whole file, its PSNR and the optional metrics. DIR may be the folder of an evaluation, whose rows then narrow the search
for a setting; decoded pictures stay in DIR/viewer, and what is there is not made again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from codec.evaluation import columns, images, plots, rows, runner, viewer
from codec.networks import ssimulacra2

GAP, LINE = 6, 18  # pixels between panels, and of a line of text


def worst_crops(original: Image.Image, decoded: Sequence[Image.Image], side: int, count: int) -> list[tuple[int, int]]:
    """Corners (left, top) of up to `count` squares, half a side apart, in which the worst picture is worst."""
    x, *candidates = (_tensor(image) for image in (original, *decoded))
    with torch.no_grad():
        whole = ssimulacra2.Original.of(x)
        worst = max(candidates, key=lambda y: float(ssimulacra2.inner(whole, y)))
        corners = [(left, top) for top in _starts(original.height, side) for left in _starts(original.width, side)]

        def loss(left: int, top: int) -> float:
            box = (..., slice(top, top + side), slice(left, left + side))
            return float(ssimulacra2.inner(x[box], worst[box]))

        ordered = sorted(corners, key=lambda corner: -loss(*corner))
    chosen: list[tuple[int, int]] = []
    for left, top in ordered:
        if len(chosen) < count and all(2 * max(abs(left - x), abs(top - y)) >= side for x, y in chosen):
            chosen.append((left, top))
    return chosen


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def _starts(length: int, side: int) -> list[int]:
    last = max(length - side, 0)
    return sorted({*range(0, last + 1, max(side // 4, 1)), last})


def sheet(heading: str, panels: Sequence[tuple[Sequence[str], Image.Image]], corners, side: int) -> Image.Image:
    """panels: lines of a caption and the whole picture; a row for each corner."""
    first = panels[0][1]
    width, height = min(side, first.width), min(side, first.height)
    top = LINE * (1 + max(len(lines) for lines, _ in panels)) + GAP
    page = Image.new("RGB", (len(panels) * (width + GAP) + GAP, top + len(corners) * (height + GAP)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    draw.text((GAP, 2), heading, "black", font)
    for column, (lines, image) in enumerate(panels):
        left = GAP + column * (width + GAP)
        for number, line in enumerate(lines, start=1):
            draw.text((left, 2 + number * LINE), line, "black", font)
        for row, (x, y) in enumerate(corners):
            page.paste(image.crop((x, y, x + width, y + height)), (left, top + row * (height + GAP)))
    return page


def _caption(shot: viewer.Shot, pixels: int) -> list[str]:
    psnr = "equal pixels" if shot.psnr_rgb is None else f"{shot.psnr_rgb:.2f} dB"
    scores = [f"{columns.COLUMNS[name].title} {v:.2f}" for name, v in shot.perceptual.items() if v is not None]
    return [plots.title(shot.codec), f"{shot.bytes:,} B, {8 * shot.bytes / pixels:.3f} bpp, {psnr}", *scores]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rates", default="0.15,0.3,0.6", metavar="LIST", help="bits a pixel (default: %(default)s)")
    parser.add_argument("--codecs", default="lic,avif:s4,jxl", metavar="LIST", help="(default: %(default)s)")
    parser.add_argument("--metrics", default=",".join(columns.DEFAULT), help="for the captions (default: %(default)s)")
    parser.add_argument("--crop", type=int, default=256, metavar="PIXELS", help="side of a crop (default: %(default)s)")
    parser.add_argument("--crops", type=int, default=2, metavar="N", help="of each photograph (default: %(default)s)")
    parser.add_argument("-j", "--processes", type=int, default=1, metavar="N")
    args = parser.parse_args()

    def complain(line: str) -> None:
        print(line, file=sys.stderr)

    specs, rates = args.codecs.split(","), [float(rate) for rate in args.rates.split(",")]
    known, _ = rows.read(args.out / "rows.jsonl")
    pictures = runner.identify(images.find(args.photos), complain)
    runner.photograph(
        pictures, specs, args.out, known, rates=rates, processes=args.processes, say=complain,
        optional=[name for name in args.metrics.split(",") if name],
    )  # fmt: skip
    shots = {shot.key[:-1]: shot for shot in viewer.latest(viewer.read(args.out))}
    (args.out / "sheets").mkdir(parents=True, exist_ok=True)
    made = 0
    for picture in pictures:
        original = images.load(picture.path)
        for rate in rates:
            there = [shots[key] for spec in specs if (key := (picture.sha256, rate, spec)) in shots]
            if not there:
                complain(f"{picture.path}: no codec has a file at {rate:g} bpp")
                continue
            decoded = [images.load(args.out / "viewer" / shot.file) for shot in there]
            captions = [_caption(shot, picture.width * picture.height) for shot in there]
            corners = worst_crops(original, decoded, args.crop, args.crops)
            panels = [(["original"], original), *zip(captions, decoded, strict=True)]
            heading = f"{picture.name}, at most {rate:g} bpp; " + ", ".join(f"crop at {x},{y}" for x, y in corners)
            path = args.out / "sheets" / f"{picture.path.stem}_{rate:g}.png"
            sheet(heading, panels, corners, args.crop).save(path)
            print(path)
            made += 1
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
