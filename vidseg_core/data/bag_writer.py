"""Recordings of images (rosbag2's SQLite and MCAP storage), and copies of recordings with images added."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np

from vidseg_core.data.bag import IMAGE, PARSE, image_channels
from vidseg_core.data.recordings.open import METADATA, open_recording
from vidseg_core.data.recordings.recording import Channel, Recording, StoredMessage
from vidseg_core.data.recordings.rosbag2 import QOS, TYPE_HASH, dump, information, qos_in_numbers, qos_profile
from vidseg_core.data.recordings.write_mcap import McapWriter, mcap_cannot_hold
from vidseg_core.data.recordings.write_sqlite import SqliteWriter, sqlite_cannot_hold
from vidseg_core.data.wire import CDR, ROS1, ImageWriter, Stamp, Stamped, WireError
from vidseg_core.data.writers import output_folder
from vidseg_core.errors import ConfigError, SourceError

log = logging.getLogger(__name__)

CHANNELS = {"rgb8": 3, "mono8": 1}

_WRITERS: dict[str, type[SqliteWriter] | type[McapWriter]] = {"sqlite3": SqliteWriter, "mcap": McapWriter}
STORAGES = tuple(_WRITERS)

_BAR = 80 * b"="
_IMAGE_FIELDS = b"""std_msgs/Header header
uint32 height
uint32 width
string encoding
uint8 is_bigendian
uint32 step
uint8[] data
"""
_IMAGE_DEFINITION = {
    CDR: b"%s%s\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
    b"%s\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n" % (_IMAGE_FIELDS, _BAR, _BAR),
    ROS1: b"%s%s\nMSG: std_msgs/Header\nuint32 seq\ntime stamp\nstring frame_id\n" % (_IMAGE_FIELDS, _BAR),
}
_IMAGE_METADATA = {
    CDR: {TYPE_HASH: "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47"},
    ROS1: {"md5sum": "060021388200f6f0f447d0fcd9c64743"},
}
_PROFILE = {CDR: "ros2", ROS1: "ros1"}
# Images whose labels may still come: a decoder of video holds back at most 16 pictures, and its threads as many more.
_REMEMBERED = 256


class BagWriter:
    """A recording, there as a whole or not at all: until it is closed it is a hidden folder beside its place.

    A context manager: leaving it completes the recording, unless an error or Ctrl-C is the reason.

    Args:
        path: of the recording, a folder that must not exist.
        storage: one of `STORAGES`.
        encoding: of the images to be written and of the recording's profile: `cdr`, of ROS 2, or `ros1`.

    Raises:
        ConfigError: `path` exists, or cannot be written; as does every method.
    """

    def __init__(self, path: str | Path, storage: str = "sqlite3", encoding: str = CDR):
        self._path = Path(path)
        if self._path.exists() or self._path.is_symlink():
            raise ConfigError(f"{self._path}: exists already; a recording is not overwritten")
        output_folder(self._path.parent)
        self._part = self._path.with_name(f".{self._path.name}.part")
        self._folder = self._part / self._path.name  # with the final name, which the files inside have, too
        self._open = _WRITERS[storage]
        self._encoding = encoding
        self._serialise = ImageWriter(encoding).serialise
        self._images: dict[str, Channel] = {}
        self._stored: dict[int, Channel] = {}  # a channel's id -> as it was stored
        self._counts: Counter[int] = Counter()
        self._first_ns, self._last_ns = 2**63 - 1, 0

    def __enter__(self) -> BagWriter:
        with self._errors():
            shutil.rmtree(self._part, ignore_errors=True)  # of a process that was killed
            self._folder.mkdir(parents=True)
            self._file = self._folder / f"{self._path.name}{self._open.suffix}"
            self._writer = self._open(self._file, _PROFILE[self._encoding])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with self._errors():
                    self._finish()
                    self._folder.rename(self._path)
            else:
                with suppress(OSError, sqlite3.Error):  # what could not be written before cannot be now
                    self._writer.abort()
        finally:
            shutil.rmtree(self._part, ignore_errors=True)

    def add(self, channel: Channel) -> None:
        """Store a channel. Its `id` names it in `write`; its QoS is stored in the form of rosbag2's version 8."""
        if channel.encoding == CDR and QOS in channel.metadata:
            qos = qos_in_numbers(channel.metadata[QOS])
            if qos is None:
                log.warning("%s: %s: its QoS cannot be read and is left out", self._path, channel.topic)
                qos = ""
            channel = replace(channel, metadata={**channel.metadata, QOS: qos})
        with self._errors():
            self._stored[channel.id] = self._writer.add(channel)

    def write(self, channel: Channel, received_ns: int, published_ns: int, data: bytes | memoryview) -> None:
        """Append a serialized message of whatever type, unchanged; the channel is stored when it first comes.

        Args:
            channel: its `id` names it.
            received_ns, published_ns: nanoseconds since the epoch.
            data: serialized in the channel's encoding.
        """
        if channel.id not in self._stored:
            self.add(channel)
        with self._errors():
            self._writer.write(channel, received_ns, published_ns, data)
        self._counts[self._stored[channel.id].id] += 1
        self._first_ns = min(self._first_ns, received_ns)
        self._last_ns = max(self._last_ns, received_ns)

    def write_image(
        self,
        topic: str,
        encoding: str,
        pixels: np.ndarray,
        stamp_ns: int,
        *,
        frame_id: str = "camera",
        recorded_ns: int | None = None,
    ) -> None:
        """Append a sensor_msgs/Image.

        Args:
            topic: absolute name.
            encoding: `rgb8` for H x W x 3, `mono8` for H x W.
            pixels: uint8.
            stamp_ns: of the header.
            frame_id: of the header.
            recorded_ns: when the message came; None takes `stamp_ns`.

        Raises:
            ValueError: pixels and encoding do not fit.
            ConfigError: the header has no room for the stamp.
        """
        shape = pixels.shape[2:] or (1,)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or shape != (CHANNELS[encoding],):
            raise ValueError(f"{topic}: expected uint8 pixels of {encoding}, got {pixels.dtype} {pixels.shape}")
        stamp = Stamp(*divmod(stamp_ns, 10**9))
        if not 0 <= stamp.sec < 2**31:
            raise ConfigError(f"{self._path}: {topic}: expected a stamp from 1970 to 2038, got {stamp_ns} ns")
        data = self._serialise(Stamped(stamp, frame_id), encoding, np.ascontiguousarray(pixels))
        if topic not in self._images:
            self._images[topic] = image_channel(-1 - len(self._images), topic, self._encoding)
        recorded_ns = stamp_ns if recorded_ns is None else recorded_ns
        self.write(self._images[topic], recorded_ns, recorded_ns, data)

    def _finish(self) -> None:
        """Complete the file and write metadata.yaml beside it, where ROS 2 can read the recording."""
        metadata = None
        if self._encoding == CDR:
            topics = [(channel, self._counts[channel.id]) for channel in self._stored.values()]
            span = (self._first_ns, self._last_ns) if self._counts else None
            metadata = information(self._open.storage, self._file.name, _each_once(topics), span)
        self._writer.finish("" if metadata is None else dump(metadata))
        if metadata is not None:
            text = dump({"rosbag2_bagfile_information": metadata})
            (self._folder / METADATA).write_text(text + "\n", encoding="utf-8")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Name the recording in what the file system and SQLite raise, and for times of which a storage has no bits."""
        try:
            yield
        except (OSError, sqlite3.Error, OverflowError, struct.error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigError(f"{self._path}: expected a recording that can be written: {reason}") from error


class BagExtender:
    """A copy of a recording with images added to those of one topic: same stamp, frame_id and time of receipt.

    Every other channel is copied as it is stored, byte by byte, whatever it holds. What comes after damage in the
    original is not copied, but for the images themselves as far as they can be read.

    A context manager like `BagWriter`.

    Args:
        source: the original.
        topic: whose images get company.
        added: names of the topics to add.
        path: of the copy, a folder that must not exist.
        storage: one of `STORAGES`; None takes `sqlite3`, or `mcap` where SQLite cannot hold the recording.

    Raises:
        SourceError: the original cannot be opened.
        ConfigError: it has one of the topics already, the storage cannot hold it, or `path` exists or cannot be
            written.
    """

    def __init__(self, source: Path, topic: str, added: list[str], path: str | Path, storage: str | None = "sqlite3"):
        self._source = source
        self._topic = topic
        self._recording = open_recording(source)
        channels = self._recording.channels
        present = sorted(set(added) & {channel.topic for channel in channels})
        if present:
            raise ConfigError(f"{source}: has {', '.join(present)} already; they cannot be added to it")
        self._images = image_channels(self._recording, topic)
        if not self._images:
            raise ConfigError(f"{source}: expected images on {topic}, there are none")
        self._image_ids = {channel.id for channel in self._images}
        first = self._images[0]
        self._serialise = ImageWriter(first.encoding).serialise
        number = 1 + max(channel.id for channel in channels)
        self._added = {name: image_channel(number + i, name, first.encoding, channels) for i, name in enumerate(added)}
        storage = _storage_for(self._recording, [*channels, *self._added.values()], storage)
        self._writer = BagWriter(path, storage, first.encoding)
        self._index = -1
        self._headers: dict[int, tuple[Stamped, StoredMessage]] = {}

    def __enter__(self) -> BagExtender:
        self._writer.__enter__()
        try:
            for channel in (*self._recording.channels, *self._added.values()):
                self._writer.add(channel)
        except BaseException as error:
            self._writer.__exit__(type(error), error, error.__traceback__)
            raise
        self._copied = self._copy()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._copy_until(None)
        except BaseException as raised:
            self._writer.__exit__(type(raised), raised, raised.__traceback__)
            raise
        finally:
            self._copied.close()
        self._writer.__exit__(kind, error, traceback)

    def add(self, index: int, images: dict[str, tuple[str, np.ndarray]]) -> None:
        """Add images to the one of number `index`, 0 for the topic's first.

        Args:
            index: grows from call to call, but for pictures of compressed video, which may come a few packets later.
            images: topic -> (encoding, pixels), see `BagWriter.write_image`.

        Raises:
            SourceError: the original has no such image.
        """
        self._copy_until(index)
        if index not in self._headers:
            raise SourceError(
                f"{self._source}: {self._topic}: image {index} cannot be copied, the recording ends before"
            )
        header, message = self._headers[index]
        for topic, (encoding, pixels) in images.items():
            data = self._serialise(header, encoding, np.ascontiguousarray(pixels))
            self._writer.write(self._added[topic], message.received_ns, message.published_ns, data)

    def _copy_until(self, index: int | None) -> None:
        """Copy everything up to the image of that number, or all that is left."""
        while index is None or self._index < index:
            message = next(self._copied, None)
            if message is None:
                return
            if message.channel.id in self._image_ids:
                self._index += 1
                self._remember(message)

    def _remember(self, message: StoredMessage) -> None:
        """Keep the header of an image, for as long as labels of it may come."""
        try:
            view = PARSE[message.channel.type](message.data, message.channel.encoding)
        except WireError:
            return  # whoever reads the images finds none
        header = Stamped(view.stamp, view.frame_id)
        self._headers[self._index] = header, replace(message, data=b"")
        self._headers.pop(self._index - _REMEMBERED, None)

    def _copy(self) -> Iterator[StoredMessage]:
        """Copy the messages one by one; where they are damaged, go on with those of the images alone."""
        copied = 0
        try:
            for message in self._recording.messages():
                self._writer.write(message.channel, message.received_ns, message.published_ns, message.data)
                yield message
                copied += message.channel.id in self._image_ids
            return
        except SourceError as error:
            log.warning("%s; what comes behind is not copied, but for %s", error, self._topic)
        try:
            for message in islice(self._recording.messages(self._images), copied, None):
                self._writer.write(message.channel, message.received_ns, message.published_ns, message.data)
                yield message
        except SourceError:  # whoever reads the images is told, too
            return


def image_channel(number: int, topic: str, encoding: str, others: Collection[Channel] = ()) -> Channel:
    """Describe a channel of sensor_msgs/Image.

    Args:
        number: its id.
        topic: absolute name.
        encoding: `cdr` or `ros1`.
        others: of the same recording; where one has a definition of the type, it is taken over with its hash, since a
            type may have only one in a recording.
    """
    definition, form = _IMAGE_DEFINITION[encoding], "ros2msg" if encoding == CDR else "ros1msg"
    metadata = _IMAGE_METADATA[encoding]
    for other in others:
        if (other.type, other.encoding) == (IMAGE, encoding) and other.definition and other.definition_encoding:
            definition, form = other.definition, other.definition_encoding
            metadata = {key: other.metadata[key] for key in metadata if key in other.metadata}
            break
    metadata = {**metadata, **({QOS: qos_profile()} if encoding == CDR else {"latching": "0"})}
    return Channel(number, topic, IMAGE, encoding, definition, form, metadata)


def _storage_for(recording: Recording, channels: list[Channel], wanted: str | None) -> str:
    """Choose a storage that holds the channels.

    Raises:
        ConfigError: the wanted one does not, or none does.
    """
    missing: dict[str, str] = {}
    for name, cannot_hold in _CANNOT_HOLD.items():
        # What SQLite holds already, it can hold again.
        lacks = None if name == recording.storage else cannot_hold(channels, recording.span)
        if lacks is not None:
            missing[name] = lacks
    if wanted is None:
        wanted = next((name for name in STORAGES if name not in missing), STORAGES[0])
        if STORAGES[0] in missing and wanted not in missing:
            lacks = missing[STORAGES[0]]
            log.warning("%s: storage %s: %s cannot hold %s", recording.path, wanted, STORAGES[0], lacks)
    if wanted in missing:
        others = [name for name in STORAGES if name not in missing]
        advice = f"; expected --storage {others[0]}" if others else ""
        raise ConfigError(f"{recording.path}: storage {wanted} cannot hold {missing[wanted]}{advice}")
    return wanted


_CANNOT_HOLD: dict[str, Callable[[Collection[Channel], tuple[int, int] | None], str | None]] = {
    "sqlite3": sqlite_cannot_hold,
    "mcap": mcap_cannot_hold,
}


def _each_once(topics: list[tuple[Channel, int]]) -> list[tuple[Channel, int]]:
    """Leave out channels that were stored as one with another."""
    return list({channel.id: (channel, count) for channel, count in topics}.values())
