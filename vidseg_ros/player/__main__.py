"""Run the camera player as `python -m vidseg_ros.player`."""

import sys

from vidseg_ros.interruption import end_at_signal

if __name__ == "__main__":
    end_at_signal("camera_player")
    from vidseg_ros.player.camera_player import main

    sys.exit(main())
