"""Count what a propagated frame costs besides its kernels, from a camera's message to what is published."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from vidseg_core.data.encodings import to_rgb
from vidseg_core.data.wire import ImageWriter, parse_image
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.remember import RememberedSegmenter, by_name
from vidseg_core.evaluation.bench.against_plain import OPACITY, STEP_NS, street_frames
from vidseg_core.evaluation.bench.propagated import INTERVAL, Case
from vidseg_core.frame import Frame, Segmentation
from vidseg_core.overlay import overlay

CASES = (Case((240, 320), 2),)
ENCODING = "bgr8"
_LOCKS = (type(threading.Lock()), type(threading.RLock()), SimpleQueue)
# Of the functions of locks and queues: those that may wait.
_TAKING = ("acquire", "__enter__", "put", "get")


def bench_counts(config: EngineConfig, cases: Iterable[Case] = CASES) -> dict:
    """Count calls, locks and memory of one propagated frame, in the thread that labels it.

    The message is a sensor_msgs/Image in bgr8. Neither refinement nor updates are counted, nor is ROS itself.

    Args:
        config: weights, runtime and threads; the network sees one key frame.
        cases: sizes and grids.

    Returns:
        JSON-safe: `rows`: `case`, `part`, `python` and `builtin` (calls of functions), `locks` (calls of theirs or of
        queues' that may wait; those of `with` statements alone are not seen), `pictures` (most memory of arrays that
        the part has at once beyond what it was given, in units of H x W x 3 bytes).
    """
    rows = []
    with build_engine(config) as engine:
        segmenter = RememberedSegmenter(engine.networks.segmenter, recognise=by_name)
        for case in cases:
            settings: dict[str, Any] = {"interval": INTERVAL, "grid_stride": case.grid_stride, "fusion": False}
            of_case = engine.variant(replace(config, flow="dis", ego_mask=None, **settings), segmenter=segmenter)
            way = _Way(of_case.stream(key_delay=0), street_frames(case.size, INTERVAL), engine.classes.lut)
            for _ in range(3):  # a key frame first; then all kernels are loaded and memory is there
                way.go(_call)
            counted: dict[str, dict] = {}
            way.go(partial(_counted, counted))
            for part, found in counted.items():
                rows.append({"case": case.name, "part": part} | found | {"pictures": 0.0})
            measured: dict[str, int] = {}
            way.go(partial(_measured, measured))
            for row in rows[-len(counted) :]:
                row["pictures"] = measured[row["part"]] / (3 * case.size[0] * case.size[1])
    return {"rows": rows}


class _Way:
    """The way of frames through the core, part by part."""

    def __init__(self, stream: Any, frames: list[Frame], lut: np.ndarray):
        self._stream, self._lut = stream, lut
        self._frames, self._number = frames, 0
        self._writer, self._memory = ImageWriter(), {name: bytearray() for name in ("labels", "overlay")}

    def go(self, call: Callable[[str, Callable[[], Any]], Any]) -> None:
        """Take the next frame through all parts; `call` is given each and returns what it returns."""
        frame = self._frames[self._number % len(self._frames)]
        pixels, number = np.ascontiguousarray(frame.image[..., ::-1]), self._number
        self._number += 1
        header = parse_image(ImageWriter().serialise(_Header(number * STEP_NS), ENCODING, pixels))
        message = ImageWriter().serialise(header, ENCODING, pixels)

        def read() -> Frame:
            view = parse_image(message)
            return Frame(to_rgb(view), view.stamp_ns, name=frame.name)

        read_frame: Frame = call("message read", read)
        result: Segmentation = call("labelled", lambda: self._stream.step(read_frame))
        drawn = call("overlay drawn", lambda: overlay(read_frame.image, result.labels, self._lut, OPACITY))
        for name, encoding, array in (("labels", "mono8", result.labels), ("overlay", "rgb8", drawn)):
            self._writer.write(self._memory[name], header, encoding, array)  # makes room
            call(f"{name} written", lambda name=name, encoding=encoding, array=array: self._writer.write(
                self._memory[name], header, encoding, array
            ))  # fmt: skip


class _Header:
    """A header of a message."""

    frame_id = "camera"

    def __init__(self, stamp_ns: int):
        self.stamp = self
        self.sec, self.nanosec = divmod(stamp_ns, 1_000_000_000)


def _call(part: str, work: Callable[[], Any]) -> Any:
    return work()


def _counted(counts: dict[str, dict], part: str, work: Callable[[], Any]) -> Any:
    seen: Counter[str] = Counter()

    def note(frame: Any, event: str, called: Any) -> None:
        if event == "call":
            seen["python"] += 1
        elif event == "c_call":
            seen["builtin"] += 1
            if called.__name__ in _TAKING and isinstance(getattr(called, "__self__", None), _LOCKS):
                seen["locks"] += 1

    sys.setprofile(note)
    try:
        found = work()
    finally:
        sys.setprofile(None)
    # `work` itself, and the function that ends the counting.
    counts[part] = {"python": seen["python"] - 1, "builtin": seen["builtin"] - 1, "locks": seen["locks"]}
    return found


def _measured(memory: dict[str, int], part: str, work: Callable[[], Any]) -> Any:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = work()
        memory[part] = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    return found


def table(report: dict) -> str:
    """Format the report as text."""
    lines, case = [], None
    for row in report["rows"]:
        if row["case"] != case:
            case = row["case"]
            lines.append(f"{case:<36}{'Python':>8}{'built-in':>10}{'locks':>7}{'pictures':>10}")
        counts = f"{row['python']:8}{row['builtin']:10}{row['locks']:7}{row['pictures']:10.2f}"
        lines.append(f"  {row['part']:<34}{counts}")
    return "\n".join(lines)
