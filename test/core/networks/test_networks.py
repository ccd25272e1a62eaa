import pytest
import torch
from torch.nn import functional as F

from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.networks.flownet_s import FlowNet2S, UpstreamFlowNetS
from vidseg_core.networks.guided_refine import GuidedRefine, guided_sum, label_edges
from vidseg_core.networks.swiftnet import SwiftNet


@torch.inference_mode()
@pytest.mark.parametrize(("size", "classes"), [((64, 64), 1), ((65, 91), 11), ((360, 480), 255), ((16, 16), 3)])
def test_swiftnet_takes_any_size(size, classes):
    logits = SwiftNet(classes).eval()(torch.randn(1, 3, *size))
    assert logits.shape == (1, classes, -(-size[0] // 4), -(-size[1] // 4))
    assert torch.isfinite(logits).all()


@torch.inference_mode()
def test_flow_networks_take_grids_that_are_multiples_of_nothing():
    a, b = torch.rand(2, 1, 3, 45, 61) * 255
    assert FlowLight().eval()(a, b).shape == (1, 2, 12, 16)
    assert UpstreamFlowNetS().eval()(a, b).shape == (1, 2, 6, 8)
    assert FlowNet2S().eval()(a, b).shape == (1, 2, 45, 61)


def test_label_edges_mark_changes_and_the_border():
    logits = torch.zeros(1, 3, 6, 7)
    logits[0, 2, :, :3] = 1.0
    logits[0, 1, :, 3:] = 1.0
    edge = label_edges(logits)[0, 0]
    assert edge[0].all() and edge[-1].all() and edge[:, 0].all() and edge[:, -1].all()
    inner = edge[1:-1, 1:-1]
    assert torch.equal(inner, torch.tensor([0.0, 1, 1, 0, 0]).expand(4, 5))


def test_guided_sum_is_the_weighted_sum_of_eleven_candidates():
    torch.manual_seed(0)
    warped, intra = torch.randn(2, 2, 4, 5, 6)
    guide = torch.rand(2, 11, 5, 6)
    kernels = torch.eye(9)[[0, 1, 2, 3, 5, 6, 7, 8]].view(8, 1, 3, 3)
    shifts = [F.conv2d(warped.view(-1, 1, 5, 6), kernel[None], padding=1).view(2, 4, 5, 6) for kernel in kernels]
    candidates = torch.stack((warped, *shifts, torch.zeros_like(warped), intra), 1)
    expected = (guide[:, :, None] * candidates).sum(1)
    torch.testing.assert_close(guided_sum(guide, warped, intra), expected)


@torch.inference_mode()
@pytest.mark.parametrize("edge", [True, False])
@pytest.mark.parametrize("grid", [(45, 60), (9, 13), (8, 8)])
def test_refinement_weights_sum_to_one_on_any_grid(edge, grid):
    torch.manual_seed(1)
    refined = GuidedRefine(7, edge).eval()(torch.randn(1, 7, *grid), torch.randn(1, 3, *grid))
    assert refined.logits.shape == (1, 7, *grid)
    total = refined.guide.sum(1)
    assert torch.logical_or((total - 1).abs() < 1e-5, total == 0).all()
    assert torch.equal(refined.occlusion, refined.guide[:, 10:])
    assert (refined.edge is not None) == edge
