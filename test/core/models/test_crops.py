"""Pictures of any aspect for networks that see squares."""

from types import SimpleNamespace

import pytest
import torch

from vidseg_core.kernels.queries import scores_of_queries
from vidseg_core.models.crops import Crops, crop_begins

SIDE = 8
CLASSES = torch.tensor([[[2.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]])  # 1 x Q x (C + 1)


def local(squares: torch.Tensor) -> SimpleNamespace:
    """Give masks that depend on a pixel's own colours alone."""
    assert squares.shape[1:] == (3, SIDE, SIDE)
    return SimpleNamespace(
        masks_queries_logits=squares[:, :2], class_queries_logits=CLASSES.expand(len(squares), -1, -1)
    )


@pytest.mark.parametrize(
    ("long", "begins"), [(8, [0]), (9, [0, 1]), (14, [0, 6]), (16, [0, 8]), (21, [0, 6, 13]), (24, [0, 8, 16])]
)
def test_squares_cover_the_longer_side_evenly(long, begins):
    assert crop_begins(long, SIDE) == begins


@pytest.mark.parametrize("size", [(8, 8), (8, 14), (21, 8)])
def test_scores_of_all_squares_lie_where_they_belong(size):
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    found = Crops(local, SIDE)(image)["scores"]
    assert torch.allclose(found, scores_of_queries(image[:, :2], CLASSES), atol=1e-5)


def test_where_squares_overlap_scores_are_averaged():
    def by_square(squares: torch.Tensor) -> SimpleNamespace:
        masks = torch.arange(len(squares)).view(-1, 1, 1, 1).expand(-1, 2, SIDE, SIDE).float()
        return SimpleNamespace(masks_queries_logits=masks, class_queries_logits=CLASSES.expand(len(squares), -1, -1))

    row = Crops(by_square, SIDE)(torch.zeros(1, 3, 8, 14))["scores"][0, 0, 0]
    first, second = row[0], row[-1]
    assert first != second and torch.allclose(row[6:8], (first + second) / 2)
    assert (row[:6] == first).all() and (row[8:] == second).all()


def test_a_picture_of_another_size_is_resized_first():
    assert Crops(local, SIDE)(torch.zeros(1, 3, 16, 24))["scores"].shape == (1, 2, 8, 12)
