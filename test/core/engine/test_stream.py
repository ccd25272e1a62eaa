from dataclasses import replace

import numpy as np
import pytest
import torch

from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.flow import DIS, NoFlow
from vidseg_core.engine.refine import Refinement
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.engine.stream import Networks, Stream
from vidseg_core.errors import ConfigError
from vidseg_core.frame import MOST_JITTER_NS, Frame
from vidseg_core.kernels.decode import decode
from vidseg_core.networks.guided_refine import GuidedRefine

CPU = torch.device("cpu")
STEP_NS = 33_333_333


class CountingSegmenter(TruthSegmenter):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.seen = []

    def __call__(self, frame):
        self.seen.append(frame.name)
        return super().__call__(frame)


def make_stream(classes=4, network=None, ego_mask=None, flow=None, **config):
    segmenter = CountingSegmenter(classes)
    stream = Stream(EngineConfig(**config), Networks(segmenter, flow or NoFlow(), network, CPU), ego_mask)
    return stream, segmenter


def frame(index, size=(96, 128), classes=4, stamp_ns=None, seed=None):
    rng = np.random.default_rng(index if seed is None else seed)
    coarse = rng.integers(0, classes, (size[0] // 16 + 1, size[1] // 16 + 1), dtype=np.uint8)
    labels = np.kron(coarse, np.ones((16, 16), dtype=np.uint8))[: size[0], : size[1]]
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    stamp_ns = index * STEP_NS if stamp_ns is None else stamp_ns
    return Frame(image, stamp_ns, name=str(index), labels=np.ascontiguousarray(labels))


def test_key_frames_come_every_interval_plus_one():
    stream, segmenter = make_stream(interval=2)
    results = [stream.step(frame(i)) for i in range(7)]
    assert [r.is_key for r in results] == [True, False, False, True, False, False, True]
    assert [r.age for r in results] == [0, 1, 2, 0, 1, 2, 0]
    assert [r.reason for r in results[:4]] == ["first frame", "propagated", "propagated", "interval"]
    assert segmenter.seen == ["0", "3", "6"]
    assert [r.stamp_ns for r in results] == [i * STEP_NS for i in range(7)]


def test_a_key_frame_is_decoded_from_the_segmenter_s_own_scores():
    stream, _ = make_stream(interval=1)
    first, second = frame(0), frame(1)
    np.testing.assert_array_equal(stream.step(first).labels, first.labels)
    copied = stream.step(second).labels
    assert (copied == first.labels).mean() > 0.85 and (copied != first.labels).any()


@pytest.mark.parametrize("fusion", [False, True])
@pytest.mark.parametrize("flow", [NoFlow(), DIS()])
def test_what_the_past_does_not_show_is_looked_at_between_key_frames(flow, fusion):
    """Half of the picture becomes another one: there the updater's labels appear, elsewhere the key frame's stay."""
    segmenter, updater = CountingSegmenter(4), CountingSegmenter(4)
    networks = Networks(segmenter, flow, None, CPU, updater=updater)
    stream = Stream(EngineConfig(interval=2, grid_stride=4, fusion=fusion), networks)
    first, other = frame(0), frame(1)
    image = first.image.copy()
    image[:, 64:] = 255 - image[:, 64:] // 2
    second = Frame(image, STEP_NS, name="1", labels=other.labels)
    np.testing.assert_array_equal(stream.step(first).labels, first.labels)
    result = stream.step(second)
    assert (segmenter.seen, updater.seen) == (["0"], ["1"])
    assert (result.labels[:, :56] == first.labels[:, :56]).mean() > 0.85
    assert (result.labels[:, 72:] == other.labels[:, 72:]).mean() > 0.85
    assert {"update", "warp"} <= set(result.timings)
    repeated = stream.step(Frame(first.image, 2 * STEP_NS, name="2", labels=other.labels)).labels
    if isinstance(flow, NoFlow):  # on noise DIS finds anything
        assert (repeated == first.labels).mean() > 0.85, "what was looked at is not remembered"
    assert stream.step(frame(3)).is_key and updater.seen == ["1", "2"]


@pytest.mark.parametrize("size", [(64, 64), (67, 91), (97, 130)])
@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize("classes", [1, 255])
def test_any_size_and_number_of_classes(size, stride, classes):
    torch.manual_seed(0)
    refinement = Refinement(GuidedRefine(classes).eval())
    stream, _ = make_stream(classes, refinement, flow=DIS(), interval=3, grid_stride=stride,
                            refine=True, refine_weights="given", confidence=True)  # fmt: skip
    for i in range(3):
        result = stream.step(frame(i, size, classes))
        assert result.labels.shape == size and result.labels.dtype == np.uint8 and result.labels.max() < classes
        assert result.confidence.shape == (size[0] // stride, size[1] // stride)
        assert 0 <= result.confidence.min() and result.confidence.max() <= 1
    assert set(result.timings) == {"prepare", "flow", "warp", "refine", "decode"}


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (frame(1, (64, 64)), "image size changed from 128 x 96 to 64 x 64"),
        (frame(1, stamp_ns=-1_000_000_000), "time ran back by 1.000 s"),
        (frame(1, stamp_ns=2_500_000_000), "no frame for 2.500 s"),
    ],
)
def test_resets(second, reason):
    stream, _ = make_stream(interval=9)
    assert stream.step(frame(0)).reset is None
    result = stream.step(second)
    assert result.is_key and result.reset == reason and result.reason == "first frame"
    np.testing.assert_array_equal(result.labels, second.labels)
    after = stream.step(frame(2, second.size, stamp_ns=second.stamp_ns + STEP_NS))
    assert not after.is_key and after.reset is None


def test_frames_that_were_dropped_are_no_pause_of_the_camera():
    """The engine was too slow for 2.5 s, the camera was not: what is carried is not thrown away."""
    stream, _ = make_stream(interval=9)
    stream.step(frame(0))
    result = stream.step(replace(frame(1, stamp_ns=2_500_000_000), pause_s=0.0))
    assert (result.is_key, result.reset) == (False, None)


def test_a_pause_among_dropped_frames_is_one():
    stream, _ = make_stream(interval=9)
    stream.step(frame(0))
    result = stream.step(replace(frame(1, stamp_ns=2_500_000_000), pause_s=1.25))
    assert (result.is_key, result.reset) == (True, "no frame for 1.250 s")


def test_labels_tell_the_age_of_their_evidence():
    stream, _ = make_stream(interval=2)
    results = [stream.step(frame(i)) for i in range(4)]
    assert [r.evidence_ns for r in results] == [0, 0, 0, 3 * STEP_NS]
    assert [r.age_s for r in results] == [0, STEP_NS / 1e9, 2 * STEP_NS / 1e9, 0]


def test_an_update_network_has_seen_every_frame():
    networks = Networks(CountingSegmenter(4), NoFlow(), None, CPU, updater=CountingSegmenter(4))
    stream = Stream(EngineConfig(interval=2, grid_stride=4), networks)
    assert [stream.step(frame(i)).age_s for i in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("fusion", [False, True])
def test_an_update_network_can_be_taken_and_left_between_frames(fusion):
    """Without fusion the past keeps no picture to compare with until there is an update network."""
    updater = CountingSegmenter(4)
    networks = Networks(CountingSegmenter(4), NoFlow(), None, CPU)
    stream = Stream(EngineConfig(interval=2, grid_stride=4, fusion=fusion), networks)
    ages = []
    for i in range(9):
        if i in (1, 7):
            stream.set_updater(updater if i == 1 else None)
        ages.append(round(stream.step(frame(i)).age_s / (STEP_NS / 1e9)))
    first = ["1", "2"] if fusion else []
    assert updater.seen == [*first, "4", "5"]
    assert ages == [0, *([0, 0] if fusion else [1, 2]), 0, 0, 0, 0, 1, 2]


def test_stamps_that_jitter_are_taken_in_order_of_arrival():
    """100 Hz, each stamp up to 5 ms early or late: labels are those of a camera whose stamps do not jitter."""
    jittering, _ = make_stream(interval=4, flow=DIS())
    steady, _ = make_stream(interval=4, flow=DIS())
    off_ns = np.random.default_rng(0).integers(-5_000_000, 5_000_001, 60)
    off_ns[:6] = [0, 5_000_000, -5_000_000, 5_000_000, -5_000_000, -5_000_000]
    stamps_ns = [10_000_000 * (i + 1) + int(off) for i, off in enumerate(off_ns)]
    stamps_ns[7], stamps_ns[30] = stamps_ns[6], stamps_ns[29] - 8_000_000
    assert min(np.diff(stamps_ns)) == -8_000_000 and 0 in np.diff(stamps_ns)
    for i, stamp_ns in enumerate(stamps_ns):
        result = jittering.step(frame(i, stamp_ns=stamp_ns))
        expected = steady.step(frame(i, stamp_ns=10_000_000 * (i + 1)))
        assert (result.stamp_ns, result.reset) == (stamp_ns, None) and 0 <= result.age_s < 0.06
        assert (result.is_key, result.reason, result.age) == (expected.is_key, expected.reason, expected.age)
        np.testing.assert_array_equal(result.labels, expected.labels)


@pytest.mark.parametrize(("back_ns", "resets"), [(MOST_JITTER_NS, False), (MOST_JITTER_NS + 1, True)])
@pytest.mark.parametrize("max_gap_s", [0.01, 86400.0])
def test_more_than_jitter_is_time_that_begins_again(back_ns, resets, max_gap_s):
    stream, _ = make_stream(interval=9, max_gap_s=max_gap_s)
    stream.step(frame(0, stamp_ns=1_000_000_000))
    result = stream.step(frame(1, stamp_ns=1_000_000_000 - back_ns))
    assert (result.is_key, result.reset) == (resets, "time ran back by 0.100 s" if resets else None)
    after = stream.step(frame(2, stamp_ns=1_000_000_000 - back_ns + 5_000_000))
    assert (after.is_key, after.reset) == (False, None)


def test_time_that_runs_back_in_small_steps_is_no_jitter():
    stream, _ = make_stream(interval=9)
    results = [stream.step(frame(i, stamp_ns=-i * STEP_NS)) for i in range(6)]
    assert [r.reset for r in results] == [None] * 4 + ["time ran back by 0.133 s", None]


def test_after_a_minute_without_frames_the_stream_is_as_a_fresh_one():
    used, fresh = (make_stream(interval=3, flow=DIS())[0] for _ in range(2))
    for i in range(6):
        used.step(frame(i + 20, stamp_ns=i * STEP_NS))
    for i in range(8):
        after = frame(i, stamp_ns=60_000_000_000 + i * STEP_NS)
        result, expected = used.step(after), fresh.step(after)
        assert result.reset == (None if i else f"no frame for {60 - 5 * STEP_NS / 1e9:.3f} s")
        assert (result.is_key, result.age, result.age_s) == (expected.is_key, expected.age, expected.age_s)
        np.testing.assert_array_equal(result.labels, expected.labels)


def test_equal_stamps_do_not_reset():
    stream, _ = make_stream(interval=9)
    assert [stream.step(frame(i, stamp_ns=0)).is_key for i in range(3)] == [True, False, False]


def test_after_a_reset_nothing_of_the_past_is_left():
    fresh, _ = make_stream(interval=3, flow=DIS())
    used, _ = make_stream(interval=3, flow=DIS())
    for i in range(6):
        used.step(frame(i + 20))
    used.reset()
    for i in range(5):
        a, b = fresh.step(frame(i)), used.step(frame(i))
        np.testing.assert_array_equal(a.labels, b.labels)
        assert (a.is_key, a.age) == (b.is_key, b.age)


def test_a_key_frame_can_be_asked_for_and_the_interval_changed():
    stream, _ = make_stream(interval=4)
    stream.step(frame(0))
    stream.request_key_frame()
    result = stream.step(frame(1))
    assert result.is_key and result.reason == "requested" and result.reset is None
    stream.set_interval(0)
    assert stream.step(frame(2)).is_key
    with pytest.raises(ConfigError, match="interval: expected 0 or more"):
        stream.set_interval(-1)


def test_confidence_can_be_switched_while_running():
    stream, _ = make_stream(interval=4)
    assert stream.step(frame(0)).confidence is None
    stream.set_confidence(True)
    result = stream.step(frame(1))
    assert not result.is_key and result.confidence.shape == (48, 64)
    stream.set_confidence(False)
    assert stream.step(frame(2)).confidence is None


def test_probabilities_come_while_they_are_wanted_and_say_nothing_of_the_vehicle_itself():
    stream, _ = make_stream(interval=4)
    assert stream.step(frame(0)).probabilities is None
    stream.set_probabilities(True)
    shares = stream.step(frame(1)).probabilities
    assert shares.dtype == np.float32 and shares.shape == (48, 64, 4)
    np.testing.assert_allclose(shares.sum(2), 1.0, atol=1e-5)
    stream.set_confidence(True)
    result = stream.step(frame(2))
    np.testing.assert_array_equal(result.confidence, result.probabilities.max(2))
    mask = np.zeros(frame(0).size, dtype=bool)
    mask[-8:] = True
    masked = Stream(EngineConfig(), Networks(TruthSegmenter(4), NoFlow(), None, CPU), mask)
    masked.set_probabilities(True)
    result = masked.step(frame(0))
    assert result.confidence is None
    seen = result.probabilities.sum(2) > 0
    assert seen[:40].all() and not seen[-1].any()


class Doubting(TruthSegmenter):
    """Sure of the truth on the first frame, and slightly in favour of class 0 everywhere afterwards."""

    def __call__(self, frame):
        scores = super().__call__(frame)
        if frame.name != "0":
            scores = np.zeros_like(scores)
            scores[:, 0] = 0.5
        return scores


@pytest.mark.parametrize("fusion", [True, False])
def test_a_key_frame_keeps_what_the_past_knew_better_where_the_picture_is_the_same(fusion):
    config = EngineConfig(interval=0, fusion=fusion)
    stream = Stream(config, Networks(Doubting(4), NoFlow(), None, CPU))
    first = frame(0)
    image = first.image.copy()
    image[:, 64:] = 255 - image[:, 64:]
    stream.step(first)
    second = stream.step(Frame(image, STEP_NS, name="1", labels=first.labels))
    assert second.is_key and (second.labels[:, 80:] == 0).mean() > 0.95
    assert ((second.labels[:, :56] == first.labels[:, :56]).mean() > 0.95) == fusion


class Sliding:
    """Everything moves one grid pixel to the right with each frame."""

    def prepare(self, view):
        return view.grid

    def flow(self, current, previous):
        flow = np.zeros((1, 2, *current), np.float32)
        flow[:, 0] = -1
        return flow


def test_motion_adds_up_and_logits_are_interpolated_once():
    stream, _ = make_stream(interval=5, flow=Sliding(), grid_stride=4)
    first = frame(0)
    stream.step(first)
    results = [stream.step(frame(i)) for i in range(1, 5)]
    expected = stream._state.memory.logits  # the key frame's own, not moved yet
    assert expected.shape[2:] == (24, 32)
    np.testing.assert_array_equal(stream._state.memory.motion[0, 0], np.full((24, 32), -4.0))
    moved = np.concatenate((expected[..., :1].repeat(4, 3), expected[..., :-4]), 3)
    np.testing.assert_array_equal(results[-1].labels, decode(moved, (96, 128)))


def test_two_streams_over_the_same_networks_do_not_meet():
    networks = Networks(CountingSegmenter(4), DIS(), None, CPU)
    config = EngineConfig(interval=3)
    a, b = Stream(config, networks), Stream(config, networks)
    alone = Stream(config, Networks(CountingSegmenter(4), DIS(), None, CPU))
    for i in range(6):
        b.step(frame(i + 50))
        np.testing.assert_array_equal(a.step(frame(i)).labels, alone.step(frame(i)).labels)


def test_results_never_change_afterwards():
    stream, _ = make_stream(interval=2, flow=DIS(), confidence=True)
    results = [stream.step(frame(i)) for i in range(3)]
    kept = [(r.labels.copy(), r.confidence.copy()) for r in results]
    for i in range(3, 9):
        stream.step(frame(i))
    for result, (labels, confidence) in zip(results, kept, strict=True):
        np.testing.assert_array_equal(result.labels, labels)
        np.testing.assert_array_equal(result.confidence, confidence)


def test_the_caller_may_reuse_its_image_buffer():
    reusing, _ = make_stream(interval=3, flow=DIS(scale=1.0))
    owning, _ = make_stream(interval=3, flow=DIS(scale=1.0))
    buffer = np.empty((96, 128, 3), dtype=np.uint8)
    for i in range(4):
        given = frame(i)
        buffer[:] = given.image
        a = reusing.step(Frame(buffer, given.stamp_ns, labels=given.labels))
        buffer[:] = 0
        np.testing.assert_array_equal(a.labels, owning.step(given).labels)


def test_ego_mask_is_void():
    mask = np.zeros((96, 128), dtype=bool)
    mask[80:] = True
    stream, _ = make_stream(interval=1, ego_mask=mask)
    for i in range(2):
        labels = stream.step(frame(i)).labels
        assert (labels[80:] == 255).all() and (labels[:80] != 255).all()
    with pytest.raises(ConfigError, match="ego_mask: expected the image's size 64 x 64, got 128 x 96"):
        stream.step(frame(2, (64, 64)))


def test_an_error_in_a_frame_leaves_the_stream_usable():
    stream, _ = make_stream(interval=2)
    good = frame(0)
    with pytest.raises(ValueError, match="expected ground truth labels"):
        stream.step(Frame(good.image, 0, name="0"))
    assert stream.step(good).is_key
    assert not stream.step(frame(1)).is_key


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((96, 128), np.uint8),
        np.zeros((96, 128, 4), np.uint8),
        np.zeros((96, 128, 3), np.float32),
        np.zeros((63, 128, 3), np.uint8),
    ],
)
def test_bad_images(image):
    with pytest.raises(ValueError, match="expected an"):
        Frame(image, 0, name="x")
