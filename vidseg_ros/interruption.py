"""Signals that end a program: while it loads its libraries, while it works, and when it is ending anyway.

Imports nothing that takes time, so that a program can begin with it. Ctrl-C under `ros2 launch` is two signals: one
from the terminal, which every process gets, and one from `launch`.
"""

from __future__ import annotations

import os
import signal
import time

ENDING = (signal.SIGINT, signal.SIGTERM)
SAME_S = 1.0
"""A signal that comes so soon after another is the same wish."""


def end_at_signal(program: str, exit_code: int = 0) -> None:
    """End the process with one line on standard error when SIGINT or SIGTERM comes.

    For the time in which there is nothing to finish yet; whoever has something to finish takes the handlers over. A
    signal that came before, and was held back by whoever started the process, comes now.

    Args:
        program: name that the line begins with.
        exit_code: what the process ends with. `launch` reports any but 0 as an error.
    """

    def end(number: int, frame: object) -> None:
        name = signal.Signals(number).name
        os.write(2, f"{program}: ended by {name} while it was starting\n".encode())
        os._exit(exit_code)

    for one in ENDING:
        signal.signal(one, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def interrupt_at_signal() -> None:
    """Raise KeyboardInterrupt in the main thread when SIGINT or SIGTERM comes; another right after it is ignored."""
    last_s = float("-inf")

    def interrupt(number: int, frame: object) -> None:
        nonlocal last_s
        before_s, last_s = last_s, time.monotonic()
        if last_s - before_s >= SAME_S:
            raise KeyboardInterrupt

    for one in ENDING:
        signal.signal(one, interrupt)


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM, as the process is ending; Python itself would die of one while it is taken down."""
    for one in ENDING:
        signal.signal(one, signal.SIG_IGN)
