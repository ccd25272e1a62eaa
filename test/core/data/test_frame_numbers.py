"""Missing frames of H.264 are told from the numbers in the headers of slices."""

import random

import pytest

from vidseg_core.data.frame_numbers import FrameNumbers

PROFILE_MAIN, PROFILE_HIGH, PROFILE_HIGH_444 = 77, 100, 244


class Bits:
    """Writes the payload of a NAL unit."""

    def __init__(self):
        self.text = ""

    def put(self, value, count=1):
        self.text += f"{value:0{count}b}" if count else ""
        return self

    def unsigned(self, *values):
        for value in values:
            code = f"{value + 1:b}"
            self.text += "0" * (len(code) - 1) + code
        return self

    def signed(self, *values):
        return self.unsigned(*(2 * value - 1 if value > 0 else -2 * value for value in values))

    def unit(self, kind, is_reference=True):
        """With start code and emulation prevention."""
        text = self.text + "1"
        raw = int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
        safe = bytearray()
        for byte in raw:
            if safe[-2:] == b"\0\0" and byte <= 3:
                safe.append(3)
            safe.append(byte)
        return b"\0\0\0\1" + bytes([kind | (0x60 if is_reference else 0)]) + bytes(safe)


def sequence(profile=PROFILE_MAIN, number_bits=4, gaps=0, frames_only=1, order_type=2, number=0, separate=0, lists=()):
    bits = Bits().put(profile, 8).put(0, 8).put(30, 8).unsigned(number)
    if profile != PROFILE_MAIN:
        is_444 = profile == PROFILE_HIGH_444
        bits.unsigned(3 if is_444 else 1)
        if is_444:
            bits.put(separate)
        bits.unsigned(0, 0).put(0).put(int(bool(lists)))
        for i in range(12 if is_444 else 8):
            if lists:
                bits.put(int(i in lists))
                if i in lists:  # all values 9, or the fallback after one of 0
                    bits.signed(*([1] + [0] * ((16 if i < 6 else 64) - 1)) if lists[i] else [-8])
    bits.unsigned(number_bits - 4, order_type)
    if order_type == 0:
        bits.unsigned(2)
    elif order_type == 1:
        bits.put(0).signed(-2, 1).unsigned(3).signed(1, -1, 4)
    return bits.unsigned(1).put(gaps).unsigned(7, 5).put(frames_only).unit(7)


def picture(number=0, sequence_number=0):
    return Bits().unsigned(number, sequence_number).put(0, 2).unit(8)


def key(parameters=b""):
    return parameters + Bits().unsigned(0, 7, 0).put(0, 4).unit(5)


def frame(number, bits=4, is_reference=True, picture_number=0, colour=None):
    header = Bits().unsigned(0, 5, picture_number)
    if colour is not None:
        header.put(colour, 2)
    return header.put(number, bits).put(0, 30).unit(1, is_reference)


def answers(*given):
    numbers = FrameNumbers()
    return [numbers.follows(one) for one in given]


def test_frames_in_turn_and_one_that_is_missing():
    start = key(sequence() + picture())
    assert answers(start, frame(1), frame(2), frame(4), frame(5), key(), frame(1)) == [1, 1, 1, 0, 1, 1, 1]
    assert answers(start, frame(2)) == [True, False]


def test_numbers_begin_again_after_the_last():
    start = key(sequence() + picture())
    assert all(answers(start, *(frame(i % 16) for i in range(1, 40))))
    assert answers(start, *(frame(i % 16) for i in range(1, 16)), frame(1)) == [True] * 16 + [False]


def test_frames_that_no_other_refers_to_share_the_next_number():
    start = key(sequence() + picture())
    loose = [frame(1, is_reference=False)] * 2
    assert all(answers(start, *loose, frame(1), frame(2)))
    assert all(answers(start, frame(1), frame(2, is_reference=False), frame(2)))  # as if another had been before
    assert answers(start, frame(1), frame(3, is_reference=False), frame(3), frame(4)) == [1, 1, 0, 1, 1][:5]


def test_a_frame_twice_or_without_its_key_frame():
    start = key(sequence() + picture())
    assert answers(start, frame(1), frame(1)) == [True, True, False]
    fields = key(sequence(frames_only=0) + picture())
    assert answers(fields, frame(1), frame(1), frame(2)) == [True] * 4


def test_where_gaps_are_allowed_none_is_told():
    assert all(answers(key(sequence(gaps=1) + picture()), frame(3), frame(9)))


@pytest.mark.parametrize("bits", [4, 5, 9, 16])
@pytest.mark.parametrize("order_type", [0, 1, 2])
def test_forms_of_sequence_parameters(bits, order_type):
    for profile, lists in ((PROFILE_MAIN, {}), (PROFILE_HIGH, {}), (PROFILE_HIGH, {0: True, 3: False, 7: True})):
        start = key(sequence(profile, bits, order_type=order_type, lists=lists) + picture())
        assert answers(start, frame(1, bits), frame(2, bits), frame(4, bits)) == [True, True, True, False]


@pytest.mark.parametrize("separate", [0, 1])
def test_colours_coded_apart(separate):
    start = key(sequence(PROFILE_HIGH_444, separate=separate, lists={11: True}) + picture())
    colour = 2 if separate else None
    given = [frame(number, colour=colour) for number in (1, 2, 4)]
    assert answers(start, *given) == [True, True, True, False]


def test_parameters_by_their_numbers():
    two = sequence(number_bits=4) + sequence(number_bits=8, number=1) + picture() + picture(1, 1)
    assert answers(key(two), frame(1, 8, picture_number=1), frame(2, 4), frame(4, 8, picture_number=1)) == [1, 1, 1, 0]


def test_what_comes_before_the_slice_is_passed_over():
    delimiter, information = b"\0\0\1\x09\xf0", b"\0\0\1\x06\x05\x01\x00\x80"
    assert answers(delimiter + key(sequence() + picture() + information), delimiter + information + frame(2)) == [1, 0]


def test_what_cannot_be_read_counts_as_following():
    assert answers(frame(5), b"", b"no start code", b"\0\0\1", b"\0\0\1\x41", b"\0\0\1\x67\x4d") == [True] * 6
    assert answers(key(sequence() + picture()), frame(1), b"\0\0\1\x41\0\0", frame(9), frame(10)) == [True] * 5


def test_random_bytes_raise_nothing():
    generator, numbers = random.Random(0), FrameNumbers()
    for _ in range(20_000):
        units = b"\0\0\1" + bytes([generator.choice((0x67, 0x68, 0x41, 1, 0x65))]) + generator.randbytes(9)
        assert numbers.follows(units + generator.randbytes(3)) in (True, False)
