"""Read an ONNX file's own description: its inputs and outputs, what they are made of, and its metadata."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseg_core.errors import CheckpointError

if TYPE_CHECKING:
    import onnx

Dimensions = tuple[int | None, ...]
_KINDS = {
    1: "float32", 10: "float16", 11: "float64", 16: "bfloat16", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16",
    6: "int32", 7: "int64", 9: "bool",
}  # fmt: skip
_FLOATS = (1, 10, 11, 16)
# Dimensions of channels, as axes are written.
_FIRST, _LAST = (1, -3), (3, -1)
# What stands between an argmax and an output without changing which class it is.
_TRANSPARENT = ("Cast", "Squeeze", "Unsqueeze", "Identity", "Reshape")
# What a file of weights may have behind the last one.
_PADDING = 1 << 12
# Key of the metadata of files that `vidseg weights export` has written: JSON with classes, input, output, and the name
# of the scores at the network's own stride.
EXPORTED = "vidseg"
_CORNERS = {"half_pixel": "half_pixel", "pytorch_half_pixel": "half_pixel", "align_corners": "aligned"}


@dataclass(frozen=True)
class Port:
    """An input or an output.

    Attributes:
        name: of the tensor.
        type: of its numbers, as NumPy calls it; what is none of the common ones by its number in ONNX.
        shape: its dimensions; None for one that is not fixed, empty for an unknown rank.
        made_by: for an output, the operation that makes it (Sigmoid, Softmax, Conv, ...); empty for an input.
    """

    name: str
    type: str
    shape: Dimensions
    made_by: str = ""


@dataclass(frozen=True)
class Cut:
    """The scores in front of an argmax at the end of a graph.

    Attributes:
        tensor: their name.
        corners: where an upsampling has been cut off as well, how that takes corners: half_pixel or aligned; None where
            there was none.
    """

    tensor: str
    corners: str | None


@dataclass(frozen=True)
class OnnxGraph:
    """An ONNX file's description. Weights are not read.

    Attributes:
        path: of the file.
        checksum: SHA-256 of the file and of the files with its data.
        inputs, outputs: see `Port`.
        cuts: by the name of an output of class ids, the scores that it was made of.
        metadata: texts by their keys.
    """

    path: Path
    checksum: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    cuts: Mapping[str, Cut]
    metadata: Mapping[str, str]

    def dictionary(self, key: str) -> dict[Any, Any]:
        """Return a metadata entry that is a Python dictionary as text; empty where there is none."""
        try:
            value = ast.literal_eval(self.metadata.get(key, "{}"))
        except (ValueError, SyntaxError) as error:
            raise CheckpointError(f"{self.path}: metadata {key!r} cannot be read: {error}") from error
        return value if isinstance(value, dict) else {}


def read_graph(path: Path) -> OnnxGraph:
    """Read the description of an ONNX file.

    Raises:
        CheckpointError: the package `onnx` is not installed; the file is damaged, of too new an opset or no ONNX file;
            a file with its data is not there, or of another size.
    """
    try:
        import onnx
    except ImportError as error:
        raise CheckpointError(
            f"{path}: reading ONNX files needs the package onnx ({error}): pip install 'vidseg_ros[onnx]'"
        ) from error
    from google.protobuf.message import DecodeError

    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise CheckpointError(f"{path}: expected an ONNX file; it is truncated or of another kind ({error})") from error
    graph = model.graph
    if not graph.node or not graph.output:
        raise CheckpointError(f"{path}: expected an ONNX file with a graph; it is truncated or of another kind")
    newest = onnx.defs.onnx_opset_version()
    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    if opset > newest:
        raise CheckpointError(
            f"{path}: expected opset {newest} at most, as the package onnx {onnx.__version__} knows it, found {opset}: "
            f"export it again with `opset_version={newest}` or less"
        )
    checksum = hashlib.sha256(content)
    for file in _data_files(path, graph):
        with file.open("rb") as data:
            while block := data.read(1 << 24):
                checksum.update(block)
    weights = {one.name for one in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    outputs = tuple(_port(one, makers) for one in graph.output)
    cuts = {one.name: cut for one in outputs if (cut := _cut(one.name, makers)) is not None}
    metadata = {one.key: one.value for one in model.metadata_props}
    if (own := exported(metadata)) and own["scores"] in makers:
        cuts[outputs[0].name] = Cut(own["scores"], own["output"]["corners"])
    return OnnxGraph(
        path,
        checksum.hexdigest(),
        tuple(_port(one, {}) for one in graph.input if one.name not in weights),
        outputs,
        cuts,
        metadata,
    )


def exported(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what `vidseg weights export` has written about a file; empty for files of others."""
    try:
        found = json.loads(metadata.get(EXPORTED, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("version") == 1 else {}


def _data_files(path: Path, graph: onnx.GraphProto) -> list[Path]:
    """The files beside this one that hold its weights; all are there, and as long as they have to be."""
    needed: dict[str, int] = {}
    for tensor in graph.initializer:
        entries = {one.key: one.value for one in tensor.external_data}
        if location := entries.get("location"):
            end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
            needed[location] = max(needed.get(location, 0), end)
    files = []
    for location, end in sorted(needed.items()):
        file = path.parent / location
        if Path(location).is_absolute() or ".." in Path(location).parts:
            raise CheckpointError(f"{path}: expected its data in a file beside it, found {location!r}")
        if not file.is_file():
            raise CheckpointError(f"{path}: its weights are in {location}, which is not beside it")
        if not end <= file.stat().st_size <= end + _PADDING:
            raise CheckpointError(
                f"{file}: expected {end} bytes of weights for {path.name}, found {file.stat().st_size}; "
                "it is truncated or belongs to another network"
            )
        files.append(file)
    return files


def _port(value: onnx.ValueInfoProto, makers: Mapping[str, onnx.NodeProto]) -> Port:
    tensor = value.type.tensor_type
    shape = tuple(one.dim_value or None for one in tensor.shape.dim)
    kind = _KINDS.get(tensor.elem_type, f"type {tensor.elem_type}")
    maker = next(_chain(value.name, makers), None)
    return Port(value.name, kind, shape, "" if maker is None else maker.op_type)


def _chain(name: str, makers: Mapping[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The node that makes a tensor, behind those that change its form only, and those that make its first input."""
    while (node := makers.get(name)) is not None:
        if node.op_type not in _TRANSPARENT:
            yield node
        if not node.input:
            return
        name = node.input[0]


def _cut(name: str, makers: Mapping[str, onnx.NodeProto]) -> Cut | None:
    """Find the scores in front of an argmax over channels, which may come last, and of what keeps their order."""
    last = next(_chain(name, makers), None)
    if last is None or last.op_type != "ArgMax":
        return None
    axis, scores = _attribute(last, "axis", 0), last.input[0]
    channels = next((axes for axes in (_FIRST, _LAST) if axis in axes), None)
    while (node := makers.get(scores)) is not None and channels is not None:
        if node.op_type == "Transpose" and channels is _LAST and _attribute(node, "perm", None) == [0, 2, 3, 1]:
            channels = _FIRST
        elif not _keeps_order(node, channels):
            break
        scores = node.input[0]
    if channels is not _FIRST:
        return None
    resize = makers.get(scores)
    if resize is not None and resize.op_type == "Resize" and _attribute(resize, "mode", b"nearest") == b"linear":
        corners = _CORNERS.get(_attribute(resize, "coordinate_transformation_mode", b"half_pixel").decode())
        if corners is not None and not _attribute(resize, "antialias", 0):
            return Cut(resize.input[0], corners)
    return Cut(scores, None)


def _keeps_order(node: onnx.NodeProto, channels: tuple[int, int]) -> bool:
    """Return whether the largest channel of what a node gives is the largest of what it is given."""
    if node.op_type in ("Softmax", "LogSoftmax"):
        return _attribute(node, "axis", -1) in channels
    return node.op_type in ("Sigmoid", "Identity") or (node.op_type == "Cast" and _attribute(node, "to", 0) in _FLOATS)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    import onnx

    return next((onnx.helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)
