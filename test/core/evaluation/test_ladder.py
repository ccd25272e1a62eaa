"""What a governor has to know of a network, measured on a drive."""

from dataclasses import replace

import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation import ladder
from vidseg_core.evaluation.ladder import measure
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.models.accuracy import Updated
from vidseg_core.street import Street, StreetConfig

CONFIG = EngineConfig(device="cpu", runtime="eager", num_threads=2)
RATE_HZ = 10.0


@pytest.fixture(scope="module")
def frames():
    street = Street(StreetConfig(seed=3, width=320, height=240, rate_hz=RATE_HZ, num_frames=4))
    return [street.render(i) for i in range(4)]


def test_accuracy_by_size_age_and_stride(frames, monkeypatch):
    monkeypatch.setattr(ladder, "RUNS", 2)
    engine = build_engine(CONFIG)
    found = measure(engine, [frames], RATE_HZ)
    rows = dict(found.rows)
    assert len(rows) == 4 and max(rows) == engine.networks.segmenter.input_rows(frames[0].size)
    assert all(0 < miou <= 100 for miou in rows.values())
    assert rows[max(rows)] > rows[min(rows)]  # at a third of the rows little is seen
    assert [age for age, _ in found.lost_by_age_s] == [0, 0.1, 0.2] and found.lost_by_age_s[0][1] == 0
    assert min(lost for _, lost in found.lost_by_stride) == 0
    assert engine.networks.segmenter.share == 1.0  # the engine itself is as it was


def test_an_update_network_is_measured_beside_all_else(monkeypatch):
    monkeypatch.setattr(ladder, "RUNS", 1)
    monkeypatch.setattr(ladder, "KEY_FRAMES", 1)
    monkeypatch.setattr(ladder, "SHARES", (1.0,))
    street = Street(StreetConfig(seed=3, width=320, height=240, rate_hz=3.0, num_frames=4))
    frames = [street.render(i) for i in range(4)]  # so far apart that much comes into view
    engine = build_engine(replace(CONFIG, update_weights="camvid-update-r18"))  # by its former name
    found = measure(engine, [frames], 3.0)
    alone = measure(engine.variant(updater=None), [frames], 3.0)
    assert alone.update is None and found.to_dict() == alone.to_dict() | {"update": found.update.to_dict()}

    stream, miou = engine.variant(replace(engine.config, interval=9)).stream(), []
    for frame, following in zip(frames, frames[1:], strict=False):
        matrix = ConfusionMatrix(len(engine.classes))
        matrix.update(stream.step(frame).labels, following.labels)
        miou.append(100 * matrix.mean_iou())
    lost = tuple((round(i / 3.0, 4), round(miou[0] - one, 2)) for i, one in enumerate(miou))
    assert found.update == Updated("camvid-update-lite0", lost)
    assert 0 < found.update.lost_by_age_s[2][1] < found.lost_by_age_s[2][1]


def test_an_update_network_without_a_name_cannot_be_told(frames):
    engine = build_engine(CONFIG, TruthSegmenter(11), load_classes("camvid"), updater=TruthSegmenter(11))
    with pytest.raises(ConfigError, match=r"expected an update network with a name \(update_weights\)"):
        measure(engine, [frames], RATE_HZ)


def test_labels_are_scored_against_the_next_frame(frames):
    labels = [np.full((240, 320), i, np.uint8) for i in range(4)]
    moving = [replace(frame, labels=one) for frame, one in zip(frames, labels, strict=True)]
    still = [replace(frame, labels=labels[0]) for frame in frames]
    engine = build_engine(CONFIG, TruthSegmenter(11), load_classes("camvid"))
    assert ladder._score(engine, [moving], None) == [0.0] * 3 and ladder._score(engine, [still], None) == [100.0] * 3


def test_runs_are_spread_over_every_drive_and_end_with_the_frame_after_the_last_age():
    drives = [list(range(10)), list(range(20, 24))]
    found = list(ladder._runs(drives, 3, 2))
    assert found == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9], [20, 21, 22, 23]]
    assert list(ladder._runs([[0, 1]], 3, 0)) == [[0, 1]]


def test_rare_classes_can_be_left_out(frames):
    labels = np.zeros((240, 320), np.uint8)
    labels[:, :40], labels[0, -1], labels[1] = 3, 5, 255
    labelled = [replace(frame, labels=labels) for frame in frames]
    assert ladder._common([labelled], 11, 0.01).tolist() == [0, 3]
    assert ladder._common([labelled], 11, 1e-6).tolist() == [0, 3, 5]
    assert ladder._common([labelled], 11, 0.95).tolist() == [0]  # none has as much: the largest one


@pytest.mark.parametrize("some", [slice(0, 1), slice(0, 0)])
def test_one_frame_is_no_drive(frames, some):
    engine = build_engine(CONFIG, TruthSegmenter(11), load_classes("camvid"))
    with pytest.raises(ConfigError, match=r"ladder: expected two frames or more, all with labels, got [01]"):
        measure(engine, [frames, frames[some]], RATE_HZ)


def test_frames_without_labels_and_networks_that_cannot_be_asked(frames):
    engine = build_engine(CONFIG, TruthSegmenter(11), load_classes("camvid"))
    with pytest.raises(ConfigError, match="all with labels"):
        measure(engine, [[frames[0], replace(frames[1], labels=None)]], RATE_HZ)
    with pytest.raises(ConfigError, match="expected synchronous key frames"):
        measure(engine, [frames], RATE_HZ)
