"""Large images through real DDS, and what is said where they do not come through."""

import os
import re
import subprocess
import sys
import time
from xml.etree import ElementTree

import numpy as np
import pytest

from vidseg_core.data.encodings import to_rgb
from vidseg_core.data.wire import parse_image
from vidseg_ros import transport

DEADLINE_S = 60
# Publishes `picture()` ten times a second until SIGTERM.
CAMERA = """
import sys
import numpy as np, rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vidseg_core.data.wire import ImageWriter

rclpy.init()
node = rclpy.create_node("camera")
quality = QoSProfile(depth=5, reliability=ReliabilityPolicy[sys.argv[1]])
publisher = node.create_publisher(Image, "image_raw", quality)
pixels = np.arange(1024 * 2048 * 3, dtype=np.uint32).astype(np.uint8).reshape(1024, 2048, 3)
header, writer = Header(frame_id="front"), ImageWriter()

def publish():
    header.stamp.sec += 1
    publisher.publish(writer.serialise(header, "rgb8", pixels))

node.create_timer(0.1, publish)
try:
    rclpy.spin(node)
except ExternalShutdownException:
    node.destroy_node()
"""


def shared_memory_of(pid: int) -> dict[str, int]:
    """Sizes of Fast DDS's segments that a process has mapped, its own and its peers'; versions name them otherwise."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        names = set(re.findall(r"/dev/shm/fast(?:dds|rtps)_[0-9a-f]{16}", maps.read()))
    return {name: os.stat(name).st_size for name in names if os.path.exists(name)}


def picture() -> np.ndarray:
    return np.arange(1024 * 2048 * 3, dtype=np.uint32).astype(np.uint8).reshape(1024, 2048, 3)


@pytest.mark.parametrize("reliability", ["BEST_EFFORT", "RELIABLE"])
def test_large_images_arrive(reliability, ros, checkout):
    """Sensor data QoS on this side takes both kinds of publishers."""
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    received = []
    node = ros.create_node("listener")
    node.create_subscription(Image, "image_raw", received.append, qos_profile_sensor_data, raw=True)
    camera = subprocess.Popen([sys.executable, "-c", CAMERA, reliability], cwd=checkout)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while len(received) < 10 and time.monotonic() < deadline and camera.poll() is None:
            ros.spin_once(node, timeout_sec=0.5)
        segments = shared_memory_of(camera.pid)
        in_use = transport.mapped_segments()
    finally:
        # Not killed: its 64 MB of shared memory would stay behind.
        camera.terminate()
        camera.wait(DEADLINE_S)
        node.destroy_node()
    views = [parse_image(buffer) for buffer in received]
    assert len(views) >= 10
    # Without the profile a few images come through, too, and most do not.
    assert max(segments.values()) >= transport.SEGMENT_BYTES, "Fast DDS has not read the profile"
    assert max(in_use.own) >= transport.SEGMENT_BYTES <= max(in_use.peers)
    assert all(view.frame_id == "front" and (to_rgb(view) == picture()).all() for view in views)
    seconds = [view.stamp.sec for view in views]
    assert seconds == sorted(set(seconds))


def test_the_profile_is_what_was_measured(checkout):
    assert transport.profile_path() == checkout / "config/fastdds_images.xml"
    tree = ElementTree.parse(transport.profile_path())
    found = {element.tag.rpartition("}")[2]: element.text for element in tree.iter()}
    assert found["segment_size"] == "67108864" and found["maxMessageSize"] == "16777216"
    assert found["useBuiltinTransports"] == "false"
    assert (found["count"], found["nanosec"]) == ("30", "100000000")
    assert (found["name"], found["value"]) == ("fastdds.type_propagation", "disabled")
    (participant,) = tree.iter("{http://www.eprosima.com}participant")
    assert participant.get("is_default_profile") == "true"


@pytest.fixture
def installed(tmp_path):
    """Put a library where a prefix has those of Fast DDS; return the prefix."""

    def install(prefix, library):
        (tmp_path / prefix / "lib").mkdir(parents=True, exist_ok=True)
        if library:
            (tmp_path / prefix / "lib" / library).touch()
        return str(tmp_path / prefix)

    return install


@pytest.mark.parametrize(
    ("library", "distribution", "old"),
    [
        ("libfastrtps.so.2.14.5", None, True),  # Jazzy from PyPI's wheels
        ("libfastdds.so.3.2.2", None, False),  # Kilted from PyPI's wheels
        ("libfastrtps.so.2.6", "humble", True),
        ("libfastdds.so.3.2", "jazzy", False),  # what is installed counts
        (None, "jazzy", True),
        (None, "kilted", False),
        (None, None, False),
    ],
)
@pytest.mark.parametrize("workspace", [False, True])
def test_what_is_installed_tells_the_name_of_the_variable(installed, library, distribution, old, workspace):
    environ = {} if distribution is None else {"ROS_DISTRO": distribution}
    prefix = installed("ros", library)
    if workspace:  # built over the distribution
        environ["AMENT_PREFIX_PATH"] = os.pathsep.join((installed("workspace", None), prefix))
        prefix = installed("python", None)
    assert transport.takes_old_name(environ, prefix) == old


def test_the_environment_names_the_profile_unless_the_user_has(monkeypatch):
    path = str(transport.profile_path())
    both = dict.fromkeys(transport.PROFILE_VARIABLES, path)
    new = {"FASTDDS_DEFAULT_PROFILES_FILE": path}
    for old, ours in ((False, new), (True, both)):
        monkeypatch.setattr(transport, "takes_old_name", lambda environ, old=old: old)
        assert transport.profile_environment({}) == ours
        assert transport.profile_environment({"FASTDDS_DEFAULT_PROFILES_FILE": ""}) == ours
        for name in transport.PROFILE_VARIABLES:
            assert transport.profile_environment({name: "/etc/my_profile.xml"}) == {}


def test_the_environment_of_this_process_is_what_counts_by_default(monkeypatch):
    for name in transport.PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert transport.profile_environment() == transport.profile_environment({})
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", os.devnull)
    assert transport.profile_environment() == {}


@pytest.mark.parametrize(
    ("text", "values", "said"),
    [
        (
            transport.NO_FRAMES,
            {"seconds": 2.0},
            "/front/image_raw: a publisher is there, but no frame has come for 2 s",
        ),
        (transport.LOW_RATE, {"actual": 7.04, "wanted": 30.0}, "7.0 Hz come in, 30.0 Hz are wanted"),
        (transport.MESSAGE_LOST, {"count": 3}, "3 messages were lost"),
    ],
)
def test_warnings_name_the_remedy(text, values, said):
    message = transport.warning(text, topic="/front/image_raw", **values)
    assert said in message and f"FASTDDS_DEFAULT_PROFILES_FILE={transport.profile_path()} " in message
    assert "/dev/shm" in message and "{" not in message


def test_the_remedy_for_incompatible_qos_names_the_parameters():
    message = transport.warning(transport.INCOMPATIBLE_QOS, topic="/image_raw", policy="RELIABILITY")
    assert "(RELIABILITY)" in message and "qos_overrides./image_raw.subscription.reliability" in message


class Statvfs:
    f_frsize = 4096

    def __init__(self, mib):
        self.f_blocks = mib * 256


@pytest.mark.parametrize(("mib", "missing"), [(32, 112), (64, 80), (143, 1), (144, None), (256, None)])
def test_shared_memory_that_is_too_small_is_told_with_what_is_missing(mib, missing, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: Statvfs(mib))
    said = transport.shared_memory_shortage()
    message = transport.warning(transport.NO_FRAMES, topic="/image_raw", seconds=2.0)
    if missing is None:
        assert said is None and "too small" not in message
        return
    assert f"/dev/shm is too small: it has {mib} MiB" in said and f"need 144 MiB, {missing} MiB more" in said
    assert "--shm-size=256m" in said and message.startswith(said) and "no frame has come for 2 s" in message
    assert "too small" not in transport.warning(transport.INCOMPATIBLE_QOS, topic="/image_raw", policy="RELIABILITY")


def test_a_system_without_shared_memory():
    assert "cannot be used (No such file or directory)" in transport.shared_memory_shortage("/absent")


def test_what_the_profile_takes_is_what_is_reckoned_with():
    text = transport.profile_path().read_text(encoding="utf-8")
    assert f"<segment_size>{transport.SEGMENT_BYTES}</segment_size>" in text


def test_whether_the_profile_is_in_use():
    path = str(transport.profile_path())
    assert all(transport.uses_profile({name: path}) for name in transport.PROFILE_VARIABLES)
    assert not transport.uses_profile({}) and not transport.uses_profile({"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"})


SMALL = transport.Segments((549_000,), (549_000,))
LARGE = transport.Segments((549_000, 70_000_000), (70_000_000,))
HERE, ELSEWHERE = (1, 15, 120, 253, 1), (1, 15, 7, 7, 1)


@pytest.mark.parametrize(
    "publisher, rmw, expected",
    [
        (HERE, "rmw_fastrtps_cpp", "FASTDDS_DEFAULT_PROFILES_FILE"),
        (ELSEWHERE, "rmw_fastrtps_cpp", "on another computer.*net.core.rmem_max=.*/image_raw.subscription.reliability"),
        ((1, 16, 9, 9), "rmw_fastrtps_cpp", "Cyclone DDS, which shares no memory.*net.core.rmem_max="),
        ((1, 99, 9, 9), "rmw_fastrtps_cpp", "of another vendor"),
        (HERE, "rmw_zenoh_cpp", "runs with rmw_zenoh_cpp"),
    ],
)
def test_the_remedy_is_that_for_where_the_publisher_is(publisher, rmw, expected):
    advice = transport.remedy((1, 15, 120, 253, 9), [publisher], rmw, SMALL)
    message = transport.warning(transport.NO_FRAMES, advice, topic="/image_raw", seconds=2)
    assert re.search(expected, message) and "{" not in message


@pytest.mark.parametrize(
    "segments, environ, expected, unexpected",
    [
        (LARGE, {}, "Images come through shared memory that is large enough already", "start the camera driver"),
        (SMALL, {}, "start the camera driver's process with FASTDDS_DEFAULT_PROFILES_FILE", "sysctl"),
        # One peer has the profile, and who knows whether that is the camera.
        (transport.Segments((70_000_000,), (549_000, 70_000_000)), {}, "start the camera driver's process", "already"),
        (transport.Segments((70_000_000,), ()), {}, "Containers need a common /dev/shm", "already"),
        (
            transport.Segments((), ()),
            {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"},
            r"shares no memory \(FASTDDS_BUILTIN_TRANSPORTS=UDPv4\).*net.core.rmem_max=.*reliability to reliable",
            "start the camera driver",
        ),
        (transport.Segments((), ()), {}, r"shares no memory \(as its configuration wants it\)", "start the camera"),
    ],
)
def test_the_remedy_on_one_computer_fits_the_shared_memory_in_use(segments, environ, expected, unexpected, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: Statvfs(256))
    advice = transport.remedy((1, 15, 120, 253, 9), [HERE], "rmw_fastrtps_cpp", segments, environ)
    message = transport.warning(transport.NO_FRAMES, advice, topic="/image_raw", seconds=2)
    assert re.search(expected, message) and unexpected not in message and "{" not in message


def test_shared_memory_that_is_too_small_is_the_reason_for_having_none(monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: Statvfs(64))
    advice = transport.remedy((1, 15, 120, 253, 9), [HERE], "rmw_fastrtps_cpp", transport.Segments((), ()), {})
    message = transport.warning(transport.NO_FRAMES, advice, topic="/image_raw", seconds=2)
    assert message.startswith("/dev/shm is too small: it has 64 MiB") and "shares no memory" not in message


def test_shared_memory_of_a_process_and_of_its_peers(tmp_path):
    (tmp_path / "maps").write_text(
        "7f0000000000-7f0000100000 rw-s 00000000 00:1a 7  /dev/shm/fastdds_00000000000000aa\n"
        "7f0000200000-7f0004200000 rw-s 00000000 00:1a 8  /dev/shm/fastdds_00000000000000bb\n"
        "7f0005000000-7f0005100000 rw-s 00000000 00:1a 9  /dev/shm/fastdds_port7411\n"
        "7f0006000000-7f0006100000 r--p 00000000 00:1a 5  /usr/lib/libfastdds.so.3.2.3\n"
    )
    (tmp_path / "fd").mkdir()
    for i, name in enumerate(("fastdds_00000000000000aa_el", "fastdds_port7411_el")):
        (tmp_path / "fd" / str(i)).symlink_to(f"/dev/shm/{name}")
    assert transport.mapped_segments(tmp_path) == transport.Segments((1 << 20,), (64 << 20,))
    assert transport.mapped_segments(tmp_path / "absent") == transport.Segments((), ())


def test_endpoints_of_this_computer_and_middleware_tell_so(ros):
    from rclpy.utilities import get_rmw_implementation_identifier
    from sensor_msgs.msg import Image

    node = ros.create_node("told")
    publishers = [node.create_publisher(Image, topic, 1) for topic in ("told_here", "told_there")]
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and not all(node.count_publishers(one.topic_name) for one in publishers):
        time.sleep(0.05)
    own, other = (node.get_publishers_info_by_topic(one.topic_name)[0].endpoint_gid for one in publishers)
    segments = transport.mapped_segments()
    node.destroy_node()
    assert segments.own  # by whatever name this version of Fast DDS gives it
    rmw = get_rmw_implementation_identifier()
    assert "shared memory belongs to the sender" in transport.remedy(own, [other], rmw, SMALL)
