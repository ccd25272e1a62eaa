import numpy as np
import pytest
import torch

from vidseg_core.engine.refine import Refinement
from vidseg_core.kernels import refine
from vidseg_core.networks import guided_refine
from vidseg_core.networks.guided_refine import GuidedRefine


def smooth(classes, grid):
    """Logits with areas of one class, as pictures have."""
    values = np.random.default_rng(0).normal(size=(1, classes, *grid)).astype(np.float32)
    return torch.nn.functional.avg_pool2d(torch.from_numpy(values), 5, 1, 2)


@pytest.mark.parametrize("classes", [1, 7, 255])
@pytest.mark.parametrize("edge", [True, False])
@pytest.mark.parametrize("grid", [(8, 8), (23, 37)])
def test_it_computes_what_the_network_does(classes, edge, grid):
    torch.manual_seed(0)
    network = GuidedRefine(classes, edge).eval()
    warped, image = smooth(classes, grid), torch.randn(1, 3, *grid)
    with torch.inference_mode():
        expected, got = network(warped, image), Refinement(network)(warped, image)
    torch.testing.assert_close(got.logits, expected.logits)
    torch.testing.assert_close(got.guide, expected.guide)
    assert (got.edge is None) if not edge else torch.equal(got.edge, expected.edge)


def test_edges_are_the_laplacian_s():
    """Where neighbours differ by as much up as down the Laplacian sees nothing; the network was trained with that."""
    labels = np.array([[1, 1, 3], [1, 2, 3], [1, 3, 3]])
    logits = np.eye(4, dtype=np.float32)[labels]
    expected = guided_refine.label_edges(torch.from_numpy(logits).permute(2, 0, 1)[None])
    assert expected[0, 0, 1, 1] == 0
    assert torch.equal(refine.label_edges(torch.from_numpy(logits).permute(2, 0, 1)[None]), expected)


def test_edges_do_not_depend_on_how_a_convolution_rounds(monkeypatch):
    """By way of Fourier or Winograd it is inexact for whole numbers, too."""
    logits, exact = smooth(255, (23, 37)), guided_refine.F.conv2d
    expected = guided_refine.label_edges(logits)
    monkeypatch.setattr(guided_refine.F, "conv2d", lambda *a, **k: exact(*a, **k) + 1e-3)
    assert torch.equal(guided_refine.label_edges(logits), expected) and 0 < expected.mean() < 1
