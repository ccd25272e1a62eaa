import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vidseg_core.training.losses import SegmentationLoss, class_weights, labels_at, lovasz_softmax, ohem


def test_class_weights_follow_the_frequency_with_mean_one_over_the_pixels():
    frequency = np.array([0.64, 0.32, 0.04, 0.0])
    sqrt = class_weights(frequency, "sqrt").numpy()
    np.testing.assert_allclose(sqrt[:3] / sqrt[0], [1, 2**0.5, 4], rtol=1e-5)
    assert sqrt[3] / sqrt[0] == pytest.approx(10)
    assert (sqrt * frequency).sum() == pytest.approx(1)
    np.testing.assert_allclose(class_weights(frequency, "none"), 1, rtol=1e-6)
    assert class_weights(frequency, "inverse")[2] / class_weights(frequency, "inverse")[0] == pytest.approx(10)
    with pytest.raises(ValueError, match="weighting"):
        class_weights(frequency, "cube")
    with pytest.raises(ValueError, match="labelled pixel"):
        class_weights(np.zeros(3), "sqrt")


def test_labels_at_takes_the_corners_and_what_lies_evenly_between():
    labels = torch.arange(9 * 13).view(1, 9, 13)
    assert labels_at(labels, (3, 4))[0].tolist() == [[0, 4, 8, 12], [52, 56, 60, 64], [104, 108, 112, 116]]
    assert torch.equal(labels_at(labels, (9, 13)), labels)


def test_cross_entropy_equals_pytorch_at_full_resolution():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 8, 12), torch.randint(0, 3, (2, 32, 48))
    labels[:, :5] = 255
    weights = torch.tensor([1.0, 2.0, 0.5])
    large = F.interpolate(logits, size=(32, 48), mode="bilinear", align_corners=True)
    expected = F.cross_entropy(large, labels, weights, ignore_index=255, reduction="sum") / (labels != 255).sum()
    assert SegmentationLoss(weights, stride=1)(logits, labels).item() == pytest.approx(expected.item(), rel=1e-5)
    plain = F.cross_entropy(logits, labels_at(labels, (8, 12)), ignore_index=255)
    assert SegmentationLoss(torch.ones(3), stride=4)(logits, labels).item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"hard_pixels": True}, {"lovasz": 1.0}])
def test_void_only_gives_zero_and_no_nan_gradient(options):
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    loss = SegmentationLoss(torch.ones(3), **options)(logits, torch.full((1, 32, 32), 255))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


def test_ohem_uses_the_hard_pixels_or_the_least_share():
    hard = -np.log(0.7)
    losses = torch.tensor([0.0] * 14 + [hard + 1, hard + 3])
    assert ohem(losses).item() == pytest.approx(hard + 2)
    assert ohem(torch.linspace(0, 0.1, 16), least=0.125).item() == pytest.approx((0.1 + 0.1 * 14 / 15) / 2)


def lovasz_by_definition(probabilities, labels):
    """The Lovasz extension of 1 - IoU, step by step from its definition, for P x C probabilities."""
    losses = []
    for c in sorted(set(labels.tolist())):
        truth = labels == c
        errors = np.abs(truth - probabilities[:, c])
        order = np.argsort(-errors)
        previous, total = 0.0, 0.0
        for k in range(len(order)):
            wrong = np.zeros(len(labels), bool)
            wrong[order[: k + 1]] = True
            iou_loss = wrong.sum() / (truth | wrong).sum()
            total += errors[order[k]] * (iou_loss - previous)
            previous = iou_loss
        losses.append(total)
    return np.mean(losses)


def test_lovasz_softmax_equals_its_definition_and_ignores_void():
    torch.manual_seed(1)
    logits, labels = torch.randn(1, 4, 5, 6), torch.randint(0, 3, (1, 5, 6))
    labels[0, 0] = 255
    known = labels[0] != 255
    probabilities = logits.softmax(1)[0].permute(1, 2, 0)[known].numpy().astype(np.float64)
    expected = lovasz_by_definition(probabilities, labels[0][known].numpy())
    assert lovasz_softmax(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_lovasz_softmax_of_perfect_and_of_wrong_logits():
    labels = torch.tensor([[[0, 1], [1, 1]]])
    right = F.one_hot(labels, 2).permute(0, 3, 1, 2) * 50.0
    assert lovasz_softmax(right, labels).item() == pytest.approx(0, abs=1e-6)
    assert lovasz_softmax(-right, labels).item() == pytest.approx(1, abs=1e-6)
