"""Run the demo as `python -m vidseg_ros.demo`."""

import sys

from vidseg_ros.demo.main import main

if __name__ == "__main__":
    sys.exit(main())
