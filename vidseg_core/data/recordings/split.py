"""A recording in several files, read as one."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from vidseg_core.data.recordings.recording import Channel, OpenWhileRead, Recording, StoredMessage


class SplitRecording(OpenWhileRead):
    """Several files, read in the order of time, whatever their names and their order. They may overlap.

    Channels that are the same in several files are one.

    Args:
        path: of the folder.
        parts: its files, at least one, of one storage.
    """

    def __init__(self, path: Path, parts: list[Recording]):
        self.path = path
        self.profile = parts[0].profile
        self.storage = parts[0].storage
        self._parts = sorted(parts, key=lambda part: part.span or (0, 0))
        spans = [part.span for part in parts if part.span is not None]
        self.span = (min(span[0] for span in spans), max(span[1] for span in spans)) if spans else None
        self._common: list[dict[int, Channel]] = []  # for each part: its channel's id -> ours
        channels: list[Channel] = []
        for part in self._parts:
            common = {}
            for channel in part.channels:
                same = next((known for known in channels if replace(known, id=channel.id) == channel), None)
                if same is None:
                    same = replace(channel, id=len(channels) + 1)
                    channels.append(same)
                common[channel.id] = same
            self._common.append(common)
        self.channels = tuple(channels)

    def count(self, channels: Collection[Channel]) -> int:
        """Count the messages of these channels."""
        return sum(part.count(self._of(i, channels)) for i, part in enumerate(self._parts))

    def received(self, channels: Collection[Channel]) -> list[int]:
        """List when these channels' messages were received, in nanoseconds, ascending."""
        return sorted(when for i, part in enumerate(self._parts) for when in part.received(self._of(i, channels)))

    def messages(
        self, channels: Collection[Channel] | None = None, since_ns: int | None = None
    ) -> Iterator[StoredMessage]:
        """Iterate over the messages of these channels, as `Recording.messages` describes."""
        wanted = self.channels if channels is None else channels
        # A part is opened when its time has come: (when, part, None) until then.
        waiting: list[tuple[int, int, StoredMessage | None]] = [
            (part.span[0], i, None)
            for i, part in enumerate(self._parts)
            if part.span is not None and (since_ns is None or part.span[1] >= since_ns)
        ]
        heapq.heapify(waiting)
        running: dict[int, Iterator[StoredMessage]] = {}
        while waiting:
            _, i, message = waiting[0]
            if message is None:
                running[i] = self._parts[i].messages(self._of(i, wanted), since_ns)
            else:
                yield replace(message, channel=self._common[i][message.channel.id])
            message = next(running[i], None)
            if message is None:
                heapq.heappop(waiting)
                del running[i]
            else:
                heapq.heapreplace(waiting, (message.received_ns, i, message))

    def _of(self, i: int, channels: Collection[Channel]) -> list[Channel]:
        """The channels of a part that are among ours."""
        wanted = {channel.id for channel in channels}
        return [channel for channel in self._parts[i].channels if self._common[i][channel.id].id in wanted]
