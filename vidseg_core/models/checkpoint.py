"""Weight files: the layouts that public weights come in, and this project's own.

Our own files are safetensors. Their metadata says which network it is (`architecture`), which classes it knows, how
images are normalised and how it was trained. A public file is recognised by its keys.

Nothing is ever loaded partly: a file of another kind, truncated, with wrong shapes or with values that are not finite
raises `CheckpointError`, which names the file, what was expected and what was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vidseg_core.classes import MAX_CLASSES, ClassTable
from vidseg_core.errors import CheckpointError
from vidseg_core.models.files import read_classes, read_metadata, read_tensors, save_weights
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.networks.flownet_s import FlowNet2S, UpstreamFlowNetS
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.swiftnet import SwiftNet

SWIFTNET, SWNET_SEQ, REFINE = "swiftnet-r18", "swnet-seq", "guided-refine"
FLOW_LIGHT, FLOWNET_S, FLOWNET2_S = "light", "flownet_s", "flownet2_s"  # as in `EngineConfig.flow`
RESNET18 = "resnet18-imagenet"
FLOW_NETWORKS = {FLOW_LIGHT: FlowLight, FLOWNET_S: UpstreamFlowNetS, FLOWNET2_S: FlowNet2S}


def identify(tensors: Mapping[str, Tensor]) -> str | None:
    """Which network a state dict belongs to, by its keys; None for one that is not known."""
    marks = {
        "logits.conv.bias": SWIFTNET,
        "refine.guide.guide_conv.0.weight": SWNET_SEQ if "flow.toflow.weight" in tensors else REFINE,
        "toflow.weight": FLOW_LIGHT,
        "upsampled_flow6_to_5.bias": FLOWNET_S,
        "upsampled_flow6_to_5.weight": FLOWNET2_S,
        "fc.weight": RESNET18,
        "layer4.1.bn2.weight": RESNET18,
    }
    return next((architecture for key, architecture in marks.items() if key in tensors), None)


def _expect(path: Path, tensors: Mapping[str, Tensor], *architectures: str) -> str:
    found = identify(tensors)
    if found not in architectures:
        few = ", ".join(sorted(tensors)[:4])
        raise CheckpointError(
            f"{path}: expected weights of {' or '.join(architectures)}, found {found or 'an unknown network'} "
            f"({len(tensors)} tensors: {few}, ...)"
        )
    return found


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy `tensors` into `module`, all of them or none."""
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
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {key}: expected finite values, found NaN or infinity")
    module.load_state_dict(tensors)
    module.eval()


def _classes_of(path: Path, tensors: Mapping[str, Tensor], key: str) -> int:
    value = tensors.get(key)
    if value is None or value.ndim != 1 or not 1 <= len(value) <= MAX_CLASSES:
        found = "nothing" if value is None else f"shape {tuple(value.shape)}"
        raise CheckpointError(
            f"{path}: {key}: expected one value for each of 1 to {MAX_CLASSES} classes, found {found}"
        )
    return len(value)


def load_swiftnet(path: str | Path) -> SwiftNet:
    """SwiftNet-R18 with the weights of `path` (public layout or ours), in evaluation mode.

    Raises:
        CheckpointError
    """
    path = Path(path)
    tensors = read_tensors(path)
    _expect(path, tensors, SWIFTNET)
    net = SwiftNet(_classes_of(path, tensors, "logits.conv.bias"))
    _fill(net, tensors, path)
    return net


def load_swnet_seq(path: str | Path) -> tuple[FlowLight | None, GuidedRefine]:
    """Flow network and guided refinement of SwNet-seq (public layout or ours), in evaluation mode.

    The flow network is None for a file of ours whose refinement was trained on another flow.

    Raises:
        CheckpointError
    """
    path = Path(path)
    tensors = read_tensors(path)
    architecture = _expect(path, tensors, SWNET_SEQ, REFINE)
    flow_tensors = {key[5:]: value for key, value in tensors.items() if key.startswith("flow.")}
    refine_tensors = {key[7:]: value for key, value in tensors.items() if key.startswith("refine.")}
    if stray := sorted(key for key in tensors if not key.startswith(("flow.", "refine."))):
        raise CheckpointError(f"{path}: unexpected keys {stray}")
    num_classes = _classes_of(path, refine_tensors, "intra_net.6.bias")
    guide_input = refine_tensors["guide.guide_conv.0.weight"]
    refine = GuidedRefine(num_classes, edge=guide_input.ndim == 4 and guide_input.shape[1] == num_classes + 1)
    _fill(refine, refine_tensors, path)
    if architecture == REFINE:
        return None, refine
    flow = FlowLight()
    _fill(flow, flow_tensors, path)
    return flow, refine


def load_flownet(path: str | Path) -> UpstreamFlowNetS | FlowNet2S:
    """FlowNetS in whichever of its two layouts `path` is, told apart by its keys, in evaluation mode.

    Raises:
        CheckpointError
    """
    return _load_flow(path, FLOWNET_S, FLOWNET2_S)


def load_flow_light(path: str | Path) -> FlowLight:
    """FlowLight alone, or the one in a SwNet-seq file, in evaluation mode.

    Raises:
        CheckpointError
    """
    if identify(read_tensors(path)) == SWNET_SEQ:
        return load_swnet_seq(path)[0]
    return _load_flow(path, FLOW_LIGHT)


def _load_flow(path: str | Path, *architectures: str) -> nn.Module:
    path = Path(path)
    tensors = read_tensors(path)
    net = FLOW_NETWORKS[_expect(path, tensors, *architectures)]()
    _fill(net, tensors, path)
    return net


def load_resnet18_encoder(path: str | Path, swiftnet: SwiftNet) -> None:
    """ImageNet weights in torchvision's `resnet18` layout into the encoder of `swiftnet`; the classifier is left out.

    Raises:
        CheckpointError
    """
    path = Path(path)
    tensors = read_tensors(path)
    _expect(path, tensors, RESNET18)
    given = {key: value for key, value in tensors.items() if not key.startswith("fc.")}
    backbone = swiftnet.backbone
    stem = nn.ModuleDict(
        {name: getattr(backbone, name) for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")}
    )
    counters = {key: value for key, value in stem.state_dict().items() if key.endswith("num_batches_tracked")}
    mode = swiftnet.training
    _fill(stem, counters | given, path)  # old torchvision files have no counters
    swiftnet.train(mode)


def initialise(path: str | Path, swiftnet: SwiftNet, classes: ClassTable) -> None:
    """Start a training from `path`: ImageNet weights for the encoder, or another SwiftNet.

    The last layer of a SwiftNet is taken over only where the file tells the same classes in the same order.

    Raises:
        CheckpointError
    """
    path = Path(path)
    tensors = read_tensors(path)
    if _expect(path, tensors, RESNET18, SWIFTNET) == RESNET18:
        load_resnet18_encoder(path, swiftnet)
        return
    stored = read_classes(path)
    if stored is None or stored.names != classes.names:
        tensors |= {key: value for key, value in swiftnet.state_dict().items() if key.startswith("logits.conv.")}
    mode = swiftnet.training
    _fill(swiftnet, tensors, path)
    swiftnet.train(mode)


def convert(
    source: str | Path,
    target: str | Path,
    classes: ClassTable | None = None,
    known: Mapping[str, object] | None = None,
) -> str:
    """Write any known weight file as one of our own and return its architecture.

    Args:
        known: metadata to put into it besides what is in `source`, JSON-safe.

    Raises:
        CheckpointError: not a known file, or its number of classes is not that of `classes`.
    """
    source = Path(source)
    architecture = identify(read_tensors(source))
    if architecture == SWIFTNET:
        parts = {"": load_swiftnet(source)}
    elif architecture in (SWNET_SEQ, REFINE):
        flow, refine = load_swnet_seq(source)
        parts = {"refine.": refine} | ({} if flow is None else {"flow.": flow})
    elif architecture in FLOW_NETWORKS:
        parts = {"": _load_flow(source, architecture)}
    else:
        architectures = ", ".join((SWIFTNET, SWNET_SEQ, REFINE, *FLOW_NETWORKS))
        raise CheckpointError(
            f"{source}: expected weights of one of {architectures}, found {architecture or 'an unknown network'}"
        )
    metadata = read_metadata(source) | dict(known or {}) | {"architecture": architecture}
    if classes is not None:
        for net in parts.values():
            check_classes(source, getattr(net, "num_classes", len(classes)), classes)
        metadata["classes"] = classes.to_dict()
    tensors = {prefix + key: value for prefix, net in parts.items() for key, value in net.state_dict().items()}
    save_weights(target, tensors, metadata)
    return architecture


def check_classes(path: str | Path, num_classes: int, classes: ClassTable) -> None:
    """Raises CheckpointError unless a network with `num_classes` outputs fits `classes`."""
    if num_classes != len(classes):
        raise CheckpointError(
            f"{path}: expected {len(classes)} classes as in class table {classes.name!r}, found {num_classes}"
        )
