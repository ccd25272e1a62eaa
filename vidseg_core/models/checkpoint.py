"""Networks of one kind from a weight file, beginnings for training, and conversion to this project's own format.

Our own files are safetensors. Their metadata says which network it is (`architecture`), which classes it knows, how
images are normalised and how it was trained. A public file is recognised by its keys.

Nothing is ever loaded partly: a file of another kind, truncated, with wrong shapes or with values that are not finite
raises `CheckpointError`, which names the file, what was expected and what was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn

from vidseg_core.classes import ClassTable
from vidseg_core.errors import CheckpointError
from vidseg_core.models.architectures import (
    FLOW,
    IMAGENET,
    LITE0,
    REFINE,
    REFINEMENT,
    RESNET18,
    SWIFTNETS,
    SWNET_SEQ,
    Architecture,
    expect,
    names_with,
)
from vidseg_core.models.card import card_of, check_classes
from vidseg_core.models.files import read_classes, read_file, read_metadata, read_tensors, save_weights
from vidseg_core.models.loaders import fill
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.swiftnet import Lite0Backbone, ResNet18Backbone, SwiftNet


def load_swnet_seq(path: str | Path) -> tuple[FlowLight | None, GuidedRefine]:
    """Load flow network and guided refinement of SwNet-seq (public layout or ours), in evaluation mode.

    The flow network is None for a file of ours whose refinement was trained on another flow.

    Raises:
        CheckpointError: missing, damaged, or of another architecture.
    """
    networks = _load(path, SWNET_SEQ, REFINE)
    return cast("FlowLight | None", networks.get(FLOW)), cast(GuidedRefine, networks[REFINEMENT])


def _load(path: str | Path, *names: str) -> dict[str, nn.Module]:
    path = Path(path)
    tensors = read_tensors(path)
    return expect(path, tensors, *names).networks(path, tensors)


def load_resnet18_encoder(path: str | Path, swiftnet: SwiftNet) -> None:
    """Load ImageNet weights in torchvision's `resnet18` layout into the encoder of `swiftnet`, not the classifier.

    Raises:
        CheckpointError: missing, damaged, or of another architecture.
    """
    backbone = swiftnet.backbone
    if not isinstance(backbone, ResNet18Backbone):
        raise CheckpointError(f"{path}: expected a SwiftNet on ResNet-18 to load into, got one on another encoder")
    stem = nn.ModuleDict(
        {name: getattr(backbone, name) for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")}
    )
    _load_encoder(Path(path), stem, RESNET18, ("fc.",))


def load_lite0_encoder(path: str | Path, swiftnet: SwiftNet) -> None:
    """Load ImageNet weights in EfficientNet-Lite0's public layout into the encoder of `swiftnet`, not the classifier.

    Raises:
        CheckpointError: missing, damaged, or of another architecture.
    """
    backbone = swiftnet.backbone
    if not isinstance(backbone, Lite0Backbone):
        raise CheckpointError(
            f"{path}: expected a SwiftNet on EfficientNet-Lite0 to load into, got one on another encoder"
        )
    _load_encoder(Path(path), backbone.encoder, LITE0, ("_conv_head.", "_bn1.", "_fc."))


def _load_encoder(path: Path, encoder: nn.Module, architecture: str, classifier: tuple[str, ...]) -> None:
    """Fill an encoder from a classifier's file, without the keys that begin with one of `classifier`."""
    tensors = read_tensors(path)
    expect(path, tensors, architecture)
    given = {key: value for key, value in tensors.items() if not key.startswith(classifier)}
    counters = {key: value for key, value in encoder.state_dict().items() if key.endswith("num_batches_tracked")}
    mode = encoder.training
    fill(encoder, counters | given, path)  # old torchvision files have no counters
    encoder.train(mode)


DECODER = ("backbone.spp.", "backbone.upsample.", "logits.")  # of SwiftNet, on whichever encoder
_ENCODER_LOADERS = {"r18": load_resnet18_encoder, "lite0": load_lite0_encoder}


def initialise(path: str | Path, swiftnet: SwiftNet, classes: ClassTable) -> tuple[str, ...]:
    """Start a training from `path`: ImageNet weights for the encoder, or another SwiftNet on the same encoder.

    The last layer of a SwiftNet is taken over only where the file tells the same classes in the same order. Where its
    decoder has another width, only its encoder is taken over.

    Returns:
        The notices that the metadata of the trained network must hold: whose work it began from, and its licence.

    Raises:
        CheckpointError: missing, damaged, of another architecture, or a SwiftNet whose pictures have another mean or
            deviation than those of the training.
    """
    path = Path(path)
    tensors = read_tensors(path)
    kind = swiftnet.encoder
    imagenet = IMAGENET[kind]
    if expect(path, tensors, imagenet.name, SWIFTNETS[kind].name) is imagenet:
        _ENCODER_LOADERS[kind](path, swiftnet)
        return () if imagenet.notice is None else (imagenet.notice,)
    metadata = read_metadata(path)
    _check_normalisation(path, SWIFTNETS[kind], metadata)
    stored, own = read_classes(path), swiftnet.state_dict()
    if stored is None or stored.names != classes.names:
        tensors |= {key: value for key, value in own.items() if key.startswith("logits.conv.")}
    width = "logits.norm.weight"
    if width in tensors and tensors[width].shape != own[width].shape:
        tensors |= {key: value for key, value in own.items() if key.startswith(DECODER)}
    mode = swiftnet.training
    fill(swiftnet, tensors, path)
    swiftnet.train(mode)
    return tuple(metadata.get("notices", ()))


def _check_normalisation(path: Path, architecture: Architecture, metadata: Mapping[str, Any]) -> None:
    """Refuse a network that was trained on other inputs: its first layer fits the statistics it has seen."""
    given = architecture.input
    try:
        card = card_of(
            architecture.name, metadata, None, input=given, output=architecture.output, registered_classes=None,
            checksum="",
        )  # fmt: skip
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if (card.input.mean, card.input.std) != (given.mean, given.std):
        raise CheckpointError(
            f"{path}: expected a network for pictures normalised by mean {given.mean} and deviation {given.std}, as "
            f"the training normalises them, found one for mean {card.input.mean} and deviation {card.input.std}"
        )


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
    file = read_file(source)
    architecture = expect(source, file.tensors, *names_with())
    networks = architecture.networks(source, file.tensors)
    metadata = file.metadata | dict(known or {}) | {"architecture": architecture.name}
    if not architecture.input.is_raw:
        metadata.setdefault("normalisation", architecture.input.normalisation())
    if classes is not None:
        for net in networks.values():
            check_classes(source, getattr(net, "num_classes", len(classes)), classes)
        metadata["classes"] = classes.to_dict()
    tensors = {
        architecture.prefixes[role] + key: value
        for role, network in networks.items()
        for key, value in network.state_dict().items()
    }
    save_weights(target, tensors, metadata)
    return architecture.name
