"""Describe what all storages of recorded messages have in common."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)


class DamageError(Exception):
    """A part of a recording is not what it must be; the message says in which way. No user sees it as it is."""


@dataclass(frozen=True)
class Channel:
    """One publisher's or topic's messages in a recording.

    A topic may have several channels. What vidseg does not understand is kept as it is, to be copied.

    Attributes:
        id: unique in its recording.
        topic: absolute name.
        type: in ROS 2's form, for instance `sensor_msgs/msg/Image`; of other systems, whatever stands there.
        encoding: of the messages: `cdr`, `ros1`, `json`, `protobuf`, ...
        definition: of the type, as stored; never parsed.
        definition_encoding: of `definition`: `ros2msg`, `ros1msg`, `jsonschema`, ...; "" where there is none.
        metadata: what else is stored of it by name: `offered_qos_profiles`, `topic_type_hash`, ...
    """

    id: int
    topic: str
    type: str
    encoding: str = "cdr"
    definition: bytes = b""
    definition_encoding: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class StoredMessage:
    """One message as it lies in the recording.

    Attributes:
        channel: it belongs to.
        received_ns: when the recorder received it, nanoseconds since the epoch of the recorder's clock.
        published_ns: when it was sent, where that is stored, else `received_ns`.
        data: serialized, in the channel's encoding; not compressed. A view of what was read where that saves a copy.
    """

    channel: Channel
    received_ns: int
    published_ns: int
    data: bytes | memoryview


class Recording(Protocol):
    """A recording opened for reading; a context manager.

    Attributes:
        path: of the file or folder.
        profile: of the recording, for instance `ros2` or `ros1`; "" where it has none.
        storage: `mcap`, `sqlite3` or `ros1`.
        channels: all of them, messages or not.
    """

    path: Path
    profile: str
    storage: str
    channels: tuple[Channel, ...]

    @property
    def span(self) -> tuple[int, int] | None:
        """Return when the first and the last message were received, in nanoseconds; None if there is none."""
        ...

    def count(self, channels: Collection[Channel]) -> int:
        """Count the messages of these channels."""
        ...

    def received(self, channels: Collection[Channel]) -> list[int]:
        """List when these channels' messages were received, in nanoseconds, ascending; payloads are not read."""
        ...

    def messages(
        self, channels: Collection[Channel] | None = None, since_ns: int | None = None
    ) -> Iterator[StoredMessage]:
        """Iterate over the messages of these channels (None: all) in the order of receipt.

        Args:
            channels: None for all.
            since_ns: leave out those that were received before; what lies before is not read as far as that is known.

        Raises:
            SourceError: the recording is damaged from here on.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class OpenWhileRead:
    """The context manager of a recording whose files are open only while something of them is read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


def ros2_type(name: str) -> str:
    """Name a ROS message type in ROS 2's form (`sensor_msgs/Image` is `sensor_msgs/msg/Image`); keep other names."""
    return re.sub(r"^(\w+)/(\w+)$", r"\1/msg/\2", name)


def seconds(ns: int) -> str:
    """Write a time in nanoseconds as seconds, for messages."""
    return f"{ns // 10**9}.{ns % 10**9:09d}"


@lru_cache(maxsize=1024)
def warn_once(message: str) -> None:
    """Log a warning, the first time that it comes: a recording is opened several times for one task."""
    log.warning("%s", message)


@lru_cache(maxsize=1024)
def tell_once(message: str) -> None:
    """Log something worth knowing, the first time that it comes."""
    log.info("%s", message)
