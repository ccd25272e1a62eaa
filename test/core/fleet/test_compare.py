import numpy as np
import pytest

from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.fleet.compare import Difference, compare, mean_difference, pooled_difference


def drive(number, hits, pixels=100, frames=10, **others):
    counts = [[hits, pixels - hits, 0], [0, pixels, 0]]
    miou = round(100 * ConfusionMatrix.from_counts(np.array(counts)).mean_iou(), 3)
    figures = {"miou": miou, "pixel_accuracy": 50 + hits / 2, "disagreement": None, "temporal_consistency": 90.0}
    return figures | {
        "place": f"drive_{number}",
        "content": f"c{number}",
        "topic": "/images",
        "reference": "ground truth",
        "frames": frames,
        "class_iou": {"road": 0.0, "sky": 0.0},
        "confusion": counts,
        **others,
    }


def test_drives_are_paired_by_content_and_the_worst_comes_first():
    a = {"recordings": [drive(i, 60) for i in range(4)]}
    b = {"recordings": [drive(i, hits) for i, hits in ((3, 60), (1, 50), (0, 70), (2, 30))]}
    found = compare(a, b, draws=200)
    assert [row["place"] for row in found["drives"]] == ["drive_2", "drive_1", "drive_3", "drive_0"]
    assert (found["worse"], found["better"], found["equal"]) == (2, 1, 1)
    changes = [row["changes"]["miou"] for row in found["drives"]]
    assert found["differences"]["miou"]["mean"] == pytest.approx(np.mean(changes), abs=1e-3)
    assert "disagreement" not in found["differences"]
    assert found["differences"]["temporal_consistency"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "drives": 4}
    assert compare(a, b, draws=200) == found  # the draws are the same every time


def test_what_cannot_be_compared_is_named():
    a = {"recordings": [drive(0, 60), drive(1, 60), drive(2, 60), drive(4, 60, frames=0)]}
    b = {"recordings": [drive(0, 60), drive(1, 60, frames=9), drive(3, 60), drive(4, 60)]}
    found = compare(a, b, draws=10)
    assert (found["only_a"], found["only_b"], found["unlike"]) == (["drive_2"], ["drive_3", "drive_4"], ["drive_1"])
    with pytest.raises(ConfigError, match="expected recordings that both runs have"):
        compare({"recordings": [drive(0, 60)]}, {"recordings": [drive(1, 60)]})
    with pytest.raises(ConfigError, match="expected the same classes"):
        compare({"recordings": [drive(0, 60)]}, {"recordings": [drive(0, 60, class_iou={"road": 1.0})]})


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says():
    random, held = np.random.default_rng(1), 0
    for _ in range(200):
        values = random.normal(0.5, 2.0, size=30)
        found = mean_difference(values, random, draws=400)
        assert found.low < found.mean < found.high
        held += found.low <= 0.5 <= found.high
    assert 176 <= held <= 199  # 95 % of 200, as exactly as so few trials tell


def test_pooled_scores_are_those_of_all_pixels_together():
    random = np.random.default_rng(0)
    a = [drive(0, 10, pixels=100), drive(1, 900, pixels=1000)]
    b = [drive(0, 20, pixels=100), drive(1, 800, pixels=1000)]
    pairs = [(one["confusion"], other["confusion"]) for one, other in zip(a, b, strict=True)]
    sums = [ConfusionMatrix.from_counts(np.sum([pair[i] for pair in pairs], axis=0)).mean_iou() for i in (0, 1)]
    found = pooled_difference(pairs, random, draws=300)
    assert found.mean == pytest.approx(100 * (sums[1] - sums[0]), abs=1e-3)
    assert found.low <= found.mean <= found.high and found.drives == 2


def test_clear_is_what_does_not_hold_zero():
    assert Difference(1.0, 0.5, 1.5, 9).is_clear and Difference(-1.0, -1.5, -0.5, 9).is_clear
    assert not Difference(0.1, -0.5, 0.5, 9).is_clear
