import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.camvid import camvid
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.errors import DatasetError
from vidseg_core.evaluation.distance.schedules import (
    LabelledClip,
    compare,
    draw,
    gains,
    labelled_clip,
    street_clips,
    table,
)
from vidseg_core.frame import Frame

CLASSES = load_classes("camvid")


def standing_then_cut():
    """A picture that stands still for ten frames, then another one."""
    frames = []
    for i in range(20):
        rng = np.random.default_rng(i // 10)
        coarse = rng.integers(0, 11, (6, 8), dtype=np.uint8)
        labels = np.kron(coarse, np.ones((16, 16), dtype=np.uint8))
        image = np.repeat((labels * 20)[..., None], 3, axis=2)
        frames.append(Frame(image, i * 33_333_333, "cut", str(i), labels))
    return LabelledClip("cut", tuple(frames))


class Counting(TruthSegmenter):
    def __init__(self):
        super().__init__(len(CLASSES))
        self.seen = []

    def __call__(self, frame):
        self.seen.append(frame.name)
        return super().__call__(frame)


def test_each_frame_is_segmented_once_for_all_schedules():
    counting, clip = Counting(), standing_then_cut()
    engine = build_engine(EngineConfig(fusion=False), counting, CLASSES)
    rows = compare({"cut": [clip]}, engine, intervals=(0, 1), thresholds=(0.3,))
    assert len(rows) == 3 and sorted(counting.seen) == sorted(frame.name for frame in clip.frames)


def test_a_cut_is_where_adaptive_key_frames_gain(tmp_path):
    """Fixed intervals show the old picture until the next key frame, adaptive ones for one frame."""
    engine = build_engine(EngineConfig(max_interval=9, fusion=False), TruthSegmenter(len(CLASSES)), CLASSES)
    rows = compare({"cut": [standing_then_cut()]}, engine, intervals=(0, 1, 3, 7, 19), thresholds=(0.3,))
    fixed, adaptive = rows[:-1], rows[-1]
    assert fixed[0]["key_share"] == 1 and fixed[0]["avg_miou"] == 100
    assert [row["key_share"] for row in fixed] == sorted((row["key_share"] for row in fixed), reverse=True)
    assert adaptive["key_share"] < 0.25 and adaptive["avg_miou"] < 100
    [gain] = gains(rows)
    assert gain["avg_miou_gain"] > 2 and gain["key_share"] == adaptive["key_share"]
    text = table(rows)
    assert "change 0.3" in text and "against fixed intervals" in text
    draw(rows, tmp_path / "schedules.png")
    assert (tmp_path / "schedules.png").read_bytes().startswith(b"\x89PNG")


def test_street_clips():
    [first, second] = street_clips((0, 1), 2, (320, 240), 15.0)
    assert [clip.name for clip in (first, second)] == ["street 0", "street 1"]
    assert [frame.stream for frame in first.frames] == ["street 0"] * 2
    assert second.frames[1].labels.shape == (240, 320)


def test_the_real_clip_is_one_and_the_stills_are_not(shared_data):
    clip = labelled_clip(camvid(shared_data / "camvid", "val"))
    assert len(clip.frames) == 101 and all(frame.labels is not None for frame in clip.frames)
    with pytest.raises(DatasetError, match="expected one video"):
        labelled_clip(camvid(shared_data / "camvid", "train"))
