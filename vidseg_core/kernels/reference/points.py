"""Labelled points in plain NumPy."""

from __future__ import annotations

import numpy as np

from vidseg_core.classes import VOID
from vidseg_core.kernels.points import LEVELS, POINT_BYTES, UNITS, Labelled, centres, first_centres, is_finer


def depth_points_reference(picture: Labelled, depth: np.ndarray, projection: np.ndarray, stride: int) -> np.ndarray:
    """Compute `depth_points` in plain NumPy."""
    rows, columns = (np.arange(0, side, stride) for side in picture.labels.shape)
    at = [
        np.ix_(*(centres(of, side)[::stride] for of, side in zip(shape, picture.labels.shape, strict=True)))
        for shape in (depth.shape, picture.image.shape[:2])
    ]
    labels = picture.labels[np.ix_(rows, columns)]
    (v, u), shown = (np.broadcast_arrays(*one) for one in at)
    if is_finer(picture, depth):
        v, u = shown = _with_the_label(picture, depth.shape, labels, v, u, stride)
    z = depth[v, u].astype(np.float64) * UNITS[depth.dtype]
    z[~((z > 0) & (z < np.inf)) | (v < 0)] = np.nan
    # z (u, v, 1) = projection (x, y, z, 1)
    right = z[..., None] * np.stack((u, v, np.ones_like(u)), -1) - projection[:, 3]
    position = right @ np.linalg.inv(projection[:, :3]).T
    confidence = None if picture.confidence is None else picture.confidence[np.ix_(rows, columns)]
    colours = np.where((v < 0)[..., None], picture.image[at[1]], picture.image[tuple(shown)])
    return _put_together(position, colours, labels, confidence)


def _with_the_label(
    picture: Labelled, size: tuple[int, int], labels: np.ndarray, v: np.ndarray, u: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the pixels next to (v, u) that have the labels; -1 for none."""
    assert picture.fine is not None
    tops, lefts = (first_centres(of, side) for of, side in zip(size, picture.labels.shape, strict=True))
    places = np.full((2, *labels.shape), -1)
    for y, x in np.ndindex(labels.shape):
        if picture.fine[v[y, x], u[y, x]] == labels[y, x]:
            places[:, y, x] = v[y, x], u[y, x]
            continue
        top, left = tops[y * stride], lefts[x * stride]
        block = picture.fine[top : tops[y * stride + 1], left : lefts[x * stride + 1]]
        rows, columns = np.nonzero(block == labels[y, x])
        if rows.size:
            nearest = ((rows + top - v[y, x]) ** 2 + (columns + left - u[y, x]) ** 2).argmin()
            places[:, y, x] = rows[nearest] + top, columns[nearest] + left
    return places[0], places[1]


def cloud_points_reference(picture: Labelled, positions: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Compute `cloud_points` in plain NumPy."""
    height, width = picture.labels.shape
    with np.errstate(all="ignore"):
        u, v, w = np.moveaxis(positions.astype(np.float64) @ projection[:, :3].T + projection[:, 3], -1, 0)
        u, v = np.floor(u / w + 0.5), np.floor(v / w + 0.5)
        seen = (w > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    v, u = (np.where(seen, x, 0).astype(np.int64) for x in (v, u))
    labels = np.where(seen, picture.labels[v, u], VOID)
    colours = np.where(seen[..., None], picture.image[v, u], 0)
    confidence = None if picture.confidence is None else np.where(seen, picture.confidence[v, u], 0)
    out = _put_together(positions, colours, labels, confidence)
    out.view(np.float32)[..., 5][~seen] = 0.0
    return out


def _put_together(
    position: np.ndarray, colour: np.ndarray, labels: np.ndarray, confidence: np.ndarray | None
) -> np.ndarray:
    out = np.empty((*labels.shape, POINT_BYTES // 4), np.uint32)
    numbers = out.view(np.float32)
    numbers[..., :3] = position
    out[..., 3] = colour.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    out[..., 4] = labels
    numbers[..., 5] = np.nan if confidence is None else LEVELS[confidence]
    return out.view(np.uint8)
