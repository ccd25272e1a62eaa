"""The judge of a run, as a ROS node: it hears the camera's camera_info and truth, and all that the node publishes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import TracebackType

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from vidseg_core.classes import ClassTable
from vidseg_core.data.wire import parse_header, parse_image
from vidseg_ros.demo.recording import Recording, Track
from vidseg_ros.memory import keep_freed_memory

DEPTH = 100
WINDOW_S = 2.0
LAST_S = 10.0
GRACE_S = 60.0
SIGNALS_S = 0.1
"""Python sees to signals so often."""
CHANNELS = {"labels": 1, "labels_truth": 1, "overlay": 3}
"""Of the pictures that are kept, by their topics."""
OUTCOMES = ("Frames processed", "Frames dropped", "Frames repeated", "Frames refused", "Engine faults")
"""Of a frame that the node has received, as its diagnostics call them."""
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)


class Listener:
    """Fills a recording. A context manager that takes the middleware up and down again.

    Args:
        namespace: of the camera and the node.
        recording: to be filled.
        with_overlays: subscribe to these, too, so that the node renders them.

    Attributes:
        classes: of the node's labels, once it has told them.
        diagnostics: the node's latest, by their keys.
        device: that the node computes on, once it has told.
        num_reports: how often it has reported.
        rmw: the middleware.
    """

    def __init__(self, namespace: str, recording: Recording, with_overlays: bool = True):
        self._namespace = namespace
        self._recording = recording
        self._tracks = {"labels": recording.labels, "labels_truth": Track()}
        if with_overlays:
            self._tracks["overlay"] = recording.overlays
        self.classes: ClassTable | None = None
        self.diagnostics: dict[str, str] = {}
        self.device: str | None = None
        self.num_reports = 0
        self.rmw = rclpy.get_rmw_implementation_identifier()

    def __enter__(self) -> Listener:
        keep_freed_memory()
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("vidseg_demo", namespace=self._namespace)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        reliable = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        self._reliable = reliable
        self._node.create_subscription(String, "legend", self._on_legend, LATCHED)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        for topic, track in self._tracks.items():
            self._listen(Image, topic, track)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._node.destroy_node()
        rclpy.try_shutdown()

    def has_camera(self) -> bool:
        """Tell if the camera has read its frames."""
        return self._publishers("image_raw") > 0

    def is_ready(self) -> bool:
        """Tell if camera and node are there, and the node can work."""
        published = all(self._publishers(topic) for topic in ("image_raw", "camera_info", "labels", "overlay"))
        return published and self.classes is not None

    def start_camera(self) -> None:
        """Subscribe to camera_info, for which the camera waits."""
        self._listen(CameraInfo, "camera_info", self._recording.sent)

    def turn(self, timeout_s: float) -> None:
        """Take what comes, for that time, or a little longer where nothing comes."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            # Always the same timeout: at another one, rclpy forgets what else was ready and begins with the first
            # subscription again, so that the last one starves while there is much to take.
            self._executor.spin_once(timeout_sec=SIGNALS_S)

    def turn_until_quiet(self, quiet_s: float, most_s: float = LAST_S) -> None:
        """Take what comes until every frame is labelled, or no labels have come for `quiet_s`; for `most_s` at most."""
        now_s = changed_s = time.monotonic()
        end_s, counts = now_s + most_s, self._counts()
        while not self._is_complete() and now_s < min(end_s, changed_s + quiet_s):
            self.turn(SIGNALS_S)
            now_s = time.monotonic()
            if counts != (counts := self._counts()):
                changed_s = now_s

    def node_is_at_work(self) -> bool:
        """Tell if the node has received frames of which its latest report does not say what became of them."""
        received, *done = (int(self.diagnostics.get(key, 0)) for key in ("Frames received", *OUTCOMES))
        return received > sum(done)

    def turn_until_idle(self, turn: Callable[[], bool], most_s: float = GRACE_S) -> None:
        """Go on while the node is at work: its first label may take long where much has to be compiled for it.

        Args:
            turn: takes what comes for a moment. Returns False where that shall be the last.
            most_s: seconds, at most.
        """
        end_s = time.monotonic() + most_s
        while self.node_is_at_work() and time.monotonic() < end_s and turn():
            pass

    def live_line(self) -> str:
        """Return rates and latency over the last seconds as one line."""
        now_ns = time.time_ns()
        begin_ns = self._recording.sent.arrivals_ns[0] if len(self._recording.sent) else now_ns
        window_ns = min(now_ns - begin_ns, round(WINDOW_S * 1e9)) or 1
        recent = [track.since(now_ns - window_ns) for track in (self._recording.sent, self._recording.labels)]
        rates = [len(track) * 1e9 / window_ns for track in recent]
        latencies_ms = recent[1].latencies_ms()
        parts = [f"in {rates[0]:5.1f} Hz", f"out {rates[1]:5.1f} Hz"]
        parts.append(f"latency {np.median(latencies_ms):5.0f} ms" if len(latencies_ms) else "no labels")
        parts.append(f"key frames {self.diagnostics.get('Key frames', '-')}")
        parts.append(f"dropped {self.diagnostics.get('Frames dropped', '-')}")
        return "   ".join(parts)

    def _listen(self, message_type: type, topic: str, track: Track) -> None:
        self._node.create_subscription(
            message_type, topic, self._recorder(topic, track, CHANNELS.get(topic)), self._reliable, raw=True
        )

    def _recorder(self, topic: str, track: Track, channels: int | None) -> Callable[[bytes], None]:
        spool = self._recording.spool

        def record(message: bytes) -> None:
            arrival_ns = time.time_ns()
            stamp_ns, _ = parse_header(message)
            track.add(stamp_ns, arrival_ns)
            if channels is not None:
                spool.put(topic, stamp_ns, parse_image(message).pixels(channels))

        return record

    def _on_legend(self, message: String) -> None:
        legend = json.loads(message.data)
        self.classes = ClassTable(
            name=legend["name"],
            names=tuple(entry["name"] for entry in legend["classes"]),
            palette=tuple(tuple(entry["color"]) for entry in legend["classes"]),
            void_color=tuple(legend["void"]["color"]),
        )

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(f"{self._namespace}/image_raw"):
                self.diagnostics = {entry.key: entry.value for entry in status.values}
                self.device = status.hardware_id
                self.num_reports += 1

    def _publishers(self, topic: str) -> int:
        return self._node.count_publishers(topic)

    def _counts(self) -> list[int]:
        """Count the messages of each output."""
        return [len(track) for topic, track in self._tracks.items() if topic != "labels_truth"]

    def _is_complete(self) -> bool:
        return set(self._counts()) == {len(self._recording.sent)}
