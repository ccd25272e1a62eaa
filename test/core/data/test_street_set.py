import cv2
import numpy as np
import pytest

from vidseg_core.data.street_set import SCENE_FRAMES, StreetStills, street_stills
from vidseg_core.errors import ConfigError
from vidseg_core.street import TRAIN_SEEDS, Street, StreetConfig


def test_specification():
    assert StreetStills.parse("") == StreetStills()
    assert StreetStills.parse("frames=9,scenes=3,seed=1500,size=320x240") == StreetStills(9, 3, 1500, (320, 240))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour=3", "got 'colour'"),
        ("frames=many", "frames: expected a number .* got 'many'"),
        ("size=640", "size: expected .* got '640'"),
        ("frames=2,scenes=3", "scenes <= frames"),
        ("frames=6001,scenes=10", "at most 6000 frames"),
        ("frames=300,scenes=1,seed=1000,run=0", "runs of 1..300 frames"),
        ("frames=301,scenes=1,run=2", "at most 300 frames"),
        ("seed=5", "seeds for training"),
        (f"seed={TRAIN_SEEDS[-1]},scenes=2,frames=2", "seeds for training"),
    ],
)
def test_bad_specifications_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        StreetStills.parse(text)


@pytest.mark.parametrize(("frames", "scenes"), [(800, 50), (7, 3), (600, 1), (1200, 2)])
def test_frames_are_spread_over_the_scenes(frames, scenes):
    shots = StreetStills(frames, scenes).where()
    assert len(set(shots)) == len(shots) == frames
    assert {seed for seed, _ in shots} == set(range(1000, 1000 + scenes))
    assert all(0 <= number < SCENE_FRAMES for _, number in shots)


@pytest.mark.parametrize(("frames", "scenes", "run"), [(40, 4, 5), (300, 1, 5), (21, 2, 4)])
def test_runs_are_video(frames, scenes, run):
    shots = StreetStills(frames, scenes, run=run).where()
    assert len(set(shots)) == len(shots) == frames
    assert all(0 <= number < SCENE_FRAMES for _, number in shots)
    first = [number for seed, number in shots if seed == 1000][:run]
    assert first == list(range(first[0], first[0] + 2 * run, 2))


def test_frames_of_a_run_precede_each_other(tmp_path):
    dataset = street_stills(StreetStills(frames=3, scenes=1, size=(320, 240), run=3), tmp_path)
    assert [len(sample.predecessors) for sample in dataset.samples] == [0, 1, 2]


def test_frames_are_rendered_once_and_read_back(tmp_path):
    stills = StreetStills(frames=2, scenes=2, size=(320, 240))
    dataset = street_stills(stills, tmp_path)
    assert [s.name for s in dataset.samples] == [f"{seed}_{number:06d}" for seed, number in stills.where()]
    (seed, number), *_ = stills.where()
    frame = Street(StreetConfig(seed, 320, 240, 30.0, SCENE_FRAMES)).render(number)
    np.testing.assert_array_equal(dataset.read_image(0), frame.image)
    np.testing.assert_array_equal(dataset.read_labels(0), frame.labels)
    dataset.check()
    # What is there is used again, what is missing is rendered again.
    cv2.imwrite(str(dataset.samples[0].image), np.zeros((240, 320, 3), np.uint8))
    dataset.samples[1].labels.unlink()
    again = street_stills(stills, tmp_path)
    assert not again.read_image(0).any()
    assert again.read_labels(1).shape == (240, 320)
