import random
import struct

import pytest
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_typestore

from vidseg_core.data.recordings.ros1 import Ros1Recording
from vidseg_core.errors import SourceError

STORE = get_typestore(Stores.ROS1_NOETIC)
START = 1_700_000_000 * 10**9
STEP = 50_000_000
COMPRESSIONS = [None, Writer.CompressionFormat.BZ2, Writer.CompressionFormat.LZ4]


def payload(i, size=3000):
    return random.Random(i).randbytes(size)


def write(path, numbers=range(20), compression=None, chunk=10_000):
    writer = Writer(path)
    writer.chunk_threshold = chunk
    if compression:
        writer.set_compression(compression)
    with writer:
        image = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=STORE)
        odd = writer.add_connection("//odd", "own_msgs/msg/Odd", msgdef="int32 x\r\nno such thing", md5sum="0" * 32)
        for i in numbers:
            writer.write(image, START + i * STEP, payload(i))
            writer.write(odd, START + i * STEP + 1, b"odd")
    return path


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("indexed", [True, False])
def test_messages_of_what_is_asked_for(tmp_path, caplog, compression, indexed, check):
    path = write(tmp_path / "drive.bag", compression=compression)
    if not indexed:
        data = path.read_bytes()
        field = b"index_pos="
        place = data.index(field) + len(field)
        (index,) = struct.unpack_from("<Q", data, place)
        path.write_bytes(data[:place] + bytes(8) + data[place + 8 : index])
    with Ros1Recording(path) as recording:
        assert (recording.storage, recording.profile, recording.path) == ("ros1", "ros1", path)
        assert recording.span == (START, START + 19 * STEP + 1) and len(recording.blocks) > 3
        check(recording)
        times = [m.received_ns for m in recording.messages()]
    image, odd = recording.channels
    assert times == sorted(times) and len(times) == 40
    assert (image.type, image.encoding, image.definition_encoding) == ("sensor_msgs/msg/Image", "ros1", "ros1msg")
    assert image.metadata["md5sum"] == "060021388200f6f0f447d0fcd9c64743" and b"uint8[] data" in image.definition
    assert (odd.topic, odd.type, odd.definition) == ("/odd", "own_msgs/msg/Odd", b"int32 x\r\nno such thing")
    assert not caplog.records


def test_messages_come_in_the_order_of_receipt(tmp_path, check):
    check(Ros1Recording(write(tmp_path / "x.bag", [3, 1, 2, 0, *range(19, 3, -1)])))


@pytest.mark.parametrize(("compression", "chunk"), [*((kind, 10_000) for kind in COMPRESSIONS), (None, 10**7)])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_a_bag_that_is_cut_off_gives_every_whole_message_and_one_warning(tmp_path, caplog, compression, chunk, share):
    path = write(tmp_path / "x.bag", compression=compression, chunk=chunk)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    recording = Ros1Recording(path)
    found = [m.data for m in recording.messages(recording.channels[:1])]
    assert found == [payload(i) for i in range(len(found))] and 0 < len(found) < 20
    if not compression:
        assert len(found) == sum(payload(i) in path.read_bytes() for i in range(20))
    Ros1Recording(path)
    (record,) = caplog.records
    total = recording.count(recording.channels)
    assert f"read are the {total} whole messages before" in record.getMessage()
    assert "`rosbag reindex`" in record.getMessage()


def test_an_active_bag_whose_last_chunk_was_not_closed(tmp_path, check):
    path = write(tmp_path / "x.bag")
    data = bytearray(path.read_bytes())
    last = Ros1Recording(path).blocks[-1]
    (size,) = struct.unpack_from("<I", data, last.start)
    struct.pack_into("<I", data, last.start + 4 + size, 0)  # recorders write its length when they close it
    place = data.index(b"index_pos=") + 10
    (index,) = struct.unpack_from("<Q", data, place)
    struct.pack_into("<Q", data, place, 0)
    path.write_bytes(data[: last.end])
    recording = Ros1Recording(path)
    check(recording)
    assert not recording.blocks[-1].chunk


def test_a_chunk_that_is_damaged_ends_the_recording(tmp_path):
    path = write(tmp_path / "x.bag", compression=Writer.CompressionFormat.LZ4)
    data = bytearray(path.read_bytes())
    block = Ros1Recording(path).blocks[2]
    data[block.start + 80 : block.end - 4] = bytes(block.end - 4 - block.start - 80)
    path.write_bytes(data)
    recording, found = Ros1Recording(path), []
    with pytest.raises(
        SourceError, match=rf"x.bag: the recording is damaged from .* in what begins at byte {block.start}: lz4"
    ):
        for message in recording.messages(recording.channels[:1]):
            found.append(message.data)
    assert found == [payload(i) for i in range(len(found))] and 5 < len(found) < 15


def test_what_is_no_bag(tmp_path):
    path = tmp_path / "x.bag"
    path.write_bytes(b"#ROSBAG V1.2\n" + bytes(100))
    with pytest.raises(SourceError, match=r"x.bag: not a recording .* expected #ROSBAG V2.0, got #ROSBAG V1.2"):
        Ros1Recording(path)
    path.write_bytes(write(tmp_path / "y.bag").read_bytes()[:200])
    with pytest.raises(
        SourceError, match=r"x.bag: not a recording that can be opened: no whole message in it: .*rosbag reindex"
    ):
        Ros1Recording(path)
