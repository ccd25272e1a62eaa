"""Arrays of the processor and tensors of other devices, behind one convention.

What the processor computes with, lies in NumPy arrays: a process that labels on the CPU need not load PyTorch, which
takes a second and 200 MB. Other devices compute with tensors. Whatever is made of one kind is of that kind.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vidseg_core.devices import Device

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Array: TypeAlias = "np.ndarray | Tensor"
"""An array of the processor, or a tensor on another device."""


def torch_attribute(name: str) -> Any:
    """Return what PyTorch calls so, if it is loaded; None if not, or if another thread is still loading it."""
    return getattr(sys.modules.get("torch"), name, None)


def is_tensor(x: object) -> bool:
    """Return whether this is one of PyTorch's tensors; loads nothing."""
    kind = torch_attribute("Tensor")
    return kind is not None and isinstance(x, kind)


def without_gradients() -> AbstractContextManager:
    """Make a context in which PyTorch, if it is loaded, keeps nothing for gradients."""
    mode = torch_attribute("inference_mode")
    return nullcontext() if mode is None else mode()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether this says that a device has no memory left."""
    kind = torch_attribute("OutOfMemoryError")
    return kind is not None and isinstance(error, kind)


def wants_gradient(*values: Array) -> bool:
    """Return whether PyTorch is to derive what is computed of these."""
    tensors = [x for x in values if is_tensor(x)]
    return bool(tensors) and sys.modules["torch"].is_grad_enabled() and any(x.requires_grad for x in tensors)


def device_type_of(x: Array) -> str:
    """Return the type of device whose kernels read this; "cpu" for an array."""
    return "cpu" if isinstance(x, np.ndarray) else x.device.type


def as_array(x: Array) -> np.ndarray:
    """Return a tensor of the processor's as an array of the same memory, where NumPy has its type; else as float32."""
    if isinstance(x, np.ndarray):
        return x
    x = x.detach()
    return (x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy()


def as_tensor(x: Array) -> Tensor:
    """Return an array as a tensor of the same memory, where PyTorch can have that; else as a copy."""
    import torch

    if not isinstance(x, np.ndarray):
        return x
    if not x.flags.writeable or any(stride < 0 for stride in x.strides):
        x = x.copy()
    return torch.from_numpy(x)


def on_device(x: Array, device: Device | torch.device) -> Array:
    """Bring values to a device: an array on the CPU, a tensor on all others."""
    return on_host(x) if device.type == "cpu" else as_tensor(x).to(str(device))


def on_host(x: Array) -> np.ndarray:
    """Bring values to the processor, for which a device is waited for."""
    return as_array(x if isinstance(x, np.ndarray) else x.cpu())


def pixels_last(x: np.ndarray) -> np.ndarray:
    """Return 1 x C x h x w as h x w x C, float32, contiguous; not copied where it lies in memory like that."""
    return np.ascontiguousarray(x[0].transpose(1, 2, 0), dtype=np.float32)


def channels_first(x: np.ndarray) -> np.ndarray:
    """Return h x w x C as 1 x C x h x w, of the same memory."""
    return x.transpose(2, 0, 1)[None]


def takes_arrays(function: Callable[..., Any], keeps_results: bool = False) -> Callable[..., Any]:
    """Let a function of arrays take the processor's tensors, too, and give tensors then.

    Args:
        keeps_results: give what it gives in any case, as where that is for the host.
    """

    @wraps(function)
    def call(*arguments: Any) -> Any:
        if not any(map(_has_tensor, arguments)):
            return function(*arguments)
        found = function(*(_each(one, as_array, is_tensor) for one in arguments))
        return found if keeps_results else _each(found, as_tensor, _is_array)

    return call


def takes_tensors(function: Callable[..., Any], keeps_results: bool = False) -> Callable[..., Any]:
    """Let a function of tensors take arrays, too, and give arrays where all that it takes are arrays.

    Args:
        keeps_results: give what it gives in any case.
    """

    @wraps(function)
    def call(*arguments: Any) -> Any:
        keeps = keeps_results or any(map(_has_tensor, arguments))
        found = function(*(_each(one, as_tensor, _is_array) for one in arguments))
        return found if keeps else _each(found, as_array, is_tensor)

    return call


def _is_array(x: object) -> bool:
    return isinstance(x, np.ndarray)


def _has_tensor(x: object) -> bool:
    return any(map(_has_tensor, x)) if isinstance(x, list | tuple) else is_tensor(x)


def _each(x: Any, change: Callable[[Any], Any], concerns: Callable[[object], bool]) -> Any:
    """Change what is concerned, also in lists, tuples and named tuples."""
    if isinstance(x, list | tuple):
        parts = [_each(one, change, concerns) for one in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return change(x) if concerns(x) else x
