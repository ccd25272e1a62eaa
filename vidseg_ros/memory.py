"""Memory of a process that handles images: what is freed stays with it, and its garbage is found without a search.

An image on its way through a process is copied into six or seven buffers of megabytes, by rclpy and DDS. As it comes,
glibc gives such buffers back to the kernel when they are freed and asks for fresh ones, whose pages are then zeroed and
mapped one by one, at every image: half of the time that an image of 2048 x 1024 takes from camera to node and back.
"""

from __future__ import annotations

import ctypes
import gc

from rclpy.logging import get_logger

# Of mallopt(3), from malloc.h. The numbers are bytes, of heaps their number.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_SETTINGS = {
    _MMAP_THRESHOLD: 32 << 20,  # the most that glibc takes: larger blocks are mapped and unmapped each time
    _TRIM_THRESHOLD: 256 << 20,  # what may lie free
    _TOP_PAD: 64 << 20,  # as much as a thread's heap has: an empty one is kept, too
    _ARENA_MAX: 2,  # a heap for each of a dozen threads would keep what it once held
}


def keep_freed_memory() -> None:
    """Have this process reuse the memory that it frees, up to 256 MB. To be called before it has threads."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        get_logger("vidseg_ros").info("no mallopt in this C library: memory of images is not kept, which costs time")
        return
    for parameter, num_bytes in _SETTINGS.items():
        if not mallopt(parameter, num_bytes):
            get_logger("vidseg_ros").info(f"mallopt({parameter}, {num_bytes}) is refused: images cost more time")


def leave_out_what_lives() -> None:
    """Have Python's garbage collector leave out all objects that there are, until `gc.unfreeze()`.

    rclpy leaves a little garbage in cycles each time that it waits. Python looks for it among all objects of the
    process, some milliseconds long, while a message waits to be taken.
    """
    gc.collect()
    gc.freeze()
