"""Say how good and how fast a node is, from what a camera player and the node publish.

`replay.launch.py` starts it beside both; `ros2 run vidseg_ros score`, or `python -m vidseg_ros.demo.score`.
"""

from __future__ import annotations

if __name__ == "__main__":  # what follows takes a second to load
    from vidseg_ros.interruption import end_at_signal

    end_at_signal("score")

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rclpy.utilities import remove_ros_args

from vidseg_core.classes import load_classes
from vidseg_core.cli.main import EXIT_ERROR, one_line
from vidseg_core.data.writers import write_json
from vidseg_core.errors import VidsegError
from vidseg_ros.demo.listener import Listener
from vidseg_ros.demo.recording import MOST_BYTES, Recording
from vidseg_ros.demo.results import Run, describe, figures
from vidseg_ros.demo.session import QUIET_S, REPORT_S, Display, Signals
from vidseg_ros.interruption import ignore_signals, interrupt_at_signal

NAME = "score"
EXIT_FAILED = 1
TURN_S = 0.1

DESCRIPTION = """\
Wait for a camera_player that was started with `--wait-for image_raw camera_info`, and for the node; let the camera
begin, follow both until it ends, and print how many frames got labels, how fast, and their mIoU where the camera has
ground truth.
"""
EPILOG = """\
Exit status: 0 when all went well, and after Ctrl-C; 1 when no labels came or their stamps are not those of the frames;
2 when something given here cannot be used.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--namespace", default="/camera", help="of the camera and the node (default: /camera)")
    parser.add_argument("--classes", metavar="NAME|PATH", default="camvid", help="of the truth (default: camvid)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser


def listen(namespace: str, folder: Path) -> Run:
    """Follow a run to its end; Ctrl-C ends it with what has come so far."""
    recording = Recording(folder, min(MOST_BYTES, shutil.disk_usage(folder).free // 2))
    display = Display(sys.stderr)
    with Listener(namespace, recording, with_overlays=False) as listener, Signals() as signals:

        def turn() -> bool:
            listener.turn(TURN_S)
            return not signals.received

        display.print("waiting for the camera, which reads its frames, and for the node, which loads its network")
        while turn() and not listener.is_ready():
            pass
        listener.start_camera()
        while turn() and listener.has_camera():
            display.update(listener.live_line)
        if not signals.received:
            listener.turn_until_quiet(QUIET_S)
            reports, end_s = listener.num_reports + 2, time.monotonic() + REPORT_S  # one may be under way
            while listener.num_reports < reports and time.monotonic() < end_s and turn():
                pass
            listener.turn_until_idle(turn)
        display.close()
        return Run(
            recording=recording,
            diagnostics=listener.diagnostics,
            device=listener.device,
            rmw=listener.rmw,
            classes=listener.classes,
            interrupted=signals.received,
            failure=None,
        )


def main(argv: list[str] | None = None) -> int:
    """Follow one run. Returns the exit status: see the help text.

    Args:
        argv: command line without the program's name; None takes the process's.
    """
    argv = sys.argv if argv is None else [NAME, *argv]
    options = build_parser().parse_args(remove_ros_args(argv)[1:])
    try:
        interrupt_at_signal()
        classes = load_classes(options.classes)
        run = listen(options.namespace, Path(tempfile.gettempdir()))
        result = figures(run, classes)
        print(f"{options.namespace}: {describe(result)}", flush=True)
        if options.json is not None:
            write_json(options.json, result)
    except (VidsegError, OSError) as error:
        print(f"{NAME}: error: {one_line(error)}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return 0
    finally:
        ignore_signals()
    if run.interrupted:  # by the user, or by a launch that ends: what is missing then is no fault
        return 0
    for problem in result["problems"]:
        print(f"{NAME}: {problem}", file=sys.stderr)
    return EXIT_FAILED if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
