"""Label and copy damaged recordings: `python mutate.py COUNT [SEED]` says what became of them.

Only errors and labels are right. A process of its own, so that its memory is that of reading and writing; it ends
itself where a recording takes too long or too much.
"""

import faulthandler
import logging
import random
import resource
import shutil
import sqlite3
import struct
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from io import BytesIO
from pathlib import Path

import numpy as np
import zstandard
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from vidseg_core.data.bag import BagSource
from vidseg_core.data.bag_writer import STORAGES, BagExtender, BagWriter
from vidseg_core.data.recordings.open import open_recording
from vidseg_core.data.recordings.recording import Channel
from vidseg_core.errors import ConfigError, VidsegError
from vidseg_ros.pass_through import PassThrough

TOPICS = ("/camera/image_raw", "/camera/other")
TYPE = "sensor_msgs/msg/Image"
COUNT = 12
SIDE = 72
START_NS = 1_700_000_000 * 10**9
LONGEST_S = 10
MOST_BYTES = 2**30


def pixels(i):
    return bytes((i * 17 + (k // 64)) % 256 for k in range(SIDE * SIDE * 3))


def cdr(i):
    head = b"\0\1\0\0" + struct.pack("<iII", 1_700_000_000, i, 2) + b"c\0\0\0"
    return (
        head
        + struct.pack("<III", SIDE, SIDE, 5)
        + b"rgb8\0\0\0\0"
        + struct.pack("<II", SIDE * 3, SIDE * SIDE * 3)
        + pixels(i)
    )


def ros1(i):
    head = struct.pack("<IIII", i, 1_700_000_000, i, 1) + b"c"
    return (
        head
        + struct.pack("<III", SIDE, SIDE, 4)
        + b"rgb8"
        + struct.pack("<BII", 0, SIDE * 3, SIDE * SIDE * 3)
        + pixels(i)
    )


def mcap(compression, chunked):
    file = BytesIO()
    writer = Writer(file, chunk_size=60_000, compression=compression, use_chunking=chunked)
    writer.start("ros2")
    schema = writer.register_schema(TYPE, "ros2msg", b"")
    channels = [writer.register_channel(topic, "cdr", schema) for topic in TOPICS]
    for i in range(COUNT):
        for channel in channels:
            writer.add_message(channel, START_NS + i * 10**8, cdr(i), START_NS)
    writer.finish()
    return file.getvalue()


def sqlite(folder):
    path = folder / "base.db3"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT)")
        database.execute(
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB)"
        )
        database.execute("CREATE INDEX timestamp_idx ON messages (timestamp ASC)")
        for number, topic in enumerate(TOPICS):
            database.execute("INSERT INTO topics VALUES (?, ?, ?, 'cdr')", (number, topic, TYPE))
        for i in range(COUNT):
            for number in range(len(TOPICS)):
                row = (number, START_NS + i * 10**8, cdr(i))
                database.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", row)
        database.commit()
    return path.read_bytes()


def bag(folder, compression):
    path = folder / f"base{compression}.bag"
    writer = Ros1Writer(path)
    writer.chunk_threshold = 60_000
    if compression:
        writer.set_compression(compression)
    with writer:
        store = get_typestore(Stores.ROS1_NOETIC)
        connections = [writer.add_connection(topic, TYPE, typestore=store) for topic in TOPICS]
        for i in range(COUNT):
            for connection in connections:
                writer.write(connection, START_NS + i * 10**8, ros1(i))
    return path.read_bytes()


def ours(folder, storage):
    """As vidseg writes it: with QoS, type hashes, definitions, a topic of two channels and one of unknown type."""
    with BagWriter(folder / storage, storage) as bag:
        odd = [
            Channel(7, "/odd", "own/msg/Odd", "cdr", b"int32 x", "ros2msg", {"topic_type_hash": "RIHS01_1"}),
            Channel(8, "/odd", "own/srv/Odd_Event", "cdr", b"", "unknown"),
        ]
        for i in range(COUNT):
            for topic in TOPICS:
                image = np.frombuffer(pixels(i), np.uint8).reshape(SIDE, SIDE, 3)
                bag.write_image(topic, "rgb8", image, START_NS + i * 10**8)
            bag.write(odd[i % 2], START_NS + i * 10**8, START_NS, b"\0\1\0\0" + bytes(i))
    (file,) = (path for path in (folder / storage).iterdir() if path.suffix != ".yaml")
    return file.read_bytes()


def bases(folder):
    """Whole recordings by name."""
    found = {
        f"{kind.name} {chunked}.mcap": mcap(kind, chunked) for kind in CompressionType for chunked in (True, False)
    }
    found["sqlite.db3"] = sqlite(folder)
    for kind in (None, Ros1Writer.CompressionFormat.BZ2, Ros1Writer.CompressionFormat.LZ4):
        found[f"{kind}.bag"] = bag(folder, kind)
    found |= {f"ours.{'db3' if storage == 'sqlite3' else storage}": ours(folder, storage) for storage in STORAGES}
    found["packed.mcap.zstd"] = zstandard.compress(found["NONE True.mcap"])
    return found


def records(data):
    """Offsets where the structure of a file stands: records of MCAP and ROS 1, pages of SQLite."""
    found, at = [], 0
    if data.startswith(b"SQLite"):
        return list(range(0, len(data), int.from_bytes(data[16:18], "big")))
    if data.startswith(b"\x89MCAP"):
        at = 8
        while at + 9 <= len(data) - 8:
            found.append(at)
            at += 9 + struct.unpack_from("<Q", data, at + 1)[0]
    elif data.startswith(b"#ROSBAG"):
        at = data.index(b"\n") + 1
        while at < len(data):
            found.append(at)
            for _ in range(2):
                at += 4 + struct.unpack_from("<I", data, at)[0]
    return found or [0]


def mutated(data, rng):
    """Damage a file in one of the ways in which files are damaged, or in which attackers would."""
    places = records(data)
    data, kind = bytearray(data), rng.randrange(8)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        size = len(data)
        if size < 20:
            break
        near = min(size, 2000)
        at = rng.choice((rng.randrange(size), rng.randrange(near), size - 1 - rng.randrange(near)))
        if rng.random() < 0.4:
            at = min(rng.choice(places) + rng.randrange(64), size - 1)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            number = rng.choice((2**64 - 1, 0, rng.randrange(2**63), rng.randrange(2**32), rng.randrange(2**20)))
            data[at : at + 8] = struct.pack("<Q", number)[: size - at]
        elif kind == 3:
            del data[at : at + rng.randrange(1, 5000)]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 300))
        elif kind == 5:
            end = min(size, at + rng.randrange(1, 3000))
            data[at:end] = bytes(end - at)
        elif kind == 6:
            data[at : at + 64] = rng.randbytes(min(64, size - at))
        else:  # parts of the file in another order
            first, second = sorted((rng.choice(places), at))
            data = data[:first] + data[second:] + data[first:second]
    return bytes(data)


def label(path, copy, storage, skip_bad):
    """Label a recording as `vidseg replay --bag-out` does, with an engine that computes nothing; count the labels."""
    source = BagSource(path, topic=TOPICS[0], skip_bad=skip_bad)
    stream, found = PassThrough().stream(), 0
    with BagExtender(path, TOPICS[0], ["/camera/labels"], copy, storage) as bag:
        frames = iter(source)
        while frame := following(frames):
            images = {"/camera/labels": ("mono8", stream.step(frame).labels)}
            try:
                bag.add(int(frame.name), images)
            except VidsegError as error:
                raise AssertionError(f"{path}: what is read cannot be copied") from error
            found += 1
    return found


def following(frames):
    """The next frame; None where the recording ends or is damaged."""
    try:
        return next(frames, None)
    except VidsegError:
        return None


def check(copy, count):
    """Read a copy with vidseg and with the format's own reader."""
    if count:
        assert sum(1 for _ in BagSource(copy, topic="/camera/labels")) == count
    with open_recording(copy) as recording:
        messages = sum(1 for _ in recording.messages())
    (file,) = (path for path in copy.iterdir() if path.suffix != ".yaml")
    if file.suffix == ".mcap":
        with file.open("rb") as opened:
            reader = make_reader(opened, validate_crcs=True)
            assert sum(1 for _ in reader.iter_messages()) == messages
            assert reader.get_summary().statistics.message_count == messages
    else:
        with closing(sqlite3.connect(file)) as database:
            assert database.execute("SELECT count(*) FROM messages").fetchall() == [(messages,)]
            assert database.execute("PRAGMA quick_check").fetchall() == [("ok",)]


def recordings(folder, count, seed):
    """(number, path) of damaged recordings, one at a time."""
    whole = bases(folder)
    for base, data in whole.items():
        path = folder / base
        path.write_bytes(data)
        assert label(path, folder / "copy", None, False) == COUNT, base
        check(folder / "copy", COUNT)
        shutil.rmtree(folder / "copy")
    names = sorted(whole)
    for number in range(seed, seed + count):
        rng = random.Random(number)
        base = rng.choice(names)
        path = folder / f"{number}-{base}"
        path.write_bytes(mutated(whole[base], rng))
        yield number, path
        path.unlink()


def peak_bytes():
    """Most memory of this process. (`ru_maxrss` counts that of the process which has started it, too.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main(count, seed):
    logging.disable(logging.CRITICAL)
    outcomes, slowest_s = Counter(), 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, path in recordings(folder, count, seed):
            if not outcomes:
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))
            faulthandler.dump_traceback_later(6 * LONGEST_S, exit=True)
            begin_s, copy = time.perf_counter(), folder / "copy"
            storage = (None, *STORAGES)[number % 3]
            try:
                found = label(path, copy, storage, bool(number % 2))
                check(copy, found)
                shutil.rmtree(copy)
                outcomes["whole" if found == COUNT else "in part"] += 1
            except VidsegError as error:
                assert len(str(error)) < 1000, (number, str(error))
                assert not copy.exists(), number
                outcomes["not stored" if isinstance(error, ConfigError) else "error"] += 1
            taken_s = time.perf_counter() - begin_s
            slowest_s = max(slowest_s, taken_s)
            assert taken_s < LONGEST_S, (number, path.name, taken_s)
    faulthandler.cancel_dump_traceback_later()
    peak_mib = peak_bytes() // 2**20
    print(f"{dict(outcomes)}, slowest {slowest_s:.2f} s, peak {peak_mib} MiB")
    assert peak_mib < 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
