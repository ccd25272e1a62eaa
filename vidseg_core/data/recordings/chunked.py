"""Recordings in files of records, most of which lie in chunks: what MCAP and ROS 1 bags have in common.

A block is what is read at once: a chunk, or a run of records outside of chunks. Blocks may overlap in time. Their
messages are put in order without holding more than a few of them, so that memory is bounded whatever their order.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from vidseg_core.data.recordings.recording import Channel, DamageError, OpenWhileRead, StoredMessage, seconds, warn_once
from vidseg_core.data.recordings.scratch import Scratch
from vidseg_core.errors import SourceError


class NoRecordError(DamageError):
    """Say that there is no record where one is expected, so that damage may begin before."""


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
        cut: the chunk goes on behind the end of the file, or is damaged somewhere.
        doubtful: what is damaged begins in its last message that can be read, or right behind.
        index: offsets of records that list the messages, by channel, where the format has them.
    """

    start: int
    end: int
    first_ns: int
    last_ns: int
    channels: frozenset[int] | None = None
    chunk: bool = True
    cut: bool = False
    doubtful: bool = False
    index: dict[int, int] | None = None

    def has(self, wanted: Collection[int]) -> bool:
        """Tell if there may be messages of these channels in it."""
        return self.channels is None or not self.channels.isdisjoint(wanted)


class ChunkedRecording(OpenWhileRead, ABC):
    """A `Recording` in one file of records. The file is open only while something of it is read.

    Args:
        path: of the file.
        scratch: what to read in its place.

    Raises:
        SourceError: not such a recording, or not one whole message is in it.
    """

    profile = ""
    storage = ""
    channels: tuple[Channel, ...] = ()

    def __init__(self, path: Path, scratch: Scratch | None = None):
        self.path = path
        self._scratch = scratch
        self.blocks: list[Block] = []
        self.counts: Counter[int] = Counter()
        with self._opened() as file:
            self._size = file.seek(0, 2)
            self._read_index(file)
        self._channel: dict[int, Channel] = {channel.id: channel for channel in self.channels}

    @property
    def span(self) -> tuple[int, int] | None:
        """Return the first and the last time of receipt, in nanoseconds; None without messages."""
        if not self.blocks:
            return None
        return min(block.first_ns for block in self.blocks), max(block.last_ns for block in self.blocks)

    def count(self, channels: Collection[Channel]) -> int:
        """Count the messages of these channels."""
        return sum(self.counts[channel.id] for channel in channels)

    def received(self, channels: Collection[Channel]) -> list[int]:
        """List when these channels' messages were received, ascending; leave out parts that cannot be read."""
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
                        found += _Entries(self._walk(self._load(file, block)), wanted, block.doubtful).times
                    except DamageError:
                        continue
        return sorted(found)

    def messages(
        self, channels: Collection[Channel] | None = None, since_ns: int | None = None
    ) -> Iterator[StoredMessage]:
        """Iterate over the messages of these channels, as `Recording.messages` describes."""
        wanted = {channel.id for channel in (self.channels if channels is None else channels)}
        blocks = [
            block for block in self.blocks if block.has(wanted) and (since_ns is None or block.last_ns >= since_ns)
        ]
        with self._opened() as file:
            held = _Held(self, file, blocks)
            entries: dict[int, _Entries] = {}
            # (when, number of the block, next of its entries); -1: the block has not been read yet.
            waiting = [(block.first_ns, number, -1) for number, block in enumerate(blocks)]
            heapq.heapify(waiting)
            while waiting:
                when, number, position = waiting[0]
                try:
                    data = held.data(number)
                    if position < 0:
                        entries[number] = _Entries(self._walk(data), wanted, blocks[number].doubtful)
                        if since_ns is not None:
                            position += bisect_left(entries[number].times, since_ns)
                    else:
                        yield self._message(data, entries[number].offsets[position])
                    position += 1
                    times = entries[number].times
                    if position < len(times):
                        heapq.heapreplace(waiting, (times[position], number, position))
                        continue
                    damage = entries.pop(number).damage
                    if damage is not None and not blocks[number].cut:  # where it is cut was told when it was opened
                        raise damage
                except DamageError as error:
                    raise SourceError(
                        f"{self.path}: the recording is damaged from {seconds(when)} s on, "
                        f"in what begins at byte {blocks[number].start}: {error}"
                    ) from error
                heapq.heappop(waiting)
                held.drop(number)

    @abstractmethod
    def _read_index(self, file: BinaryIO) -> None:
        """Set `profile`, `channels`, `blocks` and `counts`."""

    @abstractmethod
    def _scan_records(self, file: BinaryIO, runs: Runs) -> None:
        """Go through the file's records, and add messages outside of chunks, and chunks, to `runs`.

        Raises:
            DamageError: the file ends or is damaged where records should follow.
        """

    @abstractmethod
    def _scan_messages(self, data: bytes | memoryview, messages: Counted) -> None:
        """Go through a chunk's records: count its messages, take over its channels.

        Raises:
            DamageError: from here on these are no records.
        """

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
    def _walk(self, data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
        """(channel id, when received, offset) of the messages in a block's records.

        Raises:
            DamageError: from here on these are no records.
        """

    @abstractmethod
    def _message(self, data: bytes | memoryview, offset: int) -> StoredMessage:
        """The message at an offset that `_walk` gave."""

    def _scan(self, file: BinaryIO) -> str | None:
        """Read the file through, up to where it ends or is damaged; say why, or None if nothing is missing."""
        self.counts = Counter()
        runs, damage = Runs(), None
        try:
            self._scan_records(file, runs)
        except DamageError as error:
            damage = str(error)
            runs.end(isinstance(error, NoRecordError))
        else:
            runs.end()
        self.counts += runs.counts
        self.blocks = runs.blocks
        return damage

    def _scan_chunk(self, file: BinaryIO, runs: Runs, block: Block) -> None:
        messages = Counted()
        damage = None
        try:
            self._scan_messages(self._load(file, block), messages)
            messages.settle()
        except DamageError as error:
            damage, block = error, replace(block, cut=True, doubtful=True)
        if messages.counts:
            self.counts += messages.counts
            runs.add_chunk(messages.describe(block))
        if damage is not None:
            raise DamageError(f"the chunk at byte {block.start}: {damage}") from damage

    def _opened(self) -> BinaryIO:
        try:
            return (self.path if self._scratch is None else self._scratch.path).open("rb")
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be opened: {error.strerror}") from error

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
            raise SourceError(f"{self.path}: not a recording that can be opened: no whole message in it: {reason}")
        warn_once(
            f"{self.path}: the recording is cut off or damaged: {reason}; read are the {count} whole messages before, "
            f"up to {seconds(self.span[1])} s"
        )


class Counted:
    """Count a chunk's messages, once what follows them is known to be a record."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self._first, self._last = 2**64, 0
        self._next: tuple[int, int] | None = None

    def add(self, channel: int, when: int) -> None:
        """Add a message, which does not count yet."""
        self._next = channel, when

    def settle(self) -> None:
        """Count what was added last."""
        if self._next is not None:
            channel, when = self._next
            self.counts[channel] += 1
            self._first, self._last = min(self._first, when), max(self._last, when)
            self._next = None

    def describe(self, block: Block) -> Block:
        """Write into a block what was counted."""
        return replace(block, first_ns=self._first, last_ns=self._last, channels=frozenset(self.counts))


class Runs:
    """Put records outside of chunks together to blocks of about a megabyte; large messages are blocks of their own.

    Attributes:
        blocks: with the chunks, in the order of the file.
        counts: messages outside of chunks, by channel.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.counts: Counter[int] = Counter()
        self._run: Block | None = None
        self._next: Block | None = None

    def add(self, start: int, end: int, when: int, channel: int) -> None:
        """Add a message's record, which counts when what follows it is known to be a record."""
        self._next = Block(start, end, when, when, frozenset({channel}), chunk=False)

    def settle(self) -> None:
        """Count what was added last."""
        message, run = self._next, self._run
        if message is None or message.channels is None:
            return
        self._next = None
        self.counts.update(message.channels)
        if message.end - message.start >= _LARGE_BYTES:
            self._close()
            self.blocks.append(message)
        elif run is None or run.channels is None or message.end - run.start > _RUN_BYTES:
            self._close()
            self._run = message
        else:
            self._run = replace(
                run,
                end=message.end,
                first_ns=min(run.first_ns, message.first_ns),
                last_ns=max(run.last_ns, message.last_ns),
                channels=run.channels | message.channels,
            )

    def add_chunk(self, block: Block) -> None:
        """Add a chunk."""
        self._close()
        self.blocks.append(block)

    def end(self, doubtful: bool = False) -> None:
        """End the last block; with `doubtful`, without the message that was added last."""
        if not doubtful:
            self.settle()
        self._close()

    def _close(self) -> None:
        if self._run is not None:
            self.blocks.append(self._run)
            self._run = None


def payload(data: bytes | memoryview, start: int, end: int) -> bytes | memoryview:
    """Cut a message out of its block: a view if it is large, so that megabytes are not copied; else a copy."""
    if end - start < _LARGE_BYTES:
        return bytes(data[start:end])
    return memoryview(data)[start:end]


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


class _Entries:
    """Times and offsets of a block's messages, sorted by time, in few bytes; and what is damaged behind them.

    Without checksums nobody knows where damage begins, except that a record behind it cannot be one; so the message
    before that is left out.
    """

    def __init__(self, walked: Iterator[tuple[int, int, int]], wanted: Collection[int], doubtful: bool):
        times, offsets = array("Q"), array("Q")
        self.damage: DamageError | None = None
        ascending, last = True, 0
        channel: int | None = None
        try:
            for channel, when, offset in walked:
                if channel in wanted:
                    ascending = ascending and when >= last
                    last = when
                    times.append(when)
                    offsets.append(offset)
        except DamageError as error:
            self.damage = error
        if (doubtful or self.damage) and channel in wanted:
            del times[-1], offsets[-1]
        if not ascending:
            order = sorted(range(len(times)), key=times.__getitem__)
            times, offsets = array("Q", map(times.__getitem__, order)), array("Q", map(offsets.__getitem__, order))
        self.times, self.offsets = times, offsets
