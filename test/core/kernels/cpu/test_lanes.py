import numpy as np
import pytest
from numba import njit

from vidseg_core.kernels.cpu.lanes import LANES, add, div, larger, load, mul, spread, store, sub, total, totals

A = np.arange(20, dtype=np.float32).reshape(4, 5) + 1
B = np.float32(3.5)


@njit
def _compute(number, a, b, out):
    x, y = load(a, 3), spread(b)
    if number == 0:
        store(out, 1, add(x, y))
    elif number == 1:
        store(out, 1, sub(x, y))
    elif number == 2:
        store(out, 1, mul(x, y))
    elif number == 3:
        store(out, 1, div(x, y))
    else:
        store(out, 1, larger(x, y))
    return total(x)


OPERATIONS = (np.add, np.subtract, np.multiply, np.divide, np.maximum)


@pytest.mark.parametrize(("number", "expected"), list(enumerate(OPERATIONS)))
def test_element_by_element(number, expected):
    x, out = A.ravel()[3 : 3 + LANES], np.zeros(LANES + 2, np.float32)
    assert _compute(number, A, B, out) == x.sum()
    np.testing.assert_array_equal(out[1:-1], expected(x, B))
    assert out[0] == out[-1] == 0


@njit
def _four(a, b):
    first, second, third = load(a, 0), load(a, 7), spread(b)
    last = mul(second, third)
    return totals(first, second, third, last), (total(first), total(second), total(third), total(last))


def test_totals_are_those_of_each():
    values = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    together, each = _four(values, B)
    assert together == each and len(set(each)) == 4
