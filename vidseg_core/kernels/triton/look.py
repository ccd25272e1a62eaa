"""Everything that is made of a camera's picture, H x W x 3 in bytes, in Triton.

One pass makes grey levels, as flow's finest level with its border, and the picture shrunk as far; another one samples a
network's input, whose pixels lie elsewhere, on frames that a network sees.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from vidseg_core.kernels import change, picture
from vidseg_core.kernels.change import SMALL_PICTURE
from vidseg_core.kernels.cpu import dis, grey
from vidseg_core.kernels.flow import levels_of
from vidseg_core.kernels.grey import MOST_SIDE
from vidseg_core.kernels.look import LOOK, Looked
from vidseg_core.kernels.picture import GRID_PICTURE, SMOOTHING
from vidseg_core.kernels.reference.change import grey as grey_levels
from vidseg_core.kernels.reference.picture import areas
from vidseg_core.kernels.resample import NETWORK_INPUT, Colour, positions
from vidseg_core.kernels.triton.flow import halved
from vidseg_core.kernels.triton.launch import BLOCK, LAUNCH, blocks

RED, GREEN, BLUE = (tl.constexpr(share) for share in (grey.RED, grey.GREEN, grey.BLUE))
UNIT, SCALE = tl.constexpr(1 << grey.SHIFT), tl.constexpr(0.5**grey.SHIFT)  # of these shares
REACH = tl.constexpr(picture.REACH)


@triton.jit
def look_kernel(
    image, row_first, row_shares, column_first, column_shares, base, shrunk, in_width, height, width,
    SQUARE: tl.constexpr, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr,
    GREY: tl.constexpr, COLOURS: tl.constexpr, PAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Shrink an image by means of areas.

    Args:
        image: bytes of red, green and blue, `in_width` pixels a row.
        row_first, column_first: of each row and column of the small picture, the first of the image in it.
        row_shares, column_shares: TAPS_Y and TAPS_X of each, of the image's rows and columns from there on.
        base: with GREY, grey levels of height x width, their border repeated PAD times; float32.
        shrunk: with COLOURS, 3 x height x width, uint8.
        SQUARE: side of the squares that are averaged, whose sums are exact; 0 for areas of any size.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    pitch = width + 2 * PAD
    there = at < (height + 2 * PAD) * pitch
    outer_y, outer_x = at // pitch - PAD, at % pitch - PAD
    y = tl.minimum(tl.maximum(outer_y, 0), height - 1)
    x = tl.minimum(tl.maximum(outer_x, 0), width - 1)
    inside = there & (y == outer_y) & (x == outer_x)
    to = y * width + x
    if SQUARE > 0:
        red, green, blue = x * 0, x * 0, x * 0
        for j in range(SQUARE):
            for i in range(SQUARE):
                source = image + 3 * ((y * SQUARE + j) * in_width + x * SQUARE + i)
                red += tl.load(source, mask=there, other=0).to(tl.int32)
                green += tl.load(source + 1, mask=there, other=0).to(tl.int32)
                blue += tl.load(source + 2, mask=there, other=0).to(tl.int32)
        pixels: tl.constexpr = SQUARE * SQUARE
        if GREY:
            whole: tl.constexpr = UNIT * SQUARE * SQUARE
            level = (red * RED + green * GREEN + blue * BLUE + whole // 2) // whole
            tl.store(base + at, level.to(tl.float32), mask=there)
        if COLOURS:
            red, green, blue = (2 * red + pixels), (2 * green + pixels), (2 * blue + pixels)
            tl.store(shrunk + to, (red // (2 * pixels)).to(tl.uint8), mask=inside)
            tl.store(shrunk + height * width + to, (green // (2 * pixels)).to(tl.uint8), mask=inside)
            tl.store(shrunk + 2 * height * width + to, (blue // (2 * pixels)).to(tl.uint8), mask=inside)
    else:
        top, left = tl.load(row_first + y), tl.load(column_first + x)
        sum_red, sum_green, sum_blue = x * 0.0, x * 0.0, x * 0.0
        for j in range(TAPS_Y):
            down = tl.load(row_shares + y * TAPS_Y + j)
            for i in range(TAPS_X):
                share = down * tl.load(column_shares + x * TAPS_X + i)
                reads = there & (share > 0.0)
                source = image + 3 * ((top + j) * in_width + left + i)
                sum_red += share * tl.load(source, mask=reads, other=0).to(tl.float32)
                sum_green += share * tl.load(source + 1, mask=reads, other=0).to(tl.float32)
                sum_blue += share * tl.load(source + 2, mask=reads, other=0).to(tl.float32)
        if GREY:
            level = (sum_red * RED + sum_green * GREEN + sum_blue * BLUE) * SCALE
            tl.store(base + at, tl.floor(level + 0.5), mask=there)
        if COLOURS:
            tl.store(shrunk + to, tl.floor(sum_red + 0.5).to(tl.uint8), mask=inside)
            tl.store(shrunk + height * width + to, tl.floor(sum_green + 0.5).to(tl.uint8), mask=inside)
            tl.store(shrunk + 2 * height * width + to, tl.floor(sum_blue + 0.5).to(tl.uint8), mask=inside)


@triton.jit
def _weight(j: tl.constexpr, w0, w1, w2, w3):
    return w0 if j == 3 else w1 if j == 2 else w1 if j == 4 else w2 if j == 1 else w2 if j == 5 else w3


@triton.jit
def smooth_kernel(shrunk, out, height, width, w0, w1, w2, w3, BLOCK: tl.constexpr):
    """Smooth 3 x height x width bytes by a Gaussian, whose weights `w0`, `w1`, ... are from the middle outwards."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < 3 * height * width
    plane, y, x = at // (height * width), at // width % height, at % width
    turn_y, turn_x = tl.maximum(2 * (height - 1), 1), tl.maximum(2 * (width - 1), 1)
    total = x * 0.0
    for j in tl.static_range(2 * REACH + 1):
        y1 = (y + j - REACH + REACH * turn_y) % turn_y
        y1 = tl.minimum(y1, turn_y - y1)
        down = _weight(j, w0, w1, w2, w3)
        row = x * 0.0
        for i in tl.static_range(2 * REACH + 1):
            x1 = (x + i - REACH + REACH * turn_x) % turn_x
            x1 = tl.minimum(x1, turn_x - x1)
            along = _weight(i, w0, w1, w2, w3)
            value = tl.load(shrunk + (plane * height + y1) * width + x1, mask=there, other=0)
            row += along * value.to(tl.float32)
        total += down * row
    tl.store(out + at, tl.floor(total + 0.5).to(tl.uint8), mask=there)


@triton.jit
def input_kernel(
    image, rows, row_ways, columns, column_ways, out, in_height, in_width, height, width,
    gain_0, gain_1, gain_2, offset_0, offset_1, offset_2, BGR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sample an image and normalise it: height x width x 3, float32.

    Args:
        image: in_height x in_width x 3, uint8.
        rows, row_ways: the row before each of `out`, and how far it lies behind that; columns likewise.
        gain_0, offset_0, ...: of red, green and blue.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < height * width
    y, x = tl.minimum(at // width, height - 1), at % width
    y0, wy, x0, wx = tl.load(rows + y), tl.load(row_ways + y), tl.load(columns + x), tl.load(column_ways + x)
    y1, x1 = tl.minimum(y0 + 1, in_height - 1), tl.minimum(x0 + 1, in_width - 1)
    a00, a01 = image + 3 * (y0 * in_width + x0), image + 3 * (y0 * in_width + x1)
    a10, a11 = image + 3 * (y1 * in_width + x0), image + 3 * (y1 * in_width + x1)
    for c in tl.static_range(3):
        left = tl.load(a00 + c).to(tl.float32) * (1.0 - wy) + tl.load(a10 + c).to(tl.float32) * wy
        right = tl.load(a01 + c).to(tl.float32) * (1.0 - wy) + tl.load(a11 + c).to(tl.float32) * wy
        value = left * (1.0 - wx) + right * wx
        gain = gain_0 if c == 0 else gain_1 if c == 1 else gain_2
        offset = offset_0 if c == 0 else offset_1 if c == 1 else offset_2
        tl.store(out + 3 * at + (2 - c if BGR else c), value * gain + offset, mask=there)


@cache
def _shares(inputs: int, outputs: int, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Return, for each of `outputs` pixels of a side, the first pixel in it, the shares from there on, and how many."""
    covered = areas(inputs, outputs)
    first = (covered > 0).int().argmax(1)
    taps = int((covered > 0).sum(1).max())
    padded = torch.nn.functional.pad(covered, (0, taps))
    shares = padded.gather(1, first[:, None] + torch.arange(taps))
    return first.to(device, torch.int32), shares.to(device, torch.float32).contiguous(), taps


@cache
def _samples(inputs: int, outputs: int, device: torch.device) -> tuple[Tensor, Tensor]:
    before, behind = positions(inputs, outputs)
    return torch.from_numpy(before).to(device), torch.from_numpy(behind).to(device)


@cache
def _weights() -> tuple[float, ...]:
    """Return the Gaussian's weights from the middle outwards."""
    at = np.arange(-picture.REACH, picture.REACH + 1)
    weights = np.exp(-(at**2) / (2 * SMOOTHING**2))
    return tuple(float(w) for w in (weights / weights.sum())[picture.REACH :])


def shrink(image: Tensor, size: tuple[int, int], pad: int | None, colours: bool = True) -> tuple[Tensor, Tensor]:
    """Shrink an image once.

    Args:
        image: H x W x 3, uint8, contiguous.
        size: (h, w).
        pad: border of the grey levels; None for none of them.
        colours: whether colours are wanted.

    Returns:
        Grey levels, (h + 2 pad) x (w + 2 pad), float32, and colours, 1 x 3 x h x w, uint8; those not wanted are empty.
    """
    device, (in_height, in_width) = image.device, image.shape[:2]
    border = pad or 0
    outer = size[0] + 2 * border, size[1] + 2 * border
    base = torch.empty((0, 0) if pad is None else outer, dtype=torch.float32, device=device)
    shrunk = torch.empty((1, 3, *size) if colours else (0,), dtype=torch.uint8, device=device)
    side = in_height // size[0]
    squares = side <= MOST_SIDE and (size[0] * side, size[1] * side) == (in_height, in_width)
    row_first, row_shares, taps_y = _shares(in_height, size[0], device)
    column_first, column_shares, taps_x = _shares(in_width, size[1], device)
    look_kernel[blocks(outer[0] * outer[1])](
        image, row_first, row_shares, column_first, column_shares, base, shrunk, in_width, *size,
        SQUARE=side if squares else 0, TAPS_Y=taps_y, TAPS_X=taps_x,
        GREY=pad is not None, COLOURS=colours, PAD=border, BLOCK=BLOCK, **LAUNCH,
    )  # fmt: skip
    return base, shrunk


@LOOK.register("cuda")
def look(image: Tensor, size: tuple[int, int], compares: bool = True) -> Looked:
    if min(size) < dis.SIDE:
        raise ValueError(f"expected {dis.SIDE} x {dis.SIDE} pixels or more, got {size[1]} x {size[0]}")
    base, shrunk = shrink(image, size, dis.PAD)
    levels = [base]
    for _ in range(levels_of(*size) - 1):
        levels.append(halved(levels[-1]))
    return Looked(levels, shrunk)


@GRID_PICTURE.register("cuda")
def grid_picture(image: Tensor, grid: tuple[int, int], shrunk: Tensor | None) -> Tensor:
    if shrunk is None or tuple(shrunk.shape[2:]) != tuple(grid):
        _, shrunk = shrink(image, grid, None)
    out = torch.empty_like(shrunk)
    smooth_kernel[blocks(out.numel())](shrunk, out, *grid, *_weights(), BLOCK=BLOCK, **LAUNCH)
    return out


@SMALL_PICTURE.register("cuda")
def small_picture(image: Tensor, shrunk: Tensor | None = None) -> Tensor:
    size = image.shape[0] // change.STRIDE, image.shape[1] // change.STRIDE
    return grey_levels(shrink(image, size, None)[1][0])


@NETWORK_INPUT.register("cuda")
def network_input(image: Tensor, size: tuple[int, int], bgr: bool, mean: Colour, std: Colour) -> Tensor:
    height, width = image.shape[:2]
    out = torch.empty((1, 3, *size), device=image.device, memory_format=torch.channels_last)
    gain = [float(value) for value in (1.0 / np.array(std)).astype(np.float32)]
    offset = [float(value) for value in (-np.array(mean) / np.array(std)).astype(np.float32)]
    input_kernel[blocks(size[0] * size[1])](
        image, *_samples(height, size[0], image.device), *_samples(width, size[1], image.device), out,
        height, width, *size, *gain, *offset, BGR=bgr, BLOCK=BLOCK, **LAUNCH,
    )  # fmt: skip
    return out
