"""The device that a user names."""

from __future__ import annotations

import re

import torch

from vidseg_core.errors import ConfigError


def open_device(name: str) -> torch.device:
    """Return the device of a name: auto (CUDA where there is one), cpu, cuda or cuda:N.

    Raises:
        ConfigError: it is another name, or there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise ConfigError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device: expected a device that is there, got {name!r}; CUDA devices: {torch.cuda.device_count()}"
        )
    return device
