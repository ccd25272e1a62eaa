"""Any function as the network of key frames, or of the frames between."""

import numpy as np
import pytest
import torch

from vidseg_core import EngineConfig, Frame, InputCard, OutputCard, build_engine, network_segmenter
from vidseg_core.errors import ConfigError

GIVEN = InputCard(mean=(100.0,) * 3, std=(50.0,) * 3, multiple=32, resize="bilinear")
IMAGE = np.kron(np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))


def brightness(image):
    """Two classes: brighter or darker than the mean."""
    bright = image.mean(1, keepdim=True)
    return torch.cat((-bright, bright), 1)


def test_labels_are_the_functions():
    segmenter = network_segmenter(brightness, ["dark", "bright"], input=GIVEN)
    config = EngineConfig(interval=1, fusion=False, flow="none")
    with build_engine(config, segmenter, segmenter.classes, updater=segmenter) as engine:
        stream = engine.stream()
        first, second = (stream.step(Frame(IMAGE, i * 33_000_000)) for i in range(2))
    expected = IMAGE.astype(float).mean(2) > 100
    assert (first.labels == expected).mean() > 0.999 and first.is_key
    assert (second.labels == expected).mean() > 0.9 and not second.is_key
    assert engine.classes.names == ("dark", "bright")


def test_arrays_and_ids_do():
    given = network_segmenter(
        lambda image: (image.mean(1) > 0).numpy().astype(np.uint8), ["dark", "bright"], input=GIVEN,
        output=OutputCard("labels"),
    )  # fmt: skip
    with build_engine(EngineConfig(interval=0, fusion=False), given, given.classes) as engine:
        labels = engine.stream().step(Frame(IMAGE, 0)).labels
    assert (labels == (IMAGE.astype(float).mean(2) > 100)).mean() > 0.98


def test_what_does_not_fit_says_so():
    segmenter = network_segmenter(brightness, ["a", "b", "c"], input=GIVEN)
    with pytest.raises(
        ValueError, match="network: expected 1 x 3 x h x w, as there are 3 classes, got 1 x 2 x 64 x 96"
    ):
        segmenter(Frame(IMAGE, 0))
    two = network_segmenter(brightness, ["a", "b"], input=GIVEN)
    with pytest.raises(ConfigError, match="updater: expected 2 classes, got 3"):
        build_engine(EngineConfig(), two, two.classes, updater=segmenter)
    with pytest.raises(ConfigError, match="update_weights: expected none beside the given updater"):
        build_engine(EngineConfig(update_weights="x"), two, two.classes, updater=two)
    with pytest.raises(ConfigError, match="output: expected logits, .*, got flow"):
        network_segmenter(brightness, ["a", "b"], input=GIVEN, output=OutputCard("flow"))
