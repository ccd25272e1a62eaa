"""Write rosbag2's SQLite storage, with the tables that Iron to Kilted write and Humble reads, too."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from vidseg_core.data.recordings.recording import Channel
from vidseg_core.data.recordings.rosbag2 import QOS, TYPE_HASH, VERSION

_TABLES = """
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE topics(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, serialization_format TEXT NOT NULL,
  offered_qos_profiles TEXT NOT NULL, type_description_hash TEXT NOT NULL
);
CREATE TABLE message_definitions(
  id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL, encoding TEXT NOT NULL, encoded_message_definition TEXT NOT NULL,
  type_description_hash TEXT NOT NULL
);
CREATE TABLE messages(
  id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO schema(schema_version, ros_distro) VALUES (4, 'unknown');
"""
# Those that readers of the table know; one that stands there beside others keeps rosbags from opening the recording.
_DEFINITIONS = ("ros2msg", "ros2idl")
_LONGEST_NAME = 100  # in messages


class SqliteWriter:
    """A database of messages. Channels that nothing tells apart become one.

    Args:
        path: of the file, which must not exist.

    Raises:
        sqlite3.Error, OSError: it cannot be written; as does every method.
    """

    storage = "sqlite3"
    suffix = ".db3"

    def __init__(self, path: Path, profile: str):
        self._topics: dict[int, int] = {}  # a channel's id -> its row
        self._rows: dict[tuple, Channel] = {}
        self._definitions: set[tuple[str, str, bytes, str]] = set()
        # No journal: what is not completed is removed with its folder.
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(f"PRAGMA page_size=16384; PRAGMA journal_mode=OFF; {_TABLES} BEGIN")

    def add(self, channel: Channel) -> Channel:
        """Store a channel; return it as stored, with the id of its row."""
        qos, digest = channel.metadata.get(QOS, ""), channel.metadata.get(TYPE_HASH, "")
        definition = (channel.type, channel.definition_encoding, channel.definition, digest)
        key = (channel.topic, channel.encoding, qos, definition)
        if key in self._rows:
            self._topics[channel.id] = self._rows[key].id
            return self._rows[key]
        metadata = {key: value for key, value in ((QOS, qos), (TYPE_HASH, digest)) if value}
        row = self._rows[key] = replace(channel, id=len(self._rows) + 1, metadata=metadata)
        self._topics[channel.id] = row.id
        self._database.execute(
            "INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?)",
            (row.id, channel.topic, channel.type, channel.encoding, qos, digest),
        )
        if channel.definition_encoding in _DEFINITIONS and definition not in self._definitions:
            self._definitions.add(definition)
            self._database.execute(
                "INSERT INTO message_definitions"
                "(topic_type, encoding, encoded_message_definition, type_description_hash) VALUES (?, ?, ?, ?)",
                (*definition[:2], channel.definition.decode("utf-8", "replace"), digest),
            )
        return row

    def write(self, channel: Channel, received_ns: int, published_ns: int, data: bytes | memoryview) -> None:
        """Append a message of a channel that was added; this storage has no room for `published_ns`."""
        self._database.execute(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
            (self._topics[channel.id], received_ns, data),
        )

    def finish(self, metadata: str) -> None:
        """Complete the file; `metadata`, a recording's in YAML, is stored in it, too."""
        self._database.execute("INSERT INTO metadata(metadata_version, metadata) VALUES (?, ?)", (VERSION, metadata))
        self._database.execute("COMMIT")
        self._database.close()

    def abort(self) -> None:
        """Close the file as it is."""
        self._database.close()


def sqlite_cannot_hold(channels: Collection[Channel], span: tuple[int, int] | None) -> str | None:
    """Say what of a recording SQLite storage cannot hold; None: it holds everything.

    Its readers, rosbag2 and rosbags, take recordings whose messages are all serialized in CDR.
    """
    for channel in channels:
        if channel.encoding != "cdr":
            encoding = channel.encoding[:_LONGEST_NAME] or "nothing known"
            return f"{channel.topic[:_LONGEST_NAME]}, whose messages are serialized as {encoding}"
    if span is not None and span[1] >= 2**63:
        return f"messages received {span[1]} ns after the epoch"
    return None
