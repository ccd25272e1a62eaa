"""The C library's memory: what is freed is not always given back."""

from __future__ import annotations

import ctypes

# Of mallopt(3), from malloc.h, and the size in bytes from which memory goes back as soon as it is freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE = 1 << 20


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
