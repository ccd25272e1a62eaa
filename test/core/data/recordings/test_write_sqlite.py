import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from vidseg_core.data.recordings.recording import Channel
from vidseg_core.data.recordings.sqlite import SqliteRecording
from vidseg_core.data.recordings.write_sqlite import SqliteWriter, sqlite_cannot_hold

IMAGE = Channel(
    11, "/image", "sensor_msgs/msg/Image", "cdr", b"uint8[] data", "ros2msg", {"topic_type_hash": "RIHS01_1"}
)
QOS = Channel(12, "/image", "sensor_msgs/msg/Image", "cdr", b"uint8[] data", "ros2msg", {"offered_qos_profiles": "- x"})
UNKNOWN = Channel(3, "/odd", "own/msg/Odd", "cdr", b"", "unknown", {"key": "of MCAP only"})


def write(path, *sent):
    writer = SqliteWriter(path, "ros2")
    added = {channel.id: writer.add(channel) for channel, *_ in sent}
    for channel, received_ns, data in sent:
        writer.write(channel, received_ns, 0, data)
    writer.finish("version: 8")
    return added


def test_what_is_written_reads_back(tmp_path):
    path = tmp_path / "a.db3"
    sent = [(IMAGE, 5, b"one"), (UNKNOWN, -3, b""), (QOS, 2**63 - 1, b"three" * 10_000)]
    added = write(path, *sent)
    assert {number: channel.id for number, channel in added.items()} == {11: 1, 3: 2, 12: 3}
    recording = SqliteRecording(path)
    empty = {"offered_qos_profiles": "", "topic_type_hash": ""}
    assert recording.channels == (
        replace(IMAGE, id=1, metadata=empty | IMAGE.metadata),
        replace(UNKNOWN, id=2, definition_encoding="", metadata=empty),
        replace(QOS, id=3, metadata=empty | QOS.metadata),
    )
    found = [(message.channel.topic, message.received_ns, bytes(message.data)) for message in recording.messages()]
    assert found == [("/odd", -3, b""), ("/image", 5, b"one"), ("/image", 2**63 - 1, b"three" * 10_000)]


def test_tables(tmp_path):
    path = tmp_path / "a.db3"
    write(path, (IMAGE, 5, b"one"), (UNKNOWN, 6, b"two"), (replace(IMAGE, id=4, topic="/second"), 7, b"three"))
    with closing(sqlite3.connect(path)) as database:
        assert list(database.execute("SELECT schema_version FROM schema")) == [(4,)]
        assert list(database.execute("SELECT metadata_version, metadata FROM metadata")) == [(8, "version: 8")]
        assert list(database.execute("SELECT * FROM topics")) == [
            (1, "/image", "sensor_msgs/msg/Image", "cdr", "", "RIHS01_1"),
            (2, "/odd", "own/msg/Odd", "cdr", "", ""),
            (3, "/second", "sensor_msgs/msg/Image", "cdr", "", "RIHS01_1"),
        ]
        # One for the type, and none that is unknown.
        query = (
            "SELECT topic_type, encoding, encoded_message_definition, type_description_hash FROM message_definitions"
        )
        assert list(database.execute(query)) == [("sensor_msgs/msg/Image", "ros2msg", "uint8[] data", "RIHS01_1")]
        assert list(database.execute("PRAGMA integrity_check")) == [("ok",)]
        assert list(database.execute("SELECT name FROM sqlite_master WHERE type = 'index'")) == [("timestamp_idx",)]


def test_channels_that_nothing_tells_apart_are_one(tmp_path):
    path = tmp_path / "a.db3"
    added = write(path, (IMAGE, 5, b"one"), (replace(IMAGE, id=4), 6, b"two"), (QOS, 7, b"three"))
    assert [added[number].id for number in (11, 4, 12)] == [1, 1, 2]
    with closing(sqlite3.connect(path)) as database:
        assert list(database.execute("SELECT topic_id, data FROM messages ORDER BY id")) == [
            (1, b"one"), (1, b"two"), (2, b"three"),
        ]  # fmt: skip


def test_a_definition_that_is_no_utf_8(tmp_path):
    latin = replace(IMAGE, definition="# 20 \xb0C\nuint8[] data".encode("latin-1"))
    write(tmp_path / "a.db3", (latin, 5, b"one"))
    (channel,) = SqliteRecording(tmp_path / "a.db3").channels
    assert channel.definition.decode() == "# 20 \ufffdC\nuint8[] data"


def test_recordings_that_sqlite_cannot_hold():
    assert sqlite_cannot_hold([IMAGE, UNKNOWN], (-5, 2**63 - 1)) is None and sqlite_cannot_hold([], None) is None
    json = replace(IMAGE, topic="/json", encoding="json")
    assert sqlite_cannot_hold([IMAGE, json], None) == "/json, whose messages are serialized as json"
    nothing = replace(json, encoding="")
    assert sqlite_cannot_hold([nothing], None) == "/json, whose messages are serialized as nothing known"
    assert sqlite_cannot_hold([IMAGE], (0, 2**63)) == "messages received 9223372036854775808 ns after the epoch"


def test_an_aborted_file_has_no_messages(tmp_path):
    writer = SqliteWriter(tmp_path / "a.db3", "ros2")
    writer.add(IMAGE)
    writer.abort()
    with pytest.raises(sqlite3.ProgrammingError):
        writer.finish("")
