import hashlib
import shutil
import sqlite3
from contextlib import closing

import pytest
import zstandard

from vidseg_core.data.recordings import sqlite
from vidseg_core.data.recordings.recording import Channel
from vidseg_core.data.recordings.sqlite import SqliteRecording
from vidseg_core.errors import SourceError

START = 1_700_000_000 * 10**9
STEP = 50_000_000

# The tables of each distribution, as its rosbag2_storage_sqlite3 creates them.
MESSAGES = "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, data BLOB NOT NULL)"  # fmt: skip  # noqa: E501
INDEX = "CREATE INDEX timestamp_idx ON messages (timestamp ASC)"
TOPICS = "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, serialization_format TEXT NOT NULL"  # fmt: skip  # noqa: E501
SCHEMA = "CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL)"
METADATA = "CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT NOT NULL)"
DEFINITIONS = "CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL, encoding TEXT NOT NULL, encoded_message_definition TEXT NOT NULL, type_description_hash TEXT NOT NULL)"  # fmt: skip  # noqa: E501
QOS, HASH = ", offered_qos_profiles TEXT NOT NULL", ", type_description_hash TEXT NOT NULL"
DISTRIBUTIONS = {
    "dashing": [MESSAGES, TOPICS + ")"],
    "foxy": [MESSAGES, INDEX, TOPICS + QOS + ")"],
    "galactic": [MESSAGES, INDEX, TOPICS + QOS + ")"],
    "humble": [SCHEMA, METADATA, MESSAGES, INDEX, TOPICS + QOS + ")"],
    "iron": [SCHEMA, METADATA, MESSAGES, INDEX, TOPICS + QOS + HASH + ")", DEFINITIONS],
}
DISTRIBUTIONS["jazzy"] = DISTRIBUTIONS["kilted"] = DISTRIBUTIONS["iron"]


def payload(i, size=9000):
    return b"\0\1\0\0" + bytes([i]) * size


def create(path, distribution="iron"):
    database = sqlite3.connect(path)
    for statement in DISTRIBUTIONS[distribution]:
        database.execute(statement)
    row = [7, "/image", "sensor_msgs/msg/Image", "cdr", "- history: 3", "RIHS01_1"]
    odd = [9, "/go", "x/action/Go_FeedbackMessage", "cdr", "", ""]
    columns = len(database.execute("PRAGMA table_info(topics)").fetchall())
    for values in (row, odd):
        database.execute(f"INSERT INTO topics VALUES ({','.join('?' * columns)})", values[:columns])
    if DEFINITIONS in DISTRIBUTIONS[distribution]:
        insert = "INSERT INTO message_definitions VALUES (?, ?, ?, ?, ?)"
        database.execute(insert, (1, "sensor_msgs/msg/Image", "ros2msg", "uint8[] data", "RIHS01_1"))
        database.execute(insert, (2, "x/action/Go_FeedbackMessage", "unknown", "", ""))
    return database


def insert(database, numbers, pack=lambda data: data):
    for i in numbers:
        values = (START + i * STEP, pack(payload(i)))
        database.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (7, ?, ?)", values)
        database.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (9, ?, ?)", (values[0] + 1, b"odd"))


def write(path, numbers=range(20), distribution="iron", pack=lambda data: data):
    with closing(create(path, distribution)) as database:
        insert(database, numbers, pack)
        database.commit()
    return path


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_tables_of_every_distribution(tmp_path, distribution, check):
    path = write(tmp_path / "drive.db3", distribution=distribution)
    before = digests(tmp_path)
    with SqliteRecording(path) as recording:
        assert (recording.storage, recording.profile, recording.path) == ("sqlite3", "ros2", path)
        check(recording)
        assert len(list(recording.messages())) == recording.count(recording.channels) == 40
    image, odd = recording.channels
    metadata = {"offered_qos_profiles": "- history: 3", "topic_type_hash": "RIHS01_1"}
    if distribution == "dashing":
        metadata = {}
    elif DEFINITIONS not in DISTRIBUTIONS[distribution]:
        del metadata["topic_type_hash"]
    definition = (b"uint8[] data", "ros2msg") if "topic_type_hash" in metadata else (b"", "")
    assert image == Channel(7, "/image", "sensor_msgs/msg/Image", "cdr", *definition, metadata)
    assert (odd.id, odd.type) == (9, "x/action/Go_FeedbackMessage")
    assert digests(tmp_path) == before


def test_messages_come_in_the_order_of_receipt(tmp_path, check):
    check(SqliteRecording(write(tmp_path / "x.db3", [3, 1, 2, 0, *range(19, 3, -1)])))


def test_messages_that_were_compressed_one_by_one(tmp_path, check):
    check(SqliteRecording(write(tmp_path / "x.db3", pack=zstandard.compress)))


@pytest.mark.parametrize("name", ["a drive [front] 1.5%20.db3", "drive?x=1#y.db3", "größe.db3"])
def test_names(tmp_path, name, check):
    check(SqliteRecording(write(tmp_path / name)))


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_log_that_a_killed_recorder_left_is_read_and_stays(tmp_path, mode, caplog, check):
    caplog.set_level("INFO")
    recorder, left = tmp_path / "recorder", tmp_path / "left"
    recorder.mkdir()
    left.mkdir()
    with closing(create(recorder / "drive.db3")) as database:
        database.execute(f"PRAGMA journal_mode={mode}") if mode == "DELETE" else database.commit()
        database.execute(f"PRAGMA journal_mode={mode}")
        insert(database, range(8))
        database.commit()
        if mode == "WAL":
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            insert(database, range(8, 20))
            database.commit()
        else:  # changes that were begun are written over the pages, and must be taken back
            database.execute("PRAGMA cache_size=1")
            insert(database, range(8, 20))
            database.execute("UPDATE messages SET data = x'00'")
        for suffix in ("", "-wal", "-journal"):
            if (recorder / f"drive.db3{suffix}").exists():
                shutil.copy(recorder / f"drive.db3{suffix}", left)
        database.rollback()
    log = "drive.db3-wal" if mode == "WAL" else "drive.db3-journal"
    assert (left / log).stat().st_size > 0
    before = digests(left)
    left.chmod(0o555)
    check(SqliteRecording(left / "drive.db3"), 20 if mode == "WAL" else 8)
    check(SqliteRecording(left / "drive.db3"), 20 if mode == "WAL" else 8)
    left.chmod(0o755)
    assert digests(left) == before
    assert [record.getMessage() for record in caplog.records] == [
        f"{left}/drive.db3: read with what is in {log}, on a copy"
    ]


def test_a_log_that_finds_no_room_is_an_error(tmp_path, monkeypatch):
    path = write(tmp_path / "x.db3")
    (tmp_path / "x.db3-wal").write_bytes(bytes(100))
    monkeypatch.setattr("vidseg_core.data.recordings.scratch.FREE_BYTES", 2**60)
    with pytest.raises(SourceError, match=r"x.db3: x.db3-wal beside it must be merged: \d+ bytes more are needed in /"):
        SqliteRecording(path)


@pytest.mark.parametrize("share", [0.5, 0.75, 0.95])
def test_a_database_that_is_cut_off_gives_what_can_be_found_and_one_warning(tmp_path, caplog, share):
    path = write(tmp_path / "x.db3")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    recording = SqliteRecording(path)
    SqliteRecording(path)
    found = list(recording.messages(recording.channels[:1]))
    assert [m.data for m in found] == [payload(i) for i in range(len(found))] and 20 * share - 6 < len(found) < 20
    assert recording.count(recording.channels[:1]) == len(found)
    assert recording.received(recording.channels[:1]) == [m.received_ns for m in found]
    (record,) = caplog.records
    text = record.getMessage()
    assert "x.db3: the recording is cut off or damaged: 212992 bytes are announced, the file ends at" in text
    assert f"read are the {recording.count(recording.channels)} whole messages that can be found, up to 17000" in text


def test_what_is_no_recording(tmp_path):
    path = tmp_path / "x.db3"
    path.write_text("not a database" * 100)
    with pytest.raises(SourceError, match="x.db3: not a recording that can be opened: it does not begin as SQLite"):
        SqliteRecording(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE other(x)")
        database.commit()
    expected = "x.db3: not a recording that can be opened: a database without a recording's data, id, name, timestamp"
    with pytest.raises(SourceError, match=expected):
        SqliteRecording(path)


def test_a_message_that_is_no_bytes_ends_the_recording(tmp_path):
    path = write(tmp_path / "x.db3")
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE messages SET data = 'text' WHERE id = 11")
        database.commit()
    recording, found = SqliteRecording(path), []
    with pytest.raises(SourceError, match=r"x.db3: the recording is damaged from 1700000000.25\d+ s on: message 11 is"):
        for message in recording.messages(recording.channels[:1]):
            found.append(message)
    assert len(found) == 5


def test_a_file_that_takes_too_many_steps_is_given_up(tmp_path, monkeypatch, caplog):
    path = tmp_path / "drive.db3"
    with closing(create(path)) as database:
        insert(database, range(100))
        database.commit()
    monkeypatch.setattr(sqlite, "_STEPS", 100)
    monkeypatch.setattr(sqlite, "_STEPS_PER_BYTE", 0)
    monkeypatch.setattr(sqlite, "_MOST_STEPS", 20_000)
    assert len(list(SqliteRecording(path).messages())) == 200
    monkeypatch.setattr(sqlite, "_MOST_STEPS", 1000)
    assert 0 < len(list(SqliteRecording(path).messages())) < 200
    assert "cut off or damaged: interrupted; read are the" in caplog.text
