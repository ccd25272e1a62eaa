from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np
import pytest

from vidseg_core.classes import VOID, load_classes
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.flow import NoFlow
from vidseg_core.engine.key_frames.background import Background
from vidseg_core.engine.key_frames.jobs import Delayed
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.frame import Frame

CLASSES = load_classes("camvid")


class Ending(TruthSegmenter):
    """The truth, and how often it was closed."""

    closed = 0

    def close(self):
        self.closed += 1


def frame(number):
    image = np.zeros((64, 96, 3), np.uint8)
    return Frame(image, number * 33_333_333, labels=np.full((64, 96), number % 11, np.uint8))


@pytest.fixture
def engine():
    with build_engine(EngineConfig(interval=2, fusion=False), Ending(len(CLASSES)), CLASSES) as engine:
        yield engine


def ages(engine, **options):
    stream = engine.stream(**options)
    return [stream.step(frame(i)).age for i in range(5)]


def test_a_variant_differs_where_it_is_told_and_shares_the_rest(engine):
    networks, config = engine.networks, engine.config
    flow = NoFlow()
    other = engine.variant(replace(config, interval=0), flow=flow)
    assert other.networks.flow is flow and other.networks.segmenter is networks.segmenter
    assert other.config.interval == 0 and other.classes is engine.classes and other.runtime is engine.runtime
    assert ages(other) == [0] * 5
    assert engine.networks is networks and engine.config is config and ages(engine) == [0, 1, 2, 0, 1]
    with pytest.raises(TypeError, match="colour"):
        engine.variant(colour=flow)


def test_key_frames_of_a_variant(engine):
    assert ages(engine.variant(key_frames=Delayed(1))) == [0, 1, 2, 3, 1]
    beside = engine.variant(replace(engine.config, key_frames="async"))
    assert isinstance(beside.key_frames, Background) and engine.key_frames.at_once
    assert beside.variant(flow=NoFlow()).key_frames is beside.key_frames
    assert beside.variant(engine.config).key_frames.at_once
    assert beside.close()
    with pytest.raises(RuntimeError, match="closed"):
        beside.stream().step(frame(0))


def test_a_variant_ends_nothing_of_the_engine_that_it_comes_from():
    segmenter = Ending(len(CLASSES))
    with build_engine(EngineConfig(key_frames="async"), segmenter, CLASSES) as engine:
        with engine.variant(flow=NoFlow()):
            pass
        assert segmenter.closed == 0
        assert engine.stream().step(frame(0)).age == 0
        assert engine.segmenting_s() == 0.0
    assert segmenter.closed == 1


def test_a_variant_has_the_ego_mask_of_its_configuration(engine, tmp_path):
    mask = np.zeros((64, 96), np.uint8)
    mask[48:] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    masked = engine.variant(replace(engine.config, ego_mask=tmp_path / "mask.png"))
    (tmp_path / "mask.png").unlink()
    for one in (masked, masked.variant(flow=NoFlow())):
        labels = one.stream().step(frame(1)).labels
        assert (labels[48:] == VOID).all() and (labels[:48] == 1).all()
    assert (engine.stream().step(frame(1)).labels == 1).all()
    assert (masked.variant(engine.config).stream().step(frame(1)).labels == 1).all()


@pytest.mark.parametrize("key_delay", [None, 0, 1])
def test_frames_are_computed_in_the_device_s_context(engine, key_delay):
    """Of several cards, kernels go to the one that is in use."""
    inside = []

    @contextmanager
    def device():
        inside.append("begins")
        yield
        inside.append("ends")

    there = Engine(engine.config, CLASSES, engine.networks, {}, engine.runtime, 1, frame=device)
    stream = there.stream(key_delay=key_delay)
    for number in range(2):
        stream.step(frame(number))
    assert inside == ["begins", "ends"] * 2
