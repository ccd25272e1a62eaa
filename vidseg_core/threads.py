"""One thread budget for everything that computes: torch, OpenCV and this project's own kernels.

Kernels are compiled single-threaded and without the GIL; a picture is cut into bands of rows that a shared pool works
on. (Numba's own threading layer is not used: where only its work queue is available, two Python threads entering it at
once end the process.)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_pool: ThreadPoolExecutor | None = None
_num_threads = 1


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
            _pool = ThreadPoolExecutor(num_threads - 1, thread_name_prefix="vidseg-rows")
        if previous is not None:
            previous.shutdown(wait=False)
    return num_threads


def over_rows(kernel: Callable, rows: int, *arguments) -> None:
    """Run `kernel(begin, end, *arguments)` over bands that together make up `range(rows)`, and wait for all of them."""
    pool, bands = _pool, min(_num_threads, rows)
    if pool is None or bands < 2:
        kernel(0, rows, *arguments)
        return
    edges = [rows * band // bands for band in range(bands + 1)]
    others = [pool.submit(kernel, edges[band], edges[band + 1], *arguments) for band in range(1, bands)]
    kernel(0, edges[1], *arguments)
    for other in others:
        other.result()
