"""Convolutions in 8 bit integers, by OpenVINO; the ranges of their inputs are measured beforehand, see `ModelCard`.

A processor with instructions for that (VNNI, AMX) does twice as many multiplications of 8 bit integers as of bfloat16
numbers. Weights get a step for each output channel, activations one for each tensor, so that the largest value of
either is the largest integer (Jacob et al., CVPR 2018). Everything but convolutions stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from vidseg_core.backends.backend import Ranges

if TYPE_CHECKING:
    import openvino
    from torch import Tensor, nn

# What OpenVINO's PyTorch frontend puts before and behind a module's name in that of a layer.
PREFIX, SUFFIX = "__module.network.", "/"
LEVELS, WEIGHT_LEVELS = 256, 255


@contextmanager
def measured(network: nn.Module) -> Iterator[Ranges]:
    """Measure the values that the network's convolutions meet; filled in whenever it is called inside the context.

    Convolutions with a true attribute `keeps_precision` are left out, so that they stay in floating point.
    """
    import torch
    from torch import nn

    ranges: Ranges = {}

    def look(name: str):
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            low, high = (limit.item() for limit in torch.aminmax(given[0]))
            before = ranges.get(name, (low, high))
            ranges[name] = min(low, before[0]), max(high, before[1])

        return hook

    convolutions = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and not getattr(module, "keeps_precision", False)
    }
    hooks = [module.register_forward_pre_hook(look(name)) for name, module in convolutions.items()]
    try:
        yield ranges
    finally:
        for hook in hooks:
            hook.remove()


def convolutions_of(model: openvino.Model, from_file: bool = False) -> list[tuple[str, openvino.Node]]:
    """List the convolutions with constant weights, by their names.

    Args:
        from_file: names are those of the tensors that they give, as the file calls them; else those of modules.
    """
    found = []
    for layer in model.get_ordered_ops():
        if layer.get_type_name() not in ("Convolution", "GroupConvolution"):
            continue
        if not from_file:
            found.append((layer.get_friendly_name().removeprefix(PREFIX).partition(SUFFIX)[0], layer))
        elif (name := _name_in_file(layer)) and _is_constant(layer.input_value(1)):
            found.append((name, layer))
    return found


def _name_in_file(layer: openvino.Node) -> str | None:
    """The name of what a convolution gives; one with a bias is two operations, of which the second has the name."""
    users = layer.output(0).get_target_inputs()
    outputs = [layer.output(0), *(one.get_node().output(0) for one in users if len(users) == 1)]
    return next((min(output.get_names()) for output in outputs if output.get_names()), None)


def _is_constant(output: openvino.Output) -> bool:
    node = output.get_node()
    if node.get_type_name() in ("Reshape", "Convert"):
        return _is_constant(node.input_value(0))
    return node.get_type_name() == "Constant"


def meets(layer: openvino.Node) -> tuple[openvino.Input, openvino.Output]:
    """Find where a convolution's values come from, zeros around them left out: then both are one operation."""
    target, source = layer.input(0), layer.input_value(0)
    if source.get_node().get_type_name() == "Pad":
        target, source = source.get_node().input(0), source.get_node().input_value(0)
    return target, source


def quantize(model: openvino.Model, ranges: Ranges, from_file: bool = False) -> None:
    """Mark the convolutions in `ranges` as ones that may be computed in integers; the others stay as they are.

    Args:
        model: as converted from PyTorch, or read from a file; changed in place.
        from_file: see `convolutions_of`.

    Raises:
        ValueError: `ranges` are those of another network.
    """
    convolutions = convolutions_of(model, from_file)
    if strangers := sorted(set(ranges) - {name for name, _ in convolutions}):
        raise ValueError(f"activation ranges of another network: it has no convolution {strangers[0]!r}")
    rounded: dict[tuple[str, int], openvino.Output] = {}  # several convolutions of one tensor round it once
    for name, layer in convolutions:
        if name not in ranges:
            continue
        target, source = meets(layer)
        key = source.get_node().get_friendly_name(), source.get_index()
        if key not in rounded:
            rounded[key] = _rounded(source, *_activation_limits(*ranges[name]), LEVELS)
        target.replace_source_output(rounded[key])
        weights = layer.input_value(1)
        # O x I x h x w, or one such block for each group: every output channel has a step of its own.
        values = _constant(weights).reshape(weights.get_shape())
        largest = np.abs(values).max(axis=(-3, -2, -1), keepdims=True).astype(np.float32)
        largest = np.maximum(largest, np.finfo(np.float32).tiny)
        layer.input(1).replace_source_output(_rounded(weights, -largest, largest, WEIGHT_LEVELS))
    model.validate_nodes_and_infer_types()


def _constant(output: openvino.Output) -> np.ndarray:
    """The values of a constant, in the shape in which it is stored; those of grouped convolutions get another one."""
    node = output.get_node()
    if node.get_type_name() in ("Reshape", "Convert"):
        return _constant(node.input_value(0))
    return node.get_data().astype(np.float32)


def _activation_limits(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """0 stays 0: padding is made of it."""
    if low < 0:
        high = max(-low, high)
        low = -high * (LEVELS / 2) / (LEVELS / 2 - 1)
    return _limit(min(low, 0.0)), _limit(high or 1.0)


def _limit(value: float) -> np.ndarray:
    return np.full((1, 1, 1, 1), value, dtype=np.float32)


def _rounded(values: openvino.Output, low: np.ndarray, high: np.ndarray, levels: int) -> openvino.Output:
    from openvino import opset13

    limits = opset13.constant(low), opset13.constant(high)
    return opset13.fake_quantize(values, *limits, *limits, levels).output(0)
