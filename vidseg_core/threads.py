"""One thread budget for everything that computes: torch, OpenCV and this project's own kernels.

Kernels are compiled single-threaded and without the GIL; a picture is cut into bands of rows that a shared pool works
on. (Numba's own threading layer is not used: where only its work queue is available, two Python threads entering it at
once end the process.)
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_pool: Pool | None = None
_num_threads = 1
_processor = ctypes.CDLL(None).sched_getcpu


def available_threads() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0))


def set_num_threads(num_threads: int = 0, opencv: int | None = None) -> int:
    """Set the budget for the whole process; 0 means every processor available. Returns the budget.

    Args:
        opencv: OpenCV's own budget, 1 or more, where it differs.

    Raises:
        ValueError: negative.
    """
    global _pool, _num_threads
    if num_threads < 0:
        raise ValueError(f"num_threads: expected 0 (all) or more, got {num_threads}")
    num_threads = num_threads or available_threads()
    import cv2
    import torch

    torch.set_num_threads(num_threads)
    cv2.setNumThreads(opencv or num_threads)
    if num_threads != _num_threads:
        previous, _pool = _pool, None
        _num_threads = num_threads
        if num_threads > 1:
            _pool = Pool(num_threads - 1)
        if previous is not None:
            previous.close()
    return num_threads


class Pool:
    """Threads that help others, and do not run where those do.

    Linux may wake a thread on the very processor of the one that wakes it, and leave it there for as long as a frame
    takes, although another one sleeps (in a virtual machine it takes sleeping processors for ones that the host has
    lent to somebody else). Then help is no help.
    """

    def __init__(self, num_threads: int):
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix="vidseg-rows", initializer=self._register)
        self._allowed = os.sched_getaffinity(0)
        self._threads: set[int] = set()
        self._kept_off: int | None = None

    def submit(self, function: Callable, *arguments) -> Future:
        return self._executor.submit(function, *arguments)

    def keep_off(self, processor: int) -> None:
        """Let the threads run anywhere but there, if there is anywhere else."""
        elsewhere = self._allowed - {processor}
        if processor != self._kept_off and elsewhere:
            self._kept_off = processor
            for thread in tuple(self._threads):
                os.sched_setaffinity(thread, elsewhere)

    def close(self) -> None:
        """End the threads once they are idle."""
        self._executor.shutdown(wait=False)

    def _register(self) -> None:
        self._threads.add(threading.get_native_id())
        if self._kept_off is not None:
            os.sched_setaffinity(0, self._allowed - {self._kept_off})


def over_rows(kernel: Callable, rows: int, *arguments) -> None:
    """Run `kernel(begin, end, *arguments)` over bands that together make up `range(rows)`, and wait for all of them."""
    pool, bands = _pool, min(_num_threads, rows)
    if pool is None or bands < 2:
        kernel(0, rows, *arguments)
        return
    pool.keep_off(_processor())
    edges = [rows * band // bands for band in range(bands + 1)]
    others = [pool.submit(kernel, edges[band], edges[band + 1], *arguments) for band in range(1, bands)]
    kernel(0, edges[1], *arguments)
    for other in others:
        other.result()
