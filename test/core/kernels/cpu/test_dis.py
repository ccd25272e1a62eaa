import cv2
import numpy as np
import pytest

from vidseg_core.arrays import as_array
from vidseg_core.devices import CPU
from vidseg_core.engine.flow import DIS
from vidseg_core.engine.geometry import View, grid_size
from vidseg_core.kernels.flow import dense_flow, pyramid
from vidseg_core.street import Street, StreetConfig
from vidseg_core.threads import regardless, set_num_threads

SIZE = (360, 480)
own = pytest.mark.parametrize("preset", ["fine", "rounds"])


@pytest.fixture
def threads():
    with regardless():
        yield set_num_threads
    set_num_threads(2)


def texture():
    """A large picture, RGB, without repetition and with details of several sizes."""
    random = np.random.default_rng(0)
    picture = np.full((700, 900, 3), 128, np.float32)
    for cell, contrast in ((4, 25), (12, 50), (36, 60)):
        noise = random.uniform(-contrast, contrast, (-(-700 // cell), -(-900 // cell), 3)).astype(np.float32)
        picture += cv2.resize(noise, (900, 700), interpolation=cv2.INTER_CUBIC)
    return picture.clip(0, 255).astype(np.uint8)


def moved(matrix, size=SIZE):
    """A picture, the one before, and the flow that leads from it to there, H x W x 2, if `matrix`, 2 x 3, does."""
    (height, width), large = size, texture()
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    at = np.stack((x, y), -1)
    there = at @ matrix[:, :2].T + matrix[:, 2]
    # The picture before is the texture as it is; what is at a pixel now was `there`.
    corner = np.float32((200, 150))
    previous = large[150 : 150 + height, 200 : 200 + width]
    current = cv2.remap(large, (there + corner).astype(np.float32), None, cv2.INTER_CUBIC)
    return current, np.ascontiguousarray(previous), there - at


def flow_of(current, previous, stride=2, preset="fine", scale=None):
    """h x w x 2 on the grid."""
    estimator, grid = DIS(preset, scale), grid_size(current.shape[:2], stride)
    views = [View(image, grid, CPU) for image in (current, previous)]
    flow = as_array(estimator.flow(*map(estimator.prepare, views)))
    assert flow.shape == (1, 2, *grid) and flow.dtype == np.float32 and np.isfinite(flow).all()
    return flow[0].transpose(1, 2, 0)


def on_grid(flow, stride):
    """Flow of the image's pixels as flow of the grid's: the mean of those in each."""
    height, width = grid_size(flow.shape[:2], stride)
    return flow.reshape(height, stride, width, stride, 2).mean((1, 3)) / stride


def shift(u, v):
    return np.float32([[1, 0, u], [0, 1, v]])


def inner(field, stride, margin=32):
    margin //= stride
    return field[margin:-margin, margin:-margin]


@own
@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("way", [(-12.5, 8.25), (0.3, -0.6), (3.0, 0.0)])
def test_a_shift_in_grid_pixels(stride, way, preset):
    current, previous, truth = moved(shift(*way))
    error = np.linalg.norm(flow_of(current, previous, stride, preset=preset) - on_grid(truth, stride), axis=-1)
    assert inner(error, stride).mean() < 0.1 / stride, "a tenth of an image pixel"


@own
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_zoom_and_rotation(stride, preset):
    matrix = cv2.getRotationMatrix2D((240, 180), angle=2.0, scale=0.96).astype(np.float32)
    current, previous, truth = moved(matrix)
    assert np.abs(truth).max() > 10
    error = np.linalg.norm(flow_of(current, previous, stride, preset=preset) - on_grid(truth, stride), axis=-1)
    assert inner(error, stride).mean() < 0.15 / stride


@own
@pytest.mark.parametrize("way", [(40.0, 10.0), (-40.0, 0.0), (0.0, 40.0)])
def test_a_large_shift(way, preset):
    current, previous, truth = moved(shift(*way))
    error = np.abs(flow_of(current, previous, preset=preset) - on_grid(truth, 2))
    assert np.median(inner(error, 2, 64)) < 0.05 and np.quantile(inner(error, 2, 64), 0.95) < 0.25


@own
def test_exposure_moves_nothing(preset):
    current, previous, truth = moved(shift(5.0, -3.0))
    darker = (previous * 0.85 + 4).astype(np.uint8)
    error = np.linalg.norm(flow_of(current, darker, preset=preset) - on_grid(truth, 2), axis=-1)
    assert inner(error, 2).mean() < 0.15, "the picture before is darker by 15 %"


@own
@pytest.mark.parametrize("size", [SIZE, (361, 483), (131, 67)])
def test_threads_change_nothing(threads, size, preset):
    current, previous, _ = moved(shift(6.3, -4.1), size)
    flows = []
    for count in (1, 2, 3):
        threads(count)
        flows.append(flow_of(current, previous, stride=2, preset=preset))
    np.testing.assert_array_equal(flows[1], flows[0])
    np.testing.assert_array_equal(flows[2], flows[0])


def test_where_there_is_nothing_to_see_nothing_moves():
    uniform = np.full((*SIZE, 3), 90, np.uint8)
    assert (flow_of(uniform, uniform) == 0).all()
    assert np.abs(flow_of(uniform, uniform + 20)).max() == 0
    half = uniform.copy()
    half[:, 240:] = texture()[:360, :240]
    flow = flow_of(half, half)
    assert np.abs(flow).max() < 1e-3


def test_a_picture_coarser_than_the_grid():
    current, previous, truth = moved(shift(8.0, -12.0))
    flow = flow_of(current, previous, stride=2, scale=0.25)  # 120 x 90 for a grid of 240 x 180
    error = np.abs(flow - on_grid(truth, 2))
    assert np.quantile(inner(error, 2), 0.9) < 0.25


@pytest.mark.parametrize("size", [(8, 8), (8, 40), (9, 17), (64, 64)])
def test_smallest_pictures(size):
    noise = np.random.default_rng(0).integers(0, 256, (2, *size), dtype=np.uint8)
    current, previous = map(pyramid, noise)
    for grid in (size, (size[0] // 2, size[1] // 2), (1, 1), (2 * size[0], 3 * size[1])):
        flow = dense_flow(current, previous, grid)
        assert flow.shape == (1, 2, *grid) and flow.dtype == np.float32 and np.isfinite(flow).all()


def test_pictures_that_are_too_small():
    with pytest.raises(ValueError, match="expected 8 x 8 pixels or more, got 40 x 7"):
        pyramid(np.zeros((7, 40), np.uint8))


def test_pictures_of_two_sizes():
    small, large = (pyramid(np.zeros(size, np.uint8)) for size in ((40, 40), (40, 48)))
    with pytest.raises(ValueError, match="expected pictures of one size"):
        dense_flow(large, small, (20, 20))


def test_more_accurate_than_opencv_on_the_street():
    """Mean endpoint error in image pixels where the picture before shows the same, at 15 Hz; errors count up to 10."""
    peer = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    errors = []
    for seed in (1700, 1703):
        street = Street(StreetConfig(seed=seed, width=480, height=360, rate_hz=15.0, num_frames=6))
        previous, current = street.render(4), street.render(5)
        ours, rounds = (
            cv2.resize(flow_of(current.image, previous.image, preset=preset) * 2, SIZE[::-1])
            for preset in ("fine", "rounds")
        )
        greys = [cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY) for frame in (current, previous)]
        seen = ~street.occluded(5)
        distances = [
            np.linalg.norm(flow - current.flow, axis=-1)[seen] for flow in (ours, rounds, peer.calc(*greys, None))
        ]
        errors.append([np.minimum(distance, 10).mean() for distance in distances])
    ours, rounds, opencv = np.mean(errors, axis=0)
    assert ours < 0.9 * opencv and ours < 2.5
    assert rounds < 0.9 * opencv and rounds < 2.5
