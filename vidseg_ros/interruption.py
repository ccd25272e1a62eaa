"""A signal that comes while a program still loads its libraries: one line instead of a traceback of imports.

Imports nothing that takes time, so that a program can begin with it.
"""

from __future__ import annotations

import os
import signal


def end_at_signal(program: str, exit_code: int = 0) -> None:
    """End the process with one line on standard error when SIGINT or SIGTERM comes.

    For the time in which there is nothing to finish yet; whoever has something to finish takes the handlers over.

    Args:
        program: name that the line begins with.
        exit_code: what the process ends with. `launch` reports any but 0 as an error.
    """

    def end(number: int, frame: object) -> None:
        name = signal.Signals(number).name
        os.write(2, f"{program}: ended by {name} while it was starting\n".encode())
        os._exit(exit_code)

    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, end)
