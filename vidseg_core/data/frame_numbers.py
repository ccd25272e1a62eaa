"""H.264 as packets of a stream (ITU-T H.264, Annex B): which coded frame follows on which.

A decoder conceals a frame that is missing, and shows what it made up until the next key frame. The number in each
slice's header (7.4.3, frame_num) tells that one is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

START_CODE = b"\0\0\1"
_SLICE, _IDR_SLICE, _SEQUENCE_PARAMETERS, _PICTURE_PARAMETERS = 1, 5, 7, 8
# Profiles whose sequence parameters describe the format of the colours (7.3.2.1.1).
_WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_CHROMA_4_4_4 = 3
_SLICE_HEADER_BYTES = 32
_LONGEST_CODE = 32


class FrameNumbers:
    """Follows the frame numbers of an H.264 stream."""

    def __init__(self) -> None:
        self._sequences: dict[int, _Sequence] = {}
        self._sequence_of_picture: dict[int, int] = {}
        self._reference: int | None = None  # number of the last frame that others may refer to

    def follows(self, packet: bytes) -> bool:
        """Tell if the frame of a packet follows on the one before it, or is a key frame that needs none.

        A packet whose headers cannot be read counts as one that follows: what is wrong with it the decoder finds.
        """
        try:
            for unit in _nal_units(packet):
                kind, is_reference = unit[0] & 31, bool(unit[0] & 0x60)
                if kind == _SEQUENCE_PARAMETERS:
                    number, sequence = _sequence_parameters(_Bits(unit[1:]))
                    self._sequences[number] = sequence
                elif kind == _PICTURE_PARAMETERS:
                    bits = _Bits(unit[1:_SLICE_HEADER_BYTES])
                    picture = bits.unsigned()
                    self._sequence_of_picture[picture] = bits.unsigned()
                elif kind == _IDR_SLICE:
                    self._reference = 0
                    return True
                elif kind == _SLICE:
                    return self._slice_follows(_Bits(unit[1:_SLICE_HEADER_BYTES]), is_reference)
        except (EOFError, KeyError):
            self._reference = None
        return True

    def _slice_follows(self, header: _Bits, is_reference: bool) -> bool:
        header.unsigned()  # first_mb_in_slice
        header.unsigned()  # slice_type
        sequence = self._sequences[self._sequence_of_picture[header.unsigned()]]
        if sequence.separate_colours:
            header.take(2)
        number, count = header.take(sequence.number_bits), 1 << sequence.number_bits
        before = self._reference
        follows = before is None or sequence.gaps_allowed or number == (before + 1) % count
        if number == before:  # a second field; a frame that comes twice or whose key frame is missing, otherwise
            follows = not (sequence.frames_only and is_reference)
        if is_reference:
            self._reference = number
        elif before is None or not follows:
            self._reference = (number - 1) % count
        return follows


class _Sequence(NamedTuple):
    """What a slice's header needs to know of its sequence."""

    separate_colours: bool
    number_bits: int
    gaps_allowed: bool
    frames_only: bool


def _nal_units(packet: bytes) -> Iterator[bytes]:
    """Split a packet at its start codes; nothing comes of one that has none."""
    begin = packet.find(START_CODE) + len(START_CODE)
    while begin >= len(START_CODE):
        end = packet.find(START_CODE, begin)
        unit = packet[begin : end if end >= 0 else len(packet)]
        if unit:
            yield unit
        begin = end + len(START_CODE)


class _Bits:
    """Reads numbers from the payload of a NAL unit (7.2, 9.1).

    Raises:
        EOFError: it ends before, or a number is longer than any of the standard.
    """

    def __init__(self, payload: bytes):
        raw = payload.replace(b"\0\0\3", b"\0\0")  # emulation prevention
        self._value = int.from_bytes(raw, "big")
        self._left = 8 * len(raw)

    def take(self, count: int) -> int:
        """Read an unsigned number of so many bits."""
        self._left -= count
        if self._left < 0:
            raise EOFError
        return self._value >> self._left & ((1 << count) - 1)

    def unsigned(self) -> int:
        """Read an unsigned Exp-Golomb code, ue(v)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > _LONGEST_CODE:
                raise EOFError
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        """Read a signed Exp-Golomb code, se(v)."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _sequence_parameters(bits: _Bits) -> tuple[int, _Sequence]:
    """Read the number of a sequence parameter set, and what of it concerns frame numbers (7.3.2.1.1)."""
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    number, separate_colours = bits.unsigned(), False
    if profile in _WITH_CHROMA_FORMAT:
        chroma_format = bits.unsigned()
        separate_colours = chroma_format == _CHROMA_4_4_4 and bool(bits.take(1))
        bits.unsigned()  # bit depths
        bits.unsigned()
        bits.take(1)  # qpprime_y_zero_transform_bypass_flag
        if bits.take(1):
            for i in range(12 if chroma_format == _CHROMA_4_4_4 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if i < 6 else 64)
    number_bits = bits.unsigned() + 4
    order_type = bits.unsigned()
    if order_type == 0:
        bits.unsigned()
    elif order_type == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        for _ in range(bits.unsigned()):
            bits.signed()
    bits.unsigned()  # max_num_ref_frames
    gaps_allowed = bool(bits.take(1))
    bits.unsigned()  # size in macroblocks
    bits.unsigned()
    return number, _Sequence(separate_colours, number_bits, gaps_allowed, frames_only=bool(bits.take(1)))


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last
