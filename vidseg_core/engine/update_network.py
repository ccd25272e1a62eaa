"""The update network that a governor may use: in a process of its own, which exists only while it is wanted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np

from vidseg_core.arrays import Array
from vidseg_core.engine.key_frames.process import SegmenterProcess
from vidseg_core.frame import Frame

log = logging.getLogger(__name__)
TRIALS = 5
"""Calls of which the shortest tells what a call takes."""
POLL_S = 0.25
"""How often the process is asked whether the network is compiled."""
COMPILES_S = 120.0
"""A network that is not compiled after so long is not used."""
Size = tuple[int, int]


class UpdateNetwork:
    """An update network whose process begins when it is first asked for; see `Segmenter`.

    Its methods never wait but for a call of the network itself: a thread starts the process, has the network compiled
    there for pictures of each size, and measures what a call takes.

    Args:
        start: starts the process.
        num_classes: of the network.
        half_pixel: see `Capabilities`.
    """

    def __init__(self, start: Callable[[], SegmenterProcess], num_classes: int, half_pixel: bool):
        self._start = start
        self.num_classes = num_classes
        self.half_pixel = half_pixel
        self._process: SegmenterProcess | None = None
        self._costs_s: dict[Size, float] = {}  # of a call, for pictures of the sizes that it is ready for
        self._refused: set[Size] = set()
        self._getting_ready: threading.Thread | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __call__(self, frame: Frame) -> Array:
        """Raises RuntimeError: it is not ready; or see `SegmenterProcess`, then it has to be made ready again."""
        process = self._process
        if process is None:
            raise RuntimeError("the update network is not ready")
        try:
            return process(frame)
        except RuntimeError:
            self.let_go()
            raise

    def costs_s(self, sizes: Iterable[Size]) -> float | None:
        """Return what a call takes for pictures of these sizes, (H, W), at most, in seconds; None until it is ready."""
        found = [self._costs_s.get(size) for size in sizes]
        known = [seconds for seconds in found if seconds is not None]
        return max(known) if known and len(known) == len(found) else None

    def refuses(self, sizes: Iterable[Size]) -> bool:
        """Tell if it cannot be made ready for pictures of all these sizes, as it has failed for one of them."""
        return not self._refused.isdisjoint(sizes)

    def ask(self, sizes: Iterable[Size]) -> None:
        """Have it made ready for pictures of these sizes, one after the other."""
        missing = [size for size in sizes if size not in self._costs_s and size not in self._refused]
        if missing and self._getting_ready is None and not self._ended.is_set():
            # A daemon: a compiler that hangs must not keep the process from ending.
            self._getting_ready = threading.Thread(
                target=self._get_ready, args=(missing[0],), name="vidseg-update", daemon=True
            )
            self._getting_ready.start()

    def let_go(self) -> None:
        """End its process, if it has one and is not being made ready."""
        if self._getting_ready is None and self._process is not None:
            self._end_process()

    def close(self) -> None:
        """End its process for good. May be called again."""
        self._ended.set()
        self._end_process()

    def _end_process(self) -> None:
        with self._lock:
            process, self._process = self._process, None
            self._costs_s = {}
        if process is not None:
            process.close()

    def _get_ready(self, size: Size) -> None:
        try:
            if self._costs_s:
                # Where one is in use another one compiles, so that frames need not wait for the compiler.
                other = self._start()
                try:
                    self._compile(other, size)
                finally:
                    other.close()
            elif self._compile(self._take_process(), size):
                # The compiler has left much memory behind, and what it compiled is kept.
                self._end_process()
            if self._ended.is_set():
                return
            process = self._take_process()
            frame = Frame(np.zeros((*size, 3), np.uint8), stamp_ns=0)
            cost_s = min(_seconds(process, frame) for _ in range(TRIALS))
            with self._lock:
                if self._process is process:
                    self._costs_s = self._costs_s | {size: cost_s}
        except Exception as error:
            self._refused.add(size)
            if not self._costs_s:
                self._end_process()
            if not self._ended.is_set():
                log.warning("the update network is not used for pictures of %d x %d: %s", size[1], size[0], error)
        finally:
            self._getting_ready = None

    def _compile(self, process: SegmenterProcess, size: Size) -> bool:
        """Wait until the network is ready there, or this is closed; return whether it had to be compiled."""
        had_to, end_s = False, time.monotonic() + COMPILES_S
        while not process.prepare(size):
            had_to = True
            if self._ended.wait(POLL_S):
                break
            if time.monotonic() > end_s:
                raise RuntimeError(f"it is not compiled after {COMPILES_S:.0f} s")
        return had_to

    def _take_process(self) -> SegmenterProcess:
        """Return the process; another one is started where there is none."""
        process = self._process or self._start()
        with self._lock:
            self._process = process
        if self._ended.is_set():
            process.close()
        return process


def _seconds(process: SegmenterProcess, frame: Frame) -> float:
    begun_s = time.perf_counter()
    process(frame)
    return time.perf_counter() - begun_s
