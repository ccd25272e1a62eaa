"""One thread budget for everything that computes: torch, OpenCV and this project's own kernels.

Kernels are compiled single-threaded and without the GIL; a picture is cut into bands of rows that a shared pool works
on. (Numba's own threading layer is not used: where only its work queue is available, two Python threads entering it at
once end the process.)
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from vidseg_core.arrays import torch_attribute

_pool: Pool | None = None
_num_threads = 1
_is_set = False
_all_threads = False
_processor = ctypes.PyDLL(None).sched_getcpu  # keeps the interpreter's lock: it takes less time than giving it back

# Two for each thread: where only one is there in time, it has computed half of the other's share before it waits.
BANDS_EACH = 2

# One thread for each so many microseconds of work: waking another one up and waiting for it takes about half of that.
# Measured with kernels of 20 to 2000 microseconds on one thread and on two, in turn (`vidseg bench threads`).
WORTH_US = 100.0

log = logging.getLogger(__name__)


def available_threads() -> int:
    """Count the processors that this process may keep busy, 1 or more.

    The smallest of: the processors that it may run on; the CPU quota of its control groups, rounded down, since threads
    beyond a quota make the kernel stop all of them for the rest of each period; OMP_NUM_THREADS, which Ray, Slurm and
    torchrun set for each of many processes on one machine.
    """
    limits = (len(os.sched_getaffinity(0)), cpu_quota(), _environment_threads())
    return max(1, math.floor(min(limit for limit in limits if limit is not None)))


def cpu_quota(membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Read the CPU time per unit of time that control groups allow this process; None for no limit.

    Args:
        membership: lines `hierarchy:controllers:path`, see cgroups(7).
        root: where control groups are mounted, version 1 or 2.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts, read = (root, root / "unified"), _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, read = (root / controllers, root / "cpu"), _quota_v1
        else:
            continue
        # Groups above limit it, too. In a container the path may be the host's: then only the mount itself is there.
        group = Path(path.lstrip("/"))
        quotas += [read(mount / part) for mount in mounts for part in (group, *group.parents)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        quota, period = (
            int((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii")) for name in ("quota", "period")
        )
        return quota / period if quota > 0 else None  # -1 is no limit
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _environment_threads() -> int | None:
    """Read OMP_NUM_THREADS; of a list for nested levels the first. OpenMP ignores what is no number above 0, too."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def set_num_threads(num_threads: int = 0) -> int:
    """Set the budget for the whole process; 0 takes `available_threads`. Returns the budget.

    Raises:
        ValueError: negative.
    """
    global _pool, _num_threads, _is_set
    if num_threads < 0:
        raise ValueError(f"num_threads: expected 0 (all) or more, got {num_threads}")
    num_threads = num_threads or available_threads()
    import cv2

    cv2.setNumThreads(num_threads)
    if num_threads != _num_threads:
        previous, _pool = _pool, None
        _num_threads = num_threads
        if num_threads > 1:
            _pool = Pool(num_threads - 1)
        if previous is not None:
            previous.close()
    _is_set = True
    tell_torch()
    return num_threads


def tell_torch() -> None:
    """Give PyTorch the budget, if one was set and PyTorch is loaded; whoever loads it later calls this."""
    set_threads = torch_attribute("set_num_threads")
    if _is_set and set_threads is not None:
        set_threads(_num_threads)


class Pool:
    """Threads that help others, and do not run where those do.

    Linux may wake a thread on the very processor of the one that wakes it, and leave it there for as long as a frame
    takes, although another one sleeps (in a virtual machine it takes sleeping processors for ones that the host has
    lent to somebody else). Then help is no help.
    """

    def __init__(self, num_threads: int):
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix="vidseg-rows", initializer=self._register)
        self._threads: set[int] = set()
        self._kept_off: int | None = None
        self._steers = True
        self._most = 2 * num_threads
        self._unstarted: deque[None] = deque()

    def submit(self, function: Callable[[], object]) -> Future | None:
        """Have one of the threads call it; None where they have not come to what they were given before."""
        if len(self._unstarted) >= self._most:
            return None
        self._unstarted.append(None)
        return self._executor.submit(self._start, function)

    def keep_off(self, processor: int) -> None:
        """Let the threads run anywhere but there, if the calling thread may run anywhere else."""
        if processor != self._kept_off:
            self._kept_off = processor
            for thread in tuple(self._threads):
                self._steer(thread)

    def close(self) -> None:
        """End the threads once they are idle."""
        self._executor.shutdown(wait=False)

    def _start(self, function: Callable[[], object]) -> object:
        self._unstarted.pop()
        return function()

    def _register(self) -> None:
        thread = threading.get_native_id()
        self._threads.add(thread)
        if self._kept_off is not None:
            self._steer(thread)

    def _steer(self, thread: int) -> None:
        try:
            elsewhere = os.sched_getaffinity(0) - {self._kept_off}
            if self._steers and elsewhere:
                os.sched_setaffinity(thread, elsewhere)
        except ProcessLookupError:  # it has ended
            self._threads.discard(thread)
        except OSError as error:
            self._steers = False
            log.warning("helping threads run where the system puts them: %s", error.strerror)


def over_rows(kernel: Callable, rows: int, *arguments, work_us: float = math.inf) -> None:
    """Run `kernel(begin, end, *arguments)` over bands that together make up `range(rows)`, and wait for all of them.

    Args:
        kernel: computes rows `begin` to `end`, without the interpreter's lock.
        rows: their number.
        arguments: for the kernel.
        work_us: microseconds that one thread takes for all rows, about: `WORTH_US` for each thread. By default there is
            enough for all of them.

    Whoever has time takes the next band: a helper that wakes up late is not waited for. So results must not depend on
    where bands begin, nor on their order.

    Raises:
        Exception: the first thing that `kernel` has raised, once no band is under way.
    """
    pool, threads = _pool, worth(work_us)
    count = min(threads * BANDS_EACH, rows)
    if pool is None or threads < 2 or count < 2:
        kernel(0, rows, *arguments)
        return
    pool.keep_off(_processor())
    bands = _Bands(kernel, rows, count, arguments)
    for _ in range(min(threads, count) - 1):
        pool.submit(bands.take)
    bands.take()
    bands.wait()


def num_threads() -> int:
    """Return the budget, see `set_num_threads`."""
    return _num_threads


def worth(work_us: float) -> int:
    """Return how many threads are worth it, 1 or more, for work that takes one thread so many microseconds."""
    return _num_threads if _all_threads else int(max(1.0, min(float(_num_threads), work_us / WORTH_US)))


@contextmanager
def regardless(all_threads: bool = True) -> Iterator[None]:
    """Have all threads share all work, be it worth it or not: to measure what is worth it."""
    global _all_threads
    before, _all_threads = _all_threads, all_threads
    try:
        yield
    finally:
        _all_threads = before


def together(work: Callable[[], None], threads: int) -> None:
    """Call `work` here, and at the same time in the pool's threads, as far as they have nothing else to do.

    It shares out among its calls what there is to do: here it must return once that is done, in a thread that comes
    late there may be nothing left. What it raises in another thread is not seen here; it has to tell by itself.

    Args:
        work: as said.
        threads: how many, this one included, see `worth`.
    """
    if (pool := _pool) is not None and threads > 1:
        pool.keep_off(_processor())
        for _ in range(threads - 1):
            pool.submit(work)
    work()


class _Bands:
    def __init__(self, kernel: Callable, rows: int, count: int, arguments: tuple):
        self._kernel, self._arguments = kernel, arguments
        self._left = [(rows * band // count, rows * (band + 1) // count) for band in range(count)]
        self._count = count
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()

    def take(self) -> None:
        """Compute bands until none is left."""
        while self._left:
            try:
                begin, end = self._left.pop()
            except IndexError:  # somebody else was faster
                return
            try:
                self._kernel(begin, end, *self._arguments)
            except BaseException as error:  # whoever waits raises it
                self._done.put(error)
            else:
                self._done.put(None)

    def wait(self) -> None:
        errors = [error for error in (self._done.get() for _ in range(self._count)) if error is not None]
        self._arguments = ()  # a helper that comes later must not keep them
        if errors:
            raise errors[0]
