import pytest
import yaml
from rosbags.rosbag2.metadata import dump_qos_v8, dump_qos_v9, parse_qos

from vidseg_core.data.recordings.recording import Channel
from vidseg_core.data.recordings.rosbag2 import dump, information, qos_in_numbers, qos_profile

PROFILE = {
    "history": 1,
    "depth": 5,
    "reliability": 2,
    "durability": 1,
    "deadline": {"sec": 1, "nsec": 2},
    "lifespan": {"sec": 0, "nsec": 0},
    "liveliness": 3,
    "liveliness_lease_duration": {"sec": 9223372036, "nsec": 854775807},
    "avoid_ros_namespace_conventions": True,
}


def test_profiles_in_names_become_numbers():
    """As rosbags reads and writes both versions."""
    for policies in ((1, 1, 2, 1), (2, 2, 1, 3), (3, 3, 3, 4), (0, 0, 0, 0)):
        numbers = dict(zip(("history", "reliability", "durability", "liveliness"), policies, strict=True))
        profiles = parse_qos([PROFILE | numbers, PROFILE])
        named = yaml.safe_dump(dump_qos_v9(profiles))
        assert "keep_last" in named
        found = qos_in_numbers(named)
        assert yaml.safe_load(found) == yaml.safe_load(dump_qos_v8(profiles)) and "keep_last" not in found
        assert parse_qos(found) == profiles


def test_profiles_in_numbers_stay_as_they_are():
    text = "- " + yaml.safe_dump(PROFILE, sort_keys=False).replace("\n", "\n  ") + "\n# end"
    assert qos_in_numbers(text) == text
    assert qos_in_numbers("") == qos_in_numbers("\n") == "" and qos_in_numbers("[]") == "[]"


@pytest.mark.parametrize(
    "text",
    [
        "- history: 3",
        "text",
        "{",
        "- 1",
        "- !!python/object:os.system {}",
        "2001-99-99",
        "[" * 5000,
        yaml.safe_dump([PROFILE | {"history": "for_ever"}]),
        yaml.safe_dump([PROFILE | {"depth": "deep"}]),
        yaml.safe_dump([PROFILE | {"lifespan": 3}]),
        dump(300 * [PROFILE]),
    ],
)
def test_what_is_no_list_of_profiles(text):
    assert qos_in_numbers(text) is None


def test_the_profile_of_new_topics():
    (profile,) = parse_qos(qos_profile(depth=3))
    assert (profile.depth, profile.history.name, profile.reliability.name) == (3, "KEEP_LAST", "RELIABLE")
    assert (profile.durability.name, profile.liveliness.name) == ("VOLATILE", "AUTOMATIC")
    assert qos_in_numbers(qos_profile()) == qos_profile()


def test_a_recording_without_messages():
    found = yaml.safe_load(dump(information("mcap", "a.mcap", [(Channel(1, "/é", "x"), 0)], None)))
    assert found["starting_time"] == {"nanoseconds_since_epoch": 2**63 - 1}
    assert (found["duration"], found["message_count"]) == ({"nanoseconds": 0}, 0)
    assert found["topics_with_message_count"][0]["topic_metadata"]["name"] == "/é"
    assert information("mcap", "a.mcap", [], (5, 2**64 - 1))["duration"] == {"nanoseconds": 2**63 - 1}
