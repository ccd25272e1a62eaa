"""What is made of what came: rates, latencies, mismatches, mIoU."""

import numpy as np
import pytest

from vidseg_core.classes import load_classes

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_ros.demo.recording import Recording, Spool, Track, shrink

CLASSES = load_classes("camvid")
MS = 1_000_000


def labels_of(value, size=(4, 6, 1)):
    return np.full(size, value, np.uint8)


@pytest.fixture
def recording(tmp_path):
    """Ten frames at 10 Hz; the labels of the first and the fifth are missing, the others come 20, 30, ... ms later."""
    recording = Recording(tmp_path)
    for i in range(10):
        stamp_ns = 10**18 + i * 100 * MS
        recording.sent.add(stamp_ns, stamp_ns + MS)
        if i not in (0, 4):
            recording.labels.add(stamp_ns, stamp_ns + (10 + 10 * len(recording.labels)) * MS)
            recording.overlays.add(stamp_ns, stamp_ns)
    return recording


def test_statistics(recording):
    assert recording.statistics() == {
        "input_hz": 10.0,
        "output_hz": 8.0,
        "latency_ms": {"p50": 45.0, "p95": 76.5, "max": 80.0},
        "dropped": 2,
        "frames": {"sent": 10, "labelled": 8, "overlays": 8},
    }
    assert recording.problems() == []


def test_statistics_of_nothing(tmp_path):
    recording = Recording(tmp_path)
    statistics = recording.statistics()
    assert statistics["input_hz"] is statistics["output_hz"] is statistics["latency_ms"]["p50"] is None
    assert statistics["dropped"] == 0
    assert recording.problems() == ["no labels came"]
    assert recording.mean_iou(CLASSES) == (None, 0)
    assert list(recording.shown()) == []


def test_labels_of_no_frame_are_a_problem(recording):
    recording.labels.add(10**18 + 950 * MS, 10**18 + 960 * MS)
    (problem,) = recording.problems()
    assert problem.startswith(
        "1 of 9 messages on labels have a stamp that no frame of the camera had, the first 1000000"
    )
    assert recording.statistics()["frames"]["labelled"] == 8


@pytest.mark.parametrize("index", [3, -1])
def test_stamps_that_repeat_or_go_back_are_a_problem(recording, index):
    recording.overlays.add(recording.overlays.stamps_ns[index], 10**19)
    assert recording.problems() == ["stamps on overlay are repeated or out of order"]


def test_a_track_of_the_last_seconds():
    track = Track()
    for time_ns in (10, 20, 30, 40):
        track.add(time_ns - 5, time_ns)
    assert track.since(30).stamps_ns == [25, 35] and track.since(31).arrivals_ns == [40] and len(track.since(41)) == 0


def test_miou_matches_by_stamp(recording):
    for stamp_ns in recording.sent.stamps_ns:
        recording.spool.put("labels_truth", stamp_ns, labels_of(3))
    half = labels_of(3)
    half[:2] = 1
    recording.spool.put("labels", recording.sent.stamps_ns[2], half)
    recording.spool.put("labels", recording.sent.stamps_ns[7], labels_of(3))
    # Of 48 pixels of class 3, 36 are right, and 12 are called 1, which none is.
    assert recording.mean_iou(CLASSES) == (pytest.approx((36 / 48 + 0) / 2), 2)


def test_the_screen_shows_the_last_overlay_where_a_frame_was_dropped(recording):
    for i in (1, 2, 5):
        recording.spool.put("overlay", recording.sent.stamps_ns[i], np.full((4, 6, 3), i, np.uint8))
    assert [picture[0, 0, 0] for picture in recording.shown()] == [1, 2, 2, 2, 5]


def test_a_spool_keeps_what_it_has_room_for(tmp_path):
    pictures = [np.full((4, 6, 3), value, np.uint8) for value in (5, 6, 7)]
    spool = Spool(tmp_path, most_bytes=2 * pictures[0].nbytes)
    for stamp_ns, picture in zip((30, 10, 20), pictures, strict=True):
        spool.put("overlay", stamp_ns, picture)
    assert spool.num_refused == 1
    spool.put("overlay", 40, np.zeros((1, 1, 3), np.uint8))  # there is room, but not for what came before it
    assert spool.num_refused == 2
    assert spool.stamps_ns("overlay") == [10, 30] and spool.stamps_ns("labels") == []
    assert (spool.pixels("overlay", 10) == pictures[1]).all() and spool.pixels("overlay", 20) is None
    assert list(tmp_path.iterdir()) == []
    spool.close()


def test_a_spool_keeps_class_ids_as_they_are_in_little_room(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(0, 256, (108, 192, 1), np.uint8), 10, 0), 10, 1)
    spool = Spool(tmp_path, most_bytes=labels.nbytes // 10)
    spool.put("labels", 1, labels)
    spool.put("labels", 2, labels[:, ::2])  # not contiguous
    assert spool.num_refused == 0
    assert np.array_equal(spool.pixels("labels", 1), labels)
    assert np.array_equal(spool.pixels("labels", 2), labels[:, ::2])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((720, 1280), (720, 1280)),
        ((1080, 1920), (540, 960)),
        ((1861, 2883), (465, 720)),
        ((1, 4000), (1, 4000)),
    ],
)
def test_overlays_of_large_cameras_are_kept_small(tmp_path, size, expected):
    rows = np.arange(size[0])[:, None, None] * 200 // size[0]
    picture = np.ascontiguousarray(np.broadcast_to(rows, (*size, 3)).astype(np.uint8))
    small = shrink(picture)
    assert small.shape == (*expected, 3)
    places = (np.arange(expected[0]) * size[0]) // expected[0]
    assert np.abs(small[:, 0, 0].astype(int) - picture[places, 0, 0]).max() <= 1
    spool = Spool(tmp_path)
    spool.put("overlay", 1, picture)
    assert np.array_equal(spool.pixels("overlay", 1), small)
