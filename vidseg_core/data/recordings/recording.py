"""What all storages of recorded messages have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol


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
        data: serialized, in the channel's encoding.
    """

    channel: Channel
    received_ns: int
    published_ns: int
    data: bytes


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

    def count(self, channels: Collection[Channel]) -> int:
        """Count the messages of these channels."""
        ...

    def received(self, channels: Collection[Channel]) -> list[int]:
        """List when these channels' messages were received, in nanoseconds, ascending; payloads are not read."""
        ...

    def messages(self, channels: Collection[Channel] | None = None) -> Iterator[StoredMessage]:
        """Iterate over the messages of these channels (None: all) in the order of receipt.

        Raises:
            SourceError: the recording is damaged from here on.
        """
        ...

    def __enter__(self) -> Recording: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class RecordingWriter(Protocol):
    """A recording that is written, there as a whole or not at all; a context manager."""

    def write(self, channel: Channel, received_ns: int, published_ns: int, data: bytes) -> None:
        """Append a serialized message; the channel is stored when it first comes. Its `id` names it in the copy."""
        ...
