"""Dense inverse search on the CPU, in a few milliseconds: `kernels.flow` says what is computed."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
from numba import njit

from vidseg_core.kernels.cpu.lanes import LANES, add, div, larger, load, mul, spread, store, sub, total, totals
from vidseg_core.kernels.cpu.tasks import DONE, FAILED, floats_at, set_flag, take, wait_for
from vidseg_core.threads import BANDS_EACH, over_rows, together, worth

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
# Nanoseconds that a pixel of the finest level takes on one thread, all levels included, see `threads.worth`.
PIXEL_NS = 9.5
# Of "rounds": how far away, in patches, the neighbours are that a patch looks at in each.
FINEST_ROUNDS, COARSE_ROUNDS = (2, 1), (1, 2, 1, 2, 1)
# Patches along the longer side of the coarsest level, about.
COARSEST_PATCHES = 4

PIXELS = np.float32(SIDE * SIDE)
ITERATIONS = 8
# Shorter steps, in pixels, end the descent; starting points that differ by less are taken for one.
SHORT = np.float32(0.15)
ALIKE = np.float32(0.4)
# Added to the Hessian's diagonal: a patch without texture stays where it begins.
DAMPING = np.float32(16.0)
# A patch whose mean squared difference is at most one grey level's square has found its place. Chosen on streets that
# training may see: half and twice as much are less accurate, as is none.
CONVERGED = PIXELS
_ZERO, _HALF, _ONE, _TWO = (np.float32(value) for value in (0.0, 0.5, 1.0, 2.0))
_NO_HESSIAN, _NO_STEP = (_ZERO,) * 5, (_ZERO,) * 3


def pyramid(grey: np.ndarray, count: int) -> list[np.ndarray]:
    """Make `count` levels."""
    height, width = grey.shape
    levels = [np.empty((height + 2 * PAD, width + 2 * PAD), np.float32)]
    _fill(grey, levels[0])
    for _ in range(count - 1):
        height, width = (height + 1) // 2, (width + 1) // 2
        levels.append(np.empty((height + 2 * PAD, width + 2 * PAD), np.float32))
        _halve(levels[-2], levels[-1])
    return levels


def dense_flow(
    current: list[np.ndarray], previous: list[np.ndarray], size: tuple[int, int], in_rounds: bool
) -> np.ndarray:
    """Find flow, 2 x h x w."""
    flow = _in_rounds(current, previous, size) if in_rounds else _in_raster_order(current, previous, size)
    if flow.shape[1:] == size:
        return flow
    enlarged = np.empty((2, *size), np.float32)
    for component, plane in enumerate(flow):
        scale = np.float32(size[1 - component] / plane.shape[1 - component])
        enlarged[component] = cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR) * scale
    return enlarged


def _in_raster_order(current, previous, size):
    """Find flow, 2 x h x w, at most of the pictures' size: all levels in one call of a kernel for each thread."""
    threads = worth(PIXEL_NS * current[0].size / 1e3)
    plan = _plan(tuple(picture.shape for picture in current), size, threads)
    levels = plan.levels.copy()
    for at, pictures in ((CURRENT, current), (PREVIOUS, previous)):
        levels[:-1, at] = [picture.__array_interface__["data"][0] for picture in pictures]
    control = np.zeros(DONE + len(plan.tasks), np.int64)
    try:
        scratch = plan.scratch.pop()
    except IndexError:  # another stream has it
        scratch = np.empty(plan.floats, np.float32)
    flow = np.empty((2, *plan.out), np.float32)
    caller = threading.get_ident()

    def work(held=(current, previous)):  # others may still read them where a thread has failed
        try:
            _work(control, plan.tasks, levels, scratch, flow, threading.get_ident() == caller)
        except BaseException:
            control[FAILED] = 1
            raise

    together(work, threads)
    if control[FAILED]:
        raise MemoryError("flow: a thread has failed")
    plan.scratch.append(scratch)
    return flow


# What `_work` has to know of a level: addresses of its pictures, their size, and where in the scratch memory its
# patches and its flow are. The level before it is the next one in the table; the last one there has no pictures.
CURRENT, PREVIOUS, HEIGHT, WIDTH, STEPS, ROWS, COLUMNS, STRIPES, PATCHES, FLOW, FLOW_HEIGHT, FLOW_WIDTH = range(12)
_SEARCH, _DENSIFY = 0, 1


@dataclass(frozen=True)
class _Plan:
    """How flow of pictures of one size is found.

    Attributes:
        levels: n + 1 x 12, see `CURRENT` and what follows.
        tasks: N x 6: what, on which level, on which stripes or rows, after which tasks.
        floats: size of the scratch memory.
        scratch: memory that nobody is using.
        out: (h, w) of the finest level's flow.
    """

    levels: np.ndarray
    tasks: np.ndarray
    floats: int
    out: tuple[int, int]
    scratch: list[np.ndarray] = field(default_factory=list)


@lru_cache(maxsize=16)
def _plan(padded: tuple[tuple[int, int], ...], size: tuple[int, int], threads: int) -> _Plan:
    """Plan the tasks for pictures of these sizes, with their borders. Threads change no result."""
    levels = np.zeros((len(padded) + 1, 12), np.int64)
    tasks: list[tuple[int, ...]] = []
    floats = 0
    coarse: list[tuple[int, int, int]] = []  # of the level before: rows of its flow, and the task that finds them
    for level in reversed(range(len(padded))):
        height, width = (side - 2 * PAD for side in padded[level])
        step = FINEST_STEP if level == 0 else STEP
        rows, columns = (-(-(side - SIDE) // step) + 1 for side in (height, width))
        alone = height * width <= ALONE
        stripe = rows if alone else STRIPE
        out = (min(size[0], height), min(size[1], width)) if level == 0 else (height, width)
        levels[level, HEIGHT:] = *padded[level], step, rows, columns, stripe, floats, floats + 3 * rows * columns, *out
        floats += 3 * rows * columns + 2 * out[0] * out[1]
        top = [min(row * step, height - SIDE) for row in range(rows)]  # of each row of patches
        first = len(tasks)
        for number, begin in enumerate(range(0, rows, stripe)):
            reads = [(top[row] + SIDE // 2) // 2 for row in (begin, min(begin + stripe, rows) - 1)]
            needed = _needed(coarse, min(reads[0], _end(coarse) - 1), reads[1] + 1)
            tasks.append((_SEARCH, level, number, number + 1, *needed))
        found = [
            (top[begin], top[min(begin + stripe, rows) - 1] + SIDE, first + number)
            for number, begin in enumerate(range(0, rows, stripe))
        ]
        coarse, count = [], min(out[0], 1 if threads == 1 else threads if alone else threads * BANDS_EACH)
        for band in range(count):
            begin, end = out[0] * band // count, out[0] * (band + 1) // count
            needed = _needed(found, -(-begin * height // out[0]), -(-end * height // out[0]))
            coarse.append((begin, end, len(tasks)))
            tasks.append((_DENSIFY, level, begin, end, *needed))
    return _Plan(levels, np.array(tasks, np.int64), floats, out)


def _end(found: list[tuple[int, int, int]]) -> int:
    return found[-1][1] if found else 1


def _needed(found: list[tuple[int, int, int]], begin: int, end: int) -> tuple[int, int]:
    """First task, and the one behind the last, of those that find anything of the rows; (0, 0) for none."""
    tasks = [task for first, last, task in found if first < end and last > begin]
    return (tasks[0], tasks[-1] + 1) if tasks else (0, 0)


@njit(nogil=True, cache=True)
def _work(control, tasks, levels, scratch, out, waits):
    """Take tasks until none is left; with `waits`, return when all are done.

    Args:
        control: see `tasks.py`.
        tasks, levels: see `_Plan`.
        scratch: for patches and flow of all levels.
        out: flow of the finest level.
    """
    while True:
        task = take(control)
        if task >= tasks.shape[0]:
            break
        what, level, begin, end = tasks[task, 0], tasks[task, 1], tasks[task, 2], tasks[task, 3]
        if not wait_for(control, tasks[task, 4], tasks[task, 5]):
            return
        own, coarser = levels[level], levels[level + 1]
        current = floats_at(own[CURRENT], own[HEIGHT], own[WIDTH])
        previous = floats_at(own[PREVIOUS], own[HEIGHT], own[WIDTH])
        at, rows, columns = own[PATCHES], own[ROWS], own[COLUMNS]
        patches = scratch[at : at + 3 * rows * columns].reshape((3, rows, columns))
        if what == _SEARCH:
            at, height, width = coarser[FLOW], coarser[FLOW_HEIGHT], coarser[FLOW_WIDTH]
            coarse = scratch[at : at + 2 * height * width].reshape((2, height, width))
            _search(begin, end, current, previous, coarse, own[STEPS], own[STRIPES], patches)
        elif level == 0:
            _densify(begin, end, current, previous, own[STEPS], patches, out)
        else:
            at, height, width = own[FLOW], own[FLOW_HEIGHT], own[FLOW_WIDTH]
            flow = scratch[at : at + 2 * height * width].reshape((2, height, width))
            _densify(begin, end, current, previous, own[STEPS], patches, flow)
        set_flag(control, DONE + task)
    if waits:
        wait_for(control, 0, tasks.shape[0])


def _in_rounds(current, previous, size):
    """Find flow, 2 x h x w, at most of the pictures' size."""
    flow = np.zeros((2, 0, 0), np.float32)
    for level in reversed(range(len(current))):
        pictures = current[level], previous[level]
        height, width = (side - 2 * PAD for side in current[level].shape)
        step = FINEST_STEP if level == 0 else STEP
        rows, columns = (-(-(side - SIDE) // step) + 1 for side in (height, width))
        run = _run_alone if height * width <= ALONE else over_rows
        distances = FINEST_ROUNDS if level == 0 else COARSE_ROUNDS
        patches = _rounds(run, pictures, flow, step, distances, np.empty((3, rows, columns), np.float32))
        flow = np.empty(
            (2, *((min(size[0], height), min(size[1], width)) if level == 0 else (height, width))), np.float32
        )
        run(_densify, flow.shape[1], *pictures, step, patches, flow)
    return flow


def _rounds(run, pictures, coarse, step, distances, patches):
    """Fill 3 x rows x columns; returns one of that shape."""
    rows = patches.shape[1]
    run(_begin, rows, *pictures, coarse, step, patches)
    after = np.empty_like(patches)
    changed = np.zeros(patches.shape[1:], np.int8)  # the round in which each patch has changed last
    before = dict.fromkeys(distances, -1)
    for number, distance in enumerate(distances, 1):
        run(_round, rows, *pictures, step, distance, number, before[distance], patches, after, changed)
        before[distance] = number
        patches, after = after, patches
    return patches


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


@njit(nogil=True, cache=True, forceinline=True)
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


@njit(nogil=True, cache=True, forceinline=True)
def _differences(previous, at, w00, w01, w10, w11, current, own):
    """One row of a patch: the previous picture, sampled, less the current one."""
    below = at + previous.shape[1]
    row = sub(mul(w00, load(previous, at)), load(current, own))
    row = add(mul(w01, load(previous, at + 1)), row)
    row = add(mul(w10, load(previous, below)), row)
    return add(mul(w11, load(previous, below + 1)), row)


@njit(nogil=True, cache=True, forceinline=True)
def _cost(current, previous, x, y, u, v):
    """Sum of squared differences less their mean, of the patch at (x, y) moved by (u, v)."""
    pitch = current.shape[1]
    own = y * pitch + x
    at, w00, w01, w10, w11 = _sampled(previous, np.float32(x) + u, np.float32(y) + v)
    # Even rows and odd ones by themselves: a sum waits for the one before it.
    sums, squares, more_sums, more_squares = spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO)
    for _ in range(SIDE // 2):
        row = _differences(previous, at, w00, w01, w10, w11, current, own)
        sums, squares = add(sums, row), add(mul(row, row), squares)
        row = _differences(previous, at + pitch, w00, w01, w10, w11, current, own + pitch)
        more_sums, more_squares = add(more_sums, row), add(mul(row, row), more_squares)
        at, own = at + 2 * pitch, own + 2 * pitch
    mean = total(add(sums, more_sums)) / PIXELS
    return total(add(squares, more_squares)) - mean * mean * PIXELS


@njit(nogil=True, cache=True, forceinline=True)
def _hessian(current, x, y, slopes):
    """Slopes of the patch at (x, y), 2 x SIDE x SIDE; their means, and the inverse of the Hessian: xx, xy, yy."""
    pitch = current.shape[1]
    half = spread(_HALF)
    sum_x, sum_y, xx, xy, yy = spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO)
    own = y * pitch + x
    for r in range(SIDE):
        slope_x = mul(half, sub(load(current, own + 1), load(current, own - 1)))
        slope_y = mul(half, sub(load(current, own + pitch), load(current, own - pitch)))
        store(slopes, SIDE * r, slope_x)
        store(slopes, SIDE * (SIDE + r), slope_y)
        sum_x, sum_y = add(sum_x, slope_x), add(sum_y, slope_y)
        xx, xy, yy = add(mul(slope_x, slope_x), xx), add(mul(slope_x, slope_y), xy), add(mul(slope_y, slope_y), yy)
        own += pitch
    total_x, total_y, total_xx, total_yy = totals(sum_x, sum_y, xx, yy)
    mean_x, mean_y = total_x / PIXELS, total_y / PIXELS
    h_xx = total_xx - mean_x * mean_x * PIXELS + DAMPING
    h_yy = total_yy - mean_y * mean_y * PIXELS + DAMPING
    h_xy = total(xy) - mean_x * mean_y * PIXELS
    scale = _ONE / (h_xx * h_yy - h_xy * h_xy)
    return mean_x, mean_y, h_yy * scale, -h_xy * scale, h_xx * scale


@njit(nogil=True, cache=True, forceinline=True)
def _step(current, previous, x, y, u, v, slopes, hessian):
    """What `_cost` finds, and the step that the patch at (x, y), moved by (u, v), would go down from there."""
    pitch = current.shape[1]
    own = y * pitch + x
    at, w00, w01, w10, w11 = _sampled(previous, np.float32(x) + u, np.float32(y) + v)
    sums, squares, along_x, along_y = spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO)
    more_sums, more_squares, more_x, more_y = spread(_ZERO), spread(_ZERO), spread(_ZERO), spread(_ZERO)
    for r in range(0, SIDE, 2):
        row = _differences(previous, at, w00, w01, w10, w11, current, own)
        sums, squares = add(sums, row), add(mul(row, row), squares)
        along_x = add(mul(row, load(slopes, SIDE * r)), along_x)
        along_y = add(mul(row, load(slopes, SIDE * (SIDE + r))), along_y)
        row = _differences(previous, at + pitch, w00, w01, w10, w11, current, own + pitch)
        more_sums, more_squares = add(more_sums, row), add(mul(row, row), more_squares)
        more_x = add(mul(row, load(slopes, SIDE * (r + 1))), more_x)
        more_y = add(mul(row, load(slopes, SIDE * (SIDE + r + 1))), more_y)
        at, own = at + 2 * pitch, own + 2 * pitch
    both, square, sum_x, sum_y = totals(
        add(sums, more_sums), add(squares, more_squares), add(along_x, more_x), add(along_y, more_y)
    )
    mean_x, mean_y, i_xx, i_xy, i_yy = hessian
    g_x, g_y = sum_x - both * mean_x, sum_y - both * mean_y
    return square - both * both / PIXELS, i_xx * g_x + i_xy * g_y, i_xy * g_x + i_yy * g_y


@njit(nogil=True, cache=True)
def _descend(current, previous, x, y, u, v, slopes):
    """Gradient descent from (u, v) until steps are short or the cost no longer falls.

    Args:
        slopes: 2 x SIDE x SIDE, scratch memory.

    Returns:
        u, v, cost; where they began if they end more than a patch away, which is no longer a descent.
    """
    hessian = _hessian(current, x, y, slopes)
    first = _step(current, previous, x, y, u, v, slopes, hessian)
    return _descend_on(current, previous, x, y, u, v, slopes, hessian, first)


@njit(nogil=True, cache=True, forceinline=True)
def _descend_on(current, previous, x, y, u, v, slopes, hessian, first):
    """The same where `_hessian` and the first `_step` are known."""
    begin_u, begin_v = u, v
    best, step_u, step_v = first
    for iteration in range(ITERATIONS):
        best_u, best_v = u, v
        u, v = u - step_u, v - step_v
        if step_u * step_u + step_v * step_v < SHORT * SHORT:
            # What is left to gain is less than what looking at it costs.
            best_u, best_v = u, v
            break
        if iteration + 1 < ITERATIONS:
            cost, step_u, step_v = _step(current, previous, x, y, u, v, slopes, hessian)
            if cost >= best:
                break
            best = cost
    if (best_u - begin_u) ** 2 + (best_v - begin_v) ** 2 > PIXELS:
        return begin_u, begin_v, first[0]
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
                    u, v, cost = _ZERO, _ZERO, _ZERO
                    hessian, first = _NO_HESSIAN, _NO_STEP
                    if back:
                        u, v, cost = patches[0, j, i], patches[1, j, i], patches[2, j, i]
                    else:
                        hessian = _hessian(current, x, y, slopes)
                        if coarse_height > 0:
                            coarse_x = min((x - PAD + SIDE // 2) // 2, coarse_width - 1)
                            coarse_y = min((y - PAD + SIDE // 2) // 2, coarse_height - 1)
                            u, v = _TWO * coarse[0, coarse_y, coarse_x], _TWO * coarse[1, coarse_y, coarse_x]
                        first = _step(current, previous, x, y, u, v, slopes, hessian)
                        cost = first[0]
                    seen_u, seen_v, moved = u, v, False
                    for j1, i1 in ((j, i + towards), (j + towards, i)):
                        if not (top <= j1 < bottom and 0 <= i1 < columns):
                            continue
                        u1, v1 = patches[0, j1, i1], patches[1, j1, i1]
                        if abs(u1 - u) + abs(v1 - v) <= ALIKE:
                            continue
                        if abs(u1 - seen_u) + abs(v1 - seen_v) <= ALIKE:
                            continue
                        if cost <= CONVERGED:
                            break
                        cost1 = _cost(current, previous, x, y, u1, v1)
                        seen_u, seen_v = u1, v1
                        if cost1 < cost:
                            u, v, cost, moved = u1, v1, cost1, True
                    if moved:
                        if back:
                            hessian = _hessian(current, x, y, slopes)
                        first = _step(current, previous, x, y, u, v, slopes, hessian)
                    if moved or not back:
                        u, v, cost = _descend_on(current, previous, x, y, u, v, slopes, hessian, first)
                        patches[0, j, i], patches[1, j, i], patches[2, j, i] = u, v, cost


@njit(nogil=True, cache=True)
def _begin(begin, end, current, previous, coarse, step, patches):
    """For `over_rows` over rows of patches: each descends from the coarser level's flow; see `_search`."""
    coarse_height, coarse_width = coarse.shape[1:]
    last_x, last_y = current.shape[1] - PAD - SIDE, current.shape[0] - PAD - SIDE
    slopes = np.empty((2, SIDE, SIDE), np.float32)
    for j in range(begin, end):
        y = min(PAD + j * step, last_y)
        for i in range(patches.shape[2]):
            x = min(PAD + i * step, last_x)
            u, v = _ZERO, _ZERO
            if coarse_height > 0:
                coarse_x = min((x - PAD + SIDE // 2) // 2, coarse_width - 1)
                coarse_y = min((y - PAD + SIDE // 2) // 2, coarse_height - 1)
                u, v = _TWO * coarse[0, coarse_y, coarse_x], _TWO * coarse[1, coarse_y, coarse_x]
            u, v, cost = _descend(current, previous, x, y, u, v, slopes)
            patches[0, j, i], patches[1, j, i], patches[2, j, i] = u, v, cost


@njit(nogil=True, cache=True)
def _round(begin, end, current, previous, step, distance, number, last, before, after, changed):
    """For `over_rows` over rows of patches: each looks at what four others had found before the round.

    Args:
        number: of the round, from 1.
        last: the last round of the same distance, -1 for none. Where neither a patch nor its neighbours have changed
            since it began, this one would find what that one did.
        before, after: 3 x rows x columns: u, v, cost.
        changed: rows x columns. Others may write theirs while this reads it: then it looks in vain, with no effect.
    """
    rows, columns = before.shape[1:]
    last_x, last_y = current.shape[1] - PAD - SIDE, current.shape[0] - PAD - SIDE
    slopes = np.empty((2, SIDE, SIDE), np.float32)
    for j in range(begin, end):
        y = min(PAD + j * step, last_y)
        up, down = max(j - distance, 0), min(j + distance, rows - 1)
        for i in range(columns):
            own_u, own_v, own = before[0, j, i], before[1, j, i], before[2, j, i]
            after[0, j, i], after[1, j, i], after[2, j, i] = own_u, own_v, own
            if own <= CONVERGED:
                continue
            left, right = max(i - distance, 0), min(i + distance, columns - 1)
            newest = max(changed[up, i], changed[down, i], changed[j, left], changed[j, right], changed[j, i])
            if newest < last:
                continue
            x = min(PAD + i * step, last_x)
            u, v, cost, found = own_u, own_v, _ZERO, False
            for j1, i1 in ((j, i + distance), (j, i - distance), (j + distance, i), (j - distance, i)):
                if not (0 <= j1 < rows and 0 <= i1 < columns):
                    continue
                u1, v1 = before[0, j1, i1], before[1, j1, i1]
                if abs(u1 - own_u) + abs(v1 - own_v) <= ALIKE or abs(u1 - u) + abs(v1 - v) <= ALIKE:
                    continue
                cost1 = _cost(current, previous, x, y, u1, v1)
                if not found or cost1 < cost:
                    u, v, cost, found = u1, v1, cost1, True
            if found:
                u, v, cost = _descend(current, previous, x, y, u, v, slopes)
                if cost < own:
                    after[0, j, i], after[1, j, i], after[2, j, i] = u, v, cost
                    changed[j, i] = number


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
            whole = spread(_ONE / (_ONE + total(squares) / PIXELS))
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
    if out.shape[1:] == (height, width):
        for row in range(begin, end):
            for c in range(2):
                _divide(sums[c + 1, row - begin], sums[0, row - begin], out[c, row])
        return
    edges = np.empty(out_width + 1, np.int64)
    for column in range(out_width + 1):
        edges[column] = -(-column * width // out_width)
    for row in range(begin, end):
        _gather(sums[:, row - begin], edges, unit_u, unit_v, out[:, row])


@njit(nogil=True, cache=True, error_model="numpy")
def _divide(sums, weights, out):
    for x in range(out.size):
        out[x] = sums[x] / weights[x]


@njit(nogil=True, cache=True, error_model="numpy")
def _gather(sums, edges, unit_u, unit_v, out):
    """Means of a row of `_densify` between edges."""
    weights, along_x, along_y = sums[0], sums[1], sums[2]
    for column in range(out.shape[1]):
        weight, u, v = _ZERO, _ZERO, _ZERO
        for x in range(edges[column], edges[column + 1]):
            weight += weights[x]
            u += along_x[x]
            v += along_y[x]
        out[0, column], out[1, column] = unit_u * u / weight, unit_v * v / weight
