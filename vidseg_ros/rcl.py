"""Serialized messages to and from the middleware, by rcl itself: rclpy copies each of them once more on its way.

`publish` takes a string, and makes it of the bytes that it is given; a message that is taken lies in memory of rcl's,
and is copied into `bytes`. For an image these are megabytes. Structures and functions here are those of rcl's C
interface (rcl/publisher.h, rcl/subscription.h, rcutils/types/uint8_array.h), the same in ROS 2 Humble, whose headers
were read, Jazzy and Kilted, with which it was run; rclpy has loaded the library.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import cache

from rclpy.logging import get_logger
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription

_OK, _NOTHING_TO_TAKE = 0, 401


class _Allocator(ctypes.Structure):
    """An rcutils_allocator_t."""

    _fields_ = [
        ("allocate", ctypes.c_void_p),
        ("deallocate", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)),
        ("reallocate", ctypes.c_void_p),
        ("zero_allocate", ctypes.c_void_p),
        ("state", ctypes.c_void_p),
    ]


class _Message(ctypes.Structure):
    """An rcl_serialized_message_t."""

    _fields_ = [
        ("buffer", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("allocator", _Allocator),
    ]


class _ErrorText(ctypes.Structure):
    """An rcutils_error_string_t."""

    _fields_ = [("text", ctypes.c_char * 1024)]


class Libraries:
    """rcl and rcutils, as rclpy has loaded them.

    Raises:
        OSError, AttributeError: there are none of these names, or they have other functions.
    """

    def __init__(self) -> None:
        rcl, rcutils = ctypes.CDLL("librcl.so"), ctypes.CDLL("librcutils.so")
        self.publish = rcl.rcl_publish_serialized_message
        self.publish.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Message), ctypes.c_void_p]
        self.take = rcl.rcl_take_serialized_message
        self.take.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Message), ctypes.c_void_p, ctypes.c_void_p]
        self._error_text = rcutils.rcutils_get_error_string
        self._error_text.restype = _ErrorText
        self._forget_error = rcutils.rcutils_reset_error
        rcutils.rcutils_get_default_allocator.restype = _Allocator
        self.allocator = rcutils.rcutils_get_default_allocator()

    def error(self) -> str:
        """Return what went wrong last in this thread, and forget it."""
        text = self._error_text().text.decode("utf-8", "replace")
        self._forget_error()
        return text


@cache
def libraries() -> Libraries | None:
    """Return rcl's functions; None, said once, where rclpy does without these libraries: it copies messages then."""
    try:
        return Libraries()
    except (OSError, AttributeError) as error:
        get_logger("vidseg_ros").info(f"rcl is out of reach ({error}): rclpy copies each image, which costs time")
        return None


def publish(publisher: Publisher, message: bytes | bytearray) -> None:
    """Publish a serialized message; it may be changed again as soon as this returns.

    Raises:
        RuntimeError: the middleware refuses it.
    """
    rcl = libraries()
    if rcl is None:
        publisher.publish(bytes(message))
        return
    if isinstance(message, bytes):
        address = ctypes.cast(ctypes.c_char_p(message), ctypes.c_void_p).value
    else:
        address = ctypes.addressof(ctypes.c_char.from_buffer(message))
    given = _Message(address, len(message), len(message))
    with publisher.handle:
        status = rcl.publish(publisher.handle.pointer, ctypes.byref(given), None)
    if status != _OK:
        raise RuntimeError(f"Failed to publish: {rcl.error()}")


def take(rcl: Libraries, subscription: Subscription) -> memoryview | None:
    """Take the next serialized message of a subscription; None if there is none.

    Returns:
        Its bytes, read-only, in memory that is freed with the last view of it.

    Raises:
        RuntimeError: the middleware cannot give it.
    """
    taken = _Message(None, 0, 0, rcl.allocator)
    with subscription.handle:
        status = rcl.take(subscription.handle.pointer, ctypes.byref(taken), None, None)
    if status == _OK and taken.buffer and taken.length:
        memory = (ctypes.c_ubyte * taken.length).from_address(taken.buffer)
        weakref.finalize(memory, rcl.allocator.deallocate, taken.buffer, rcl.allocator.state).atexit = False
        return memoryview(memory).cast("B").toreadonly()
    if taken.buffer:
        rcl.allocator.deallocate(taken.buffer, rcl.allocator.state)
    if status not in (_OK, _NOTHING_TO_TAKE):
        raise RuntimeError(f"{subscription.topic_name}: failed to take a message: {rcl.error()}")
    return None
