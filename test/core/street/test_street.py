import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.errors import ConfigError
from vidseg_core.street import TRAIN_SEEDS, Street, StreetConfig

SMALL = {"width": 320, "height": 240}


def street(seed=0, **options):
    return Street(StreetConfig(seed=seed, **{**SMALL, **options}))


def assert_same(frame, other):
    assert (frame.stamp_ns, frame.name) == (other.stamp_ns, other.name)
    np.testing.assert_array_equal(frame.image, other.image)
    np.testing.assert_array_equal(frame.labels, other.labels)
    np.testing.assert_array_equal(frame.flow, other.flow)


# ---------------------------------------------------------------------------------------------------- configuration


def test_specification():
    assert StreetConfig.parse("street:") == StreetConfig()
    parsed = StreetConfig.parse("street:seed=3, size=800x600,rate=12.5,frames=7")
    assert parsed == StreetConfig(seed=3, width=800, height=600, rate_hz=12.5, num_frames=7)
    assert StreetConfig.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("road:seed=1", "expected street:key=value,.* got 'road:seed=1'"),
        ("street:seeds=1", "unknown key 'seeds': expected one of"),
        ("street:seed", "expected key=value, got 'seed'"),
        ("street:seed=1,seed=2", "'seed' is given twice"),
        ("street:seed=-1", "expected seed 0 .. .*, got -1"),
        ("street:seed=one", "expected seed as an integer, got 'one'"),
        ("street:size=640", "expected size as WIDTHxHEIGHT, got '640'"),
        ("street:size=319x240", "expected width 320 .. 8192, got 319"),
        ("street:size=320x239", "expected height 240 .. 8192, got 239"),
        ("street:rate=0", "expected a rate above 0 Hz, got 0.0"),
        ("street:rate=nan", "expected a rate above 0 Hz, got nan"),
        ("street:frames=0", "expected frames at least 1, got 0"),
    ],
)
def test_bad_specifications_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        StreetConfig.parse(spec)


@pytest.mark.parametrize("field", [{"seed": 1.5}, {"width": "640"}, {"num_frames": True}, {"rate_hz": "30"}])
def test_values_of_the_wrong_type_are_refused(field):
    with pytest.raises(ConfigError, match="expected"):
        StreetConfig(**field)


def test_seeds_for_training_leave_those_for_evaluation():
    assert (TRAIN_SEEDS[0], TRAIN_SEEDS[-1]) == (1000, 1999)


# ---------------------------------------------------------------------------------------------------- frames


def test_a_frame_is_the_same_whatever_was_rendered_before():
    forwards, backwards = street(3, num_frames=60), street(3, num_frames=60)
    frames = [forwards.render(i) for i in (20, 21, 22)]
    for i in (22, 21, 20):
        assert_same(backwards.render(i), frames[i - 20])
    assert_same(forwards.render(21), frames[1])


@pytest.mark.parametrize(("width", "height"), [(320, 240), (321, 243), (1280, 720)])
def test_sizes_and_types(width, height):
    frame = street(1, width=width, height=height, rate_hz=25.0).render(5)
    assert frame.image.shape == (height, width, 3) and frame.image.dtype == np.uint8
    assert frame.labels.shape == (height, width) and frame.labels.dtype == np.uint8
    assert frame.flow.shape == (height, width, 2) and frame.flow.dtype == np.float32
    assert np.isfinite(frame.flow).all()
    assert (frame.stamp_ns, frame.name) == (200_000_000, "000005")


def test_frame_numbers():
    drive = street(num_frames=3)
    assert len(drive) == drive.num_frames == 3
    assert drive.render(0).flow is None
    assert drive.occluded(0).all()
    for i in (-1, 3):
        with pytest.raises(IndexError, match=f"frame in 0 .. 2, got {i}"):
            drive.render(i)


def test_every_class_appears_and_no_other():
    share = np.zeros(256)
    for seed in range(8):
        share += np.bincount(street(seed).render(100).labels.ravel(), minlength=256)
    share /= share.sum()
    classes = len(load_classes("camvid"))
    assert share[classes:].sum() == 0
    assert share[:classes].min() > 5e-4
    assert 0.15 < share[3] < 0.5  # road


def test_seeds_and_exposure_differ():
    images = [street(seed).render(10).image.astype(float) for seed in range(5)]
    differences = [np.abs(a - b).mean() for i, a in enumerate(images) for b in images[:i]]
    assert min(differences) > 15
    brightness = [street(0, rate_hz=2.0).render(i).image[:20].mean() for i in range(1, 12)]
    assert np.ptp(brightness) > 2


def test_later_frames_of_a_long_drive():
    frame = street(2, num_frames=10**6).render(10**6 - 1)
    assert {0, 3} <= set(np.unique(frame.labels))
    assert np.isfinite(frame.flow).all() and np.abs(frame.flow).mean() < 30


# ---------------------------------------------------------------------------------------------------- flow and labels


@pytest.fixture(scope="module", params=[0, 1, 5, 1007])
def pair(request):
    """Two neighbouring frames, the occlusion, and where each pixel's content was."""
    drive = street(request.param, width=480, height=272)
    before, now, hidden = drive.render(89), drive.render(90), drive.occluded(90)
    y, x = np.mgrid[: now.labels.shape[0], : now.labels.shape[1]].astype(np.float32)
    return before, now, hidden, x + now.flow[..., 0], y + now.flow[..., 1]


def away_from_boundaries(labels):
    kernel = np.ones((3, 3), np.uint8)
    return cv2.erode(labels, kernel) == cv2.dilate(labels, kernel)


def test_flow_carries_the_labels(pair):
    before, now, hidden, u, v = pair
    height, width = now.labels.shape
    column, row = np.rint(u).astype(int), np.rint(v).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = column.clip(0, width - 1), row.clip(0, height - 1)
    checked = ~hidden & inside & away_from_boundaries(now.labels) & away_from_boundaries(before.labels)[row, column]
    assert checked.mean() > 0.6
    assert (before.labels[row, column] == now.labels)[checked].mean() >= 0.999
    assert (before.labels[row, column] == now.labels)[~hidden & inside].mean() > 0.98


def test_flow_carries_the_image(pair):
    before, now, hidden, u, v = pair
    image = now.image.astype(int)
    warped = cv2.remap(before.image, u, v, cv2.INTER_LINEAR).astype(int)
    error = np.abs(warped - image).mean(axis=2)[~hidden]
    copied = np.abs(before.image.astype(int) - image).mean()
    assert np.median(error) < 4
    assert error.mean() < 0.65 * copied


def test_what_is_occluded_is_little_and_where_things_part(pair):
    _, now, hidden, u, v = pair
    height, width = now.labels.shape
    outside = (u < -0.5) | (v < -0.5) | (u > width - 0.5) | (v > height - 0.5)
    assert hidden[outside].all()
    assert (hidden & ~outside).mean() < 0.05
    assert hidden.any()


def test_every_class_moves_with_its_flow():
    """The error of the warped image is small for each class by itself: also for what moves on its own."""
    total, count = np.zeros(11), np.zeros(11)
    for seed in range(5):
        drive = street(seed)
        before, now, hidden = drive.render(89), drive.render(90), drive.occluded(90)
        y, x = np.mgrid[:240, :320].astype(np.float32)
        warped = cv2.remap(before.image, x + now.flow[..., 0], y + now.flow[..., 1], cv2.INTER_LINEAR)
        error = np.abs(warped.astype(int) - now.image).mean(axis=2)
        keep = ~hidden & away_from_boundaries(now.labels)
        total += np.bincount(now.labels[keep], error[keep], minlength=11)
        count += np.bincount(now.labels[keep], minlength=11)
    assert (total / np.maximum(count, 1)).max() < 12


def test_without_time_between_frames_nothing_moves():
    drive = street(4, rate_hz=1e9)
    before, now, hidden = drive.render(1), drive.render(2), drive.occluded(2)
    assert np.abs(now.flow).max() < 1e-3
    assert not hidden[1:-1, 1:-1].any()
    np.testing.assert_array_equal(before.labels, now.labels)


def test_depth_is_what_the_flow_of_still_things_comes_from():
    world = street(seed=3, num_frames=3)
    frame, depth, k = world.render(2), world.depth(2), world.intrinsics()
    assert depth.shape == frame.size and depth.dtype == np.float32
    sky = frame.labels == 0
    assert sky.any() and np.isinf(depth[sky]).all() and np.isfinite(depth[~sky]).mean() > 0.99 and depth.min() > 0
    now, past = (world._view(i / world.config.rate_hz) for i in (2, 1))
    still = np.isin(frame.labels, [1, 3, 4]) & np.isfinite(depth)  # building, road, sidewalk
    v, u = np.nonzero(still)
    seen = np.linalg.solve(k, np.stack([u, v, np.ones_like(u)])) * depth[still]  # 3 x n, in camera coordinates
    before = past.rotation @ (now.rotation.T @ seen + (now.position - past.position)[:, None])
    x, y, _ = k @ (before / before[2])
    np.testing.assert_allclose(np.stack([x - u, y - v], -1), frame.flow[still], atol=1e-3)
    with pytest.raises(IndexError, match=r"expected a frame in 0 \.\. 2, got 3"):
        world.depth(3)
