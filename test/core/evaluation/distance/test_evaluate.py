from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from vidseg_core.backends.choose import Runtime
from vidseg_core.classes import load_classes
from vidseg_core.data.camvid import camvid
from vidseg_core.data.cityscapes import cityscapes
from vidseg_core.data.labelled import folder_pair
from vidseg_core.data.sequences import labelled_video
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.flow import DIS, NetworkFlow, NoFlow
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.engine.stream import Networks
from vidseg_core.errors import DatasetError
from vidseg_core.evaluation.distance import evaluate as module
from vidseg_core.evaluation.distance.evaluate import (
    Method,
    check_labels,
    check_same_classes,
    clips,
    evaluate,
    frames_per_second,
    label,
    scored_frames,
)
from vidseg_core.models.checkpoint import load_swnet_seq
from vidseg_core.threads import set_num_threads

CPU = torch.device("cpu")
CLASSES = load_classes("camvid")


def make_video(folder, count, size=(64, 96)):
    """A bar that moves 8 pixels a frame; class 1 is the bar."""
    for name in ("clip", "clipannot"):
        (folder / name).mkdir()
    for i in range(count):
        labels = np.zeros(size, np.uint8)
        labels[:, 8 * i : 8 * i + 16] = 1
        cv2.imwrite(str(folder / "clip" / f"f{i:03d}.png"), np.repeat(labels[..., None] * 200, 3, axis=2))
        cv2.imwrite(str(folder / "clipannot" / f"f{i:03d}.png"), labels)
    return labelled_video(folder_pair(folder, "clip", CLASSES, video=True))


def truth_method(*intervals, flow=None, segmenter=None, **config):
    networks = Networks(segmenter or TruthSegmenter(len(CLASSES)), flow or NoFlow(), None, CPU)
    config = EngineConfig(interval=max(intervals), **{"grid_stride": 4, "fusion": False} | config)
    engine = Engine(config, CLASSES, networks, {}, Runtime("eager", CPU, 1), 1)
    return Method(engine, {"scale": None, "flow": "none", "refine": False, "edge": None}, intervals)


class Counting(TruthSegmenter):
    """The truth, and how often it was asked for."""

    calls = 0

    def __call__(self, frame):
        self.calls += 1
        return super().__call__(frame)


def test_every_row_scores_the_same_frames_at_every_distance(tmp_path):
    video = make_video(tmp_path, 7)
    pixels = 4 * 64 * 96  # frames 3, 4, 5 and 6 have three before them
    results = evaluate(video, [truth_method(0, 1, 3)])
    assert [interval for _, interval, _ in results] == [0, 1, 3]
    for _, interval, score in results:
        assert score.total(interval).num_pixels == (interval + 1) * pixels
    assert {matrix.num_pixels for matrix in results[0][2].matrices} == {pixels}


def test_copying_loses_what_moved_and_nothing_else(tmp_path):
    ((_, _, score),) = evaluate(make_video(tmp_path, 6), [truth_method(2)])
    assert score.matrices[0].mean_iou() == 1.0
    # The bar is 16 wide and moves 8: half of it is right after one frame, none after two.
    assert score.matrices[1].iou()[1] == pytest.approx(8 / 24, abs=0.06)
    assert score.matrices[2].iou()[1] == pytest.approx(0.0, abs=0.06)


def test_each_frame_is_segmented_once_for_all_methods_and_distances(tmp_path):
    segmenter = Counting(len(CLASSES))
    methods = [truth_method(0, 1, 2, segmenter=segmenter), truth_method(0, 2, flow=DIS(), segmenter=segmenter)]
    updater = Counting(len(CLASSES))
    methods = [replace(method, engine=method.engine.variant(updater=updater)) for method in methods]
    evaluate(make_video(tmp_path, 6), methods)
    assert segmenter.calls == 6
    assert updater.calls == 5, "the first frame of a video is a key frame"


def run_alone(video, method, start, distance):
    """Labels of a key frame at `start` and of the frames after it, by a stream of its own."""
    stream = method.engine.stream()
    stream.set_interval(2)
    return [stream.step(video.sequences[0].read(start + k)).labels for k in range(distance + 1)]


def test_side_by_side_equals_one_clip_at_a_time(tmp_path):
    """The published protocol, spelled out: a key frame at t - k, propagated k frames, scored at t."""
    video = make_video(tmp_path, 7)
    method = truth_method(0, 2, flow=DIS())
    score = evaluate(video, [method])[0][2]
    for k in range(3):
        matrix = module.ConfusionMatrix(len(CLASSES))
        for t in range(2, 7):
            matrix.update(run_alone(video, method, t - k, k)[-1], video.sequences[0].read(t).labels)
        assert np.array_equal(matrix.counts, score.matrices[k].counts)


def test_consistency_is_that_of_the_running_schedule(tmp_path):
    """Against streams run one by one: each phase of the schedule, each pair of frames whose later one is scored."""
    video = make_video(tmp_path, 8)
    method = truth_method(0, 2, flow=DIS())
    scores = {interval: score for _, interval, score in evaluate(video, [method])}
    frames = [video.sequences[0].read(t) for t in range(8)]
    match = module.Matcher()
    pairs = {t: match(frames[t].image, frames[t - 1].image) for t in range(3, 8)}
    for interval in (0, 2):
        total = module.Consistency()
        for phase in range(interval + 1):
            stream = method.engine.stream()
            stream.set_interval(interval)
            labels = {t: stream.step(frames[t]).labels for t in range(phase, 8)}
            for t in pairs:
                total.update(labels[t - 1], labels[t], pairs[t])
        assert scores[interval].consistency(interval) == total.share()


def test_with_fusion_whole_streams_run(tmp_path):
    """Key frames depend on the past, so each phase of each interval is a stream from the beginning of the sequence."""
    video = make_video(tmp_path, 8)
    method = truth_method(1, 2, flow=DIS(), fusion=True)
    frames = [video.sequences[0].read(t) for t in range(8)]
    for _, interval, score in evaluate(video, [method]):
        matrices = [module.ConfusionMatrix(len(CLASSES)) for _ in range(interval + 1)]
        for phase in range(interval + 1):
            stream = method.engine.stream()
            stream.set_interval(interval)
            for t in range(phase, 8):
                result = stream.step(frames[t])
                assert result.age == (t - phase) % (interval + 1)
                if t >= 2:
                    matrices[result.age].update(result.labels, frames[t].labels)
        for expected, found in zip(matrices, score.matrices, strict=True):
            assert np.array_equal(expected.counts, found.counts) and found.num_pixels == 6 * 64 * 96


def test_only_needed_frames_are_run():
    sequence = SimpleNamespace(name="s")
    video = SimpleNamespace(sequences=(sequence,))
    found = clips(video, [(0, 2), (0, 19), (0, 21)], 2)
    assert [(clip.first, clip.stop, set(clip.scored), set(clip.compared)) for clip in found] == [
        (0, 3, {2}, set()),  # nothing before frame 0, so frame 2 cannot be compared at distance 2
        (16, 22, {19, 21}, {19, 21}),
    ]
    assert [(clip.first, clip.stop) for clip in clips(video, [(0, 19)], 2, whole=True)] == [(0, 20)]


@pytest.mark.parametrize("fusion", [False, True])
def test_processes_share_the_frames_of_one_sequence(tmp_path, monkeypatch, fusion):
    video = make_video(tmp_path, 8)
    method = truth_method(0, 2, flow=DIS(), fusion=fusion)
    whole = evaluate(video, [method])
    monkeypatch.setattr(module.distributed, "world_size", lambda: 3)
    monkeypatch.setattr(module.distributed, "sum_counts", lambda counts: counts)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(module.distributed, "rank", lambda rank=rank: rank)
        parts.append(evaluate(video, [method]))
    for index, (_, interval, score) in enumerate(whole):
        for k in range(interval + 1):
            counts = [part[index][2].matrices[k].counts for part in parts]
            assert np.array_equal(sum(counts), score.matrices[k].counts)
        valid = [part[index][2].closing[interval].valid for part in parts]
        assert sum(valid) == score.closing[interval].valid > 0


def test_labelling_follows_the_schedule_and_needs_no_truth(tmp_path):
    video = make_video(tmp_path, 5)
    seen = []

    def observe(clip, position, frame, passes):
        seen.append((position, [list(each.labels) for each in passes]))

    results = label(video, [truth_method(0, 1)], observe)
    assert seen == [(t, [[0], [t % 2]]) for t in range(5)]
    assert [interval for _, interval, _ in results] == [0, 1]
    assert all(0 < score.consistency(interval) <= 1 for _, interval, score in results)


def test_frame_rate_counts_whole_loops_of_a_short_sequence(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))

    class Stream:
        numbers = []

        def set_interval(self, interval):
            self.interval = interval

        def step(self, frame):
            self.numbers.append(int(frame.image.any()) and int(np.flatnonzero(frame.image[0, :, 0])[0]) // 8)
            next(clock)

    video = make_video(tmp_path, 3)
    method = Method(SimpleNamespace(stream=Stream), {}, (2,))
    # Each reading of the clock is a second: a loop of three frames lasts four.
    assert frames_per_second(method, 2, video.sequences[0]) == pytest.approx(3 / 4)
    assert len(Stream.numbers) == 12
    assert all(abs(a - b) == 1 for a, b in pairwise(Stream.numbers)), "consecutive frames stay neighbours"


def test_frames_can_be_resized_first(tmp_path):
    make_video(tmp_path, 3)
    video = labelled_video(folder_pair(tmp_path, "clip", CLASSES, video=True), size=(128, 192))
    assert evaluate(video, [truth_method(1)])[0][2].matrices[0].num_pixels == 2 * 128 * 192


def test_too_few_frames(tmp_path):
    with pytest.raises(DatasetError, match="expected labelled frames with 5 frames before them.*one has is 2"):
        scored_frames(make_video(tmp_path, 3), 5)


def test_class_tables_must_agree(tmp_path):
    video = make_video(tmp_path, 2)
    check_same_classes(CLASSES, video)
    with pytest.raises(DatasetError, match=r"expected the network's classes \(road, .*the data set has sky, "):
        check_same_classes(load_classes("cityscapes"), video)


def test_labels_are_checked_beforehand(tmp_path):
    video = make_video(tmp_path, 3)
    check_labels(video, [(0, 1), (0, 2)])
    part = replace(video.sequences[0], labelled=(True, False, True))
    with pytest.raises(DatasetError, match="ground truth for every key frame, f001 has none"):
        check_labels(replace(video, sequences=(part,)), [(0, 2)], every_frame=True)
    file = tmp_path / "clipannot" / "f002.png"
    cv2.imwrite(str(file), np.full((64, 96), 11, np.uint8))
    with pytest.raises(DatasetError, match="every pixel of the 1 labelled frames is void"):
        check_labels(video, [(0, 2)])
    cv2.imwrite(str(file), np.full((64, 96), 77, np.uint8))
    with pytest.raises(DatasetError, match=r"f002\.png: label ids \[77\] are not in class table"):
        check_labels(video, [(0, 2)])
    cv2.imwrite(str(file), np.zeros((64, 64), np.uint8))
    with pytest.raises(DatasetError, match=r"f002\.png: expected labels as large as .*96 x 64.*got 64 x 64"):
        check_labels(video, [(0, 2)])


@pytest.mark.long
def test_truth_carried_along_the_real_clip(shared_data, upstream_weights):
    """mIoU after 1 to 4 frames at 1024 x 768 on the 1/8 grid, against an independent measurement."""
    set_num_threads(2)
    light, _ = load_swnet_seq(upstream_weights / "cityscapes-swnet_model_best.pth.tar")
    segmenter = TruthSegmenter(len(CLASSES))
    expected = {
        "none": (NoFlow(), [73.4, 63.5, 57.5, 53.7]),
        "light": (NetworkFlow(light), [83.8, 79.9, 77.4, 74.7]),
        "dis": (DIS("ultrafast", 0.5), [85.3, 81.4, 79.4, 77.4]),
    }
    methods = [
        truth_method(4, flow=flow, segmenter=segmenter, grid_stride=8, flow_weights=name)  # for a flow of its own
        for name, (flow, _) in expected.items()
    ]
    video = labelled_video(camvid(shared_data / "camvid", "val"), size=(768, 1024))
    scores = [score for _, _, score in evaluate(video, methods)]
    for score, (_, figures) in zip(scores, expected.values(), strict=True):
        assert score.matrices[0].mean_iou() == 1.0
        assert [100 * matrix.mean_iou() for matrix in score.matrices[1:]] == pytest.approx(figures, abs=1.5)
    copied, light, dis = (score.consistency(4) for score in scores)
    assert copied < light < dis < 1, "what moves with the image is consistent, what is copied is not"


def test_cityscapes_snippets_with_one_labelled_frame(shared_data):
    """Frames before the labelled one have no truth, so they can be propagated from by a network only."""
    video = labelled_video(cityscapes(shared_data / "cityscapes_sequence", "val"))
    assert [len(sequence) for sequence in video.sequences] == [3, 3]
    assert [sequence.labelled for sequence in video.sequences] == [(False, False, True)] * 2
    scored = scored_frames(video, 2)
    assert scored == [(0, 2), (1, 2)]
    assert [(clip.first, clip.stop) for clip in clips(video, scored, 1)] == [(0, 3), (0, 3)]


def test_with_a_delay_distances_below_it_show_the_key_frame_before(tmp_path):
    """Copied labels: the bar of the last key frame's labels is where it was `age` frames ago."""
    video = make_video(tmp_path, 10)
    ((_, _, on_time),) = evaluate(video, [truth_method(2)], key_delay=0)
    ((_, _, late),) = evaluate(video, [truth_method(2)], key_delay=1)
    pixels = (10 - 5) * 64 * 96
    assert [m.num_pixels for m in on_time.matrices] == [m.num_pixels for m in late.matrices] == [pixels] * 3
    # At distance 0 the labels are three frames old, the bar has left its place; later ones are as without delay.
    assert on_time.matrices[0].mean_iou() == 1 and late.matrices[0].iou()[1] == pytest.approx(0, abs=0.01)
    for distance in (1, 2):
        np.testing.assert_array_equal(late.matrices[distance].counts, on_time.matrices[distance].counts)


def test_a_delay_needs_a_loop_before_the_scored_frames(tmp_path):
    with pytest.raises(DatasetError, match="expected labelled frames with 5 frames before them"):
        evaluate(make_video(tmp_path, 5), [truth_method(2)], key_delay=1)
