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
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    figures = parser.add_subparsers(metavar="FIGURE", title="figures", required=True, dest="figure")
    street = figures.add_parser("street", help="synthetic streets: image, labels, exact flow")
    street.set_defaults(draw=draw_street)
    street.add_argument("--seeds", type=int, nargs="+", metavar="N", default=[0, 1, 2, 3], help="(default: 0 1 2 3)")
    street.add_argument("--frames", type=int, nargs="+", metavar="I", default=[40], help="from 1 on (default: 40)")
    street.add_argument("--size", metavar="WxH", default="640x360", help="of one picture (default: 640x360)")
    street.add_argument("--out", metavar="PNG", required=True, help="file to write")


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
