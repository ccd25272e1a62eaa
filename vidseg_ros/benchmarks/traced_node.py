"""The node, with notes of when it does what with which frame: what `bench_where` starts.

A line on standard input has it tell its notes as a line of JSON on standard output, and the end of standard input
nothing: it ends by a signal, as the node does.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from vidseg_core.data.wire import ImageWriter, parse_header
from vidseg_ros import node, rcl
from vidseg_ros.benchmarks.where import PROCESS, PUBLISH, TAKE, WRITE
from vidseg_ros.camera import Camera

NOTES: list[tuple[str, int, int, int]] = []
"""Name, stamp of the frame, begin and end, in ns (system clock)."""


def noting(name: str, work: Callable, stamp_of: Callable[[tuple, Any], int | None]) -> Callable:
    """Wrap a function so that each of its calls is noted.

    Args:
        name: of the note.
        work: the function.
        stamp_of: finds the frame's stamp from the arguments and the result; None where there is no frame.
    """

    def wrapped(*arguments):
        begin_ns = time.time_ns()
        result = work(*arguments)
        end_ns = time.time_ns()
        stamp_ns = stamp_of(arguments, result)
        if stamp_ns is not None:
            NOTES.append((name, stamp_ns, begin_ns, end_ns))
        return result

    return wrapped


def header_ns(header: Any) -> int:
    """Return a header's stamp in ns."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def answer() -> None:
    """Tell the notes for every line that comes."""
    for _ in sys.stdin:
        print(json.dumps({"event": "notes", "notes": NOTES}), flush=True)


def main() -> None:
    rcl.take = noting(TAKE, rcl.take, lambda given, taken: None if taken is None else parse_header(taken)[0])
    rcl.publish = noting(PUBLISH, rcl.publish, lambda given, _: parse_header(given[1])[0])
    ImageWriter.write = noting(WRITE, ImageWriter.write, lambda given, _: header_ns(given[2]))
    Camera.process = noting(PROCESS, Camera.process, lambda given, _: parse_header(given[1].message)[0])
    threading.Thread(target=answer, daemon=True).start()
    node.program()


if __name__ == "__main__":
    main()
