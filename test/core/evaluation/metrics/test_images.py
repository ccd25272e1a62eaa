import cv2
import numpy as np
import pytest
import torch
from torch import nn

from vidseg_core.classes import load_classes
from vidseg_core.data.labelled import folder_pair
from vidseg_core.evaluation.metrics.images import evaluate_images
from vidseg_core.models.card import InputCard
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB


class RedIsClassOne(nn.Module):
    """Logits at stride 4 that say 1 where red is above 100, and remember what came in."""

    num_classes = 2

    def forward(self, rgb):
        self.seen = rgb
        red = rgb[:, :1] * STD_RGB[0] + MEAN_RGB[0]
        wanted = nn.functional.interpolate(red, size=tuple(-(-s // 4) for s in rgb.shape[2:]), mode="nearest") - 100
        return torch.cat([-wanted, wanted], 1)


@pytest.fixture
def halves(tmp_path):
    """Two images of 64 x 128: black left, red right."""
    for folder in ("set", "setannot"):
        (tmp_path / folder).mkdir()
    labels = np.zeros((64, 128), np.uint8)
    labels[:, 64:] = 1
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 64:, 2] = 200  # BGR
    for name in "ab":
        cv2.imwrite(str(tmp_path / "set" / f"{name}.png"), image)
        labels[0, 0] = 11  # void
        cv2.imwrite(str(tmp_path / "setannot" / f"{name}.png"), labels)
    return folder_pair(tmp_path, "set", load_classes("camvid"))


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_the_network_sees_scaled_normalised_rgb_and_is_scored_at_full_size(halves, scale):
    net = RedIsClassOne()
    matrix = evaluate_images(net, halves, scale)
    assert net.seen.shape == (1, 3, 64 * scale, 128 * scale)
    np.testing.assert_allclose(net.seen[0, :, 0, 0], -np.array(MEAN_RGB) / STD_RGB, rtol=1e-5)
    np.testing.assert_allclose(net.seen[0, 0, 0, -1], (200 - MEAN_RGB[0]) / STD_RGB[0], rtol=1e-5)
    assert matrix.num_pixels == 2 * (64 * 128 - 1)
    assert matrix.pixel_accuracy() > 0.95
    assert matrix.counts[:2, :2].sum() == matrix.num_pixels


def test_the_network_sees_what_its_card_says(halves):
    net = RedIsClassOne()
    card = InputCard(mean=(127.0,) * 3, std=(128.0,) * 3, multiple=32)
    evaluate_images(net, halves, 1.0, input=card)
    np.testing.assert_allclose(net.seen[0, :, 0, 0], -127 / 128, rtol=1e-5)
    np.testing.assert_allclose(net.seen[0, 0, 0, -1], (200 - 127) / 128, rtol=1e-5)


def test_evaluation_counts_every_image_and_keeps_the_mode(halves):
    net = RedIsClassOne().train()
    matrix = evaluate_images(net, halves, progress=list)
    assert net.training
    assert matrix.num_pixels == 2 * (64 * 128 - 1)
    assert matrix.mean_iou() > 0.9 and matrix.pixel_accuracy() > 0.95
    assert np.isnan(matrix.iou()[2:]).all()
