"""An engine that computes nothing: what is left is the cost of ROS."""

from __future__ import annotations

import numpy as np

from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.frame import Frame, Segmentation


class PassThroughStream:
    """Takes the place of `Stream`: every frame gets class 0 everywhere."""

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


class PassThrough:
    """Takes the place of `Engine`."""

    def __init__(self, classes: str | None = None):
        self.classes: ClassTable = load_classes(classes or "camvid")

    def stream(self, ego_mask: str | None = None, *, phase: float = 0.0) -> PassThroughStream:
        return PassThroughStream()

    def close(self) -> bool:
        """There is nothing to end."""
        return True

    def segmenting_s(self) -> float:
        """Nothing is computed."""
        return 0.0

    def describe(self) -> dict:
        return {"device": "cpu", "engine": "pass_through"}
