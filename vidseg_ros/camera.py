"""One camera: its subscription, its place in the mailbox, its stream and its publishers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header, String

from vidseg_core.data.encodings import UnsupportedEncoding, to_rgb
from vidseg_core.data.wire import HeaderLike, ImageWriter, MessageView, WireError, parse_header
from vidseg_core.errors import VidsegError
from vidseg_core.frame import Frame, Segmentation
from vidseg_core.overlay import Colours
from vidseg_ros import outputs, rcl, sizes, transport
from vidseg_ros.calibration import Calibration
from vidseg_ros.diagnostics import SILENCE_S, Report, Statistics, Tick, frame_status
from vidseg_ros.heartbeat import Heartbeat
from vidseg_ros.mailbox import Letter, Mailbox
from vidseg_ros.messages import camera_info
from vidseg_ros.messages.headers import header_of
from vidseg_ros.messages.kinds import KINDS
from vidseg_ros.parameters import CameraSettings
from vidseg_ros.points import Points
from vidseg_ros.stamps import Run, Runs, Stamps
from vidseg_ros.subscription import LATCHED, RawSubscription, publish_images, subscribe_raw
from vidseg_ros.synchronizer import Synchronizer

if TYPE_CHECKING:  # it loads PyAV, which video alone needs
    from vidseg_core.data.packets import Picture

QUIET_S = 10.0
INFOS = ("labels", "probabilities")
"""Outputs that come with a camera_info of their own, since they may have another size than the image."""


def images_of(node: Node, settings: CameraSettings) -> str:
    """Name the topic of a camera's images: as image_transport does, by what image_raw was remapped to."""
    prefix = f"{settings.name}/" if settings.name else ""
    images, behind = f"{prefix}image_raw", KINDS[settings.image_transport].transport
    return images if behind == "raw" else f"{node.resolve_topic_name(images)}/{behind}"


def expected(node: Node, settings: CameraSettings) -> tuple[tuple[int, int], float | None] | None:
    """Return what a camera's pictures are expected to be; None if that is not known.

    Returns:
        Size, (H, W), of one that comes at once, else the last known; and at which share of its input a network saw
        such pictures last, None if that is not known.
    """
    topic, kind = node.resolve_topic_name(images_of(node, settings)), KINDS[settings.image_transport]
    size = sizes.look(node, topic, kind) or sizes.remembered(topic)
    return None if size is None else (size, sizes.remembered_share(topic, size))


def is_governed(engine: object) -> bool:
    """Return whether an engine wants to know what its frames have cost; see `GovernedEngine.note`."""
    return hasattr(engine, "note")


class Camera:
    """Receives on the executor's thread, works on the worker's.

    Args:
        node: what its subscription and publishers belong to.
        settings: what it was asked for; may be replaced at any time, counts from the next frame on.
        engine: gives it a stream.
        mailbox: where its messages wait for the worker.
        phase: of its key frames, 0 or more and below 1; other for each camera, so that not all want one at once.
        heartbeat: of the executor's thread.
        max_gap_s: see `EngineConfig`.

    Raises:
        ConfigError: the ego mask cannot be read, or the package of the camera's messages is not installed.
    """

    def __init__(
        self,
        node: Node,
        settings: CameraSettings,
        engine,
        mailbox: Mailbox,
        *,
        phase: float,
        heartbeat: Heartbeat,
        max_gap_s: float,
    ):
        self.settings = settings
        self.listening = False
        self.faults_in_a_row = 0
        self._node = node
        self._log = node.get_logger().get_child(settings.name.replace("/", ".")) if settings.name else node.get_logger()
        self._prefix = f"{settings.name}/" if settings.name else ""
        self._kind = KINDS[settings.image_transport]
        self._message_type = self._kind.message_type()
        self._decoder = self._kind.decoder()
        images = f"{self._prefix}image_raw"
        self._subscribed = images_of(node, settings)
        self.topic = node.resolve_topic_name(self._subscribed)  # that name may be remapped itself
        self._known: tuple[tuple[int, int], float | None] = ((0, 0), None)  # of its pictures, see `sizes.remember`
        self._engine = engine
        self._classes = engine.classes
        self._stream = engine.stream(settings.ego_mask, phase=phase)
        self._is_governed = is_governed(engine)
        self._mailbox = mailbox
        self._synchronizer: Synchronizer | None = None
        self._writer = ImageWriter()
        self._stamps = Stamps()
        self._heartbeat = heartbeat
        self._max_gap_s = max_gap_s
        self._runs = Runs(max_gap_s)
        self._run = self._runs.current
        self._received_s: float | None = None
        self._warned: set[str] = set()
        self._complained_s = time.monotonic() - QUIET_S
        self._interval: int | None = None
        self._reset_wanted: str | None = None
        self._key_wanted = False
        self._published_since_ns: int | None = None
        self._subscription: RawSubscription | None = None
        self._publishers = {}
        self._infos = {}
        self._memory = {output: bytearray() for output in outputs.RENDER}
        self._status = None
        self._latched = []
        self._lacks_label_info = False
        named = node.resolve_topic_name(images)
        self._calibration = Calibration(node, info_topic(node, self._prefix, named), named, self._warn_once)
        self._points = Points(
            node,
            settings,
            self._prefix,
            mailbox,
            self._calibration,
            send=self._send,
            warn_once=self._warn_once,
            failed=lambda error: self.statistics.failed(error),  # there are none yet
        )
        self.statistics = Statistics(self.topic, time.monotonic_ns())
        self.statistics.decodes = self._kind.is_video

    def open(self) -> None:
        """Create subscription and publishers."""
        for output in outputs.RENDER:
            self._publishers[output] = publish_images(self._node, f"{self._prefix}{output}")
        for output in INFOS:
            self._infos[output] = self._node.create_publisher(CameraInfo, f"{self._prefix}{output}/camera_info", 10)
        self._status = self._node.create_publisher(DiagnosticArray, f"{self._prefix}status", 10)
        self._points.open()
        self._latch(String, "legend", String(data=outputs.legend(self._classes)))
        self._latch_label_info()
        self._subscription = subscribe_raw(
            self._node,
            self._message_type,
            self._subscribed,
            self._on_message,
            self._on_lost,
            self._on_incompatible,
        )

    def join(self, synchronizer: Synchronizer) -> None:
        """Have its frames processed with those of other cameras from now on."""
        self._synchronizer = synchronizer
        self.statistics.synchronised = True

    def close(self) -> None:
        """Destroy what `open` has created, be it all or not."""
        self._points.close()
        self._calibration.close()
        if self._subscription is not None:
            self._subscription.destroy()
            self._subscription = None
        for publisher in (*self._publishers.values(), *self._infos.values(), *self._latched, self._status):
            if publisher is not None:
                self._node.destroy_publisher(publisher)
        self._publishers, self._infos, self._latched, self._status = {}, {}, [], None

    def listen(self, reason: str) -> None:
        """Begin to take messages; the stream starts afresh."""
        self.request_reset(reason)
        self.statistics.resume(time.monotonic_ns())
        if self._decoder is not None:  # what came since it last listened is missing
            self._decoder = self._kind.decoder()
        self.listening = True

    def request_reset(self, reason: str) -> None:
        """Forget the past before the next frame."""
        self._reset_wanted = reason

    def request_key_frame(self) -> None:
        """Make the next frame a key frame."""
        self._key_wanted = True

    def process(self, letter: Letter) -> None:
        """Label one message and publish what is wanted. On the worker's thread.

        A message that cannot be used is reported; what else is raised is the engine's or the middleware's fault.
        """
        settings, begun_s = self.settings, time.monotonic()
        try:
            view, frame = self._read(letter)
        except ValueError as error:
            return self._refuse(error)
        self._run = letter.run
        self._prepare_stream(settings)
        try:
            segmentation = self._stream.step(frame)
        except VidsegError as error:  # the image does not suit the configuration
            return self._refuse(error)
        too_old = segmentation.age_s > settings.max_age_s
        if too_old:
            segmentation = outputs.void(segmentation)
            self._complain_of_age(segmentation.age_s, settings.max_age_s)
        self._publish(view, outputs.Picture(frame.image, segmentation, self._classes.lut, settings))
        self._publish_status(view, segmentation, too_old)
        self.faults_in_a_row = 0
        self.statistics.processed(self._tick(segmentation, letter))
        if self._is_governed:
            kept = self._known[1] if frame.size == self._known[0] else None
            known = frame.size, self._engine.settled_share or kept
            if known != self._known:
                self._known = known
                sizes.remember(self.topic, *known)
            busy_s, counts = time.monotonic() - begun_s, self.statistics.counts
            self._engine.note(
                self._stream, segmentation, busy_s, letter.received_ns / 1e9, letter.number, counts.dropped
            )

    def fault(self, error: Exception) -> None:
        """Take note that `process` raised; the stream starts afresh."""
        self.faults_in_a_row += 1
        self.statistics.counts.faults += 1
        self.statistics.failed(f"{type(error).__name__}: {error}")
        self.request_reset(f"engine fault: {type(error).__name__}")

    def report(self, now_ns: int, state: str) -> Report:
        """Report for diagnostics; also warn of a transport that does not deliver, once."""
        publishers, steady_ns = self._node.count_publishers(self.topic), time.monotonic_ns()
        wanted = self.settings.wanted_rate_hz
        report = self.statistics.report(now_ns, steady_ns, wanted, publishers, state)
        if self._is_governed:
            report = replace(report, governor=self._engine.status())
        if not publishers:
            self._published_since_ns = None
        elif self._published_since_ns is None:  # before that there was nothing that could have come
            self._published_since_ns = steady_ns
        published_s = (steady_ns - self._published_since_ns) / 1e9 if publishers else 0.0
        if report.is_silent and published_s > SILENCE_S:
            self._warn_once(transport.NO_FRAMES, seconds=SILENCE_S)
        elif report.input_too_slow and state == "active" and report.counts.processed:
            self._warn_once(transport.LOW_RATE, actual=report.rates[0], wanted=wanted)
        return report

    def follow_subscribers(self) -> None:
        """Do what depends on who subscribes. On the executor's thread, now and then."""
        self._points.follow(self.listening)
        self._calibration.follow(self._points.is_wanted or bool(self._infos_wanted()))
        wanted = self._node.resolve_topic_name(f"{self._prefix}label_info")
        if self._lacks_label_info and self._node.count_subscribers(wanted) > 0:
            self._warn_once(
                "{topic}: somebody subscribes to {wanted}, which needs the package vision_msgs, and that is not "
                "installed (apt install ros-$ROS_DISTRO-vision-msgs). The topic legend tells the same as JSON",
                wanted=wanted,
            )

    def _latch(self, message_type: type, topic: str, message) -> None:
        publisher = self._node.create_publisher(message_type, f"{self._prefix}{topic}", LATCHED)
        self._latched.append(publisher)
        publisher.publish(message)

    def _latch_label_info(self) -> None:
        try:
            from vision_msgs.msg import LabelInfo, VisionClass
        except ImportError:
            self._lacks_label_info = True  # said once somebody wants it
            return
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._latch(LabelInfo, "label_info", outputs.label_info(self._classes, header, LabelInfo, VisionClass))

    def _on_message(self, message: bytes | memoryview) -> None:
        """On the executor's thread: look at the stamp, leave the message, be gone. Video is decoded here.

        A packet of video cannot wait for the worker, where a newer one would take its place.
        """
        if not self.listening:
            return
        received_ns = time.monotonic_ns()
        self.statistics.received(received_ns)
        stamp_ns = self._stamp_of(message)
        run = self._run_of(stamp_ns, received_ns / 1e9)
        number = self.statistics.counts.received - self.statistics.counts.repeated
        if self._decoder is None:
            self._leave(Letter(message, received_ns, run, number), stamp_ns)
            return
        for picture in self._decode(message):
            self._leave(Letter(picture, received_ns, run, number), picture.packet.stamp_ns)

    def _decode(self, message: bytes | memoryview) -> list[Picture]:
        """Return the pictures that are complete with this packet; report what is lost."""
        counts, lost, repeated = self.statistics.counts, self._decoder.lost, self._decoder.repeated
        try:
            pictures = self._decoder.feed(self._view(message))
        except (UnsupportedEncoding, WireError) as error:
            counts.undecoded += 1
            self._complain(error)
            pictures = []
        counts.undecoded += self._decoder.lost - lost
        counts.repeated += self._decoder.repeated - repeated
        if self._decoder.lost > lost and self._decoder.waits:
            self.statistics.failed("waits for a key frame: packets without what they depend on cannot be decoded")
        return pictures

    def _leave(self, letter: Letter, stamp_ns: int | None) -> None:
        """Leave a letter for the worker, unless it is the one before it once more."""
        if stamp_ns is not None and self._is_repeated(stamp_ns):
            self.statistics.counts.repeated += 1
        elif not self._waits_for_others(letter) and self._mailbox.put(self, ((self, letter),)):
            self.statistics.counts.dropped += 1

    def _waits_for_others(self, letter: Letter) -> bool:
        """Leave the letter with the synchronizer. False if there is none, or the message has no stamp to go by."""
        if self._synchronizer is None:
            return False
        try:
            view = (
                self._view(letter.message) if isinstance(letter.message, (bytes, memoryview)) else letter.message.packet
            )
        except WireError:
            return False  # the worker says what is wrong with it
        if view.stamp_ns < 0:
            return False
        self._synchronizer.add(header_of(view), self, letter)
        return True

    @staticmethod
    def _stamp_of(message: bytes | memoryview) -> int | None:
        try:
            return parse_header(message)[0]
        except WireError:
            return None  # the worker says what is wrong with it

    def _run_of(self, stamp_ns: int | None, now_s: float) -> Run:
        """Return the run that a message belongs to; after a stall of this process the next frame is a key frame."""
        self._heartbeat.beat(now_s)
        stalled_s = 0.0 if self._received_s is None else self._heartbeat.stalled_since_s(self._received_s)
        self._received_s = now_s
        if stalled_s > self._max_gap_s:  # what is carried is as old, though the camera did not pause
            self._key_wanted = True
        return self._runs.current if stamp_ns is None else self._runs.add(stamp_ns, stalled_s)

    def _is_repeated(self, stamp_ns: int) -> bool:
        repeated = self._stamps.is_repeated(stamp_ns)
        if self._stamps.complaint:
            self._warn_once("{topic}: {complaint}; every message counts as a frame", complaint=self._stamps.complaint)
        return repeated

    def _on_lost(self, count: int) -> None:
        self.statistics.counts.lost += count
        self._warn_once(transport.MESSAGE_LOST, count=count)

    def _on_incompatible(self, policy: str) -> None:
        if policy == "invalid":  # as the middleware's own policies are called
            self._warn_once(transport.OTHER_REPRESENTATION)
        else:
            self._warn_once(transport.INCOMPATIBLE_QOS, policy=policy)

    def _warn_once(self, text: str, **values) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._log.warning(transport.warning(text, self._remedy(), topic=self.topic, **values))

    def _remedy(self) -> str:
        """Return what helps images on their way, by who publishes them and where."""
        seen = self._node.get_publishers_info_by_topic
        outputs = seen(self._publishers["labels"].topic_name) if self._publishers else []
        own = [one.endpoint_gid for one in outputs if one.node_name == self._node.get_name()]
        others = [one.endpoint_gid for one in seen(self.topic)]
        segments = transport.mapped_segments()
        return transport.remedy(own[0] if own else (), others, get_rmw_implementation_identifier(), segments)

    def _read(self, letter: Letter) -> tuple[HeaderLike, Frame]:
        message = letter.message
        if isinstance(message, (bytes, memoryview)):
            view = self._view(message)
            rgb = to_rgb(view)
        else:
            view, rgb = message.packet, message.to_rgb()
        pause_s = 0.0 if letter.run is self._run else letter.run.pause_s
        return view, Frame(rgb, view.stamp_ns, stream=self.settings.name, name=self.topic, pause_s=pause_s)

    def _view(self, message: bytes | memoryview) -> MessageView:
        try:
            return self._kind.parse(message)
        except WireError as error:
            if not error.unsupported:
                raise
            self._warn_once("{topic}: {error}; these messages are read by rclpy, which is slow", error=error)
        try:
            return self._kind.view(deserialize_message(bytes(message), self._message_type))
        except RuntimeError as error:
            raise WireError(f"rclpy cannot read the message either: {error}") from error

    def _refuse(self, error: Exception) -> None:
        """Take note that a message has no labels."""
        self.statistics.counts.refused += 1
        self._complain(error)

    def _complain(self, error: Exception) -> None:
        """Say why a message has no labels; a camera repeats its mistakes, so only once in `QUIET_S`."""
        self.statistics.failed(str(error))
        now_s = time.monotonic()
        if now_s - self._complained_s >= QUIET_S:
            self._complained_s = now_s
            self._log.error(f"{self.topic}: frame refused: {error}")

    def _complain_of_age(self, age_s: float, limit_s: float) -> None:
        self.statistics.counts.outdated += 1
        error = f"labels are void: their evidence is {age_s:.2f} s old, max_age_s is {limit_s:g}"
        self.statistics.failed(error)
        self._warn_once("{topic}: {error}", error=error)

    def _prepare_stream(self, settings: CameraSettings) -> None:
        """Apply what other threads asked for since the last frame."""
        reason, self._reset_wanted = self._reset_wanted, None
        if reason is not None:
            self._stream.reset(reason)
        if self._key_wanted:
            self._key_wanted = False
            self._stream.request_key_frame()
        if settings.interval != self._interval:
            self._interval = settings.interval
            self._stream.set_interval(settings.interval)
        self._stream.set_confidence(self._is_wanted("confidence", settings) or self._points.is_wanted)
        self._stream.set_probabilities(self._is_wanted("probabilities", settings))
        draws = self._is_wanted("overlay", settings)
        self._stream.set_overlay(Colours(self._classes.lut, settings.overlay_opacity) if draws else None)

    def _is_wanted(self, output: str, settings: CameraSettings) -> bool:
        return output in settings.outputs and self._publishers[output].get_subscription_count() > 0

    def _publish(self, header: HeaderLike, picture: outputs.Picture) -> None:
        for output, publisher in self._publishers.items():
            if self._is_wanted(output, picture.settings):
                rendered = outputs.RENDER[output](picture)
                if rendered is not None:
                    self._writer.write(self._memory[output], header, *rendered)
                    self._send(publisher, self._memory[output])
        self._publish_infos(header, picture)
        if self._points.is_wanted:
            self._points.add(header, picture.segmentation.stamp_ns, picture)

    def _infos_wanted(self) -> list[str]:
        return [output for output, publisher in self._infos.items() if publisher.get_subscription_count() > 0]

    def _publish_infos(self, header: HeaderLike, picture: outputs.Picture) -> None:
        """Publish what describes outputs of another size than the image's."""
        wanted = self._infos_wanted()
        info = self._calibration.of_image((picture.image.shape[0], picture.image.shape[1])) if wanted else None
        if info is None:
            return
        info.header = header_of(header)
        probabilities = picture.segmentation.probabilities
        if "labels" in wanted:
            self._infos["labels"].publish(camera_info.resized(info, picture.labels.shape))
        if "probabilities" in wanted and probabilities is not None:
            self._infos["probabilities"].publish(camera_info.on_grid(info, probabilities.shape[:2]))

    def _publish_status(self, view: HeaderLike, segmentation: Segmentation, too_old: bool) -> None:
        if self._status.get_subscription_count() > 0:
            step = str(self._engine.step) if self._is_governed and self._engine.step is not None else None
            status = frame_status(f"{self._node.get_name()}: {self.topic}", segmentation, too_old, step)
            self._status.publish(DiagnosticArray(header=header_of(view), status=[status]))

    def _send(self, publisher, message: bytes | bytearray) -> None:
        """A reliable subscriber that lags makes DDS refuse a message: that one is lost, the engine is well."""
        try:
            rcl.publish(publisher, message)
        except RuntimeError as error:
            self.statistics.counts.unpublished += 1
            self._warn_once(
                "{publisher}: a message could not be published: {error}", publisher=publisher.topic, error=error
            )

    def _tick(self, segmentation: Segmentation, letter: Letter) -> Tick:
        stamp_ns = segmentation.stamp_ns
        age_ns = self._node.get_clock().now().nanoseconds - stamp_ns if stamp_ns else None
        processing_ns = time.monotonic_ns() - letter.received_ns
        return Tick(
            age_ns,
            processing_ns,
            segmentation.is_key,
            segmentation.age,
            segmentation.reset,
            segmentation.timings,
            segmentation.reason,
        )


def info_topic(node: Node, prefix: str, images: str) -> str:
    """Return the name of the topic `camera_info`: what it is remapped to, else that beside the camera's images.

    Args:
        prefix: of the camera's topics.
        images: the full name of the topic of its images.
    """
    named, plain = (node.resolve_topic_name(f"{prefix}camera_info", only_expand=only) for only in (False, True))
    return named if named != plain else f"{images.rsplit('/', 1)[0]}/camera_info"
