"""Compressed video packet by packet: pictures with their own stamps, and nothing made of what is missing or damaged."""

import random

import numpy as np
import pytest

from vidseg_core.data import packets
from vidseg_core.data.encodings import UnsupportedEncoding
from vidseg_core.data.packets import PacketDecoder
from vidseg_core.data.wire import PacketView, Stamp, WireError

COUNT = 40
B_FRAMES = {"bframes": 3, "b_pyramid": 1, "b_adapt": 0}
STREAMS = [("h264", {}), ("h264", B_FRAMES | {"b_pyramid": 2}), ("h265", {}), ("h265", B_FRAMES)]
IDS = ["h264", "h264-b", "h265", "h265-b"]
MOST_WRONG = 20
"""Mean difference to the picture that was encoded; of two neighbours it is above 40."""


@pytest.fixture(scope="module")
def pictures(moving_pictures) -> list[np.ndarray]:
    return moving_pictures(COUNT)


@pytest.fixture(scope="module")
def coded(pictures, encode_video):
    """A function: the packets of a stream, made once."""
    made = {}

    def stream(codec, options):
        key = codec, *options.items()
        if key not in made:
            made[key] = encode_video(pictures, codec, **options)
        return made[key]

    return stream


def view(number: int, data: bytes, form: str = "h264") -> PacketView:
    """A packet whose stamp is a number."""
    return PacketView(Stamp(number, 5), "cam", form, np.frombuffer(data, np.uint8))


def decode(decoder: PacketDecoder, stream, form: str):
    """(pictures, packets that were said to be damaged) of (number, packet)."""
    given, damaged = [], 0
    for number, data in stream:
        try:
            given += decoder.feed(view(number, data, form))
        except WireError:
            damaged += 1
    return given + decoder.finish(), damaged


def numbers(given) -> list[int]:
    return [picture.packet.stamp.sec for picture in given]


def assert_right(given, pictures) -> None:
    """Each picture is the one of its stamp, and they are in order."""
    assert numbers(given) == sorted(set(numbers(given)))
    for picture in given:
        rgb = picture.to_rgb()
        assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
        assert np.abs(rgb.astype(int) - pictures[picture.packet.stamp.sec]).mean() < MOST_WRONG


def test_neighbours_differ_by_more_than_is_tolerated(pictures):
    for one, other in zip(pictures, pictures[1:], strict=False):
        assert np.abs(one.astype(int) - other).mean() > 2 * MOST_WRONG


@pytest.mark.parametrize(("codec", "options"), STREAMS, ids=IDS)
def test_every_picture_with_its_own_header(coded, pictures, codec, options):
    decoder, stream = PacketDecoder(), coded(codec, options)
    order = [number for number, _ in stream]
    assert (order == sorted(order)) == (options == {})  # B-frames are decoded in another order
    given, damaged = decode(decoder, stream, codec)
    assert numbers(given) == list(range(COUNT)) and damaged == decoder.lost == 0
    assert {(picture.packet.stamp.nanosec, picture.packet.frame_id) for picture in given} == {(5, "cam")}
    assert_right(given, pictures)


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_without_b_frames_each_packet_gives_its_picture_at_once(coded, codec):
    decoder = PacketDecoder()
    for number, data in coded(codec, {}):
        [picture] = decoder.feed(view(number, data, codec))
        assert picture.packet.stamp.sec == number and not decoder.waits
    assert decoder.finish() == []


@pytest.mark.parametrize(("codec", "options"), STREAMS, ids=IDS)
def test_stamps_in_the_order_of_decoding_are_given_in_turn(coded, pictures, codec, options):
    stream = [(i, data) for i, (_, data) in enumerate(coded(codec, options))]
    given, _ = decode(PacketDecoder(), stream, codec)
    assert numbers(given) == list(range(COUNT))
    assert_right(given, pictures)


@pytest.mark.parametrize("first", [1, 7, 11])
@pytest.mark.parametrize(("codec", "options"), STREAMS, ids=IDS)
def test_it_begins_with_any_key_frame(coded, pictures, codec, options, first):
    decoder = PacketDecoder()
    given, damaged = decode(decoder, coded(codec, options)[first:], codec)
    begin = -(-first // 10) * 10
    assert numbers(given) == list(range(begin, COUNT)) and damaged == 0
    assert decoder.lost == begin - first
    assert_right(given, pictures)


@pytest.mark.parametrize("missing", [4, 10, 19])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_missing_packet_costs_all_until_the_next_key_frame(coded, pictures, codec, missing):
    stream = coded(codec, {})
    decoder = PacketDecoder()
    for number, data in stream[:missing] + stream[missing + 1 : missing + 2]:
        decoder.feed(view(number, data, codec))
    assert decoder.waits == (missing != 19)
    given, damaged = decode(decoder, stream[missing + 2 :], codec)
    end = (missing // 10 + 1) * 10
    assert numbers(given) == list(range(end if missing != 19 else 21, COUNT))
    assert damaged == 0 and decoder.lost == end - missing - 1
    assert_right(given, pictures)


@pytest.mark.parametrize("missing", [range(4, 5), range(5, 6), range(8, 12), range(8, 22), range(19, 24)])
@pytest.mark.parametrize(("codec", "options"), STREAMS, ids=IDS)
def test_nothing_is_made_of_missing_packets(coded, pictures, codec, options, missing):
    decoder = PacketDecoder()
    stream = [one for i, one in enumerate(coded(codec, options)) if i not in missing]
    given, damaged = decode(decoder, stream, codec)
    assert damaged == 0 and len(given) + decoder.lost == len(stream)
    assert set(range(30, COUNT)) <= set(numbers(given)) and len(given) >= COUNT - 20 - len(missing)
    assert_right(given, pictures)


@pytest.mark.parametrize("options", [{}, B_FRAMES | {"b_pyramid": 2}], ids=["h264", "h264-b"])
def test_a_damaged_packet_is_told_and_costs_all_until_the_next_key_frame(coded, pictures, options):
    stream = list(coded("h264", options))
    for place in (4, 15):
        number, data = stream[place]
        stream[place] = number, data[: 2 * len(data) // 3]
    decoder = PacketDecoder()
    given, damaged = decode(decoder, stream, "h264")
    assert damaged == 2 and len(given) + decoder.lost + damaged == COUNT
    assert len(given) >= 10 and set(range(30, COUNT)) <= set(numbers(given))
    assert_right(given, pictures)


def test_a_damaged_packet_of_h265_is_lost_where_the_decoder_finds_it(coded, pictures):
    stream = list(coded("h265", {}))
    number, data = stream[4]
    stream[4] = number, data[:8] + bytes(len(data) - 8)
    decoder = PacketDecoder()
    given, damaged = decode(decoder, stream, "h265")
    assert numbers(given) == [*range(4), *range(10, COUNT)] and damaged + decoder.lost == 6
    assert_right(given, pictures)


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_open_groups_of_pictures(encode_video, pictures, codec):
    """What is shown before a key frame, but coded after it, needs frames from before it."""
    stream = encode_video(pictures, codec, open_gop=1, **B_FRAMES)
    decoder = PacketDecoder()
    given, _ = decode(decoder, stream[1:], codec)
    assert numbers(given)[-1] == COUNT - 1 and 25 <= len(given) <= 30
    assert len(given) + decoder.lost == COUNT - 1
    assert_right(given, pictures)


def test_intra_refresh_has_no_key_frames(encode_video, pictures):
    """Pictures come once all of one has been refreshed."""
    stream = encode_video(pictures, intra_refresh=1)
    given, _ = decode(PacketDecoder(), stream, "h264")
    assert numbers(given) == list(range(COUNT))
    given, _ = decode(PacketDecoder(), stream[3:], "h264")
    assert 15 <= len(given) < 37 and numbers(given)[-1] == COUNT - 1
    assert_right(given, pictures)


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("h264", "h264"),
        ("H264", "h264"),
        ("libx264", "h264"),
        ("h264_nvenc", "h264"),
        ("h264;yuv420p;bgr8;bgr8", "h264"),
        ("h265", "h265"),
        ("hevc", "h265"),
        ("hevc_nvenc", "h265"),
        ("hevc;nv12;bgr8;bgr8", "h265"),
    ],
)
def test_names_of_codecs(coded, form, codec):
    given, _ = decode(PacketDecoder(), coded(codec, {})[:3], form)
    assert numbers(given) == [0, 1, 2]


@pytest.mark.parametrize("form", ["", "vp9", "av1", "jpeg", "mpeg4;yuv420p;h264;bgr8"])
def test_other_codecs_are_refused_by_name(form):
    with pytest.raises(UnsupportedEncoding, match="expected an encoding of h264, h265, got "):
        PacketDecoder().feed(view(0, b"\0\0\1\x65", form))


@pytest.mark.parametrize("data", [b"", b"\0\0\0\x02\x09\x10", b"\0", bytes(100)])
def test_what_has_no_start_code_is_refused(coded, data):
    decoder = PacketDecoder()
    stream = coded("h264", {})
    decoder.feed(view(0, stream[0][1]))
    with pytest.raises(WireError, match="expected h264 as NAL units behind start codes, got"):
        decoder.feed(view(1, data))
    [picture] = decoder.feed(view(*stream[1]))
    assert picture.packet.stamp.sec == 1


@pytest.mark.parametrize(("codec", "options"), STREAMS, ids=IDS)
def test_packets_that_come_twice_count_once(coded, pictures, codec, options):
    decoder = PacketDecoder()
    given, damaged = decode(decoder, [one for one in coded(codec, options) for _ in range(2)], codec)
    assert numbers(given) == list(range(COUNT)) and damaged == decoder.lost == 0 and decoder.repeated == COUNT
    assert_right(given, pictures)


def test_the_codec_may_change(coded, pictures):
    decoder = PacketDecoder()
    given = []
    for codec, part in (("h264", slice(0, 20)), ("h265", slice(20, 30)), ("h264", slice(30, 40))):
        for number, data in coded(codec, B_FRAMES)[part]:
            given += decoder.feed(view(number, data, codec))
    given += decoder.finish()
    assert numbers(given) == list(range(COUNT)) and decoder.lost == 0
    assert_right(given, pictures)


def test_the_size_may_change(encode_video, moving_pictures):
    decoder = PacketDecoder()
    sizes = (96, 128), (64, 160)
    given = []
    for size in sizes:
        for number, data in encode_video(moving_pictures(5, size)):
            given += decoder.feed(view(number, data))
    assert [picture.to_rgb().shape[:2] for picture in given] == [sizes[0]] * 5 + [sizes[1]] * 5


def test_frames_beyond_all_reason_are_refused_before_memory_is_taken(coded, monkeypatch):
    monkeypatch.setattr(packets, "_MOST_PIXELS", 128 * 96 - 1)
    decoder = PacketDecoder()
    assert decode(decoder, coded("h264", {}), "h264") == ([], 0) and decoder.lost == COUNT


def test_after_the_end_another_stream_begins(coded):
    decoder = PacketDecoder()
    for _ in range(2):
        given, _ = decode(decoder, coded("h264", B_FRAMES), "h264")
        assert numbers(given) == list(range(COUNT))


@pytest.mark.parametrize(("codec", "options"), STREAMS, ids=IDS)
def test_ten_thousand_mutated_packets(coded, codec, options):
    """Every packet gives a picture, is lost, or is refused; nothing else is raised."""
    generator = random.Random(codec)
    whole = coded(codec, options)
    decoder = PacketDecoder()
    given = refused = 0
    for i in range(2500):
        number, data = whole[i % COUNT]
        if generator.random() < 0.3:
            data = bytearray(data)
            kind = generator.randrange(4)
            if kind == 0:
                del data[generator.randrange(len(data)) :]
            elif kind == 1:
                at = generator.randrange(len(data))
                data[at:at] = generator.randbytes(generator.randrange(1, 50))
            else:
                for _ in range(generator.randrange(1, 10)):
                    data[generator.randrange(min(len(data), 60 if kind == 2 else 10**6))] = generator.randrange(256)
        try:
            given += len(decoder.feed(view(number, bytes(data), codec)))
        except (WireError, UnsupportedEncoding):
            refused += 1
    given += len(decoder.finish())
    assert given + refused + decoder.lost + decoder.repeated == 2500 and min(given, decoder.lost) > 100


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_key_frames_that_are_missing_are_told_by_the_pause(coded, pictures, codec):
    """The numbers in the stream begin again with each of them, and may go on by chance."""
    for first in (14, 17, 21):
        for count in (7, 8, 9, 10, 11):
            stream = [one for i, one in enumerate(coded(codec, {})) if not first <= i < first + count]
            decoder = PacketDecoder()
            given, damaged = decode(decoder, stream, codec)
            assert len(given) + decoder.lost == len(stream) and damaged == 0
            assert_right(given, pictures)


def test_a_pause_of_the_camera_costs_no_more_than_until_the_next_key_frame(coded, pictures):
    def later(stream, place):
        return [(number if i < place else number + 100, data) for i, (number, data) in enumerate(stream)]

    for place, expected in ((9, COUNT), (20, COUNT), (25, COUNT - 5)):  # the first is before two key frames are known
        decoder = PacketDecoder()
        given, _ = decode(decoder, later(coded("h264", {}), place), "h264")
        assert len(given) == expected and decoder.lost == COUNT - expected
    decoder = PacketDecoder()  # a camera that is always slow, and one that is a bit late
    given, _ = decode(decoder, [(number * 1000, data) for number, data in coded("h264", {})], "h264")
    assert len(given) == COUNT
    given, _ = decode(PacketDecoder(), [(n + 2 * (n // 7), data) for n, data in coded("h264", {})], "h264")
    assert len(given) == COUNT
