import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from vidseg_core.data import bag
from vidseg_core.data.bag_writer import BagExtender
from vidseg_core.data.open import open_source
from vidseg_core.errors import SourceError

STORE = get_typestore(Stores.ROS2_HUMBLE)
Header = STORE.types["std_msgs/msg/Header"]
Time = STORE.types["builtin_interfaces/msg/Time"]
Image = STORE.types["sensor_msgs/msg/Image"]
CompressedImage = STORE.types["sensor_msgs/msg/CompressedImage"]
String = STORE.types["std_msgs/msg/String"]

SIZE = (72, 90)
STORAGES = [StoragePlugin.SQLITE3, StoragePlugin.MCAP]
START = 1_700_000_000


def picture(i=0):
    rng = np.random.default_rng(i)
    return rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def header(i):
    return Header(stamp=Time(sec=START + i // 20, nanosec=(i % 20) * 50_000_000), frame_id="camera")


def image(pixels, encoding, i=0, padding=0, bigendian=0):
    """A message whose rows are followed by `padding` bytes of 77."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    height, width = pixels.shape[:2]
    return Image(
        header=header(i), height=height, width=width, encoding=encoding, is_bigendian=bigendian, step=data.shape[1],
        data=data.reshape(-1),
    )  # fmt: skip


def compressed(pixels, i=0, suffix=".png", text="rgb8; png compressed bgr8"):
    data = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].reshape(-1)
    return CompressedImage(header=header(i), format=text, data=data)


def record(path, topics, storage=StoragePlugin.SQLITE3):
    """`topics`: name -> messages, recorded at 20 Hz, 3 ms after their stamps."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for topic, messages in topics.items():
            kind = messages[0].__msgtype__
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for i, message in enumerate(messages):
                recorded = START * 10**9 + i * 50_000_000 + 3_000_000
                writer.write(connection, recorded, STORE.serialize_cdr(message, kind))
    return path


@pytest.mark.parametrize("storage", STORAGES)
def test_images_in_order_with_the_stamps_of_their_headers(tmp_path, storage):
    images = [image(picture(i), "rgb8", i) for i in range(5)]
    path = record(tmp_path / "bag", {"/camera/image_raw": images, "/chatter": [String(data="hello")]}, storage)
    source = open_source(path)
    assert source.name == source.topic == "/camera/image_raw"
    assert (source.size, len(source)) == ((90, 72), 5)
    assert source.rate_hz == pytest.approx(20.0, rel=1e-6)
    for _ in range(2):
        frames = list(source)
        assert [f.stamp_ns for f in frames] == [START * 10**9 + i * 50_000_000 for i in range(5)]
        assert [f.name for f in frames] == [f"{i:06d}" for i in range(5)]
        for i, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, picture(i))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_storage_file_alone_is_a_recording(tmp_path, storage, caplog):
    path = record(tmp_path / "bag", {"/image": [image(picture(), "bgr8")]}, storage)
    (file,) = (p for p in path.iterdir() if p.suffix in (".db3", ".mcap"))
    assert len(list(open_source(file))) == 1
    (path / "metadata.yaml").unlink()
    assert len(list(open_source(path))) == 1
    (path / f"second{file.suffix}").touch()
    assert len(list(open_source(path))) == 1
    assert f"{path}/second{file.suffix}: empty, left out" in caplog.text


@pytest.mark.parametrize("storage", STORAGES)
def test_compressed_images(tmp_path, storage):
    path = record(tmp_path / "bag", {"/image/compressed": [compressed(picture(i), i) for i in range(3)]}, storage)
    for i, frame in enumerate(open_source(path)):
        np.testing.assert_array_equal(frame.image, picture(i))


def test_the_topic_is_found_if_there_is_one(tmp_path):
    left, right = [image(picture(), "rgb8")], [image(picture(1), "rgb8")] * 2
    path = record(tmp_path / "bag", {"/left": left, "/right": right, "/text": [String(data="x")]})
    with pytest.raises(SourceError, match=r"several image topics, choose one with topic: \['/left', '/right'\]"):
        open_source(path)
    assert len(list(open_source(path, topic="/right"))) == 2
    expected = r"no images on topic '/text', it has std_msgs/msg/String; expected one of \['/left', '/right'\]"
    with pytest.raises(SourceError, match=expected):
        open_source(path, topic="/text")
    path = record(tmp_path / "words", {"/text": [String(data="x")]})
    with pytest.raises(SourceError, match=r"no images on topic '/left'; nor on any other"):
        open_source(path, topic="/left")
    depth = [compressed(picture(), text="16UC1; compressedDepth png")]
    path = record(tmp_path / "depth", {"/image": left, "/image/compressedDepth": depth})
    assert open_source(path).topic == "/image"
    own = {f"/front/{name}": [image(picture()[..., 0], "mono8")] for name in ("labels_truth", "labels", "confidence")}
    path = record(tmp_path / "labelled", {"/front/image_raw": left, "/front/overlay": left} | own)
    assert open_source(path).topic == "/front/image_raw"
    assert open_source(path, topic="/front/labels").topic == "/front/labels"


FFMPEG_PACKET = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
FFMPEG_PACKET_FIELDS = """std_msgs/Header header
int32 width
int32 height
string encoding
uint64 pts
uint8 flags
bool is_bigendian
uint8[] data
"""
COMPRESSED_VIDEO = "foxglove_msgs/msg/CompressedVideo"
COMPRESSED_VIDEO_FIELDS = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"


def record_video(path, packets, kind, codec, storage=StoragePlugin.MCAP, ros1=False):
    """(number, packet) in the order of decoding, stamped by the number at 20 Hz, recorded as they come."""
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(FFMPEG_PACKET_FIELDS, FFMPEG_PACKET))
    store.register(get_types_from_msg(COMPRESSED_VIDEO_FIELDS, COMPRESSED_VIDEO))
    packet_type, video_type = store.types[FFMPEG_PACKET], store.types[COMPRESSED_VIDEO]
    with Ros1Writer(path) if ros1 else Writer(path, version=9, storage_plugin=storage) as writer:
        connection = writer.add_connection("/camera/image_raw/video", kind, typestore=store)
        for i, (number, data) in enumerate(packets):
            stamp = Time(sec=START + number // 20, nanosec=(number % 20) * 50_000_000)
            raw = np.frombuffer(data, np.uint8)
            if kind == COMPRESSED_VIDEO:
                message = video_type(stamp, "camera", raw, codec)
            else:
                encoding = {"h264": "h264;yuv420p;bgr8;bgr8", "h265": "hevc_nvenc"}[codec]
                header = store.types["std_msgs/msg/Header"]
                stamped = header(i, stamp, "camera") if ros1 else header(stamp, "camera")
                message = packet_type(stamped, 128, 96, encoding, number, 0, False, raw)
            serialize = store.serialize_ros1 if ros1 else store.serialize_cdr
            writer.write(connection, START * 10**9 + i * 50_000_000, serialize(message, kind))
    return path


def assert_video(frames, pictures, numbers):
    """Each frame is the picture of its stamp, and these are the numbers of all."""
    stamps = [frame.stamp_ns - START * 10**9 for frame in frames]
    assert stamps == [number * 50_000_000 for number in numbers]
    for frame, number in zip(frames, numbers, strict=True):
        assert np.abs(frame.image.astype(int) - pictures[number]).mean() < 20  # of two neighbours above 40


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("kind", [FFMPEG_PACKET, COMPRESSED_VIDEO])
def test_compressed_video(tmp_path, moving_pictures, encode_video, kind, codec, storage, caplog):
    pictures = moving_pictures(25)
    packets = encode_video(pictures, codec)
    source = open_source(record_video(tmp_path / "all", packets, kind, codec, storage))
    assert (source.size, len(source), source.rate_hz) == ((128, 96), 25, pytest.approx(20.0))
    for _ in range(2):
        frames = list(source)
        assert_video(frames, pictures, range(25))
        assert [frame.name for frame in frames] == [f"{i:06d}" for i in range(25)]
        assert [frame.received_ns for frame in frames] == [START * 10**9 + i * 50_000_000 for i in range(25)]
    assert "give no picture" not in caplog.text
    source = open_source(record_video(tmp_path / "part", packets[4:], kind, codec, storage))
    assert_video(list(source), pictures, range(10, 25))
    said = "/part: /camera/image_raw/video: 6 of 21 packets of video give no picture: they come before the first key"
    assert said in caplog.text and caplog.text.count("give no picture") == 1
    missing = packets[:13] + packets[14:]
    source = open_source(record_video(tmp_path / "gap", missing, kind, codec, storage))
    assert_video(list(source), pictures, [*range(13), *range(20, 25)])
    assert "/gap: /camera/image_raw/video: 6 of 24 packets" in caplog.text


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_video_with_b_frames(tmp_path, moving_pictures, encode_video, codec, caplog):
    pictures = moving_pictures(25)
    packets = encode_video(pictures, codec, bframes=3, b_adapt=0)
    assert [number for number, _ in packets] != list(range(25))
    source = open_source(record_video(tmp_path / "bag", packets, FFMPEG_PACKET, codec))
    frames = list(source)
    assert_video(frames, pictures, range(25))
    assert source.rate_hz == pytest.approx(20)
    assert not [record for record in caplog.records if "stamps" in record.getMessage()]
    received = [frame.received_ns for frame in frames]
    assert received == sorted(received)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("ros1", [False, True])
@pytest.mark.parametrize("kind", [FFMPEG_PACKET, COMPRESSED_VIDEO])
def test_labels_of_video_in_a_copy_have_the_stamps_of_their_pictures(
    tmp_path, moving_pictures, encode_video, kind, ros1, storage
):
    if ros1 and storage == "sqlite3":
        return
    packets = encode_video(moving_pictures(25), bframes=3, b_adapt=0)
    path = record_video(tmp_path / ("drive.bag" if ros1 else "drive"), packets, kind, "h264", ros1=ros1)
    with BagExtender(path, "/camera/image_raw/video", ["/camera/labels"], tmp_path / "copy", storage) as bag:
        for i, frame in enumerate(open_source(path)):
            bag.add(int(frame.name), {"/camera/labels": ("mono8", np.full((96, 128), i, np.uint8))})
    labels = list(open_source(tmp_path / "copy", topic="/camera/labels"))
    shown = {frame.stamp_ns: int(frame.image[0, 0, 0]) for frame in labels}
    assert shown == {START * 10**9 + i * 50_000_000: i for i in range(25)}
    assert len(list(open_source(tmp_path / "copy", topic="/camera/image_raw/video"))) == 25


def test_video_in_a_ros_1_bag(tmp_path, moving_pictures, encode_video):
    pictures = moving_pictures(12)
    for kind in (FFMPEG_PACKET, COMPRESSED_VIDEO):
        path = tmp_path / f"{kind[:3]}.bag"
        source = open_source(record_video(path, encode_video(pictures), kind, "h264", ros1=True))
        frames = list(source)
        assert source.rate_hz == pytest.approx(20)
        assert_video(frames, pictures, range(12))


def test_damaged_packets_of_video_are_errors_or_skipped(tmp_path, moving_pictures, encode_video):
    pictures = moving_pictures(25)
    packets = encode_video(pictures)
    packets[4] = 4, packets[4][1][: len(packets[4][1]) // 2]
    packets[14] = 14, b"no video"
    path = record_video(tmp_path / "bag", packets, COMPRESSED_VIDEO, "h264")
    with pytest.raises(SourceError, match="/camera/image_raw/video: message 000004: a packet is damaged"):
        list(open_source(path))
    source = open_source(path, skip_bad=True)
    assert_video(list(source), pictures, [*range(4), *range(10, 14), *range(20, 25)])
    assert [name for name, _ in source.skipped] == ["000004", "000014"]
    assert "expected h264 as NAL units behind start codes, got 6e 6f 20 76" in source.skipped[1][1]


def test_video_without_a_key_frame_or_of_another_codec(tmp_path, moving_pictures, encode_video):
    packets = encode_video(moving_pictures(9))
    path = record_video(tmp_path / "tail", packets[1:], COMPRESSED_VIDEO, "h264")
    with pytest.raises(SourceError, match="there is no key frame among 8 packets of video, nothing can be decoded"):
        open_source(path)
    path = record_video(tmp_path / "other", packets, COMPRESSED_VIDEO, "av1")
    with pytest.raises(SourceError, match="message 000000: expected an encoding of h264, h265, got 'av1'"):
        open_source(path)


def test_recordings_without_images(tmp_path):
    path = record(tmp_path / "bag", {"/text": [String(data="x")]})
    with pytest.raises(SourceError, match=r"the recording has no images of a camera; its topics are \['/text'\]"):
        open_source(path)


@pytest.mark.parametrize("storage", STORAGES)
def test_message_types_that_nobody_knows(tmp_path, storage):
    path, odd = tmp_path / "bag", "uint8 level\n"
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(odd, "own_msgs/msg/Odd"))
    with Writer(path, version=9, storage_plugin=storage) as writer:
        images = writer.add_connection("/image", Image.__msgtype__, typestore=STORE)
        levels = writer.add_connection("/level", "own_msgs/msg/Odd", typestore=store)
        writer.write(images, START, STORE.serialize_cdr(image(picture(), "rgb8"), Image.__msgtype__))
        writer.write(levels, START, bytes(5))
    assert len(list(open_source(path))) == 1
    with pytest.raises(SourceError, match=r"no images on topic '/level', it has own_msgs/msg/Odd; expected one of"):
        open_source(path, topic="/level")
    path = tmp_path / "incomplete"
    with Writer(path, version=9, storage_plugin=storage) as writer:
        writer.add_connection("/gone", "own_msgs/msg/Odd", msgdef="gone_msgs/Gone g\n", rihs01="RIHS01_" + 64 * "0")
    with pytest.raises(SourceError, match=r"the recording has no images of a camera; its topics are \['/gone'\]"):
        open_source(path)


def test_options_for_others_are_refused(tmp_path):
    path = record(tmp_path / "bag", {"/image": [image(picture(), "rgb8")]})
    with pytest.raises(SourceError, match="option rate_hz does not apply to a recording"):
        open_source(path, rate_hz=10)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bad_message_is_an_error_or_skipped(tmp_path, storage):
    messages = [image(picture(i), "rgb8", i) for i in range(4)]
    messages[1].data = messages[1].data[:-5]
    messages[2] = image(np.zeros((40, 100, 3), np.uint8), "rgb8", 2)
    path = record(tmp_path / "bag", {"/image": messages}, storage)
    with pytest.raises(SourceError, match=r"bag: /image: message 000001: expected at least 19440 bytes of data"):
        list(open_source(path))
    source = open_source(path, skip_bad=True)
    assert [f.name for f in source] == ["000000", "000003"]
    assert [name for name, _ in source.skipped] == ["000001", "000002"]
    assert source.skipped[1][1].endswith("expected at least 64 x 64 pixels, got 100 x 40")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_a_truncated_mcap_file(tmp_path, share, caplog):
    path = record(tmp_path / "bag", {"/image": [image(picture(i), "rgb8", i) for i in range(20)]}, StoragePlugin.MCAP)
    (file,) = path.glob("*.mcap")
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    whole = sum(picture(i).tobytes() in file.read_bytes() for i in range(20))
    assert whole == {0.0: 0, 0.1: 1, 0.6: 12, 0.99: 19}[share]
    for spec in (path, file):
        if not whole:
            with pytest.raises(SourceError, match=f"{file.name}: not a recording that can be opened: it is empty"):
                open_source(spec)
            continue
        source = open_source(spec)
        assert [frame.stamp_ns for frame in source] == [START * 10**9 + i * 50_000_000 for i in range(whole)]
        assert len(source) == whole
    if whole:
        (warning,) = caplog.records
        assert f"read are the {whole} whole messages before, up to 17000000" in warning.getMessage()


@pytest.mark.parametrize("where", [0.5, 0.75])
def test_damage_inside_an_mcap_file_gives_what_it_has_and_one_error(tmp_path, where):
    path = record(tmp_path / "bag", {"/image": [image(picture(i), "rgb8", i) for i in range(120)]}, StoragePlugin.MCAP)
    (file,) = path.glob("*.mcap")
    data = bytearray(file.read_bytes())
    middle = int(where * len(data))
    data[middle : middle + 60_000] = bytes(60_000)
    file.write_bytes(data)
    source, seen = open_source(path), []
    with pytest.raises(SourceError, match=r"bag.mcap: the recording is damaged from 1700000\d+\.\d+ s on"):
        for frame in source:
            seen.append(frame)
    assert 120 * where - 3 < len(seen) <= 120 * where
    for i, frame in enumerate(seen):
        np.testing.assert_array_equal(frame.image, picture(i))
    source = open_source(path, skip_bad=True)
    assert len(list(source)) == len(seen) and len(source.skipped) == 1


def test_a_damaged_database(tmp_path, caplog):
    path = record(tmp_path / "bag", {"/image": [image(picture(i), "rgb8", i) for i in range(20)]})
    (file,) = path.glob("*.db3")
    data = file.read_bytes()
    file.write_bytes(data[: int(0.6 * len(data))])
    frames = list(open_source(path))
    assert 8 <= len(frames) <= 12
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, picture(i))
    assert f"read are the {len(frames)} whole messages that can be found" in caplog.text
    file.write_text("not a database")
    with pytest.raises(SourceError, match="bag.db3: not a recording that can be opened: it begins with none of MCAP's"):
        open_source(path)


# SQLite has no compression of its own.
@pytest.mark.parametrize(
    ("storage", "mode"),
    [(storage, mode) for storage in STORAGES for mode in (CompressionMode.FILE, CompressionMode.MESSAGE)]
    + [(StoragePlugin.MCAP, CompressionMode.STORAGE)],
)
@pytest.mark.parametrize("metadata", [True, False])
def test_a_compressed_recording(tmp_path, storage, mode, metadata):
    path = tmp_path / "bag"
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", Image.__msgtype__, typestore=STORE)
        for i in range(5):
            data = STORE.serialize_cdr(image(picture(i), "rgb8", i), Image.__msgtype__)
            writer.write(connection, START * 10**9 + i * 50_000_000, data)
    if not metadata:
        (path / "metadata.yaml").unlink()
    frames = list(open_source(path))
    assert [f.stamp_ns for f in frames] == [START * 10**9 + i * 50_000_000 for i in range(5)]
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, picture(i))


def test_the_rate_is_that_of_the_topic_itself(tmp_path):
    """It starts late, has a gap, and stops early; another topic is there for a minute."""
    path = tmp_path / "bag"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection("/image", Image.__msgtype__, typestore=STORE)
        text = writer.add_connection("/text", String.__msgtype__, typestore=STORE)
        data = STORE.serialize_cdr(image(picture(), "rgb8"), Image.__msgtype__)
        for second in range(61):
            writer.write(text, (START + second) * 10**9, STORE.serialize_cdr(String(data="x"), String.__msgtype__))
        for i in [*range(10), *range(100, 115)]:
            writer.write(images, (START + 20) * 10**9 + i * 80_000_000, data)
    assert open_source(path).rate_hz == pytest.approx(12.5)


def test_when_a_frame_was_received(tmp_path):
    path = record(tmp_path / "bag", {"/image": [image(picture(i), "rgb8", i) for i in range(3)]})
    assert [f.received_ns - f.stamp_ns for f in open_source(path)] == 3 * [3_000_000]


def test_a_ros_1_bag(tmp_path):
    store, path = get_typestore(Stores.ROS1_NOETIC), tmp_path / "drive.bag"
    kinds = {name: store.types[name] for name in ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")}
    with Ros1Writer(path) as writer:
        for topic, kind in (
            ("/raw", "sensor_msgs/msg/Image"),
            ("/packed/compressed", "sensor_msgs/msg/CompressedImage"),
        ):
            connection = writer.add_connection(topic, kind, typestore=store)
            for i in range(3):
                message = image(picture(i), "rgb8", i) if topic == "/raw" else compressed(picture(i), i)
                fields = {name: getattr(message, name) for name in message.__dataclass_fields__ if name[0] != "_"}
                stamp = store.types["builtin_interfaces/msg/Time"](
                    message.header.stamp.sec, message.header.stamp.nanosec
                )
                head = store.types["std_msgs/msg/Header"](seq=i, stamp=stamp, frame_id="camera")
                data = store.serialize_ros1(kinds[kind](**{**fields, "header": head}), kind)
                writer.write(connection, START * 10**9 + i * 50_000_000, data)
    for topic in ("/raw", "/packed/compressed"):
        source = open_source(path, topic=topic)
        assert [f.stamp_ns for f in source] == [START * 10**9 + i * 50_000_000 for i in range(3)]
        for i, frame in enumerate(source):
            np.testing.assert_array_equal(frame.image, picture(i))
        assert source.rate_hz == pytest.approx(20)


def test_a_recording_that_does_not_read(tmp_path):
    (tmp_path / "metadata.yaml").write_text("nothing: here")
    with pytest.raises(SourceError, match="not a recording that can be opened"):
        open_source(tmp_path)


def same(frames, others):
    assert [frame.name for frame in frames] == [frame.name for frame in others]
    for frame, other in zip(frames, others, strict=True):
        assert (frame.stamp_ns, frame.received_ns) == (other.stamp_ns, other.received_ns)
        np.testing.assert_array_equal(frame.image, other.image)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_part_has_the_frames_of_the_whole(tmp_path, storage):
    topics = {"/camera/image_raw": [image(picture(i), "rgb8", i) for i in range(12)]}
    source = open_source(record(tmp_path / "bag", topics, storage))
    every = list(source)
    for first, stop in ((0, 12), (0, 5), (5, 7), (7, 99), (11, 12), (12, 20)):
        part = source.part(first, stop)
        assert len(part) == max(0, min(stop, 12) - first)
        for _ in range(2):
            same(list(part), every[first:stop])
    assert len(source.received()) == len(source) == 12 and not source.is_video


@pytest.mark.parametrize("lead", [12, 300])
@pytest.mark.parametrize("options", [{}, {"bframes": 3, "b_adapt": 0}])
def test_a_part_of_a_video_is_decoded_from_the_key_frame_before(
    tmp_path, moving_pictures, encode_video, options, lead, monkeypatch, caplog
):
    monkeypatch.setattr(bag, "LEAD_PACKETS", lead)
    packets = encode_video(moving_pictures(45), "h264", **options)
    source = open_source(record_video(tmp_path / "bag", packets, FFMPEG_PACKET, "h264"))
    every = list(source)
    assert len(every) == 45 and source.is_video
    for first, stop in ((0, 10), (10, 23), (23, 24), (24, 45)):
        part = [frame.name for frame in source.part(first, stop)]
        assert part == [frame.name for frame in every if first <= int(frame.name) < stop]
        chosen = [frame for frame in every if first <= int(frame.name) < stop]
        same(list(source.part(first, stop)), chosen)
    assert "give no picture" not in caplog.text
    monkeypatch.setattr(bag, "LEAD_PACKETS", 2)  # no key frame is among so few
    same(list(source.part(23, 24)), [frame for frame in every if frame.name == "000023"])
