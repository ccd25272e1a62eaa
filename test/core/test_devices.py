import pytest
import torch

from vidseg_core.devices import open_device
from vidseg_core.errors import ConfigError


def test_the_cpu_is_always_there():
    assert open_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("there", [False, True])
def test_auto_is_cuda_where_there_is_one(there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(there))
    assert open_device("auto").type == ("cuda" if there else "cpu")


@pytest.mark.parametrize("name", ["tpu9", "", "cuda:", "cuda:-1", "cpu:0", "CUDA"])
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match=r"device: expected auto, cpu, cuda or cuda:N, got '"):
        open_device(name)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert open_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="expected a device that is there, got 'cuda:2'; CUDA devices: 2"):
        open_device("cuda:2")
