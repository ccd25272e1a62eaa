"""rosbag2 recordings of images (SQLite and MCAP storage), written without ROS through `rosbags`."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType

import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from vidseg_core.data.bag import IMAGE
from vidseg_core.data.writers import output_folder
from vidseg_core.errors import ConfigError

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
