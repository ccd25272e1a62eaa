"""How images of several megabytes get through DDS, and what to tell a user whose images do not.

Fast DDS's own shared-memory segment is smaller than one such image: sent best effort they get lost, all of them. The
profile in `config/fastdds_images.xml` makes it hold ten. The segment belongs to the sender, so the process of a camera
driver needs the profile as much as the node does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidseg_core.resources import resource

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Where Fast DDS looks for a profile: in ROS 2 Kilted and later, and before."""

# Later ones take the old name with a warning in every process.
_DISTRIBUTIONS_WITH_OLD_NAME = ("humble", "iron", "jazzy")

_SHARED_MEMORY = (
    "With Fast DDS, start the camera driver's process with FASTDDS_DEFAULT_PROFILES_FILE={profile} "
    "(before ROS 2 Kilted FASTRTPS_DEFAULT_PROFILES_FILE): shared memory belongs to the sender, and its default size "
    "holds no large image. Containers need a common /dev/shm (`docker run --ipc=host`) and the same user."
)
NO_FRAMES = "{topic}: a publisher is there, but no frame has come for {seconds:g} s. " + _SHARED_MEMORY
LOW_RATE = "{topic}: {actual:.1f} Hz come in, {wanted:.1f} Hz are wanted. If the camera sends more: " + _SHARED_MEMORY
MESSAGE_LOST = "{topic}: {count} messages were lost on the way. " + _SHARED_MEMORY
INCOMPATIBLE_QOS = (
    "{topic}: a publisher offers a QoS that this subscription cannot take ({policy}), and nothing comes from it. Set "
    "the parameters qos_overrides.{topic}.subscription.reliability to best_effort and .durability to volatile, which "
    "every publisher can serve."
)


def profile_path() -> Path:
    """The Fast DDS profile that comes with the package."""
    return resource("config/fastdds_images.xml")


def profile_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables to add to a process's environment for the profile; none where the user has set one of them.

    They count when the process starts with them, or before it first creates a ROS context.
    """
    if any(environ.get(name) for name in PROFILE_VARIABLES):
        return {}
    names = PROFILE_VARIABLES if environ.get("ROS_DISTRO") in _DISTRIBUTIONS_WITH_OLD_NAME else PROFILE_VARIABLES[:1]
    return dict.fromkeys(names, str(profile_path()))


def warning(text: str, **values: Any) -> str:
    """One of the texts above with its values, for instance `warning(NO_FRAMES, topic="/image_raw", seconds=2)`."""
    return text.format(profile=profile_path(), **values)
