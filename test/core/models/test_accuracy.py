"""Expected accuracy: interpolation, and what a record may say."""

import json
from dataclasses import replace

import pytest

from vidseg_core.errors import CheckpointError
from vidseg_core.models.accuracy import PRIOR, Accuracy, Updated

STORED = {"rows": {"270": 57, "540": 66.5}, "lost_by_age_s": {0: 0, 0.5: 10.0}, "lost_by_stride": {4: 0.3, 8: 2}}
UPDATE = {"weights": "small", "lost_by_age_s": {"0": 0, "0.5": 4.0}}


def test_between_what_was_measured_it_is_interpolated_and_beyond_the_nearest():
    accuracy = Accuracy.from_dict(STORED)
    assert [accuracy.of_rows(rows) for rows in (100, 270, 405, 540, 2000)] == [57, 57, 61.75, 66.5, 66.5]
    assert [accuracy.lost_at(age) for age in (0.0, 0.1, 9.0)] == [0.0, pytest.approx(2.0), 10.0]
    assert accuracy.lost_with(8) == accuracy.lost_with(4, picture_rows=360) == 2.0
    assert accuracy.is_measured and not PRIOR.is_measured


def test_with_an_update_network_labels_lose_what_was_measured_with_it():
    accuracy = Accuracy.from_dict(STORED | {"update": UPDATE})
    assert accuracy.update == Updated("small", ((0.0, 0.0), (0.5, 4.0)))
    assert [accuracy.lost_at(age, updated=True) for age in (0.0, 0.125, 9.0)] == [0.0, 1.0, 4.0]
    assert accuracy.lost_at(0.125) == accuracy.lost_at(0.125, updated=False) == 2.5  # without it as ever
    assert accuracy.lost_with(8) == 2.0
    with pytest.raises(ValueError, match="updated: expected an accuracy measured with an update network"):
        Accuracy.from_dict(STORED).lost_at(0.125, updated=True)


def test_updated_labels_tend_to_those_of_the_update_network_whatever_the_key_frames_were():
    rows = ((200.0, 64.0), (400.0, 67.0), (600.0, 70.0))
    curve = ((0.0, 0.0), (0.5, 4.0), (1.0, 5.0))  # so that network finds 65 alone
    accuracy = Accuracy(rows, ((0.0, 0.0), (1.0, 9.0)), ((4, 0.0),), update=Updated("small", curve))
    assert [accuracy.lost_at(1.0, True, place) for place in (600, 400, 200)] == [5.0, 2.0, 0.0]
    assert [accuracy.lost_at(0.125, True, place) for place in (600, 400, 200)] == [1.0, 1.0, 0.0]
    assert accuracy.lost_at(1.0, False, 200) == 9.0 and accuracy.lost_at(1.0, True) == 5.0
    young = replace(accuracy, update=Updated("small", ((0.0, 0.0), (0.5, 4.0))))
    assert young.lost_at(0.5, True, 200) == 4.0, "nobody knows where these tend to"


def test_what_is_written_can_be_read():
    assert Accuracy.from_dict(PRIOR.to_dict()).to_dict() == PRIOR.to_dict()
    without = Accuracy.from_dict(STORED)
    assert "update" not in without.to_dict() and without.update is None
    updated = Accuracy.from_dict(STORED | {"update": UPDATE})
    written = updated.to_dict()
    assert written["update"] == {"weights": "small", "lost_by_age_s": {0.0: 0.0, 0.5: 4.0}}
    assert Accuracy.from_dict(json.loads(json.dumps(written))) == updated


@pytest.mark.parametrize(
    "stored",
    [
        None,
        {"rows": {540: 66}},
        STORED | {"rows": {}},
        STORED | {"rows": [1, 2]},
        STORED | {"rows": {"many": 1}},
        STORED | {"lost_by_age_s": {0: float("nan")}},
        STORED | {"more": {}},
        STORED | {"update": None},
        STORED | {"update": {"weights": "small"}},
        STORED | {"update": UPDATE | {"rows": {}}},
        STORED | {"update": UPDATE | {"weights": ""}},
        STORED | {"update": UPDATE | {"weights": 3}},
        STORED | {"update": UPDATE | {"lost_by_age_s": {}}},
        STORED | {"update": UPDATE | {"lost_by_age_s": {0: True, 1: float("inf")}}},
    ],
)
def test_what_is_not_of_that_form_is_refused(stored):
    with pytest.raises(CheckpointError, match="accuracy: expected"):
        Accuracy.from_dict(stored)
