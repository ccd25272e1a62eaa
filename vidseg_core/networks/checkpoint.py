"""Weight files: the layouts that public weights come in, and this project's own.

Our own files are safetensors. Their metadata says which network it is (`architecture`), which classes it knows, how
images are normalised and how it was trained. A public file is recognised by its keys.

Nothing is ever loaded partly: a file of another kind, truncated, with wrong shapes or with values that are not finite
raises `CheckpointError`, which names the file, what was expected and what was found.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vidseg_core.classes import MAX_CLASSES, ClassTable
from vidseg_core.errors import CheckpointError
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.networks.flownet_s import FlowNet2S, UpstreamFlowNetS
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB
from vidseg_core.networks.swiftnet import SwiftNet

FORMAT = "vidseg-1"
SWIFTNET, SWNET_SEQ, REFINE = "swiftnet-r18", "swnet-seq", "guided-refine"
FLOW_LIGHT, FLOWNET_S, FLOWNET2_S = "light", "flownet_s", "flownet2_s"  # as in `EngineConfig.flow`
RESNET18 = "resnet18-imagenet"
FLOW_NETWORKS = {FLOW_LIGHT: FlowLight, FLOWNET_S: UpstreamFlowNetS, FLOWNET2_S: FlowNet2S}

# What `torch.load` raises, besides RuntimeError, for files that are damaged or no weight files at all.
UNREADABLE = (
    RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    BadZipFile, pickle.UnpicklingError, struct.error,
)  # fmt: skip

# In public SwNet-seq files these eleven shifts are stored as kernels; ours are written out in `guided_sum`.
SHIFT_KERNELS = "grm.ideal_dk.filter_copy_s"


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a weight file by its key, on the CPU, as stored.

    The two dictionaries of a public SwNet-seq file come with the prefixes `refine.` and `flow.`, as in our own.

    Raises:
        CheckpointError: missing, truncated, not a weight file, or holding something other than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    if path.suffix == ".safetensors":
        with _open_safetensors(path) as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: expected a PyTorch weight file; it is truncated or of another kind ({reason})"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected a dictionary of tensors, found {type(content).__name__}")
    if "state_dict_of" in content:
        parts = {"refine.": content.get("state_dict"), "flow.": content["state_dict_of"]}
    else:
        parts = {"": content.get("state_dict", content)}
    tensors = {}
    for prefix, part in parts.items():
        if not isinstance(part, Mapping) or not all(isinstance(value, Tensor) for value in part.values()):
            raise CheckpointError(f"{path}: expected a dictionary of tensors, found something else in it")
        tensors.update({prefix + str(key): value for key, value in part.items()})
    if "refine." in parts:
        tensors = _public_refine_keys(path, tensors)
    return tensors


def _open_safetensors(path: Path):
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: expected a safetensors file; it is truncated or of another kind ({error})"
        ) from error


def _public_refine_keys(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    kernels = tensors.pop(f"refine.{SHIFT_KERNELS}", None)
    if kernels is not None:
        taps = kernels.reshape(9, 9) if kernels.numel() == 81 else None
        expected = torch.zeros(9, 9)
        expected[range(8), [0, 1, 2, 3, 5, 6, 7, 8]] = 1
        if taps is None or not torch.equal(taps.float(), expected):
            raise CheckpointError(f"{path}: {SHIFT_KERNELS}: expected the eight one-pixel shifts and a zero kernel")
    renamed = {"refine.grm.intra_net.intra_net.": "refine.intra_net.", "refine.grm.guide.": "refine.guide."}
    result = {}
    for key, value in tensors.items():
        for old, new in renamed.items():
            if key.startswith(old):
                key = new + key[len(old) :]
        result[key] = value
    return result


def read_metadata(path: str | Path) -> dict:
    """What one of our own files says about itself; empty for other files.

    Returns:
        `architecture`; where known `classes` (as `ClassTable.to_dict`), `normalisation`, `training`, ...

    Raises:
        CheckpointError: a safetensors file that is truncated or not ours.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return {}
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    with _open_safetensors(path) as file:
        stored = file.metadata() or {}
    if stored.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected metadata with format {FORMAT!r}, found {stored.get('format')!r}")
    try:
        return {key: json.loads(value) for key, value in stored.items() if key != "format"}
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: metadata is not JSON: {error}") from error


def read_classes(path: str | Path) -> ClassTable | None:
    """The class table in one of our own files; None where the file does not tell."""
    table = read_metadata(path).get("classes")
    return None if table is None else ClassTable.from_dict(table, path)


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]) -> None:
    """Write a file of our own; it takes its name only when it is complete.

    Args:
        tensors: a state dict.
        metadata: `architecture` and whatever else shall be known, JSON-safe.
    """
    path = Path(path)
    unfinished = path.with_name(path.name + ".part")
    stored = {"format": FORMAT} | {key: json.dumps(value) for key, value in metadata.items()}
    stored.setdefault("normalisation", json.dumps({"mean_rgb": MEAN_RGB, "std_rgb": STD_RGB}))
    # `save_file` would make a file that only its owner may read.
    unfinished.write_bytes(save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, stored))
    unfinished.replace(path)


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
