"""Recordings in MCAP (https://mcap.dev/spec), read by what is asked for: no definition of a type is looked at."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from mcap import records
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode

from vidseg_core.data.recordings.chunked import Block, ChunkedRecording, Counted, NoRecordError, Runs, payload
from vidseg_core.data.recordings.compression import check_size, decompress, decompress_message, decompress_start
from vidseg_core.data.recordings.recording import Channel, DamageError, StoredMessage, ros2_type
from vidseg_core.data.recordings.scratch import Scratch
from vidseg_core.errors import SourceError

MAGIC = b"\x89MCAP0\r\n"

_RECORD = struct.Struct("<BQ")  # opcode, length
_MESSAGE = struct.Struct("<BQHIQQ")  # opcode, length; channel, sequence, log time, publish time
_MESSAGE_FIELDS = _MESSAGE.size - _RECORD.size
_CHUNK = struct.Struct("<BQQQQII")  # opcode, length; first and last time, size, CRC; length of what follows, a text
_TIMES = struct.Struct("<QQ")
_FOOTER_SIZE = _RECORD.size + 20


class McapRecording(ChunkedRecording):
    """An MCAP file. Where its summary is missing or does not fit, the file is read through once when it is opened.

    Of a file that is cut off, every whole message is read, with one warning.
    """

    storage = "mcap"

    def __init__(self, path: Path, scratch: Scratch | None = None):
        self._schemas: dict[int, records.Schema] = {}
        self._found: dict[int, records.Channel] = {}
        super().__init__(path, scratch)

    def _read_index(self, file: BinaryIO) -> None:
        if file.seek(0) or file.read(len(MAGIC)) != MAGIC:
            raise SourceError(f"{self.path}: not a recording that can be opened: it does not begin as MCAP does")
        try:
            self._read_summary(file)
            damage = None
        except DamageError:
            damage = self._scan(file)
        self.channels = tuple(map(self._described, self._found.values()))
        if damage is not None:
            self._ends_early(damage)

    def _read_summary(self, file: BinaryIO) -> None:
        """Take over the summary at the end of the file.

        Raises:
            DamageError: there is none, it is damaged, or it does not name all channels and chunks.
        """
        end = self._size - len(MAGIC)
        tail = self._read(file, max(end - _FOOTER_SIZE, 0), _FOOTER_SIZE + len(MAGIC))
        opcode, _, start, _, crc = struct.unpack("<BQQQI", tail[:_FOOTER_SIZE])
        if not tail.endswith(MAGIC) or opcode != Opcode.FOOTER or not len(MAGIC) <= start < end - _FOOTER_SIZE:
            raise DamageError("no summary")
        check_size(end - start)
        summary = self._read(file, start, end - start)
        if crc and zlib.crc32(summary[:-4]) != crc:
            raise DamageError("the summary's checksum")
        self._read_header(file)
        statistics, chunks = None, []
        for opcode, content in _split(summary):
            with _damage_named():
                if opcode == Opcode.SCHEMA:
                    self._add_schema(content)
                elif opcode == Opcode.CHANNEL:
                    self._add_channel(content)
                elif opcode == Opcode.CHUNK_INDEX:
                    chunks.append(records.ChunkIndex.read(_stream(content)))
                elif opcode == Opcode.STATISTICS:
                    statistics = records.Statistics.read(_stream(content))
        if statistics is None or len(chunks) != statistics.chunk_count or not (chunks or not statistics.message_count):
            raise DamageError("the summary does not list all chunks")
        if not self._found.keys() >= statistics.channel_message_counts.keys():
            raise DamageError("the summary does not list all channels")
        if len(self._found) < statistics.channel_count:
            raise DamageError("the summary does not list all channels")
        for chunk in chunks:
            block_end = chunk.chunk_start_offset + chunk.chunk_length
            if chunk.chunk_start_offset < len(MAGIC) or block_end > start:
                raise DamageError("the summary lists a chunk where none can be")
            index = chunk.message_index_offsets
            if chunk.message_start_time or chunk.message_end_time or index or chunk.uncompressed_size:
                self.blocks.append(
                    Block(
                        chunk.chunk_start_offset,
                        block_end,
                        chunk.message_start_time,
                        chunk.message_end_time,
                        frozenset(index) or None,
                        index=index,
                    )
                )
        self.counts = Counter(statistics.channel_message_counts)
        if sum(self.counts.values()) != statistics.message_count:
            raise DamageError("the summary does not count all messages")

    def _scan_records(self, file: BinaryIO, runs: Runs) -> None:
        self._schemas.clear()
        self._found.clear()
        offset = len(MAGIC)
        while True:
            if offset == self._size:
                raise DamageError(f"it ends without the end mark, at byte {offset}")
            opcode, length = _RECORD.unpack(self._read(file, offset, _RECORD.size))
            end = offset + _RECORD.size + length
            if end > self._size:
                if opcode == Opcode.CHUNK:
                    self._scan_chunk(file, runs, Block(offset, self._size, 0, 0, cut=True))
                raise DamageError(f"the record at byte {offset} ends at byte {end}, the file at {self._size}")
            if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                return
            if opcode == 0:
                raise NoRecordError(f"there is no record at byte {offset}")
            runs.settle()
            if opcode == Opcode.MESSAGE:
                head = self._read(file, offset, min(_MESSAGE.size, end - offset))
                channel, when, _ = self._message_fields(head, 0, end - offset)
                check_size(length)
                runs.add(offset, end, when, channel)
            elif opcode == Opcode.CHUNK:
                self._scan_chunk(file, runs, Block(offset, end, 0, 0))
            elif opcode in (Opcode.HEADER, Opcode.SCHEMA, Opcode.CHANNEL):
                check_size(length)
                self._take(opcode, self._read(file, offset + _RECORD.size, length))
            offset = end

    def _scan_messages(self, data: bytes | memoryview, messages: Counted) -> None:
        for opcode, start, end in _records(data):
            messages.settle()
            if opcode == Opcode.MESSAGE:
                channel, when, _ = self._message_fields(data, start, end - start)
                messages.add(channel, when)
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                self._take(opcode, bytes(data[start + _RECORD.size : end]))

    def _take(self, opcode: int, content: bytes) -> None:
        with _damage_named():
            if opcode == Opcode.HEADER:
                self.profile = records.Header.read(_stream(content)).profile
            elif opcode == Opcode.SCHEMA:
                self._add_schema(content)
            else:
                self._add_channel(content)

    def _read_header(self, file: BinaryIO) -> None:
        opcode, length = _RECORD.unpack(self._read(file, len(MAGIC), _RECORD.size))
        if opcode == Opcode.HEADER:
            check_size(length)
            self._take(opcode, self._read(file, len(MAGIC) + _RECORD.size, length))

    def _add_schema(self, content: bytes) -> None:
        schema = records.Schema.read(_stream(content))
        self._schemas.setdefault(schema.id, schema)

    def _add_channel(self, content: bytes) -> None:
        channel = records.Channel.read(_stream(content))
        self._found.setdefault(channel.id, channel)

    def _described(self, channel: records.Channel) -> Channel:
        schema = self._schemas.get(channel.schema_id) or records.Schema(0, b"", "", "")
        return Channel(
            channel.id,
            channel.topic,
            ros2_type(schema.name) if channel.message_encoding in ("cdr", "ros1") else schema.name,
            channel.message_encoding,
            schema.data,
            schema.encoding,
            channel.metadata,
        )

    def _listed(self, file: BinaryIO, block: Block, wanted: Collection[int]) -> Iterator[int]:
        if block.index is None or block.channels is None:
            raise DamageError("no index of this chunk")
        for channel in block.channels.intersection(wanted):
            offset = block.index[channel]
            opcode, length = _RECORD.unpack(self._read(file, offset, _RECORD.size))
            if opcode != Opcode.MESSAGE_INDEX or length < 6 or (length - 6) % _TIMES.size:
                raise DamageError("no index where one is expected")
            check_size(length)
            content = self._read(file, offset + _RECORD.size, length)
            if struct.unpack_from("<HI", content) != (channel, length - 6):
                raise DamageError("the index is that of another channel")
            yield from (when for when, _ in _TIMES.iter_unpack(content[6:]))

    def _load(self, file: BinaryIO, block: Block) -> bytes | memoryview:
        check_size(block.end - block.start)
        record = memoryview(self._read(file, block.start, block.end - block.start))
        if not block.chunk:
            return record
        if len(record) < _CHUNK.size:
            raise DamageError("no chunk where one is expected")
        opcode, length, _, _, size, crc, text = _CHUNK.unpack_from(record)
        start = _CHUNK.size + text + 8
        fits = block.cut or length == len(record) - _RECORD.size
        if opcode != Opcode.CHUNK or not fits or start > len(record):
            raise DamageError("no chunk where one is expected")
        compression = bytes(record[_CHUNK.size : start - 8]).decode("utf-8", "replace")
        if block.cut:
            stored = record[start:]
            return _whole(decompress_start(compression, stored, size) if compression else stored)
        (length,) = struct.unpack_from("<Q", record, start - 8)
        if length > len(record) - start:
            raise DamageError(f"{length} bytes are announced, the chunk has {len(record) - start}")
        data: bytes | memoryview = record[start : start + length]
        if compression:
            data = decompress(compression, data, size)
        if crc and zlib.crc32(data) != crc:
            raise DamageError("its checksum does not fit what is in it")
        return data

    def _walk(self, data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
        for opcode, start, end in _records(data):
            if opcode == Opcode.MESSAGE:
                channel, when, _ = self._message_fields(data, start, end - start)
                yield channel, when, start

    def _message(self, data: bytes | memoryview, offset: int) -> StoredMessage:
        _, length, channel_id, _, received_ns, published_ns = _MESSAGE.unpack_from(data, offset)
        channel = self._channel[channel_id]
        content = payload(data, offset + _MESSAGE.size, offset + _RECORD.size + length)
        if channel.encoding == "cdr":
            content = decompress_message(content)
        return StoredMessage(channel, received_ns, published_ns, content)

    def _message_fields(self, data: bytes | memoryview, start: int, size: int) -> tuple[int, int, int]:
        """(channel id, log time, publish time) of the message record of `size` bytes."""
        if size < _MESSAGE.size:
            raise DamageError(f"a message of {size} bytes, expected at least {_MESSAGE.size}")
        _, _, channel, _, logged, published = _MESSAGE.unpack_from(data, start)
        if channel not in self._found:
            raise DamageError(f"a message of channel {channel}, which is not described")
        return channel, logged, published


def _records(data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """(opcode, start, end) of the records in a chunk or a run.

    Raises:
        DamageError: from here on there is none.
    """
    offset, size = 0, len(data)
    while offset < size:
        if offset + _RECORD.size > size:
            raise DamageError(f"{size - offset} bytes are left, too few for a record")
        opcode, length = _RECORD.unpack_from(data, offset)
        end = offset + _RECORD.size + length
        if end > size:
            raise DamageError(f"a record announces {length} bytes, {size - offset - _RECORD.size} are left")
        if opcode == 0:
            raise DamageError(f"no record at its byte {offset}")
        yield opcode, offset, end
        offset = end


def _whole(data: bytes | memoryview) -> bytes | memoryview:
    """The records that are whole, without what follows."""
    end = 0
    try:
        for _, _, record_end in _records(data):
            end = record_end
    except DamageError:
        pass
    return data[:end]


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    for opcode, start, end in _records(data):
        yield opcode, data[start + _RECORD.size : end]


def _stream(content: bytes) -> ReadDataStream:
    return ReadDataStream(BytesIO(content))


@contextmanager
def _damage_named() -> Iterator[None]:
    """Let what the library raises for bytes that are no such record be a DamageError."""
    try:
        yield
    except (McapError, ValueError, struct.error, OverflowError, EOFError) as error:
        raise DamageError(f"a record cannot be read: {error or type(error).__name__}") from error
