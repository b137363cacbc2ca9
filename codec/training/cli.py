"""`codec train`: no torch at import, so that `codec train --help` is immediate."""

from __future__ import annotations

import argparse
import ctypes
import json
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of training images, searched recursively")
    parser.add_argument("--out", required=True, metavar="DIR", help="checkpoints, logs and the exported model go here")
    parser.add_argument("--config", default="base", help="shape of the model: base, tiny, textbook, or lossless-base, -plain, -tiny (default: base)")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--init", metavar="FILE", help="start from the averaged weights of a checkpoint or snapshot")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--warmup", type=int, default=300, help="steps until the full learning rate")
    parser.add_argument("--decay", type=int, default=5_000, help="last steps, learning rate to zero; 0: stay stable")
    parser.add_argument("--batch", type=int, default=8, help="crops a step and process (default: 8)")
    parser.add_argument("--crop", type=int, default=128, help="pixels, a multiple of 64 (default: 128)")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate (default: 0.001)")
    parser.add_argument("--optimiser", choices=("soap", "adam"), default="soap")
    parser.add_argument("--clip", type=float, default=20.0, help="largest gradient norm (default: 20)")
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the moving average (default: 0.998)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--phase",
        choices=("all", "hyper", "scales", "files", "decoder", "synthesis"),
        default="all",
        help="all: everything, from nothing or --init. To finish a model, each from the one before by --init: hyper: the exact networks that"
        " code hyper-latents (not textbook); then, under crops as the encoder codes them, scales: the exact scale network alone;"
        " files: everything but these codes again; decoder: the same for synthesis and scales alone; synthesis: that network alone",
    )
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--checkpoint-minutes", type=float, default=5.0)
    parser.add_argument("--log-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--validate-every", type=int, default=2_000, metavar="STEPS")
    parser.add_argument("--limit", type=int, metavar="N", help="read at most N images")
    parser.add_argument("-j", "--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--snapshot", metavar="FILE", help="when done, write the averaged weights alone, to be continued")
    parser.add_argument(
        "--export", metavar="FILE", help="when done, write a model file (after --phase hyper and --phase scales, or a factorised model)"
    )


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit status. Errors of input become one line on stderr."""
    _keep_memory()
    import torch

    from ..networks.config import CONFIGS, LOSSLESS_CONFIGS
    from .loop import Trainer, TrainingConfig
    from .lossless import LosslessTrainer

    known = CONFIGS | LOSSLESS_CONFIGS
    if args.config not in known:
        print(f"error: unknown configuration {args.config!r}: choose one of {', '.join(known)}", file=sys.stderr)
        return 2
    lossless = args.config in LOSSLESS_CONFIGS
    grid = 16 if lossless else 64
    if args.crop % grid or args.crop < grid:
        print(f"error: --crop must be a multiple of {grid}, not {args.crop}", file=sys.stderr)
        return 2
    if args.phase != "all" and not (args.init or args.resume):
        print(f"error: --phase {args.phase} needs --init", file=sys.stderr)
        return 2
    if args.threads:
        torch.set_num_threads(args.threads)
    fields = {name: getattr(args, name) for name in TrainingConfig.__dataclass_fields__ if hasattr(args, name)}
    config = TrainingConfig(**fields)
    try:
        trainer = (LosslessTrainer if lossless else Trainer)(known[args.config], config, resume=args.resume)
        if trainer.rank == 0:
            parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
            print(json.dumps({"model": trainer.model.config.to_dict(), "training": fields}))
            print(
                f"{parameters / 1e6:.2f} M parameters, {len(trainer.data.train)} images,"
                f" {trainer.data.skipped} skipped, {'bfloat16' if trainer.bfloat16 else 'float32'} on {trainer.device}"
            )
        trainer.run()
        if trainer.rank == 0:
            from .export import export, export_lossless, snapshot

            if args.snapshot:
                snapshot(trainer, args.snapshot)
            if args.export:
                (export_lossless if lossless else export)(trainer, args.export)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _keep_memory() -> None:
    """Every step frees what the next one asks for again: have glibc keep it. Faulting it in anew takes a tenth of the time."""
    trim_threshold, mmap_max = -1, -4  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
