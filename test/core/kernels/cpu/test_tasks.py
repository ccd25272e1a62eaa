import threading

import numpy as np
from numba import njit

from vidseg_core.kernels.cpu.tasks import DONE, FAILED, flag, floats_at, set_flag, take, wait_for

NUMBER = 300


@njit(nogil=True)
def _chain(control, found):
    """Each task needs the one before it."""
    while True:
        task = take(control)
        if task >= found.size:
            return
        if not wait_for(control, max(task - 1, 0), task):
            return
        found[task] = task + (found[task - 1] if task > 0 else 0)
        set_flag(control, DONE + task)


def test_each_task_is_done_once_and_after_what_it_needs():
    control, found = np.zeros(DONE + NUMBER, np.int64), np.zeros(NUMBER, np.int64)
    others = [threading.Thread(target=_chain, args=(control, found)) for _ in range(2)]
    for other in others:
        other.start()
    _chain(control, found)
    for other in others:
        other.join()
    np.testing.assert_array_equal(found, np.cumsum(np.arange(NUMBER)))
    assert (control[DONE:] == 1).all()


def test_nobody_waits_for_a_thread_that_has_failed():
    control = np.zeros(DONE + 1, np.int64)
    control[FAILED] = 1
    assert not njit(lambda c: wait_for(c, 0, 1))(control)
    control[DONE] = 1
    assert njit(lambda c: wait_for(c, 0, 1))(control)
    assert njit(lambda c: flag(c, 2))(control) == 1


def test_an_address_stands_for_an_array():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = njit(lambda address: floats_at(address, 2, 3).copy())(values.ctypes.data)
    np.testing.assert_array_equal(found, values)
