"""Processes that a program starts before it loads its own libraries. Imports little itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress


def start_segmenter(arguments: Sequence[str]) -> bool:
    """Start the process in which an engine may segment, unless the command line asks for no engine.

    Args:
        arguments: of the command line.

    Returns:
        Whether they ask for an engine.
    """
    if any(one.endswith("engine:=pass_through") for one in arguments):
        return False
    with suppress(ImportError):  # configure says what is missing
        from vidseg_core.engine.key_frames import spare

        spare.prepare()
    return True
