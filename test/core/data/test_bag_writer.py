import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import yaml
import zstandard
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from vidseg_core.data.bag_writer import STORAGES, BagExtender, BagWriter
from vidseg_core.data.open import open_source
from vidseg_core.data.recordings.open import open_recording
from vidseg_core.data.recordings.recording import Channel
from vidseg_core.data.recordings.rosbag2 import QOS, TYPE_HASH
from vidseg_core.data.wire import ImageWriter, Stamp, Stamped
from vidseg_core.errors import ConfigError, SourceError

STAMPS = [1_000_000_000, 1_066_666_667, 1_133_333_333]
IMAGE = "sensor_msgs/msg/Image"
QOS_8 = """- history: 3
  depth: 0
  reliability: 2
  durability: 2
  deadline: {sec: 9223372036, nsec: 854775807}
  lifespan: {sec: 9223372036, nsec: 854775807}
  liveliness: 1
  liveliness_lease_duration: {sec: 9223372036, nsec: 854775807}
  avoid_ros_namespace_conventions: false"""
QOS_9 = QOS_8.replace("history: 3", "history: unknown").replace("reliability: 2", "reliability: best_effort")
QOS_9 = QOS_9.replace("durability: 2", "durability: volatile").replace("liveliness: 1", "liveliness: automatic")


def picture(i):
    return np.random.default_rng(i).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def write(path, storage="sqlite3", topic="/camera/image_raw"):
    with BagWriter(path, storage) as bag:
        for i, stamp_ns in enumerate(STAMPS):
            bag.write_image(topic, "rgb8", picture(i), stamp_ns, frame_id="front", recorded_ns=stamp_ns + 5)
    return path


@pytest.mark.parametrize("storage", STORAGES)
def test_what_was_written_is_read(tmp_path, storage):
    path = write(tmp_path / "deep" / "bag", storage)
    frames = list(open_source(path))
    assert [frame.stamp_ns for frame in frames] == STAMPS
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, picture(i))
    with AnyReader([path]) as reader:
        messages = list(reader.messages())
        assert [recorded_ns for _, recorded_ns, _ in messages] == [stamp_ns + 5 for stamp_ns in STAMPS]
        connection, _, data = messages[0]
        assert reader.deserialize(data, connection.msgtype).header.frame_id == "front"
    assert [entry.name for entry in path.parent.iterdir()] == ["bag"]


def test_pixels_that_are_a_view(tmp_path):
    labels = np.arange(70 * 200, dtype=np.uint32).astype(np.uint8).reshape(70, 200)[:, ::2]
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_image("/image", "mono8", labels, STAMPS[0])
    (frame,) = open_source(tmp_path / "bag")
    np.testing.assert_array_equal(frame.image[..., 1], labels)


@pytest.mark.parametrize("storage", STORAGES)
def test_messages_of_any_kind_are_written_as_they_are(tmp_path, storage):
    channel = Channel(7, "/odd", "own/msg/Odd", "cdr", b"int32 x", "ros2msg", {QOS: QOS_9, TYPE_HASH: "RIHS01_x"})
    with BagWriter(tmp_path / "bag", storage) as bag:
        bag.write(channel, 5, 3, b"\0\1\0\0odd")
        bag.write_image("/camera/labels", "mono8", picture(0)[..., 0], STAMPS[0])
    with open_recording(tmp_path / "bag") as recording:
        (odd,) = (one for one in recording.channels if one.topic == "/odd")
        assert replace(odd, id=7, metadata={}) == replace(channel, metadata={})
        assert odd.metadata[TYPE_HASH] == "RIHS01_x" and "reliability: 2" in odd.metadata[QOS]
        (message,) = recording.messages([odd])
    assert (message.received_ns, bytes(message.data)) == (5, b"\0\1\0\0odd")
    assert message.published_ns == (3 if storage == "mcap" else 5)


@pytest.mark.parametrize("storage", STORAGES)
def test_metadata_that_every_distribution_reads(tmp_path, storage):
    path = write(tmp_path / "drive.1", storage)
    information = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    (topic,) = information.pop("topics_with_message_count")
    file = f"drive.1.{'db3' if storage == 'sqlite3' else 'mcap'}"
    times = {
        "starting_time": {"nanoseconds_since_epoch": STAMPS[0] + 5},
        "duration": {"nanoseconds": STAMPS[2] - STAMPS[0]},
        "message_count": 3,
    }
    assert information == {
        "version": 8, "storage_identifier": storage, "relative_file_paths": [file], **times, "compression_format": "",
        "compression_mode": "", "files": [{"path": file, **times}], "custom_data": None, "ros_distro": "unknown",
    }  # fmt: skip
    (qos,) = yaml.safe_load(topic["topic_metadata"].pop("offered_qos_profiles"))
    assert (qos["history"], qos["depth"], qos["reliability"], qos["durability"]) == (1, 10, 1, 2)
    store = get_typestore(Stores.ROS2_HUMBLE)
    assert topic == {
        "topic_metadata": {
            "name": "/camera/image_raw", "type": "sensor_msgs/msg/Image", "serialization_format": "cdr",
            "type_description_hash": store.hash_rihs01("sensor_msgs/msg/Image"),
        },
        "message_count": 3,
    }  # fmt: skip
    with open_recording(path) as recording:
        (channel,) = recording.channels
        definition, _ = store.generate_msgdef("sensor_msgs/msg/Image", ros_version=2)
        assert (channel.definition.decode(), channel.definition_encoding) == (definition, "ros2msg")


def test_nothing_is_overwritten(tmp_path):
    path = write(tmp_path / "bag")
    with pytest.raises(ConfigError, match="bag: exists already; a recording is not overwritten"):
        BagWriter(path)
    assert len(list(open_source(path))) == len(STAMPS)


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_not_completed_is_not_there(tmp_path, storage):
    with pytest.raises(KeyboardInterrupt), BagWriter(tmp_path / "bag", storage) as bag:
        bag.write_image("/image", "rgb8", picture(0), STAMPS[0])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "bag", storage)


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", np.zeros((70, 90), np.uint8)),
        ("mono8", np.zeros((70, 90, 3), np.uint8)),
        ("mono8", np.zeros((70, 90), np.int64)),
    ],
)
def test_pixels_must_fit_their_encoding(tmp_path, encoding, pixels):
    expected = f"/image: expected uint8 pixels of {encoding}"
    with pytest.raises(ValueError, match=expected), BagWriter(tmp_path / "bag") as bag:
        bag.write_image("/image", encoding, pixels, STAMPS[0])


def extended(source, path, storage, numbers):
    with BagExtender(source, "/camera/image_raw", ["/camera/labels"], path, storage) as bag:
        for i in numbers:
            bag.add(i, {"/camera/labels": ("mono8", picture(i)[..., 0])})
    return path


@pytest.mark.parametrize("storage", STORAGES)
def test_a_recording_gets_labels_with_the_stamps_of_its_images(tmp_path, storage):
    source = write(tmp_path / "first", storage)
    path = extended(source, tmp_path / "second", storage, (0, 2))
    frames = list(open_source(path, topic="/camera/labels"))
    assert [frame.stamp_ns for frame in frames] == [STAMPS[0], STAMPS[2]]
    np.testing.assert_array_equal(frames[1].image[..., 0], picture(2)[..., 0])
    with AnyReader([source]) as before, AnyReader([path]) as after:
        messages = list(after.messages())
        assert [(c.topic, t) for c, t, _ in messages] == [
            ("/camera/image_raw", STAMPS[0] + 5), ("/camera/labels", STAMPS[0] + 5),
            ("/camera/image_raw", STAMPS[1] + 5),
            ("/camera/image_raw", STAMPS[2] + 5), ("/camera/labels", STAMPS[2] + 5),
        ]  # fmt: skip
        assert after.deserialize(messages[1][2], messages[1][0].msgtype).header.frame_id == "front"
        originals = [bytes(data) for c, _, data in messages if c.topic == "/camera/image_raw"]
        assert originals == [bytes(data) for _, _, data in before.messages()]


def test_a_topic_is_not_added_twice(tmp_path):
    path = extended(write(tmp_path / "first"), tmp_path / "second", "sqlite3", (0,))
    with pytest.raises(ConfigError, match="second: has /camera/labels already; they cannot be added to it"):
        extended(path, tmp_path / "third", "sqlite3", ())


@pytest.mark.parametrize("storage", STORAGES)
def test_what_cannot_be_stored(tmp_path, storage):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: expected a folder that can be written"):
        BagWriter(tmp_path / "file" / "bag", storage)
    for stamp_ns in (-1, 2**31 * 10**9):
        with pytest.raises(ConfigError, match="/image: expected a stamp from 1970 to 2038"):
            with BagWriter(tmp_path / "bag", storage) as bag:
                bag.write_image("/image", "rgb8", picture(0), stamp_ns)
    far = 2**63 if storage == "sqlite3" else 2**64
    with pytest.raises(ConfigError, match="bag: expected a recording that can be written: "):
        with BagWriter(tmp_path / "bag", storage) as bag:
            bag.write_image("/image", "rgb8", picture(0), 0, recorded_ns=far)
    with pytest.raises(ConfigError, match="bag: expected a recording that can be written: "):
        with BagWriter(tmp_path / "bag", storage) as bag:
            bag.write_image("/image", "rgb8", picture(0), 0)
            (tmp_path / "bag").touch()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bag", "file"]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path, storage):
    script = """
import resource, sys
import numpy as np
from vidseg_core.data.bag_writer import BagWriter
from vidseg_core.errors import ConfigError
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    with BagWriter(sys.argv[1], sys.argv[2]) as bag:
        for i in range(50):
            bag.write_image("/image", "rgb8", np.zeros((256, 256, 3), np.uint8), i)
except ConfigError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, tmp_path / "bag", storage]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith(f"{tmp_path / 'bag'}: expected a recording that can be written: "), ended.stdout
    assert list(tmp_path.iterdir()) == []


COUNT = 4
START = 1_700_000_000 * 10**9
STEP = 50_000_000
TABLES = {
    "foxy": "offered_qos_profiles TEXT NOT NULL",
    "humble": "offered_qos_profiles TEXT NOT NULL",
    "iron": "offered_qos_profiles TEXT NOT NULL, type_description_hash TEXT NOT NULL",
}


def image_message(i, encoding="cdr"):
    header = Stamped(Stamp(*divmod(START + i * STEP - 7, 10**9)), "front")
    return ImageWriter(encoding).serialise(header, "rgb8", picture(i))


def sqlite_source(path, distribution, other="cdr", pack=bytes):
    """As rosbag2's recorders of these distributions write it; the other topic's type is of no package."""
    path.mkdir()
    database = sqlite3.connect(path / "drive_0.db3")
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(
        f"""CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
        serialization_format TEXT NOT NULL, {TABLES[distribution]});
        CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
        data BLOB NOT NULL);"""
    )
    if distribution == "iron":
        database.executescript(
            """CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
            INSERT INTO schema VALUES (4, 'iron');
            CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL, encoding TEXT NOT NULL,
            encoded_message_definition TEXT NOT NULL, type_description_hash TEXT NOT NULL);
            INSERT INTO message_definitions VALUES (1, 'own/msg/Odd', 'unknown', '', '');"""
        )
    columns = ["", "RIHS01_foreign"] if distribution == "iron" else [""]
    marks = ",".join("?" * (4 + len(columns)))
    qos = QOS_9 if distribution == "iron" else QOS_8
    database.execute(f"INSERT INTO topics VALUES ({marks})", (3, "/image", IMAGE, "cdr", qos, "")[: 4 + len(columns)])
    database.execute(f"INSERT INTO topics VALUES ({marks})", (5, "/odd", "own/msg/Odd", other, *columns))
    for i in range(COUNT):
        insert = "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)"
        database.execute(insert, (3, START + i * STEP, pack(image_message(i))))
        database.execute(insert, (5, START + i * STEP + 1, pack(b"\0\1\0\0" + bytes([i]))))
    database.commit()
    return database


def closed(path, distribution, other="cdr", pack=bytes):
    sqlite_source(path, distribution, other, pack).close()
    return path


def packed(path):
    (file,) = path.glob("*.db3")
    file.with_name(f"{file.name}.zstd").write_bytes(zstandard.compress(file.read_bytes()))
    file.unlink()
    return path


def wal(path):
    """The recorder was killed: all that it wrote is in the log beside the database."""
    with closing(sqlite_source(path.with_name("running"), "humble")):
        shutil.copytree(path.with_name("running"), path)
    assert (path / "drive_0.db3-wal").stat().st_size > 0
    return path / "drive_0.db3"


def mcap_source(path, others=(), numbers=range(COUNT), **options):
    options = {"compression": CompressionType.ZSTD, "chunk_size": 30_000} | options
    with path.open("wb") as file:
        writer = Writer(file, **options)
        writer.start("ros2", "test")
        schema = writer.register_schema(IMAGE, "ros2msg", b"# comment\nuint8[] data\n")
        image = writer.register_channel("/image", "cdr", schema, {QOS: QOS_9, "own": "key"})
        added = [
            writer.register_channel(topic, encoding, writer.register_schema(kind, form, text) if kind else 0, extra)
            for topic, kind, form, text, encoding, extra in others
        ]
        for i in numbers:
            writer.add_message(image, START + i * STEP, image_message(i), START + i * STEP - 2)
            for channel in added:
                writer.add_message(channel, START + i * STEP + 1, b"%d of %d" % (i, channel), START + i * STEP - 1)
        writer.finish()
    return path


ODD = ("/odd", "own/msg/Odd", "", b"", "cdr", {TYPE_HASH: "RIHS01_foreign"})
FOREIGN = [
    ODD,
    ("/odd", "own/msg/Odd", "", b"", "cdr", {TYPE_HASH: "RIHS01_foreign"}),
    ("/odd", "own/srv/Odd_Event", "unknown", b"", "cdr", {}),
    ("/json", "foxglove/Log", "jsonschema", b'{"type": "object"}', "json", {"a": "b"}),
    ("/proto", "own.Thing", "protobuf", b"\x0a\xff\xfe", "protobuf", {}),
    ("/nothing", "", "", b"", "", {}),
]


def cut_mcap(path):
    """Its recorder was killed while it wrote the chunk behind COUNT images."""
    mcap_source(path, [ODD], range(COUNT + 3))
    with path.open("rb") as file:
        chunks = make_reader(file).get_summary().chunk_indexes
    cut = next(chunk for chunk in chunks if chunk.message_end_time >= START + COUNT * STEP)
    path.write_bytes(path.read_bytes()[: cut.chunk_start_offset + 20])
    return path


def split(path):
    path.mkdir()
    mcap_source(path / "drive_0.mcap", [ODD], range(2))
    mcap_source(path / "drive_1.mcap", [ODD], range(2, COUNT))
    return path


def ros1_source(path, compression=None):
    store = get_typestore(Stores.ROS1_NOETIC)
    writer = Ros1Writer(path)
    if compression:
        writer.set_compression(compression)
    with writer:
        image = writer.add_connection("/image", IMAGE, typestore=store)
        odd = writer.add_connection("/odd", "own_msgs/msg/Odd", msgdef="int32 x\nno such thing", md5sum="0" * 32)
        for i in range(COUNT):
            writer.write(image, START + i * STEP, image_message(i, "ros1"))
            writer.write(odd, START + i * STEP + 1, b"odd")
    return path


SOURCES = {
    "foxy": lambda folder: closed(folder / "drive", "foxy"),
    "humble": lambda folder: closed(folder / "drive", "humble"),
    "iron": lambda folder: closed(folder / "drive", "iron"),
    "wal": lambda folder: wal(folder / "drive"),
    "mcap": lambda folder: mcap_source(folder / "drive.mcap", [ODD]),
    "mcap, cut off": lambda folder: cut_mcap(folder / "drive.mcap"),
    "mcap, no chunks": lambda folder: mcap_source(folder / "drive.mcap", [ODD], use_chunking=False),
    "database in zstd": lambda folder: packed(closed(folder / "drive", "humble")),
    "messages in zstd": lambda folder: closed(folder / "drive", "humble", pack=zstandard.compress),
    "mcap, split": lambda folder: split(folder / "drive"),
    "sqlite with json": lambda folder: closed(folder / "drive", "iron", "json"),
    "mcap with all kinds": lambda folder: mcap_source(folder / "drive.mcap", FOREIGN),
    "ros1": lambda folder: ros1_source(folder / "drive.bag"),
    "ros1, lz4": lambda folder: ros1_source(folder / "drive.bag", Ros1Writer.CompressionFormat.LZ4),
}
MCAP_ONLY = ("mcap with all kinds", "ros1", "ros1, lz4")


def stored(path):
    with open_recording(path) as recording:
        return [
            (m.channel.topic, m.channel.type, m.channel.encoding, m.received_ns, bytes(m.data))
            for m in recording.messages()
        ]


def in_its_own_reader(path, normal):
    """(topic, time, data) of all messages."""
    if normal:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
            return [(connection.topic, when, bytes(data)) for connection, when, data in reader.messages()]
    (file,) = (file for file in path.iterdir() if file.name != "metadata.yaml")
    if file.suffix == ".mcap":
        with file.open("rb") as opened:
            return [
                (c.topic, m.log_time, m.data) for _, c, m in make_reader(opened, validate_crcs=True).iter_messages()
            ]
    with closing(sqlite3.connect(file)) as database:
        query = "SELECT name, timestamp, data FROM messages JOIN topics ON topics.id = topic_id ORDER BY timestamp"
        return list(database.execute(query))


@pytest.mark.parametrize("storage", [None, *STORAGES])
@pytest.mark.parametrize("name", SOURCES)
def test_copies_of_all_kinds_of_recordings(tmp_path, name, storage):
    source, path = SOURCES[name](tmp_path), tmp_path / "copy"
    before = stored(source)
    assert sum(topic == "/image" for topic, *_ in before) == COUNT and len(before) > COUNT
    if storage == "sqlite3" and name in MCAP_ONLY:
        with pytest.raises(ConfigError, match="storage sqlite3 cannot hold /.*; expected --storage mcap"):
            BagExtender(source, "/image", ["/labels"], path, storage)
        return
    with BagExtender(source, "/image", ["/labels"], path, storage) as bag:
        for i in range(COUNT):
            bag.add(i, {"/labels": ("mono8", picture(i)[..., 0])})
    chosen = storage or ("mcap" if name in MCAP_ONLY else "sqlite3")
    assert [file.suffix for file in path.iterdir() if "metadata" not in file.name] == [
        {"sqlite3": ".db3", "mcap": ".mcap"}[chosen]
    ]
    after = stored(path)
    encoding = "ros1" if name.startswith("ros1") else "cdr"
    labels = [message for message in after if message[0] == "/labels"]
    assert [message[:4] for message in labels] == [("/labels", IMAGE, encoding, START + i * STEP) for i in range(COUNT)]
    assert [message for message in after if message[0] != "/labels"] == before
    for frames, channels in (
        (open_source(path, topic="/labels"), [0, 0, 0]),
        (open_source(path, topic="/image"), [0, 1, 2]),
    ):
        frames = list(frames)
        assert [frame.stamp_ns for frame in frames] == [START + i * STEP - 7 for i in range(COUNT)]
        for i, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.image, picture(i)[..., channels])
    # rosbags does not open MCAP with a definition in the encoding `unknown`, which rosbag2 itself writes.
    normal = name not in (*MCAP_ONLY, "sqlite with json") and (name, chosen) != ("iron", "mcap")
    found = in_its_own_reader(path, normal)
    assert sorted(found) == sorted((message[0], *message[3:]) for message in after)
    if encoding == "cdr":
        assert (path / "metadata.yaml").is_file()


def test_times_before_1970_stay_in_sqlite(tmp_path):
    source = closed(tmp_path / "drive", "humble")
    with closing(sqlite3.connect(source / "drive_0.db3")) as database:
        database.execute("UPDATE messages SET timestamp = -5 WHERE id = 1")
        database.commit()
    with pytest.raises(
        ConfigError, match="storage mcap cannot hold messages received -5 ns .*; expected --storage sqlite3"
    ):
        BagExtender(source, "/image", ["/labels"], tmp_path / "copy", "mcap")
    with BagExtender(source, "/image", ["/labels"], tmp_path / "copy", None) as bag:
        bag.add(0, {"/labels": ("mono8", picture(0)[..., 0])})
    assert [message[3] for message in stored(tmp_path / "copy")][:2] == [-5, -5]


def test_channels_are_copied_with_all_that_is_stored_of_them(tmp_path):
    source = mcap_source(tmp_path / "drive.mcap", FOREIGN)
    with BagExtender(source, "/image", ["/labels"], tmp_path / "copy", None) as bag:
        bag.add(0, {"/labels": ("mono8", picture(0)[..., 0])})
    with open_recording(source) as before, open_recording(tmp_path / "copy") as after:
        assert after.channels[: len(before.channels) + 1][1:-1] == before.channels[1:]
        assert after.profile == "ros2"
        image, labels = after.channels[0], after.channels[-1]
        assert image.metadata["own"] == "key" and "reliability: 2" in image.metadata[QOS]
        assert replace(image, metadata={}) == replace(before.channels[0], metadata={})
        # A type has one definition in a recording.
        assert (labels.definition, labels.definition_encoding) == (image.definition, image.definition_encoding)
        assert TYPE_HASH not in labels.metadata


def test_ros_1_recordings_become_mcap_as_its_profile_of_ros_1_says(tmp_path):
    source = ros1_source(tmp_path / "drive.bag")
    with BagExtender(source, "/image", ["/labels"], tmp_path / "copy", None) as bag:
        bag.add(1, {"/labels": ("mono8", picture(1)[..., 0])})
    assert [file.name for file in (tmp_path / "copy").iterdir()] == ["copy.mcap"]
    with (tmp_path / "copy" / "copy.mcap").open("rb") as file:
        reader = make_reader(file)
        assert reader.get_header().profile == "ros1"
        found = {channel.topic: (schema, channel, message) for schema, channel, message in reader.iter_messages()}
    assert {topic: (schema.name, schema.encoding) for topic, (schema, _, _) in found.items()} == {
        "/image": ("sensor_msgs/Image", "ros1msg"),
        "/odd": ("own_msgs/Odd", "ros1msg"),
        "/labels": ("sensor_msgs/Image", "ros1msg"),
    }
    store = get_typestore(Stores.ROS1_NOETIC)
    schema, channel, message = found["/labels"]
    definition, md5sum = store.generate_msgdef(IMAGE, ros_version=1)
    assert (schema.data.decode(), channel.metadata["md5sum"]) == (definition, md5sum)
    labels = store.deserialize_ros1(message.data, IMAGE)
    assert (labels.header.seq, labels.header.frame_id, labels.encoding, labels.step) == (0, "front", "mono8", 90)
    stamp_ns = labels.header.stamp.sec * 10**9 + labels.header.stamp.nanosec
    assert (stamp_ns, labels.height, labels.width) == (START + STEP - 7, 70, 90)
    np.testing.assert_array_equal(labels.data, picture(1)[..., 0].reshape(-1))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_recording_damaged_among_others_keeps_its_images(tmp_path, storage, caplog):
    """The images are read past damage in what is copied beside them, and their copies must be, too."""
    source, path = tmp_path / "drive.mcap", tmp_path / "copy"
    with source.open("wb") as file:
        writer = Writer(file, chunk_size=100, compression=CompressionType.NONE)
        writer.start("ros2", "test")
        image = writer.register_channel("/image", "cdr", writer.register_schema(IMAGE, "ros2msg", b"uint8[] data"))
        odd = writer.register_channel("/odd", "cdr", 0)
        for i in range(COUNT):
            writer.add_message(odd, START + i * STEP - 1, b"odd %d" % i + bytes(200), START)
            writer.add_message(image, START + i * STEP, image_message(i), START)
        writer.finish()
    source.write_bytes(source.read_bytes().replace(b"odd 2", b"odd !"))
    with BagExtender(source, "/image", ["/labels"], path, storage) as bag:
        for i in range(COUNT):
            bag.add(i, {"/labels": ("mono8", picture(i)[..., 0])})
    assert "what comes behind is not copied, but for /image" in caplog.text
    assert [topic for topic, *_ in stored(path)] == 2 * ["/odd", "/image", "/labels"] + 2 * ["/image", "/labels"]


@pytest.mark.parametrize("storage", STORAGES)
def test_labels_that_come_a_few_images_later(tmp_path, storage):
    """As those of video with B-frames, whose packets stand in the order of decoding."""
    source = write(tmp_path / "first")
    path = extended(source, tmp_path / "second", storage, (0, 2, 1))
    frames = list(open_source(path, topic="/camera/labels"))
    assert [frame.stamp_ns for frame in frames] == STAMPS
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image[..., 0], picture(i)[..., 0])


def test_more_images_than_there_are_cannot_be_extended(tmp_path):
    source = write(tmp_path / "first")
    with pytest.raises(SourceError, match="first: /camera/image_raw: image 3 cannot be copied, the recording ends"):
        extended(source, tmp_path / "second", "mcap", range(4))
    with pytest.raises(ConfigError, match="first: expected images on /other, there are none"):
        BagExtender(source, "/other", ["/labels"], tmp_path / "second")
    assert [entry.name for entry in tmp_path.iterdir()] == ["first"]
