import pytest
import torch
from torch.nn import functional as F

from vidseg_core.networks.efficientnet_lite import (
    ENCODER_WIDTHS,
    EfficientNetLite0,
    InvertedResidual,
    Lite0Encoder,
    SameConv2d,
)
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.networks.flownet_s import FlowNet2S, UpstreamFlowNetS
from vidseg_core.networks.guided_refine import GuidedRefine, guided_sum, label_edges
from vidseg_core.networks.swiftnet import SwiftNet


@torch.inference_mode()
@pytest.mark.parametrize(("encoder", "width"), [("r18", 128), ("lite0", 96), ("lite0", 8)])
@pytest.mark.parametrize(("size", "classes"), [((64, 64), 1), ((65, 91), 11), ((360, 480), 255), ((16, 16), 3)])
def test_swiftnet_takes_any_size(size, classes, encoder, width):
    logits = SwiftNet(classes, encoder, width).eval()(torch.randn(1, 3, *size))
    assert logits.shape == (1, classes, -(-size[0] // 4), -(-size[1] // 4))
    assert torch.isfinite(logits).all()


def test_the_decoder_is_as_wide_as_is_asked_for():
    net = SwiftNet(5, "lite0", 96)
    assert net.logits.conv.weight.shape == (5, 96, 1, 1)
    assert net.backbone.spp.spp.spp1.conv.weight.shape == (32, 96, 1, 1)
    assert [step.bottleneck.conv.weight.shape[:2] for step in net.backbone.upsample] == [(96, 112), (96, 40), (96, 24)]


@pytest.mark.parametrize(("encoder", "mark"), [("r18", "layer3.0.conv1.weight"), ("lite0", "encoder._bn0.weight")])
def test_encoder_and_decoder_have_parameters_of_their_own(encoder, mark):
    backbone = SwiftNet(3, encoder, 32).backbone
    names = {parameter: name for name, parameter in backbone.named_parameters()}
    of_encoder = {names[parameter] for parameter in backbone.encoder_parameters()}
    assert mark in of_encoder
    assert set(names.values()) - of_encoder == {
        name for name in names.values() if name.startswith(("spp.", "upsample."))
    }


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 96), (65, 91), (33, 32)])
def test_lite0_encoder_has_maps_at_four_strides(size):
    maps = Lite0Encoder().eval()(torch.randn(2, 3, *size))
    for x, channels, stride in zip(maps, ENCODER_WIDTHS, (4, 8, 16, 32), strict=True):
        assert x.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


@torch.inference_mode()
def test_same_padding_puts_the_odd_zero_behind():
    ones = torch.ones(1, 1, 4, 5)
    conv = SameConv2d(1, 1, 3, 2)
    torch.nn.init.ones_(conv.weight)
    # Rows: 4 values, windows 0..2 and 2..4, so one zero below. Columns: 5 values, windows -1..1, 1..3, 3..5.
    assert conv(ones)[0, 0].tolist() == [[6, 9, 6], [4, 6, 4]]
    large = SameConv2d(1, 1, 5, 2)
    torch.nn.init.ones_(large.weight)
    assert large(torch.ones(1, 1, 6, 6))[0, 0, 0].tolist() == [16, 20, 12]  # -1..3, 1..5, 3..7
    same = SameConv2d(1, 1, 5)
    torch.nn.init.ones_(same.weight)
    assert same(torch.ones(1, 1, 6, 6))[0, 0, 0].tolist() == [9, 12, 15, 15, 12, 9]


@torch.inference_mode()
def test_inverted_residual_by_hand():
    torch.manual_seed(0)
    block = InvertedResidual(4, 4, 3, 1, 6)
    for norm in (block._bn0, block._bn1, block._bn2):
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.01, 0.05)
    block.eval()
    x = torch.randn(2, 4, 7, 9)

    def norm(layer, x):
        mean, var, weight, bias = (
            values.view(1, -1, 1, 1) for values in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
        )
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    wide = norm(block._bn0, torch.einsum("oi,bihw->bohw", block._expand_conv.weight[:, :, 0, 0], x)).clamp(0, 6)
    padded = F.pad(wide, (1, 1, 1, 1))
    wide = sum(
        padded[:, :, i : i + 7, j : j + 9] * block._depthwise_conv.weight[:, 0, i, j].view(1, -1, 1, 1)
        for i in range(3)
        for j in range(3)
    )
    wide = norm(block._bn1, wide).clamp(0, 6)
    assert wide.max() == 6
    narrow = norm(block._bn2, torch.einsum("oi,bihw->bohw", block._project_conv.weight[:, :, 0, 0], wide))
    torch.testing.assert_close(block(x), x + narrow, rtol=1e-4, atol=1e-4)
    assert InvertedResidual(4, 6, 3, 1, 6).eval()(x).shape == (2, 6, 7, 9)
    assert InvertedResidual(4, 4, 5, 2, 6).eval()(x).shape == (2, 4, 4, 5)


@torch.inference_mode()
def test_lite0_is_the_published_classifier():
    net = EfficientNetLite0().eval()
    assert sum(parameter.numel() for parameter in net.parameters()) == 4_652_008 and len(net.state_dict()) == 296
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert shapes["_blocks.0._depthwise_conv.weight"] == (32, 1, 3, 3) and "_blocks.0._bn0.weight" not in shapes
    assert shapes["_blocks.8._depthwise_conv.weight"] == (480, 1, 5, 5)
    assert shapes["_blocks.15._project_conv.weight"] == (320, 1152, 1, 1) and shapes["_fc.weight"] == (1000, 1280)
    assert net.classify(torch.randn(2, 3, 224, 224)).shape == (2, 1000)


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
