"""Recordings in files of records, most of which lie in chunks: what MCAP and ROS 1 bags have in common.

A block is what is read at once: a chunk, or a run of records outside of chunks. Blocks may overlap in time. Their
messages are put in order without holding more than a few of them, so that memory is bounded whatever their order.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from array import array
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vidseg_core.data.recordings.recording import Channel, DamageError, OpenWhileRead, StoredMessage, seconds, warn_once
from vidseg_core.errors import SourceError

HELD_BYTES = 64 * 2**20
"""Of blocks that are kept while their messages wait for those of other blocks; what goes beyond is read again."""

_RUN_BYTES = 2**20
_LARGE_BYTES = 2**16


@dataclass(frozen=True)
class Block:
    """A part of the file that is read at once.

    Attributes:
        start, end: offsets in the file.
        first_ns, last_ns: when its first and its last message were received.
        channels: ids of the channels that have messages in it; None: not known.
        chunk: it is one chunk record, else a run of records outside of chunks.
        cut: the chunk goes on behind the end of the file.
        index: offsets of records that list the messages, by channel, where the format has them.
    """

    start: int
    end: int
    first_ns: int
    last_ns: int
    channels: frozenset[int] | None = None
    chunk: bool = True
    cut: bool = False
    index: dict[int, int] | None = None

    def has(self, wanted: Collection[int]) -> bool:
        """Say if there may be messages of these channels in it."""
        return self.channels is None or not self.channels.isdisjoint(wanted)


class ChunkedRecording(OpenWhileRead, ABC):
    """A `Recording` in one file of records. The file is open only while something of it is read.

    Args:
        path: of the file.
        name: of the recording in messages, where `path` is a temporary copy.

    Raises:
        SourceError: not such a recording, or not one whole message is in it.
    """

    profile = ""
    storage = ""

    def __init__(self, path: Path, name: str | None = None):
        self.path = path
        self.name = str(path) if name is None else name
        self.channels: tuple[Channel, ...] = ()
        self.blocks: list[Block] = []
        self.counts: Counter[int] = Counter()
        with self._opened() as file:
            self._size = file.seek(0, 2)
            self._read_index(file)
        self._channel = {channel.id: channel for channel in self.channels}

    @property
    def span(self) -> tuple[int, int] | None:
        """First and last time of receipt, in nanoseconds; None without messages."""
        if not self.blocks:
            return None
        return min(block.first_ns for block in self.blocks), max(block.last_ns for block in self.blocks)

    def count(self, channels: Collection[Channel]) -> int:
        """See `Recording.count`."""
        return sum(self.counts[channel.id] for channel in channels)

    def received(self, channels: Collection[Channel]) -> list[int]:
        """See `Recording.received`; parts that cannot be read are left out."""
        wanted = {channel.id for channel in channels}
        found: list[int] = []
        with self._opened() as file:
            for block in self.blocks:
                if not block.has(wanted):
                    continue
                try:
                    found += self._listed(file, block, wanted)
                except DamageError:
                    try:
                        data = self._load(file, block)
                        found += (ns for _, ns, _ in self._walk(data, wanted))
                    except DamageError:
                        continue
        return sorted(found)

    def messages(self, channels: Collection[Channel] | None = None) -> Iterator[StoredMessage]:
        """See `Recording.messages`."""
        wanted = {channel.id for channel in (self.channels if channels is None else channels)}
        blocks = [block for block in self.blocks if block.has(wanted)]
        with self._opened() as file:
            held = _Held(self, file, blocks)
            entries: dict[int, tuple[array, array]] = {}
            # (when, number of the block, next of its entries); -1: the block has not been read yet.
            waiting = [(block.first_ns, number, -1) for number, block in enumerate(blocks)]
            heapq.heapify(waiting)
            while waiting:
                when, number, position = waiting[0]
                try:
                    data = held.data(number)
                    if position < 0:
                        entries[number] = _in_order(self._walk(data, wanted))
                        message = None
                    else:
                        message = self._message(data, entries[number][1][position])
                except DamageError as error:
                    raise SourceError(
                        f"{self.name}: the recording is damaged from {seconds(when)} s on, "
                        f"at byte {blocks[number].start}: {error}"
                    ) from error
                if message is not None:
                    yield message
                position += 1
                times = entries[number][0]
                if position < len(times):
                    heapq.heapreplace(waiting, (times[position], number, position))
                else:
                    heapq.heappop(waiting)
                    held.drop(number)
                    del entries[number]

    @abstractmethod
    def _read_index(self, file: BinaryIO) -> None:
        """Set `profile`, `channels`, `blocks` and `counts`."""

    @abstractmethod
    def _listed(self, file: BinaryIO, block: Block, wanted: Collection[int]) -> Iterator[int]:
        """When the block's messages of these channels were received, without reading them.

        Raises:
            DamageError: that is not listed, or cannot be read.
        """

    @abstractmethod
    def _load(self, file: BinaryIO, block: Block) -> bytes | memoryview:
        """Read a block's records, decompressed.

        Raises:
            DamageError: they cannot be read.
        """

    @abstractmethod
    def _walk(self, data: bytes | memoryview, wanted: Collection[int]) -> Iterator[tuple[int, int, int]]:
        """(channel id, when received, offset) of the messages of these channels in a block's records.

        Raises:
            DamageError: from here on these are no records.
        """

    @abstractmethod
    def _message(self, data: bytes | memoryview, offset: int) -> StoredMessage:
        """The message at an offset that `_walk` gave."""

    def _opened(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise SourceError(f"{self.name}: cannot be opened: {error.strerror}") from error

    def _read(self, file: BinaryIO, offset: int, size: int) -> bytes:
        """Read `size` bytes, which must be there.

        Raises:
            DamageError: they are not.
        """
        if offset + size > self._size:
            raise DamageError(f"{size} bytes are announced at byte {offset}, the file ends at {self._size}")
        try:
            file.seek(offset)
            data = file.read(size)
        except OSError as error:
            raise DamageError(f"{size} bytes at byte {offset} cannot be read: {error.strerror}") from error
        if len(data) != size:
            raise DamageError(f"expected {size} bytes at byte {offset}, got {len(data)}")
        return data

    def _ends_early(self, reason: str) -> None:
        """Warn that what could be read is not all; where that is nothing, refuse.

        Raises:
            SourceError: there is no message.
        """
        count = sum(self.counts.values())
        if self.span is None:
            raise SourceError(f"{self.name}: not a recording that can be opened: no whole message in it: {reason}")
        warn_once(
            f"{self.name}: the recording is cut off or damaged: {reason}; read are the {count} whole messages before, "
            f"up to {seconds(self.span[1])} s"
        )


class Runs:
    """Put records outside of chunks together to blocks of about a megabyte; large messages are blocks of their own."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._open: Block | None = None

    def add(self, start: int, end: int, when: int, channel: int) -> None:
        """Add a message's record."""
        if end - start >= _LARGE_BYTES:
            self.close()
            self.blocks.append(Block(start, end, when, when, frozenset({channel}), chunk=False))
            return
        run = self._open
        if run is None or end - run.start > _RUN_BYTES:
            self.close()
            run = Block(start, end, when, when, frozenset(), chunk=False)
        channels = run.channels if channel in run.channels else run.channels | {channel}
        self._open = Block(run.start, end, min(run.first_ns, when), max(run.last_ns, when), channels, chunk=False)

    def close(self) -> None:
        """End the block that is being filled."""
        if self._open is not None:
            self.blocks.append(self._open)
            self._open = None

    def add_chunk(self, block: Block) -> None:
        """Add a chunk."""
        self.close()
        self.blocks.append(block)


class _Held:
    """The blocks in use, those used last; others are read again."""

    def __init__(self, recording: ChunkedRecording, file: BinaryIO, blocks: list[Block]):
        self._recording = recording
        self._file = file
        self._blocks = blocks
        self._data: OrderedDict[int, bytes | memoryview] = OrderedDict()

    def data(self, number: int) -> bytes | memoryview:
        data = self._data.get(number)
        if data is None:
            others = sum(map(len, self._data.values()))
            while self._data and others > HELD_BYTES:
                others -= len(self._data.popitem(last=False)[1])
            data = self._data[number] = self._recording._load(self._file, self._blocks[number])
        else:
            self._data.move_to_end(number)
        return data

    def drop(self, number: int) -> None:
        self._data.pop(number, None)


def _in_order(walked: Iterator[tuple[int, int, int]]) -> tuple[array, array]:
    """Times and offsets, sorted by time, in few bytes."""
    times, offsets = array("Q"), array("Q")
    ascending, last = True, 0
    for _, when, offset in walked:
        ascending = ascending and when >= last
        last = when
        times.append(when)
        offsets.append(offset)
    if not ascending:
        order = sorted(range(len(times)), key=times.__getitem__)
        times, offsets = array("Q", map(times.__getitem__, order)), array("Q", map(offsets.__getitem__, order))
    return times, offsets
