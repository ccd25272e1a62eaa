"""Run the camera player as `python -m vidseg_ros.player`."""

import sys

from vidseg_ros.player.camera_player import main

if __name__ == "__main__":
    sys.exit(main())
