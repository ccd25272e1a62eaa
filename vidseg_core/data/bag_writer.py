"""rosbag2 recordings of images (SQLite and MCAP storage), written without ROS through `rosbags`."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from vidseg_core.data.bag import IMAGE
from vidseg_core.data.writers import output_folder
from vidseg_core.errors import ConfigError, SourceError

STORAGES = tuple(plugin.name.lower() for plugin in StoragePlugin)
CHANNELS = {"rgb8": 3, "mono8": 1}

# What every distribution from Humble on reads; Humble does not know version 9's description of QoS.
_VERSION = 8
_TYPES = get_typestore(Stores.ROS2_HUMBLE)
_Header = _TYPES.types["std_msgs/msg/Header"]
_Time = _TYPES.types["builtin_interfaces/msg/Time"]
_Image = _TYPES.types[IMAGE]


class BagWriter:
    """A recording, there as a whole or not at all: until it is closed it is a hidden folder beside its place.

    A context manager: leaving it completes the recording, unless an error or Ctrl-C is the reason.

    Args:
        path: of the recording, a folder that must not exist.
        storage: one of `STORAGES`.

    Raises:
        ConfigError: `path` exists, or cannot be written.
    """

    def __init__(self, path: str | Path, storage: str = "sqlite3"):
        self._path = Path(path)
        if self._path.exists():
            raise ConfigError(f"{self._path}: exists already; a recording is not overwritten")
        output_folder(self._path.parent)
        self._part = self._path.with_name(f".{self._path.name}.part")
        self._storage = StoragePlugin[storage.upper()]
        self._connections: dict[str, Connection] = {}
        self._writer: Writer | None = None

    def __enter__(self) -> BagWriter:
        shutil.rmtree(self._part, ignore_errors=True)  # of a process that was killed
        # rosbags names the files inside after the folder, so it gets its final name one level down.
        self._writer = Writer(self._part / self._path.name, version=_VERSION, storage_plugin=self._storage)
        self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._writer.close()
                (self._part / self._path.name).rename(self._path)
            else:
                self._writer.abort()
        finally:
            shutil.rmtree(self._part, ignore_errors=True)

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
        """
        shape = pixels.shape[2:] or (1,)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or shape != (CHANNELS[encoding],):
            raise ValueError(f"{topic}: expected uint8 pixels of {encoding}, got {pixels.dtype} {pixels.shape}")
        height, width = pixels.shape[:2]
        message = _Image(
            header=_Header(stamp=_Time(*divmod(stamp_ns, 10**9)), frame_id=frame_id),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=width * CHANNELS[encoding],
            data=np.ascontiguousarray(pixels).reshape(-1),
        )
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, IMAGE, typestore=_TYPES)
        recorded_ns = stamp_ns if recorded_ns is None else recorded_ns
        self._writer.write(self._connections[topic], recorded_ns, _TYPES.serialize_cdr(message, IMAGE))

    def copy(self, source: Connection, recorded_ns: int, data: bytes) -> None:
        """Append a serialized message of another rosbag2 recording, of whatever type, unchanged."""
        key = f"{source.topic} {source.id}"
        if key not in self._connections:
            self._connections[key] = self._writer.add_connection(
                source.topic,
                source.msgtype,
                msgdef=source.msgdef.data,
                rihs01=source.digest,
                serialization_format=source.ext.serialization_format,
                offered_qos_profiles=source.ext.offered_qos_profiles,
            )
        self._writer.write(self._connections[key], recorded_ns, data)


class BagExtender:
    """A copy of a recording with images added to those of one topic: same stamp, frame_id and time of recording.

    A context manager like `BagWriter`. What comes after damage in the original is not copied.

    Args:
        source: the original.
        topic: whose images get company.
        added: names of the topics to add.
        path, storage: see `BagWriter`.

    Raises:
        SourceError: the original cannot be opened.
        ConfigError: it has one of the topics already, or `path` exists or cannot be written.
    """

    def __init__(self, source: Path, topic: str, added: list[str], path: Path, storage: str = "sqlite3"):
        with open_bag(source) as reader:
            present = sorted(set(added) & {c.topic for c in reader.connections})
        if present:
            raise ConfigError(f"{source}: has {', '.join(present)} already; they cannot be added to it")
        self._source = source
        self._topic = topic
        self._writer = BagWriter(path, storage)
        self._stack = ExitStack()
        self._index = -1

    def __enter__(self) -> BagExtender:
        with ExitStack() as stack:
            stack.enter_context(self._writer)
            self._reader = stack.enter_context(open_bag(self._source))
            self._copied = self._copy(stored_messages(self._reader, self._reader.connections, self._source))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._copy_until(None)
        self._stack.__exit__(kind, error, traceback)

    def add(self, index: int, images: dict[str, tuple[str, np.ndarray]]) -> None:
        """Add images to the one of number `index`, 0 for the topic's first; numbers must grow from call to call.

        Args:
            images: topic -> (encoding, pixels), see `BagWriter.write_image`.
        """
        connection, recorded_ns, data = self._copy_until(index)
        header = self._reader.deserialize(data, connection.msgtype).header
        stamp_ns = header.stamp.sec * 10**9 + header.stamp.nanosec
        for topic, (encoding, pixels) in images.items():
            self._writer.write_image(
                topic, encoding, pixels, stamp_ns, frame_id=header.frame_id, recorded_ns=recorded_ns
            )

    def _copy_until(self, index: int | None) -> tuple[Connection, int, bytes]:
        """Copy everything up to the image of that number, or all that is left; the last message."""
        message = None
        while index is None or self._index < index:
            message = next(self._copied, None)
            if message is None:
                break
            self._index += message[0].topic == self._topic
        return message

    def _copy(self, messages: Iterator[tuple[Connection, int, bytes]]) -> Iterator[tuple[Connection, int, bytes]]:
        try:
            for message in messages:
                self._writer.copy(*message)
                yield message
        except SourceError:  # whoever reads the images is told, too
            return


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
