"""rosbag2's recordings in SQLite, of every distribution from the first on, read without changing a byte of them."""

from __future__ import annotations

import os
import sqlite3
import struct
from array import array
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from vidseg_core.data.recordings.compression import MOST_BYTES, decompress_message
from vidseg_core.data.recordings.recording import (
    Channel,
    DamageError,
    OpenWhileRead,
    StoredMessage,
    ros2_type,
    seconds,
    tell_once,
    warn_once,
)
from vidseg_core.data.recordings.scratch import Scratch, copied
from vidseg_core.errors import SourceError

MAGIC = b"SQLite format 3\0"

# Beside the database: changes that are not in it yet, or that are to be taken back.
_UINT32 = struct.Struct(">I")
_LOGS = ("-wal", "-journal")

# Steps of SQLite's machine: it asks after so many, and takes at most so many for a byte of the file and altogether.
_STEPS, _STEPS_PER_BYTE, _MOST_STEPS = 10**5, 20, 10**7


class SqliteRecording(OpenWhileRead):
    """A `Recording` in an SQLite file. The file is open only while something of it is read.

    A log of changes beside the file (`-wal`, `-journal`), as a killed recorder leaves it, is taken into account on a
    temporary copy. Of a damaged file, what can be read is read, with one warning.

    Args:
        path: of the file.
        scratch: what to read in its place.

    Raises:
        SourceError: not such a recording.
    """

    profile = "ros2"
    storage = "sqlite3"

    def __init__(self, path: Path, scratch: Scratch | None = None):
        self.path = path
        self._whole: dict[int, tuple[array, array]] | None = None
        self._found_for: frozenset[int] | None = None
        self._found = array("q"), array("q")
        self._scratch, damage = _settled(path, scratch)
        self._file = path if self._scratch is None else self._scratch.path
        self._most_bytes = min(MOST_BYTES, self._file.stat().st_size)
        try:
            with closing(_connect(self._file)) as database:
                self.channels = tuple(_channels(database))
                try:
                    self._counts, self.span = _statistics(database)
                except (sqlite3.Error, DamageError) as error:
                    damage = damage or str(error)
                if damage is not None:
                    self._take_whole(database, damage)
        except (sqlite3.Error, DamageError) as error:
            raise SourceError(f"{self.path}: not a recording that can be opened: {error}") from error

    def count(self, channels: Collection[Channel]) -> int:
        """Count the messages of these channels."""
        return sum(self._counts.get(channel.id, 0) for channel in channels)

    def received(self, channels: Collection[Channel]) -> list[int]:
        """List when these channels' messages were received, in nanoseconds, ascending."""
        return sorted(self._find([channel.id for channel in channels])[0])

    def messages(
        self, channels: Collection[Channel] | None = None, since_ns: int | None = None
    ) -> Iterator[StoredMessage]:
        """Iterate over the messages of these channels, as `Recording.messages` describes."""
        wanted = {channel.id: channel for channel in (self.channels if channels is None else channels)}
        times, rows = self._find(wanted)
        with closing(_connect(self._file)) as database:
            chosen = (i for i in range(len(times)) if since_ns is None or times[i] >= since_ns)
            for i in sorted(chosen, key=times.__getitem__):
                try:
                    topic, data = _row(database, rows[i], self._most_bytes)
                    channel = wanted[topic]
                except (sqlite3.Error, DamageError, KeyError) as error:
                    raise SourceError(
                        f"{self.path}: the recording is damaged from {seconds(times[i])} s on: {error}"
                    ) from error
                content = decompress_message(data) if channel.encoding == "cdr" else data
                yield StoredMessage(channel, times[i], times[i], content)

    def _find(self, topics: Collection[int]) -> tuple[array, array]:
        """When the messages of these topics were received, and their rows; what was found last is remembered."""
        wanted = frozenset(topics)
        if wanted != self._found_for:
            self._found = self._look_up(wanted)
            self._found_for = wanted
        return self._found

    def _look_up(self, topics: frozenset[int]) -> tuple[array, array]:
        times, rows = array("q"), array("q")
        if self._whole is not None:
            for topic in sorted(topics & self._whole.keys()):
                times += self._whole[topic][0]
                rows += self._whole[topic][1]
            return times, rows
        with closing(_connect(self._file)) as database:
            try:
                for _, when, row in _stored(database, topics):
                    times.append(when)
                    rows.append(row)
            except sqlite3.Error:
                pass  # opening it counted them: it is damaged since, and fewer come than are counted
        return times, rows

    def _take_whole(self, database: sqlite3.Connection, damage: str) -> None:
        """Look which messages of a damaged file can be read, and warn that these are all.

        Raises:
            SourceError: none can.
        """
        self._whole = {}
        found = array("q"), array("q"), array("q")
        try:
            for message in _stored(database, None):
                for values, value in zip(found, message, strict=True):
                    values.append(value)
        except sqlite3.Error:
            pass  # what came before counts
        # Not while the table is gone through: SQLite would find its place again by a row, which may lie before it.
        for topic, when, row in zip(*found, strict=True):
            try:
                _row(database, row, self._most_bytes)
            except (sqlite3.Error, DamageError):
                continue
            times, rows = self._whole.setdefault(topic, (array("q"), array("q")))
            times.append(when)
            rows.append(row)
        self._counts = {topic: len(times) for topic, (times, _) in self._whole.items()}
        if not self._whole:
            raise DamageError(f"no whole message can be found in it: {damage}")
        spans = [(min(times), max(times)) for times, _ in self._whole.values()]
        self.span = min(first for first, _ in spans), max(last for _, last in spans)
        warn_once(
            f"{self.path}: the recording is cut off or damaged: {damage}; read are the {sum(self._counts.values())} "
            f"whole messages that can be found, up to {seconds(self.span[1])} s"
        )


def _settled(path: Path, scratch: Scratch | None) -> tuple[Scratch | None, str | None]:
    """What to read in the place of a database that SQLite cannot read as it lies there; and in which way it is cut off.

    Raises:
        SourceError: it cannot be read, or there is no room for a copy.
    """
    logs = [log for suffix in _LOGS if (log := path.with_name(path.name + suffix)).is_file() and log.stat().st_size]
    if logs:
        tell_once(f"{path}: read with what is in {', '.join(log.name for log in logs)}, on a copy")
        return copied([path, *logs], _merge, f"{path}: {logs[0].name} beside it must be merged"), None
    file = path if scratch is None else scratch.path
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            head = opened.read(100)
    except OSError as error:
        raise SourceError(f"{path}: cannot be opened: {error.strerror}") from error
    if len(head) < 100 or not head.startswith(MAGIC):
        raise SourceError(f"{path}: not a recording that can be opened: it does not begin as SQLite does")
    page = int.from_bytes(head[16:18], "big")
    page = 65536 if page == 1 else page
    change, pages, valid_for = (_UINT32.unpack_from(head, offset)[0] for offset in (24, 28, 92))
    announced = pages * page if change == valid_for else 0
    cut = f"{announced} bytes are announced, the file ends at {size}" if size < announced else None
    if page >= 512 and size % page:  # SQLite would take what is missing of the last page for zeros
        return copied([file], lambda copy: _shorten(copy, size - size % page), f"{path}: it is cut off"), cut or "cut"
    return scratch, cut


def _merge(path: Path) -> None:
    """Let SQLite merge the log into the (copied) database."""
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            database.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.Error:
        pass  # what is damaged is found when it is read


def _shorten(path: Path, size: int) -> None:
    path.chmod(0o600)
    os.truncate(path, size)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database as one that nobody changes: neither a lock nor a file beside it is needed."""
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    except sqlite3.Error as error:
        raise SourceError(f"{path}: cannot be opened: {error}") from error
    # The file of a database that is cut off is shorter than its header says; only so it is opened all the same.
    database.execute("PRAGMA writable_schema=ON")
    database.execute("PRAGMA cell_size_check=ON")
    # No sound file takes that many steps; one is given up whose damaged pages lead round and round.
    left = iter(range((_STEPS_PER_BYTE * path.stat().st_size + _MOST_STEPS) // _STEPS))
    database.set_progress_handler(lambda: next(left, None) is None, _STEPS)
    database.text_factory = lambda text: text.decode("utf-8", "replace")
    return database


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in database.execute(f"PRAGMA table_info({table})")}


def _channels(database: sqlite3.Connection) -> Iterator[Channel]:
    """Read the topics; which columns there are depends on the distribution.

    Raises:
        DamageError: the tables of a recording are not there.
    """
    columns = _columns(database, "topics")
    missing = {"id", "name", "type"} - columns
    missing |= {"id", "topic_id", "timestamp", "data"} - _columns(database, "messages")
    if missing:
        raise DamageError(f"a database without a recording's {', '.join(sorted(missing))}")
    definitions = _definitions(database)
    optional = [
        name if name in columns else "NULL"
        for name in ("serialization_format", "offered_qos_profiles", "type_description_hash")
    ]
    query = f"SELECT id, name, type, {', '.join(optional)} FROM topics ORDER BY id"
    for topic, name, kind, encoding, qos, digest in database.execute(query):
        if not (isinstance(topic, int) and isinstance(name, str) and isinstance(kind, str)):
            described = ", ".join(repr(value)[:40] for value in (topic, name, kind))
            raise DamageError(f"a topic is described by {described}")
        metadata = {"offered_qos_profiles": qos, "topic_type_hash": digest}
        definition_encoding, definition = definitions.get((kind, digest)) or definitions.get((kind, None)) or ("", b"")
        yield Channel(
            topic,
            name,
            ros2_type(kind),
            encoding if isinstance(encoding, str) else "cdr",
            definition,
            definition_encoding,
            {key: value for key, value in metadata.items() if isinstance(value, str)},
        )


def _definitions(database: sqlite3.Connection) -> dict[tuple[str, str | None], tuple[str, bytes]]:
    """(encoding, text) by (type, hash), and by (type, None)."""
    columns = _columns(database, "message_definitions")
    if not {"topic_type", "encoding", "encoded_message_definition"} <= columns:
        return {}
    digest = "type_description_hash" if "type_description_hash" in columns else "NULL"
    query = f"SELECT topic_type, encoding, encoded_message_definition, {digest} FROM message_definitions"
    found: dict[tuple[str, str | None], tuple[str, bytes]] = {}
    for kind, encoding, text, hashed in database.execute(query):
        if isinstance(encoding, str) and isinstance(text, str):
            found[kind, hashed] = found[kind, None] = encoding, text.encode()
    return found


def _statistics(database: sqlite3.Connection) -> tuple[dict[int, int], tuple[int, int] | None]:
    """Messages by topic, and when the first and the last was received."""
    query = "SELECT topic_id, count(*), min(timestamp), max(timestamp) FROM messages NOT INDEXED GROUP BY topic_id"
    rows = database.execute(query).fetchall()
    if any(not isinstance(value, int) for row in rows for value in row):
        raise DamageError("a message without a time")
    span = (min(row[2] for row in rows), max(row[3] for row in rows)) if rows else None
    return {row[0]: row[1] for row in rows}, span


def _stored(database: sqlite3.Connection, topics: Collection[int] | None) -> Iterator[tuple[int, int, int]]:
    """(topic, time, row) of each message; the messages are not read."""
    # The table itself is gone through: it is not the index that says what there is.
    query = "SELECT topic_id, timestamp, id FROM messages NOT INDEXED"
    if topics is not None:
        query += f" WHERE topic_id IN ({','.join(str(int(topic)) for topic in topics)})"
    for topic, when, row in database.execute(query):
        if isinstance(topic, int) and isinstance(when, int) and isinstance(row, int):
            yield topic, when, row


def _row(database: sqlite3.Connection, row: int, most_bytes: int) -> tuple[int, bytes]:
    # The length stands before the message, which is not read if it is too long.
    query = "SELECT topic_id, data FROM messages WHERE id = ? AND length(data) <= ?"
    found = database.execute(query, (row, most_bytes)).fetchone()
    if found is None:
        raise DamageError(f"message {row} is not found, or has more than {most_bytes} bytes")
    if not isinstance(found[1], bytes):
        raise DamageError(f"message {row} is not one of bytes")
    return found
