import logging
import random
import struct
from pathlib import Path

import pytest
from mcap.writer import CompressionType, IndexType, Writer

from vidseg_core.data.recordings.mcap import McapRecording
from vidseg_core.data.recordings.recording import Channel
from vidseg_core.errors import SourceError

START = 1_700_000_000 * 10**9
STEP = 50_000_000
CDR = b"\0\1\0\0"
COMPRESSIONS = [CompressionType.NONE, CompressionType.ZSTD, CompressionType.LZ4]


def payload(i, size=1000):
    return CDR + random.Random(i).randbytes(size)


def write(path, count=20, *, order=None, profile="ros2", size=1000, extra=(), **options):
    """`count` messages on /image and as many on /imu, 10 ms later; `extra`: (topic, type, schema encoding, text,
    message encoding) of channels that get one message each."""
    options = {"chunk_size": 4096, "compression": CompressionType.ZSTD} | options
    with path.open("wb") as file:
        writer = Writer(file, **options)
        writer.start(profile=profile, library="test")
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"uint8[] data")
        image = writer.register_channel("/image", "cdr", schema, {"topic_type_hash": "RIHS01_1"})
        imu = writer.register_channel("/imu", "cdr", writer.register_schema("sensor_msgs/msg/Imu", "ros2msg", b"?"))
        for topic, kind, schema_encoding, text, encoding in extra:
            number = writer.register_channel(topic, encoding, writer.register_schema(kind, schema_encoding, text))
            writer.add_message(number, START + 1, b"{}", START + 1)
        for i in range(count) if order is None else order:
            writer.add_message(image, START + i * STEP, payload(i, size), START + i * STEP - 5)
            writer.add_message(imu, START + i * STEP + 10_000_000, bytes([i]) * 20, START + i * STEP)
        writer.finish()
    return path


def channel(recording, topic="/image"):
    (found,) = (c for c in recording.channels if c.topic == topic)
    return found


def images(recording):
    return list(recording.messages([channel(recording)]))


def check(recording, count=20):
    found = images(recording)
    assert [m.received_ns for m in found] == [START + i * STEP for i in range(count)]
    assert [m.published_ns for m in found] == [START + i * STEP - 5 for i in range(count)]
    assert [m.data for m in found] == [payload(i) for i in range(count)]
    assert {m.channel for m in found} == {channel(recording)}
    assert recording.received([channel(recording)]) == [START + i * STEP for i in range(count)]
    assert recording.count([channel(recording)]) == count


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("indexed", [True, False])
def test_messages_of_what_is_asked_for(tmp_path, compression, chunked, indexed):
    kinds = IndexType.ALL if indexed else IndexType.NONE
    options = {"use_chunking": chunked, "index_types": kinds, "use_statistics": indexed, "use_summary_offsets": indexed}
    path = write(tmp_path / "drive.mcap", compression=compression, **options)
    with McapRecording(path) as recording:
        assert (recording.storage, recording.profile, recording.path) == ("mcap", "ros2", path)
        assert recording.span == (START, START + 19 * STEP + 10_000_000)
        check(recording)
        every = list(recording.messages())
    assert channel(recording) == Channel(
        1, "/image", "sensor_msgs/msg/Image", "cdr", b"uint8[] data", "ros2msg", {"topic_type_hash": "RIHS01_1"}
    )
    times = [m.received_ns for m in every]
    assert len(every) == 40 and times == sorted(times) and recording.count(recording.channels) == 40
    assert recording.received(recording.channels) == times


OTHERS = {
    "action": ("/go/_action/feedback", "x/action/Go_FeedbackMessage", "unknown", b"", "cdr"),
    "service": ("/plan/_service_event", "x/srv/Plan_Event", "ros2msg", b"int64 a\n---\nbool b", "cdr"),
    "json": ("/log", "Log", "jsonschema", b'{"type": "object"}', "json"),
    "protobuf": ("/scene", "foxglove.SceneUpdate", "protobuf", b"\x0a\xff\0", "protobuf"),
    "empty": ("/x", "x/msg/X", "", b"", "cdr"),
    "idl": ("/y", "x/msg/Y", "ros2idl", b'#include "z.idl"', "cdr"),
    "windows": ("/w", "x/msg/W", "ros2msg", b"int32 a\r\n", "cdr"),
    "binary": ("/b", "b", "omgidl", b"\0\xff\xfe", "own"),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("profile", ["ros2", "", "own"])
def test_another_channel_does_not_matter(tmp_path, other, profile):
    recording = McapRecording(write(tmp_path / "drive.mcap", profile=profile, extra=[OTHERS[other]]))
    assert recording.profile == profile
    check(recording)
    topic, kind, schema_encoding, text, encoding = OTHERS[other]
    odd = channel(recording, topic)
    assert (odd.type, odd.definition_encoding, odd.definition, odd.encoding) == (kind, schema_encoding, text, encoding)
    assert [(m.channel, m.data) for m in recording.messages([odd])] == [(odd, b"{}")]


def test_types_are_named_as_in_ros_2(tmp_path):
    extra = [("/old", "sensor_msgs/CompressedImage", "ros1msg", b"", "ros1")]
    recording = McapRecording(write(tmp_path / "x.mcap", profile="ros1", extra=extra))
    assert channel(recording, "/old").type == "sensor_msgs/msg/CompressedImage"
    assert (channel(recording, "/old").encoding, recording.profile) == ("ros1", "ros1")


@pytest.mark.parametrize("chunked", [True, False])
def test_messages_come_in_the_order_of_receipt(tmp_path, chunked):
    order = [3, 1, 2, 0, 19, *range(4, 19)]
    check(McapRecording(write(tmp_path / "x.mcap", order=order, use_chunking=chunked)))
    backwards = write(tmp_path / "y.mcap", order=range(19, -1, -1), use_chunking=chunked)
    check(McapRecording(backwards))


def test_chunks_that_overlap_are_not_all_held(tmp_path, monkeypatch):
    path = write(tmp_path / "x.mcap", order=[i // 2 + 10 * (i % 2) for i in range(20)], chunk_size=1500)
    monkeypatch.setattr("vidseg_core.data.recordings.chunked.HELD_BYTES", 2000)
    recording = McapRecording(path)
    assert len(recording.blocks) > 10
    check(recording)


# Of one chunk with everything in it, a compressor gives back what it made blocks of.
@pytest.mark.parametrize(
    ("compression", "chunk_size"),
    [(kind, size) for kind in COMPRESSIONS for size in (1, 4096)] + [(CompressionType.NONE, 10**6)],
)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.75, 0.97])
def test_a_file_that_is_cut_off_gives_every_whole_message_and_one_warning(
    tmp_path, caplog, compression, chunk_size, share
):
    whole = write(tmp_path / "whole.mcap", compression=compression, chunk_size=chunk_size)
    data = whole.read_bytes()
    cut = tmp_path / "cut.mcap"
    (end,) = struct.unpack_from("<Q", data, len(data) - 28)  # where the summary begins
    cut.write_bytes(data[: int(share * end)])
    # What is whole is found by looking for the messages as they lie in the file.
    recording = McapRecording(cut)
    found = images(recording)
    assert [m.data for m in found] == [payload(i) for i in range(len(found))]
    if compression == CompressionType.NONE:
        there = sum(payload(i) in cut.read_bytes() for i in range(20))
        assert len(found) == there > 0
    total = recording.count(recording.channels)
    assert total == len(list(recording.messages()))
    list(McapRecording(cut).messages())
    (record,) = caplog.records
    text = record.getMessage()
    last = max(recording.received(recording.channels))
    assert record.levelno == logging.WARNING and str(cut) in text
    assert f"read are the {total} whole messages before, up to {last // 10**9}.{last % 10**9:09d} s" in text


def test_a_file_without_a_whole_message_is_none(tmp_path):
    data = write(tmp_path / "x.mcap", compression=CompressionType.NONE).read_bytes()
    (tmp_path / "x.mcap").write_bytes(data[:150])
    with pytest.raises(SourceError, match=r"x.mcap: not a recording that can be opened: no whole message in it: "):
        McapRecording(tmp_path / "x.mcap")
    (tmp_path / "x.mcap").write_bytes(data[:7])
    with pytest.raises(SourceError, match="x.mcap: not a recording that can be opened: it does not begin as MCAP"):
        McapRecording(tmp_path / "x.mcap")


def chunks(path):
    return [block for block in McapRecording(path).blocks if block.chunk]


def test_a_chunk_whose_checksum_does_not_fit_ends_the_recording(tmp_path):
    path = write(tmp_path / "x.mcap", compression=CompressionType.NONE)
    block = chunks(path)[2]
    data = bytearray(path.read_bytes())
    data[block.start + 500] ^= 1
    path.write_bytes(data)
    recording, found = McapRecording(path), []
    expected = rf"x.mcap: the recording is damaged from 1700000000\.\d+ s on, in .* byte {block.start}: its checksum"
    with pytest.raises(SourceError, match=expected):
        for message in recording.messages([channel(recording)]):
            found.append(message.data)
    assert found == [payload(i) for i in range(len(found))] and 4 < len(found) < 10
    assert recording.count([channel(recording)]) == 20


def test_damage_before_a_lost_summary_names_its_place(tmp_path, caplog):
    path = write(tmp_path / "x.mcap")
    block = chunks(path)[2]
    data = bytearray(path.read_bytes()[:-20])
    data[block.start + 60 : block.start + 90] = bytes(30)
    path.write_bytes(data)
    assert len(images(McapRecording(path))) == 8
    assert f"the chunk at byte {block.start}: " in caplog.text


def test_a_damaged_summary_loses_nothing(tmp_path, caplog):
    path = write(tmp_path / "x.mcap")
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<Q", data, len(data) - 28)
    data[start + 30] ^= 255
    path.write_bytes(data)
    check(McapRecording(path))
    assert not caplog.records


@pytest.mark.parametrize("claim", [2**63, 2**40, 300 * 2**20])
def test_lengths_that_cannot_be_are_not_allocated(tmp_path, claim):
    path = write(tmp_path / "x.mcap", compression=CompressionType.ZSTD)
    block = chunks(path)[1]
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, block.start + 9 + 16, claim)  # what it is decompressed
    path.write_bytes(data)
    recording = McapRecording(path)
    with pytest.raises(SourceError, match=r"damaged from .* (are announced|expected \d+ bytes)"):
        images(recording)
    struct.pack_into("<Q", data, block.start + 1, claim)  # how long it is
    path.write_bytes(data[:-20])
    assert 0 < len(images(McapRecording(path))) < 20


def test_a_message_that_was_compressed_by_itself(tmp_path):
    import zstandard

    path = tmp_path / "x.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("ros2")
        number = writer.register_channel("/image", "cdr", 0)
        text = writer.register_channel("/text", "own", 0)
        packed = zstandard.compress(payload(3))
        for i, (to, data) in enumerate([(number, packed), (number, packed[:-4]), (text, packed)]):
            writer.add_message(to, i, data, i)
        writer.finish()
    assert [m.data for m in McapRecording(path).messages()] == [payload(3), packed[:-4], packed]


def test_a_channel_without_a_schema(tmp_path):
    path = tmp_path / "x.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("")
        writer.add_message(writer.register_channel("/x", "json", 0), 7, b"{}", 6)
        writer.finish()
    (message,) = McapRecording(path).messages()
    assert message.channel == Channel(1, "/x", "", "json")
    assert (message.received_ns, message.published_ns, message.data) == (7, 6, b"{}")


def test_a_file_that_is_not_there():
    with pytest.raises(SourceError, match=r"nowhere.mcap: cannot be opened: No such file"):
        McapRecording(Path("nowhere.mcap"))
