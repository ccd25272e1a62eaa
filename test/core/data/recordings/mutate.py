"""Read damaged recordings: `python mutate.py COUNT [SEED]` says what became of them; only errors and frames are right.

A process of its own, so that its memory is that of reading.
"""

import logging
import random
import resource
import sqlite3
import struct
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from io import BytesIO
from pathlib import Path

import zstandard
from mcap.writer import CompressionType, Writer
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from vidseg_core.data.bag import BagSource
from vidseg_core.data.recordings.open import open_recording
from vidseg_core.errors import VidsegError

TOPICS = ("/camera/image_raw", "/camera/other")
TYPE = "sensor_msgs/msg/Image"
COUNT = 12
SIDE = 72
START_NS = 1_700_000_000 * 10**9
LONGEST_S = 10


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


def bases(folder):
    """Whole recordings by name."""
    found = {
        f"{kind.name} {chunked}.mcap": mcap(kind, chunked) for kind in CompressionType for chunked in (True, False)
    }
    found["sqlite.db3"] = sqlite(folder)
    for kind in (None, Ros1Writer.CompressionFormat.BZ2, Ros1Writer.CompressionFormat.LZ4):
        found[f"{kind}.bag"] = bag(folder, kind)
    found["packed.mcap.zstd"] = zstandard.compress(found["NONE True.mcap"])
    return found


def mutated(data, rng):
    """Damage a file in one of the ways in which files are damaged, or in which attackers would."""
    data, kind = bytearray(data), rng.randrange(7)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        size = len(data)
        if size < 20:
            break
        near = min(size, 2000)
        at = rng.choice((rng.randrange(size), rng.randrange(near), size - 1 - rng.randrange(near)))
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
            data[at : at + rng.randrange(1, 3000)] = bytes(min(size - at, 3000))
        else:
            data[at : at + 64] = rng.randbytes(64)
    return bytes(data)


def main(count, seed):
    logging.disable(logging.CRITICAL)
    outcomes, slowest_s = Counter(), 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = bases(folder)
        for base, data in whole.items():
            path = folder / base
            path.write_bytes(data)
            assert len(list(BagSource(path, topic=TOPICS[0]))) == COUNT, base
        names = sorted(whole)
        for number in range(seed, seed + count):
            rng = random.Random(number)
            base = rng.choice(names)
            path = folder / f"{number}-{base}"
            path.write_bytes(mutated(whole[base], rng))
            begin_s = time.perf_counter()
            try:
                frames = sum(1 for _ in BagSource(path, topic=TOPICS[0], skip_bad=bool(number % 2)))
                outcomes["whole" if frames == COUNT else "in part"] += 1
            except VidsegError as error:
                assert len(str(error)) < 1000, (number, str(error))
                outcomes["error"] += 1
            try:
                with open_recording(path) as recording:
                    assert all(message.received_ns >= 0 or path.suffix == ".db3" for message in recording.messages())
            except VidsegError:
                pass
            taken_s = time.perf_counter() - begin_s
            slowest_s = max(slowest_s, taken_s)
            assert taken_s < LONGEST_S, (number, base, taken_s)
            path.unlink()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{dict(outcomes)}, slowest {slowest_s:.2f} s, peak {peak_mib} MiB")
    assert peak_mib < 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
