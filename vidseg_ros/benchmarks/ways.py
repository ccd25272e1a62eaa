"""Measure how many images come through, by way and size: shared memory, UDP, and each with its remedy.

    python -m vidseg_ros.benchmarks.ways --seconds 4

Each row is three processes on one computer (camera, node with `engine: pass_through`, listener to the labels), as in
`vidseg_ros.benchmarks.transport`. A row over UDP has the package's profile without shared memory, as between computers,
with buffers as large as Linux allows (net.core.rmem_max).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vidseg_ros.benchmarks.transport import (
    NAMESPACE,
    NODE,
    PROCESSES,
    BenchError,
    Load,
    Result,
    Trial,
    bare_environment,
    camera_arguments,
    image_size,
    positive,
    profiled_environment,
    summarise,
)
from vidseg_ros.transport import PROFILE_VARIABLES, profile_path

SIZES = ((1280, 720), (2048, 1024), (3840, 2160))
RELIABLE = ("-p", f"qos_overrides.{NAMESPACE}/image_raw.subscription.reliability:=reliable")
# Name of a way: whether it has shared memory, what the camera offers, the node's parameters.
WAYS: dict[str, tuple[bool, str, Sequence[str]]] = {
    "shared memory": (True, "best_effort", ()),
    "UDP, best effort": (False, "best_effort", ()),
    "UDP, reliable": (False, "reliable", RELIABLE),
}
SHARED_MEMORY = "          <transport_id>images_shm</transport_id>\n"


def measure(way: str, load: Load, folder: Path) -> Result:
    """Run one row.

    Raises:
        BenchError: a process ended or did not answer.
    """
    has_shared_memory, reliability, parameters = WAYS[way]
    environment = profiled_environment()
    if not has_shared_memory:
        profile = folder / "udp.xml"
        text = profile_path().read_text(encoding="utf-8")
        profile.write_text(text.replace(SHARED_MEMORY, ""), encoding="utf-8")
        environment = bare_environment() | dict.fromkeys(PROFILE_VARIABLES, str(profile))
    with Trial(environment) as trial:
        trial.start("listener", (PROCESSES, "listener", "--reliability", "reliable"))
        trial.start("node", (*NODE, *parameters))
        trial.start("camera", (PROCESSES, "camera", "--reliability", reliability, *camera_arguments(load)))
        return summarise(*trial.play(load))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--sizes", type=image_size, nargs="+", default=SIZES, metavar="WxH", help="of the images, rgb8")
    parser.add_argument("--rate", type=positive, default=10.0, metavar="HZ", help="of the camera, default 10")
    parser.add_argument("--seconds", type=positive, default=4.0, help="measured for each, default 4")
    arguments = parser.parse_args(argv)
    print(f"{'way':20s} {'size':>11s} {'MB':>6s} {'sent':>5s} {'labelled':>9s} {'p50 ms':>8s}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            for way in arguments.ways:
                for width, height in arguments.sizes:
                    load = Load(width, height, arguments.rate, max(1, round(arguments.rate * arguments.seconds)))
                    result = measure(way, load, Path(folder))
                    p50 = f"{result.latency_ms['p50']:.1f}" if result.latency_ms else "-"
                    size, mb = f"{width}x{height}", 3e-6 * width * height
                    print(
                        f"{way:20s} {size:>11s} {mb:6.1f} {result.sent:5d} {result.received:9d} {p50:>8s}", flush=True
                    )
    except BenchError as error:
        print(f"bench_ways: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
