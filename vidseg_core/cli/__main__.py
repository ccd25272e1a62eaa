"""`python -m vidseg_core.cli`: the command line."""

import sys

from vidseg_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
