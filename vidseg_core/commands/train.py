"""`vidseg train`: train a network on labelled images."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from dataclasses import fields
from pathlib import Path

HELP = "train a network on labelled images"
EXAMPLES = """\
examples:
  vidseg train segmenter --dataset camvid:/data/camvid --output runs/camvid
  vidseg train segmenter --dataset camvid:/data/camvid@4 --dataset street:frames=800@1 --output runs/mixed
  vidseg train segmenter --dataset folder:/data/mine:train --classes mine.yaml --init resnet18.pth --output runs/mine
  torchrun --nproc-per-node 4 -m vidseg_core.cli train segmenter --dataset ... --batch 16 --output runs/four
      four processes, each with a quarter of every batch
  vidseg train segmenter ... --output runs/camvid --resume
      go on after the last finished epoch; all other options as before, but for --dataset, --epochs, --evaluate-every
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    networks = parser.add_subparsers(metavar="NETWORK", required=True, dest="network")
    _add_segmenter(networks)


def main(args: argparse.Namespace) -> int:
    # PyTorch's idle threads would spin for work; where another program wants the processor too, that makes training
    # three times slower. Read when the thread library is loaded, hence before anything imports torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from vidseg_core import distributed

    with distributed.session(args.device):
        args.device = distributed.local_device(args.device)
        return args.train(args)


def _add_segmenter(networks) -> None:
    from vidseg_core.training.specification import SYNTAX

    what = "train SwiftNet-R18, the network for key frames"
    parser = networks.add_parser("segmenter", help=what, description=what, epilog=f"{SYNTAX}\n{EXAMPLES}")
    parser.set_defaults(train=_train_segmenter)
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", action="append", required=True, metavar="KIND:WHERE[@SHARE]", help="see below")
    data.add_argument("--classes", metavar="NAME|FILE", help="class table of a folder: a name or a YAML file")
    data.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "vidseg", metavar="DIR",
        help="where rendered streets are kept (%(default)s)",
    )  # fmt: skip
    data.add_argument(
        "--hold-back", type=float, default=0.08, metavar="SHARE",
        help="share of each set kept from training, in contiguous blocks, to choose the best epoch by (%(default)s)",
    )  # fmt: skip
    run = parser.add_argument_group("run")
    run.add_argument("--output", type=Path, required=True, metavar="DIR", help="where weights and records go")
    run.add_argument("--resume", action="store_true", help="go on after the last finished epoch in --output")
    run.add_argument(
        "--init", metavar="FILE|NAME",
        help="start from these weights: torchvision's ImageNet resnet18 file, or a SwiftNet (`vidseg weights`), whose "
        "last layer is kept where the classes are the same",
    )  # fmt: skip
    run.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (%(default)s)")
    run.add_argument("--time-budget", type=float, metavar="MINUTES", help="begin no epoch that would end later")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (%(default)s)")
    run.add_argument("--threads", type=int, metavar="N", help="processor threads of PyTorch (all)")
    run.add_argument("--workers", type=int, default=1, metavar="N", help="threads that prepare images (%(default)s)")
    run.add_argument("--compile", action="store_true", help="use torch.compile; pays on a GPU, not on a processor")
    run.add_argument("--float32", action="store_true", help="compute in float32, not bfloat16")
    recipe = parser.add_argument_group("recipe")
    number = {"type": float, "metavar": "X"}
    recipe.add_argument("--epochs", type=int, default=60, metavar="N", help="passes over the first set (%(default)s)")
    recipe.add_argument("--batch", type=int, default=8, metavar="N", help="images per step (%(default)s)")
    recipe.add_argument("--learning-rate", default=8e-4, **number, help="largest, AdamW (%(default)s)")
    recipe.add_argument("--weight-decay", default=0.05, **number, help="of AdamW (%(default)s)")
    recipe.add_argument("--warm-up", default=1.0, **number, help="epochs of rising learning rate (%(default)s)")
    recipe.add_argument("--schedule", choices=("cosine", "poly"), default="cosine", help="of its fall (%(default)s)")
    recipe.add_argument(
        "--class-weights", choices=("none", "sqrt", "inverse"), default="sqrt",
        help="inverse frequency to the power 0, 1/2 or 1, at most tenfold (%(default)s)",
    )  # fmt: skip
    recipe.add_argument(
        "--loss-stride", type=int, choices=(1, 2, 4), default=2,
        help="grid of the cross-entropy, pixels (%(default)s)",
    )  # fmt: skip
    recipe.add_argument("--lovasz", default=0.0, **number, help="factor of the Lovasz-softmax loss (%(default)s)")
    recipe.add_argument("--ohem", action="store_true", help="cross-entropy of hard pixels only")
    recipe.add_argument("--ema", default=0.998, **number, help="decay of the weights' moving average (%(default)s)")
    recipe.add_argument("--evaluate-every", type=int, default=1, metavar="N", help="epochs (%(default)s)")
    recipe.add_argument(
        "--input-scale", default=1.0, **number,
        help="factor on images at which the network will be used and is evaluated, inside --scale (%(default)s)",
    )  # fmt: skip
    augmentation = parser.add_argument_group("augmentation")
    augmentation.add_argument(
        "--crop", type=int, nargs=2, default=(352, 480), metavar=("H", "W"), help="size of training images (352 480)"
    )
    augmentation.add_argument(
        "--scale", type=float, nargs=2, default=(0.75, 2.0), metavar=("MIN", "MAX"), help="factor on images (0.75 2)"
    )
    augmentation.add_argument(
        "--rare-crops", default=0.5, **number,
        help="share of crops around a class drawn evenly from those in the image (%(default)s)",
    )  # fmt: skip
    augmentation.add_argument("--color", default=0.5, **number, help="strength of colour changes, 0..1 (%(default)s)")
    augmentation.add_argument("--blur", default=0.15, **number, help="share of blurred images (%(default)s)")


def _train_segmenter(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vidseg_core import distributed
    from vidseg_core.classes import load_classes
    from vidseg_core.networks.registry import find_weights
    from vidseg_core.training.mix import make_mix
    from vidseg_core.training.specification import open_dataset, split_share
    from vidseg_core.training.train import STATE_FILE, train_segmenter, use_threads

    config = _configuration(args)
    device = _device(args.device)
    use_threads(args.threads)
    classes = load_classes(args.classes) if args.classes else None
    specifications = [split_share(text) for text in args.dataset]
    with distributed.writer_first():  # it renders streets
        sets = [
            open_dataset(text, classes, args.cache, lambda shots: tqdm(shots, "rendering the street", leave=False))
            for text, _ in specifications
        ]
    mix = make_mix(sets, [share for _, share in specifications], config.hold_back)
    _stop_on_termination()
    try:
        weights = train_segmenter(
            mix, config, args.output, device=device, workers=args.workers,
            init=find_weights(args.init) if args.init else None, resume=args.resume,
            time_budget_min=args.time_budget, compiled=args.compile, command=shlex.join(["vidseg", *sys.argv[1:]]),
            report=lambda line: tqdm.write(line, file=sys.stdout),
        )  # fmt: skip
    except KeyboardInterrupt:
        state = args.output / STATE_FILE
        tail = f"{state} holds the last finished epoch; --resume goes on" if state.exists() else "no epoch was finished"
        if distributed.is_writer():
            print(f"vidseg: training stopped; {tail}", file=sys.stderr)
        return 130
    if distributed.is_writer():
        print(f"weights: {weights}")
    return 0


def _configuration(args: argparse.Namespace):
    from vidseg_core.errors import ConfigError
    from vidseg_core.training.augment import Augmentation
    from vidseg_core.training.train import SegmenterTraining

    if args.workers < 1 or (args.threads is not None and args.threads < 1):
        raise ConfigError(f"workers and threads: expected at least 1, got {args.workers} and {args.threads}")
    if args.time_budget is not None and not args.time_budget > 0:
        raise ConfigError(f"time budget: expected minutes greater than 0, got {args.time_budget}")
    view = Augmentation(
        crop=tuple(args.crop), scale=tuple(args.scale), rare_crops=args.rare_crops, color=args.color, blur=args.blur
    )
    given = {
        "rate": args.learning_rate, "warmup": args.warm_up, "weighting": args.class_weights, "hard_pixels": args.ohem,
        "average": args.ema, "bfloat16": not args.float32, "augmentation": view,
    }  # fmt: skip
    same = {f.name: getattr(args, f.name) for f in fields(SegmenterTraining) if f.name not in given}
    return SegmenterTraining(**given, **same)


def _device(name: str):
    import torch

    from vidseg_core.errors import ConfigError

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: expected auto, cpu or cuda[:N], got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: {name!r} was asked for, PyTorch finds no CUDA device")
    return device


def _stop_on_termination() -> None:
    """End on SIGINT and SIGTERM alike, also where the shell started us with SIGINT ignored."""

    def stop(number, frame):
        # Only once: a second signal must not break into what is being written.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
