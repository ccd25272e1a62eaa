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
    from vidseg_core.data.street import StreetConfig
    from vidseg_core.evaluation.figures import contact_sheet

    if min(args.frames) < 1:
        raise ConfigError(f"--frames: expected numbers from 1 (frame 0 has no flow), got {min(args.frames)}")
    config = StreetConfig.parse(f"street:size={args.size}")
    return contact_sheet(args.seeds, args.frames, (config.width, config.height))


def draw_run(args: argparse.Namespace):
    """H x W x 3, uint8, RGB."""
    from vidseg_core.evaluation.figures import run_strip

    for name, least in (("first", 0), ("count", 1), ("width", 64)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name}: expected {least} or more, got {getattr(args, name)}")
    return run_strip(Path(args.folder), args.first, args.count, args.width)
