"""Write MCAP (https://mcap.dev/spec): in chunks with checksums, indexed, not compressed.

The format's own library writes all records but those that hold messages: it copies each message five times.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from mcap import records
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode

from vidseg_core.data.recordings.mcap import MAGIC
from vidseg_core.data.recordings.recording import Channel

_CHUNK_BYTES = 2**20
_MOST_CHANNELS = 2**16 - 1
_MESSAGE = struct.Struct("<BQHIQQ")  # opcode, length; channel, sequence, log time, publish time
_CHUNK = struct.Struct(
    "<BQQQQIIQ"
)  # opcode, length; first and last time, size, CRC; lengths of the empty compression and of the data
_FOOTER = struct.Struct("<BQQQ")  # opcode, length; start of the summary and of its offsets


class McapWriter:
    """A file of messages, whose channels are stored with all that is known of them.

    Args:
        path: of the file, which must not exist.
        profile: `ros2` or `ros1`.

    Raises:
        OSError: it cannot be written; as does every method.
    """

    storage = "mcap"
    suffix = ".mcap"

    def __init__(self, path: Path, profile: str):
        self._numbers: dict[int, int] = {}  # a channel's id -> the file's
        self._schemas: dict[tuple[str, str, bytes], records.Schema] = {}
        self._channels: list[records.Channel] = []
        self._counts: dict[int, int] = {}
        self._chunks: list[records.ChunkIndex] = []
        self._begin_chunk()
        self._file = path.open("xb")
        self._file.write(MAGIC)
        self._write(records.Header(profile=profile, library="vidseg"))

    def add(self, channel: Channel) -> Channel:
        """Store a channel; return it as stored, with its id in the file."""
        schema = (_stored_type(channel), channel.definition_encoding, channel.definition)
        number = len(self._channels) + 1
        schema_id = 0
        if any(schema):
            if schema not in self._schemas:
                name, encoding, data = schema
                schema_id = len(self._schemas) + 1
                self._schemas[schema] = records.Schema(id=schema_id, name=name, encoding=encoding, data=data)
                self._put(_bytes(self._schemas[schema]))
            schema_id = self._schemas[schema].id
        self._channels.append(
            records.Channel(
                id=number,
                topic=channel.topic,
                message_encoding=channel.encoding,
                metadata=dict(channel.metadata),
                schema_id=schema_id,
            )
        )
        self._put(_bytes(self._channels[-1]))
        self._numbers[channel.id] = number
        self._counts[number] = 0
        return replace(channel, id=number)

    def write(self, channel: Channel, received_ns: int, published_ns: int, data: bytes | memoryview) -> None:
        """Append a message of a channel that was added."""
        number = self._numbers[channel.id]
        self._counts[number] += 1
        self._entries.setdefault(number, []).append((received_ns, self._size))
        self._times.append(received_ns)
        self._put(
            _MESSAGE.pack(Opcode.MESSAGE, _MESSAGE.size - 9 + len(data), number, 0, received_ns, published_ns), data
        )
        if self._size > _CHUNK_BYTES:
            self._end_chunk()

    def finish(self, metadata: str) -> None:
        """Complete the file; `metadata`, a recording's in rosbag2's YAML, is stored in it, if there is any."""
        if self._times:
            self._end_chunk()
        else:  # channels without a message, for whose time a chunk has no words
            self._file.writelines(self._parts)
        indexes = []
        if metadata:
            record, offset = (
                records.Metadata(name="rosbag2", metadata={"serialized_metadata": metadata}),
                self._file.tell(),
            )
            indexes.append(records.MetadataIndex(offset=offset, length=self._write(record), name=record.name))
        self._write(records.DataEnd(data_section_crc=0))
        statistics = records.Statistics(
            attachment_count=0,
            channel_count=len(self._channels),
            channel_message_counts={number: count for number, count in self._counts.items() if count},
            chunk_count=len(self._chunks),
            message_count=sum(self._counts.values()),
            message_end_time=max((chunk.message_end_time for chunk in self._chunks), default=0),
            message_start_time=min((chunk.message_start_time for chunk in self._chunks), default=0),
            metadata_count=len(indexes),
            schema_count=len(self._schemas),
        )
        self._write_summary([[*self._schemas.values()], self._channels, [statistics], self._chunks, indexes])
        self._file.close()

    def abort(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _begin_chunk(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        self._times: list[int] = []
        self._entries: dict[int, list[tuple[int, int]]] = {}

    def _put(self, *parts: bytes | memoryview) -> None:
        self._parts += parts
        self._size += sum(map(len, parts))

    def _end_chunk(self) -> None:
        """Write the chunk and the index of its messages."""
        crc = 0
        for part in self._parts:
            crc = zlib.crc32(part, crc)
        first, last = min(self._times), max(self._times)
        start, length = self._file.tell(), _CHUNK.size + self._size
        head = _CHUNK.pack(Opcode.CHUNK, length - 9, first, last, self._size, crc, 0, self._size)
        self._file.write(head)
        self._file.writelines(self._parts)
        offsets, index_start = {}, self._file.tell()
        for number, entries in self._entries.items():
            offsets[number] = self._file.tell()
            self._write(records.MessageIndex(channel_id=number, records=entries))
        self._chunks.append(
            records.ChunkIndex(
                chunk_length=index_start - start,
                chunk_start_offset=start,
                compression="",
                compressed_size=self._size,
                message_end_time=last,
                message_index_length=self._file.tell() - index_start,
                message_index_offsets=offsets,
                message_start_time=first,
                uncompressed_size=self._size,
            )
        )
        self._begin_chunk()

    def _write_summary(self, groups: list[list]) -> None:
        """Write records that repeat what is in the file, group by group, where each group begins, and the footer."""
        start = self._file.tell()
        parts, offsets, place = [], [], start
        for group in groups:
            if group:
                data = b"".join(map(_bytes, group))
                offsets.append(records.SummaryOffset(group_opcode=data[0], group_start=place, group_length=len(data)))
                parts.append(data)
                place += len(data)
        data = b"".join((*parts, *map(_bytes, offsets)))
        crc = zlib.crc32(_FOOTER.pack(Opcode.FOOTER, 20, start, place), zlib.crc32(data))
        self._file.write(data)
        self._write(records.Footer(summary_start=start, summary_offset_start=place, summary_crc=crc))
        self._file.write(MAGIC)

    def _write(self, record: records.McapRecord) -> int:
        """Write a record; return its length."""
        return self._file.write(_bytes(record))


def mcap_cannot_hold(channels: Collection[Channel], span: tuple[int, int] | None) -> str | None:
    """Say what of a recording MCAP cannot hold; None: it holds everything."""
    if len(channels) > _MOST_CHANNELS:
        return f"{len(channels)} channels, at most {_MOST_CHANNELS} have numbers"
    if span is not None and span[0] < 0:
        return f"messages received {span[0]} ns after the epoch"
    return None


def _bytes(record: records.McapRecord) -> bytes:
    builder = RecordBuilder()
    record.write(builder)
    return builder.end()


def _stored_type(channel: Channel) -> str:
    """Name the type in the form of the channel's system: ROS 1's has no `msg`."""
    return re.sub(r"^(\w+)/msg/(\w+)$", r"\1/\2", channel.type) if channel.encoding == "ros1" else channel.type
