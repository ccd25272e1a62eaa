"""Cut recordings into segments that can be computed apart, and give each an address made of all it depends on.

A segment is preceded by frames that only give the stream its past. Segments begin where a sequential run has a key
frame, as long as the schedule is a fixed one: behind a multiple of `interval` + 1 frames after the recording's
beginning or after a pause of the camera, at which a stream starts afresh.

Where no state crosses key frames, labels are those of a sequential run to the last pixel. With fusion, which blends the
past into key frames, the past fades by at least half with each key frame, and `LEAD_KEY_FRAMES` of them before a
segment leave differences in few pixels (`test/core/fleet/test_worker.py` compares; docs/fleet.md has figures).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise

from vidseg_core import __version__
from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError

SEGMENT_FRAMES = 900
LEAD_KEY_FRAMES = 8
LOOK_EVERY = 11
KINDS = ("replay", "label")
FORMAT = 1
"""Of stored results; older ones are computed anew."""


@dataclass(frozen=True)
class Choices:
    """Choose what is computed of each recording.

    Attributes:
        kind: one of `KINDS`: scores, or labels.
        config: of the engine; its files are those on the driver.
        topics: image topics; None: the only one of a camera.
        labels: topic of ground truth; "none" for none, None for the one beside the images where there is one.
        skip_bad: leave out frames that cannot be read.
        size: (H, W) to which frames are resized; None leaves them.
        segment_frames: about how many frames a segment has.
        lead_frames: how many frames before a segment give the stream its past; None: as many as the engine needs.
        look_every: the per-frame network looks at every frame of so many.
        form: of labels, see `labels.py`.

    Raises:
        ConfigError: a value is out of range, or key frames would come when they happen to be ready.
    """

    kind: str
    config: EngineConfig
    topics: tuple[str, ...] | None = None
    labels: str | None = None
    skip_bad: bool = False
    size: tuple[int, int] | None = None
    segment_frames: int = SEGMENT_FRAMES
    lead_frames: int | None = None
    look_every: int = LOOK_EVERY
    form: str = "recording"

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ConfigError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.config.key_frames != "sync":
            raise ConfigError(
                "key_frames: expected sync, since results must not depend on how fast a machine is, "
                f"got {self.config.key_frames}"
            )
        for name, least in (("segment_frames", 1), ("look_every", 1), ("lead_frames", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}: expected {least} or more, got {value}")

    @property
    def period(self) -> int:
        """Number of frames from a key frame to the next; 1 where that is not fixed."""
        return self.config.interval + 1 if self.config.schedule == "fixed" else 1

    @property
    def is_exact(self) -> bool:
        """Tell if no state crosses key frames, so that segments have a sequential run's labels to the last pixel."""
        return self.config.schedule == "fixed" and not self.config.fusion

    @property
    def lead(self) -> int:
        """Number of frames before a segment that give the stream its past."""
        if self.lead_frames is not None:
            return self.lead_frames
        longest = self.config.interval if self.config.schedule == "fixed" else self.config.max_interval
        return (longest + 1) * (1 if self.is_exact else LEAD_KEY_FRAMES)

    def address(self, files: dict[str, str]) -> str:
        """Digest everything that results depend on but the recording.

        Args:
            files: SHA-256 of each file that the configuration names.
        """
        config = self.config.to_dict() | files
        del config["num_threads"]  # labels are the same with any number
        said = {"format": FORMAT, "version": __version__, "kind": self.kind, "config": config}
        said |= {"labels": self.labels, "skip_bad": self.skip_bad, "size": self.size}
        if self.kind == "replay":
            said["look_every"] = self.look_every
        return digest(said)


@dataclass(frozen=True)
class Drive:
    """One camera of one recording.

    Attributes:
        place: of the recording, as it was found: a path or an s3:// address.
        content: digest of the recording, see `content.py`.
        topic: of the images.
        truth: topic of the ground truth; None without.
        num_frames: number of messages.
        rate_hz: nominal frame rate.
        breaks: numbers of the frames before which the camera paused for longer than a stream goes on.
    """

    place: str
    content: str
    topic: str
    truth: str | None
    num_frames: int
    rate_hz: float
    breaks: tuple[int, ...] = ()

    def segments(self, choices: Choices, address: str) -> list[Segment]:
        """Cut the drive into segments.

        Args:
            choices: say how long they are.
            address: see `Choices.address`.
        """
        parts = cut(self.num_frames, self.breaks, choices.segment_frames, choices.lead, choices.period)
        return [Segment(self, i, *part, address) for i, part in enumerate(parts)]


@dataclass(frozen=True)
class Segment:
    """A part of a drive that is computed at once.

    Attributes:
        drive: that it is a part of.
        index: 0 for the drive's first.
        begin: number of the first frame that the stream sees.
        first, stop: numbers of the first frame that counts and of the one behind the last.
        choices: see `Choices.address`.
    """

    drive: Drive
    index: int
    begin: int
    first: int
    stop: int
    choices: str

    @cached_property
    def address(self) -> str:
        """Digest everything that its results depend on."""
        drive = self.drive
        return digest([self.choices, drive.content, drive.topic, drive.truth, self.begin, self.first, self.stop])

    @property
    def frames(self) -> int:
        """Number of frames that count."""
        return self.stop - self.first


def cut(num_frames: int, breaks: Sequence[int], length: int, lead: int, period: int) -> Iterator[tuple[int, int, int]]:
    """Cut frames into segments.

    Args:
        num_frames: altogether.
        breaks: numbers of frames at which a stream starts afresh; segments begin there, without a lead.
        length: of a segment, about; a multiple of `period` is taken, and segments of one run are about equally long.
        lead: frames before a segment; a multiple of `period` is taken, at least as many, as far as there are any.
        period: of key frames.

    Yields:
        (number of the first frame to read, of the first that counts, of the one behind the last).
    """
    lead = -(-lead // period) * period
    for start, end in pairwise([0, *breaks, num_frames]):
        count = max(1, round((end - start) / length))
        each = -(-(end - start) // (count * period)) * period
        for first in range(start, end, max(each, 1)):
            yield max(start, first - lead), first, min(first + each, end)


def pauses(received_ns: Sequence[int], longest_s: float) -> tuple[int, ...]:
    """Find the frames before which the camera paused for longer than `longest_s`, by when frames were received."""
    return tuple(i for i, (a, b) in enumerate(pairwise(received_ns), 1) if (b - a) / 1e9 > longest_s)


def settled(config: EngineConfig, on_gpu: bool) -> EngineConfig:
    """Choose device and runtime where the configuration leaves it to each machine: all must give the same labels.

    Args:
        config: its `auto` is replaced.
        on_gpu: workers have one.
    """
    device = config.device if config.device != "auto" else "cuda" if on_gpu else "cpu"
    runtime = config.runtime
    if runtime == "auto":
        runtime = "eager" if device.startswith("cuda") else "openvino"
    return replace(config, device=device, runtime=runtime)


def digest(value: object) -> str:
    """Digest what JSON can hold (SHA-256, hexadecimal digits)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=asdict).encode()).hexdigest()
