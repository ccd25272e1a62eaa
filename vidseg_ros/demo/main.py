"""See it work: a camera and the node as processes, DDS between them, and what came out in a folder.

`make demo`, `ros2 run vidseg_ros demo`, or `python -m vidseg_ros.demo`.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from vidseg_core.classes import load_classes
from vidseg_core.cli.main import EXIT_ERROR, EXIT_INTERRUPTED, one_line
from vidseg_core.data.writers import output_folder, write_json
from vidseg_core.engine.config import DEFAULT_WEIGHTS
from vidseg_core.errors import VidsegError
from vidseg_core.models.registry import find_weights
from vidseg_core.street.config import StreetConfig
from vidseg_ros.demo.results import SHEET, VIDEO, describe, summarise, write_pictures
from vidseg_ros.demo.session import Session, ros_environment

NAME = "demo"
SUMMARY = "summary.json"
EXIT_FAILED = 1
STREET_RATE_HZ = 30
LONGEST_STREET_S = 40.0
"""A longer demo sees the street again: rendering it takes longer than playing it."""
MEMORY_SHARE = 0.33
"""Of the free memory, for the frames that the camera shows: read while it plays, they would cost processor time."""

DESCRIPTION = f"""\
Play a source of frames as a camera into the node, through real DDS, and write what came out:
{VIDEO} (with dropped frames showing the overlay before them), {SHEET} and {SUMMARY}.
"""
EPILOG = """\
Exit status: 0 when all went well; 1 when no labels came, when their stamps are not those of the frames, or when one of
the processes failed; 2 when something given here cannot be used; 130 after Ctrl-C.

examples:
  demo                                           20 seconds of the synthetic street
  demo drive.mp4 --duration 60 --out drive_demo
  demo frames/ --labels frames_annot/ -p interval:=2 -p input_scale:=1.0
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        default=None,
        help="folder, video file, recording, or street:key=value,... (default: a street of 640 x 360 pixels at 30 Hz)",
    )
    parser.add_argument("--duration", type=seconds, default=20.0, metavar="S", help="how long (default: 20)")
    parser.add_argument("--out", default="demo_output", metavar="DIR", help="for the results (default: demo_output)")
    parser.add_argument(
        "--domain", type=domain, metavar="ID", help="ROS_DOMAIN_ID, 0 to 232 (default: one that depends on the process)"
    )
    group = parser.add_argument_group("source")
    group.add_argument("--rate", type=seconds, metavar="HZ", help="default: the source's own")
    group.add_argument("--topic", metavar="T", help="of a recording with several image topics")
    group.add_argument("--labels", metavar="DIR", help="ground truth of a folder, PNG files of the same names")
    group.add_argument("--classes", metavar="NAME|PATH", default="camvid", help="of those labels (default: camvid)")
    group = parser.add_argument_group("node")
    group.add_argument(
        "--weights",
        metavar="NAME|PATH",
        default=DEFAULT_WEIGHTS,
        help=f"segmentation network (default: {DEFAULT_WEIGHTS})",
    )
    group.add_argument(
        "-p",
        "--param",
        action="append",
        default=[],
        type=parameter,
        metavar="NAME:=VALUE",
        help="any parameter of the node (default: none, it finds out by itself what this computer keeps up with)",
    )
    return parser


def seconds(text: str) -> float:
    """Parse a finite number above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def domain(text: str) -> int:
    """Parse a ROS domain, for argparse."""
    if not 0 <= int(text) <= 232:
        raise argparse.ArgumentTypeError(f"expected 0 to 232, got {text}")
    return int(text)


def parameter(text: str) -> tuple[str, str]:
    """Parse name and value of a ROS parameter, for argparse."""
    name, sign, value = text.partition(":=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"expected NAME:=VALUE, got {text}")
    return name, value


def default_source(duration_s: float) -> str:
    """Name a synthetic street for that time, or for as much of it as is rendered in reasonable time."""
    frames = round(min(duration_s, LONGEST_STREET_S) * STREET_RATE_HZ)
    return str(StreetConfig(rate_hz=STREET_RATE_HZ, num_frames=max(1, frames)))


def fitting(source: str, duration_s: float, memory_bytes: float) -> str:
    """Shorten a synthetic street to that time, and to what the memory holds; what is longer is repeated."""
    if not source.startswith("street:"):
        return source
    street = StreetConfig.parse(source)
    held = int(memory_bytes / (4 * street.width * street.height))  # an image and its labels
    wanted = max(1, math.ceil(duration_s * street.rate_hz))
    return str(replace(street, num_frames=max(1, min(street.num_frames, wanted, held))))


def free_memory_bytes() -> int:
    """Return the memory that processes may still take, in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 4 << 30


def main(argv: list[str] | None = None) -> int:
    """Run the demo. Returns the exit status: see the help text."""
    options = build_parser().parse_args(argv)
    options.memory_mb = MEMORY_SHARE * free_memory_bytes() / 1e6
    options.parameters = {"weights": options.weights, **dict(options.param)}
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.default_int_handler)
    try:
        source = options.source or default_source(options.duration)
        options.source = fitting(source, options.duration, 1e6 * options.memory_mb)
        return run_demo(options)
    except (VidsegError, OSError) as error:
        print(f"{NAME}: error: {one_line(error)}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print(f"{NAME}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def run_demo(options: argparse.Namespace) -> int:
    """Run, write, and say what came of it. Returns the exit status."""
    weights = find_weights(options.weights)
    load_classes(options.classes)
    folder = output_folder(options.out)
    for earlier in (VIDEO, SHEET, SUMMARY):
        (folder / earlier).unlink(missing_ok=True)
    variables = ros_environment(options.domain)
    os.environ.update(variables)  # the middleware of this process reads them, too
    print(f"{options.source} for {options.duration:g} s; ROS_DOMAIN_ID={variables['ROS_DOMAIN_ID']}", file=sys.stderr)
    run = Session(options, folder, dict(os.environ)).run()
    summary = summarise(run, options, weights)
    write_json(folder / SUMMARY, summary)
    write_pictures(run, folder)
    print(f"{folder}: {describe(summary)}")
    for problem in run.problems():
        print(f"{NAME}: {problem}", file=sys.stderr)
    if run.failure:
        print(run.failure, file=sys.stderr)
    if run.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if run.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
