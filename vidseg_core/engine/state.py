"""All that a stream knows of its past."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from vidseg_core.arrays import Array
from vidseg_core.engine.key_frames.jobs import Job
from vidseg_core.kernels.decode import one_class
from vidseg_core.kernels.resample import resize, resize_bytes
from vidseg_core.kernels.warp import compose


class StageTimes(dict):
    """Milliseconds per stage of one frame, for a device that has computed what it was asked for when a call returns."""

    @contextmanager
    def stage(self, name: str):
        begin = time.perf_counter()
        yield
        self[name] = self.get(name, 0.0) + (time.perf_counter() - begin) * 1e3

    def include(self, other: StageTimes) -> None:
        """Add another part's stages to these; waits for nothing."""
        self.update(other)

    def milliseconds(self) -> dict[str, float]:
        """Return all stages, once the device has computed them."""
        return dict(self)


@dataclass(frozen=True)
class Segmented:
    """A key frame's scores, from the segmenter and the past.

    Attributes:
        scores: 1 x C x any size, as fine as the segmenter gives them.
        logits: 1 x C x h x w, the same on the grid.
        picture: see `View.picture`; None where nothing compares with it.
        timings: milliseconds per stage.
    """

    scores: Array
    logits: Array
    picture: Array | None
    timings: StageTimes


@dataclass(frozen=True)
class Memory:
    """The evidence that a stream carries along, as seen from the last frame.

    Attributes:
        logits: 1 x C x h x w on the grid, of the key frame; of the last frame if refinement feeds back.
        picture: of the key frame, see `View.picture`; None where nothing compares with it.
        small: of the key frame, see `kernels.change.small_picture`; None where the schedule does not look.
        stamp_ns: of the key frame.
        way: 1 x 2 x h x w, flow from the last frame to that of the logits; None where nothing has moved.
        motion: the same to the key frame.
        age: frames since the key frame.
        one_class: see `kernels.decode.one_class`, of the logits; None where nothing has needed it yet.
    """

    logits: Array
    picture: Array | None
    small: Array | None
    stamp_ns: int
    way: Array | None = None
    motion: Array | None = None
    age: int = 0
    one_class: Array | None = None

    def after(self, flow: Array | None) -> Memory:
        """Return this as seen from the next frame; `flow` leads from the next frame to the last one."""
        motion = chained(self.motion, flow)
        way = motion if self.way is self.motion else chained(self.way, flow)
        return replace(self, way=way, motion=motion, age=self.age + 1)

    def with_one_class(self) -> Memory:
        """Return this with `one_class`, computed if it is not there yet."""
        return self if self.one_class is not None else replace(self, one_class=one_class(self.logits))

    def on_grid(self, grid: tuple[int, int]) -> Memory:
        """Return this on a grid of (h, w); itself where that is its own."""
        if tuple(self.logits.shape[2:]) == grid and (self.motion is None or tuple(self.motion.shape[2:]) == grid):
            return self
        motion = flow_on_grid(self.motion, grid)
        way = motion if self.way is self.motion else flow_on_grid(self.way, grid)
        picture = None if self.picture is None else resize_bytes(self.picture, grid)
        logits = resize(self.logits, grid)
        return replace(self, logits=logits, picture=picture, way=way, motion=motion, one_class=None)


class Past(NamedTuple):
    """The past moved to the current frame: its logits, 1 x C x h x w, and the memory that they come from.

    Logits are None where only labels are wanted, for which most logits need not be moved; then the memory's `way` and
    `one_class` are not None.
    """

    logits: Array | None
    memory: Memory


@dataclass(frozen=True)
class Waiting:
    """A key frame under way, as seen from the last frame: why it is one, and the rest as in `Memory`."""

    job: Job[Segmented]
    reason: str
    small: Array | None
    stamp_ns: int
    motion: Array | None = None
    age: int = 0

    def after(self, flow: Array | None) -> Waiting:
        """Return this as seen from the next frame; `flow` leads from the next frame to the last one."""
        return replace(self, motion=chained(self.motion, flow), age=self.age + 1)

    def on_grid(self, grid: tuple[int, int]) -> Waiting:
        """Return this on a grid of (h, w); itself where that is its own."""
        motion = flow_on_grid(self.motion, grid)
        return self if motion is self.motion else replace(self, motion=motion)


@dataclass(frozen=True)
class State:
    """All that a stream knows of its past.

    Attributes:
        size: (H, W) of the last frame.
        newest_ns: the newest stamp, of the last frame or, where stamps jitter, of one before it.
        since_key: frames since the last key frame was begun.
        change: of the picture since then, see `kernels.change`; 0 where the schedule does not look. A
            tensor where the device may still be at it.
        memory: where the labels come from.
        waiting: the key frame that will take its place; None if none is under way.
        flow_input: what the flow estimator keeps of the last frame.
    """

    size: tuple[int, int]
    newest_ns: int
    since_key: int
    change: float | Array
    memory: Memory
    waiting: Waiting | None
    flow_input: object

    def on_grid(self, grid: tuple[int, int]) -> State:
        """Return this on a grid of (h, w); itself where that is its own."""
        memory, waiting = self.memory.on_grid(grid), None if self.waiting is None else self.waiting.on_grid(grid)
        is_same = memory is self.memory and waiting is self.waiting
        return self if is_same else replace(self, memory=memory, waiting=waiting)


def flow_on_grid(flow: Array | None, grid: tuple[int, int]) -> Array | None:
    """Bring flow, 1 x 2 x any size in pixels of its grid, to a grid of (h, w); itself where that is its own."""
    if flow is None or tuple(flow.shape[2:]) == grid:
        return flow
    (h, w), (height, width) = flow.shape[2:], grid
    moved: Any = resize(flow, grid)  # new memory, as the size is another one
    moved[:, 0] *= (width - 1) / max(w - 1, 1)
    moved[:, 1] *= (height - 1) / max(h - 1, 1)
    return moved


def chained(motion: Array | None, flow: Array | None) -> Array | None:
    """Chain two flows: next -> last (`flow`) and last -> key (`motion`) give next -> key. None stands for no motion."""
    if flow is None or motion is None:
        return motion if flow is None else flow
    return compose(motion, flow)
