"""Segmenters and flow estimators that remember: several streams over the same frames compute each thing once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg_core.arrays import Array, as_tensor
from vidseg_core.engine.flow import FlowEstimator
from vidseg_core.engine.geometry import View
from vidseg_core.engine.segmenter import Segmenter
from vidseg_core.frame import Frame

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Same:
    """Compares by identity, whatever the value. Holds the value, so that its id is not given to another object."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def by_name(frame: Frame) -> tuple[str, str]:
    """Recognise a frame by its stream and name, also where its stamp or memory is another one."""
    return frame.stream, frame.name


def by_image(frame: Frame) -> Same:
    """Recognise a frame by its image, the same object in memory, whatever else is known of it."""
    return Same(frame.image)


class RememberedSegmenter:
    """A segmenter that computes the scores of each frame once.

    All other attributes are those of the segmenter itself, so its capabilities stay the same (see
    `protocol.capabilities`).

    Args:
        segmenter: what it asks.
        most: how many frames to remember, the latest ones; None for all.
        recognise: gives equal values for frames with equal scores; the default takes only the same object.
        dtype: stores scores in it; they are returned in float32. None stores them as they are.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        most: int | None = None,
        recognise: Callable[[Frame], Hashable] = Same,
        dtype: torch.dtype | None = None,
    ):
        self.num_classes = segmenter.num_classes
        self._segmenter = segmenter
        self._most = most
        self._recognise = recognise
        self._dtype = dtype
        self._scores: dict[Hashable, Any] = {}

    def __call__(self, frame: Frame) -> Array:
        which = self._recognise(frame)
        if which not in self._scores:
            scores = self._segmenter(frame)
            if self._most is not None:
                while len(self._scores) >= self._most:
                    del self._scores[next(iter(self._scores))]
            self._scores[which] = scores if self._dtype is None else as_tensor(scores).to(self._dtype)
        return self._scores[which] if self._dtype is None else self._scores[which].float()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._segmenter, name)


class RememberedFlow:
    """A flow estimator that prepares the latest image once and computes each flow from it once."""

    def __init__(self, flow: FlowEstimator):
        self._flow = flow
        self._image: np.ndarray | None = None
        self._prepared: _Prepared | None = None
        self._flows: dict[tuple[_Prepared, _Prepared], Array | None] = {}

    def prepare(self, view: View) -> _Prepared:
        """Prepare an image; the same object for the same image."""
        if self._prepared is None or view.image is not self._image:
            self._image, self._prepared = view.image, _Prepared(self._flow.prepare(view))
            self._flows = {}
        return self._prepared

    def flow(self, current: _Prepared, previous: _Prepared) -> Array | None:
        """See `FlowEstimator`."""
        pair = current, previous
        if pair not in self._flows:
            self._flows[pair] = self._flow.flow(current.value, previous.value)
        return self._flows[pair]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._flow, name)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Gives each preparation an identity (and a hash by it), whatever the estimator makes of an image."""

    value: object
