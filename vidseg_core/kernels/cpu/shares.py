"""Probabilities of classes, and mixtures of two of them, on the CPU."""

from __future__ import annotations

import numpy as np
from numba import njit

from vidseg_core.kernels.cpu.lanes import LANES, add, exp, larger, largest, load, log, mul, spread, store, sub, total
from vidseg_core.kernels.cpu.resample import interpolate_across, interpolate_down


@njit(nogil=True, cache=True)
def share_rows(begin, end, logits, out):
    """For `over_rows`: both h x w x C."""
    _, width, channels = out.shape
    values, results = width * channels, out.reshape(-1)
    powers, factors = _row(values), np.empty(width, dtype=np.float32)
    for y in range(begin, end):
        to = y * values
        _powers(logits, to, channels, powers, factors)
        for x in range(width):
            at, factor = x * channels, factors[x]
            if channels < LANES:
                for c in range(channels):
                    results[to + at + c] = powers[at + c] * factor
                continue
            for group in range(0, channels, LANES):
                c = min(group, channels - LANES)  # the last eight may be partly those before them
                store(out, to + at + c, mul(load(powers, at + c), spread(factor)))


@njit(nogil=True, cache=True)
def top_share_rows(begin, end, logits, out):
    """For `over_rows`: h x w x C, and h x w."""
    _, width, channels = logits.shape
    powers = _row(width * channels)
    for y in range(begin, end):
        # The largest logit's power is 1.
        _powers(logits, y * width * channels, channels, powers, out[y])


@njit(nogil=True, cache=True)
def fuse_rows(begin, end, scores, carried, share, y0, fy, x0, fx, least, out):
    """For `over_rows`: scores and out H x W x C, carried h x w x C, share h x w: of the past; then, for each row and
    column of `out`, the place before it in `carried` and how far it lies behind that.
    """
    _, width, channels = out.shape
    values, results = width * channels, out.reshape(-1)
    row, row_share = np.empty(carried.shape[1] * channels, np.float32), np.empty(carried.shape[1], np.float32)
    past, past_share = np.empty(values, np.float32), np.empty(width, np.float32)
    olds, news, mixed = _row(values), _row(values), _row(values)
    factors, old_factors = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.float32)
    shares = share.reshape(share.shape[0], share.shape[1], 1)
    one = np.float32(1.0)
    for y in range(begin, end):
        interpolate_down(carried, y0[y], fy[y], row)
        interpolate_across(row, channels, x0, fx, past, 0)
        interpolate_down(shares, y0[y], fy[y], row_share)
        interpolate_across(row_share, 1, x0, fx, past_share, 0)
        _powers(scores, y * values, channels, news, factors)
        _powers(past, 0, channels, olds, old_factors)
        for x in range(width):
            at, new, old = x * channels, factors[x] * (one - past_share[x]), old_factors[x] * past_share[x]
            if channels < LANES:
                for c in range(channels):
                    mixed[at + c] = max(news[at + c] * new + olds[at + c] * old, least)
                continue
            v_new, v_old, v_least = spread(new), spread(old), spread(least)
            for group in range(0, channels, LANES):
                c = min(group, channels - LANES)
                value = add(mul(v_new, load(news, at + c)), mul(v_old, load(olds, at + c)))
                store(mixed, at + c, larger(v_least, value))
        for i in range(0, values, LANES):
            store(mixed, i, log(load(mixed, i)))
        results[y * values : (y + 1) * values] = mixed[:values]


@njit(nogil=True, cache=True)
def _row(values):
    """A row for `values` numbers, whose last eight may reach beyond them."""
    return np.ones(values + LANES, dtype=np.float32)


@njit(nogil=True, cache=True)
def _powers(logits, at, channels, powers, factors):
    """Raise e to each pixel's logits, less the largest of them; and divide 1 by their sums.

    Of as many pixels as there are factors, from element `at` of `logits` on, which is of any shape.
    """
    values, flat = len(factors) * channels, logits.reshape(-1)
    whole = channels - channels % LANES
    for x in range(len(factors)):
        here, to = at + x * channels, x * channels
        top = flat[here]
        if channels < LANES:
            for c in range(1, channels):
                top = max(top, flat[here + c])
            for c in range(channels):
                powers[to + c] = flat[here + c] - top
            continue
        tops = load(logits, here)
        for group in range(LANES, channels, LANES):
            tops = larger(tops, load(logits, here + min(group, channels - LANES)))
        top = largest(tops)
        for group in range(0, channels, LANES):
            c = min(group, channels - LANES)  # the last eight may be partly those before them
            store(powers, to + c, sub(load(logits, here + c), spread(top)))
    for i in range(0, values, LANES):
        store(powers, i, exp(load(powers, i)))
    for x in range(len(factors)):
        at, added = x * channels, np.float32(0.0)
        if whole:
            parts = load(powers, at)
            for group in range(LANES, whole, LANES):
                parts = add(parts, load(powers, at + group))
            added = total(parts)
        for c in range(whole, channels):
            added += powers[at + c]
        factors[x] = np.float32(1.0) / added
