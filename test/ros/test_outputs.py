"""An overlay comes from the engine where that draws any, and from the node elsewhere."""

from types import SimpleNamespace

import numpy as np

from vidseg_core.frame import Segmentation
from vidseg_core.overlay import overlay
from vidseg_ros import outputs

IMAGE = np.full((8, 9, 3), 100, np.uint8)
LUT = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)


def rendered(segmentation):
    settings = SimpleNamespace(overlay_opacity=0.25)
    return outputs.render_overlay(outputs.Picture(IMAGE, segmentation, LUT, settings))


def test_what_the_engine_has_drawn_is_not_drawn_again():
    drawn = np.zeros_like(IMAGE)
    encoding, pixels = rendered(Segmentation(np.ones((8, 9), np.uint8), 0, True, 0, "", overlay=drawn))
    assert encoding == "rgb8" and pixels is drawn


def test_elsewhere_the_node_draws():
    labels = np.ones((8, 9), np.uint8)
    _, pixels = rendered(Segmentation(labels, 0, True, 0, ""))
    np.testing.assert_array_equal(pixels, overlay(IMAGE, labels, LUT, 0.25))


def test_void_labels_have_no_colours():
    drawn = np.zeros_like(IMAGE)
    void = outputs.void(Segmentation(np.ones((8, 9), np.uint8), 0, True, 0, "", overlay=drawn))
    np.testing.assert_array_equal(rendered(void)[1], IMAGE)
