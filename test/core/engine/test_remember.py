from dataclasses import replace

import numpy as np
import pytest
import torch

from vidseg_core.engine.flow import NoFlow
from vidseg_core.engine.geometry import View
from vidseg_core.engine.protocol import capabilities
from vidseg_core.engine.remember import RememberedFlow, RememberedSegmenter, by_name
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.frame import Frame


class Counting(TruthSegmenter):
    def __init__(self):
        super().__init__(11)
        self.seen = []

    def __call__(self, frame):
        self.seen.append(frame.name)
        return super().__call__(frame)


def frame(number, name=None):
    labels = np.full((64, 96), number, np.uint8)
    return Frame(np.zeros((64, 96, 3), np.uint8), number, "camera", str(number) if name is None else name, labels)


def test_the_same_object_is_segmented_once_and_only_the_latest_is_kept():
    counting = Counting()
    remembered = RememberedSegmenter(counting, most=1)
    first, second = frame(1), frame(2)
    for one in (first, first, second, second, first):
        np.testing.assert_array_equal(remembered(one), TruthSegmenter(11)(one))
    assert counting.seen == ["1", "2", "1"]
    remembered(frame(1)), remembered(replace(first))
    assert counting.seen == ["1", "2", "1", "1", "1"], "other objects, whatever they are called"


def test_frames_are_recognised_by_their_names():
    counting = Counting()
    remembered = RememberedSegmenter(counting, recognise=by_name, dtype=torch.float16)
    first = frame(1)
    for one in (first, frame(2), replace(first, stamp_ns=7, image=first.image.copy()), frame(2)):
        scores = remembered(one)
        assert scores.dtype == torch.float32
        assert scores.argmax(1)[0].tolist() == one.labels.tolist()
    assert counting.seen == ["1", "2"]
    remembered(replace(first, stream="another"))
    assert counting.seen == ["1", "2", "1"]


def test_what_a_segmenter_can_do_it_can_do_remembered():
    class Able(Counting):
        turns = object()
        runtime = "eager"

        def close(self):
            self.seen.append("closed")

    able = Able()
    remembered = RememberedSegmenter(able)
    expected, found = capabilities(able), capabilities(remembered)
    assert found == expected and found.turns is Able.turns
    assert remembered.num_classes == 11 and remembered.runtime == "eager"
    found.close()
    assert able.seen == ["closed"]
    with pytest.raises(AttributeError):
        getattr(remembered, "pid")  # noqa: B009


class CountingFlow(NoFlow):
    def __init__(self):
        self.prepared = self.flows = 0

    def prepare(self, view):
        self.prepared += 1

    def flow(self, current, previous):
        self.flows += 1


def test_an_image_is_prepared_once_and_each_flow_to_it_is_computed_once():
    counting = CountingFlow()
    remembered = RememberedFlow(counting)
    views = [View(frame(i).image, (4, 8), torch.device("cpu")) for i in range(3)]
    previous = remembered.prepare(views[0])
    for number, view in enumerate(views[1:], start=1):
        for _ in range(3):
            current = remembered.prepare(view)
            assert remembered.flow(current, previous) is None
        assert counting.flows == number
        previous = current
    assert counting.prepared == 3
