import pytest
import torch
from torch.nn import functional as F

from vidseg_core.networks.efficientnet_lite import Lite0Encoder
from vidseg_core.training.depthwise import Depthwise, hasten_gradients

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("size", [(9, 12), (10, 13), (5, 5)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_gradients_are_pytorchs(stride, size, layout):
    torch.manual_seed(0)
    x = torch.randn(3, 7, *size).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(7, 1, 5, 5, requires_grad=True)
    expected = F.conv2d(x, weight, None, stride, groups=7)
    got = Depthwise.apply(x, weight, stride)
    assert torch.equal(got, expected)
    gradient = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(result, (x, weight), gradient) for result in (got, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_half_precision_keeps_the_weights_gradient_in_theirs():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 9, 9, requires_grad=True), torch.randn(4, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        Depthwise.apply(x.bfloat16(), weight, 2).float().sum().backward()
    got = weight.grad.clone()
    weight.grad = None
    F.conv2d(x.bfloat16().float(), weight, None, 2, groups=4).sum().backward()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, weight.grad, rtol=1e-4, atol=1e-4)


def test_an_encoder_learns_the_same_by_it():
    torch.manual_seed(0)
    net, x = Lite0Encoder().train(), torch.rand(2, 3, 64, 96)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    gradients = []
    for hasten in (False, True):
        net.load_state_dict(state)
        if hasten:
            assert hasten_gradients(net) == 9  # stages of EfficientNet-Lite0 with 5 x 5: 2 + 3 + 4 blocks
        net.zero_grad()
        sum(scores.square().mean() for scores in net(x)).backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4)
