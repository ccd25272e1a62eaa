"""`vidseg run`: label a folder of images, a video, a recording or the synthetic street, and write what came out."""

from __future__ import annotations

import argparse
from functools import partial

from vidseg_core.errors import ConfigError

HELP = "label a folder of images, a video, a recording or the synthetic street"
EXAMPLES = """\
examples:
  vidseg run drive.mp4 --out labelled                    labels, overlays and overlay.mp4 in labelled/
  vidseg run frames/ --rate 15 --out labelled            a folder of images at 15 Hz
  vidseg run recording/ --topic /camera/image_raw --out labelled
  vidseg run street:seed=0,frames=300 --out labelled     the synthetic street, with mIoU against its truth
  vidseg run camvid:CamVid --rate 15 --out labelled      a data set, with mIoU against its labels
  vidseg run frames/ --labels frames_annot/ --interval 2 --out labelled
  vidseg run drive.mp4 --confidence --out labelled       and how sure each pixel is: confidence/NAME.png, 255 is certain
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from vidseg_core.cli.data_options import add_label_classes
    from vidseg_core.cli.engine_options import add_engine_arguments

    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder, video file, recording, street:key=value,...; camvid:DIR[:SPLIT], folder:DIR[:SPLIT] with labels",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where results go")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run's files of the same names")
    parser.add_argument("--no-video", action="store_true", help="write no overlay.mp4")
    parser.add_argument("--no-png", action="store_true", help="write neither labels/ nor overlay/")
    parser.add_argument("--opacity", type=float, default=0.5, help="of the colours, 0 to 1 (default: 0.5)")
    group = parser.add_argument_group("source")
    group.add_argument("--rate", type=float, metavar="HZ", help="of a folder (default: 30); replaces a video's stamps")
    group.add_argument("--topic", metavar="T", help="of a recording with several image topics")
    group.add_argument("--skip-bad", action="store_true", help="leave out frames that cannot be read")
    group.add_argument("--frames", type=int, metavar="N", help="stop after so many")
    group.add_argument(
        "--labels", metavar="DIR|TOPIC", help="ground truth: PNG files with the images' names; a recording's topic"
    )
    add_label_classes(group)
    add_engine_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command; return 0, or 130 after Ctrl-C."""
    from tqdm import tqdm

    from vidseg_core.cli.data_options import label_table
    from vidseg_core.cli.engine_options import engine_config
    from vidseg_core.data.open import open_source
    from vidseg_core.engine.build import build_engine
    from vidseg_core.labelling import prepare_output, run

    if not 0.0 <= args.opacity <= 1.0:
        raise ConfigError(f"opacity: expected 0 to 1, got {args.opacity}")
    if args.frames is not None and args.frames < 1:
        raise ConfigError(f"frames: expected 1 or more, got {args.frames}")
    config = engine_config(args)
    folder = prepare_output(args.out, args.overwrite)
    with build_engine(config) as engine:
        source = open_source(
            args.source,
            rate_hz=args.rate,
            topic=args.topic,
            skip_bad=args.skip_bad,
            labels=args.labels,
            classes=label_table(args, engine.classes, args.source),
        )
        total = min((n for n in (source.num_frames, args.frames) if n is not None), default=None)
        summary = run(
            engine,
            source,
            folder,
            opacity=args.opacity,
            video=not args.no_video,
            png=not args.no_png,
            max_frames=args.frames,
            progress=partial(tqdm, total=total, unit="frame"),
        )
    print(f"{folder}: {describe(summary)}")
    return 130 if summary["interrupted"] else 0


def describe(summary: dict) -> str:
    """Describe a run in one line."""
    rates = summary["frames_per_second"]
    parts = [f"{summary['frames']} frames, {summary['key_frames']} of them key frames"]
    if summary["frames"]:
        parts.append(f"{rates['whole']:.1f} frames per second (engine alone {rates['engine']:.1f})")
    if summary["skipped"]:
        parts.append(f"{len(summary['skipped'])} skipped")
    if summary["miou"] is not None:
        parts.append(f"mIoU {100 * summary['miou']:.1f} % on {summary['labelled_frames']} labelled frames")
        if summary["absent_classes"]:
            parts.append(f"not in their truth: {', '.join(summary['absent_classes'])}")
    if summary["interrupted"]:
        parts.append("interrupted")
    return "; ".join(parts)
