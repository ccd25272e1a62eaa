"""Serialized messages by rcl itself: they arrive whole, and their memory is given back."""

import gc
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from vidseg_core.data.wire import ImageWriter, Stamp, parse_image  # noqa: E402
from vidseg_ros import rcl, subscription  # noqa: E402
from vidseg_ros.subscription import subscribe_raw  # noqa: E402

DEADLINE_S = 30
TOPIC = "rcl_images"
PIXELS = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)


@pytest.fixture
def pair(ros):
    """A publisher, what a subscription has received, and a function that waits until that are so many."""
    node, received = ros.create_node("pair"), []
    publisher = node.create_publisher(Image, TOPIC, qos_profile_sensor_data)
    raw = subscribe_raw(node, Image, TOPIC, received.append, on_lost=print, on_incompatible=print)

    def wait_for(number):
        deadline = time.monotonic() + DEADLINE_S
        while len(received) < number and time.monotonic() < deadline:
            ros.spin_once(node, timeout_sec=0.1)
        return received

    while not publisher.get_subscription_count():
        ros.spin_once(node, timeout_sec=0.1)
    yield publisher, wait_for
    raw.destroy()
    node.destroy_node()


@pytest.fixture
def message():
    """A message of `PIXELS` with the stamp 0."""
    memory = bytearray()
    ImageWriter().write(memory, Header(frame_id="front"), "rgb8", PIXELS)
    return memory


def sent(pair, message, seconds):
    publisher, wait_for = pair
    for number, sec in enumerate(seconds, 1):
        ImageWriter().set_stamp(message, Stamp(sec, 7))
        rcl.publish(publisher, message)
        received = wait_for(number)
    return received


def test_messages_arrive_whole_and_each_in_memory_of_its_own(pair, message):
    received = sent(pair, message, range(1, 4))
    message[:] = bytes(len(message))  # what was published is not looked at again
    views = [parse_image(taken) for taken in received]
    assert [view.stamp for view in views] == [Stamp(sec, 7) for sec in range(1, 4)]
    assert all(view.frame_id == "front" and (view.pixels(3) == PIXELS).all() for view in views)
    assert all(isinstance(taken, memoryview) and taken.readonly for taken in received)


def test_the_memory_of_a_message_is_given_back_with_its_last_view(pair, message, monkeypatch):
    freed = []
    monkeypatch.setattr(rcl.weakref, "finalize", _noting(rcl.weakref.finalize, freed))
    taken = sent(pair, message, [1]).pop()
    pixels = parse_image(taken).pixels(3)
    del taken
    gc.collect()
    assert not freed and (pixels == PIXELS).all()
    del pixels
    assert len(freed) == 1


def _noting(finalize, freed):
    def noting(memory, free, *arguments):
        return finalize(memory, lambda: (free(*arguments), freed.append(arguments)))

    return noting


def test_without_rcl_within_reach_rclpy_does_it(ros, message, monkeypatch, request, capfd):
    rcl.libraries.cache_clear()
    monkeypatch.setattr(rcl.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(f"{name}: gone")))
    try:
        received = sent(request.getfixturevalue("pair"), message, [1, 2])
        assert [type(taken) for taken in received] == [bytes, bytes]
        assert parse_image(received[1]).stamp == Stamp(2, 7)
        assert capfd.readouterr().err.count("librcl.so: gone") == 1
    finally:
        rcl.libraries.cache_clear()


@pytest.mark.parametrize("known", [(), ("incompatible_qos",), ("incompatible_qos", "message_lost")])
def test_events_that_the_middleware_does_not_know_are_left_out(known, monkeypatch):
    def subscribe(node, message_type, topic, on_message, events, group):
        if not set(events) <= set(known):
            raise subscription.UnsupportedEventTypeError("unknown")
        return tuple(events)

    monkeypatch.setattr(rcl, "libraries", lambda: None)
    monkeypatch.setattr(subscription, "_subscribe", subscribe)
    made = subscribe_raw(None, Image, TOPIC, print, on_lost=print, on_incompatible=print)
    assert made._subscription == known


def test_what_the_middleware_refuses_is_told(ros, message):
    node = ros.create_node("refused")
    publisher = node.create_publisher(Image, TOPIC, 1)
    libraries = rcl.libraries()
    try:
        with pytest.raises(RuntimeError, match="^Failed to publish: .*publisher"):
            _with_pointer(publisher, message)
    finally:
        node.destroy_node()
    assert libraries.error().startswith("error not set")  # and forgotten


def _with_pointer(publisher, message):
    """Publish as `rcl.publish` does, by a publisher that is none."""

    class Nothing:
        pointer = None

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            return None

    class Broken:
        handle = Nothing()

    rcl.publish(Broken(), message)
