"""The size of each camera's pictures, kept for the next start: so that the engine is ready for it when they come.

With it is kept at which size the network saw them last, so that the governor need not find that anew.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from vidseg_core.data.encodings import to_rgb
from vidseg_ros.messages.kinds import Kind

try:
    from rclpy.wait_for_message import wait_for_message
except ImportError:  # ROS 2 Humble before rclpy 3.3.14
    wait_for_message = None

MOST_CAMERAS = 64
WAIT_S = 0.5


def sizes_file() -> Path:
    """Return where sizes are kept: `$XDG_CACHE_HOME/vidseg/cameras.json`, by default below `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vidseg" / "cameras.json"


def remember(topic: str, size: tuple[int, int], share: float | None = None) -> None:
    """Keep what is known of the pictures of a topic; where that is not possible, the next start does without.

    Args:
        size: (H, W).
        share: see `GovernedEngine.settled_share`; None keeps the one of the last time, for pictures of that size.
    """
    path = sizes_file()
    kept = _kept()
    before = kept.pop(topic, None)
    known = size, share if share is not None or before is None or before[0] != size else before[1]
    if known == before:
        return
    last = {one: [*pixels, *([] if part is None else [part])] for one, (pixels, part) in kept.items()}
    last = dict(list(last.items())[1 - MOST_CAMERAS :]) | {topic: [*size, *([] if known[1] is None else [known[1]])]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(last, file)
        os.replace(temporary, path)
    except OSError as error:
        get_logger("vidseg_ros").info(f"{path}: the size of {topic} is not kept: {error.strerror}")


def remembered(topic: str) -> tuple[int, int] | None:
    """Return the size, (H, W), that the pictures of a topic had last; None if that is not known."""
    return _kept().get(topic, (None, None))[0]


def remembered_share(topic: str, size: tuple[int, int]) -> float | None:
    """Return the share of its input at which a network saw a topic's pictures of `size` last; None if not known."""
    last, share = _kept().get(topic, (None, None))
    return share if last == size else None


def look(node: Node, topic: str, kind: Kind) -> tuple[int, int] | None:
    """Look at the first message of a camera that is on.

    Returns:
        The size, (H, W), of its picture; None where no message comes at once, where it cannot be read alone, and with
        an rclpy that cannot wait for a message.
    """
    if wait_for_message is None or kind.is_video or not node.count_publishers(topic):
        return None
    came, message = wait_for_message(
        kind.message_type(), node, topic, qos_profile=qos_profile_sensor_data, time_to_wait=WAIT_S
    )
    if not came:
        return None
    try:
        height, width = to_rgb(kind.view(message)).shape[:2]
    except ValueError:  # the camera reports what is wrong when the node is active
        return None
    return height, width


def _kept() -> dict[str, tuple[tuple[int, int], float | None]]:
    """Read sizes and shares by their topic."""
    try:
        kept = json.loads(sizes_file().read_text(encoding="utf-8"))
        return {
            str(topic): ((int(height), int(width)), float(share[0]) if share else None)
            for topic, (height, width, *share) in kept.items()
            if height and width
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
