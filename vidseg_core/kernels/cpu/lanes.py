"""Eight floats at a time in compiled kernels.

Numba's compiler uses vector instructions where a long loop runs over memory that provably does not overlap. Where a
loop has eight turns and what it adds up should stay in registers, kernels say so: a `Float8` is eight floats, element
by element. A processor with shorter registers takes several for them; results do not depend on that.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

LANES = 8
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(32)
_WORDS = ir.VectorType(_INDEX, LANES)
# Multiplication and addition may become one instruction, which rounds once.
_FLAGS = ("contract",)


class _Float8(types.Type):
    def __init__(self):
        super().__init__("Float8")


float8 = _Float8()


@register_model(_Float8)
class _Float8Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _FLOATS)


def _expect_floats(array):
    if array.dtype != types.float32 or array.layout != "C":
        raise TypingError(f"expected a contiguous array of float32, got {array}")


def _place(context, builder, array_type, array, at):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _FLOATS.as_pointer())


@intrinsic
def load(typing, array, at):
    """The eight elements from `at` on, counted through a contiguous float32 array; bounds are not checked."""

    def code(context, builder, signature, arguments):
        return builder.load(_place(context, builder, signature.args[0], *arguments), align=4)

    _expect_floats(array)
    return float8(array, types.intp), code


@intrinsic
def store(typing, array, at, value):
    """Write `value` to the eight elements from `at` on, counted as in `load`."""

    def code(context, builder, signature, arguments):
        place = _place(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], place, align=4)
        return context.get_dummy_value()

    _expect_floats(array)
    return types.void(array, types.intp, float8), code


@intrinsic
def spread(typing, value):
    """A float32, eight times."""

    def code(context, builder, signature, arguments):
        nothing = ir.Constant(_FLOATS, ir.Undefined)
        first = builder.insert_element(nothing, arguments[0], ir.Constant(_INDEX, 0))
        return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))

    return float8(types.float32), code


@intrinsic
def add(typing, a, b):
    """a + b"""
    return float8(float8, float8), lambda context, builder, signature, ab: builder.fadd(*ab, flags=_FLAGS)


@intrinsic
def sub(typing, a, b):
    """a - b"""
    return float8(float8, float8), lambda context, builder, signature, ab: builder.fsub(*ab, flags=_FLAGS)


@intrinsic
def mul(typing, a, b):
    """a * b"""
    return float8(float8, float8), lambda context, builder, signature, ab: builder.fmul(*ab, flags=_FLAGS)


@intrinsic
def div(typing, a, b):
    """a / b"""
    return float8(float8, float8), lambda context, builder, signature, ab: builder.fdiv(*ab)


@intrinsic
def exp(typing, value):
    """e to the power of each, within a few units of the last place; beyond -87 and 88 that of those."""

    def code(context, builder, signature, arguments):
        x = _bounded(builder, arguments[0], -87.0, 88.0)
        # Adding and taking away a large number rounds to whole ones, which then are the lowest bits of the sum.
        shifted = builder.fadd(builder.fmul(x, _floats(1.44269504)), _floats(_ROUNDING))
        whole = builder.fsub(shifted, _floats(_ROUNDING))
        rest = builder.fsub(x, builder.fmul(whole, _floats(_LN2[0]), flags=_FLAGS), flags=_FLAGS)
        rest = builder.fsub(rest, builder.fmul(whole, _floats(_LN2[1]), flags=_FLAGS), flags=_FLAGS)
        power = _polynomial(builder, rest, _EXP)
        bits = builder.shl(builder.bitcast(shifted, _WORDS), _words(23))
        scale = builder.bitcast(builder.add(bits, builder.bitcast(_floats(1.0), _WORDS)), _FLOATS)
        return builder.fmul(power, scale)

    return float8(float8), code


@intrinsic
def log(typing, value):
    """The natural logarithm of each, above 0 and not denormal, within a few units of the last place."""

    def code(context, builder, signature, arguments):
        (x,) = arguments
        # x = (1 + rest) * 2^exponent, 1 + rest between the square roots of a half and of two.
        root = _words(0x3F3504F3)
        bits = builder.sub(builder.bitcast(x, _WORDS), root)
        exponent = builder.sitofp(builder.ashr(bits, _words(23)), _FLOATS)
        fraction = builder.add(builder.and_(bits, _words(0x7FFFFF)), root)
        rest = builder.fsub(builder.bitcast(fraction, _FLOATS), _floats(1.0))
        square = builder.fmul(rest, rest)
        tail = builder.fmul(builder.fmul(rest, square), _polynomial(builder, rest, _LOG))
        tail = builder.fadd(tail, builder.fmul(exponent, _floats(_LN2[1]), flags=_FLAGS), flags=_FLAGS)
        tail = builder.fsub(tail, builder.fmul(square, _floats(0.5), flags=_FLAGS), flags=_FLAGS)
        found = builder.fadd(rest, tail)
        found = builder.fadd(found, builder.fmul(exponent, _floats(_LN2[0]), flags=_FLAGS), flags=_FLAGS)
        return builder.select(builder.fcmp_ordered("ord", x, x), found, x)  # not a number: as it is

    return float8(float8), code


# Of Cephes (Moshier), as most libraries' for single precision: the logarithm of two in two parts, and polynomials.
_LN2 = 0.693359375, -2.12194440e-4
_EXP = 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1.0, 1.0
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_ROUNDING = 1.5 * 2.0**23


def _floats(value):
    return ir.Constant(_FLOATS, [value] * LANES)


def _words(value):
    return ir.Constant(_WORDS, [value] * LANES)


def _bounded(builder, x, low, high):
    """Bring `x` between two numbers; what is not a number stays as it is."""
    x = builder.select(builder.fcmp_ordered("<", x, _floats(low)), _floats(low), x)
    return builder.select(builder.fcmp_ordered(">", x, _floats(high)), _floats(high), x)


def _polynomial(builder, x, coefficients):
    found = _floats(coefficients[0])
    for coefficient in coefficients[1:]:
        found = builder.fadd(builder.fmul(found, x, flags=_FLAGS), _floats(coefficient), flags=_FLAGS)
    return found


@intrinsic
def larger(typing, a, b):
    """The larger of a and b."""

    def code(context, builder, signature, ab):
        return builder.select(builder.fcmp_ordered(">", *ab), *ab)

    return float8(float8, float8), code


@intrinsic
def total(typing, value):
    """The sum of the eight, float32, added in pairs in a fixed order."""

    def code(context, builder, signature, arguments):
        (part,) = arguments
        for count in (4, 2, 1):
            nothing = ir.Constant(part.type, ir.Undefined)
            halves = (
                builder.shuffle_vector(part, nothing, ir.Constant(ir.VectorType(_INDEX, count), list(numbers)))
                for numbers in (range(count), range(count, 2 * count))
            )
            part = builder.fadd(*halves)
        return builder.extract_element(part, ir.Constant(_INDEX, 0))

    return types.float32(float8), code


@intrinsic
def totals(typing, a, b, c, d):
    """The `total` of each of four, in a third of the time."""

    def code(context, builder, signature, arguments):
        def halves(one, other, first, second):
            places = (ir.Constant(ir.VectorType(_INDEX, len(first)), list(numbers)) for numbers in (first, second))
            return builder.fadd(*(builder.shuffle_vector(one, other, place) for place in places))

        a, b, c, d = arguments
        lower, upper = (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)
        quarters = (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)
        four = halves(halves(a, b, lower, upper), halves(c, d, lower, upper), *quarters)
        found = halves(four, four, (0, 2, 4, 6), (1, 3, 5, 7))  # of a, c, b, d
        parts = [builder.extract_element(found, ir.Constant(_INDEX, at)) for at in (0, 2, 1, 3)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(types.float32, 4)(float8, float8, float8, float8), code


@intrinsic
def add_rounded(typing, a, b):
    """a + b, rounded before anything else is done with it."""
    return float8(float8, float8), lambda context, builder, signature, ab: builder.fadd(*ab)


@intrinsic
def mul_rounded(typing, a, b):
    """a * b, rounded before anything else is done with it."""
    return float8(float8, float8), lambda context, builder, signature, ab: builder.fmul(*ab)


@intrinsic
def pick(typing, a, b, larger, other):
    """`larger` where a > b, else `other`, element by element."""

    def code(context, builder, signature, arguments):
        a, b, larger, other = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), larger, other)

    return float8(float8, float8, float8, float8), code


@intrinsic
def largest(typing, value):
    """The largest of the eight, float32."""

    def code(context, builder, signature, arguments):
        (part,) = arguments
        for count in (4, 2, 1):
            nothing = ir.Constant(part.type, ir.Undefined)
            halves = [
                builder.shuffle_vector(part, nothing, ir.Constant(ir.VectorType(_INDEX, count), list(numbers)))
                for numbers in (range(count), range(count, 2 * count))
            ]
            part = builder.select(builder.fcmp_ordered(">", *halves), *halves)
        return builder.extract_element(part, ir.Constant(_INDEX, 0))

    return types.float32(float8), code


@intrinsic
def least(typing, a, b):
    """Bits of the elements in which a >= b, the lowest bit of the first one."""

    def code(context, builder, signature, ab):
        bits = builder.bitcast(builder.fcmp_ordered(">=", *ab), ir.IntType(LANES))
        return builder.zext(bits, ir.IntType(64))

    return types.intp(float8, float8), code


@intrinsic
def first_bit(typing, bits):
    """The number of the lowest bit that is set, of which there must be one."""

    def code(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.intp), code


@intrinsic
def store_bytes(typing, array, at, value):
    """Write whole numbers of 0 to 255 as eight bytes from `at` on, counted through a contiguous array."""

    def code(context, builder, signature, arguments):
        array, at, value = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        kind = ir.VectorType(ir.IntType(8), LANES)
        place = builder.bitcast(builder.gep(data, [at]), kind.as_pointer())
        whole = builder.fptosi(value, ir.VectorType(_INDEX, LANES))
        builder.store(builder.trunc(whole, kind), place, align=1)
        return context.get_dummy_value()

    if array.dtype != types.uint8 or array.layout != "C":
        raise TypingError(f"expected a contiguous array of bytes, got {array}")
    return types.void(array, types.intp, float8), code


@intrinsic
def all_equal(typing, array, at, value):
    """Tell if the sixteen bytes from `at` on, counted through a contiguous array, are all `value`."""

    def code(context, builder, signature, arguments):
        array, at, value = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        kind = ir.VectorType(ir.IntType(8), 16)
        found = builder.load(builder.bitcast(builder.gep(data, [at]), kind.as_pointer()), align=1)
        nothing = ir.Constant(kind, ir.Undefined)
        first = builder.insert_element(nothing, value, ir.Constant(_INDEX, 0))
        wanted = builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INDEX, 16), [0] * 16))
        same = builder.bitcast(builder.icmp_unsigned("==", found, wanted), ir.IntType(16))
        return builder.icmp_unsigned("==", same, ir.Constant(ir.IntType(16), 2**16 - 1))

    if array.dtype != types.uint8 or array.layout != "C":
        raise TypingError(f"expected a contiguous array of bytes, got {array}")
    return types.boolean(array, types.intp, types.uint8), code
