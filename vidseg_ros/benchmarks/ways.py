"""Measure how many images come through, by way and size: shared memory, UDP, other vendors and distributions of ROS.

    python -m vidseg_ros.benchmarks.ways --seconds 4
    python -m vidseg_ros.benchmarks.ways --ways "UDP, best effort" --sizes 1280x720
    python -m vidseg_ros.benchmarks.ways --other .venv-jazzy/bin/python --cyclone cyclone/bin/python

Each row is three processes on one computer (camera, node with `engine: pass_through`, listener to the labels), as in
`vidseg_ros.benchmarks.transport`. A row over UDP has the package's profile without shared memory, as between computers,
with buffers as large as Linux allows (net.core.rmem_max). Where frames are missing, the last column names the row that
shows the remedy.

`--other` is the Python of another distribution of ROS with what vidseg needs (`make .venv-jazzy`), or a script that
sources a distribution and runs its Python. `--cyclone` is one with the package `cyclonedds` from PyPI, without ROS.
Rows that need either are left out without it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import vidseg_ros
from vidseg_core.data.writers import write_json
from vidseg_ros.benchmarks.transport import (
    NAMESPACE,
    NODE,
    PROCESSES,
    BenchError,
    Load,
    Result,
    Trial,
    bare_environment,
    image_size,
    load_arguments,
    positive,
    profiled_environment,
    summarise,
)
from vidseg_ros.transport import PROFILE_VARIABLES, profile_path

SIZES = ((1280, 720), (2048, 1024), (3840, 2160))
HERE, OTHER, CYCLONE = "this ROS", "other", "cyclone"
PROFILE, UDP, BARE = "profile", "UDP", "none"
ROOT = Path(vidseg_ros.__file__).parents[1]
CYCLONE_CAMERA = Path(__file__).with_name("cyclone_camera.py")
BUFFERS = Path("/proc/sys/net/core/rmem_max")
SHARED_MEMORY = "          <transport_id>images_shm</transport_id>\n"
# What this process got for its own libraries.
OWN_VARIABLES = ("LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "AMENT_PREFIX_PATH", "ROS_DISTRO")


@dataclass(frozen=True)
class Way:
    """A way of images from a camera to the node.

    Attributes:
        transport: the package's profile, that profile without shared memory, or none: Fast DDS as it comes.
        reliable: both ends; else best effort.
        camera, node: what they run on.
        compressed: JPEG instead of raw images.
        remedy: for frames that are lost.
    """

    transport: str = PROFILE
    reliable: bool = False
    camera: str = HERE
    node: str = HERE
    compressed: bool = False
    remedy: str = ""


WAYS = {
    "no profile": Way(BARE, remedy="shared memory"),
    "shared memory": Way(),
    "UDP, best effort": Way(UDP, remedy="UDP, reliable"),
    "UDP, reliable": Way(UDP, reliable=True, remedy="UDP, JPEG"),
    "UDP, JPEG": Way(UDP, compressed=True, remedy="UDP, JPEG, reliable"),
    "UDP, JPEG, reliable": Way(UDP, reliable=True, compressed=True),
    "shared memory, JPEG": Way(compressed=True),
    "camera of other ROS": Way(camera=OTHER, remedy="camera of other ROS, UDP"),
    "camera of other ROS, UDP": Way(UDP, reliable=True, camera=OTHER),
    "node of other ROS": Way(node=OTHER, remedy="node of other ROS, UDP"),
    "node of other ROS, UDP": Way(UDP, reliable=True, node=OTHER),
    "Cyclone, best effort": Way(camera=CYCLONE, remedy="Cyclone, reliable"),
    "Cyclone, reliable": Way(reliable=True, camera=CYCLONE),
}


def environments(transport: str, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment of processes of this ROS, and of another one or none.

    Args:
        transport: see `Way`.
        folder: where a profile may be written.
    """
    ours = bare_environment() if transport == BARE else profiled_environment()
    profile = profile_path()
    if transport == UDP:
        profile = folder / "udp.xml"
        profile.write_text(profile_path().read_text(encoding="utf-8").replace(SHARED_MEMORY, ""), encoding="utf-8")
        ours |= {name: str(profile) for name in PROFILE_VARIABLES if name in ours}
    # Limited to this computer, ROS adds shared memory by itself; and it finds nobody but ROS.
    ours["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SUBNET"
    others = {name: value for name, value in ours.items() if name not in OWN_VARIABLES}
    if transport != BARE:  # whichever name it reads
        others |= dict.fromkeys(PROFILE_VARIABLES, str(profile))
    others["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return ours, others


def measure(way: Way, load: Load, pythons: Mapping[str, str], folder: Path) -> Result:
    """Run one row.

    Args:
        pythons: interpreters by what runs on them, see `Way`.
        folder: for a profile.

    Raises:
        BenchError: a process ended or did not answer.
    """
    ours, others = environments(way.transport, folder)
    reliability = "reliable" if way.reliable else "best_effort"
    topic = "image_raw/compressed" if way.compressed else "image_raw"
    parameters = ("-p", f"qos_overrides.{NAMESPACE}/{topic}.subscription.reliability:={reliability}")
    parameters += ("-p", "image_transport:=compressed") if way.compressed else ()
    if way.camera == CYCLONE:
        camera = (str(CYCLONE_CAMERA), "--topic", f"{NAMESPACE}/image_raw")
    else:
        camera = (PROCESSES, "camera", "--keep-memory", *(("--compressed",) if way.compressed else ()))
    camera += ("--reliability", reliability, *load_arguments(load))
    with Trial(ours) as trial:
        trial.start("listener", (PROCESSES, "listener", "--reliability", "reliable"))
        for name, where, module in (("node", way.node, (*NODE, *parameters)), ("camera", way.camera, camera)):
            trial.start(name, module, ours if where == HERE else others, ROOT, pythons[where])
        return summarise(*trial.play(load))


def row(name: str, load: Load, result: Result) -> str:
    """Write a line of the table."""
    p50, p95 = (f"{result.latency_ms[key]:.1f}" if result.latency_ms else "-" for key in ("p50", "p95"))
    size, mb = f"{load.width}x{load.height}", 3e-6 * load.width * load.height
    line = f"{name:24s} {size:>11s} {mb:6.1f} {result.sent:5d} {result.received:9d} {p50:>8s} {p95:>8s}"
    remedy = WAYS[name].remedy
    return f"{line}  {remedy}" if remedy and result.received < result.sent else line


def possible(name: str, pythons: Mapping[str, str]) -> bool:
    """Return whether there is an interpreter for all that a way needs."""
    return WAYS[name].camera in pythons and WAYS[name].node in pythons


def main(argv: list[str] | None = None) -> int:
    """Run the measurement. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", help=f"{'; '.join(WAYS)} (default: all)")
    parser.add_argument("--sizes", type=image_size, nargs="+", default=SIZES, metavar="WxH", help="of the images")
    parser.add_argument("--rate", type=positive, default=10.0, metavar="HZ", help="of the camera, default 10")
    parser.add_argument("--seconds", type=positive, default=4.0, help="measured for each, default 4")
    parser.add_argument("--other", metavar="PYTHON", help="of another distribution of ROS")
    parser.add_argument("--cyclone", metavar="PYTHON", help="that has cyclonedds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    arguments = parser.parse_args(argv)
    pythons = {HERE: sys.executable, OTHER: arguments.other, CYCLONE: arguments.cyclone}
    pythons = {name: os.path.abspath(python) for name, python in pythons.items() if python}
    for name in arguments.ways or ():
        if not possible(name, pythons):
            needed = "--cyclone" if WAYS[name].camera == CYCLONE else "--other"
            parser.error(f"--ways: '{name}' needs {needed}")
    ways = arguments.ways or [name for name in WAYS if possible(name, pythons)]
    buffers = BUFFERS.read_text().strip() if BUFFERS.is_file() else "unknown"
    print(f"rgb8 at {arguments.rate:g} Hz; net.core.rmem_max {buffers}")
    columns = f"{'MB':>6s} {'sent':>5s} {'labelled':>9s} {'p50 ms':>8s} {'p95 ms':>8s}"
    print(f"{'way':24s} {'size':>11s} {columns}  remedy", flush=True)
    results = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name in ways:
                for width, height in arguments.sizes:
                    load = Load(width, height, arguments.rate, max(1, round(arguments.rate * arguments.seconds)))
                    result = measure(WAYS[name], load, pythons, Path(folder))
                    print(row(name, load, result), flush=True)
                    results.append({"way": name, "load": asdict(load), **asdict(result), "remedy": WAYS[name].remedy})
    except BenchError as error:
        print(f"bench_ways: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if arguments.json is not None:
        write_json(arguments.json, {"rmem_max": buffers, "rows": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
