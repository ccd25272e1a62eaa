"""Compressed video through the node, on real DDS: decoded as it comes, and what is lost is counted.

The packages of these messages are not on PyPI. A stand-in takes the place of their types: serialized messages go
through DDS as they are, whatever the type of the topic.
"""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from vidseg_ros.messages.kinds import KINDS, Kind  # noqa: E402

SIZE = (96, 128)
COUNT = 40
TRANSPORTS = ("ffmpeg", "foxglove")
NAMES = {
    "ffmpeg": "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
    "foxglove": "foxglove_msgs/msg/CompressedVideo",
}
FIELDS = {
    "ffmpeg": "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
    "bool is_bigendian\nuint8[] data\n",
    "foxglove": "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
}


@pytest.fixture(scope="module")
def serialized():
    """A function: a packet as a serialized message."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    for transport, name in NAMES.items():
        store.register(get_types_from_msg(FIELDS[transport], name))
    types = store.types

    def serialize(transport, stamp_ns, data, codec="h264"):
        stamp, raw = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9)), np.frombuffer(data, np.uint8)
        if transport == "ffmpeg":
            header = types["std_msgs/msg/Header"](stamp, "optical")
            message = types[NAMES[transport]](header, SIZE[1], SIZE[0], f"{codec};yuv420p;bgr8;bgr8", 7, 0, False, raw)
        else:
            message = types[NAMES[transport]](stamp, "optical", raw, codec)
        return bytes(store.serialize_cdr(message, NAMES[transport]))

    return serialize


@pytest.fixture(scope="module")
def pictures(moving_pictures):
    return moving_pictures(COUNT, SIZE)


@pytest.fixture(scope="module")
def packets(pictures, encode_video):
    """A key frame every ten."""
    return [data for _, data in encode_video(pictures)]


@pytest.fixture
def bench(rig, ros, monkeypatch):
    """A function: a node with that transport, and a function that sends it packets."""
    opened = []

    def open_bench(transport, **given):
        monkeypatch.setattr(Kind, "message_type", lambda self: String)
        engine = rig.StandIn()
        one = rig.Rig(ros, engine, image_transport=transport, reliability="RELIABLE", **given)
        opened.append(one)
        one.connect(name=f"image_raw/{transport}", message_type=String)
        return one

    yield open_bench
    for one in opened:
        one.close()


def send(one, transport, serialized, numbered, codec="h264"):
    """Publish (number, packet), each once the one before has been received; stamps are 33 ms apart."""
    [camera] = one.node.cameras
    publisher = one.publisher(f"image_raw/{transport}", String)
    for number, data in numbered:
        received = camera.statistics.counts.received
        publisher.publish(serialized(transport, 10**18 + number * 33_000_000, data, codec))
        one.spin_until(lambda received=received: camera.statistics.counts.received == received + 1)


def labelled(one, pictures):
    """Numbers of the frames that were labelled, each of which is its own picture."""
    numbers = []
    for frame in one.engine.steps:
        number, rest = divmod(frame.stamp_ns - 10**18, 33_000_000)
        assert rest == 0 and np.abs(frame.image.astype(int) - pictures[number]).mean() < 20  # of neighbours above 40
        numbers.append(number)
    return numbers


def counts(one):
    return one.node.cameras[0].statistics.counts


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_packet_gives_labels_with_its_header(bench, serialized, packets, pictures, transport):
    one = bench(transport)
    assert [camera.topic for camera in one.node.cameras] == [f"{one.namespace}/image_raw/{transport}"]
    for number in range(12):
        send(one, transport, serialized, [(number, packets[number])])
        one.spin_until(lambda number=number: len(one.received["labels"]) == number + 1)
        message = one.received["labels"][-1]
        assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == 10**18 + number * 33_000_000
        assert message.header.frame_id == "optical" and (message.height, message.width) == SIZE
    assert labelled(one, pictures) == list(range(12))
    assert (counts(one).undecoded, counts(one).refused, counts(one).dropped) == (0, 0, 0)
    assert one.values(one.spin_reports())["Packets not decoded"] == "0"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_h265(bench, serialized, encode_video, pictures, transport):
    one = bench(transport)
    numbered = encode_video(pictures[:5], "h265")
    send(one, transport, serialized, numbered, {"ffmpeg": "hevc_nvenc", "foxglove": "h265"}[transport])
    one.spin_until(lambda: counts(one).processed + counts(one).dropped == 5)
    assert labelled(one, pictures)[-1] == 4


def test_it_begins_with_a_key_frame_and_counts_what_is_lost(bench, serialized, packets, pictures):
    one = bench("ffmpeg")
    send(one, "ffmpeg", serialized, [(i, packets[i]) for i in range(4, 10)])
    assert counts(one).undecoded == 6
    status = one.spin_reports()
    send(one, "ffmpeg", serialized, [(10, packets[10])])
    one.spin_until(lambda: counts(one).processed == 1)
    # Nothing is made of frames that need one which did not come.
    send(one, "ffmpeg", serialized, [(i, packets[i]) for i in (11, 13, 14, 15, 16, 17, 18, 19, 20)])
    one.spin_until(lambda: counts(one).processed + counts(one).dropped == 3)
    numbers = labelled(one, pictures)
    assert set(numbers) <= {10, 11, 20} and {10, 20} <= set(numbers)
    assert counts(one).undecoded == 13
    assert any("waits for a key frame" in status.message for status in one.statuses)
    assert one.values(one.spin_reports())["Packets not decoded"] == "13"
    assert status.level in (DiagnosticStatus.ERROR, DiagnosticStatus.OK)


def test_damaged_and_strange_packets_are_counted_and_told(bench, serialized, packets, pictures):
    one = bench("foxglove")
    send(one, "foxglove", serialized, [(0, packets[0]), (1, packets[1][: len(packets[1]) // 2])])
    assert counts(one).undecoded == 1
    one.spin_until(lambda: one.logged("frame refused: a packet is damaged"))
    send(one, "foxglove", serialized, [(2, packets[2]), (3, packets[3])])
    assert counts(one).undecoded == 3
    send(one, "foxglove", serialized, [(4, packets[4])], "vp9")
    assert counts(one).undecoded == 4
    one.publisher("image_raw/foxglove", String).publish(b"\0\1\0\0no message")
    one.spin_until(lambda: counts(one).undecoded == 5)
    assert "the message ends at" in one.spin_reports().message
    send(one, "foxglove", serialized, [(10, packets[10])])
    one.spin_until(lambda: labelled(one, pictures)[-1:] == [10])
    assert counts(one).refused == 0


def test_packets_are_decoded_while_the_worker_is_busy(bench, rig, serialized, packets, pictures):
    """The newest frame wins, and is whole though nobody looked at those before."""
    one, gate = bench("ffmpeg"), rig.Gate()
    one.engine.before = gate
    send(one, "ffmpeg", serialized, [(0, packets[0])])
    one.spin_until(gate.reached.is_set)
    send(one, "ffmpeg", serialized, [(i, packets[i]) for i in range(1, 10)])
    gate.open()
    one.spin_until(lambda: counts(one).processed == 2)
    assert labelled(one, pictures) == [0, 9]
    assert counts(one).dropped == 8 and counts(one).undecoded == 0


def test_b_frames_come_in_the_order_in_which_they_are_shown(bench, serialized, encode_video, pictures):
    one = bench("ffmpeg")
    numbered = encode_video(pictures[:20], bframes=2, b_adapt=0)
    one.engine.before = lambda frame: None
    for packet in numbered:
        send(one, "ffmpeg", serialized, [packet])
        one.idle()
    numbers = labelled(one, pictures)
    assert numbers == sorted(numbers) and len(numbers) >= 5
    assert len(numbers) + counts(one).dropped >= 16 and counts(one).repeated == 0


def test_after_a_pause_in_listening_it_waits_for_a_key_frame(bench, serialized, packets, pictures):
    from std_srvs.srv import SetBool

    one = bench("ffmpeg")
    send(one, "ffmpeg", serialized, [(0, packets[0])])
    one.spin_until(lambda: counts(one).processed == 1)
    for wanted in (False, True):
        assert one.call(SetBool, "vidseg/enable", SetBool.Request(data=wanted)).success
    send(one, "ffmpeg", serialized, [(1, packets[1]), (10, packets[10])])
    one.spin_until(lambda: counts(one).processed == 2)
    assert labelled(one, pictures) == [0, 10] and counts(one).undecoded == 1


def test_a_stamp_that_comes_twice_is_one_frame(bench, serialized, packets, pictures):
    one = bench("foxglove")
    send(one, "foxglove", serialized, [(i, packets[i]) for i in (0, 0, 1, 1, 2)])
    one.spin_until(lambda: labelled(one, pictures)[-1:] == [2])
    assert counts(one).repeated == 2 and counts(one).undecoded == 0


@pytest.mark.parametrize(
    ("transport", "package"), [("ffmpeg", "ffmpeg_image_transport_msgs"), ("foxglove", "foxglove_msgs")]
)
def test_without_its_package_configuring_fails_and_names_it(rig, ros, monkeypatch, transport, package):
    monkeypatch.setitem(sys.modules, f"{package}.msg", None)
    with rig.Rig(ros, rig.StandIn(), image_transport=transport) as one:
        assert one.node.exit_code == 1
        one.spin_until(lambda: one.logged("configure failed"))
        [said] = one.logged("configure failed")
        debian = package.replace("_", "-")
        assert said == (
            f"configure failed: image_transport: {transport}: needs the package {package}, which is not installed "
            f"(apt install ros-$ROS_DISTRO-{debian})"
        )


def test_without_pyav_configuring_fails_and_names_it(rig, ros, monkeypatch):
    monkeypatch.setattr(Kind, "message_type", lambda self: String)
    monkeypatch.setitem(sys.modules, "vidseg_core.data.packets", None)
    with rig.Rig(ros, rig.StandIn(), image_transport="ffmpeg") as one:
        assert one.node.exit_code == 1
        one.spin_until(lambda: one.logged("image_transport: ffmpeg: needs PyAV, which cannot be imported"))


def test_images_need_no_pyav(checkout):
    """Neither the node nor a recording of images loads it."""
    ask = "import sys, vidseg_ros.node, vidseg_core.data.bag; print('av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_views_of_message_objects():
    """As rclpy makes them of representations that are not read here."""
    from types import SimpleNamespace

    stamp, data = SimpleNamespace(sec=3, nanosec=4), [1, 2]
    header = SimpleNamespace(stamp=stamp, frame_id="cam")
    video = KINDS["foxglove"].view(SimpleNamespace(timestamp=stamp, frame_id="cam", format="h265", data=data))
    packet = KINDS["ffmpeg"].view(SimpleNamespace(header=header, encoding="hevc", data=data))
    for view, form in ((video, "h265"), (packet, "hevc")):
        assert (view.stamp, view.frame_id, view.format, view.data.tolist()) == ((3, 4), "cam", form, data)
    image = SimpleNamespace(header=header, height=1, width=2, encoding="mono8", is_bigendian=1, step=2, data=data)
    raw = KINDS["raw"].view(image)
    assert (raw.stamp, raw.frame_id, raw.height, raw.width, raw.encoding) == ((3, 4), "cam", 1, 2, "mono8")
    assert (raw.is_bigendian, raw.step, raw.pixels(1).tolist()) == (1, 2, [[[1], [2]]])
    compressed = KINDS["compressed"].view(SimpleNamespace(header=header, format="jpeg", data=data))
    assert (compressed.stamp, compressed.format, compressed.data.tolist()) == ((3, 4), "jpeg", data)
