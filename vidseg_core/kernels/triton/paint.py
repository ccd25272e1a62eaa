"""Labels and overlay from logits on the grid in Triton, neither moved nor upsampled logits in memory.

A cell of the grid has four points at its corners. Where all have one class, so has every pixel in it, and most cells
are so. Kernels, in this order: the class of each point; the list of cells with several classes; the pixels of all
others; those of the listed ones, whose logits alone are interpolated.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from vidseg_core.arrays import as_tensor
from vidseg_core.classes import VOID
from vidseg_core.kernels.cpu.decode import MIXED
from vidseg_core.kernels.decode import DECODE, DECODE_WARPED
from vidseg_core.kernels.paint import DRAW, PAINT, Moved, Painted, brought
from vidseg_core.kernels.resample import positions
from vidseg_core.kernels.transfer import download
from vidseg_core.kernels.triton.launch import BLOCK, LAUNCH, blocks, strides
from vidseg_core.kernels.triton.warp import corners
from vidseg_core.kernels.warp import sampling_lattice
from vidseg_core.overlay import Colours

UNKNOWN, OWN = tl.constexpr(int(MIXED)), tl.constexpr(VOID)
TILE_Y, TILE_X = 4, 128  # pixels of a program
CELLS, PIXELS = 32, 8  # of a program of one warp: a thread has a cell, and so many of its pixels at a time
PROGRAMS = 2048  # at most, for listed cells: how many there are the host does not know


@triton.jit
def points_kernel(
    logits, way, known, top, height, width, plane, row, column, way_plane, way_row, way_column,
    stretch_y, stretch_x, shift,
    CLASSES: tl.constexpr, MOVES: tl.constexpr, BORDER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Find the class of each grid point: h x w, uint8.

    Args:
        logits: C x h x w.
        way: 2 x h x w, to where they lie; read with MOVES alone, as is
        known: h x w, uint8, the class that logits and those behind and below have in common, or UNKNOWN.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < height * width
    at = tl.minimum(at, height * width - 1)
    y, x = at // width, at % width
    label = tl.zeros((BLOCK,), tl.int32)
    asks = there
    y0, x0, y1, x1 = y, x, y, x
    w00 = tl.zeros((BLOCK,), tl.float32) + 1.0
    w01, w10, w11 = w00, w00, w00
    if MOVES:
        y0, x0, y1, x1, w00, w01, w10, w11 = corners(
            way, y, x, height, width, way_plane, way_row, way_column, stretch_y, stretch_x, shift, BORDER
        )
        label = tl.load(known + y0 * width + x0).to(tl.int32)
        # Outside, where nothing has any weight, all classes have 0.
        asks = there & ((label == UNKNOWN) | (w00 + w01 + w10 + w11 <= 0.0))
    if tl.max(asks.to(tl.int32)) > 0:
        highest = tl.full((BLOCK,), float("-inf"), tl.float32)
        winner = tl.zeros((BLOCK,), tl.int32)
        for c in range(CLASSES):
            source = logits + c * plane
            value = tl.load(source + y0 * row + x0 * column, mask=asks, other=0.0).to(tl.float32)
            if MOVES:
                value = value * w00
                value += tl.load(source + y0 * row + x1 * column, mask=asks, other=0.0).to(tl.float32) * w01
                value += tl.load(source + y1 * row + x0 * column, mask=asks, other=0.0).to(tl.float32) * w10
                value += tl.load(source + y1 * row + x1 * column, mask=asks, other=0.0).to(tl.float32) * w11
            higher = value > highest
            highest, winner = tl.where(higher, value, highest), tl.where(higher, c, winner)
        label = tl.where(asks, winner, label)
    tl.store(top + at, label.to(tl.uint8), mask=there)


@triton.jit
def list_kernel(top, cells, count, height, width, BLOCK: tl.constexpr):
    """List cells whose corners have several classes, in any order; `count`, 0 at first, becomes their number."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < height * width
    y, x = at // width, at % width
    y1, x1 = tl.minimum(y + 1, height - 1), tl.minimum(x + 1, width - 1)
    first = tl.load(top + at, mask=there, other=0)
    mixed = first != tl.load(top + y * width + x1, mask=there, other=0)
    mixed = mixed | (first != tl.load(top + y1 * width + x, mask=there, other=0))
    mixed = mixed | (first != tl.load(top + y1 * width + x1, mask=there, other=0))
    mixed = mixed & there
    number = mixed.to(tl.int32)
    place = tl.atomic_add(count, tl.sum(number)) + tl.cumsum(number, 0) - 1
    tl.store(cells + place, at, mask=mixed)


@triton.jit
def _put(
    label, at, there, own, image, table, labels, overlay, MASKS: tl.constexpr, DRAWS: tl.constexpr
):  # fmt: skip
    """Write the labels of pixels, and the image with their colours."""
    if MASKS:
        label = tl.where(tl.load(own + at, mask=there, other=0) != 0, OWN, label)
    tl.store(labels + at, label.to(tl.uint8), mask=there)
    if DRAWS:
        share = tl.load(table + 4 * label + 3)
        for c in tl.static_range(3):
            seen = tl.load(image + 3 * at + c, mask=there, other=0).to(tl.int32)
            drawn = (seen * share + tl.load(table + 4 * label + c)) >> 8
            tl.store(overlay + 3 * at + c, drawn.to(tl.uint8), mask=there)


@triton.jit
def same_kernel(
    top, rows, columns, own, image, table, labels, overlay, height, width, out_height, out_width,
    MASKS: tl.constexpr, DRAWS: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """Write the pixels of cells of one class.

    Args:
        top: see `points_kernel`.
        rows, columns: of the grid, before each row and column of the picture.
        own: H x W, not 0 where labels are void.
        image: H x W x 3.
        table: see `Colours.table`.
        labels, overlay: H x W and H x W x 3.
    """
    y = tl.program_id(0) * TILE_Y + tl.arange(0, TILE_Y)
    x = tl.program_id(1) * TILE_X + tl.arange(0, TILE_X)
    there = (y < out_height)[:, None] & (x < out_width)[None, :]
    y0 = tl.load(rows + tl.minimum(y, out_height - 1))[:, None]
    x0 = tl.load(columns + tl.minimum(x, out_width - 1))[None, :]
    y1, x1 = tl.minimum(y0 + 1, height - 1), tl.minimum(x0 + 1, width - 1)
    label = tl.load(top + y0 * width + x0)
    same = there & (label == tl.load(top + y0 * width + x1))
    same = same & (label == tl.load(top + y1 * width + x0)) & (label == tl.load(top + y1 * width + x1))
    at = y[:, None] * out_width + x[None, :]
    _put(label.to(tl.int32), at, same, own, image, table, labels, overlay, MASKS, DRAWS)


@triton.jit
def _value(source, a00, a01, a10, a11, w00, w01, w10, w11, MOVES: tl.constexpr):
    value = tl.load(source + a00).to(tl.float32)
    if MOVES:
        value = value * w00
        value += tl.load(source + a01).to(tl.float32) * w01
        value += tl.load(source + a10).to(tl.float32) * w10
        value += tl.load(source + a11).to(tl.float32) * w11
    return value


@triton.jit
def _origin(
    way, y, x, height, width, row, column, way_plane, way_row, way_column, stretch_y, stretch_x, shift,
    MOVES: tl.constexpr, BORDER: tl.constexpr,
):  # fmt: skip
    """Return where the logits of points lie in a plane: four offsets, and their weights."""
    a00 = y * row + x * column
    w00 = a00.to(tl.float32)  # of this type; not read unless something moves
    a01, a10, a11, w01, w10, w11 = a00, a00, a00, w00, w00, w00
    if MOVES:
        y0, x0, y1, x1, w00, w01, w10, w11 = corners(
            way, y, x, height, width, way_plane, way_row, way_column, stretch_y, stretch_x, shift, BORDER
        )
        a00, a01 = y0 * row + x0 * column, y0 * row + x1 * column
        a10, a11 = y1 * row + x0 * column, y1 * row + x1 * column
    return a00, a01, a10, a11, w00, w01, w10, w11


@triton.jit
def mixed_kernel(
    logits, way, cells, count, row_starts, row_ways, column_starts, column_ways, own, image, table, labels, overlay,
    height, width, out_height, out_width, plane, row, column, way_plane, way_row, way_column,
    stretch_y, stretch_x, shift,
    CLASSES: tl.constexpr, MOVES: tl.constexpr, BORDER: tl.constexpr, MASKS: tl.constexpr, DRAWS: tl.constexpr,
    CELL_Y: tl.constexpr, CELL_X: tl.constexpr, CELLS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Write the pixels of the listed cells: logits moved, interpolated along x, then along y, argmax.

    Args:
        logits, way: see `points_kernel`.
        cells, count: see `list_kernel`.
        row_starts, column_starts: where the pixels of each row and column of cells begin, and where the last ones end.
        row_ways, column_ways: how far each row and column of the picture lies behind the grid's.
        CELL_Y, CELL_X: pixels of the largest cell.
    """
    number = tl.load(count)
    first = tl.program_id(0) * CELLS
    while first < number:
        which = first + tl.arange(0, CELLS)
        there = which < number
        cell = tl.load(cells + which, mask=there, other=0)
        y, x = cell // width, cell % width
        y1, x1 = tl.minimum(y + 1, height - 1), tl.minimum(x + 1, width - 1)
        a00, a01, a02, a03, w00, w01, w02, w03 = _origin(
            way, y, x, height, width, row, column, way_plane, way_row, way_column, stretch_y, stretch_x, shift,
            MOVES, BORDER,
        )  # fmt: skip
        a10, a11, a12, a13, w10, w11, w12, w13 = _origin(
            way, y, x1, height, width, row, column, way_plane, way_row, way_column, stretch_y, stretch_x, shift,
            MOVES, BORDER,
        )  # fmt: skip
        a20, a21, a22, a23, w20, w21, w22, w23 = _origin(
            way, y1, x, height, width, row, column, way_plane, way_row, way_column, stretch_y, stretch_x, shift,
            MOVES, BORDER,
        )  # fmt: skip
        a30, a31, a32, a33, w30, w31, w32, w33 = _origin(
            way, y1, x1, height, width, row, column, way_plane, way_row, way_column, stretch_y, stretch_x, shift,
            MOVES, BORDER,
        )  # fmt: skip
        top, left = tl.load(row_starts + y)[None, :], tl.load(column_starts + x)[None, :]
        bottom, right = tl.load(row_starts + y + 1)[None, :], tl.load(column_starts + x + 1)[None, :]
        begin = 0
        while begin < CELL_Y * CELL_X:
            pixel = begin + tl.arange(0, PIXELS)
            py, px = top + (pixel // CELL_X)[:, None], left + (pixel % CELL_X)[:, None]  # PIXELS x CELLS
            wanted = there[None, :] & (py < bottom) & (px < right)
            py, px = tl.minimum(py, out_height - 1), tl.minimum(px, out_width - 1)
            wy, wx = tl.load(row_ways + py), tl.load(column_ways + px)
            best = tl.full((PIXELS, CELLS), float("-inf"), tl.float32)
            label = tl.zeros((PIXELS, CELLS), tl.int32)
            for c in range(CLASSES):
                source = logits + c * plane
                upper = _value(source, a00, a01, a02, a03, w00, w01, w02, w03, MOVES)[None, :] * (1.0 - wx)
                upper += _value(source, a10, a11, a12, a13, w10, w11, w12, w13, MOVES)[None, :] * wx
                lower = _value(source, a20, a21, a22, a23, w20, w21, w22, w23, MOVES)[None, :] * (1.0 - wx)
                lower += _value(source, a30, a31, a32, a33, w30, w31, w32, w33, MOVES)[None, :] * wx
                value = upper * (1.0 - wy) + lower * wy
                better = value > best
                best, label = tl.where(better, value, best), tl.where(better, c, label)
            _put(label, py * out_width + px, wanted, own, image, table, labels, overlay, MASKS, DRAWS)
            begin += PIXELS
        first += tl.num_programs(0) * CELLS


@cache
def places(inputs: int, outputs: int, half_pixel: bool, device: torch.device) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return where `outputs` pixels of a side lie among `inputs` points, as kernels read it.

    Returns:
        outputs, int32: the point before each; outputs, float32: how far behind that; inputs + 1, int32: the first pixel
        behind each point, and the number of pixels; and the most pixels behind one point.
    """
    before, behind = positions(inputs, outputs, half_pixel)
    starts = np.searchsorted(before, np.arange(inputs + 1)).astype(np.int32)
    tables = (torch.from_numpy(x).to(device) for x in (before, behind, starts))
    return *tables, int(np.diff(starts).max())  # type: ignore[return-value]


@cache
def _table(lut: bytes, opacity: float, device: torch.device) -> Tensor:
    colours = Colours(np.frombuffer(lut, np.uint8).reshape(256, 3), opacity)
    return torch.from_numpy(colours.table()).to(device)


@DRAW.register("cuda")
def paint_on_device(
    logits: Tensor, size: tuple[int, int], half_pixel: bool = False, moved: Moved | None = None,
    own: Tensor | None = None, image: Tensor | None = None, colours: Colours | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Compute `kernels.paint.paint`; labels and overlay stay where the logits are."""
    device, (height, width) = logits.device, logits.shape[2:]
    grid = height, width
    draws = colours is not None and image is not None
    rows, row_ways, row_starts, cell_y = places(height, size[0], half_pixel, device)
    columns, column_ways, column_starts, cell_x = places(width, size[1], half_pixel, device)
    labels = torch.empty(size, dtype=torch.uint8, device=device)
    overlay = torch.empty((*size, 3), dtype=torch.uint8, device=device) if draws else None
    top = torch.empty(grid, dtype=torch.uint8, device=device)
    cells = torch.empty(height * width, dtype=torch.int32, device=device)
    count = torch.zeros(1, dtype=torch.int32, device=device)
    way, known, lattice, border = logits, top, (1.0, 1.0, 0.0), False
    if moved is not None:
        way, known, border = as_tensor(moved.way), as_tensor(moved.one_class).contiguous(), moved.padding == "border"
        lattice = sampling_lattice(grid, moved.align_corners)
    moves = {"CLASSES": logits.shape[1], "MOVES": moved is not None, "BORDER": border}
    origin = *strides(logits), *strides(way), *lattice
    points_kernel[blocks(height * width)](
        logits, way, known, top, *grid, *origin, **moves, BLOCK=BLOCK, **LAUNCH
    )  # fmt: skip
    list_kernel[blocks(height * width)](top, cells, count, *grid, BLOCK=BLOCK, **LAUNCH)
    out = {"MASKS": own is not None, "DRAWS": draws}
    shown = (
        labels if own is None else own.view(torch.uint8),
        labels if image is None else image.contiguous(),
        _table(colours.lut.tobytes(), colours.opacity, device) if draws and colours is not None else count,
        labels,
        labels if overlay is None else overlay,
    )
    same_kernel[triton.cdiv(size[0], TILE_Y), triton.cdiv(size[1], TILE_X)](
        top, rows, columns, *shown, *grid, *size, **out, TILE_Y=TILE_Y, TILE_X=TILE_X, **LAUNCH
    )  # fmt: skip
    # The interpreter, which takes one program after the other, has more at once.
    each, pixels = CELLS, PIXELS
    if device.type != "cuda":
        each = min(1024, triton.next_power_of_2(height * width))
        pixels = min(256, triton.next_power_of_2(cell_y * cell_x))
    mixed_kernel[(min(PROGRAMS, triton.cdiv(height * width, each)),)](
        logits, way, cells, count, row_starts, row_ways, column_starts, column_ways, *shown, *grid, *size, *origin,
        **moves, **out, CELL_Y=cell_y, CELL_X=cell_x, CELLS=each, PIXELS=pixels, num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
    return labels, overlay


@PAINT.register("cuda")
def paint(
    logits: Tensor, size: tuple[int, int], half_pixel: bool, moved: Moved | None, own: Tensor | None,
    image: Tensor | None, colours: Colours | None,
) -> Painted:  # fmt: skip
    return brought(*paint_on_device(logits, size, half_pixel, moved, own, image, colours))


@DECODE.register("cuda")
def decode(logits: Tensor, size: tuple[int, int], half_pixel: bool) -> np.ndarray:
    return download(paint_on_device(logits, size, half_pixel)[0])[0]


@DECODE_WARPED.register("cuda")
def decode_warped(
    logits: Tensor, flow: Tensor, one_class: Tensor, size: tuple[int, int], align_corners: bool, padding: str
) -> np.ndarray:
    moved = Moved(flow, one_class, align_corners, padding)
    return download(paint_on_device(logits, size, moved=moved)[0])[0]
