"""Processes that do not outlive the one that started them, however that one ends."""

from __future__ import annotations

import os
import signal

PR_SET_PDEATHSIG = 1


def tether(number: signal.Signals, *, is_silent: bool = False) -> str:
    """Return Python source that a new process runs first: the kernel then sends it `number` with its parent's end.

    The parent is the process that calls this. For Linux it is the *thread* that started the process; it must live on.
    It ends the process with one line, or without where `is_silent`, if the parent has ended already.
    The source needs no package of ours, since a new process may first have to be told where those are.
    """
    last_words = 1 if is_silent else "the program that started this one is gone"
    return f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(number)})
if os.getppid() != {os.getpid()}:  # it was too late for that
    sys.exit({last_words!r})
"""
