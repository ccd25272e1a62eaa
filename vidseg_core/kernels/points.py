"""Points in space with the label of the pixel that sees them.

A point takes `POINT_BYTES`: x, y and z in metres (float32), the colour as PCL and rviz have it (0x00RRGGBB), the class
id (uint32) and the confidence (float32 in 0..1, NaN where it is not known). Cameras are pinholes without distortion, as
those of rectified images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidseg_core.classes import VOID
from vidseg_core.kernels.cpu.points import cloud_rows, depth_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.threads import over_rows

POINT_BYTES = 24
UNITS = {np.dtype(np.uint16): 0.001, np.dtype(np.float32): 1.0}
"""Metres of a depth image's 1, by its type, as REP 118 has them."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """A labelled picture.

    Attributes:
        image: H x W x 3, uint8, RGB.
        labels: h x w, uint8, of that picture, perhaps at another size.
        confidence: h x w, uint8, 255 is certain; None where it is not known.
        fine: H x W, uint8, of which `labels` are a vote; None where there are no others.
    """

    image: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray | None
    fine: np.ndarray | None = None


def depth_points(picture: Labelled, depth: np.ndarray, projection: np.ndarray, stride: int = 1) -> np.ndarray:
    """Make a point of each pixel of the labels.

    Args:
        picture: labels at any size.
        depth: any size, uint16 (mm, 0 for none) or float32 (m); of the same view. Each pixel of the labels takes the
            depth of the pixel at its centre; depths are not interpolated, which would put points into the air. If it
            is of the size of `picture.fine`, it is that of the pixel next to the centre which has the label itself.
        projection: 3 x 4, float64: from points to pixels of `depth`.
        stride: take every n-th row and column of the labels.

    Returns:
        ceil(h / stride) x ceil(w / stride) x `POINT_BYTES`, uint8. Where depth is no finite number above 0, or no
        pixel with its centre in that of the labels has the label, x, y and z are NaN.

    Raises:
        ValueError: the depth is of another type, or the stride below 1.
    """
    if depth.ndim != 2 or depth.dtype not in UNITS or stride < 1:
        raise ValueError(
            f"expected a depth image, uint16 or float32, and a stride of 1 or more, "
            f"got {depth.dtype} {depth.shape} and {stride}"
        )
    return DEPTH_POINTS.on("cpu")(picture, depth, projection, stride)  # images come in the host's memory


def cloud_points(picture: Labelled, positions: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Give each point of a cloud the label of the pixel that it is seen at.

    What hides it from the camera is not known: a point behind another one has the label of that.

    Args:
        picture: labels of the image's size.
        positions: h x w x 3, float32, in metres. They are kept as they are.
        projection: 3 x 4, float64: from these positions to pixels of the image.

    Returns:
        h x w x `POINT_BYTES`, uint8. What the image does not show is void and black, with confidence 0.

    Raises:
        ValueError: the labels are of another size than the image.
    """
    if picture.labels.shape != picture.image.shape[:2]:
        raise ValueError(f"expected labels of {picture.image.shape[:2]}, got {picture.labels.shape}")
    return CLOUD_POINTS.on("cpu")(picture, positions, projection)


def centres(inputs: int, outputs: int) -> np.ndarray:
    """Find the input pixel at the centre of each of `outputs` pixels along one side: int32."""
    return ((2 * np.arange(outputs, dtype=np.int64) + 1) * inputs // (2 * outputs)).astype(np.int32)


def first_centres(inputs: int, outputs: int) -> np.ndarray:
    """Find the first input pixel with its centre in each of `outputs` pixels, or behind it: outputs + 1, int32."""
    edges = 2 * np.arange(outputs + 1, dtype=np.int64) * inputs
    return (-((outputs - edges) // (2 * outputs))).astype(np.int32)


def is_finer(picture: Labelled, depth: np.ndarray) -> bool:
    """Return whether a depth image has the size of the labels that those of the picture are a vote of."""
    fine = picture.fine
    return fine is not None and fine.shape == depth.shape == picture.image.shape[:2] != picture.labels.shape


LEVELS = np.arange(256, dtype=np.float32) / 255
"""Confidence by its level."""
DEPTH_POINTS = Operation("depth_points", "points.depth_points_reference")
CLOUD_POINTS = Operation("cloud_points", "points.cloud_points_reference")


@DEPTH_POINTS.register("cpu")
def _depth_points_on_cpu(picture: Labelled, depth: np.ndarray, projection: np.ndarray, stride: int) -> np.ndarray:
    size, shown = picture.labels.shape, picture.image.shape[:2]
    rows, columns = (centres(of, side)[::stride] for of, side in zip(depth.shape, size, strict=True))
    shown_rows, shown_columns = (centres(of, side)[::stride] for of, side in zip(shown, size, strict=True))
    tops, lefts = (first_centres(of, side) for of, side in zip(depth.shape, size, strict=True))
    seeks = is_finer(picture, depth)
    fine = picture.fine if seeks and picture.fine is not None else picture.labels
    # (x, y, z) = z ray(u, v) + origin, where a ray is linear in u and v.
    inverse = np.linalg.inv(projection[:, :3])
    origin = -inverse @ projection[:, 3]
    words = np.empty((len(rows), len(columns), POINT_BYTES // 4), np.uint32)
    over_rows(
        depth_rows, len(rows), *_plain(depth, picture.image, picture.labels), *_levels(picture), *_plain(fine),
        seeks, UNITS[depth.dtype], inverse, origin, rows, columns, shown_rows, shown_columns, tops, lefts, stride,
        words, words.view(np.float32),
    )  # fmt: skip
    return words.view(np.uint8)


@CLOUD_POINTS.register("cpu")
def _cloud_points_on_cpu(picture: Labelled, positions: np.ndarray, projection: np.ndarray) -> np.ndarray:
    height, width = positions.shape[:2]
    words = np.empty((height, width, POINT_BYTES // 4), np.uint32)
    # Bands are of points: an unorganised cloud is a single row.
    if positions.strides[0] != width * positions.strides[1]:
        positions = np.ascontiguousarray(positions)
    points = np.lib.stride_tricks.as_strided(positions, (height * width, 3), positions.strides[1:], writeable=False)
    flat = words.reshape(height * width, POINT_BYTES // 4)
    over_rows(
        cloud_rows, height * width, points, *_plain(picture.image, picture.labels), *_levels(picture),
        projection, VOID, flat, flat.view(np.float32),
    )  # fmt: skip
    return words.view(np.uint8)


def _plain(*arrays: np.ndarray) -> list[np.ndarray]:
    """Return them contiguous and read-only: numba compiles anew for each other form."""
    plain = [np.ascontiguousarray(array)[...] for array in arrays]
    for array in plain:
        array.flags.writeable = False
    return plain


def _levels(picture: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence in levels and what they stand for."""
    if picture.confidence is None:
        return _plain(np.zeros_like(picture.labels), np.full_like(LEVELS, np.nan))  # type: ignore[return-value]
    return _plain(picture.confidence, LEVELS)  # type: ignore[return-value]
