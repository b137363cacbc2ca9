"""Train the canvas network on a folder of pixel-exact images, in bits a subpixel. See README.md beside this file."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from least_squares import predict
from network import CanvasNetwork
from PIL import Image
from safetensors.torch import load_file, save_file

from codec.networks import lossless as shipped
from codec.training.soap import SOAP

CROP, BATCH = 48, 16  # pixels a side, crops a step
PEAK, WARM, DECAY = 3e-3, 100, 0.4  # learning rate; steps to reach it; last part of the run, in which it falls to zero
SIDE = 320  # pixels of the middle of a picture that are used
HELD_BACK = 20  # every so-manyth picture is not trained on


def prepared(path: Path, *, mirrored: bool) -> np.ndarray | None:
    """3×H×W×3 float32 of a picture: its levels, its linear prediction, its adaptive ones; None for one that is too small."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    if min(pixels.shape[:2]) < CROP:
        return None
    top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
    pixels = pixels[top : top + SIDE, left : left + SIDE]
    pixels = np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)
    planes = torch.tensor(pixels).permute(2, 0, 1).double()
    near = shipped.neighbours_of(shipped.canvas(planes)[None], shipped.LINEAR)
    base = shipped.predict_linear(near, shipped.fit_linear(planes)) / shipped.BASE_STEPS
    return np.stack([pixels, base.reshape(pixels.shape).numpy(), np.round(predict(pixels) * 16) / 16]).astype(np.float32)


def crops(pictures: list[np.ndarray], rng: np.random.Generator) -> torch.Tensor:
    """3×B×CROP×CROP×3."""
    found = []
    for number in rng.integers(len(pictures), size=BATCH):
        picture = pictures[number]
        top, left = (int(rng.integers(side - CROP + 1)) for side in picture.shape[1:3])
        found.append(picture[:, top : top + CROP, left : left + CROP])
    return torch.from_numpy(np.stack(found, 1))


@torch.no_grad()
def validate(network: CanvasNetwork, averaged: dict[str, torch.Tensor], pictures: list[np.ndarray]) -> float:
    """Bits a subpixel of the averaged weights."""
    current = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(averaged)
    bits = float(np.mean([float(network(*torch.from_numpy(picture)[:, None])) for picture in pictures]))
    network.load_state_dict(current)
    return bits


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the averaged weights go here, every few minutes and in the end")
    parser.add_argument("--init", type=Path, help="weights to begin with")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--limit", type=int, help="read at most so many images")
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    paths = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in Image.registered_extensions())[: args.limit]
    held_back = [picture for path in paths[::HELD_BACK] if (picture := prepared(path, mirrored=False)) is not None]
    rest = [path for number, path in enumerate(paths) if number % HELD_BACK] or paths
    pictures = [picture for path in rest for mirrored in (False, True) if (picture := prepared(path, mirrored=mirrored)) is not None]
    if not pictures or not held_back:
        print(f"error: {args.folder}: no images of at least {CROP}×{CROP} pixels", file=sys.stderr)
        return 1
    network = CanvasNetwork()
    if args.init:
        network.load_state_dict(load_file(args.init))
    averaged = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = SOAP([{"params": list(network.parameters()), "lr": PEAK}])
    started = reported = time.monotonic()
    step, recent = 0, []
    while (part := (time.monotonic() - started) / (60 * args.minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = PEAK * min(1, (step + 1) / WARM) * min(1, (1 - part) / DECAY)
        loss = network(*crops(pictures, np.random.default_rng((0, step))))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        for name, value in network.state_dict().items():
            averaged[name].lerp_(value, 1 - min(0.998, step / (step + 10)))
        recent.append(float(loss.detach()))
        if time.monotonic() - reported > 240:
            reported = time.monotonic()
            print(f"step {step}: {np.mean(recent[-500:]):.4f}, held back {validate(network, averaged, held_back):.4f} bits a subpixel", flush=True)
            save_file(averaged, args.out)
    save_file(averaged, args.out)
    print(f"step {step}: held back {validate(network, averaged, held_back):.4f} bits a subpixel")
    return 0


if __name__ == "__main__":
    sys.exit(main())
