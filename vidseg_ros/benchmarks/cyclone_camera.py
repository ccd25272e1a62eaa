"""A camera on Cyclone DDS, without ROS: what `bench_ways` starts in a Python that has the package `cyclonedds`.

It speaks with its parent as `processes` does, publishes sensor_msgs/Image in XCDR1, and imports nothing of vidseg's.
"""

import argparse
import json
import os
import signal
import struct
import sys
import threading
import time
from dataclasses import dataclass, field

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import int32, sequence, uint8, uint32
from cyclonedds.pub import DataWriter
from cyclonedds.topic import Topic
from cyclonedds.util import duration

STAMP = struct.Struct("<iI")
PAUSE_S = 0.02


@dataclass
class Time(IdlStruct, typename="builtin_interfaces.msg.dds_.Time_"):
    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
class Header(IdlStruct, typename="std_msgs.msg.dds_.Header_"):
    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


@dataclass
class Image(IdlStruct, typename="sensor_msgs.msg.dds_.Image_"):
    header: Header = field(default_factory=Header)
    height: uint32 = 0
    width: uint32 = 0
    encoding: str = ""
    is_bigendian: uint8 = 0
    step: uint32 = 0
    data: sequence[uint8] = field(default_factory=list)


def serialized(width: int, height: int) -> bytearray:
    """Write a sensor_msgs/Image of noise in plain CDR, its stamp zero; cyclonedds takes seconds for so many numbers."""
    frame_id, encoding = b"camera\0", b"rgb8\0"
    before = STAMP.pack(0, 0) + struct.pack("<I7sx", len(frame_id), frame_id) + struct.pack("<II", height, width)
    before += struct.pack("<I5sB2xII", len(encoding), encoding, 0, 3 * width, 3 * width * height)
    return bytearray(b"\0\1\0\0" + before + os.urandom(3 * width * height))


def tell(event: str, **values: object) -> None:
    """Print an event for the parent."""
    print(json.dumps({"event": event, **values}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--reliability", choices=("best_effort", "reliable"), required=True)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--frames", type=int, required=True)
    arguments = parser.parse_args()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end of standard input ends it
    message = serialized(*arguments.size)
    Image.serialize = lambda self, *given, **options: bytes(message)
    reliable = arguments.reliability == "reliable"
    quality = Qos(
        Policy.Reliability.Reliable(max_blocking_time=duration(seconds=1))
        if reliable
        else Policy.Reliability.BestEffort,
        Policy.History.KeepLast(5),
        Policy.DataRepresentation(use_cdrv0_representation=True),
    )
    participant = DomainParticipant(int(os.environ.get("ROS_DOMAIN_ID", "0")))
    writer = DataWriter(participant, Topic(participant, f"rt{arguments.topic}", Image, qos=quality), qos=quality)
    measuring, over = threading.Event(), threading.Event()

    def listen() -> None:
        for _ in sys.stdin:
            measuring.set()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    tell("ready")
    matched, stamps, due_s = False, [], time.monotonic()
    while not over.is_set():
        if not matched and writer.get_matched_subscriptions():
            matched = True
            tell("matched")
        now_s = time.monotonic()
        if now_s < due_s or len(stamps) == arguments.frames:
            time.sleep(min(PAUSE_S, due_s - now_s) if now_s < due_s else PAUSE_S)
            continue
        due_s += 1 / arguments.rate
        stamp_ns = time.time_ns()
        STAMP.pack_into(message, 4, *divmod(stamp_ns, 1_000_000_000))
        writer.write(Image())
        if measuring.is_set():
            stamps.append(stamp_ns)
            if len(stamps) == arguments.frames:
                tell("sent", stamps=stamps)


if __name__ == "__main__":
    main()
