"""rosbag2's metadata, in the form that every distribution from Humble on reads."""

from __future__ import annotations

from typing import Any

import yaml

from vidseg_core.data.recordings.recording import Channel

VERSION = 8
"""Of the metadata that is written. Humble does not know version 9's description of QoS."""

QOS, TYPE_HASH = "offered_qos_profiles", "topic_type_hash"
"""Names of rosbag2's entries in a channel's metadata."""

_LONGEST_QOS = 2**16
_MOST_NS = 2**63 - 1
# Version 9 names policies, those before it number them, in the order of rmw's enumerations.
_POLICIES = {
    "history": ("system_default", "keep_last", "keep_all", "unknown"),
    "reliability": ("system_default", "reliable", "best_effort", "unknown", "best_available"),
    "durability": ("system_default", "transient_local", "volatile", "unknown", "best_available"),
    "liveliness": (
        "system_default",
        "automatic",
        "manual_by_node",
        "manual_by_topic",
        "unknown",
        "best_available",
    ),
}
_DURATIONS = ("deadline", "lifespan", "liveliness_lease_duration")


def qos_in_numbers(text: str) -> str | None:
    """Write `offered_qos_profiles` as metadata before version 9 has it.

    Args:
        text: YAML of any version: a list of profiles.

    Returns:
        `text` itself where its policies are numbers already; None where it is no list of profiles.
    """
    if not text.strip():
        return ""
    if len(text) > _LONGEST_QOS:
        return None
    try:
        profiles = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    if not isinstance(profiles, list) or not all(isinstance(profile, dict) for profile in profiles):
        return None
    if not all(map(_is_profile, profiles)):
        return None
    if all(isinstance(profile[policy], int) for profile in profiles for policy in _POLICIES):
        return text
    return dump([{name: _number(name, value) for name, value in profile.items()} for profile in profiles])


def qos_profile(*, depth: int = 10) -> str:
    """Describe a reliable publisher, the only kind that every subscriber takes, as version 8 does."""
    infinite = {"sec": 9223372036, "nsec": 854775807}
    return dump(
        [
            {
                "history": 1,
                "depth": depth,
                "reliability": 1,
                "durability": 2,
                "deadline": dict(infinite),
                "lifespan": dict(infinite),
                "liveliness": 1,
                "liveliness_lease_duration": dict(infinite),
                "avoid_ros_namespace_conventions": False,
            }
        ]
    )


def information(
    storage: str, file_name: str, topics: list[tuple[Channel, int]], span: tuple[int, int] | None
) -> dict[str, Any]:
    """Describe a recording of one file as metadata.yaml does, below `rosbag2_bagfile_information`.

    Args:
        storage: `sqlite3` or `mcap`.
        file_name: of the file with the messages.
        topics: channels as they were stored, and how many messages each has.
        span: when the first and the last message were received, in nanoseconds; None without messages.
    """
    first, last = span or (_MOST_NS, _MOST_NS)
    part = {
        "starting_time": {"nanoseconds_since_epoch": min(first, _MOST_NS)},
        "duration": {"nanoseconds": min(last - first, _MOST_NS)},
        "message_count": sum(count for _, count in topics),
    }
    return {
        "version": VERSION,
        "storage_identifier": storage,
        "relative_file_paths": [file_name],
        **part,
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": channel.topic,
                    "type": channel.type,
                    "serialization_format": channel.encoding,
                    "offered_qos_profiles": channel.metadata.get(QOS, ""),
                    "type_description_hash": channel.metadata.get(TYPE_HASH, ""),
                },
                "message_count": count,
            }
            for channel, count in topics
        ],
        "compression_format": "",
        "compression_mode": "",
        "files": [{"path": file_name, **part}],
        "custom_data": None,
        "ros_distro": "unknown",
    }


def dump(data: Any) -> str:
    """Write YAML as rosbag2 does: blocks, in the order given, without references."""
    return yaml.dump(data, Dumper=_Plain, default_flow_style=False, sort_keys=False, allow_unicode=True).strip()


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _is_profile(profile: dict) -> bool:
    policies = all(_number(policy, profile.get(policy)) is not None for policy in _POLICIES)
    durations = all(
        isinstance(profile.get(name), dict)
        and all(isinstance(profile[name].get(part), int) for part in ("sec", "nsec"))
        for name in _DURATIONS
    )
    others = isinstance(profile.get("depth"), int) and isinstance(profile.get("avoid_ros_namespace_conventions"), bool)
    return policies and durations and others


def _number(name: str, value: Any) -> Any:
    """Number a policy that is named; return any other value as it is, None for an unknown name."""
    if name not in _POLICIES or isinstance(value, int):
        return value
    known = _POLICIES[name]
    return known.index(value.lower()) if isinstance(value, str) and value.lower() in known else None
