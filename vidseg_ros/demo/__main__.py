"""Run the demo as `python -m vidseg_ros.demo`."""

import sys

from vidseg_ros.interruption import end_at_signal

if __name__ == "__main__":
    end_at_signal("demo", exit_code=130)
    from vidseg_ros.demo.main import main

    sys.exit(main())
