import ctypes

import pytest
import torch

from vidseg_core import devices
from vidseg_core.devices import CPU, Device, open_device
from vidseg_core.errors import ConfigError


@pytest.fixture
def driver(monkeypatch):
    """A build of PyTorch for CUDA, where CUDA's driver is installed."""
    monkeypatch.setattr(devices, "version", lambda package: "2.9.0")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)


def test_the_cpu_is_always_there(monkeypatch):
    monkeypatch.setattr(devices, "count_devices", lambda: pytest.fail("devices were looked for"))
    assert open_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1"])
def test_pytorch_takes_a_device_as_it_takes_a_name(name):
    device, expected = Device(name), torch.device(name)
    assert torch.device(device) == expected
    assert (device.type, device.index) == (expected.type, expected.index)
    assert torch.zeros(1).to(Device("cpu")).device == torch.device("cpu")


@pytest.mark.parametrize("there", [False, True])
def test_auto_is_cuda_where_there_is_one(there, driver, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(there))
    assert open_device("auto") == ("cuda" if there else "cpu")


@pytest.mark.parametrize(
    ("build", "has_driver", "may"),
    [("2.9.0+cpu", True, False), ("2.9.0+cu128", False, False), ("2.9.0+cu128", True, True), ("2.9.0", True, True)]
    + [("2.9.0+rocm6.4", False, True)],
)
def test_pytorch_is_asked_for_devices_only_where_there_may_be_any(build, has_driver, may, monkeypatch):
    def load(name):
        if not has_driver:
            raise OSError(name)

    monkeypatch.setattr(devices, "version", lambda package: build)
    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices.count_devices() == (3 if may else 0)


@pytest.mark.parametrize("name", ["tpu9", "", "cuda:", "cuda:-1", "cpu:0", "CUDA"])
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match=r"device: expected auto, cpu, cuda or cuda:N, got '"):
        open_device(name)


def test_a_device_that_is_not_there_is_refused(driver, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert open_device("cuda:1") == "cuda:1"
    with pytest.raises(ConfigError, match="expected a device that is there, got 'cuda:2'; CUDA devices: 2"):
        open_device("cuda:2")
