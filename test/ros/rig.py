"""A camera, the node and somebody who listens, on real DDS in one process."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Log
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from vidseg_core.classes import load_classes
from vidseg_core.frame import Segmentation
from vidseg_ros.node import VidsegNode
from vidseg_ros.subscription import LATCHED

DEADLINE_S = 60
FIXED = {"key_frames": "sync", "interval": 4, "grid_stride": 0, "input_scale": 1.0}
"""Parameters that are not left to the governor, so that labels are the same every time."""
REPORT_S = 0.25
"""The node reports four times as often as by default, so that tests wait less for it."""
STEP_NS = 33_333_333
SIZE = (120, 160)
_taken = 0


def next_namespace():
    """Of the rig that is made next."""
    return f"/rig_{_taken}"


class StandIn:
    """An engine whose labels are the image's red channel modulo 11.

    Attributes:
        before: called with each frame of a camera; what it raises, the engine raises.
        steps: the frames of cameras, in the order of processing.
        streams: one per camera.
    """

    def __init__(self):
        self.classes = load_classes("camvid")
        self.before = lambda frame: None
        self.steps = []
        self.streams = []

    def stream(self, ego_mask=None, *, phase=0.0):
        self.streams.append(StandInStream(self, ego_mask, phase))
        return self.streams[-1]

    def describe(self):
        return {"device": "cpu"}

    def close(self, timeout_s=0.0):
        return True

    def segmenting_s(self):
        return 0.0


class StandInStream:
    def __init__(self, engine, ego_mask, phase):
        self.engine = engine
        self.ego_mask = ego_mask
        self.phase = phase
        self.interval = None
        self.confidence = False
        self.probabilities = False
        self.resets = []
        self.key_requests = 0
        self._reset = None

    def step(self, frame):
        if frame.name:
            self.engine.steps.append(frame)
            self.engine.before(frame)
        reset, self._reset = self._reset, None
        confidence = np.full((4, 4), 0.5, dtype=np.float32) if self.confidence else None
        labels = np.ascontiguousarray(frame.image[..., 0] % 11)
        result = Segmentation(labels, frame.stamp_ns, True, 0, "stand-in", reset, {"segment": 1.0}, confidence)
        if self.probabilities:
            shares = np.arange(3 * 4 * 11, dtype=np.float32).reshape(3, 4, 11)
            result = replace(result, probabilities=shares)
        return result

    def reset(self, reason="requested"):
        self.resets.append(reason)
        self._reset = reason

    def request_key_frame(self):
        self.key_requests += 1

    def set_interval(self, interval):
        self.interval = interval

    def set_confidence(self, wanted):
        self.confidence = wanted

    def set_probabilities(self, wanted):
        self.probabilities = wanted

    def set_overlay(self, colours):
        self.colours = colours


def picture(seed=0, size=SIZE, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)


def stamp_of(message):
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


class Rig:
    """
    Args:
        ros: rclpy, initialised.
        engine: None lets the node build what its parameters ask for.
        outputs: topics to listen to, of every camera.
        reliability: of the camera's publisher.
        start: whether the node configures and activates itself.
        remap: rules of names for the node.
        report_s: from one diagnostics message to the next.
        parameters: of the node, `FIXED` where they do not say otherwise.
    """

    def __init__(
        self,
        ros,
        engine=None,
        outputs=("labels",),
        reliability="BEST_EFFORT",
        start=True,
        remap=(),
        report_s=REPORT_S,
        **parameters,
    ):
        self.ros = ros
        global _taken
        self.namespace = next_namespace()
        _taken += 1
        self.engine = engine
        parameters = FIXED | parameters
        given = [Parameter(name, value=value) for name, value in parameters.items()]
        build = {} if engine is None else {"build": lambda values: engine}
        arguments = ["--ros-args", *(part for rule in remap for part in ("-r", rule))]
        self.node = VidsegNode(
            namespace=self.namespace, parameter_overrides=given, cli_args=arguments, report_s=report_s, **build
        )
        self.tester = ros.create_node("tester", namespace=self.namespace)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.tester)
        self.outputs = outputs
        self.cameras = [name for name in parameters.get("cameras", [""]) if name] or [""]
        self.received = defaultdict(list)
        self.statuses = []
        self._asked_ns, self._answers = 0, []
        self.logs = []
        self.stamp_ns = time.time_ns()
        self._publishers = {}
        self._quality = QoSProfile(depth=5, reliability=ReliabilityPolicy[reliability])
        for camera, output in itertools.product(self.cameras, outputs):
            self.listen(self.topic(camera, output))
        self.tester.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.tester.create_subscription(Log, "/rosout", self._on_log, 100)
        if start:
            self.node.start()

    def close(self):
        assert self.node.release()
        for node in (self.node, self.tester):
            self.executor.remove_node(node)
            node.destroy_node()
        self.executor.shutdown()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def topic(self, camera, name):
        return f"{camera}/{name}" if camera else name

    def listen(self, topic, message_type=Image, profile=10):
        return self.tester.create_subscription(message_type, topic, self.received[topic].append, profile)

    def latched(self, topic):
        """The message that is latched on a topic of strings."""
        subscription = self.listen(topic, String, LATCHED)
        self.spin_until(lambda: self.received[topic])
        self.tester.destroy_subscription(subscription)
        return self.received[topic][-1].data

    def spin_until(self, condition, seconds=DEADLINE_S):
        """Let everybody work until the condition holds; fail if it never does."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            self.executor.spin_once(timeout_sec=0.05)

    def spin_reports(self, count=1):
        """Let `count` reports come that are made from now on, and return the last one's status.

        One may be under way already, which does not know yet what has just happened.
        """
        self._asked_ns, self._answers = time.time_ns(), []
        self.spin_until(lambda: len(self._answers) >= count)
        return self._answers[-1]

    def values(self, status):
        return {pair.key: pair.value for pair in status.values}

    def publisher(self, topic, message_type=Image):
        if topic not in self._publishers:
            self._publishers[topic] = self.tester.create_publisher(message_type, topic, self._quality)
        return self._publishers[topic]

    def next_stamp(self):
        self.stamp_ns += STEP_NS
        return self.stamp_ns

    def header(self, stamp_ns):
        header = Header(frame_id="optical")
        header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        return header

    def image(self, pixels, encoding="rgb8", stamp_ns=None, padding=0, **fields):
        """A message object, as any camera driver publishes it."""
        rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
        padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=171)
        message = Image(header=self.header(self.next_stamp() if stamp_ns is None else stamp_ns), encoding=encoding)
        message.height, message.width, message.step = pixels.shape[0], pixels.shape[1], padded.shape[1]
        message.data = padded.tobytes()
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    def compressed(self, data, form="jpeg", stamp_ns=None):
        header = self.header(self.next_stamp() if stamp_ns is None else stamp_ns)
        return CompressedImage(header=header, format=form, data=bytes(data))

    def connect(self, camera="", name="image_raw", message_type=Image):
        """Let camera, node and listeners find each other."""
        assert self.node.exit_code is None, "the node has given up"
        publisher = self.publisher(self.topic(camera, name), message_type)
        topics = [f"{self.namespace}/{self.topic(camera, output)}" for output in self.outputs]
        self.spin_until(
            lambda: (
                publisher.get_subscription_count() > 0
                and all(self.tester.count_publishers(topic) > 0 for topic in topics)
            )
        )
        return publisher

    def prime(self, camera="", name="image_raw", message=None):
        """Send frames until labels arrive on every output: now all of them are connected both ways."""
        publisher = self.connect(camera, name, type(message) if message is not None else Image)
        topics = [self.topic(camera, output) for output in self.outputs]
        deadline = time.monotonic() + DEADLINE_S
        while not all(self.received[topic] for topic in topics):
            assert time.monotonic() < deadline, "no labels arrive"
            priming = self.image(picture()) if message is None else message
            priming.header = self.header(self.next_stamp())
            publisher.publish(priming)
            self._spin(0.2)
        self.idle()
        for topic in topics:
            self.received[topic].clear()

    def idle(self):
        """Let everything that is under way arrive."""
        quiet_since, seen = time.monotonic(), None
        while time.monotonic() - quiet_since < 0.3:
            self.executor.spin_once(timeout_sec=0.05)
            now = {topic: len(messages) for topic, messages in self.received.items()}
            if now != seen:
                quiet_since, seen = time.monotonic(), now

    def exchange(self, message, camera="", name="image_raw"):
        """Send one message; what the outputs have with its stamp: topic's last name -> message."""
        publisher = self.publisher(self.topic(camera, name), type(message))
        publisher.publish(message)
        found = {}

        def complete():
            for output in self.outputs:
                for one in self.received[self.topic(camera, output)]:
                    if one.header == message.header:
                        found[output] = one
            return len(found) == len(self.outputs)

        self.spin_until(complete)
        return found

    def call(self, service_type, name, request=None):
        client = self.tester.create_client(service_type, name)
        self.spin_until(client.service_is_ready)
        future = client.call_async(request or service_type.Request())
        self.spin_until(future.done)
        self.tester.destroy_client(client)
        return future.result()

    def set(self, name, value):
        """Set a parameter as others do, through the node's service."""
        from rcl_interfaces.srv import SetParameters

        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, "vidseg/set_parameters", request).results[0]

    def logged(self, text, level=None):
        """Messages of the node that contain a text."""
        return [log.msg for log in self.logs if text in log.msg and (level is None or log.level >= level)]

    def _spin(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.05)

    def _on_diagnostics(self, message, info):
        statuses = [one for one in message.status if f"{self.namespace}/" in one.name]
        self.statuses += statuses
        if info["source_timestamp"] >= self._asked_ns:
            self._answers += statuses

    def _on_log(self, log):
        if log.name.startswith(self.namespace.strip("/") + "."):
            self.logs.append(log)


def array_of(message):
    """H x W or H x W x 3."""
    pixels = np.frombuffer(message.data, dtype=np.uint8).reshape(message.height, message.step)
    return pixels if message.step == message.width else pixels.reshape(message.height, message.width, 3)


def read_until(process, text):
    """What a process writes to its standard error, up to the line with a text."""
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return "".join(seen)
    raise AssertionError(f"{text!r} not in what it wrote: {''.join(seen)}")


class Gate:
    """Holds the engine's thread until it is opened."""

    def __init__(self):
        self.reached, self._open = threading.Event(), threading.Event()

    def __call__(self, frame):
        self.reached.set()
        assert self._open.wait(DEADLINE_S)

    def open(self):
        self._open.set()
