"""Memory that is given back to the system: what the C library keeps when it is freed, and code that is done with."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

# Of mallopt(3), from malloc.h, and the size in bytes from which memory goes back as soon as it is freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = 1 << 20
_DONTNEED = 4  # of madvise(2), from sys/mman.h


def give_back_at_once() -> None:
    """Have this process give back large blocks when it frees them, where the C library can be told so (glibc).

    By itself glibc keeps ever larger ones for later; for a network that is loaded once there is no later.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(_MMAP_THRESHOLD, _LARGE)
    mallopt(_TRIM_THRESHOLD, _LARGE)


def give_back_free_memory() -> None:
    """Give memory that this process has freed back to the system, where the C library can (glibc).

    Loading and compiling a network takes several times the memory that it needs afterwards.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # another C library, which keeps less
        return
    trim(0)


def give_back_code(libraries: str) -> None:
    """Give back the memory that holds code of loaded libraries; pages that are executed again are mapped again.

    A compiler executes most of its code when it is loaded, or loads a network, and never after that. Only code is
    given back: nobody has written to it, so that its file has it still. Where the system is not Linux nothing happens.

    Args:
        libraries: a regular expression that is searched for in the names of their files. Where they lie is looked up
            once: they have to stay loaded, as something else may come to lie there otherwise.
    """
    with suppress(AttributeError):  # another system
        for begin, length in _code_of(libraries):
            _madvise()(begin, length, _DONTNEED)


@cache
def _code_of(libraries: str) -> tuple[tuple[int, int], ...]:
    """Address and length in bytes of the code of loaded libraries."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return ()
    name = re.compile(libraries)
    found = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) r-xp .*/([^/\n]+)$", maps, re.MULTILINE)
    return tuple((int(begin, 16), int(end, 16) - int(begin, 16)) for begin, end, file in found if name.search(file))


@cache
def _madvise():
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return madvise
