"""One camera: key frames are segmented, the others get the past carried along and repaired."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vidseg_core.classes import VOID
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.decode import decode
from vidseg_core.engine.flow import FlowEstimator
from vidseg_core.engine.fusion import fuse, past_weight, picture
from vidseg_core.engine.geometry import View, grid_size, resize
from vidseg_core.engine.refine import Refinement
from vidseg_core.engine.schedule import Decision, FixedInterval
from vidseg_core.engine.segmenter import Segmenter
from vidseg_core.engine.warp import warp
from vidseg_core.errors import ConfigError
from vidseg_core.frame import Frame, Segmentation
from vidseg_core.networks.guided_refine import Refined


@dataclass(frozen=True)
class Networks:
    """What all streams of an engine share; none of it has state."""

    segmenter: Segmenter
    flow: FlowEstimator
    refine: Refinement | None
    device: torch.device


@dataclass(frozen=True)
class State:
    """All that a stream knows of its past.

    Attributes:
        size: (H, W) of the last frame.
        stamp_ns: of the last frame.
        age: frames since the last key frame.
        logits: 1 x C x h x w on the grid, of the last key frame; of the last frame if refinement has changed them.
        motion: 1 x 2 x h x w, flow from the last frame to the last key frame; None before anything moved.
        key_picture: of the last key frame, see `fusion.picture`; None without fusion.
        flow_input: what the flow estimator keeps of the last frame.
    """

    size: tuple[int, int]
    stamp_ns: int
    age: int
    logits: Tensor
    motion: Tensor | None
    key_picture: Tensor | None
    flow_input: object


class Timings(dict):
    """Milliseconds per stage of one frame."""

    @contextmanager
    def stage(self, name: str):
        begin = time.perf_counter()
        yield
        self[name] = self.get(name, 0.0) + (time.perf_counter() - begin) * 1e3


class Stream:
    """The engine for the frames of one camera, in order. Not for use by two threads at once.

    Args:
        config: see `EngineConfig`.
        networks: shared between streams.
        ego_mask: H x W, bool, True where the vehicle sees itself; None for none.
    """

    def __init__(self, config: EngineConfig, networks: Networks, ego_mask: np.ndarray | None = None):
        self._config = config
        self._networks = networks
        self._ego_mask = ego_mask
        self._schedule = FixedInterval(config.interval)
        self._state: State | None = None
        self._reset_reason: str | None = None
        self._key_wanted = False
        self.refined: Refined | None = None
        """What guided refinement made of the last frame (for figures); None on key frames and without refinement."""

    def reset(self, reason: str = "requested") -> None:
        """Forget the past; the next frame is a key frame."""
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
        self._schedule = FixedInterval(interval)

    def set_confidence(self, wanted: bool) -> None:
        """Change `EngineConfig.confidence` from the next frame on."""
        if wanted != self._config.confidence:
            self._config = replace(self._config, confidence=wanted)

    @torch.inference_mode()
    def step(self, frame: Frame) -> Segmentation:
        """Labels of the next frame.

        Raises:
            ConfigError: the ego mask has another size than the frame.
        """
        self._check_ego_mask(frame)
        if reason := self._outdated_by(frame):
            self.reset(reason)
        decision = self._decide()
        timings = Timings()
        view = View(frame.image, grid_size(frame.size, self._config.stride_of(frame.size)), self._networks.device)
        with timings.stage("prepare"):
            flow_input = self._networks.flow.prepare(view)
        if decision.is_key:
            scores, self._state = self._segment(frame, view, flow_input, timings)
        else:
            scores, self._state = self._propagate(frame, view, flow_input, timings)
        with timings.stage("decode"):
            labels = decode(scores, frame.size)
            if self._ego_mask is not None:
                labels[self._ego_mask] = VOID
        reset, self._reset_reason = self._reset_reason, None
        confidence = self._confidence(resize(scores, view.grid)) if self._config.confidence else None
        return Segmentation(
            labels, frame.stamp_ns, decision.is_key, self._state.age, decision.reason, reset, dict(timings), confidence
        )

    def _outdated_by(self, frame: Frame) -> str | None:
        """Why the past says nothing about this frame; None if it does."""
        if self._state is None:
            return None
        if frame.size != self._state.size:
            (h, w), (new_h, new_w) = self._state.size, frame.size
            return f"image size changed from {w} x {h} to {new_w} x {new_h}"
        gap_s = (frame.stamp_ns - self._state.stamp_ns) / 1e9
        if gap_s < 0:
            return f"time ran back by {-gap_s:.3f} s"
        if gap_s > self._config.max_gap_s:
            return f"no frame for {gap_s:.3f} s"
        return None

    def _decide(self) -> Decision:
        decision = self._schedule.decide(None if self._state is None else self._state.age)
        if self._key_wanted and not decision.is_key:
            decision = Decision(True, "requested")
        if decision.is_key:
            self._key_wanted = False
        return decision

    def _segment(self, frame: Frame, view: View, flow_input: object, timings: Timings) -> tuple[Tensor, State]:
        """A key frame's scores, as fine as the segmenter gives them, and what to remember."""
        self.refined = None
        with timings.stage("segment"):
            scores = self._networks.segmenter(frame)  # 1 x C x any size
        key_picture = None
        if self._config.fusion:
            with timings.stage("fuse"):
                key_picture = picture(view)
            if self._state is not None:
                carried, motion = self._move(flow_input, timings)
                with timings.stage("fuse"):
                    weight = past_weight(key_picture, self._state.key_picture, motion)
                    scores = fuse(scores, carried, weight)
        return scores, State(
            frame.size, frame.stamp_ns, 0, resize(scores, view.grid), None, key_picture, flow_input
        )

    def _propagate(self, frame: Frame, view: View, flow_input: object, timings: Timings) -> tuple[Tensor, State]:
        """The last frame's logits, moved and repaired, 1 x C x h x w, and what to remember."""
        logits, motion = self._move(flow_input, timings)
        remembered = self._state.logits
        if self._networks.refine is not None:
            with timings.stage("refine"):
                self.refined = self._networks.refine(logits, view.grid_bgr)
                logits = remembered = self.refined.logits
        return logits, State(
            frame.size, frame.stamp_ns, self._state.age + 1, remembered, motion, self._state.key_picture, flow_input
        )

    def _move(self, flow_input: object, timings: Timings) -> tuple[Tensor, Tensor | None]:
        """The remembered logits at their places in this frame, and the flow from here to the last key frame.

        Without refinement the key frame's own logits are moved by all the flow since: one interpolation instead of one
        for each frame keeps thin things sharp.
        """
        state = self._state
        with timings.stage("flow"):
            flow = self._networks.flow.flow(flow_input, state.flow_input)  # 1 x 2 x h x w
        if flow is None:
            return state.logits, None
        with timings.stage("warp"):
            motion = flow if state.motion is None else flow + warp(state.motion, flow, padding="border")
            way = motion if self._networks.refine is None else flow
            return warp(state.logits, way, self._config.warp_align_corners, self._config.padding), motion

    @staticmethod
    def _confidence(logits: Tensor) -> np.ndarray:
        return logits.float().softmax(1).amax(1)[0].cpu().numpy()

    def _check_ego_mask(self, frame: Frame) -> None:
        if self._ego_mask is not None and self._ego_mask.shape != frame.size:
            (mask_h, mask_w), (h, w) = self._ego_mask.shape, frame.size
            raise ConfigError(f"ego_mask: expected the image's size {w} x {h}, got {mask_w} x {mask_h}")
