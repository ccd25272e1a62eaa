"""Half precision on CUDA devices: what can be seen without one, and on one (marked `gpu`)."""

import pytest
import torch
from torch import nn

from vidseg_core.backends.choose import load_backend
from vidseg_core.backends.cuda import Half, folded
from vidseg_core.networks.swiftnet import SwiftNet

IMAGE = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def with_statistics(network):
    """As after training: no norm is the identity."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 1.5, generator=generator)
            for values in (module.bias.data, module.running_mean):
                values.normal_(0, 0.3, generator=generator)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return with_statistics(SwiftNet(11))


def test_norms_behind_convolutions_are_folded(network):
    copy = folded(network, (IMAGE,))
    # The encoder's follow convolutions, the decoder's come before them.
    assert 0 < norms(copy) < norms(network)
    with torch.inference_mode():
        torch.testing.assert_close(copy(IMAGE), network(IMAGE), atol=1e-3, rtol=1e-3)


class _ReadTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.convolution(x)
        return x + self.norm(x)


def test_what_something_else_reads_is_not_folded(caplog):
    caplog.set_level("INFO")
    network = with_statistics(_ReadTwice())
    copy = folded(network, (IMAGE,))
    assert norms(copy) == 1 and "something else reads what they read" in caplog.text
    assert torch.equal(copy(IMAGE), network(IMAGE))


def test_half_precision_gives_the_labels(network, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    half = Half(folded(network, (IMAGE,)))
    assert torch.backends.cudnn.benchmark
    with torch.inference_mode():
        expected, found = network(IMAGE), half(IMAGE)
    assert found.dtype == torch.float32 and half.runtime == "cuda half"
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.99
    assert norms(network) > 0 and next(network.parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", ["cuda_half", "cuda_half_graph"])
def test_they_are_for_cuda_devices(name):
    backend = load_backend(name)
    assert backend.available(torch.device("cuda")) is None
    assert backend.available(torch.device("cpu")) == f"{name} is for CUDA devices, the device is cpu"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cuda_half", "cuda_half_graph"])
def test_on_a_card(network, name):
    on_card = network.cuda()
    compiled = load_backend(name).compile(on_card, (IMAGE.cuda(),), None, 1)
    with torch.inference_mode():
        first, second = (compiled(image.cuda()) for image in (IMAGE, -IMAGE))
        for found, image in ((first, IMAGE), (second, -IMAGE)):
            assert (found.argmax(1) == on_card(image.cuda()).argmax(1)).float().mean() > 0.99
    assert compiled.runtime == name.replace("_", " ")
    network.cpu()
