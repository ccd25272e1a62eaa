"""The demo as a user starts it: processes, DDS, files, exit status."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.open import open_source
from vidseg_core.models.checksum import checksum

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_ros.demo import main as demo
from vidseg_ros.demo import session as demo_session
from vidseg_ros.demo.recording import Recording
from vidseg_ros.demo.results import Run

CLASSES = load_classes("camvid")
NUM_FRAMES, RATE_HZ = 5, 10
HEIGHT, WIDTH = 240, 320
DEADLINE_S = 400
MARK = "VIDSEG_TEST_RUN"
OTHER_DOMAIN = 101
"""Of no other test, see `ros_environment` in conftest.py."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network that has learnt nothing but has the right form."""
    torch = pytest.importorskip("torch")
    from vidseg_core.models.files import save_weights
    from vidseg_core.networks.swiftnet import SwiftNet

    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    torch.manual_seed(0)
    metadata = {"architecture": "swiftnet-r18", "classes": CLASSES.to_dict()}
    save_weights(path, SwiftNet(len(CLASSES)).state_dict(), metadata)
    return path


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """A folder of pictures, and one of their labels: class 0, for which the pass-through engine takes everything, above
    the middle, and class 3 below."""
    root = tmp_path_factory.mktemp("drive")
    images, labels = root / "images", root / "labels"
    images.mkdir()
    labels.mkdir()
    rng = np.random.default_rng(0)
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[HEIGHT // 2 :] = 3
    for i in range(NUM_FRAMES):
        cv2.imwrite(str(images / f"{i}.png"), rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
        cv2.imwrite(str(labels / f"{i}.png"), ids)
    return images, labels


class Process:
    """A demo that runs, and what it has started."""

    def __init__(self, checkout: Path, out: Path, arguments: list[str]):
        self.out = out
        self._mark = f"{MARK}={out}"
        command = [sys.executable, "-m", "vidseg_ros.demo.main", *arguments, "--out", str(out)]
        environment = dict(os.environ) | {MARK: str(out)}
        self._process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self, start: str) -> str:
        """Wait for a line on standard error that starts like this."""
        return next(line for line in self._process.stderr if line.startswith(start))

    def send(self, one: signal.Signals) -> None:
        self._process.send_signal(one)

    def end(self) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        output, errors = self._process.communicate(timeout=DEADLINE_S)
        return self._process.returncode, output, errors

    def runs_on(self, wait_s: float) -> bool:
        """Whether it has not ended after that time."""
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return True
        return False

    def family(self) -> list[int]:
        """Processes that are left of it: they inherit its environment."""
        left = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self._mark.encode() in environ.read_bytes().split(b"\0"):
                    left.append(int(environ.parent.name))
            except OSError:
                continue  # it has ended, or is another user's
        return left

    def summary(self) -> dict:
        return json.loads((self.out / "summary.json").read_text())


@pytest.fixture
def start(checkout, tmp_path, ros_environment):
    """Starts demos; none leaves a process behind."""
    processes = []

    def make(*arguments):
        processes.append(Process(checkout, tmp_path / "out", [str(argument) for argument in arguments]))
        return processes[-1]

    yield make
    for process in processes:
        process.send(signal.SIGKILL)
        process.end()


def test_a_demo(start, drive, weights):
    images, labels = drive
    options = ("--rate", RATE_HZ, "--duration", 2, "--weights", weights)
    parameters = ("-p", "interval:=1", "-p", "input_scale:=0.25")
    process = start(images, "--labels", labels, *options, *parameters)
    status, output, errors = process.end()
    assert status == 0, errors
    assert process.family() == []

    summary = process.summary()
    assert summary["problems"] == [] and not summary["interrupted"]
    frames = summary["frames"]
    assert frames["sent"] == 2 * RATE_HZ and 0 < frames["labelled"] <= frames["sent"]
    assert summary["dropped"] == frames["sent"] - frames["labelled"]
    assert summary["input_hz"] > 0 and 0 < summary["output_hz"] <= summary["input_hz"]
    latency = summary["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["max"]
    assert 0 < summary["key_ratio"] <= 1
    assert 0 <= summary["miou"] < 50 and 0 < summary["labels_evaluated"] <= frames["labelled"]
    assert summary["device"] and summary["versions"]["rclpy"] and summary["versions"]["rmw"]
    assert summary["weights"]["sha256"] == checksum(weights, "sha256")
    assert summary["parameters"]["interval"] == "1"

    video = open_source(process.out / "overlay.mp4")
    assert video.size == (WIDTH, HEIGHT) and 0 < len(video) <= frames["sent"]
    assert cv2.imread(str(process.out / "contact_sheet.png")) is not None
    assert f"{frames['labelled']} of {frames['sent']} frames labelled" in output
    assert sorted(path.name for path in process.out.iterdir()) == [
        "camera_player.log", "contact_sheet.png", "overlay.mp4", "summary.json", "vidseg_node.log",
    ]  # fmt: skip


PASS_THROUGH = ("-p", "engine:=pass_through")


def test_labels_are_compared_with_the_truth_of_the_same_stamp(start, drive, weights):
    images, labels = drive
    process = start(images, "--labels", labels, "--rate", 10, "--duration", 1, "--weights", weights, *PASS_THROUGH)
    status, _, errors = process.end()
    assert status == 0, errors
    # Class 0: half of the pixels, all of them found, and as many too many; class 3: none found.
    assert process.summary()["miou"] == pytest.approx(100 * (0.5 + 0) / 2)
    assert process.summary()["key_ratio"] == 1


@pytest.mark.long
def test_no_labels(start, drive, weights):
    options = ("--rate", 10, "--duration", 1, "--weights", weights, "-p", "publish_labels:=false")
    process = start(drive[0], *options, *PASS_THROUGH)
    status, _, errors = process.end()
    assert status == 1 and "demo: no labels came" in errors
    assert process.family() == []
    summary = process.summary()
    assert summary["problems"] == ["no labels came"] and summary["miou"] is None
    assert summary["frames"] == {"sent": 10, "labelled": 0, "overlays": summary["frames"]["overlays"]}


@pytest.mark.long
def test_labels_whose_stamps_no_frame_had(start, drive, weights, ros):
    """Somebody else publishes them beside the node."""
    from sensor_msgs.msg import Image

    options = ("--rate", 10, "--duration", 1, "--weights", weights, "--domain", OTHER_DOMAIN)
    process = start(drive[0], *options, *PASS_THROUGH)
    context = ros.Context()
    ros.init(context=context, domain_id=OTHER_DOMAIN)
    stranger = ros.create_node("stranger", namespace=demo_session.NAMESPACE, context=context)
    try:
        publisher = stranger.create_publisher(Image, "labels", 10)
        while publisher.get_subscription_count() == 0:
            assert process.runs_on(wait_s=0.1)
        for second in (3, 2):
            labels = Image(height=1, width=1, step=1, encoding="mono8", data=b"0")
            labels.header.stamp.sec = second
            publisher.publish(labels)
        status, _, errors = process.end()
    finally:
        stranger.destroy_node()
        ros.shutdown(context=context)
    assert status == 1
    foreign, disorder = process.summary()["problems"]
    assert re.fullmatch(r"2 of \d+ messages on labels have a stamp that no frame .* the first 3000000000 ns", foreign)
    assert disorder == "stamps on labels are repeated or out of order"
    assert foreign in errors and disorder in errors


def test_a_node_that_fails_shows_its_last_words(start, drive, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"these are no weights")
    process = start(drive[0], "--weights", broken)
    status, _, errors = process.end()
    assert status == 1 and "vidseg_node ended with status 1" in errors
    assert f"{broken}: expected a safetensors file" in errors
    assert process.family() == []
    assert process.summary()["problems"][0].startswith("vidseg_node ended with status 1")


def test_a_camera_that_fails_shows_its_last_words(start, weights, tmp_path):
    process = start(tmp_path / "nothing", "--weights", weights, *PASS_THROUGH)
    status, _, errors = process.end()
    assert status == 1 and "camera_player ended with status 2" in errors and "there is nothing" in errors
    assert process.family() == []


def test_ctrl_c_ends_all_processes_and_keeps_what_has_come(start, drive, weights):
    process = start(drive[0], "--rate", 10, "--duration", 10_000, "--weights", weights, *PASS_THROUGH)
    end_s = time.monotonic() + DEADLINE_S
    while "latency" not in process.line("in ") and time.monotonic() < end_s:
        pass
    assert len(process.family()) == 3
    process.send(signal.SIGINT)
    status, _, errors = process.end()
    assert status == 130 and "Traceback" not in errors
    assert process.family() == []
    summary = process.summary()
    assert summary["interrupted"] and summary["problems"] == [] and summary["frames"]["labelled"] > 0
    assert len(open_source(process.out / "overlay.mp4")) > 0


def test_sigterm_while_preparing(start, drive, weights):
    process = start(drive[0], "--weights", weights)
    process.line("preparing")
    process.send(signal.SIGTERM)
    status, _, errors = process.end()
    assert status == 130 and "Traceback" not in errors
    assert process.family() == []


def test_the_first_signal_is_noted_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGTERM)
    with demo_session.Signals() as signals:
        assert not signals.received
        signal.raise_signal(signal.SIGTERM)
        assert signals.received
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def fails(capsys, *arguments):
    assert demo.main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("demo: error: ")
    return line


@pytest.fixture
def no_handlers(monkeypatch):
    monkeypatch.setattr(demo.signal, "signal", lambda *handler: None)


def test_errors_of_the_user_take_one_line(no_handlers, tmp_path, weights, capsys):
    assert "missing.safetensors" in fails(capsys, "--weights", tmp_path / "missing.safetensors")
    assert "no class table 'kitti'" in fails(capsys, "--weights", weights, "--classes", "kitti")
    (tmp_path / "file").touch()
    assert "expected a folder" in fails(capsys, "--weights", weights, "--out", tmp_path / "file")


@pytest.mark.parametrize("arguments", [("--duration", "0"), ("-p", "interval=3"), ("--domain", "233"), ("--dur", "3")])
def test_options_out_of_range(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        demo.main(list(arguments))
    assert exit.value.code == 2 and "demo: error: " in capsys.readouterr().err


def test_the_street_is_as_long_as_the_demo_within_reason():
    assert demo.default_source(20) == "street:seed=0,size=640x360,rate=30,frames=600"
    assert demo.default_source(0.001).endswith("frames=1")
    assert demo.default_source(3600).endswith("frames=1200")


def test_the_environment_is_of_its_own():
    variables = demo_session.ros_environment(None, {})
    own = 1 + os.getpid() % 100
    assert variables["ROS_DOMAIN_ID"] == str(own) and variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert "FASTDDS_DEFAULT_PROFILES_FILE" in variables and "ROS_LOCALHOST_ONLY" not in variables
    taken = demo_session.ros_environment(None, {"ROS_DOMAIN_ID": str(own), "ROS_DISTRO": "humble"})
    assert 1 <= int(taken["ROS_DOMAIN_ID"]) <= 100 and taken["ROS_DOMAIN_ID"] != str(own)
    assert taken["ROS_LOCALHOST_ONLY"] == "1"
    assert demo_session.ros_environment(42, {})["ROS_DOMAIN_ID"] == "42"


class Screen(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self):
        return self._is_terminal


def test_a_terminal_shows_one_line_that_changes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "11")
    now_s = [0.0]
    monkeypatch.setattr(demo_session.time, "monotonic", lambda: now_s[0])
    screen = Screen(is_terminal=True)
    display = demo_session.Display(screen)
    display.update(lambda: "in 30 Hz and more")
    display.update(lambda: "too early")
    display.print("a warning")
    now_s[0] = 1.0
    display.echo("50 %\r")
    display.update(lambda: "in 29 Hz")
    display.close()
    lines = ("in 30 Hz a", "a warning\nin 30 Hz a50 %\r", "in 29 Hz\n")
    assert screen.getvalue() == "".join(f"\r\x1b[K{line}" for line in lines)


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr(demo_session.time, "monotonic", lambda: now_s[0])
    screen = Screen(is_terminal=False)
    display = demo_session.Display(screen)
    for second in range(7):
        now_s[0] = float(second)
        display.update(lambda: f"after {now_s[0]:.0f} s")
    display.echo("50 %\r")
    display.print("a warning")
    display.close()
    assert screen.getvalue() == "after 0 s\nafter 5 s\na warning\n"


def test_the_live_line(tmp_path):
    from vidseg_ros.demo.listener import Listener

    recording = Recording(tmp_path)
    listener = Listener("/camera", recording)
    assert listener.live_line() == "in   0.0 Hz   out   0.0 Hz   no labels   key frames -   dropped -"
    now_ns = time.time_ns()
    for i in range(60):
        recording.sent.add(now_ns - (59 - i) * 10**8, now_ns - (59 - i) * 10**8)
        if i % 2:
            recording.labels.add(recording.sent.stamps_ns[-1] - 7_000_000, recording.sent.stamps_ns[-1])
    listener.diagnostics = {"Key frames": "6", "Frames dropped": "30"}
    rates = re.fullmatch(
        r"in +([\d.]+) Hz   out +([\d.]+) Hz   latency     7 ms   key frames 6   dropped 30", listener.live_line()
    )
    # Over two seconds, of which a busy machine may have spent some here.
    assert 0 < float(rates[1]) <= 10.5 and 0 < float(rates[2]) <= 5.5


def test_labels_that_never_stop_are_not_waited_for(tmp_path, monkeypatch):
    from vidseg_ros.demo import listener as demo_listener

    recording, now_s = Recording(tmp_path), [0.0]
    recording.sent.add(1, 1)
    listener = demo_listener.Listener("/camera", recording)
    monkeypatch.setattr(demo_listener.time, "monotonic", lambda: now_s[0])

    def turn(seconds):
        now_s[0] += seconds
        recording.labels.add(len(recording.labels), len(recording.labels))

    monkeypatch.setattr(listener, "turn", turn)
    listener.turn_until_quiet(2.0, most_s=10.0)
    assert now_s[0] == pytest.approx(10.0, abs=0.2)


def test_labels_that_stay_away_are_waited_for_a_while(tmp_path, monkeypatch):
    from vidseg_ros.demo import listener as demo_listener

    recording, now_s, come_s = Recording(tmp_path), [0.0], [1.5, 3.0]
    for i in range(4):
        recording.sent.add(i, i)
    listener = demo_listener.Listener("/camera", recording)
    monkeypatch.setattr(demo_listener.time, "monotonic", lambda: now_s[0])

    def turn(seconds):
        now_s[0] += seconds
        if come_s and now_s[0] >= come_s[0]:
            recording.labels.add(len(recording.labels), 0)
            del come_s[0]

    monkeypatch.setattr(listener, "turn", turn)
    listener.turn_until_quiet(2.0, most_s=10.0)
    assert now_s[0] == pytest.approx(5.0, abs=0.3) and len(recording.labels) == 2


def test_a_node_at_work_is_waited_for(tmp_path, monkeypatch):
    """As with the first label of a computer that has to compile for it, and a camera that has ended long before."""
    from vidseg_ros.demo import listener as demo_listener

    listener, now_s, done_s = demo_listener.Listener("/camera", Recording(tmp_path)), [0.0], [7.0]
    listener.diagnostics = {"Frames received": "20", "Frames processed": "0", "Frames dropped": "19"}
    monkeypatch.setattr(demo_listener.time, "monotonic", lambda: now_s[0])

    def turn():
        now_s[0] += 1.0
        if now_s[0] >= done_s[0]:
            listener.diagnostics = listener.diagnostics | {"Frames processed": "1"}
        return now_s[0] < 100.0

    listener.turn_until_idle(turn)
    assert now_s[0] == 7.0
    listener.turn_until_idle(turn)  # which is idle
    assert now_s[0] == 7.0
    listener.diagnostics, done_s[0] = {"Frames received": "3"}, float("inf")
    listener.turn_until_idle(turn, most_s=10.0)
    assert now_s[0] == 17.0
    listener.turn_until_idle(turn, most_s=1000.0)
    assert now_s[0] == 100.0


def test_programs_that_only_listen_do_without_torch(checkout):
    """Its import takes seconds."""
    look = "import sys, vidseg_ros.demo.main, vidseg_ros.demo.score; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], cwd=checkout).returncode == 0


def test_labels_of_other_stamps_are_a_problem(tmp_path):
    recording = Recording(tmp_path)
    recording.sent.add(1, 2)
    recording.labels.add(3, 4)
    run = Run(recording, {}, None, "rmw", CLASSES, interrupted=False, failure="node ended\nlast words")
    assert run.problems()[0] == "node ended" and "1 of 1 messages on labels" in run.problems()[1]


@pytest.mark.long
@pytest.mark.parametrize("distribution", [None, "jazzy", "kilted"])
def test_six_hundred_frames_reach_the_node(distribution, tmp_path, checkout):
    """Without the transport's profile one frame in ten comes through; ten frames would not show it.

    How many of them are labelled depends on how busy the computer is; how many come, hardly. Diagnostics are at most a
    second old when the demo ends.
    """
    environment = {name: value for name, value in os.environ.items() if "PROFILES_FILE" not in name}
    environment.pop("ROS_DISTRO", None)
    environment |= {} if distribution is None else {"ROS_DISTRO": distribution}
    arguments = [sys.executable, "-m", "vidseg_ros.demo", "--duration", "20", "--out", str(tmp_path)]
    done = subprocess.run(arguments, cwd=checkout, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames"]["sent"] == 600, done.stdout + done.stderr
    assert int(summary["node_counts"]["Frames received"]) >= 500, done.stdout + done.stderr
