"""Draw figures for the documentation: flow in colours, pictures side by side, the synthetic street."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from vidseg_core.classes import load_classes
from vidseg_core.data.images import list_images, read_rgb
from vidseg_core.errors import SourceError
from vidseg_core.overlay import colorize
from vidseg_core.street import Street, StreetConfig

WHITE = 255


def flow_colors(flow: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Draw flow in colours: the hue is the direction (red to the right, then clockwise), white is no motion.

    Args:
        flow: H x W x 2, float, pixels (x to the right, y down).
        largest: length that is drawn in full colour, and so is what is longer; None: the 99th percentile of `flow`.

    Returns:
        H x W x 3, uint8, RGB.

    Raises:
        ValueError: `flow` is not H x W x 2, or `largest` is not above 0.
    """
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"expected flow of H x W x 2, got {flow.shape}")
    length = np.hypot(flow[..., 0], flow[..., 1])
    if largest is None:
        largest = max(float(np.percentile(length, 99)), 1e-6)
    if not largest > 0:
        raise ValueError(f"largest: expected a length above 0, got {largest}")
    degrees = np.degrees(np.arctan2(flow[..., 1], flow[..., 0])) % 360.0
    saturation = np.sqrt(np.clip(length / largest, 0.0, 1.0))  # so that slow motion shows
    hsv = np.stack([degrees, saturation, np.ones_like(saturation)], axis=-1).astype(np.float32)
    return np.rint(255.0 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).astype(np.uint8)


def tile(rows: Sequence[Sequence[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Arrange pictures in rows and columns with white between them.

    Args:
        rows: pictures of one size, h x w x 3, uint8; each row has as many.
        gap: pixels between two pictures.

    Returns:
        H x W x 3, uint8.

    Raises:
        ValueError: there are none, or their sizes or the lengths of the rows differ.
    """
    shapes = {picture.shape for row in rows for picture in row}
    lengths = {len(row) for row in rows}
    if len(shapes) != 1 or len(lengths) != 1:
        raise ValueError(
            f"expected rows of equal length and pictures of one size, got {sorted(lengths)}, {sorted(shapes)}"
        )
    (height, width, channels), (columns,) = shapes.pop(), lengths
    step_y, step_x = height + gap, width + gap
    out = np.full((len(rows) * step_y - gap, columns * step_x - gap, channels), WHITE, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            out[i * step_y : i * step_y + height, j * step_x : j * step_x + width] = picture
    return out


def contact_sheet(seeds: Iterable[int], frames: Iterable[int], size: tuple[int, int] = (640, 360)) -> np.ndarray:
    """Draw synthetic streets: a row of image, labels and flow for each seed and frame.

    Args:
        seeds: which streets.
        frames: frame numbers of each, from 1 (frame 0 has no flow).
        size: (width, height) of each picture.

    Returns:
        H x W x 3, uint8, RGB.

    Raises:
        ConfigError: a seed or the size is out of range.
        ValueError: there is no seed or no frame, or a frame number is below 1.
    """
    frames = list(frames)
    if any(i < 1 for i in frames):
        raise ValueError(f"expected frame numbers from 1, got {frames}")
    lut = load_classes("camvid").lut
    rows = []
    for seed in seeds:
        street = Street(StreetConfig(seed, size[0], size[1], num_frames=max(frames, default=0) + 1))
        for i in frames:
            frame = street.render(i)
            rows.append([frame.image, colorize(frame.labels, lut), flow_colors(frame.flow)])
    return tile(rows)


def run_strip(folder: Path, first: int, count: int, width: int) -> np.ndarray:
    """Put consecutive overlays of a run side by side.

    Args:
        folder: of the run; it has `overlay/*.png`, in natural order of their names.
        first: position of the first one.
        count: how many.
        width: of one picture, pixels.

    Returns:
        H x W x 3, uint8, RGB.

    Raises:
        SourceError: there are fewer overlays, or one cannot be read.
    """
    overlays = list_images(folder / "overlay") if (folder / "overlay").is_dir() else []
    chosen = overlays[first : first + count]
    if len(chosen) < count:
        raise SourceError(f"{folder}: expected {first + count} pictures in overlay/, got {len(overlays)}")
    pictures = [read_rgb(path, SourceError) for path in chosen]
    size = width, round(width * pictures[0].shape[0] / pictures[0].shape[1])
    return tile([[cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures]])
