"""Turn logits on a coarse grid into labels at full size, as bilinear upsampling and argmax do, without upsampling.

An interpolated logit is a convex combination of its four corners. So where all four have the same argmax, every pixel
between them has it too; and where they differ, a class that some other class exceeds at all four corners cannot win.
Only the few classes that are left in the few cells that are left need arithmetic, in the order of operations that
`torch.nn.functional.interpolate` uses (along x, then along y), so that results differ for exact ties only.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vidseg_core.arrays import Array, device_type_of, pixels_last
from vidseg_core.kernels.cpu.decode import decode_rows, one_class_rows
from vidseg_core.kernels.cpu.lanes import LANES
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.resample import positions
from vidseg_core.kernels.warp import sampling_lattice
from vidseg_core.threads import over_rows

# Nanoseconds on one thread, see `threads.over_rows`: of a pixel of the grid, and of a value whose largest is sought.
GRID_NS, VALUE_NS = 20.0, 0.55


def decode(logits: Array, size: tuple[int, int], half_pixel: bool = False) -> np.ndarray:
    """Decode logits into labels at full size.

    Args:
        logits: 1 x C x h x w, C in 1..255, finite. Fastest in float32 and channels last on the CPU.
        size: (H, W) wanted.
        half_pixel: whether the logits' pixels cover equal parts of the picture; else the outermost lie on the
            picture's.

    Returns:
        H x W, uint8, class ids, newly allocated: the argmax of `logits` upsampled bilinearly (`align_corners=True`, or
        False with `half_pixel`).

    Raises:
        ValueError: `logits` has another shape.
    """
    if logits.ndim != 4 or logits.shape[0] != 1 or not 1 <= logits.shape[1] <= 255:
        raise ValueError(f"expected logits of 1 x C x h x w with C in 1..255, got {tuple(logits.shape)}")
    return DECODE.on(device_type_of(logits))(logits, size, half_pixel)


def decode_warped(
    logits: Array, flow: Array, one_class: Array, size: tuple[int, int], align_corners: bool = True,
    padding: str = "zeros",
) -> np.ndarray:  # fmt: skip
    """Decode logits of another frame, moved to where they are now: `decode` of what `warp` returns.

    Where only labels are wanted, most logits need not be moved: a pixel that is read between four of one class has it.

    Args:
        logits: see `decode`; on the grid, at least 2 x 2.
        flow: 1 x 2 x h x w, and
        align_corners, padding: see `warp`.
        one_class: of the logits, see `one_class`; made once for all frames to which they are moved.
        size: (H, W) wanted.

    Returns:
        H x W, uint8, class ids, newly allocated. They differ from those of `decode(warp(...))` where two classes are
        equal but for rounding.

    Raises:
        ValueError: shapes do not fit together.
    """
    fits = logits.ndim == 4 and logits.shape[0] == 1 and 1 <= logits.shape[1] <= 255
    if not fits or flow.shape != (1, 2, *logits.shape[2:]) or one_class.shape != logits.shape[2:]:
        raise ValueError(
            "expected 1 x C x h x w with C in 1..255, 1 x 2 x h x w and h x w, "
            f"got {tuple(logits.shape)}, {tuple(flow.shape)} and {tuple(one_class.shape)}"
        )
    return DECODE_WARPED.on(device_type_of(logits))(logits, flow, one_class, size, align_corners, padding)


def one_class(logits: Array) -> Array:
    """Find where neighbouring pixels have one class.

    Args:
        logits: see `decode`.

    Returns:
        h x w, uint8, on the logits' device: the class that the pixel has in common with the one behind it and the two
        below those, or `MIXED`. Behind the last column and below the last row is the same again.
    """
    return ONE_CLASS.on(device_type_of(logits))(logits)


DECODE = Operation("decode", "decode.decode_reference", for_host=True)
DECODE_WARPED = Operation("decode_warped", "decode.decode_warped_reference", for_host=True)
ONE_CLASS = Operation("one_class", "decode.one_class_reference")
_UNMOVED = np.empty((2, 0, 0), np.float32)
_UNKNOWN = np.empty((0, 0), np.uint8)


@DECODE.register("cpu")
def _decode_on_cpu(logits: np.ndarray, size: tuple[int, int], half_pixel: bool) -> np.ndarray:
    return _decoded(logits, _UNMOVED, _UNKNOWN, size, half_pixel, (1.0, 1.0, 0.0), False)


@DECODE_WARPED.register("cpu")
def _decode_warped_on_cpu(
    logits: np.ndarray,
    flow: np.ndarray,
    one_class: np.ndarray,
    size: tuple[int, int],
    align_corners: bool,
    padding: str,
) -> np.ndarray:
    way = np.ascontiguousarray(flow[0], np.float32)
    lattice = sampling_lattice(way.shape[1:], align_corners)
    return _decoded(logits, way, one_class, size, False, lattice, padding == "border")


@ONE_CLASS.register("cpu")
def _one_class_on_cpu(logits: np.ndarray) -> np.ndarray:
    values = pixels_last(logits)  # h x w x C
    out = np.empty(values.shape[:2], np.uint8)
    over_rows(one_class_rows, values.shape[0], values, out, work_us=VALUE_NS * values.size / 1e3)
    return out


def _decoded(logits, way, one_class, size, half_pixel, lattice, border) -> np.ndarray:
    values = pixels_last(logits)  # h x w x C
    stretch_y, stretch_x, shift = map(np.float32, lattice)
    out = np.empty(size, dtype=np.uint8)
    places = _places(*values.shape[:2], size, half_pixel)
    moved = values, way, one_class, stretch_y, stretch_x, shift, border
    work_us = GRID_NS * values.shape[0] * values.shape[1] / 1e3
    over_rows(decode_rows, values.shape[0], *moved, *places, out, work_us=work_us)
    return out


@lru_cache(maxsize=16)
def _places(height: int, width: int, size: tuple[int, int], half_pixel: bool) -> tuple[np.ndarray, ...]:
    """Where the rows and columns of the labels lie on the grid, as `decode_rows` takes it; read-only."""
    found = []
    for inputs, outputs, more in ((height, size[0], 0), (width, size[1], LANES)):
        before, behind = positions(inputs, outputs, half_pixel)
        found += [np.searchsorted(before, np.arange(inputs + 1)), np.pad(behind, (0, more))]
    for array in found:
        array.flags.writeable = False
    return tuple(found)
