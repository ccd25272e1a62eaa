"""Tasks that several threads take from one list inside a compiled kernel, each once what it needs is done.

A kernel that many short steps make up would else be left and entered again at each of them, which takes longer than
the steps. Tasks are taken in order, and need earlier ones only: so there is always one that can go on.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

# In `control`: how many tasks have been taken; whether a thread has failed; from there on, whether each task is done.
TAKEN, FAILED, DONE = 0, 1, 2
# Looks at a task that is not done before the processor is offered to whoever does it.
PATIENCE = 2000
_WORD = ir.IntType(64)

give_way = types.ExternalFunction("sched_yield", types.intc())


def _place(context, builder, array_type, array, at):
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [at])


def _expect_words(array):
    if array.dtype != types.int64 or array.layout != "C":
        raise TypingError(f"expected a contiguous array of int64, got {array}")


@intrinsic
def take(typing, control):
    """Return the number of the next task, which nobody else gets."""

    def code(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[0], arguments[0], ir.Constant(_WORD, TAKEN))
        return builder.atomic_rmw("add", place, ir.Constant(_WORD, 1), "monotonic")

    _expect_words(control)
    return types.int64(control), code


@intrinsic
def set_flag(typing, control, at):
    """Set an element to 1; whoever sees that sees all that was written before, too."""

    def code(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[0], *arguments)
        builder.store_atomic(ir.Constant(_WORD, 1), place, "release", 8)
        return context.get_dummy_value()

    _expect_words(control)
    return types.void(control, types.intp), code


@intrinsic
def flag(typing, control, at):
    """Read an element that others may be setting."""

    def code(context, builder, signature, arguments):
        return builder.load_atomic(_place(context, builder, signature.args[0], *arguments), "acquire", 8)

    _expect_words(control)
    return types.int64(control, types.intp), code


@intrinsic
def _pointer(typing, address):
    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


@njit(nogil=True)
def floats_at(address, height, width):
    """The float32 array, height x width, that begins at an address."""
    return carray(_pointer(address), (height, width), np.float32)


@njit(nogil=True)
def wait_for(control, begin, end):
    """Wait until these tasks are done; False if another thread has failed, and they may never be."""
    for task in range(begin, end):
        looks = 0
        while flag(control, DONE + task) == 0:
            if flag(control, FAILED) != 0:
                return False
            looks += 1
            if looks > PATIENCE:
                give_way()
    return True
