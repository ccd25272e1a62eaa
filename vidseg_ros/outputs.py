"""Messages about a frame: pictures to render, and the legend that explains them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from vidseg_core.classes import VOID, ClassTable
from vidseg_core.frame import Segmentation
from vidseg_core.kernels.vote import vote
from vidseg_core.overlay import colorize, confidence_levels, overlay
from vidseg_ros.parameters import CameraSettings


@dataclass(frozen=True)
class Picture:
    """Everything that an output is rendered from.

    Attributes:
        image: H x W x 3, uint8, RGB.
        segmentation: of that image.
        lut: 256 x 3, uint8, RGB: the colour of each id.
        settings: of the camera.
    """

    image: np.ndarray
    segmentation: Segmentation
    lut: np.ndarray
    settings: CameraSettings

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels at the size that is asked for: h x w, uint8."""
        labels = self.segmentation.labels
        return vote(labels, self.settings.size_of_labels((labels.shape[0], labels.shape[1])))

    @cached_property
    def confidence(self) -> np.ndarray | None:
        """Confidence at the size of `labels`: h x w, uint8, 255 is certain; None for an engine that does not tell."""
        confidence = self.segmentation.confidence
        return None if confidence is None else confidence_levels(confidence, self.labels.shape)


def void(segmentation: Segmentation) -> Segmentation:
    """Return the same result with nothing in it: void everywhere, confidence and probabilities 0."""
    confidence, probabilities = (
        None if one is None else np.zeros_like(one) for one in (segmentation.confidence, segmentation.probabilities)
    )
    labels = np.full_like(segmentation.labels, VOID)
    return replace(segmentation, labels=labels, confidence=confidence, probabilities=probabilities, overlay=None)


def render_labels(picture: Picture) -> tuple[str, np.ndarray]:
    """Return encoding and pixels: h x w, uint8, class ids, 255 for void."""
    return picture.settings.labels_encoding, picture.labels


def render_overlay(picture: Picture) -> tuple[str, np.ndarray]:
    """Return encoding and pixels: H x W x 3, uint8, the image under the colours."""
    drawn = picture.segmentation.overlay
    if drawn is not None:
        return "rgb8", drawn
    opacity = picture.settings.overlay_opacity
    return "rgb8", overlay(picture.image, picture.segmentation.labels, picture.lut, opacity)


def render_labels_color(picture: Picture) -> tuple[str, np.ndarray]:
    """Return encoding and pixels: h x w x 3, uint8, the colours of the labels alone."""
    return "rgb8", colorize(picture.labels, picture.lut)


def render_confidence(picture: Picture) -> tuple[str, np.ndarray] | None:
    """Return encoding and pixels: h x w, uint8, 255 is certain; None for an engine that does not tell."""
    return None if picture.confidence is None else ("mono8", picture.confidence)


def render_probabilities(picture: Picture) -> tuple[str, np.ndarray] | None:
    """Return encoding and pixels: h x w x C, float32, on the grid; None for an engine that does not tell."""
    shares = picture.segmentation.probabilities
    return None if shares is None else (f"32FC{shares.shape[2]}", shares)


RENDER: dict[str, Callable[[Picture], tuple[str, np.ndarray] | None]] = {
    "labels": render_labels,
    "overlay": render_overlay,
    "labels_color": render_labels_color,
    "confidence": render_confidence,
    "probabilities": render_probabilities,
}


def legend(classes: ClassTable) -> str:
    """Return ids, names and colours as JSON."""
    entries = [
        {"id": class_id, "name": name, "color": list(color)}
        for class_id, (name, color) in enumerate(zip(classes.names, classes.palette, strict=True))
    ]
    void = {"id": VOID, "color": list(classes.void_color)}
    return json.dumps({"name": classes.name, "classes": entries, "void": void})


def label_info(classes: ClassTable, header: Any, label_info_type: type, vision_class_type: type) -> Any:
    """Return the class table as vision_msgs/LabelInfo; the types come from that package, where it is installed."""
    names = enumerate(classes.names)
    class_map = [vision_class_type(class_id=class_id, class_name=name) for class_id, name in names]
    return label_info_type(header=header, class_map=class_map, threshold=0.0)
