import io

import pytest
from mcap.reader import make_reader
from mcap.records import Message
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, IndexType, Writer

from vidseg_core.data.recordings.mcap import McapRecording
from vidseg_core.data.recordings.recording import Channel
from vidseg_core.data.recordings.write_mcap import McapWriter, mcap_cannot_hold

IMAGE = Channel(11, "/image", "sensor_msgs/msg/Image", "cdr", b"uint8[] data", "ros2msg", {"a": "b"})
OTHER = Channel(5, "/other", "sensor_msgs/msg/Image", "cdr", b"uint8[] data", "ros2msg")
JSON = Channel(2, "/json", "Thing", "json", b"{}", "jsonschema")


def messages(count=20, size=200_000):
    return [(i % 2, 1000 - i if i < 9 else 1000 + i, 7 + i, bytes([i]) * (size + i)) for i in range(count)]


def write(path, channels=(IMAGE, OTHER, JSON), metadata="about: it", sent=()):
    writer = McapWriter(path, "ros2")
    assert [writer.add(channel).id for channel in channels] == [1, 2, 3][: len(channels)]
    for number, received_ns, published_ns, data in sent:
        writer.write(channels[number], received_ns, published_ns, data)
    writer.finish(metadata)
    return path


def test_the_file_is_to_the_byte_that_of_the_formats_own_library(tmp_path):
    theirs = io.BytesIO()
    indexes = IndexType.CHUNK | IndexType.MESSAGE | IndexType.METADATA
    writer = Writer(theirs, compression=CompressionType.NONE, index_types=indexes)
    writer.start("ros2", "vidseg")
    schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"uint8[] data")
    writer.register_channel("/image", "cdr", schema, {"a": "b"})
    writer.register_channel("/other", "cdr", schema)
    writer.register_channel("/json", "json", writer.register_schema("Thing", "jsonschema", b"{}"))
    for number, received_ns, published_ns, data in messages():
        writer.add_message(number + 1, received_ns, data, published_ns)
    writer.flush()  # finish() alone would write the metadata before the last chunk
    writer.add_metadata("rosbag2", {"serialized_metadata": "about: it"})
    writer.finish()
    path = write(tmp_path / "a.mcap", sent=messages())
    assert path.read_bytes() == theirs.getvalue() and path.stat().st_size > 20 * 200_000
    assert len(McapRecording(path).blocks) > 2


@pytest.mark.parametrize("channels", [(), (IMAGE,), (Channel(3, "/nothing", "", "", b"", ""),)])
@pytest.mark.parametrize("metadata", ["", "about: it"])
def test_a_recording_without_messages(tmp_path, channels, metadata):
    path = write(tmp_path / "a.mcap", channels, metadata)
    with path.open("rb") as file:
        summary = make_reader(file, validate_crcs=True).get_summary()
        assert [channel.topic for channel in summary.channels.values()] == [channel.topic for channel in channels]
        assert (summary.statistics.message_count, summary.statistics.chunk_count) == (0, 0)
        assert len(summary.metadata_indexes) == bool(metadata)
        file.seek(0)
        assert not any(isinstance(record, Message) for record in StreamReader(file, validate_crcs=True).records)


def test_recordings_that_mcap_cannot_hold():
    assert mcap_cannot_hold([IMAGE, JSON], (0, 2**64 - 1)) is None and mcap_cannot_hold([], None) is None
    assert mcap_cannot_hold([IMAGE] * 2**16, None) == "65536 channels, at most 65535 have numbers"
    assert mcap_cannot_hold([IMAGE], (-3, 5)) == "messages received -3 ns after the epoch"


def test_an_aborted_file_is_closed(tmp_path):
    writer = McapWriter(tmp_path / "a.mcap", "ros1")
    writer.add(IMAGE)
    writer.abort()
    (tmp_path / "a.mcap").unlink()
    with pytest.raises(ValueError, match="closed file"):
        writer.finish("")
