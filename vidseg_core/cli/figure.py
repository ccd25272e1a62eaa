"""`vidseg figure`: the pictures of the documentation, made anew."""

from __future__ import annotations

import argparse
from pathlib import Path

from vidseg_core.errors import ConfigError

HELP = "draw a figure of the documentation"
EXAMPLES = """\
examples:
  vidseg figure street --out street.png
      image, labels and flow of four synthetic streets
  vidseg figure street --seeds 7 --frames 1 100 200 --size 1280x720 --out street.png
      three frames of one street
  vidseg figure run labelled/ --first 20 --count 5 --out strip.png
      five consecutive overlays of what `vidseg run --out labelled` has written, side by side
  vidseg figure strip --data cityscapes:Cityscapes --weights cityscapes-swiftnet-r18 \\
      --refine-weights cityscapes-swnet-seq --flow light --interval 2 --out strip.png
      two frames after a key frame: input, edge map, prediction, occlusion, ground truth
  vidseg figure sequence --data camvid:CamVid --interval 4 --out sequence.png
      a key frame and the four after it: inputs, the network on every frame, ours
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    figures = parser.add_subparsers(metavar="FIGURE", title="figures", required=True, dest="figure")
    street = figures.add_parser("street", help="synthetic streets: image, labels, exact flow")
    street.set_defaults(draw=draw_street)
    street.add_argument("--seeds", type=int, nargs="+", metavar="N", default=[0, 1, 2, 3], help="(default: 0 1 2 3)")
    street.add_argument("--frames", type=int, nargs="+", metavar="I", default=[40], help="from 1 on (default: 40)")
    street.add_argument("--size", metavar="WxH", default="640x360", help="of one picture (default: 640x360)")
    street.add_argument("--out", metavar="PNG", required=True, help="file to write")

    run = figures.add_parser("run", help="overlays of a run, side by side")
    run.set_defaults(draw=draw_run)
    run.add_argument("folder", metavar="DIR", help="what was given to `vidseg run --out`")
    run.add_argument("--first", type=int, default=0, metavar="I", help="position of the first overlay (default: 0)")
    run.add_argument("--count", type=int, default=5, metavar="N", help="how many (default: 5)")
    run.add_argument("--width", type=int, default=320, metavar="PIXELS", help="of one picture (default: 320)")
    run.add_argument("--out", metavar="PNG", required=True, help="file to write")

    parts = "one frame, --interval after its key frame: input, edge map, prediction, occlusion, ground truth"
    _add_method_figure(figures, "strip", draw_strip, parts)
    course = "a key frame and those up to the next one: input, the network on every frame, ours"
    _add_method_figure(figures, "sequence", draw_sequence, course)


def _add_method_figure(figures, name: str, draw, what: str) -> None:
    from vidseg_core.cli.data_options import add_data_arguments
    from vidseg_core.cli.engine_options import add_engine_arguments

    parser = figures.add_parser(name, help=what, description=what)
    parser.set_defaults(draw=draw)
    add_data_arguments(parser)
    parser.add_argument("--frame", metavar="NAME", help="last frame shown (default: the first labelled one possible)")
    parser.add_argument("--key-frames", choices=("network", "truth"), default="network", help="what labels key frames")
    parser.add_argument("--width", type=int, default=400, metavar="PIXELS", help="of one picture (default: 400)")
    parser.add_argument("--out", metavar="PNG", required=True, help="file to write")
    add_engine_arguments(parser, without=("key_frames", "confidence"))


def main(args: argparse.Namespace) -> int:
    from vidseg_core.data.writers import write_image

    out = Path(args.out)
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out: expected a file name ending in .png, got {args.out!r}")
    write_image(out, args.draw(args))
    print(out)
    return 0


def draw_street(args: argparse.Namespace):
    """H x W x 3, uint8, RGB."""
    from vidseg_core.evaluation.figures.tiles import contact_sheet
    from vidseg_core.street import StreetConfig

    if min(args.frames) < 1:
        raise ConfigError(f"--frames: expected numbers from 1 (frame 0 has no flow), got {min(args.frames)}")
    config = StreetConfig.parse(f"street:size={args.size}")
    return contact_sheet(args.seeds, args.frames, (config.width, config.height))


def draw_run(args: argparse.Namespace):
    """H x W x 3, uint8, RGB."""
    from vidseg_core.evaluation.figures.tiles import run_strip

    for name, least in (("first", 0), ("count", 1), ("width", 64)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name}: expected {least} or more, got {getattr(args, name)}")
    return run_strip(Path(args.folder), args.first, args.count, args.width)


def draw_strip(args: argparse.Namespace):
    """H x W x 3, uint8, RGB."""
    from vidseg_core.evaluation.figures.methods import strip

    engine, _, sequence, position = _method(args)
    return strip(engine, sequence, position, engine.config.interval, args.width)


def draw_sequence(args: argparse.Namespace):
    """H x W x 3, uint8, RGB."""
    from vidseg_core.evaluation.figures.methods import loop

    engine, per_frame, sequence, position = _method(args)
    interval = engine.config.interval
    return loop(engine, per_frame, sequence, position - interval, interval, args.width)


def _method(args: argparse.Namespace):
    """The method's engine, one that segments each frame by itself, the sequence and the position of its last frame."""
    from dataclasses import replace

    from vidseg_core.classes import load_classes
    from vidseg_core.cli.data_options import data_name
    from vidseg_core.cli.engine_options import engine_config
    from vidseg_core.data.datasets import open_video
    from vidseg_core.engine.build import build_engine
    from vidseg_core.engine.segmenter import TruthSegmenter
    from vidseg_core.errors import DatasetError
    from vidseg_core.evaluation.distance.evaluate import check_same_classes, scored_frames

    if args.width < 64:
        raise ConfigError(f"--width: expected 64 or more, got {args.width}")
    config = engine_config(args)
    name = data_name(args)
    classes = load_classes(args.classes) if args.classes and name.kind == "folder" else None
    video = open_video(name, classes, size=args.size, frames_before=config.interval)
    truth = (TruthSegmenter(len(video.classes)), video.classes) if args.key_frames == "truth" else ()
    engine = build_engine(config, *truth)
    check_same_classes(engine.classes, video)
    alone = replace(config, refine=False, fusion=False, flow="none")
    per_frame = build_engine(alone, engine.networks.segmenter, engine.classes)
    if args.frame is None:
        number, position = scored_frames(video, config.interval)[0]
        return engine, per_frame, video.sequences[number], position
    for sequence in video.sequences:
        if args.frame in sequence.frames:
            return engine, per_frame, sequence, sequence.frames.index(args.frame)
    raise DatasetError(f"{video.name}: expected the name of a frame, for instance {video.sequences[0].frames[-1]}, "
                       f"got {args.frame!r}")  # fmt: skip
