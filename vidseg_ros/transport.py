"""Images of several megabytes through DDS: the profile that lets them pass, and advice where they do not.

Fast DDS's own shared-memory segment is smaller than one such image: sent best effort they get lost, all of them. The
profile in `config/fastdds_images.xml` makes it hold ten. The segment belongs to the sender, so the process of a camera
driver needs the profile as much as the node does.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg_core.resources import resource

SHARED_MEMORY = "/dev/shm"
SEGMENT_BYTES = 64 << 20
"""Shared memory of each process that sends images, `segment_size` in the profile."""
LEAST_BYTES = 2 * SEGMENT_BYTES + (16 << 20)
"""Shared memory for a camera driver, the node, and the ports of both."""

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Where Fast DDS looks for a profile: in ROS 2 Kilted and later, and before."""

CHOOSING_VARIABLES = ("FASTDDS_BUILTIN_TRANSPORTS", *PROFILE_VARIABLES)
"""What chooses transports of Fast DDS."""

# Later ones take the old name with a warning in every process.
_DISTRIBUTIONS_WITH_OLD_NAME = ("humble", "iron", "jazzy")
_OLD_LIBRARY, _NEW_LIBRARY = "libfastrtps.so*", "libfastdds.so*"

_SHARED_MEMORY = (
    "With Fast DDS, start the camera driver's process with FASTDDS_DEFAULT_PROFILES_FILE={profile} "
    "(before ROS 2 Kilted FASTRTPS_DEFAULT_PROFILES_FILE): shared memory belongs to the sender, and its default size "
    "holds no large image. Containers need a common /dev/shm (`docker run --ipc=host`) and the same user."
)
_TOO_SMALL = (
    "{path} is too small: it has {has:.0f} MiB, a camera driver and the node need {needs:.0f} MiB, "
    "{missing:.0f} MiB more (64 MiB for each process that sends images). Enlarge it: `docker run --shm-size=256m`, or "
    "`--ipc=host`."
)
_BUFFERS = (
    "Best effort loses an image with any of its packets that finds the socket's buffer full: have this node take "
    "larger ones, `sudo sysctl -w net.core.rmem_max=8388608` (keep it in /etc/sysctl.d), and start it again"
)
_RELIABLE = (
    ", and if the publisher is reliable set the parameter qos_overrides.{topic}.subscription.reliability to reliable: "
    "what is lost is then sent again."
)
_OTHER_HOST = "The publisher is on another computer, and images come in UDP packets. " + _BUFFERS + _RELIABLE
_OTHER_VENDOR = (
    "The publisher is {vendor}, which shares no memory with this middleware, so that images come in UDP packets. "
    + _BUFFERS
    + _RELIABLE
)
_OFF = (
    "This node's Fast DDS shares no memory ({reason}), so that images come in UDP packets; with the package's profile "
    "(FASTDDS_DEFAULT_PROFILES_FILE={profile}, before ROS 2 Kilted FASTRTPS_DEFAULT_PROFILES_FILE) it does. Without: "
    + _BUFFERS
    + _RELIABLE
)
_IN_USE = (
    "Images come through shared memory that is large enough already, so look elsewhere: at what the camera sends "
    "(`ros2 topic hz {topic}`) and at how busy this computer is. Images of more than 6 MB, of which it holds fewer "
    "than ten, want a larger segment_size, in a copy of {profile} for the camera driver's process."
)
_NO_FAST_DDS = (
    "This node runs with {rmw}: see its documentation for large messages (docs/vehicle.md has the pages); with Fast "
    "DDS the package's profile makes room for images."
)
VENDORS = {(1, 1): "RTI Connext", (1, 3): "OpenSplice", (1, 15): "Fast DDS", (1, 16): "Cyclone DDS"}
"""First two bytes of an endpoint's identifier: who made the middleware (OMG DDSI-RTPS 2.5, 9.4.5.3.2)."""
_FAST_DDS = (1, 15)
NO_FRAMES = "{topic}: a publisher is there, but no frame has come for {seconds:g} s. {remedy}"
LOW_RATE = "{topic}: {actual:.1f} Hz come in, {wanted:.1f} Hz are wanted. If the camera sends more: {remedy}"
MESSAGE_LOST = "{topic}: {count} messages were lost on the way. {remedy}"
INCOMPATIBLE_QOS = (
    "{topic}: a publisher offers a QoS that this subscription cannot take ({policy}), and nothing comes from it. Set "
    "the parameters qos_overrides.{topic}.subscription.reliability to best_effort and .durability to volatile, which "
    "every publisher can serve."
)

OTHER_REPRESENTATION = (
    "{topic}: a publisher offers what this subscription cannot take, by a policy that ROS has no name for: most likely "
    "it writes XCDR2 (DataRepresentation), and ROS reads XCDR1. Have it write XCDR1: in Cyclone DDS's Python "
    "`Policy.DataRepresentation(use_cdrv0_representation=True)`, in Fast DDS and RTI Connext "
    "`XCDR_DATA_REPRESENTATION` in the writer's `representation`."
)


def profile_path() -> Path:
    """Return the path of the Fast DDS profile that comes with the package."""
    return resource("config/fastdds_images.xml")


def profile_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that a process needs in its environment for the profile; none if the user has set one.

    They count when the process starts with them, or before it first creates a ROS context.
    """
    if any(environ.get(name) for name in PROFILE_VARIABLES):
        return {}
    names = PROFILE_VARIABLES if takes_old_name(environ) else PROFILE_VARIABLES[:1]
    return dict.fromkeys(names, str(profile_path()))


def takes_old_name(environ: Mapping[str, str] = os.environ, prefix: str = sys.prefix) -> bool:
    """Return whether the Fast DDS that is installed looks for a profile by the name before ROS 2 Kilted.

    Its library tells, in a distribution or in an environment of PyPI's wheels, which set no `ROS_DISTRO`. Where no
    library of either name is found, `ROS_DISTRO` decides.

    Args:
        environ: of the process that is to have the profile.
        prefix: of the Python environment.
    """
    for directory in (*filter(None, environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), prefix):
        library = Path(directory) / "lib"
        if any(library.glob(_NEW_LIBRARY)):
            return False
        if any(library.glob(_OLD_LIBRARY)):
            return True
    return environ.get("ROS_DISTRO") in _DISTRIBUTIONS_WITH_OLD_NAME


@dataclass(frozen=True)
class Segments:
    """Shared memory of Fast DDS that a process has mapped, in bytes.

    Attributes:
        own: what it sends through.
        peers: what others have sent to it through.
    """

    own: tuple[int, ...]
    peers: tuple[int, ...]


_SEGMENT = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .*/(fast(?:dds|rtps)_[0-9a-f]{16})$", re.MULTILINE)


def mapped_segments(process: Path = Path("/proc/self")) -> Segments:
    """Find the shared memory of Fast DDS that a process has mapped; none where that cannot be read.

    Whoever made a segment keeps its lock open, a file with `_el` behind the segment's name.
    """
    sizes: dict[str, int] = {}
    locked = set()
    with suppress(OSError):
        for begin, end, name in _SEGMENT.findall((process / "maps").read_text(encoding="utf-8")):
            sizes[name] = sizes.get(name, 0) + int(end, 16) - int(begin, 16)
        for file in (process / "fd").iterdir():
            with suppress(OSError):  # it has just been closed
                locked.add(os.path.basename(os.readlink(file)).removesuffix("_el"))
    return Segments(
        tuple(size for name, size in sizes.items() if name in locked),
        tuple(size for name, size in sizes.items() if name not in locked),
    )


def remedy(
    own: Sequence[int],
    others: Iterable[Sequence[int]],
    rmw: str,
    segments: Segments,
    environ: Mapping[str, str] = os.environ,
) -> str:
    """Return what helps large images on their way from a camera, as far as this node can tell.

    Args:
        own: identifier of an endpoint of this node, as `TopicEndpointInfo.endpoint_gid` has it.
        others: those of the camera's publishers.
        rmw: name of the middleware, for instance `rmw_fastrtps_cpp`.
        segments: of this process, see `mapped_segments`.
        environ: of this process.
    """
    if "fastrtps" not in rmw:
        return _NO_FAST_DDS.replace("{rmw}", rmw)
    makers = [(other[0], other[1]) for other in others]
    strangers = [maker for maker in makers if maker != _FAST_DDS]
    if strangers:
        return _OTHER_VENDOR.replace("{vendor}", VENDORS.get(strangers[0], "of another vendor"))
    # Fast DDS puts a number of the computer behind its own.
    if own and any(list(other[2:4]) != list(own[2:4]) for other in others):
        return _OTHER_HOST
    if not segments.own and shared_memory_shortage() is None:
        chosen = [f"{name}={environ[name]}" for name in CHOOSING_VARIABLES if environ.get(name)]
        return _OFF.replace("{reason}", ", ".join(chosen) or "as its configuration wants it")
    if segments.peers and min(segments.peers) >= SEGMENT_BYTES:
        return _IN_USE
    return _SHARED_MEMORY


def warning(text: str, advice: str = _SHARED_MEMORY, **values: Any) -> str:
    """Fill one of the texts above, for instance `warning(NO_FRAMES, topic="/image_raw", seconds=2)`.

    Args:
        advice: see `remedy`. That to use the profile is followed by what keeps it from working, where that is so.
    """
    filled = text.replace("{remedy}", advice).format(profile=profile_path(), **values)
    shortage = shared_memory_shortage() if "{remedy}" in text and advice == _SHARED_MEMORY else None
    return filled if shortage is None else f"{shortage} {filled}"


def uses_profile(environ: Mapping[str, str] = os.environ) -> bool:
    """Return True if this environment has Fast DDS take the package's profile."""
    return str(profile_path()) in {environ.get(name) for name in PROFILE_VARIABLES}


def shared_memory_shortage(path: str = SHARED_MEMORY) -> str | None:
    """Say by how much shared memory is too small for the profile; None where it is large enough.

    Fast DDS cannot make its segment then, and goes on without shared memory. Docker's default is 64 MB.
    """
    try:
        system = os.statvfs(path)
    except OSError as error:
        return f"{path} cannot be used ({error.strerror}), and Fast DDS sends no large image without shared memory."
    has = system.f_blocks * system.f_frsize
    if has >= LEAST_BYTES:
        return None
    mib = {"has": has / 2**20, "needs": LEAST_BYTES / 2**20, "missing": (LEAST_BYTES - has) / 2**20}
    return _TOO_SMALL.format(path=path, **mib)
