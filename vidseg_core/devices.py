"""The device that a user names."""

from __future__ import annotations

import ctypes
import re
from importlib.metadata import version

from vidseg_core.errors import ConfigError

DRIVER = "libcuda.so.1"


class Device(str):
    """The name of a device: cpu, cuda or cuda:N. PyTorch takes it wherever it takes a name."""

    @property
    def type(self) -> str:
        """The name without the number."""
        return self.partition(":")[0]

    @property
    def index(self) -> int | None:
        """The number; None where the name has none."""
        number = self.partition(":")[2]
        return int(number) if number else None


CPU = Device("cpu")


def open_device(name: str) -> Device:
    """Return the device of a name: auto (CUDA where there is one), cpu, cuda or cuda:N.

    Raises:
        ConfigError: it is another name, or there is no such device.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        raise ConfigError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}")
    if name == "cpu":
        return CPU
    count = count_devices()
    if name == "auto":
        return Device("cuda") if count else CPU
    device = Device(name)
    if (device.index or 0) >= count:
        raise ConfigError(f"device: expected a device that is there, got {name!r}; CUDA devices: {count}")
    return device


def count_devices() -> int:
    """Count the CUDA devices that PyTorch can use; loads it only where there may be any."""
    if not _may_have_devices():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _may_have_devices() -> bool:
    build = version("torch").partition("+")[2]
    if build == "cpu":
        return False
    if build.startswith("rocm"):
        return True
    try:
        ctypes.CDLL(DRIVER)  # PyTorch's runtime looks for the same
    except OSError:
        return False
    return True
