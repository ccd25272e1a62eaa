"""Propagated frames that a device replays as a whole, from the picture in bytes to labels and overlay.

What they need of the past stays where it is from one frame to the next. Whatever else makes something of it, such as a
key frame, leaves it elsewhere; then it is copied there before the next replay. So frames of both kinds may follow each
other in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vidseg_core.arrays import Array, as_tensor
from vidseg_core.engine.flow import FlowEstimator
from vidseg_core.engine.geometry import View
from vidseg_core.engine.state import Memory, State, Waiting
from vidseg_core.kernels.paint import Moved, Painted, brought, draw
from vidseg_core.kernels.recording import Recorder
from vidseg_core.kernels.transfer import upload
from vidseg_core.kernels.warp import compose
from vidseg_core.overlay import Colours

MOST_SIZES = 4
"""Sizes of picture and grid that a stream has recordings for: the governor goes back and forth between few."""


class Advanced(NamedTuple):
    """The past as seen from the frame that was replayed. Its tensors are overwritten by the next replay."""

    memory: Memory
    waiting: Waiting | None
    flow_input: object


@dataclass(frozen=True)
class Rules:
    """Say how a stream moves logits and labels pixels, see `kernels.warp` and `kernels.paint`."""

    align_corners: bool
    padding: str
    own: Array | None


@dataclass(frozen=True)
class _Replay:
    run: Callable[[], None]
    labels: Tensor
    overlay: Tensor | None


class RecordedFrame:
    """A propagated frame of one size.

    Args:
        state: of the frame before, on the grid of `view`; its values are copied.
        view: of a frame.
        flow: has no obstacle to recording.
        rules: of the stream.
        recorder: of the device.
    """

    def __init__(self, state: State, view: View, flow: FlowEstimator, rules: Rules, recorder: Recorder):
        self._size, self._grid, self._device = view.size, view.grid, view.device
        self._flow, self._rules, self._recorder = flow, rules, recorder
        memory = state.memory.with_one_class()
        assert memory.one_class is not None
        self._logits, self._one_class = (as_tensor(x).clone() for x in (memory.logits, memory.one_class))
        self._flow_input = _mapped(state.flow_input, lambda x: as_tensor(x).clone())
        self.pixels = torch.zeros((*view.size, 3), dtype=torch.uint8, device=view.device)
        self._motion = torch.zeros((1, 2, *view.grid), dtype=torch.float32, device=view.device)
        self._waiting_motion = torch.zeros_like(self._motion)
        self._replays: dict[tuple[bool, bool], _Replay] = {}
        self._colours: Colours | None = None

    def step(self, image: np.ndarray, state: State, colours: Colours | None) -> Advanced:
        """Have the frame after `state` computed; `painted` waits for its labels.

        Raises:
            RuntimeError: it cannot be recorded.
        """
        if colours is not self._colours:
            self._colours = colours
            self._replays = {kind: one for kind, one in self._replays.items() if not kind[1]}
        kind = state.waiting is not None, colours is not None
        self._load(state)
        if kind not in self._replays:
            self._replays[kind] = self._record(*kind)
        upload(image, self._device, self.pixels)
        self._now = self._replays[kind]
        self._now.run()
        memory = replace(
            state.memory, logits=self._logits, one_class=self._one_class, way=self._motion, motion=self._motion,
            age=state.memory.age + 1,
        )  # fmt: skip
        waiting = state.waiting
        if waiting is not None:
            waiting = replace(waiting, motion=self._waiting_motion, age=waiting.age + 1)
        return Advanced(memory, waiting, self._flow_input)

    def painted(self) -> Painted:
        """Return labels and overlay of the frame that was replayed last, once they are there."""
        return brought(self._now.labels, self._now.overlay)

    def _load(self, state: State) -> None:
        """Copy here what is elsewhere."""
        memory = state.memory.with_one_class()
        motion = None if state.waiting is None else state.waiting.motion
        # The key frame under way may have become the memory: its motion is read before it is overwritten.
        pairs: list[tuple[Tensor, Array | None]] = [(self._motion, memory.motion), (self._waiting_motion, motion)]
        pairs += [(self._logits, memory.logits), (self._one_class, memory.one_class)]
        pairs += zip(_values(self._flow_input), _values(state.flow_input), strict=True)
        for own, given in pairs:
            if given is None:
                own.zero_()
            elif given is not own:
                own.copy_(as_tensor(given))

    def _record(self, waits: bool, draws: bool) -> _Replay:
        kept = [self._motion, self._waiting_motion, *_values(self._flow_input)]
        values = [own.clone() for own in kept]
        try:
            run, (labels, overlaid) = self._recorder.record(lambda: self._advance(waits, draws))
        finally:
            for own, value in zip(kept, values, strict=True):  # recording has moved on, and by pictures of its own
                own.copy_(value)
        return _Replay(run, labels, overlaid)

    def _advance(self, waits: bool, draws: bool) -> tuple[Tensor, Tensor | None]:
        """Label the next frame: what is recorded."""
        shape = np.broadcast_to(np.uint8(0), (*self._size, 3))
        current = self._flow.prepare(View(shape, self._grid, self._device, self.pixels))
        flow = self._flow.flow(current, self._flow_input)
        assert flow is not None  # else there would be an obstacle
        motion = as_tensor(compose(self._motion, flow))
        labels, overlaid = draw(
            self._logits,
            self._size,
            moved=Moved(motion, self._one_class, self._rules.align_corners, self._rules.padding),
            own=self._rules.own,
            image=self.pixels if draws else None,
            colours=self._colours if draws else None,
        )
        if waits:
            self._waiting_motion.copy_(as_tensor(compose(self._waiting_motion, flow)))
        self._motion.copy_(motion)
        for own, new in zip(_values(self._flow_input), _values(current), strict=True):
            own.copy_(new)
        return as_tensor(labels), None if overlaid is None else as_tensor(overlaid)


class Recordings:
    """Propagated frames of one stream, by their sizes.

    Args:
        flow: of the engine.
        rules: of the stream.
        recorder: of the device.
    """

    def __init__(self, flow: FlowEstimator, rules: Rules, recorder: Recorder):
        self._flow, self._rules, self._recorder = flow, rules, recorder
        self._frames: dict[tuple, RecordedFrame] = {}
        self._is_refused = False

    def of(self, state: State, view: View) -> RecordedFrame | None:
        """Return what replays the frame after `state`; None where it cannot be recorded."""
        obstacle = getattr(self._flow, "obstacle_to_recording", None)
        reason = "its flow is none of the engine's own" if obstacle is None else obstacle(view.device)
        if self._is_refused or reason is not None:
            if reason is not None:
                self._recorder.refuse(reason)
            return None
        memory = state.memory
        if memory.way is not memory.motion or not _values(state.flow_input):
            return None  # moved by an engine that differs
        shapes = (tuple(x.shape) for x in _values(state.flow_input))
        key = view.size, view.grid, tuple(memory.logits.shape), as_tensor(memory.logits).dtype, *shapes
        found = self._frames.pop(key, None)
        if found is None:
            if len(self._frames) >= MOST_SIZES:
                self._frames.pop(next(iter(self._frames)))
            found = RecordedFrame(state, view, self._flow, self._rules, self._recorder)
        self._frames[key] = found  # the latest last
        return found

    def refuse(self, error: RuntimeError) -> None:
        """Record nothing any more."""
        self._is_refused = True
        self.forget()
        self._recorder.refuse(str(error).splitlines()[0] if str(error) else type(error).__name__)

    def forget(self) -> None:
        """Give back what is recorded, and its memory."""
        self._frames = {}


def _mapped(prepared: Any, of: Callable[[Array], Tensor]) -> Any:
    """Return what a flow estimator has prepared with `of` each array or tensor in its place."""
    if isinstance(prepared, np.ndarray | Tensor):
        return of(prepared)
    return type(prepared)(_mapped(one, of) for one in prepared) if type(prepared) in (list, tuple) else prepared


def _values(prepared: Any) -> list[Any]:
    if isinstance(prepared, np.ndarray | Tensor):
        return [prepared]
    return [x for one in prepared for x in _values(one)] if type(prepared) in (list, tuple) else []
