"""Backward warping: move the previous frame's values to where they are now.

Convention: `flow[:, 0]` is u (along x) and `flow[:, 1]` is v (along y), in pixels of the grid, from the current frame
to the previous one; `warped(x, y) = previous(x + u, y + v)`, bilinear. The sampling grid is `2 (x + u) / (w - 1) - 1`
whatever `align_corners` is; with False (as the public checkpoint's authors ran it) zero flow is not the identity.
"""

from __future__ import annotations

import numpy as np

from vidseg_core.arrays import Array, device_type_of, is_tensor, pixels_last, wants_gradient
from vidseg_core.kernels import PADDINGS
from vidseg_core.kernels.cpu.warp import compose_rows, warp_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.threads import over_rows

# Nanoseconds on one thread, see `threads.over_rows`: of a value that is moved, and of a pixel's motion.
VALUE_NS, MOTION_NS = 0.9, 5.8


def warp(values: Array, flow: Array, align_corners: bool = True, padding: str = "zeros") -> Array:
    """Move the previous frame's values to their new places.

    Args:
        values: B x C x h x w, of the previous frame.
        flow: B x 2 x h x w, from the current frame to the previous one, in pixels of the grid.
        align_corners: see the convention above.
        padding: what lies outside the previous frame: "zeros", or "border" (its nearest pixel).

    Returns:
        B x C x h x w, newly allocated. Tensors that ask for gradients get them; else, on the CPU, a kernel moves
        values, which reads and writes channels last.

    Raises:
        ValueError: shapes do not fit together, or unknown `padding`.
    """
    if padding not in PADDINGS:
        raise ValueError(f"padding: expected one of {PADDINGS}, got {padding!r}")
    if values.ndim != 4 or flow.shape != (values.shape[0], 2, *values.shape[2:]):
        raise ValueError(f"expected B x C x h x w and B x 2 x h x w, got {tuple(values.shape)} and {tuple(flow.shape)}")
    if wants_gradient(values, flow) or _is_batch(values):
        return WARP.reference(values, flow, align_corners, padding)
    return WARP.on(device_type_of(values))(values, flow, align_corners, padding)


def compose(motion: Array, flow: Array) -> Array:
    """Chain two flows: current->previous (`flow`) and previous->key (`motion`) give current->key.

    `composed(x) = flow(x) + motion(x + flow(x))`, bilinear.

    Args:
        motion, flow: B x 2 x h x w, in pixels of the grid; outside the image motion is that of its border.

    Returns:
        B x 2 x h x w, newly allocated.
    """
    if _is_batch(flow):
        return COMPOSE.reference(motion, flow)
    return COMPOSE.on(device_type_of(flow))(motion, flow)


def _is_batch(x: Array) -> bool:
    """Return whether these are several pictures in a tensor, which devices' own kernels do not take."""
    return x.shape[0] != 1 and is_tensor(x)


WARP = Operation("warp", "warp.warp_reference")
COMPOSE = Operation("compose", "warp.compose_reference")


@COMPOSE.register("cpu")
def _compose_on_cpu(motion: np.ndarray, flow: np.ndarray) -> np.ndarray:
    first, then = (np.ascontiguousarray(x, dtype=np.float32) for x in (flow, motion))
    out = np.empty_like(first)
    for one, other, chained in zip(first, then, out, strict=True):
        over_rows(compose_rows, one.shape[1], one, other, chained, work_us=MOTION_NS * one.size / 2e3)
    return out.astype(motion.dtype, copy=False)


@WARP.register("cpu")
def _warp_on_cpu(values: np.ndarray, flow: np.ndarray, align_corners: bool, padding: str) -> np.ndarray:
    way = np.ascontiguousarray(flow, dtype=np.float32)
    batch, channels, h, w = values.shape
    stretch_y, stretch_x, shift = map(np.float32, sampling_lattice((h, w), align_corners))
    out = np.empty((batch, h, w, channels), dtype=np.float32)
    border, work_us = padding == "border", VALUE_NS * h * w * channels / 1e3
    for i in range(batch):
        source = pixels_last(values[i : i + 1])
        over_rows(warp_rows, h, source, way[i], stretch_y, stretch_x, shift, border, out[i], work_us=work_us)
    return out.transpose(0, 3, 1, 2).astype(values.dtype, copy=False)


def sampling_lattice(size: tuple[int, int], align_corners: bool) -> tuple[float, float, float]:
    """Return factors along y and x and a summand that make of a place what is sampled for it.

    The sampling grid is one thing and read as another: see the convention above.
    """
    h, w = size
    return (1.0, 1.0, 0.0) if align_corners else (h / (h - 1), w / (w - 1), -0.5)
