"""One camera: key frames are segmented, the others get the past carried along and repaired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from vidseg_core.arrays import Array, is_out_of_memory, on_device, on_host, pixels_last, without_gradients
from vidseg_core.devices import Device
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.flow import FlowEstimator
from vidseg_core.engine.geometry import View, grid_size
from vidseg_core.engine.key_frames.jobs import AtOnce, Job, KeyFrames, KeyFrameWork
from vidseg_core.engine.protocol import capabilities
from vidseg_core.engine.schedule import PROPAGATED, Decision, schedule_of
from vidseg_core.engine.segmenter import Segmenter
from vidseg_core.engine.state import Memory, Past, Segmented, StageTimes, State, Waiting
from vidseg_core.errors import ConfigError
from vidseg_core.frame import MOST_JITTER_NS, Frame, Segmentation
from vidseg_core.kernels.change import change, small_picture
from vidseg_core.kernels.difference import difference
from vidseg_core.kernels.fuse import fuse
from vidseg_core.kernels.paint import Moved, Painted, draws, paint
from vidseg_core.kernels.recording import Recorder
from vidseg_core.kernels.resample import on_grid
from vidseg_core.kernels.shares import shares, top_shares
from vidseg_core.kernels.transfer import upload
from vidseg_core.kernels.update import update
from vidseg_core.kernels.warp import warp
from vidseg_core.overlay import Colours

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vidseg_core.engine.recorded import Recordings
    from vidseg_core.engine.refine import Refinement
    from vidseg_core.networks.guided_refine import Refined


@dataclass(frozen=True)
class Networks:
    """Networks and operations that all streams of an engine share; none of them has state.

    Attributes:
        updater: what looks at every propagated frame at low resolution; None for nothing.
        feedback: whether a frame's refined logits are what the next frame starts from (as published); else each frame
            starts from the key frame's own, and its refinement is for itself.
        times: makes what a frame's stages are timed with.
        recorder: records propagated frames; None where the device is not asked frame by frame.
    """

    segmenter: Segmenter
    flow: FlowEstimator
    refine: Refinement | None
    device: Device | torch.device
    feedback: bool = True
    updater: Segmenter | None = None
    times: Callable[[], StageTimes] = StageTimes
    recorder: Recorder | None = None

    @property
    def feeds_back(self) -> bool:
        return self.refine is not None and self.feedback


class Stream:
    """The engine for the frames of one camera, in order of arrival. Not for use by two threads at once.

    A key frame's scores may come some frames later. Meanwhile the past is carried on; once they are there, they take
    its place, carried to the current frame by all the flow since their own. At most one key frame is under way. Where
    there is nothing to carry on, the stream waits.

    Args:
        config: see `EngineConfig`.
        networks: shared between streams.
        ego_mask: H x W, bool, True where the vehicle sees itself; None for none.
        key_frames: how long key frames take.
        phase: share of the first interval that is left out, 0 or more and below 1; so that the cameras of one engine,
            all of which begin with a key frame, do not have the next ones at the same time, too.
    """

    def __init__(
        self,
        config: EngineConfig,
        networks: Networks,
        ego_mask: np.ndarray | None = None,
        key_frames: KeyFrames | None = None,
        phase: float = 0.0,
    ):
        self._config = config
        self._networks = networks
        self._ego_mask = ego_mask
        self._own: Array | None = None
        self._key_frames = key_frames or AtOnce()
        self._phase = phase
        self._padding = config.warp_padding or ("zeros" if networks.feeds_back else "border")
        self._schedule = schedule_of(config)
        self._at_once: bool | None = None
        self._state: State | None = None
        self._reset_reason: str | None = None
        self._key_wanted = False
        self._wants_probabilities = False
        self._colours: Colours | None = None
        self._recordings: Recordings | None = None
        self.refined: Refined | None = None
        """What guided refinement made of the last frame (for figures); None on key frames and without refinement."""

    def reset(self, reason: str = "requested") -> None:
        """Forget the past, a key frame under way included; the next frame is a key frame."""
        if self._state is not None and self._state.waiting is not None:
            self._state.waiting.job.discard()
        self._state = None
        self._reset_reason = reason

    def request_key_frame(self) -> None:
        """Make the next frame a key frame without forgetting the past."""
        self._key_wanted = True

    def set_interval(self, interval: int) -> None:
        """Change `EngineConfig.interval` from the next frame on.

        Raises:
            ConfigError
        """
        self._config = replace(self._config, interval=interval)
        self._schedule = schedule_of(self._config)

    def set_at_once(self, at_once: bool) -> None:
        """Change whether the stream waits for its key frames, whatever computes them, from the next frame on."""
        self._at_once = at_once

    def set_grid_stride(self, grid_stride: int) -> None:
        """Change `EngineConfig.grid_stride` from the next frame on; the past is kept, on the new grid.

        Not for networks that were trained on one grid.

        Raises:
            ConfigError
        """
        self._config = replace(self._config, grid_stride=grid_stride)

    def set_updater(self, updater: Segmenter | None) -> None:
        """Change what looks at propagated frames at low resolution from the next frame on; None for nothing.

        A past that keeps no picture, without fusion, is updated from the next key frame on.
        """
        if updater is not self._networks.updater:
            self._networks = replace(self._networks, updater=updater)

    def set_confidence(self, wanted: bool) -> None:
        """Change `EngineConfig.confidence` from the next frame on."""
        if wanted != self._config.confidence:
            self._config = replace(self._config, confidence=wanted)

    def set_probabilities(self, wanted: bool) -> None:
        """Change from the next frame on whether results have `Segmentation.probabilities`."""
        self._wants_probabilities = wanted

    def set_overlay(self, colours: Colours | None) -> None:
        """Change from the next frame on whether results have `Segmentation.overlay`; never on the CPU."""
        colours = colours if draws(self._networks.device) else None
        if colours is None or self._colours is None or not colours.is_same(self._colours):
            self._colours = colours

    def step(self, frame: Frame) -> Segmentation:
        """Label the next frame.

        Raises:
            ConfigError: the ego mask has another size than the frame.
            MemoryError: the device has no memory left. The stream has forgotten its past and may go on.
            Exception: what the segmenter has raised, be it at an earlier frame. The next frame goes on without.
        """
        try:
            with self._key_frames.frame(), without_gradients():
                return self._step(frame)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            message = f"out of memory on {self._networks.device}: {str(error).splitlines()[0]}"
        # Only now nothing of the frame is referred to any more.
        import torch

        self.reset("out of memory")
        self._recordings = None
        torch.cuda.empty_cache()
        raise MemoryError(message)

    def _step(self, frame: Frame) -> Segmentation:
        self._check_ego_mask(frame)
        if reason := self._outdated_by(frame):
            self.reset(reason)
        timings = self._networks.times()
        view = self._view(frame)
        if self._state is not None:
            self._state = self._state.on_grid(view.grid)
        self.refined = None
        arrived = self._take_arrived()
        decision = self._decide()
        if not decision.is_key and (replayed := self._replayed(frame, view, decision, arrived, timings)) is not None:
            return replayed
        view.compares = self._compares(decision)
        with timings.stage("prepare"):
            flow_input = self._networks.flow.prepare(view)
        at_once = self._key_frames.at_once if self._at_once is None else self._at_once
        waits = decision.is_key and (self._state is None or at_once)
        past, waiting = None, None
        if self._state is not None and (self._config.fusion or not waits):
            wants_logits = self._uses_logits or (decision.is_key and self._config.fusion)
            past, waiting = self._move(flow_input, wants_logits, timings)
        job: Job[Segmented] | None = None
        if decision.is_key:
            together = capabilities(self._networks.segmenter).together
            work = KeyFrameWork(partial(self._segment, past, view.grid, view.shrunk), together)
            job = self._key_frames.begin(work, view.shared(frame))
        small = view.small() if decision.is_key and self._schedule.looks else None
        scores: Array | None
        fresh: str | None
        half_pixel = False
        if waits and job is not None:
            half_pixel = capabilities(self._networks.segmenter).half_pixel
            key = job.wait()
            timings.include(key.timings)
            scores, memory, fresh = key.scores, Memory(key.logits, key.picture, small, frame.stamp_ns), decision.reason
        else:
            assert past is not None  # a stream without a past waits
            scores, memory = self._repair(past, frame, view, timings)
            fresh = None if arrived is None else arrived.reason
            if job is not None:
                waiting = Waiting(job, decision.reason, small, frame.stamp_ns)
        changed = self._changed(view.small, waiting or memory, timings)
        since_key = self._since_key(decision)
        self._state = State(frame.size, self._newest_ns(frame), since_key, changed, memory, waiting, flow_input)
        with timings.stage("decode"):
            painted = self._paint(scores, memory, view, half_pixel)
        return self._result(frame, scores, memory, fresh, painted, view, half_pixel, timings)

    def _replayed(
        self, frame: Frame, view: View, decision: Decision, arrived: Waiting | None, timings: StageTimes
    ) -> Segmentation | None:
        """Label a propagated frame as the device has recorded it; None where it has to be asked stage by stage."""
        networks, state = self._networks, self._state
        if networks.recorder is None or state is None:
            return None
        if networks.refine is not None or networks.updater is not None:
            networks.recorder.refuse("networks refine or update propagated frames")
            return None
        if self._recordings is None:
            from vidseg_core.engine.recorded import Recordings, Rules

            own = cast("Tensor | None", self._own_on_device())  # recorders are for devices other than the CPU
            rules = Rules(self._config.warp_align_corners, self._padding, own)
            self._recordings = Recordings(networks.flow, rules, networks.recorder)
        recording = self._recordings.of(state, view)
        if recording is None:
            return None
        try:
            with timings.stage("replay"):
                memory, waiting, flow_input = recording.step(frame.image, state, self._colours)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._recordings.refuse(error)
            return None
        changed = self._changed(partial(small_picture, recording.pixels), waiting or memory, timings)
        since_key = self._since_key(decision)
        self._state = State(frame.size, self._newest_ns(frame), since_key, changed, memory, waiting, flow_input)
        with timings.stage("decode"):
            painted = recording.painted()
        scores = None
        if self._uses_logits:
            assert memory.way is not None  # as every replay leaves it
            scores = warp(memory.logits, memory.way, self._config.warp_align_corners, self._padding)
        fresh = None if arrived is None else arrived.reason
        return self._result(frame, scores, memory, fresh, painted, view, False, timings)

    def _result(
        self, frame: Frame, scores: Array | None, memory: Memory, fresh: str | None, painted: Painted, view: View,
        half_pixel: bool, timings: StageTimes,
    ) -> Segmentation:  # fmt: skip
        reset, self._reset_reason = self._reset_reason, None
        confidence, probabilities = None, None
        # None where they were asked for only after this frame began.
        if scores is not None and (self._config.confidence or self._wants_probabilities):
            logits = on_grid(scores, view.grid, frame.size if half_pixel else None)
            confidence = on_host(top_shares(logits))[0, 0] if self._config.confidence else None
            probabilities = self._probabilities(on_host(shares(logits))) if self._wants_probabilities else None
        # An update network has seen every frame.
        is_updated = self._networks.updater is not None and memory.picture is not None
        evidence_ns = frame.stamp_ns if is_updated else memory.stamp_ns
        return Segmentation(
            painted.labels,
            frame.stamp_ns,
            fresh is not None,
            memory.age,
            fresh or PROPAGATED,
            reset,
            timings.milliseconds(),
            confidence,
            evidence_ns,
            probabilities,
            painted.overlay,
        )

    @property
    def _uses_logits(self) -> bool:
        """Whether a propagated frame needs its logits for anything but its labels."""
        networks = self._networks
        asked = self._config.confidence or self._wants_probabilities
        return asked or networks.refine is not None or networks.updater is not None

    def _paint(self, scores: Array | None, memory: Memory, view: View, half_pixel: bool) -> Painted:
        """Label the frame by its scores or, without any, by what is remembered."""
        moved = None
        if scores is None:
            assert memory.way is not None and memory.one_class is not None  # see `Past`
            moved = Moved(memory.way, memory.one_class, self._config.warp_align_corners, self._padding)
        return paint(
            memory.logits if scores is None else scores,
            view.size,
            half_pixel=half_pixel,
            moved=moved,
            own=self._own_on_device(),
            image=None if self._colours is None else view.pixels,
            colours=self._colours,
        )

    def _own_on_device(self) -> Array | None:
        """Return the ego mask where the device's kernels read it; None for none."""
        if self._own is None and self._ego_mask is not None:
            self._own = upload(self._ego_mask, self._networks.device)
        return self._own

    def _view(self, frame: Frame) -> View:
        return View(frame.image, grid_size(frame.size, self._config.stride_of(frame.size)), self._networks.device)

    def _take_arrived(self) -> Waiting | None:
        """Have the key frame under way take the place of the past, if its scores are there; None if not."""
        state = self._state
        if state is None or state.waiting is None:
            return None
        waiting = state.waiting
        self._state = replace(state, waiting=None)  # so it is, too, where the segmenter has failed
        key = waiting.job.poll()
        if key is None:
            self._state = state
            return None
        motion = waiting.motion
        memory = Memory(key.logits, key.picture, waiting.small, waiting.stamp_ns, motion, motion, waiting.age)
        grid = grid_size(state.size, self._config.stride_of(state.size))  # another one, perhaps, than when it was begun
        self._state = replace(state, waiting=None, memory=memory.on_grid(grid))
        return waiting

    def _outdated_by(self, frame: Frame) -> str | None:
        """Return the reason for which the past says nothing about this frame; None if it does say something."""
        if self._state is None:
            return None
        if frame.size != self._state.size:
            (h, w), (new_h, new_w) = self._state.size, frame.size
            return f"image size changed from {w} x {h} to {new_w} x {new_h}"
        gap_ns = frame.stamp_ns - self._state.newest_ns
        if gap_ns < -MOST_JITTER_NS:
            return f"time ran back by {-gap_ns / 1e9:.3f} s"
        # Frames that the engine was too slow for are no pause of the camera's: a slow key frame must not make the next
        # frame a key frame, and so on.
        pause_s = gap_ns / 1e9 if frame.pause_s is None else frame.pause_s
        if pause_s > self._config.max_gap_s:
            return f"no frame for {pause_s:.3f} s"
        return None

    def _newest_ns(self, frame: Frame) -> int:
        return frame.stamp_ns if self._state is None else max(self._state.newest_ns, frame.stamp_ns)

    def _decide(self) -> Decision:
        """Decide if a key frame begins; none does while one is under way."""
        if self._state is not None and self._state.waiting is not None:
            return Decision(False)
        state = self._state
        since_key, changed = (None, 0.0) if state is None else (state.since_key, float(state.change))
        decision = self._schedule.decide(since_key, changed)
        if self._key_wanted and not decision.is_key:
            decision = Decision(True, "requested")
        if decision.is_key:
            self._key_wanted = False
        return decision

    def _compares(self, decision: Decision) -> bool:
        """Tell if a frame's picture is compared with another one's, by an update, the schedule or the key frame."""
        at_key = decision.is_key and self._config.fusion
        return at_key or self._schedule.looks or self._networks.updater is not None

    def _since_key(self, decision: Decision) -> int:
        if self._state is None:
            return int(self._phase * (self._schedule.longest + 1))
        return 0 if decision.is_key else self._state.since_key + 1

    def _changed(self, small: Callable[[], Array], key: Memory | Waiting, timings: StageTimes) -> float | Array:
        """Measure the change of the small picture since the last key frame; 0 if the schedule does not look."""
        if key.small is None or key.age == 0:
            return 0.0
        with timings.stage("change"):
            return change(small(), key.small, key.motion)

    def _segment(
        self, past: Past | None, grid: tuple[int, int], shrunk: Array | None, frame: Frame,
        scores: Array | None = None,
    ) -> Segmented:  # fmt: skip
        """Segment a key frame, or go on from its scores.

        Another thread may run it: of what changes from frame to frame it reads the networks alone, and those once.
        """
        networks = self._networks
        timings, shown, apart = networks.times(), None, None
        view = View(frame.image, grid, networks.device, frame.pixels, shrunk)
        segmenter = networks.segmenter
        if self._config.fusion or networks.updater is not None:
            with timings.stage("compare"):
                shown = view.picture
                if past is not None and self._config.fusion:
                    assert past.memory.picture is not None  # every key frame has one where the past is fused
                    apart = difference(shown, past.memory.picture, past.memory.motion)
        with timings.stage("segment"):
            able = capabilities(segmenter)
            carried = None if past is None else past.logits
            scores = segmenter(frame) if scores is None else scores
            scores = on_device(scores, networks.device)  # 1 x C x any size
        if carried is not None and apart is not None:
            with timings.stage("fuse"):
                scores = fuse(scores, carried, apart, able.picture_of(frame))
        return Segmented(scores, on_grid(scores, view.grid, able.picture_of(frame)), shown, timings)

    def _move(self, flow_input: object, wants_logits: bool, timings: StageTimes) -> tuple[Past, Waiting | None]:
        """The past at this frame, with its logits or for labels alone, and the key frame under way as seen from it.

        The key frame's own logits are moved by all the flow since: one interpolation instead of one for each frame
        keeps thin things sharp. Where refinement feeds back, the last frame's are moved by the flow from it.
        """
        state = self._state
        assert state is not None
        with timings.stage("flow"):
            flow = self._networks.flow.flow(flow_input, state.flow_input)  # 1 x 2 x h x w
            flow = None if flow is None else on_device(flow, self._networks.device)
        with timings.stage("warp"):
            memory, logits = state.memory.after(flow), None
            if memory.way is None:
                logits = memory.logits
            elif wants_logits:
                logits = warp(memory.logits, memory.way, self._config.warp_align_corners, self._padding)
            else:
                memory = memory.with_one_class()
            return Past(logits, memory), None if state.waiting is None else state.waiting.after(flow)

    def _repair(self, past: Past, frame: Frame, view: View, timings: StageTimes) -> tuple[Array | None, Memory]:
        """Logits of this frame, 1 x C x h x w, None where those of the past are None; and what to remember."""
        logits, memory = past
        if logits is None:
            return None, memory
        if self._networks.refine is not None:
            with timings.stage("refine"):
                self.refined = self._networks.refine(logits, view.grid_bgr)
                logits = on_device(self.refined.logits, self._networks.device)
            if self._networks.feedback:
                memory = replace(memory, logits=logits, way=None, one_class=None)
        if self._networks.updater is not None and memory.picture is not None:
            with timings.stage("update"):
                fresh = self._networks.updater(view.shared(frame))  # 1 x C x any size
                fresh = on_device(fresh, self._networks.device)
                seen = capabilities(self._networks.updater).picture_of(frame)
                logits = update(logits, fresh, difference(view.picture, memory.picture, memory.motion), seen)
        return logits, memory

    def _probabilities(self, found: np.ndarray) -> np.ndarray:
        """Return shares, 1 x C x h x w, as h x w x C; 0 where the picture's pixel is the vehicle's own."""
        found = pixels_last(found)
        if self._ego_mask is not None:
            places = (
                np.linspace(0, whole - 1, side).round().astype(int)
                for whole, side in zip(self._ego_mask.shape, found.shape[:2], strict=True)
            )
            found[self._ego_mask[np.ix_(*places)]] = 0.0
        return found

    def _check_ego_mask(self, frame: Frame) -> None:
        if self._ego_mask is not None and self._ego_mask.shape != frame.size:
            (mask_h, mask_w), (h, w) = self._ego_mask.shape, frame.size
            raise ConfigError(f"ego_mask: expected the image's size {w} x {h}, got {mask_w} x {mask_h}")
