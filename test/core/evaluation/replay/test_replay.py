import json

import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.bag import BagSource, bag_labels
from vidseg_core.data.bag_writer import BagWriter
from vidseg_core.data.labelled import folder_pair
from vidseg_core.data.open import open_source
from vidseg_core.data.sequences import labelled_video
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.errors import DatasetError
from vidseg_core.evaluation.distance.evaluate import Method, evaluate
from vidseg_core.evaluation.replay.live import WorkerTimes
from vidseg_core.evaluation.replay.modes import config_of, in_mode
from vidseg_core.evaluation.replay.replay import (
    REFERENCES,
    Footage,
    ReplayChoices,
    by_distance,
    compare,
    live,
    offline,
    replay,
)

CLASSES = load_classes("camvid")
PERIOD_NS = 66_666_667
START_NS = 1_700_000_000 * 10**9


@pytest.fixture(scope="module")
def clip(shared_data, tmp_path_factory):
    """The first dozen frames of the real clip at a third of their size, as a recording."""
    path = tmp_path_factory.mktemp("bag") / "clip"
    data = shared_data / "camvid"
    with BagWriter(path) as bag:
        source = open_source(data / "val", rate_hz=15, labels=data / "valannot", classes=CLASSES)
        for i, frame in zip(range(12), source, strict=False):
            stamp_ns = START_NS + i * PERIOD_NS
            image = cv2.resize(frame.image, (160, 120), interpolation=cv2.INTER_AREA)
            labels = np.ascontiguousarray(frame.labels[::3, ::3])
            bag.write_image("/camera/image_raw", "rgb8", image, stamp_ns)
            bag.write_image("/camera/labels_truth", "mono8", labels, stamp_ns)
    return path


def footage(path, labels="/camera/labels_truth", **options):
    truth = None if labels is None else bag_labels(path, labels, CLASSES)
    return Footage(BagSource(path, topic="/camera/image_raw", labels=truth), **options)


def engine(interval=2, **config):
    """Knows the truth of key frames, so that all that is wrong comes from what is in question."""
    return build_engine(EngineConfig(interval=interval, num_threads=1, **config), TruthSegmenter(len(CLASSES)), CLASSES)


def test_every_frame_in_turn(clip):
    seen = []
    result = offline(engine(), footage(clip), 0, lambda frame, segmentation: seen.append((frame.name, segmentation)))
    summary = result.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["frames"], summary["labelled_frames"], summary["key_frames"]) == (12, 12, 4)
    assert summary["reasons"] == {"first frame": 1, "interval": 3, "propagated": 8}
    assert summary["rate_hz"] == pytest.approx(15, abs=0.01) and result.period_ns == PERIOD_NS
    assert [name for name, _ in seen] == [f"{i:06d}" for i in range(12)]
    assert len(result.samples) == 6 and result.samples[-1].frame.name == "000011"
    everything = offline(engine(interval=0), footage(clip)).summary()
    assert everything["key_frames"] == 12
    assert 70 < summary["miou"] < everything["miou"]


def test_frames_and_labels_are_resized_together(clip):
    result = offline(engine(interval=0), footage(clip, size=(80, 100), max_frames=2))
    assert result.samples[0].frame.size == result.samples[0].frame.labels.shape == (80, 100)
    assert len(result.stamps) == 2


def test_who_is_fast_enough_drops_nothing_and_is_one_frame_behind(clip):
    log, timings = live(engine(interval=0), footage(clip), PERIOD_NS, timings=WorkerTimes(50, 10))
    assert timings == WorkerTimes(50, 10)
    summary = log.summary()
    assert (summary["outputs"], summary["dropped"], summary["labelled_before_first_output"]) == (12, 0, 1)
    assert summary["latency_ms"] == {"p50": 50, "p95": 50, "p99": 50, "max": 50}
    # A period later each frame's own labels are there, and with the truth for a segmenter they are right.
    assert summary["deadline_miou"] == offline(engine(interval=0), footage(clip)).summary()["miou"]
    assert summary["streaming_miou"] < summary["deadline_miou"]


def test_the_figures_of_a_simulation_are_the_same_every_time(clip):
    logs = [live(engine(), footage(clip), PERIOD_NS, timings=WorkerTimes(150, 10))[0] for _ in range(2)]
    assert logs[0].summary() == logs[1].summary()
    # While a key frame takes its 150 ms, three frames come, two of which give way to the third.
    summary = logs[0].summary()
    assert summary["dropped"] > 0 and summary["frames"] == 12
    assert summary["outputs"] + summary["dropped"] == 12
    assert summary["latency_ms"]["max"] <= 150 + PERIOD_NS / 1e6


def test_measured_times_are_those_of_this_machine(clip):
    log, timings = live(engine(), footage(clip), PERIOD_NS)
    summary = log.summary()
    assert timings is None
    assert summary["outputs"] + summary["dropped"] == 12
    assert 0 < summary["step_ms"] <= summary["latency_ms"]["max"]


def test_real_threads(clip):
    summary = live(engine(), footage(clip), PERIOD_NS, realtime=True)[0].summary()
    assert summary["outputs"] + summary["dropped"] == 12 and summary["labelled_frames"] == 12


def test_without_truth_the_per_frame_segmenter_is_the_reference(clip, untrained):
    one = build_engine(EngineConfig(weights=untrained, runtime="eager", interval=3, input_scale=0.5, num_threads=1))
    shown = footage(clip, labels=None, max_frames=4)
    result = replay(one, shown, "clip", ReplayChoices(live=False))
    summary = result.summary()
    assert summary["reference"] == REFERENCES[1] and summary["offline"]["labelled_frames"] == 4
    assert 0 < summary["offline"]["pixel_accuracy"] < 100
    assert summary["live"] is None
    alone = offline(in_mode(one, "per_frame"), shown).summary()
    assert alone["pixel_accuracy"] == 100.0


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    import torch

    from vidseg_core.models.files import save_weights
    from vidseg_core.networks.swiftnet import SwiftNet

    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    torch.manual_seed(0)
    save_weights(path, SwiftNet(11).state_dict(), {"architecture": "swiftnet-r18", "classes": CLASSES.to_dict()})
    return str(path)


def test_the_per_frame_mode_is_the_segmenter_alone():
    """Whatever else there is between key frames goes, and with it what only belongs to that."""
    alone = config_of(EngineConfig(update_weights="net", update_scale=0.5, interval=4), "per_frame")
    assert (alone.interval, alone.flow, alone.fusion, alone.update_weights) == (0, "none", False, None)


def test_modes_are_compared_on_the_same_frames(clip):
    rows = compare(lambda mode: in_mode(engine(), mode), footage(clip), PERIOD_NS, timings=WorkerTimes(100, 5))
    found = [(row["mode"], round(row["rate_hz"])) for row in rows]
    assert found == [(mode, rate_hz) for rate_hz in (15, 30) for mode in ("per_frame", "sync", "async")]
    for row in rows:
        assert row["frames"] == 12 and row["labelled_frames"] == 12 and row["realtime"] is None
        assert 0 < row["streaming_miou"] < 100 and 0 < row["deadline_miou"] <= 100
    by_mode = {(row["mode"], round(row["rate_hz"])): row for row in rows}
    assert by_mode["per_frame", 15]["latency_ms"] > 100 > by_mode["sync", 15]["latency_ms"]
    assert by_mode["per_frame", 30]["dropped"] > by_mode["sync", 30]["dropped"] > by_mode["async", 30]["dropped"] > 0


def test_asynchronous_key_frames_on_a_simulated_clock(clip):
    """Only the first key frame is waited for; the others come when their time is over, several frames later."""
    with engine(interval=2, key_frames="async") as one:
        log, _ = live(one, footage(clip), PERIOD_NS, timings=WorkerTimes(150, 10))
    results = [output.segmentation for output in log.outputs]
    latency_ms = [(output.done_ns - output.arrived_ns) / 1e6 for output in log.outputs]
    # 0 takes 150 ms; 1 gives way to 2, which waits from 133 ms on; then everything comes at once.
    assert latency_ms[0] == 150 and latency_ms[1] == pytest.approx(150 - 2 * 66.667 + 10, abs=0.01)
    assert latency_ms[2:] == [10] * 9 and log.dropped == 1
    # Of the frames 0, 2, 3, ... 11, key frames begin at 4 and 7; their labels come 150 ms, three frames, later.
    assert [log.outputs[i].arrived_ns // PERIOD_NS for i, result in enumerate(results) if result.is_key] == [0, 7, 10]
    assert [result.age for result in results if result.is_key] == [0, 3, 3]


def test_asynchronous_key_frames_for_real(clip):
    one = engine(interval=0, key_frames="async")
    try:
        log, timings = live(one, footage(clip), PERIOD_NS, realtime=True)
        assert timings is None and log.summary()["outputs"] + log.summary()["dropped"] == 12
        log, timings = live(one, footage(clip), PERIOD_NS)
        assert timings.key_ms > 0 and timings.step_ms > 0
        assert log.summary()["latency_ms"]["p50"] == pytest.approx(timings.step_ms, abs=0.001)
    finally:
        one.close()


def test_key_frames_that_come_later(clip):
    at_once, later = (offline(engine(), footage(clip), key_delay) for key_delay in (0, 2))
    assert later.summary()["miou"] < at_once.summary()["miou"]
    assert later.consistency.share() > 0.8


def test_distances_are_scored_as_evaluate_does(clip, shared_data, tmp_path):
    """The same frames as files, through `vidseg evaluate`'s own way in."""
    for name, topic in (("clip", "/camera/image_raw"), ("clipannot", "/camera/labels_truth")):
        (tmp_path / name).mkdir()
        for frame in BagSource(clip, topic=topic):
            picture = frame.image[..., ::-1] if name == "clip" else frame.image[..., 0]
            cv2.imwrite(str(tmp_path / name / f"{frame.name}.png"), picture)
    one = engine()
    video = labelled_video(folder_pair(tmp_path, "clip", CLASSES, video=True))
    ((_, _, expected),) = evaluate(video, [Method(one, {}, (2,))])
    score = by_distance(one, footage(clip), offline(one, footage(clip)))
    assert len(score.matrices) == 3
    for matrix, other in zip(score.matrices, expected.matrices, strict=True):
        np.testing.assert_array_equal(matrix.counts, other.counts)
    summary = replay(one, footage(clip), "clip", ReplayChoices(live=False)).summary()
    assert summary["avg_miou"] == pytest.approx(100 * expected.total(2).mean_iou(), abs=0.001)
    assert summary["min_miou"] == pytest.approx(100 * expected.matrices[2].mean_iou(), abs=0.001)
    assert replay(one, footage(clip, max_frames=2), "clip", ReplayChoices(live=False)).score is None


def record(path, stamps_ns, sizes=None, truth=None):
    rng = np.random.default_rng(0)
    with BagWriter(path, "mcap") as bag:
        for i, stamp_ns in enumerate(stamps_ns):
            height, width = (72, 96) if sizes is None else sizes[i]
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            recorded_ns = START_NS + i * PERIOD_NS
            bag.write_image("/camera/image_raw", "rgb8", image, stamp_ns, recorded_ns=recorded_ns)
            labels = image[..., 0] % 11 if truth is None else truth[i]
            bag.write_image("/camera/labels_truth", "mono8", labels, stamp_ns, recorded_ns=recorded_ns)
    return path


def test_gaps_and_jumps_of_time_are_told(tmp_path):
    offsets_s = (0.0, 0.1, 0.2, 3.2, 3.3, 0.05, 0.15)
    path = record(tmp_path / "bag", [START_NS + round(t * 1e9) for t in offsets_s])
    result = replay(engine(), footage(path), "bag", ReplayChoices(timings=WorkerTimes(20, 5)))
    resets = result.summary()["offline"]["resets"]
    assert resets == [
        {"frame": "000003", "reason": "no frame for 3.000 s"},
        {"frame": "000005", "reason": "time ran back by 3.250 s"},
    ]
    summary = result.summary()["live"]
    assert summary["resets"] == [reset["reason"] for reset in resets]
    assert result.every.breaks == [3, 5] and [len(part) for part in (result.score.matrices,)] == [3]
    # The jump back takes what the recorder says, one of its periods.
    assert summary["outputs"] == 7 and result.log.duration_ns == 3_500_000_000 + PERIOD_NS


@pytest.mark.parametrize("kind", ["zero", "constant", "backward", "two zeros", "set later", "set back"])
def test_nobody_waits_for_stamps_that_cannot_be(tmp_path, kind):
    days_ns = 300 * 86400 * 10**9
    stamps_ns = {
        "zero": [0] * 6,
        "constant": [START_NS] * 6,
        "backward": [START_NS - i * PERIOD_NS for i in range(6)],
        "two zeros": [0 if i < 2 else START_NS + i * PERIOD_NS for i in range(6)],
        "set later": [START_NS + i * PERIOD_NS - (days_ns if i < 3 else 0) for i in range(6)],
        "set back": [START_NS + i * PERIOD_NS + (days_ns if i < 3 else 0) for i in range(6)],
    }[kind]
    path = record(tmp_path / "bag", stamps_ns)
    period_s, is_set = PERIOD_NS / 1e9, kind.startswith("set")
    for choices in (ReplayChoices(realtime=True), ReplayChoices(timings=WorkerTimes(20, 5))):
        result = replay(engine(), footage(path), "bag", choices)
        summary = result.summary()
        assert summary["offline"]["rate_hz"] == pytest.approx(1 / period_s, rel=1e-3)
        assert summary["offline"]["labelled_frames"] == 6 and result.every.breaks == ([3] if is_set else [])
        assert result.log.duration_ns == pytest.approx(6 * PERIOD_NS, rel=1e-6)
    assert summary["live"]["outputs"] == 6 and summary["live"]["rate_hz"] == pytest.approx(1 / period_s, rel=1e-3)


def test_truth_of_another_size_keeps_what_was_before_it(tmp_path):
    truth = [np.zeros((72, 96), np.uint8)] * 3 + [np.zeros((36, 48), np.uint8)] * 2
    path = record(tmp_path / "bag", [START_NS + i * PERIOD_NS for i in range(5)], truth=truth)
    result = replay(engine(), footage(path), "bag", ReplayChoices(timings=WorkerTimes(20, 5)))
    assert "/camera/labels_truth: expected labels as large as the image at" in result.error
    assert "(96 x 72), got 48 x 36" in result.error
    assert result.summary()["offline"]["frames"] == result.summary()["live"]["frames"] == 3


def test_truth_of_another_time(clip, tmp_path, untrained):
    cv2.imwrite(str(tmp_path / "1600000000.0.png"), np.zeros((120, 160), np.uint8))
    one = build_engine(EngineConfig(weights=untrained, runtime="eager", num_threads=1))
    with pytest.raises(DatasetError, match=r"clip: /camera/image_raw: expected ground truth for some of the 2 frames"):
        replay(one, footage(clip, labels=tmp_path, max_frames=2), "clip", ReplayChoices(live=False))
