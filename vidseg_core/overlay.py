"""Results as a person sees them: labels in colours, alone or over the image, and confidence in levels of grey."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from vidseg_core.classes import VOID
from vidseg_core.threads import over_rows

# Pixels that are looked at together: their bytes, and twice as wide numbers, are vectors.
BLOCK = 16
# Nanoseconds that a pixel takes on one thread, see `threads.over_rows`.
PIXEL_NS = 0.3
_BYTES, _WIDE = (ir.VectorType(ir.IntType(bits), BLOCK) for bits in (8, 16))
_INDEX = ir.IntType(32)


def _place(context, builder, array_type, array, at, kind):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def _spread(builder, value, kind):
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INDEX, BLOCK), [0] * BLOCK))


@intrinsic
def _alike(typing, row, at):
    """Tell if the `BLOCK` bytes from `at` on are equal; bounds and strides are not checked."""

    def code(context, builder, signature, arguments):
        labels = builder.load(_place(context, builder, signature.args[0], *arguments, _BYTES), align=1)
        first = _spread(builder, builder.extract_element(labels, ir.Constant(_INDEX, 0)), _BYTES)
        same = builder.bitcast(builder.icmp_unsigned("==", labels, first), ir.IntType(BLOCK))
        return builder.icmp_unsigned("==", same, ir.Constant(ir.IntType(BLOCK), 2**BLOCK - 1))

    return types.boolean(row, types.intp), code


@intrinsic
def _blend_bytes(typing, row, at, keep, colors, color_at, out):
    """Blend `BLOCK` bytes: row[at:] * keep + colors[color_at:], over 256; bounds and strides are not checked."""

    def code(context, builder, signature, arguments):
        row, at, keep, colors, color_at, out = arguments
        row_type, _, _, colors_type, _, out_type = signature.args
        values = builder.zext(builder.load(_place(context, builder, row_type, row, at, _BYTES), align=1), _WIDE)
        added = builder.load(_place(context, builder, colors_type, colors, color_at, _WIDE), align=2)
        blended = builder.add(builder.mul(values, _spread(builder, keep, _WIDE)), added)
        blended = builder.lshr(blended, _spread(builder, ir.Constant(ir.IntType(16), 8), _WIDE))
        place = _place(context, builder, out_type, out, at, _BYTES)
        builder.store(builder.trunc(blended, _BYTES), place, align=1)
        return context.get_dummy_value()

    return types.void(row, types.intp, types.uint16, colors, types.intp, out), code


@njit(nogil=True, cache=True)
def _blend(begin, end, image, labels, keep, colors, out):
    """For `over_rows`: `colors`, 256 x 3 BLOCK, are those of a block that has one label; rows are contiguous."""
    width = labels.shape[1]
    mixed = np.empty((1, 3 * BLOCK), np.uint16)
    for y in range(begin, end):
        row, own, to = image[y], labels[y], out[y]
        for x in range(0, width, BLOCK):
            whole = x + BLOCK <= width
            if whole and _alike(own, x):
                label = np.intp(own[x])
                for part in range(3):
                    at = part * BLOCK
                    _blend_bytes(row, 3 * x + at, keep[label], colors, 3 * BLOCK * label + at, to)
                continue
            seen = whole  # of void there is another share
            if whole:
                for pixel in range(BLOCK):
                    label = own[x + pixel]
                    seen &= label != VOID
                    for c in range(3):
                        mixed[0, 3 * pixel + c] = colors[label, c]
            if seen:
                for part in range(3):
                    at = part * BLOCK
                    _blend_bytes(row, 3 * x + at, keep[0], mixed, at, to)
                continue
            for pixel in range(x, min(x + BLOCK, width)):
                label = own[pixel]
                k = np.uint32(keep[label])
                for c in range(3):
                    to[pixel, c] = (np.uint32(row[pixel, c]) * k + colors[label, c]) >> np.uint32(8)


@dataclass(frozen=True, eq=False)
class Colours:
    """Say how labels are drawn over an image, see `overlay`.

    Attributes:
        lut: 256 x 3, uint8, RGB: the colour of each id.
        opacity: 0..1.
    """

    lut: np.ndarray
    opacity: float = 0.5

    def __post_init__(self):
        if self.lut.shape != (256, 3) or self.lut.dtype != np.uint8:
            raise ValueError(f"lut: expected 256 x 3, uint8, got {self.lut.shape}, {self.lut.dtype}")
        if not 0.0 <= self.opacity <= 1.0:
            raise ValueError(f"opacity: expected 0..1, got {self.opacity}")

    def is_same(self, other: Colours) -> bool:
        """Return whether both draw alike."""
        return self.opacity == other.opacity and np.array_equal(self.lut, other.lut)

    def table(self) -> np.ndarray:
        """Return 256 x 4, int32: summands of red, green and blue and the image's share, in units of 1/256."""
        alpha = round(self.opacity * 256)
        found = np.full((256, 4), 256 - alpha, np.int32)
        found[:, :3] = self.lut.astype(np.int32) * alpha + 128  # so that the shift by 8 rounds
        found[VOID] = 0, 0, 0, 256
        return found


def overlay(image: np.ndarray, labels: np.ndarray, lut: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Blend the colours of its labels over an image; void pixels stay as they are.

    Args:
        image: H x W x 3, uint8, RGB.
        labels: H x W, uint8.
        lut: 256 x 3, uint8, RGB: the colour of each id.
        opacity: 0 (image alone) to 1 (colours alone), in steps of 1/256.

    Returns:
        H x W x 3, uint8, RGB, newly allocated.

    Raises:
        ValueError: sizes differ, or `opacity` is outside 0..1.
    """
    if not 0.0 <= opacity <= 1.0:
        raise ValueError(f"opacity: expected 0..1, got {opacity}")
    if image.shape != (*labels.shape, 3):
        raise ValueError(f"expected an image of {labels.shape} like its labels, got {image.shape}")
    alpha = round(opacity * 256)
    keep = np.full(256, 256 - alpha, dtype=np.uint16)
    color = lut.astype(np.uint16) * alpha + 128  # so that the shift by 8 rounds
    keep[VOID], color[VOID] = 256, 0
    # Rows may be padded; what lies otherwise is copied.
    return _run(image if image.strides[1:] == (3, 1) else np.ascontiguousarray(image), labels, keep, color)


def colorize(labels: np.ndarray, lut: np.ndarray) -> np.ndarray:
    """Return the labels' colours alone: H x W x 3, uint8, RGB, newly allocated.

    Args:
        labels: H x W, uint8.
        lut: 256 x 3, uint8, RGB.
    """
    unused = np.broadcast_to(np.zeros((labels.shape[1], 3), dtype=np.uint8), (*labels.shape, 3))
    return _run(unused, labels, np.zeros(256, dtype=np.uint16), lut.astype(np.uint16) << 8)


def confidence_levels(confidence: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return confidence as levels of grey, (H, W), uint8, newly allocated: 255 is certain.

    Args:
        confidence: h x w, float32 in 0..1, see `Segmentation.confidence`; it is interpolated between its pixels.
        size: (H, W) of the image.
    """
    levels = np.rint(confidence * 255).astype(np.uint8)
    return cv2.resize(levels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def _run(image, labels, keep, color):
    out = np.empty((*labels.shape, 3), dtype=np.uint8)
    labels = labels if labels.strides[1] == 1 else np.ascontiguousarray(labels)
    work_us = PIXEL_NS * labels.size / 1e3
    over_rows(_blend, labels.shape[0], image, labels, keep, np.tile(color, (1, BLOCK)), out, work_us=work_us)
    return out
