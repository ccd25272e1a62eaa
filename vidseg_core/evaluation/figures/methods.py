"""Draw what a method does: its parts on one frame, and a loop from one key frame to the next."""

from __future__ import annotations

import cv2
import numpy as np

from vidseg_core.data.sequences import Sequence
from vidseg_core.engine.engine import Engine
from vidseg_core.errors import ConfigError, DatasetError
from vidseg_core.evaluation.figures.tiles import tile
from vidseg_core.frame import Frame, Segmentation
from vidseg_core.networks.guided_refine import Refined
from vidseg_core.overlay import colorize

_CAPTION = 26  # pixels above a picture
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def strip(engine: Engine, sequence: Sequence, position: int, distance: int, width: int) -> np.ndarray:
    """Draw a frame `distance` frames after its key frame: input, edge map, prediction, occlusion, ground truth.

    The edge map is where the carried labels change; occlusion (white) is the weight of the refinement's candidate that
    comes from the current image alone: where nothing could be carried. Ground truth is left out where there is none.

    Args:
        engine: with refinement.
        position: of the frame in the sequence.
        distance: 1 or more.
        width: of one picture, pixels.

    Returns:
        H x W x 3, uint8, RGB.

    Raises:
        ConfigError: the engine has no refinement, or `distance` is below 1.
        DatasetError: fewer than `distance` frames come before, or a file cannot be read.
    """
    if engine.networks.refine is None or distance < 1:
        raise ConfigError(
            "figure strip: expected refinement (--refine-weights) and an --interval of 1 or more: "
            "edge map and occlusion are the refinement's, and a key frame has none"
        )
    frame, result, refined = _loop(engine, sequence, position - distance, distance)[-1]
    lut, size = engine.classes.lut, frame.size
    pictures = {"input": frame.image}
    if refined.edge is not None:
        pictures["edge"] = _grey(refined.edge[0, 0].cpu().numpy(), size)
    pictures["prediction"] = colorize(result.labels, lut)
    pictures["occlusion"] = _grey(refined.occlusion[0, 0].float().cpu().numpy(), size)
    if frame.labels is not None:
        pictures["ground truth"] = colorize(frame.labels, lut)
    return tile([[_captioned(picture, text, width) for text, picture in pictures.items()]])


def loop(engine: Engine, per_frame: Engine, sequence: Sequence, first: int, interval: int, width: int) -> np.ndarray:
    """Draw a key frame and the frames up to the next one: rows of inputs, of a network on every frame, of `engine`.

    Args:
        engine: the method.
        per_frame: what labels each frame by itself.
        first: position of the key frame in the sequence.
        interval: how many frames after it.
        width: of one picture, pixels.

    Returns:
        H x W x 3, uint8, RGB.

    Raises:
        DatasetError: the sequence ends before, or a file cannot be read.
    """
    ours = _loop(engine, sequence, first, interval)
    alone = per_frame.stream()
    rows: list[list[np.ndarray]] = [[], [], []]
    for k, (frame, result, _) in enumerate(ours):
        alone.reset("every frame by itself")
        pictures = (
            frame.image,
            *(colorize(labels, engine.classes.lut) for labels in (alone.step(frame).labels, result.labels)),
        )
        column = f"k + {k}" if k else "k"
        for row, picture, text in zip(rows, pictures, ("input", "per-frame", "ours"), strict=True):
            row.append(_captioned(picture, f"{text}, {column}", width))
    return tile(rows)


def _loop(
    engine: Engine, sequence: Sequence, first: int, interval: int
) -> list[tuple[Frame, Segmentation, Refined | None]]:
    """Frames, labels, and what refinement made of them, of a key frame and the `interval` frames after it."""
    if first < 0 or first + interval >= len(sequence):
        raise DatasetError(
            f"{sequence.name}: expected a key frame and {interval} frames after it inside the sequence of "
            f"{len(sequence)} frames, got a key frame at position {first}"
        )
    stream = engine.stream()
    stream.set_interval(interval)
    steps = []
    for position in range(first, first + interval + 1):
        frame = sequence.read(position)
        steps.append((frame, stream.step(frame), stream.refined))
    return steps


def _grey(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """h x w in 0..1 -> H x W x 3, uint8, grid pixels as blocks."""
    grey = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return np.repeat(cv2.resize(grey, size[::-1], interpolation=cv2.INTER_NEAREST)[..., None], 3, axis=2)


def _captioned(picture: np.ndarray, text: str, width: int) -> np.ndarray:
    """`picture`, `width` wide, under a line of text."""
    size = width, round(width * picture.shape[0] / picture.shape[1])
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    caption = np.full((_CAPTION, width, 3), 255, np.uint8)
    cv2.putText(caption, text, (4, _CAPTION - 8), _FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate((caption, small))
