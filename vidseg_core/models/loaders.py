"""Networks made of the tensors of weight files, all of them or none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vidseg_core.classes import MAX_CLASSES
from vidseg_core.errors import CheckpointError
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.networks.flownet_s import FlowNet2S, UpstreamFlowNetS
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.swiftnet import DECODER_WIDTH, SwiftNet

FLOW_NETWORKS: dict[str, type[nn.Module]] = {
    "light": FlowLight,
    "flownet_s": UpstreamFlowNetS,
    "flownet2_s": FlowNet2S,
}


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy `tensors` into `module`, all of them or none, and put it into evaluation mode.

    Raises:
        CheckpointError: keys are missing or unexpected, a shape is another one, or values are not finite.
    """
    own = module.state_dict()
    missing, unexpected = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: keys do not fit {type(module).__name__}: "
            f"missing {missing or 'none'}, unexpected {unexpected or 'none'}"
        )
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            raise CheckpointError(f"{path}: {key}: expected shape {tuple(own[key].shape)}, found {tuple(value.shape)}")
        # A sum is finite where all values are, and much faster than looking at each.
        if not math.isfinite(value.sum(dtype=torch.float64)):
            raise CheckpointError(f"{path}: {key}: expected finite values, found NaN or infinity")
    module.load_state_dict(tensors)
    module.eval()


def _num_classes(path: Path, tensors: Mapping[str, Tensor], key: str) -> int:
    value = tensors.get(key)
    if value is None or value.ndim != 1 or not 1 <= len(value) <= MAX_CLASSES:
        found = "nothing" if value is None else f"shape {tuple(value.shape)}"
        raise CheckpointError(
            f"{path}: {key}: expected one value for each of 1 to {MAX_CLASSES} classes, found {found}"
        )
    return len(value)


def swiftnet(path: Path, tensors: Mapping[str, Tensor], encoder: str) -> SwiftNet:
    """Load a SwiftNet on an encoder, by its name in `networks.swiftnet.ENCODERS`, in evaluation mode.

    Raises:
        CheckpointError: the tensors do not fit.
    """
    last = tensors.get("logits.norm.weight")
    # Where the file does not tell, or something odd, `fill` says what it expected.
    width = len(last) if last is not None and last.ndim == 1 and len(last) >= 3 else DECODER_WIDTH
    network = SwiftNet(_num_classes(path, tensors, "logits.conv.bias"), encoder, width)
    fill(network, tensors, path)
    return network


def refinement(path: Path, tensors: Mapping[str, Tensor], has_flow: bool) -> tuple[GuidedRefine, FlowLight | None]:
    """Load guided refinement and, where the file has one, its flow network, in evaluation mode.

    Raises:
        CheckpointError: the tensors do not fit.
    """
    flow_tensors = {key[5:]: value for key, value in tensors.items() if key.startswith("flow.")}
    refine_tensors = {key[7:]: value for key, value in tensors.items() if key.startswith("refine.")}
    if stray := sorted(key for key in tensors if not key.startswith(("flow.", "refine."))):
        raise CheckpointError(f"{path}: unexpected keys {stray}")
    num_classes = _num_classes(path, refine_tensors, "intra_net.6.bias")
    guide_input = refine_tensors["guide.guide_conv.0.weight"]
    refine = GuidedRefine(num_classes, edge=guide_input.ndim == 4 and guide_input.shape[1] == num_classes + 1)
    fill(refine, refine_tensors, path)
    if not has_flow:
        return refine, None
    network = FlowLight()
    fill(network, flow_tensors, path)
    return refine, network


def flow(path: Path, tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    """Load a flow network, by its name in `FLOW_NETWORKS`, in evaluation mode.

    Raises:
        CheckpointError: the tensors do not fit.
    """
    network = FLOW_NETWORKS[name]()
    fill(network, tensors, path)
    return network
