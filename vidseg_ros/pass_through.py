"""An engine that computes nothing, to measure the cost of ROS alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.frame import Frame, Segmentation

if TYPE_CHECKING:
    from vidseg_core.overlay import Colours


class PassThroughStream:
    """Label every pixel of every frame as class 0; see `StreamProtocol`."""

    def __init__(self) -> None:
        self._labels = np.zeros((0, 0), dtype=np.uint8)
        self._reset_reason: str | None = None

    def step(self, frame: Frame) -> Segmentation:
        if self._labels.shape != frame.size:
            self._labels = np.zeros(frame.size, dtype=np.uint8)
        reset, self._reset_reason = self._reset_reason, None
        return Segmentation(self._labels, frame.stamp_ns, is_key=True, age=0, reason="pass through", reset=reset)

    def reset(self, reason: str = "requested") -> None:
        self._reset_reason = reason

    def request_key_frame(self) -> None:
        """Every frame is one."""

    def set_interval(self, interval: int) -> None:
        """There is none."""

    def set_confidence(self, wanted: bool) -> None:
        """There is none."""

    def set_probabilities(self, wanted: bool) -> None:
        """There are none."""

    def set_overlay(self, colours: Colours | None) -> None:
        """Draw none."""


class PassThrough:
    """Make streams that compute nothing; see `EngineProtocol`."""

    def __init__(self, classes: str | None = None):
        self.classes: ClassTable = load_classes(classes or "camvid")

    def stream(self, ego_mask: str | Path | None = None, *, phase: float = 0.0) -> PassThroughStream:
        return PassThroughStream()

    def close(self, timeout_s: float | None = 0.0) -> bool:
        """Return True: there is nothing to end."""
        return True

    def segmenting_s(self) -> float:
        """Return 0: nothing is computed."""
        return 0.0

    def describe(self) -> dict:
        return {"device": "cpu", "engine": "pass_through"}
