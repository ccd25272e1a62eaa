"""Camera images from recordings (MCAP, rosbag2's SQLite, ROS 1 bags), read without ROS, whatever else they hold."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.data.clock import SAMPLE, Clock, Stamp, Times, period_ns
from vidseg_core.data.encodings import UnsupportedEncoding, to_rgb
from vidseg_core.data.recordings.open import open_recording
from vidseg_core.data.recordings.recording import Channel, Recording, StoredMessage, tell_once, warn_once
from vidseg_core.data.source import DEFAULT_RATE_HZ, Source, checked_size
from vidseg_core.data.stamped import StampedLabels, labels_in_folder, labels_in_memory, seconds
from vidseg_core.data.wire import (
    CDR,
    ROS1,
    CompressedView,
    ImageView,
    MessageView,
    PacketView,
    WireError,
    parse_compressed,
    parse_ffmpeg_packet,
    parse_foxglove_video,
    parse_image,
)
from vidseg_core.errors import DatasetError, SourceError
from vidseg_core.frame import Frame

if TYPE_CHECKING:  # they load PyAV, which images do not need
    from vidseg_core.data.packets import PacketDecoder, Picture

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
PARSE: dict[str, Callable[[bytes | memoryview, str], MessageView]] = {
    IMAGE: parse_image,
    COMPRESSED_IMAGE: parse_compressed,
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": parse_ffmpeg_packet,
    "foxglove_msgs/msg/CompressedVideo": parse_foxglove_video,
}
"""Types of messages with images, and what reads them."""
TRUTH_TOPIC = "labels_truth"
LEAD_PACKETS = 300
"""Encoders put a key frame into video at least so often, if they are not told otherwise (x264: 250)."""

DELAYED_PACKETS = 64
"""Packets behind a part of a video that are read for pictures of the part that come late."""

_PARSE_PACKETS = (parse_ffmpeg_packet, parse_foxglove_video)
# Last parts of the names of image topics that no camera has: depth, and what is made of a camera's images here.
_NO_CAMERA = ("compressedDepth", TRUTH_TOPIC, "labels", "labels_color", "overlay", "confidence")


class BagSource(Source):
    """The images of one topic, in the order in which they were recorded, with the stamps of their headers.

    Compressed video begins with the first key frame. What comes before it, or is lost with a missing or damaged packet
    until the next one, is left out with one warning that says how much.

    Stamps that cannot be used are replaced by receive times (see `Clock`), with one warning; labels go by them, too.

    Args:
        path: of the recording.
        topic: None finds the only one of a camera.
        skip_bad: see `Source`.
        labels: their ground truth.
    """

    def __init__(
        self, path: Path, *, topic: str | None = None, skip_bad: bool = False, labels: StampedLabels | None = None
    ):
        self._path = path
        self._labels = labels
        self._first, self._stop = 0, sys.maxsize
        self._recording = open_recording(path)
        self.topic = _image_topic(self._recording, topic, path)
        self._channels = image_channels(self._recording, self.topic)
        num_frames = self._recording.count(self._channels)
        self._sample = _sample(self._recording, self._channels)
        clock = Clock(self._sample)
        self._stamps_usable = clock.is_usable
        self._warn(clock)
        if clock.is_usable and labels is not None and labels.clock is not None and not labels.clock.is_usable:
            self._warn_of_labels()
        if clock.is_usable:  # sorted, since packets of video come in the order in which they are decoded
            rate_hz = _rate_hz(sorted(Times(clock.stamp(times).ns, times.received_ns) for times in self._sample))
        else:
            rate_hz = _rate_hz(Times(ns, ns) for ns in self._recording.received(self._channels))
        super().__init__(self.topic, rate_hz, num_frames, skip_bad, None if labels is None else labels.classes)

    def part(self, first: int, stop: int) -> BagSource:
        """Return a source of the messages `first` to `stop` - 1 only, named and numbered as in the whole.

        What comes before is not read as far as the recording's index allows; compressed video is decoded from up to
        `LEAD_PACKETS` packets before on, or from the beginning where no key frame is among them.

        Args:
            first, stop: numbers of messages, 0 for the topic's first; stop may lie behind the end.
        """
        part = copy(self)
        part._first, part._stop = first, stop
        part.num_frames = max(0, min(stop, self._recording.count(self._channels)) - first)
        part.skipped = []
        return part

    def received(self) -> list[int]:
        """List when the topic's messages were received, in nanoseconds, ascending."""
        return self._recording.received(self._channels)

    @property
    def is_video(self) -> bool:
        """Tell if the topic has packets of compressed video."""
        return any(PARSE[channel.type] in _PARSE_PACKETS for channel in self._channels)

    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        if not (self._first and self.is_video):
            yield from self._read_from(self._first)
            return
        read = self._read_from(max(0, self._first - LEAD_PACKETS))
        begin = next(read, None)
        if begin is None or begin[0] != f"{self._first:06d}":  # no key frame among the packets before
            read, begin = self._read_from(0), None
        if begin is not None:
            yield begin
        yield from read

    def _read_from(self, start: int) -> Iterator[tuple[str, Frame | SourceError]]:
        """Read messages from number `start` on, and make frames of those that are in this part."""
        clock = Clock(self._sample)
        pictures = _pictures(self._messages(start), f"{self._path}: {self.topic}", start)
        for number, received_ns, view in pictures:
            ends_it = received_ns is None  # damage before the part is damage for it, too
            if number >= self._stop or (number < self._first and not ends_it):
                continue
            name = f"{number:06d}"
            if isinstance(view, SourceError):
                yield name, view
                continue
            stamp = clock.stamp(Times(view.stamp_ns, received_ns))
            self._warn(clock)
            yield name, self._frame(view, stamp, received_ns, number)
        if clock.complaint is None:
            self._warn_of_labels()

    def _messages(self, start: int) -> Iterator[tuple[int | None, MessageView | SourceError]]:
        """As `_views`, from number `start` on; an error at the end if there are fewer than there should be."""
        # Pictures of video may come a few packets later than their own.
        stop = self._stop + (DELAYED_PACKETS if self.is_video else 0)
        count = start
        for received_ns, view in _views(self._recording, self._channels, self._path, start):
            if count >= stop:
                return
            yield received_ns, view
            if received_ns is None:  # nothing follows
                return
            count += 1
        expected = self._recording.count(self._channels)
        if count < min(expected, stop):
            reason = f"{self._path}: {self.topic}: expected {expected} messages, got {count}"
            yield None, SourceError(reason)

    def _frame(
        self, view: ImageView | CompressedView | Picture, stamp: Stamp, received_ns: int, number: int
    ) -> Frame | SourceError:
        name = f"{number:06d}"
        where = f"{self._path}: {self.topic}: message {name}"
        try:
            is_image = isinstance(view, ImageView | CompressedView)
            image = checked_size(np.ascontiguousarray(to_rgb(view)) if is_image else view.to_rgb(), where)
        except (UnsupportedEncoding, WireError) as error:
            return SourceError(f"{where}: {error}")
        except SourceError as error:
            return error
        labels = self._labels_of(number, stamp, received_ns, image.shape[:2])
        return Frame(image, stamp.ns, stream=self.name, name=name, labels=labels, received_ns=received_ns)

    def _labels_of(self, number: int, stamp: Stamp, received_ns: int, size: tuple[int, int]) -> np.ndarray | None:
        if self._labels is None:
            return None
        labels = None
        if stamp.is_own or self._labels.clock is None:
            labels = self._labels.at(stamp.ns, size, received_ns)
        if labels is None and number in self._pairs:
            labels = self._labels.numbered(self._pairs[number], stamp.ns, size)
        return labels

    @cached_property
    def _pairs(self) -> dict[int, int]:
        """Numbers of images and of their labels, as far as receive times and not stamps have to tell."""
        if self._labels is None or self._labels.clock is None:
            return {}
        return self._labels.pairs(self._recording.received(self._channels), all_of_them=not self._stamps_usable)

    def _warn(self, clock: Clock) -> None:
        if clock.complaint is not None:
            warn_once(f"{self._path}: {self.topic}: {clock.complaint}")

    def _warn_of_labels(self) -> None:
        """Images and labels often have the same fault; then the images' is enough."""
        if self._labels is not None and self._labels.clock is not None and self._labels.clock.complaint is not None:
            warn_once(f"{self._labels.where}: {self._labels.clock.complaint}")


def bag_labels(path: Path, where: str | Path, classes: ClassTable) -> StampedLabels:
    """Ground truth for the images of a recording.

    Args:
        path: of the recording.
        where: a topic of it with class ids as mono8 images (255 = void); or a folder, see `labels_in_folder`.
        classes: their class table.

    Raises:
        SourceError: the recording cannot be read, or has no such topic.
        DatasetError: the labels are not what they should be.
    """
    topic = str(where)
    if Path(where).is_dir():
        return labels_in_folder(Path(where), classes)
    with open_recording(path) as recording:
        _image_topic(recording, topic, path)
        return labels_in_memory(_label_messages(recording, topic, path), classes, f"{path}: {topic}")


def image_topics(path: Path) -> list[str]:
    """List the topics of a recording that have images.

    Raises:
        SourceError: it cannot be opened.
    """
    with open_recording(path) as recording:
        return _image_topics(recording)


def truth_topic(path: Path, topic: str) -> str | None:
    """Name the topic of ground truth beside a topic of images, `labels_truth`; None if the recording has none.

    Raises:
        SourceError: it cannot be opened.
    """
    beside = f"{topic.removesuffix('/compressed').rpartition('/')[0]}/{TRUTH_TOPIC}"
    return beside if beside in image_topics(path) else None


def image_channels(recording: Recording, topic: str) -> list[Channel]:
    """List the channels of a topic whose messages are images, those that a `BagSource` reads."""
    return [channel for channel in recording.channels if channel.topic == topic and _has_images(channel)]


def _label_messages(recording: Recording, topic: str, path: Path) -> Iterator[tuple[Times, np.ndarray]]:
    for received_ns, view in _views(recording, image_channels(recording, topic), path):
        if isinstance(view, SourceError):
            raise view
        where = f"{path}: {topic}: labels at {seconds(view.stamp_ns)} s"
        encoding = view.encoding if isinstance(view, ImageView) else "a compressed image"
        if encoding not in ("mono8", "8UC1"):
            raise DatasetError(f"{where}: expected class ids as mono8, got {encoding}")
        try:
            yield Times(view.stamp_ns, received_ns), np.ascontiguousarray(view.pixels(1)[..., 0])
        except WireError as error:
            raise SourceError(f"{where}: {error}") from error


def _views(
    recording: Recording, channels: list[Channel], path: Path, start: int = 0
) -> Iterator[tuple[int | None, MessageView | SourceError]]:
    """Times of receipt and views, an error in the place of a bad message; (None, error) for damage that ends it all."""
    try:
        for message in _messages_from(recording, channels, start):
            channel = message.channel
            try:
                yield message.received_ns, PARSE[channel.type](message.data, channel.encoding)
            except WireError as error:
                yield message.received_ns, SourceError(f"{path}: {channel.topic}: a message cannot be read: {error}")
    except SourceError as error:
        yield None, error


def _messages_from(recording: Recording, channels: list[Channel], start: int) -> Iterator[StoredMessage]:
    """The messages from number `start` on."""
    if start == 0:
        yield from recording.messages(channels)
        return
    received = recording.received(channels)
    if start < len(received):
        before = start - bisect_left(received, received[start])  # that were received at the same time
        yield from islice(recording.messages(channels, received[start]), before, None)


def _pictures(
    messages: Iterable[tuple[int | None, MessageView | SourceError]], where: str, start: int = 0
) -> Iterator[tuple[int, int | None, ImageView | CompressedView | Picture | SourceError]]:
    """Numbers of messages, of which the first has number `start`, times of receipt, what shows a picture (decoded)."""
    decoder: PacketDecoder | None = None
    numbers = WeakKeyDictionary[PacketView, int]()
    count, last_ns, error = start, None, None
    for received_ns, view in messages:
        if received_ns is None:
            error = view
            break
        number, count, last_ns = count, count + 1, received_ns
        if not isinstance(view, PacketView):
            yield number, received_ns, view
            continue
        if decoder is None:
            from vidseg_core.data.packets import PacketDecoder

            decoder = PacketDecoder()
        numbers[view] = number
        try:
            complete = decoder.feed(view)
        except (UnsupportedEncoding, WireError) as cause:
            yield number, received_ns, SourceError(f"{where}: message {number:06d}: {cause}")
            continue
        for picture in complete:
            if picture.assumed_matrix is not None:
                lines = f"{picture.frame.height} lines"
                tell_once(f"{where}: names no colour matrix; {picture.assumed_matrix} is taken, as usual for {lines}")
            yield numbers[picture.packet], received_ns, picture
    if decoder is None:
        if error is not None:
            yield count, None, error
        return
    for picture in decoder.finish():
        yield numbers[picture.packet], last_ns, picture
    if decoder.lost == count - start and error is None and count > start:
        error = SourceError(f"{where}: there is no key frame among {count} packets of video, nothing can be decoded")
    elif decoder.lost and not start:
        warn_once(
            f"{where}: {decoder.lost} of {count} packets of video give no picture: they come before the first key "
            "frame, or need others that are missing or damaged"
        )
    if error is not None:
        yield count, None, error


def _has_images(channel: Channel) -> bool:
    return channel.type in PARSE and channel.encoding in (CDR, ROS1)


def _image_topics(recording: Recording) -> list[str]:
    return sorted({c.topic for c in recording.channels if _has_images(c) and recording.count([c])})


def _image_topic(recording: Recording, wanted: str | None, path: Path) -> str:
    topics = _image_topics(recording)
    if wanted is not None:
        if wanted not in topics:
            kinds = sorted({c.type for c in recording.channels if c.topic == wanted and recording.count([c])})
            has = f", it has {', '.join(kinds)}" if kinds else ""
            if not kinds and any(c.topic == wanted for c in recording.channels):
                has = ", it has no messages"
            others = f"expected one of {topics}" if topics else "nor on any other"
            raise SourceError(f"{path}: no images on topic {wanted!r}{has}; {others}")
        return wanted
    candidates = [topic for topic in topics if topic.rpartition("/")[2] not in _NO_CAMERA]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        others = sorted({c.topic for c in recording.channels})
        raise SourceError(f"{path}: the recording has no images of a camera; its topics are {others}")
    raise SourceError(f"{path}: the recording has several image topics, choose one with topic: {candidates}")


def _sample(recording: Recording, channels: list[Channel]) -> list[Times]:
    """The times of the topic's first messages, as far as they can be read."""
    sample = []
    try:
        for message in islice(recording.messages(channels), SAMPLE):
            channel = message.channel
            try:
                view = PARSE[channel.type](message.data, channel.encoding)
            except WireError:
                continue  # whoever reads the images is told
            sample.append(Times(view.stamp_ns, message.received_ns))
    except SourceError:
        pass  # as before
    return sample


def _rate_hz(times: Iterable[Times]) -> float:
    """The rate of messages by their own median period: breaks, and what other topics do, do not change it."""
    period = period_ns(times)
    return DEFAULT_RATE_HZ if period is None else 1e9 / period
