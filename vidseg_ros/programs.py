"""The installed programs: each is ready for a signal before it loads its libraries."""

import sys

from vidseg_ros.ahead import start_segmenter
from vidseg_ros.interruption import end_at_signal


def vidseg_node() -> None:
    """Run the node until it ends."""
    end_at_signal("vidseg_node")
    start_segmenter(sys.argv)
    from vidseg_ros.node import program

    program()


def camera_player() -> int:
    """Play a source as a camera. Returns the exit status."""
    end_at_signal("camera_player")
    from vidseg_ros.player.camera_player import main

    return main()


def score() -> int:
    """Score a run. Returns the exit status."""
    end_at_signal("score")
    from vidseg_ros.demo.score import main

    return main()


def demo() -> int:
    """Run the demo. Returns the exit status."""
    end_at_signal("demo", exit_code=130)
    from vidseg_ros.demo.main import main

    return main()
