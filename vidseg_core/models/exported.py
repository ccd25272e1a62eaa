"""Segmentation networks of others as programs of `torch.export.save` (.pt2)."""

from __future__ import annotations

import hashlib
import inspect
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidseg_core.errors import CheckpointError
from vidseg_core.models.card_file import read_card_file
from vidseg_core.models.exported_archive import checked_archive
from vidseg_core.models.study import ASSUMED_MULTIPLE, CLASSES_LINE, STATISTICS_LINE, Study
from vidseg_core.networks.graph import Imported

ARCHITECTURE = "exported"
FORM = "an exported program"
LOADER = f"{__name__}:load"
_IDS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)


def study(path: Path) -> Study:
    """Find out what an exported program is, by its file, the card beside it and running it once.

    Raises:
        CheckpointError: the file is damaged or holds code, or is no per-frame segmentation network of pictures with
            three channels.
        ClassTableError: the card's class table is malformed.
    """
    found = Study(path, read_card_file(path))
    program = _program(path)
    picture = _picture(path, program)
    _input_facts(found, picture, _multiple(program))
    outputs = _output_facts(found, program)
    if outputs is None or "input.mean" not in found.facts:
        if found.beside.classes is None:
            found.missing.append(CLASSES_LINE.format("its classes"))
        return found
    network = load(path, outputs, found.value("input.layout"))
    size = found.tried_size()
    trial = found.try_out(network, size)
    return found.finish(ARCHITECTURE, network, trial, size, " and ".join(outputs) or "its output", None, "")


def load(path: str | Path, outputs: Sequence[str], input_layout: str = "nchw") -> Imported:
    """Load a program.

    Args:
        outputs: names or places of the tensors that are taken; empty where it gives one tensor.

    Raises:
        CheckpointError: see `study`.
    """
    path = Path(path)
    program = _program(path)
    # What it checks of its inputs is Python text, which would be compiled here.
    unchecked = {"check_guards": False} if "check_guards" in inspect.signature(program.module).parameters else {}
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return Imported(
        _Program(program.module(**unchecked)), path, checksum, outputs=tuple(outputs), loader=LOADER, form=FORM,
        input_layout=input_layout,
    )  # fmt: skip


class _Program(nn.Module):
    """A program; it was exported in evaluation mode, and has no other."""

    def __init__(self, program: nn.Module):
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> _Program:
        return self

    def forward(self, image: Tensor) -> Any:
        return self.program(image)


def _program(path: Path) -> Any:
    content = checked_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(content))
    except Exception as error:  # whatever PyTorch raises about what is in the file
        raise CheckpointError(f"{path}: cannot be loaded: {' '.join(str(error).split())[:400]}") from error
    if getattr(program, "_guards_code", None):
        program._guards_code = []
    return program


def _picture(path: Path, program: Any) -> tuple[int | None, ...]:
    """The shape of the picture, which has to be the only input; None for free sides."""
    names = program.graph_signature.user_inputs
    tensors = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    shapes = [_shape(tensors.get(name)) for name in names]
    if len(names) != 1:
        raise CheckpointError(
            f"{path}: expected one input, a picture, found {len(names)}: "
            + ", ".join(f"{name} {_written(shape)}" for name, shape in zip(names, shapes, strict=True))
        )
    [shape] = shapes
    if shape is None or len(shape) != 4 or tensors[names[0]].dtype != torch.float32:
        raise CheckpointError(f"{path}: expected a picture of four dimensions as float32, found {_written(shape)}")
    if 3 not in (shape[1], shape[3]):
        raise CheckpointError(f"{path}: expected a picture of 3 channels, found {_written(shape)}")
    return shape


def _shape(value: Any) -> tuple[int | None, ...] | None:
    return tuple(one if isinstance(one, int) else None for one in value.shape) if isinstance(value, Tensor) else None


def _written(shape: tuple[int | None, ...] | None) -> str:
    return "no tensor" if shape is None else "[" + ", ".join("?" if one is None else str(one) for one in shape) + "]"


def _multiple(program: Any) -> int | None:
    """What free sides of the picture are multiples of, as they were exported (`32 * s0`); None for anything."""
    [name] = program.graph_signature.user_inputs
    [shape] = [node.meta["val"].shape for node in program.graph.nodes if node.name == name]
    factors = [int(side.node.expr.as_coeff_Mul()[0]) for side in shape if not isinstance(side, int)]
    found = math.lcm(*(max(1, factor) for factor in factors))
    return found if found > 1 else None


def _input_facts(found: Study, shape: tuple[int | None, ...], multiple: int | None) -> None:
    found.learn("input.layout", "nchw" if shape[1] == 3 else "nhwc", "by its three channels")
    found.learn("input.colours", "rgb", "assumed")
    if "mean" in found.beside.input:
        found.learn("input.mean", None, "")
        found.learn("input.std", None, "")
    else:
        found.missing.append(f"{STATISTICS_LINE}  # ImageNet's; of values 0..255, as it was trained")
    sides = (shape[2], shape[3]) if found.value("input.layout") == "nchw" else (shape[1], shape[2])
    found.learn_sizes(sides)
    if None not in sides:
        found.learn("input.multiple", 1, "of fixed size")
    elif multiple is not None:
        found.learn("input.multiple", multiple, "by its input's dimensions")
    else:
        found.learn("input.multiple", ASSUMED_MULTIPLE, "assumed: all families take it")
    found.learn("input.fit", "stretch", "assumed")
    found.learn("input.resize", "bilinear", "assumed")


def _output_facts(found: Study, program: Any) -> tuple[str, ...] | None:
    """Choose the output, by its name or place; None where the card has to name one."""
    tensors = _outputs(program)
    given = found.beside.output
    described = ", ".join(f"{name or 'its output'} {_written(_shape(one))}" for name, (one, _) in tensors.items())
    maps = [name for name, (one, _) in tensors.items() if _is_map(one)]
    found.learn("output.corners", "half_pixel", "assumed: what most families are upsampled by")
    found.learn("output.threshold", 0.5, "default")
    if pair := _queries(tensors, given):
        found.learn("output.kind", "queries", "by its two outputs")
        found.learn("output.mask_size", None, "masks as they are")
        return pair
    if "name" in given:
        maps = [name for name in maps if name == str(given["name"])]
        if not maps:
            raise CheckpointError(
                f"{found.beside.path}: output: name: expected one of {described}, got {given['name']!r}"
            )
    elif not maps:
        raise CheckpointError(
            f"{found.path}: expected an output of scores (B x C x h x w) or class ids (B x h x w), found {described}"
        )
    if len(maps) > 1:
        found.missing.append(f"output: {{name: {maps[0]}}}  # or another one of {described}")
        return None
    [name] = maps
    tensor, maker = tensors[name]
    found.facts["output.name"] = name or None, "card" if "name" in given else "its only one"
    if tensor.dtype in _IDS:
        found.learn("output.kind", "labels", f"by its type, {str(tensor.dtype).removeprefix('torch.')}")
    elif "softmax" in maker or "sigmoid" in maker:
        found.learn("output.kind", "probabilities", f"its last operation is {maker}")
    else:
        found.learn("output.kind", "logits", f"assumed: its last operation is {maker}")
    return (name,) if name else ()


def _outputs(program: Any) -> dict[str, tuple[Tensor, str]]:
    """What it gives, by its name or its place, or "" for one tensor; and the operation that makes it."""
    nodes = {node.name: node for node in program.graph.nodes}
    made = [nodes.get(name) for name in program.graph_signature.user_outputs]
    spec = program.call_spec.out_spec
    leaf = spec is None or (spec.num_leaves == 1 and spec.num_children == 0)
    context = [str(one) for one in spec.context] if not leaf and isinstance(spec.context, list) else []
    if not context and not leaf and isinstance(spec.context, list | tuple):
        context = [str(one) for one in spec.context]
    names = context if len(context) == len(made) else [str(i) for i in range(len(made))]
    if leaf:
        names = [""]
    return {
        name: (node.meta["val"], str(node.target).rpartition("aten.")[2])
        for name, node in zip(names, made, strict=True)
        if node is not None and isinstance(node.meta.get("val"), Tensor)
    }


def _queries(tensors: dict[str, tuple[Tensor, str]], given: Any) -> tuple[str, str] | None:
    """Names of the masks and the classes of queries, where there is one such pair."""
    if given.get("kind", "queries") != "queries":
        return None
    pairs = [
        (masks, classes)
        for classes, (b, _) in tensors.items()
        for masks, (a, _) in tensors.items()
        if b.ndim == 3 and a.ndim == 4 and a.shape[1] == b.shape[1] and a.is_floating_point()
        if given.get("name", masks) == masks and given.get("class_queries", classes) == classes
    ]
    return pairs[0] if len(pairs) == 1 else None


def _is_map(value: Tensor) -> bool:
    return value.ndim in (3, 4) if value.dtype in _IDS else value.is_floating_point() and value.ndim == 4
