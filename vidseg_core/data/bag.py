"""Camera images from rosbag2 recordings (SQLite and MCAP storage), read without ROS through `rosbags`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from vidseg_core.classes import ClassTable
from vidseg_core.data.encodings import UnsupportedEncoding, to_rgb
from vidseg_core.data.source import DEFAULT_RATE_HZ, Source, checked_size
from vidseg_core.data.stamped import StampedLabels, labels_in_folder, labels_in_memory, seconds
from vidseg_core.data.wire import CDR, ROS1, CompressedView, ImageView, WireError, parse_compressed, parse_image
from vidseg_core.errors import DatasetError, SourceError
from vidseg_core.frame import Frame

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
PARSE: dict[str, Callable[[bytes, str], ImageView | CompressedView]] = {
    IMAGE: parse_image,
    COMPRESSED_IMAGE: parse_compressed,
}
"""Types of messages with images, and what reads them."""
TRUTH_TOPIC = "labels_truth"
# Last parts of the names of image topics that no camera has: depth, and what is made of a camera's images here.
_NO_CAMERA = ("compressedDepth", TRUTH_TOPIC, "labels", "labels_color", "overlay", "confidence")


class BagSource(Source):
    """The images of one topic, in the order in which they were recorded, with the stamps of their headers.

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
        with open_bag(path) as reader:
            self.topic = _image_topic(reader, topic, path)
            num_frames = sum(c.msgcount for c in reader.connections if c.topic == self.topic)
            duration_s = reader.duration / 1e9
        rate_hz = (num_frames - 1) / duration_s if num_frames > 1 and duration_s > 0 else DEFAULT_RATE_HZ
        super().__init__(self.topic, rate_hz, num_frames, skip_bad, None if labels is None else labels.classes)

    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        with open_bag(self._path) as reader:
            count = 0
            for message in _messages(reader, self.topic, self._path):
                name = f"{count:06d}"
                yield name, message if isinstance(message, SourceError) else self._frame(message, name)
                count += 1
            if count < self.num_frames:  # a damaged MCAP chunk may read as one that ends
                reason = f"{self._path}: {self.topic}: expected {self.num_frames} messages, got {count}"
                yield f"{count:06d}", SourceError(reason)

    def _frame(self, view: ImageView | CompressedView, name: str) -> Frame | SourceError:
        where = f"{self._path}: {self.topic}: message {name}"
        try:
            image = checked_size(np.ascontiguousarray(to_rgb(view)), where)
        except (UnsupportedEncoding, WireError) as error:
            return SourceError(f"{where}: {error}")
        except SourceError as error:
            return error
        labels = None if self._labels is None else self._labels.at(view.stamp_ns, image.shape[:2])
        return Frame(image, view.stamp_ns, stream=self.name, name=name, labels=labels)


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
    with open_bag(path) as reader:
        _image_topic(reader, topic, path)
        return labels_in_memory(_label_messages(reader, topic, path), classes, f"{path}: {topic}")


def image_topics(path: Path) -> list[str]:
    """The topics of a recording that have images.

    Raises:
        SourceError: it cannot be opened.
    """
    with open_bag(path) as reader:
        return _image_topics(reader)


def _label_messages(reader: AnyReader, topic: str, path: Path) -> Iterator[tuple[int, np.ndarray]]:
    for message in _messages(reader, topic, path):
        if isinstance(message, SourceError):
            raise message
        where = f"{path}: {topic}: labels at {seconds(message.stamp_ns)} s"
        encoding = message.encoding if isinstance(message, ImageView) else "a compressed image"
        if encoding not in ("mono8", "8UC1"):
            raise DatasetError(f"{where}: expected class ids as mono8, got {encoding}")
        try:
            yield message.stamp_ns, np.ascontiguousarray(message.pixels(1)[..., 0])
        except WireError as error:
            raise SourceError(f"{where}: {error}") from error


@contextmanager
def open_bag(path: Path) -> Iterator[AnyReader]:
    """`rosbags`' reader of a recording, opened.

    Raises:
        SourceError: it cannot be opened.
    """
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
        reader.open()
    except Exception as error:  # what a broken file raises depends on its storage: parser, database, decompressor
        if isinstance(error, KeyError) and "/msg/" in str(error):
            raise SourceError(f"{path}: uses the message type {error}, whose definition it does not have") from error
        raise SourceError(f"{path}: not a recording that can be opened: {error}") from error
    try:
        yield reader
    finally:
        reader.close()


def stored_messages(
    reader: AnyReader, connections: Collection[Connection], path: Path
) -> Iterator[tuple[Connection, int, bytes]]:
    """(connection, when it was recorded in nanoseconds, serialized message), in the order of recording.

    Raises:
        SourceError: the recording is damaged; nothing can be read after that.
    """
    stored = reader.messages(connections)
    while True:
        try:
            message = next(stored)
        except StopIteration:
            return
        except Exception as error:  # it depends on the storage, as when opening it
            raise SourceError(f"{path}: the recording is damaged: {error}") from error
        yield message


def _messages(reader: AnyReader, topic: str, path: Path) -> Iterator[ImageView | CompressedView | SourceError]:
    """View the topic's messages; in the place of one that cannot be read, a SourceError."""
    encoding = CDR if reader.is2 else ROS1
    try:
        for connection, _, data in stored_messages(reader, [c for c in reader.connections if c.topic == topic], path):
            try:
                yield PARSE[connection.msgtype](data, encoding)
            except WireError as error:
                yield SourceError(f"{path}: {topic}: a message cannot be read: {error}")
    except SourceError as error:
        yield error


def _image_topics(reader: AnyReader) -> list[str]:
    return sorted({c.topic for c in reader.connections if c.msgtype in PARSE and c.msgcount})


def _image_topic(reader: AnyReader, wanted: str | None, path: Path) -> str:
    topics = _image_topics(reader)
    if wanted is not None:
        if wanted not in topics:
            kinds = sorted({c.msgtype for c in reader.connections if c.topic == wanted and c.msgcount})
            has = f", it has {', '.join(kinds)}" if kinds else ""
            raise SourceError(f"{path}: no images on topic {wanted!r}{has}; expected one of {topics}")
        return wanted
    candidates = [topic for topic in topics if topic.rpartition("/")[2] not in _NO_CAMERA]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        others = sorted({c.topic for c in reader.connections})
        raise SourceError(f"{path}: the recording has no images of a camera; its topics are {others}")
    raise SourceError(f"{path}: the recording has several image topics, choose one with topic: {candidates}")
