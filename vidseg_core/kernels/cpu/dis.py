"""Dense inverse search: optical flow on the CPU in a few milliseconds.

Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016. From coarse to fine, patches of 8 x 8 pixels
of the current picture are looked for in the previous one by gradient descent on the squared difference, of which
the patch's mean is left out so that a change of exposure moves nothing. The Hessian is that of the current picture's
patch and does not change on the way ("inverse"). A pixel's flow is a weighted mean of the patches over it.

Other than in the paper:

- A patch also tries what its neighbours to the left and above have found, then, in a second pass, those to the right
  and below, and goes on from the best (as in PatchMatch, Barnes et al., SIGGRAPH 2009): what is lost on a coarse level
  comes back from where it was found. This is done within stripes of fixed height, so that threads change no result.
- Weights are sharper: with d a pixel's difference under a patch in grey levels, 1 / max(1, |d|)^3, times
  1 / (1 + mean of d^2) for the whole patch. Edges of motion stay sharp without the paper's variational refinement.
- The finest level is summed up on the grid where the flow is wanted, not on its own pixels.

Pictures are float32 grey levels, 0..255, with their border pixels repeated `PAD` times around them.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numba import njit

from vidseg_core.kernels.cpu.lanes import LANES, add, div, larger, load, mul, spread, store, sub, total
from vidseg_core.threads import over_rows

# Pixels of a patch each way: its rows are vectors.
SIDE = LANES
# So far a patch can leave the picture, and one pixel for slopes and interpolation.
PAD = 12
# Pixels from patch to patch, on the finest level and on the others.
FINEST_STEP, STEP = 6, 4
# Rows of patches within which patches learn from each other; all rows on levels of at most `ALONE` pixels, which are
# done before another thread has woken up.
STRIPE = 8
ALONE = 20_000
# Patches along the longer side of the coarsest level, about.
COARSEST_PATCHES = 4

_PIXELS = np.float32(SIDE * SIDE)
_ITERATIONS = 8
# Shorter steps, in pixels, end the descent; starting points that differ by less are taken for one.
_SHORT = np.float32(0.15)
_ALIKE = np.float32(0.4)
# Added to the Hessian's diagonal: a patch without texture stays where it begins.
_DAMPING = np.float32(16.0)
_ZERO, _HALF, _ONE, _TWO = (np.float32(value) for value in (0.0, 0.5, 1.0, 2.0))
_UNKNOWN = np.float32(-1.0)


def pyramid(grey: np.ndarray) -> list[np.ndarray]:
    """Make the pyramid that `dense_flow` needs of a picture.

    Args:
        grey: H x W, uint8, each side 8 or more.

    Returns:
        Pictures, (h + 2 PAD) x (w + 2 PAD), float32, owning their memory: of the same size, of half of it (rounded up),
        and so on.

    Raises:
        ValueError: too small.
    """
    height, width = grey.shape
    if min(height, width) < SIDE:
        raise ValueError(f"expected {SIDE} x {SIDE} pixels or more, got {width} x {height}")
    levels = [np.empty((height + 2 * PAD, width + 2 * PAD), np.float32)]
    _fill(grey, levels[0])
    longer, shorter = max(height, width) / (SIDE * COARSEST_PATCHES), min(height, width) / SIDE
    for _ in range(min(round(math.log2(longer)), int(math.log2(shorter)))):
        height, width = (height + 1) // 2, (width + 1) // 2
        levels.append(np.empty((height + 2 * PAD, width + 2 * PAD), np.float32))
        _halve(levels[-2], levels[-1])
    return levels


def dense_flow(current: list[np.ndarray], previous: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Find the current picture's pixels in the previous one.

    Args:
        current, previous: see `pyramid`.
        size: (h, w) of the grid on which flow is wanted.

    Returns:
        2 x h x w, float32, newly allocated: u (along x) and v (along y) in pixels of the grid, finite. The same for any
        number of threads.

    Raises:
        ValueError: the pictures have different sizes.
    """
    if current[0].shape != previous[0].shape:
        raise ValueError(f"expected pictures of one size, got {current[0].shape} and {previous[0].shape}, padded")
    flow = np.zeros((2, 0, 0), np.float32)
    for level in reversed(range(len(current))):
        pictures = current[level], previous[level]
        height, width = (side - 2 * PAD for side in current[level].shape)
        step = FINEST_STEP if level == 0 else STEP
        rows, columns = (-(-(side - SIDE) // step) + 1 for side in (height, width))
        patches = np.empty((3, rows, columns), np.float32)
        out = (min(size[0], height), min(size[1], width)) if level == 0 else (height, width)
        alone = height * width <= ALONE
        run, stripe = (_run_alone, rows) if alone else (over_rows, STRIPE)
        run(_search, -(-rows // stripe), *pictures, flow, step, stripe, patches)
        flow = np.empty((2, *out), np.float32)
        run(_densify, out[0], *pictures, step, patches, flow)
    if flow.shape[1:] == size:
        return flow
    enlarged = np.empty((2, *size), np.float32)
    for component, plane in enumerate(flow):
        scale = np.float32(size[1 - component] / plane.shape[1 - component])
        enlarged[component] = cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR) * scale
    return enlarged


def _run_alone(kernel, rows, *arguments):
    kernel(0, rows, *arguments)


@njit(nogil=True, cache=True)
def _fill(grey, out):
    height, width = grey.shape
    for y in range(height):
        for x in range(width):
            out[PAD + y, PAD + x] = grey[y, x]
    _repeat_border(out)


@njit(nogil=True, cache=True)
def _halve(picture, out):
    """Means of 2 x 2 pixels; where a side is odd, the border gives the last pixel's partner."""
    height, width = out.shape
    for y in range(PAD, height - PAD):
        upper, lower = picture[2 * y - PAD], picture[2 * y - PAD + 1]
        for x in range(PAD, width - PAD):
            left = 2 * x - PAD
            out[y, x] = np.float32(0.25) * (upper[left] + upper[left + 1] + lower[left] + lower[left + 1])
    _repeat_border(out)


@njit(nogil=True, cache=True)
def _repeat_border(picture):
    height, width = picture.shape
    for y in range(PAD, height - PAD):
        picture[y, :PAD] = picture[y, PAD]
        picture[y, width - PAD :] = picture[y, width - PAD - 1]
    for y in range(PAD):
        for x in range(width):
            picture[y, x] = picture[PAD, x]
            picture[height - 1 - y, x] = picture[height - PAD - 1, x]


@njit(nogil=True, cache=True)
def _sampled(picture, x, y):
    """How to sample a patch whose first pixel is at (x, y), border included: index of the pixel before, four weights.

    A patch that would leave the picture and its border stops there.
    """
    x = min(max(x, _ONE), np.float32(picture.shape[1] - SIDE - 2))
    y = min(max(y, _ONE), np.float32(picture.shape[0] - SIDE - 2))
    left, top = int(x), int(y)
    wx, wy = x - np.float32(left), y - np.float32(top)
    both = wx * wy
    at = top * picture.shape[1] + left
    return at, spread(_ONE - wx - wy + both), spread(wx - both), spread(wy - both), spread(both)


@njit(nogil=True, cache=True)
def _differences(previous, at, w00, w01, w10, w11, current, own):
    """One row of a patch: the previous picture, sampled, less the current one."""
    below = at + previous.shape[1]
    row = sub(mul(w00, load(previous, at)), load(current, own))
    row = add(mul(w01, load(previous, at + 1)), row)
    row = add(mul(w10, load(previous, below)), row)
    return add(mul(w11, load(previous, below + 1)), row)


@njit(nogil=True, cache=True)
def _cost(current, previous, x, y, u, v):
    """Sum of squared differences less their mean, of the patch at (x, y) moved by (u, v)."""
    pitch = current.shape[1]
    own = y * pitch + x
    at, w00, w01, w10, w11 = _sampled(previous, np.float32(x) + u, np.float32(y) + v)
    sums, squares = spread(_ZERO), spread(_ZERO)
    for _ in range(SIDE):
        row = _differences(previous, at, w00, w01, w10, w11, current, own)
        sums, squares = add(sums, row), add(mul(row, row), squares)
        at, own = at + pitch, own + pitch
    mean = total(sums) / _PIXELS
    return total(squares) - mean * mean * _PIXELS


@njit(nogil=True, cache=True)
def _descend(current, previous, x, y, u, v, slopes):
    """Gradient descent from (u, v) until steps are short or the cost no longer falls.

    Args:
        slopes: 2 x SIDE x SIDE, scratch memory.

    Returns:
        u, v, cost; where they began if they end more than a patch away, which is no longer a descent.
    """
    pitch = current.shape[1]
    begin = y * pitch + x
    half = spread(_HALF)
    sum_x, sum_y, xx, xy, yy = spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO)
    own = begin
    for r in range(SIDE):
        slope_x = mul(half, sub(load(current, own + 1), load(current, own - 1)))
        slope_y = mul(half, sub(load(current, own + pitch), load(current, own - pitch)))
        store(slopes, SIDE * r, slope_x)
        store(slopes, SIDE * (SIDE + r), slope_y)
        sum_x, sum_y = add(sum_x, slope_x), add(sum_y, slope_y)
        xx, xy, yy = add(mul(slope_x, slope_x), xx), add(mul(slope_x, slope_y), xy), add(mul(slope_y, slope_y), yy)
        own += pitch
    mean_x, mean_y = total(sum_x) / _PIXELS, total(sum_y) / _PIXELS
    h_xx = total(xx) - mean_x * mean_x * _PIXELS + _DAMPING
    h_yy = total(yy) - mean_y * mean_y * _PIXELS + _DAMPING
    h_xy = total(xy) - mean_x * mean_y * _PIXELS
    scale = _ONE / (h_xx * h_yy - h_xy * h_xy)
    i_xx, i_xy, i_yy = h_yy * scale, -h_xy * scale, h_xx * scale
    best_u, best_v, best, first = u, v, _UNKNOWN, _UNKNOWN
    begin_u, begin_v = u, v
    for _ in range(_ITERATIONS):
        at, w00, w01, w10, w11 = _sampled(previous, np.float32(x) + u, np.float32(y) + v)
        sums, squares, along_x, along_y = spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO)
        own = begin
        for r in range(SIDE):
            row = _differences(previous, at, w00, w01, w10, w11, current, own)
            sums, squares = add(sums, row), add(mul(row, row), squares)
            along_x = add(mul(row, load(slopes, SIDE * r)), along_x)
            along_y = add(mul(row, load(slopes, SIDE * (SIDE + r))), along_y)
            at, own = at + pitch, own + pitch
        both = total(sums)
        cost = total(squares) - both * both / _PIXELS
        if best == _UNKNOWN:
            first = cost
        elif cost >= best:
            break
        best_u, best_v, best = u, v, cost
        g_x, g_y = total(along_x) - both * mean_x, total(along_y) - both * mean_y
        step_u, step_v = i_xx * g_x + i_xy * g_y, i_xy * g_x + i_yy * g_y
        u, v = u - step_u, v - step_v
        if step_u * step_u + step_v * step_v < _SHORT * _SHORT:
            # What is left to gain is less than what looking at it costs.
            best_u, best_v = u, v
            break
    if (best_u - begin_u) ** 2 + (best_v - begin_v) ** 2 > _PIXELS:
        return begin_u, begin_v, first
    return best_u, best_v, best


@njit(nogil=True, cache=True)
def _search(begin, end, current, previous, coarse, step, stripe, patches):
    """For `over_rows` over stripes.

    Args:
        current, previous: pictures.
        coarse: flow of the level before, 2 x h x w in its pixels; or 2 x 0 x 0.
        step: pixels from patch to patch; the last ones of rows and columns end with the picture.
        stripe: rows of patches in a stripe.
        patches: 3 x rows x columns, to be filled: u, v, cost.
    """
    rows, columns = patches.shape[1:]
    coarse_height, coarse_width = coarse.shape[1:]
    last_x, last_y = current.shape[1] - PAD - SIDE, current.shape[0] - PAD - SIDE
    slopes = np.empty((2, SIDE, SIDE), np.float32)
    for number in range(begin, end):
        top, bottom = number * stripe, min((number + 1) * stripe, rows)
        for back in (False, True):
            towards = 1 if back else -1
            for row in range(top, bottom):
                j = top + bottom - 1 - row if back else row
                y = min(PAD + j * step, last_y)
                for column in range(columns):
                    i = columns - 1 - column if back else column
                    x = min(PAD + i * step, last_x)
                    u, v, cost = _ZERO, _ZERO, _UNKNOWN
                    better = not back
                    if back:
                        u, v, cost = patches[0, j, i], patches[1, j, i], patches[2, j, i]
                    elif coarse_height > 0:
                        coarse_x = min((x - PAD + SIDE // 2) // 2, coarse_width - 1)
                        coarse_y = min((y - PAD + SIDE // 2) // 2, coarse_height - 1)
                        u, v = _TWO * coarse[0, coarse_y, coarse_x], _TWO * coarse[1, coarse_y, coarse_x]
                    for j1, i1 in ((j, i + towards), (j + towards, i)):
                        if not (top <= j1 < bottom and 0 <= i1 < columns):
                            continue
                        u1, v1 = patches[0, j1, i1], patches[1, j1, i1]
                        if abs(u1 - u) + abs(v1 - v) <= _ALIKE:
                            continue
                        if cost == _UNKNOWN:
                            cost = _cost(current, previous, x, y, u, v)
                        cost1 = _cost(current, previous, x, y, u1, v1)
                        if cost1 < cost:
                            u, v, cost, better = u1, v1, cost1, True
                    if better:
                        u, v, cost = _descend(current, previous, x, y, u, v, slopes)
                        patches[0, j, i], patches[1, j, i], patches[2, j, i] = u, v, cost


@njit(nogil=True, cache=True)
def _densify(begin, end, current, previous, step, patches, out):
    """For `over_rows` over rows of `out`, 2 x h x w, at most as large as the pictures: flow in its own pixels.

    A pixel of `out` takes the weighted mean over all patches and all pixels of the picture that lie in it.
    """
    pitch = current.shape[1]
    height, width = current.shape[0] - 2 * PAD, pitch - 2 * PAD
    out_height, out_width = out.shape[1:]
    top, bottom = -(-begin * height // out_height), -(-end * height // out_height)
    sums = np.zeros((3, end - begin, width), np.float32)  # of weights, and of u and v times weights
    plane = (end - begin) * width
    beginning = np.empty(bottom - top, np.int64)  # in a plane, of the row that takes what lies in a picture's row
    for y in range(top, bottom):
        beginning[y - top] = (y * out_height // height - begin) * width
    zero, one = spread(_ZERO), spread(_ONE)
    rows = np.empty((SIDE, SIDE), np.float32)
    for j in range(patches.shape[1]):
        y = min(j * step, height - SIDE)
        if y + SIDE <= top or y >= bottom:
            continue
        for i in range(patches.shape[2]):
            x = min(i * step, width - SIDE)
            u, v = patches[0, j, i], patches[1, j, i]
            own = (PAD + y) * pitch + PAD + x
            at, w00, w01, w10, w11 = _sampled(previous, np.float32(PAD + x) + u, np.float32(PAD + y) + v)
            squares = zero
            for r in range(SIDE):
                row = _differences(previous, at, w00, w01, w10, w11, current, own)
                store(rows, SIDE * r, row)
                squares = add(mul(row, row), squares)
                at, own = at + pitch, own + pitch
            whole = spread(_ONE / (_ONE + total(squares) / _PIXELS))
            all_u, all_v = spread(u), spread(v)
            for r in range(max(0, top - y), min(SIDE, bottom - y)):
                row = load(rows, SIDE * r)
                size = larger(larger(row, sub(zero, row)), one)
                weight = div(whole, mul(mul(size, size), size))
                to = beginning[y + r - top] + x
                store(sums, to, add(load(sums, to), weight))
                store(sums, to + plane, add(mul(weight, all_u), load(sums, to + plane)))
                store(sums, to + 2 * plane, add(mul(weight, all_v), load(sums, to + 2 * plane)))
    unit_u, unit_v = np.float32(out_width / width), np.float32(out_height / height)
    edges = np.empty(out_width + 1, np.int64)
    for column in range(out_width + 1):
        edges[column] = -(-column * width // out_width)
    for row in range(begin, end):
        weights, along_x, along_y = sums[0, row - begin], sums[1, row - begin], sums[2, row - begin]
        for column in range(out_width):
            weight, u, v = _ZERO, _ZERO, _ZERO
            for x in range(edges[column], edges[column + 1]):
                weight += weights[x]
                u += along_x[x]
                v += along_y[x]
            out[0, row, column], out[1, row, column] = unit_u * u / weight, unit_v * v / weight
