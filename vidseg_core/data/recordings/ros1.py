"""ROS 1 bags, version 2.0 (https://wiki.ros.org/Bags/Format/2.0)."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import BinaryIO

from vidseg_core.data.recordings.chunked import Block, ChunkedRecording, Counted, NoRecordError, Runs, payload
from vidseg_core.data.recordings.compression import check_size, decompress, decompress_start
from vidseg_core.data.recordings.recording import Channel, DamageError, StoredMessage, ros2_type
from vidseg_core.errors import SourceError

MAGIC = b"#ROSBAG V"

_VERSION = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG_HEADER, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 4, 5, 6, 7
_OPS = (_MESSAGE, _BAG_HEADER, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION)
_UINT32 = struct.Struct("<I")
_UINT64 = struct.Struct("<Q")
_PAIR = struct.Struct("<II")
_INDEX_ENTRY = struct.Struct("<III")  # seconds, nanoseconds, offset
_MOST_HEADER_BYTES = 2**16

Fields = dict[bytes, bytes]


class Ros1Recording(ChunkedRecording):
    """A ROS 1 bag. Without an index (`.bag.active`, cut off, damaged), it is read through once when it is opened.

    Of a bag that is cut off, every whole message is read, with one warning.
    """

    profile = "ros1"
    storage = "ros1"

    def _read_index(self, file: BinaryIO) -> None:
        if file.seek(0) or (begin := file.read(len(_VERSION))) != _VERSION:
            version = begin.split(b"\n")[0].decode("ascii", "replace")
            raise SourceError(f"{self.path}: not a recording that can be opened: expected #ROSBAG V2.0, got {version}")
        self._connections: dict[int, Channel] = {}
        damage = None
        try:
            self._read_listed(file)
        except DamageError:
            damage = self._scan(file)
        self.channels = tuple(self._connections.values())
        if damage is not None:
            self._ends_early(f"{damage} (`rosbag reindex` repairs what can be repaired)")

    def _read_listed(self, file: BinaryIO) -> None:
        """Take over the index at the end of the file.

        Raises:
            DamageError: there is none, or it is damaged.
        """
        head, _, _ = self._head(file, len(_VERSION))
        if _op(head) != _BAG_HEADER:
            raise DamageError("no bag header")
        if head.get(b"encryptor"):
            encryptor = head[b"encryptor"][:40].decode("utf-8", "replace")
            raise SourceError(f"{self.path}: not a recording that can be opened: encrypted by {encryptor}")
        offset = _number(head, b"index_pos", _UINT64)
        if offset == 0:
            raise DamageError("no index")
        for _ in range(_number(head, b"conn_count")):
            fields, start, end = self._head(file, offset)
            if _op(fields) != _CONNECTION:
                raise DamageError("no connection where one is expected")
            self._add_connection(fields, self._read(file, start, _checked(end - start)))
            offset = end
        for _ in range(_number(head, b"chunk_count")):
            fields, start, end = self._head(file, offset)
            if _op(fields) != _CHUNK_INFO:
                raise DamageError("no chunk info where one is expected")
            counts = dict(_PAIR.iter_unpack(self._read(file, start, _checked(end - start) // 8 * 8)))
            if not counts.keys() <= self._connections.keys():
                raise DamageError("messages of connections that are not described")
            chunk_start = _number(fields, b"chunk_pos", _UINT64)
            chunk, _, chunk_end = self._head(file, chunk_start)
            if _op(chunk) != _CHUNK:
                raise DamageError("no chunk where one is expected")
            if counts:
                first, last = _time(fields, b"start_time"), _time(fields, b"end_time")
                self.blocks.append(Block(chunk_start, chunk_end, first, last, frozenset(counts)))
                self.counts.update(counts)
            offset = end

    def _scan_records(self, file: BinaryIO, runs: Runs) -> None:
        self._connections.clear()
        offset = len(_VERSION)
        while offset < self._size:
            fields, start, end = self._head(file, offset, whole=False)
            op = _op(fields)
            if op not in _OPS:
                raise NoRecordError(f"there is no record at byte {offset}")
            runs.settle()
            if end > self._size:
                if op == _CHUNK:
                    self._scan_chunk(file, runs, Block(offset, self._size, 0, 0, cut=True))
                raise DamageError(f"the record at byte {offset} ends at byte {end}, the file at {self._size}")
            if op == _CHUNK:
                self._scan_chunk(file, runs, Block(offset, end, 0, 0))
            elif op == _CONNECTION:
                self._add_connection(fields, self._read(file, start, _checked(end - start)))
            elif op == _MESSAGE:
                check_size(end - start)
                channel, when = self._message_fields(fields)
                runs.add(offset, end, when, channel)
            offset = end

    def _scan_messages(self, data: bytes | memoryview, messages: Counted) -> None:
        for fields, _, start, end in _records(data):
            messages.settle()
            if _op(fields) == _MESSAGE:
                messages.add(*self._message_fields(fields))
            elif _op(fields) == _CONNECTION:
                self._add_connection(fields, bytes(data[start:end]))

    def _add_connection(self, fields: Fields, data: bytes) -> None:
        number = _number(fields, b"conn")
        described = _fields(data)
        text = {
            key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for key, value in described.items()
            if key not in (b"topic", b"type", b"message_definition")
        }
        if b"topic" not in fields or b"type" not in described:
            raise DamageError("a connection without topic or type")
        channel = Channel(
            number,
            _normal(fields[b"topic"].decode("utf-8", "replace")),
            ros2_type(described[b"type"].decode("utf-8", "replace")),
            "ros1",
            described.get(b"message_definition", b""),
            "ros1msg",
            text,
        )
        self._connections.setdefault(number, channel)

    def _listed(self, file: BinaryIO, block: Block, wanted: Collection[int]) -> Iterator[int]:
        if block.channels is None or block.cut or not block.chunk:
            raise DamageError("no index of this chunk")
        offset, times = block.end, []
        for _ in block.channels:
            fields, start, end = self._head(file, offset)
            if _op(fields) != _INDEX or (end - start) % _INDEX_ENTRY.size:
                raise DamageError("no index where one is expected")
            if _number(fields, b"conn") in wanted:
                entries = _INDEX_ENTRY.iter_unpack(self._read(file, start, _checked(end - start)))
                times += [sec * 10**9 + nsec for sec, nsec, _ in entries]
            offset = end
        return iter(times)

    def _load(self, file: BinaryIO, block: Block) -> bytes | memoryview:
        check_size(block.end - block.start)
        if not block.chunk:
            return self._read(file, block.start, block.end - block.start)
        fields, start, end = self._head(file, block.start, whole=not block.cut)
        if _op(fields) != _CHUNK:
            raise DamageError("no chunk where one is expected")
        compression, size = fields.get(b"compression", b"none").decode("utf-8", "replace"), _number(fields, b"size")
        data: bytes | memoryview = memoryview(self._read(file, start, min(end, self._size) - start))
        if block.cut:
            return _whole(decompress_start(compression, data, size) if compression != "none" else data)
        return decompress(compression, data, size) if compression != "none" else data

    def _walk(self, data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
        for fields, offset, _, _ in _records(data):
            if _op(fields) == _MESSAGE:
                channel, when = self._message_fields(fields)
                yield channel, when, offset

    def _message(self, data: bytes | memoryview, offset: int) -> StoredMessage:
        fields, start, end = _record(data, offset)
        channel, when = self._message_fields(fields)
        return StoredMessage(self._connections[channel], when, when, payload(data, start, end))

    def _message_fields(self, fields: Fields) -> tuple[int, int]:
        channel = _number(fields, b"conn")
        if channel not in self._connections:
            raise DamageError(f"a message of connection {channel}, which is not described")
        return channel, _time(fields, b"time")

    def _head(self, file: BinaryIO, offset: int, whole: bool = True) -> tuple[Fields, int, int]:
        """(fields, start, end) of the record at an offset, without its data."""
        (size,) = _UINT32.unpack(self._read(file, offset, 4))
        if size > _MOST_HEADER_BYTES:
            raise NoRecordError(f"there is no record at byte {offset}")
        head = self._read(file, offset + 4, size + 4)
        start = offset + 8 + size
        end = start + _UINT32.unpack_from(head, size)[0]
        if whole and end > self._size:
            raise DamageError(f"the record at byte {offset} ends at byte {end}, the file at {self._size}")
        return _fields(head[:size]), start, end


def _records(data: bytes | memoryview) -> Iterator[tuple[Fields, int, int, int]]:
    """(fields, offset, start of the data, end) of the records in a chunk or a run.

    Raises:
        DamageError: from here on there is none.
    """
    offset = 0
    while offset < len(data):
        fields, start, end = _record(data, offset)
        yield fields, offset, start, end
        offset = end


def _record(data: bytes | memoryview, offset: int) -> tuple[Fields, int, int]:
    if offset + 8 > len(data):
        raise DamageError("a record is cut off")
    (size,) = _UINT32.unpack_from(data, offset)
    start = offset + 8 + size
    if size > _MOST_HEADER_BYTES or start > len(data):
        raise DamageError(f"no record at its byte {offset}")
    end = start + _UINT32.unpack_from(data, start - 4)[0]
    if end > len(data):
        raise DamageError(f"a record announces {end - start} bytes, {len(data) - start} are left")
    return _fields(bytes(data[offset + 4 : start - 4])), start, end


def _whole(data: bytes | memoryview) -> bytes | memoryview:
    """The records that are whole, without what follows."""
    end = 0
    try:
        for _, _, _, record_end in _records(data):
            end = record_end
    except DamageError:
        pass
    return data[:end]


def _fields(header: bytes) -> Fields:
    """Read `name=value` fields, each behind its length."""
    fields, offset = {}, 0
    while offset < len(header):
        if offset + 4 > len(header):
            raise DamageError("a field is cut off")
        end = offset + 4 + _UINT32.unpack_from(header, offset)[0]
        name, equals, value = header[offset + 4 : end].partition(b"=")
        if end > len(header) or not equals:
            raise DamageError("a field is cut off")
        fields[name] = value
        offset = end
    return fields


def _op(fields: Fields) -> int:
    op = fields.get(b"op", b"")
    return op[0] if len(op) == 1 else 0


def _number(fields: Fields, name: bytes, form: struct.Struct = _UINT32) -> int:
    value = fields.get(name, b"")
    if len(value) != form.size:
        raise DamageError(f"a record without {name.decode()}")
    return form.unpack(value)[0]


def _time(fields: Fields, name: bytes) -> int:
    value = fields.get(name, b"")
    if len(value) != _PAIR.size:
        raise DamageError(f"a record without {name.decode()}")
    sec, nsec = _PAIR.unpack(value)
    return sec * 10**9 + nsec


def _checked(size: int) -> int:
    check_size(size)
    return size


def _normal(topic: str) -> str:
    """Write a topic without doubled slashes."""
    return "/" * topic.startswith("/") + "/".join(filter(None, topic.split("/")))
