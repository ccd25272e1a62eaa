"""Done before a program loads its libraries. Imports little itself."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import suppress


def put_off_collecting() -> None:
    """Have Python look for no garbage until `gc.enable()`.

    What is loaded at the start stays, and there is ever more of it: to look through all of it again and again takes an
    eighth of the time.
    """
    gc.disable()


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
