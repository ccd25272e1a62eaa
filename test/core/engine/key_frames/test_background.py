import logging
import threading
from concurrent.futures import wait
from contextlib import contextmanager, nullcontext

import cv2
import numpy as np
import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.flow import DIS, NoFlow
from vidseg_core.engine.key_frames.background import Background
from vidseg_core.engine.key_frames.jobs import Delayed, KeyFrameWork
from vidseg_core.engine.key_frames.queues import InOrder
from vidseg_core.engine.key_frames.turns import Turns
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.engine.stream import Networks, Stream
from vidseg_core.frame import Frame

CPU = torch.device("cpu")
CLASSES = 4
STEP_NS = 33_333_333
WAIT_S = 60


def frame(index, size=(96, 128)):
    """A scene that moves 4 pixels to the right per frame."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, CLASSES, (size[0] // 16, 64), dtype=np.uint8)
    scene = np.kron(coarse, np.ones((16, 16), dtype=np.uint8))
    texture = rng.integers(0, 60, scene.shape, dtype=np.uint8)
    left = 512 - 4 * index
    labels = np.ascontiguousarray(scene[:, left : left + size[1]])
    grey = labels * 50 + texture[:, left : left + size[1]]
    return Frame(np.repeat(grey[..., None], 3, axis=2), index * STEP_NS, name=str(index), labels=labels)


def make_stream(key_frames=None, segmenter=None, flow=None, **config):
    networks = Networks(segmenter or TruthSegmenter(CLASSES), flow or NoFlow(), None, CPU)
    return Stream(EngineConfig(**config), networks, None, key_frames)


def delayed(delay, flow=None, **config):
    return make_stream(Delayed(delay), flow=flow, **config)


class Gated(TruthSegmenter):
    """Computes when it is let; counts, and fails where it is told to."""

    def __init__(self):
        super().__init__(CLASSES)
        self.seen, self.threads = [], set()
        self.fail_at = set()
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, frame):
        self.begun.release()
        assert self.go.acquire(timeout=WAIT_S)
        self.seen.append(frame.name)
        self.threads.add(threading.current_thread().name)
        if frame.name in self.fail_at:
            raise RuntimeError(f"no labels for {frame.name}")
        return super().__call__(frame)


@pytest.fixture
def gated():
    """A segmenter, and the thread that it runs in."""
    segmenter = Gated()
    with Background() as background:
        yield segmenter, background
        for _ in range(99):
            segmenter.go.release()


def finish(segmenter, stream):
    """Let the segmentation under way come to its end, and wait for that."""
    segmenter.go.release()
    assert wait([stream._state.waiting.job._result], WAIT_S).done


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize("delay", [1, 3])
def test_once_they_are_there_labels_are_those_of_a_stream_that_has_waited(delay, fusion):
    config = {"flow": DIS(), "interval": 4, "fusion": fusion}
    waiting, ours = make_stream(**config), delayed(delay, **config)
    for i in range(17):
        a, b = waiting.step(frame(i)), ours.step(frame(i))
        if i < 5 or a.age >= delay:
            np.testing.assert_array_equal(a.labels, b.labels)
            assert a.age == b.age
        else:
            assert (a.labels != b.labels).any() and b.age == a.age + 5


def test_an_engine_without_delay_waits():
    classes = load_classes("camvid")
    with build_engine(EngineConfig(interval=2), TruthSegmenter(len(classes)), classes) as engine:
        plain, ours = engine.stream(), engine.stream(key_delay=0)
        for i in range(7):
            a, b = plain.step(frame(i)), ours.step(frame(i))
            np.testing.assert_array_equal(a.labels, b.labels)
            assert (a.is_key, a.age, a.reason) == (b.is_key, b.age, b.reason)


def test_scores_come_the_delay_later_and_count_from_their_own_frame():
    stream = delayed(2, interval=4)
    results = [stream.step(frame(i)) for i in range(13)]
    # Key frames 0 (waited for), 5 and 10; their labels appear at 0, 7 and 12.
    assert [i for i, r in enumerate(results) if r.is_key] == [0, 7, 12]
    assert [r.age for r in results] == [0, 1, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6, 2]
    assert [r.reason for r in results[5:9]] == ["propagated", "propagated", "interval", "propagated"]


def test_none_is_begun_while_one_is_under_way():
    stream = delayed(6, interval=1)
    results = [stream.step(frame(i)) for i in range(20)]
    assert [i for i, r in enumerate(results) if r.is_key] == [0, 8, 14]
    assert [results[i].age for i in (8, 14)] == [6, 6]


def test_without_flow_late_scores_are_those_of_their_own_frame():
    late, sync = delayed(3, interval=9, fusion=False), make_stream(interval=9, fusion=False)
    late.step(frame(0)), sync.step(frame(20))
    late.request_key_frame()
    for i in range(1, 4):
        late.step(frame(i))
    sync.reset()
    sync.step(frame(1))
    np.testing.assert_array_equal(late.step(frame(4)).labels, sync.step(frame(2)).labels)


def test_late_scores_are_carried_to_the_current_frame():
    """Motion between key frame and arrival is followed: better than what was carried from the key frame before."""
    stream = delayed(4, flow=DIS(), interval=9)
    right = [float((stream.step(frame(i)).labels == frame(i).labels).mean()) for i in range(15)]
    assert right[14] > right[13] + 0.02  # the key frame 10
    standing = delayed(4, interval=9)
    still = [float((standing.step(frame(i)).labels == frame(i).labels).mean()) for i in range(15)]
    assert right[14] > still[14] + 0.1


@pytest.mark.parametrize("delay", [1, 3])
def test_delayed_labels_are_the_same_every_time(delay):
    runs = []
    for _ in range(2):
        stream = delayed(delay, flow=DIS(), interval=3)
        runs.append([stream.step(frame(i)) for i in range(10)])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
        assert (a.is_key, a.age) == (b.is_key, b.age)


def test_a_requested_key_frame_waits_for_its_turn():
    stream = delayed(3, interval=4)
    results = [stream.step(frame(i)) for i in range(7)]
    stream.request_key_frame()  # 5 is under way until 8
    results += [stream.step(frame(i)) for i in range(7, 12)]
    assert [(i, r.reason) for i, r in enumerate(results) if r.is_key] == [
        (0, "first frame"), (8, "interval"), (11, "requested"),
    ]  # fmt: skip


def test_a_negative_delay():
    with pytest.raises(ValueError, match="delay: expected 1 or more frames, got -1"):
        Delayed(-1)


def test_the_stream_goes_on_while_the_thread_segments(gated):
    segmenter, background = gated
    stream = make_stream(background, segmenter, interval=1)
    segmenter.go.release()
    assert stream.step(frame(0)).is_key
    results = [stream.step(frame(i)) for i in range(1, 6)]
    assert [r.age for r in results] == [1, 2, 3, 4, 5] and not any(r.is_key for r in results)
    finish(segmenter, stream)
    arrived = stream.step(frame(6))
    assert arrived.is_key and arrived.age == 4 and arrived.reason == "interval"
    assert segmenter.seen == ["0", "2"] and segmenter.threads == {"vidseg-segmenter"}


def test_live_and_delayed_labels_are_equal(gated):
    segmenter, background = gated
    live, offline = make_stream(background, segmenter, flow=DIS(), interval=4), delayed(3, flow=DIS(), interval=4)
    segmenter.go.release()
    for i in range(14):
        if i in (8, 13):
            finish(segmenter, live)
        a, b = live.step(frame(i)), offline.step(frame(i))
        np.testing.assert_array_equal(a.labels, b.labels)
        assert (a.is_key, a.age, a.reason) == (b.is_key, b.age, b.reason)


def test_the_caller_may_reuse_its_image_while_the_thread_segments(gated):
    segmenter, background = gated
    seen = []

    def see(frame):
        scores = segmenter(frame)
        seen.append(frame.image.copy())
        return scores

    stream = make_stream(background, see, interval=0)
    segmenter.go.release()
    stream.step(frame(0))
    given = frame(1)
    image = given.image.copy()
    stream.step(Frame(image, given.stamp_ns, name="1", labels=given.labels))
    image[:] = 0
    finish(segmenter, stream)
    np.testing.assert_array_equal(seen[1], given.image)


def test_an_error_in_the_thread_surfaces_at_the_next_frame_and_the_stream_goes_on(gated):
    segmenter, background = gated
    segmenter.fail_at = {"2"}
    stream = make_stream(background, segmenter, interval=1)
    segmenter.go.release()
    for i in range(3):
        stream.step(frame(i))
    finish(segmenter, stream)
    with pytest.raises(RuntimeError, match="no labels for 2"):
        stream.step(frame(3))
    after = [stream.step(frame(i)) for i in (4, 5)]  # the other one begins when the schedule wants it
    assert [r.age for r in after] == [3, 4] and not any(r.is_key for r in after)
    finish(segmenter, stream)
    assert stream.step(frame(6)).is_key
    assert segmenter.seen == ["0", "2", "5"]


def test_an_error_at_the_first_frame(gated):
    segmenter, background = gated
    segmenter.fail_at = {"0"}
    stream = make_stream(background, segmenter)
    segmenter.go.release()
    with pytest.raises(RuntimeError, match="no labels for 0"):
        stream.step(frame(0))
    segmenter.go.release()
    assert stream.step(frame(1)).reason == "first frame"


def test_an_error_with_a_delay():
    segmenter = Gated()
    segmenter.fail_at = {"1"}
    for _ in range(9):
        segmenter.go.release()
    stream = make_stream(Delayed(2), segmenter, interval=0)
    stream.step(frame(0)), stream.step(frame(1)), stream.step(frame(2))
    with pytest.raises(RuntimeError, match="no labels for 1"):
        stream.step(frame(3))
    assert not stream.step(frame(4)).is_key


def test_a_reset_forgets_the_key_frame_under_way(gated, caplog):
    segmenter, background = gated
    segmenter.fail_at = {"1"}
    stream = make_stream(background, segmenter, interval=0)
    segmenter.go.release()
    stream.step(frame(0)), stream.step(frame(1))
    assert segmenter.begun.acquire(timeout=WAIT_S) and segmenter.begun.acquire(timeout=WAIT_S)
    stream.reset()
    segmenter.go.release(), segmenter.go.release()
    with caplog.at_level(logging.ERROR):
        first = stream.step(frame(9))
    assert first.is_key and first.age == 0 and first.reset == "requested" and first.reason == "first frame"
    np.testing.assert_array_equal(first.labels, frame(9).labels)
    assert "no labels for 1" in caplog.text  # nobody waits for it, but it is told


def test_a_reset_takes_back_what_has_not_begun(gated):
    segmenter, background = gated
    a, b = make_stream(background, segmenter, interval=0), make_stream(background, segmenter, interval=0)
    segmenter.go.release(), segmenter.go.release()
    for stream in (a, b):
        stream.step(frame(0))
    a.step(frame(1)), b.step(frame(2))
    b.reset()
    finish(segmenter, a)
    segmenter.go.release()
    assert b.step(frame(3)).is_key and segmenter.seen == ["0", "0", "1", "3"]


def test_closing_ends_the_thread_and_cancels_what_waits():
    segmenter = Gated()
    background = Background()
    first, second = background.begin(segmenter, frame(0)), background.begin(segmenter, frame(1))
    assert segmenter.begun.acquire(timeout=WAIT_S)
    assert background.busy_s() > 0
    assert not background.close(timeout_s=0.01)
    segmenter.go.release()
    assert background.close(timeout_s=WAIT_S) and background.close()
    assert first.wait().shape == (1, CLASSES, 96, 128) and second._result.cancelled()
    assert not any(thread.name == "vidseg-segmenter" for thread in threading.enumerate())
    with pytest.raises(RuntimeError, match="closed"):
        background.begin(segmenter, frame(2))


def test_an_engine_s_streams_share_one_thread_and_closing_ends_it():
    classes = load_classes("camvid")
    with build_engine(EngineConfig(key_frames="async", interval=1), TruthSegmenter(len(classes)), classes) as engine:
        streams = [engine.stream() for _ in range(3)]
        for stream in streams:
            assert stream.step(frame(0)).is_key
        named = [thread for thread in threading.enumerate() if thread.name == "vidseg-segmenter"]
        assert len(named) == 1 and named[0].daemon
    assert not named[0].is_alive()
    with build_engine(EngineConfig(), TruthSegmenter(len(classes)), classes) as engine:
        assert engine.key_frames.at_once
        ages = [r.age for r in map(engine.stream(key_delay=1).step, map(frame, range(7)))]
        assert ages == [0, 1, 2, 3, 4, 5, 1]


def test_the_thread_budget_is_shared_between_stream_and_segmenter():
    classes = load_classes("camvid")
    counted = []
    segmenter = TruthSegmenter(len(classes))

    class Counting(TruthSegmenter):
        def __call__(self, frame):
            counted.append(torch.get_num_threads())
            return segmenter(frame)

    config = EngineConfig(key_frames="async", num_threads=4)
    with build_engine(config, Counting(len(classes)), classes) as engine:
        engine.stream().step(frame(0))
        assert counted == [2] and torch.get_num_threads() == 2 and engine.describe()["num_threads"] == 2
        assert cv2.getNumThreads() == 2


def noise(index, picture, size=(96, 128)):
    """A frame of a scene that stands still, and of another one for each `picture`."""
    given = frame(0, size)
    image = np.random.default_rng(picture).integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    image = np.kron(image, np.ones((8, 8, 1), dtype=np.uint8))
    return Frame(image, index * STEP_NS, name=str(index), labels=given.labels)


def adaptive(delay=0, **config):
    config = {"schedule": "adaptive", "min_interval": 2, "max_interval": 6, "change_threshold": 0.3} | config
    return make_stream(Delayed(delay) if delay else None, flow=DIS(), **config)


def test_adaptive_key_frames_come_when_the_picture_changes_within_their_bounds():
    stream = adaptive()
    results = [stream.step(noise(i, picture=int(i >= 9))) for i in range(18)]
    # Nothing changes until 9: seven frames after 0. 9 is another scene: not before two frames after 7.
    assert [(i, r.reason) for i, r in enumerate(results) if r.is_key] == [
        (0, "first frame"), (7, "interval"), (10, "picture changed"), (17, "interval"),
    ]  # fmt: skip
    assert "change" in results[1].timings and "change" not in results[7].timings


def test_adaptive_key_frames_are_no_closer_than_their_shortest_interval():
    stream = adaptive()
    assert [stream.step(noise(i, picture=i)).is_key for i in range(10)] == [i % 3 == 0 for i in range(10)]


def test_adaptive_looks_at_the_change_since_the_key_frame_under_way():
    stream = adaptive(delay=2)
    results = [stream.step(noise(i, picture=int(i >= 4))) for i in range(14)]
    # 5 is begun because 4 has changed and arrives at 7; nothing has changed since 5, so the next one is begun at 12.
    assert [(i, r.age, r.reason) for i, r in enumerate(results) if r.is_key] == [
        (0, 0, "first frame"), (7, 2, "picture changed"),
    ]  # fmt: skip
    assert stream._state.waiting.reason == "interval" and stream._state.since_key == 1


@pytest.mark.parametrize("schedule", ["fixed", "adaptive"])
def test_streams_of_one_engine_have_their_key_frames_at_different_times(schedule):
    classes = load_classes("camvid")
    config = EngineConfig(interval=3, schedule=schedule, max_interval=3, change_threshold=1.0)
    with build_engine(config, TruthSegmenter(len(classes)), classes) as engine:
        streams = [engine.stream(phase=i / 4) for i in range(4)]
        keys = [[stream.step(noise(i, 0)).is_key for i in range(13)] for stream in streams]
        for stream in streams:
            stream.reset()
        again = [[stream.step(noise(i, 0)).is_key for i in range(13)] for stream in streams]
    assert keys == again
    together = [sum(one) for one in zip(*keys, strict=True)]
    assert together == [4] + [1] * 12


class Recorded:
    """Queues that note what happens, in which thread."""

    most_together = 1

    def __init__(self):
        self.events = []

    def note(self, what):
        self.events.append((what, threading.current_thread().name))

    @contextmanager
    def frame(self):
        self.note("frame begins")
        yield
        self.note("frame ends")

    def mark(self):
        self.note("mark")
        return len(self.events)

    @contextmanager
    def key_frames(self, after):
        self.note(f"key frame begins after {after}")
        yield
        self.note("key frame ends")

    def finish(self, results):
        self.note(f"finished: {[tuple(result.logits.shape) for result in results]}")


def test_key_frames_have_a_queue_of_their_own():
    """What a key frame reads was asked for before its mark; its scores are there when the device has finished."""
    queues, segmenter = Recorded(), Gated()
    with Background(queues=queues) as background:
        stream = make_stream(background, segmenter, interval=9)
        segmenter.go.release()
        stream.step(frame(0))
        here, there = threading.current_thread().name, "vidseg-segmenter"
        assert queues.events == [
            ("frame begins", here), ("mark", here), ("key frame begins after [2]", there), ("key frame ends", there),
            (f"finished: {[(1, CLASSES, 48, 64)]}", there), ("frame ends", here),
        ]  # fmt: skip


class Full(TruthSegmenter):
    """Finds no memory on the device at the second key frame."""

    def __call__(self, frame):
        if frame.name == "2":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
        return super().__call__(frame)


@pytest.mark.parametrize("beside", [False, True])
def test_a_stream_survives_that_a_device_has_no_memory_left(beside):
    with Background() if beside else nullcontext() as background:
        stream = make_stream(background, Full(CLASSES), interval=1)
        failed_at = None
        for index in range(6):
            try:
                result = stream.step(frame(index))
            except MemoryError as error:
                assert failed_at is None
                assert str(error) == "out of memory on cpu: CUDA out of memory. Tried to allocate 2.00 GiB."
                failed_at = index
                assert stream._state is None
            else:
                if failed_at == index - 1:
                    assert result.reset == "out of memory" and result.is_key
                if beside and stream._state.waiting is not None:
                    assert wait([stream._state.waiting.job._result], WAIT_S).done
        assert failed_at == (3 if beside else 2)


class Together(InOrder):
    """A device that computes three key frames best at once."""

    most_together = 3

    def __init__(self):
        self.asked = []

    def key_frames(self, after):
        self.asked.append(len(after))
        return nullcontext()


def test_key_frames_that_wait_are_segmented_together():
    """Of cameras with pictures of one size, in their order; what fails, fails for all of them."""
    go, batches, queues, broken = threading.Event(), [], Together(), []

    def together(frames):
        batches.append([each.name for each in frames])
        if broken:
            raise RuntimeError("no labels")
        return [torch.full((1,), float(each.name)) for each in frames]

    def work(each, scores):
        return each.name, None if scores is None else float(scores)

    with Background(queues=queues) as background:
        first = background.begin(lambda each: go.wait(WAIT_S), frame(0))
        sizes = [(96, 128)] * 4 + [(64, 96), (96, 128)]
        jobs = [background.begin(KeyFrameWork(work, together), frame(i, size)) for i, size in enumerate(sizes)]
        alone = background.begin(KeyFrameWork(work), frame(6))
        go.set()
        assert first.wait()
        found = [job.wait() for job in (*jobs, alone)]
        assert found == [("0", 0.0), ("1", 1.0), ("2", 2.0), *((name, None) for name in "3456")]
        assert batches == [["0", "1", "2"]] and queues.asked == [1, 3, 1, 1, 1, 1]
        broken.append(True)
        go.clear()
        background.begin(lambda each: go.wait(WAIT_S), frame(0))
        jobs = [background.begin(KeyFrameWork(work, together), frame(i)) for i in range(2)]
        go.set()
        for job in jobs:
            with pytest.raises(RuntimeError, match="no labels"):
                job.wait()


def test_what_waits_when_the_thread_is_closed_is_cancelled_together_or_not():
    begun, go, queues = threading.Event(), threading.Event(), Together()

    def blocks(each):
        begun.set()
        return go.wait(WAIT_S)

    background = Background(queues=queues)
    first = background.begin(blocks, frame(0))
    assert begun.wait(WAIT_S)
    jobs = [background.begin(KeyFrameWork(lambda each, scores: None, lambda frames: []), frame(i)) for i in range(2)]
    assert not background.close(0)
    go.set()
    assert first.wait() and background.close(WAIT_S)
    assert all(job._result.cancelled() for job in jobs)


@pytest.mark.parametrize("kept", [True, False])
def test_large_images_are_copied_into_the_memory_of_those_that_are_done_with(kept):
    def work(frame):
        places.append(frame.image.ctypes.data)
        images.append(frame.image.copy())
        return frame

    places, images, results = [], [], []
    turns = None if kept else Turns(lambda: None, lambda: None)  # without, whoever segments may keep its images
    with Background(turns) as background:
        for i in range(3):
            results.append(background.begin(work, frame(i)).wait())
        for i in range(3):
            np.testing.assert_array_equal(images[i], frame(i).image)
        assert len(set(places)) == (3 if kept else 1)
        background.begin(work, frame(3, (80, 96))).wait()
        np.testing.assert_array_equal(images[3], frame(3, (80, 96)).image)
