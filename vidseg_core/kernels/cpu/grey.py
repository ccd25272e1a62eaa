"""Grey levels of a colour picture on the CPU."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

# ITU-R BT.601, in units of 2^-15.
RED, GREEN, BLUE = 9798, 19235, 3735
SHIFT = 15
# Bytes that are added up together.
BLOCK = 32
_BYTES, _WIDE = (ir.VectorType(ir.IntType(bits), BLOCK) for bits in (8, 16))


def _place(context, builder, array_type, array, at, kind):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


@intrinsic
def _add_bytes(typing, values, at, sums, to):
    """Add `BLOCK` bytes to as many sums of 16 bits; bounds are not checked."""

    def code(context, builder, signature, arguments):
        values, at, sums, to = arguments
        values_type, _, sums_type, _ = signature.args
        found = builder.load(_place(context, builder, values_type, values, at, _BYTES), align=1)
        place = _place(context, builder, sums_type, sums, to, _WIDE)
        builder.store(builder.add(builder.load(place, align=2), builder.zext(found, _WIDE)), place, align=2)
        return context.get_dummy_value()

    return types.void(values, types.intp, sums, types.intp), code


@intrinsic
def _add_sums(typing, sums, at, to):
    """Add `BLOCK` sums of 16 bits to others; bounds are not checked."""

    def code(context, builder, signature, arguments):
        sums, at, to = arguments
        found = builder.load(_place(context, builder, signature.args[0], sums, at, _WIDE), align=2)
        place = _place(context, builder, signature.args[0], sums, to, _WIDE)
        builder.store(builder.add(builder.load(place, align=2), found), place, align=2)
        return context.get_dummy_value()

    return types.void(sums, types.intp, types.intp), code


@njit(nogil=True, cache=True)
def grey_rows(begin, end, image, step, pixel, red, green, blue, side, out, shrunk):
    """For `over_rows` over rows of `out`, h x w: mean grey levels of squares of `side` pixels, a power of 2.

    Args:
        image: bytes, rows `step` apart and pixels `pixel` apart.
        red, green, blue: where in a pixel.
        shrunk: h x w x 3, gets the means of each channel, halves rounded up; 0 x 0 x 3 where nobody wants them.
    """
    width = out.shape[1]
    values = width * side * pixel - (pixel - 1 - max(red, green, blue))
    sums = np.empty(values + side * pixel + 2 * BLOCK, np.uint16)  # of up to 16 x 16 pixels of 255
    for i in range(values, sums.size):
        sums[i] = 0
    half = (side * side) << (SHIFT - 1)
    whole_half = np.uint32((side * side) >> 1)
    shift = SHIFT
    while 1 << (shift - SHIFT) < side * side:
        shift += 1
    for y in range(begin, end):
        # Down first, then from pixel to pixel: both are sums of neighbours in memory.
        for i in range(values):
            sums[i] = 0
        whole = values // BLOCK * BLOCK
        for i in range(0, whole, BLOCK):
            for j in range(side):
                _add_bytes(image, (y * side + j) * step + i, sums, i)
        for i in range(whole, values):
            for j in range(side):
                sums[i] += image[(y * side + j) * step + i]
        apart = pixel
        while apart < side * pixel:
            for i in range(0, values, BLOCK):
                _add_sums(sums, i + apart, i)
            apart *= 2
        for x in range(width):
            at = x * side * pixel
            level = sums[at + red] * RED + sums[at + green] * GREEN + sums[at + blue] * BLUE
            out[y, x] = (level + half) >> shift
        if shrunk.shape[0] == 0:
            continue
        for x in range(width):
            at = x * side * pixel
            shrunk[y, x, 0] = (np.uint32(sums[at + red]) + whole_half) >> np.uint32(shift - SHIFT)
            shrunk[y, x, 1] = (np.uint32(sums[at + green]) + whole_half) >> np.uint32(shift - SHIFT)
            shrunk[y, x, 2] = (np.uint32(sums[at + blue]) + whole_half) >> np.uint32(shift - SHIFT)
