import gzip
import random
import shutil
import sqlite3
from contextlib import closing

import pytest
import yaml
import zstandard
from mcap.writer import Writer
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from vidseg_core.data.open import find_bag
from vidseg_core.data.recordings.open import open_recording, storage_of
from vidseg_core.errors import SourceError

STEP = 50_000_000
STORAGES = {"mcap": ".mcap", "sqlite3": ".db3", "ros1": ".bag"}


def payload(i):
    return b"\0\1\0\0" + random.Random(i).randbytes(500)


def write(path, numbers, topic="/image"):
    """Messages `numbers` on /image, received at `number` * STEP; the storage goes by the name."""
    if path.suffix == ".mcap":
        with path.open("wb") as file:
            writer = Writer(file)
            writer.start("ros2")
            schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"")
            channel = writer.register_channel(topic, "cdr", schema)
            for i in numbers:
                writer.add_message(channel, i * STEP, payload(i), i * STEP)
            writer.finish()
    elif path.suffix == ".db3":
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT)")
            database.execute(
                "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)"
            )
            database.execute("INSERT INTO topics VALUES (1, ?, 'sensor_msgs/msg/Image')", (topic,))
            for i in numbers:
                database.execute("INSERT INTO messages VALUES (NULL, 1, ?, ?)", (i * STEP, payload(i)))
            database.commit()
    else:
        with Ros1Writer(path) as writer:
            store = get_typestore(Stores.ROS1_NOETIC)
            connection = writer.add_connection(topic, "sensor_msgs/msg/Image", typestore=store)
            for i in numbers:
                writer.write(connection, i * STEP, payload(i))
    return path


def describe(folder, names, **more):
    information = {"version": 5, "storage_identifier": "mcap", "relative_file_paths": names} | more
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": information}))


def split(folder, suffix, parts, names=None):
    folder.mkdir()
    names = names or [f"{folder.name}_{i}{suffix}" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        write(folder / name, part)
    return names


def numbers(path):
    assert find_bag(path) == path
    with open_recording(path) as recording:
        messages = list(recording.messages())
        received = [m.received_ns for m in messages]
        assert [m.data for m in messages] == [payload(ns // STEP) for ns in received]
        assert recording.received(recording.channels) == received
        assert recording.count(recording.channels) == len(received)
        assert recording.span == (received[0], received[-1])
        assert {m.channel for m in messages} == set(recording.channels) and len(recording.channels) == 1
    return [ns // STEP for ns in received]


def pack(path, suffix=".zstd"):
    packed = path.with_name(path.name + suffix)
    packed.write_bytes(zstandard.compress(path.read_bytes()))
    path.unlink()
    return packed


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", ["drive", "drive [front] (1)", "drive.2024.05", " a * b? ", "größe%20#1"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_known_by_what_is_in_it(tmp_path, storage, name, packed):
    path = write(tmp_path / (name + STORAGES[storage]), range(5))
    path = pack(path) if packed else path
    assert storage_of(path) == storage
    assert numbers(path) == list(range(5))
    for other in ("other.bin", "none", "x.mp4", "y.mcap.zstd", "z.bag", "w.db3", "v.bag.active"):
        assert numbers(path.rename(tmp_path / other)) == list(range(5))
        path = tmp_path / other


def test_what_is_decompressed_is_made_once_and_removed(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = pack(write(tmp_path / "drive.mcap", range(5)))
    before = path.read_bytes()
    for _ in range(3):
        assert numbers(path) == list(range(5))
    (made,) = scratch.iterdir()
    recording = open_recording(path)
    assert recording.path == path
    other = pack(write(tmp_path / "other.mcap", range(7)))
    for _ in range(2):
        assert numbers(other) == list(range(7))
    assert made.exists() and len(list(recording.messages())) == 5 and path.read_bytes() == before
    del recording
    assert not made.exists() and len(list(scratch.iterdir())) == 1
    monkeypatch.setattr("vidseg_core.data.recordings.scratch.FREE_BYTES", 2**60)
    with pytest.raises(SourceError, match=r"drive.mcap.zstd: decompressing it: \d+ bytes more are needed in .*scratch"):
        open_recording(path)
    assert list(scratch.iterdir()) == []


def test_a_compressed_file_that_is_cut_off(tmp_path, caplog):
    path = pack(write(tmp_path / "drive.mcap", range(500)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = numbers(path)
    assert found == list(range(len(found))) and 100 < len(found) < 400
    assert "drive.mcap.zstd: the recording is cut off or damaged: " in caplog.text


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("packed", [False, True])
def test_a_recording_in_several_files(tmp_path, storage, metadata, packed, caplog):
    folder = tmp_path / "drive"
    names = split(folder, STORAGES[storage], [range(4), range(4, 7), range(7, 12)])
    if packed:
        names = [pack(folder / name).name for name in names]
    if metadata:
        describe(folder, names, compression_mode="FILE" if packed else "", compression_format="zstd" if packed else "")
    assert numbers(folder) == list(range(12))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_files_in_another_order_that_overlap(tmp_path):
    folder = tmp_path / "drive"
    describe_later = split(folder, ".mcap", [range(8, 12), [0, 1, 3, 5], [2, 4, 6, 7]])
    describe(folder, describe_later)
    assert numbers(folder) == list(range(12))


def test_files_that_were_renamed(tmp_path, caplog):
    folder = tmp_path / "drive"
    split(folder, ".mcap", [range(4), range(4, 8)], ["b.mcap", "a.mcap"])
    assert numbers(folder) == list(range(8))
    assert not caplog.records
    describe(folder, ["old_0.mcap", "old_1.mcap"])
    assert numbers(folder) == list(range(8))
    text = "drive: metadata.yaml names old_0.mcap, old_1.mcap, which are not there; read instead: a.mcap, b.mcap"
    assert [record.getMessage().split("/")[-1] for record in caplog.records] == [text]


def test_a_file_that_is_not_there_and_one_too_many(tmp_path, caplog):
    folder = tmp_path / "drive"
    names = split(folder, ".mcap", [range(4), range(4, 8), range(8, 12)])
    describe(folder, names)
    (folder / names[1]).unlink()
    assert numbers(folder) == [*range(4), *range(8, 12)]
    assert f"drive: {names[1]}, named in metadata.yaml, not there" in caplog.text
    caplog.clear()
    describe(folder, names[:1])
    assert numbers(folder) == list(range(4))
    assert f"drive: {names[2]}, not named in metadata.yaml, not read" in caplog.text
    for name in (names[0], names[2]):
        (folder / name).unlink()
    with pytest.raises(SourceError, match="drive: not a recording that can be opened: drive_0.mcap are not there"):
        open_recording(folder)


def test_metadata_that_names_what_is_now_compressed_or_no_longer(tmp_path):
    folder = tmp_path / "drive"
    names = split(folder, ".db3", [range(4), range(4, 8)])
    describe(folder, [name + ".zstd" for name in names])
    assert numbers(folder) == list(range(8))
    packed = pack(folder / names[0])
    describe(folder, ["/home/me/drive/" + name for name in names])
    assert numbers(folder) == list(range(8))
    (folder / names[0]).write_bytes(zstandard.decompress(packed.read_bytes()))
    assert numbers(folder) == list(range(8))
    (folder / "metadata.yaml").unlink()
    assert numbers(folder) == list(range(8))


def test_an_empty_or_broken_part_is_left_out(tmp_path, caplog):
    folder = tmp_path / "drive"
    names = split(folder, ".mcap", [range(4), range(4, 8)])
    (folder / "drive_2.mcap").touch()
    assert numbers(folder) == list(range(8))
    assert "drive_2.mcap: empty, left out" in caplog.text
    (folder / "drive_2.mcap").write_bytes((folder / names[0]).read_bytes()[:20])
    assert numbers(folder) == list(range(8))
    assert "drive_2.mcap: not a recording that can be opened: no whole message in it: " in caplog.text


def test_files_that_do_not_belong_together(tmp_path):
    folder = tmp_path / "drives"
    split(folder, ".mcap", [range(4), range(4000, 4004)], ["monday.mcap", "tuesday.mcap"])
    with pytest.raises(SourceError, match="drives: a recording of 2 files without metadata.yaml, which do not follow"):
        open_recording(folder)
    write(folder / "tuesday.mcap", range(4, 8), topic="/other")
    with pytest.raises(SourceError, match="name one of them, or try `ros2 bag reindex`"):
        open_recording(folder)
    mixed = tmp_path / "mixed"
    split(mixed, ".mcap", [range(4)])
    write(mixed / "mixed_1.db3", range(4, 8))
    with pytest.raises(SourceError, match="mixed: expected files of one recording, got mcap, sqlite3; name one of"):
        open_recording(mixed)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "metadata.yaml: "),
        ("", "metadata.yaml: "),
        ("nothing: here", "metadata.yaml: no 'rosbag2_bagfile_information'"),
        ("rosbag2_bagfile_information: {relative_file_paths: 3}", "relative_file_paths is no list of names"),
        (
            "rosbag2_bagfile_information: {relative_file_paths: [x], compression_format: lz9, compression_mode: FILE}",
            "expected compression zstd, got lz9",
        ),
        ("rosbag2_bagfile_information: {relative_file_paths: []}", r"no .mcap, .db3, .bag, .bag.active file is in it"),
    ],
)
def test_metadata_that_cannot_be_used(tmp_path, text, reason):
    (tmp_path / "metadata.yaml").write_text(text)
    with pytest.raises(SourceError, match=f"not a recording that can be opened: .*{reason}"):
        open_recording(tmp_path)


def test_a_list_of_no_files_beside_files(tmp_path):
    folder = tmp_path / "drive"
    split(folder, ".mcap", [range(4), range(4, 8)])
    describe(folder, [])
    assert numbers(folder) == list(range(8))


def test_what_is_no_recording(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("a text")
    assert find_bag(text) is None and find_bag(tmp_path) is None
    named = tmp_path / "x.mcap"
    named.write_text("a text")
    assert find_bag(named) == named and find_bag(tmp_path) == tmp_path
    with pytest.raises(SourceError, match="x.mcap: not a recording that can be opened: it begins with none of MCAP's"):
        open_recording(named)
    named.write_bytes(gzip.compress(write(tmp_path / "y.mcap", range(3)).read_bytes()))
    with pytest.raises(SourceError, match="x.mcap: not a recording .*: it is compressed by gzip; decompress it first"):
        open_recording(named)
    named.write_bytes(zstandard.compress(b"a text"))
    with pytest.raises(SourceError, match="x.mcap: not a recording .*: it begins with none of MCAP's"):
        open_recording(named)


def test_the_metadata_may_be_named_for_the_recording(tmp_path):
    folder = tmp_path / "drive"
    describe_names = split(folder, ".mcap", [range(4)])
    describe(folder, describe_names)
    assert find_bag(folder / "metadata.yaml") == folder
    shutil.copy(folder / "metadata.yaml", tmp_path / "other.yaml")
    assert find_bag(tmp_path / "other.yaml") is None


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("since", [0, 1, 7, 19, 20, 21, 40])
def test_messages_from_a_time_on_are_those_of_the_whole(tmp_path, storage, since):
    """Also where several were received at the same time, and where a recording is split."""
    suffix = STORAGES[storage]
    order = [*range(15), 15, 15, 15, *range(18, 40)]
    whole = write(tmp_path / f"whole{suffix}", order)
    folder = tmp_path / "split"
    split(folder, suffix, [order[:18], order[18:]])
    for path in (whole, folder):
        recording = open_recording(path)
        every = [(m.received_ns, bytes(m.data)) for m in recording.messages()]
        found = [(m.received_ns, bytes(m.data)) for m in recording.messages(recording.channels, since * STEP)]
        assert found == [one for one in every if one[0] >= since * STEP] and len(every) == 40
