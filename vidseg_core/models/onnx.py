"""Segmentation networks of others in ONNX files: from the file and the card beside it to a `Model`.

What the file tells is taken from it, then what the card says; what is unknown and would change the labels is an error
that names the line to add. What is assumed is told (`vidseg weights inspect`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidseg_core.backends.probe import Trial, probe
from vidseg_core.classes import MAX_CLASSES, ClassTable
from vidseg_core.errors import CheckpointError
from vidseg_core.models.card import InputCard, ModelCard, OutputCard
from vidseg_core.models.card_file import CardFile, read_card_file, table_of
from vidseg_core.models.onnx_graph import Cut, OnnxGraph, Port, read_graph
from vidseg_core.networks.graph import Graph

ARCHITECTURE = "onnx"
PICTURES = ("float32", "float16", "uint8")
IDS = ("uint8", "int32", "int64")
# Sizes that every family of networks met so far takes; one that was not made for this project's rule says otherwise.
ASSUMED_MULTIPLE = 32
TRIED_SIDE = 256
_CLASSES = "classes: [road, car, ...]  # the names of {} in order, or a class table"
_STATISTICS = "input: {mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375]}"


@dataclass
class Study:
    """Collect the known properties of a network of others.

    Attributes:
        path: of the file.
        facts: value and where it comes from, by the name in the card (`input.mean`, `output.kind`, `classes`, ...).
        missing: for what is not known and matters, the line that the card beside the file should have.
        card: None where something is missing.
        graph: to be executed; None where something is missing that its trial needs.
        trial: what running it once has shown; None where it was not run.
    """

    path: Path
    card_path: Path
    facts: dict[str, tuple[Any, str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    card: ModelCard | None = None
    graph: Graph | None = None
    trial: Trial | None = None

    def value(self, name: str) -> Any:
        return self.facts[name][0]

    def fail(self) -> CheckpointError:
        """Make the error that says what is missing."""
        lines = "; ".join(f"`{line}`" for line in self.missing)
        return CheckpointError(
            f"{self.path}: does not tell all that is needed; add to {self.card_path.name} beside it: {lines}"
        )


def study(path: Path) -> Study:
    """Find out what a network is, by its file, the card beside it and running it once.

    Raises:
        CheckpointError: the file is damaged, or no per-frame segmentation network of pictures with three channels.
        ClassTableError: the card's class table is malformed.
    """
    graph, card = read_graph(path), read_card_file(path)
    found = Study(path, card.path)
    picture = _picture(graph)
    _input_facts(found, graph, card, picture)
    output, cut = _output_facts(found, graph, card)
    if output is None or "input.mean" not in found.facts:
        if card.classes is None and not graph.metadata.get("names"):
            found.missing.append(_CLASSES.format("its classes"))
        return found
    taken = output.name if cut is None else cut.tensor
    ids = found.value("output.kind") == "labels"
    layout = card.output.get("layout") or ("nhw" if cut is None and len(output.shape) == 3 else "nchw")
    network = Graph(
        path, graph.checksum, input=picture.name, input_layout=found.value("input.layout"), output=taken,
        output_layout=layout, cut=cut is not None, num_classes=0,
    )  # fmt: skip
    size = found.value("input.size") or _tried_size(found.value("input.multiple"))
    trial = probe(network, size, found.value("input.mean"), found.value("input.std"))
    if "layout" not in card.output and layout == "nchw" and _is_channels_last(trial.shape, size):
        network.output_layout = layout = "nhwc"
        trial = replace(trial, shape=(trial.shape[0], trial.shape[3], *trial.shape[1:3]))
    found.facts["output.layout"] = layout, "card" if "layout" in card.output else "by its dimensions"
    _check_trial(path, taken, trial, size, found.value("output.kind"))
    channels = trial.shape[1]
    found.facts["output.stride"] = max(1, round(size[0] / trial.shape[2])), f"by running it at {size[1]} x {size[0]}"
    table = _class_facts(found, graph, card, None if ids else channels)
    if found.missing:
        return found
    assert table is not None
    network.num_classes = len(table)
    found.graph, found.trial, found.card = network, trial, _card(found, card, table, graph.checksum)
    return found


def open_onnx(path: Path) -> tuple[ModelCard, Graph]:
    """Open a segmentation network in an ONNX file.

    Raises:
        CheckpointError: see `study`; or something that matters is neither in the file nor in its card.
    """
    found = study(path)
    if found.card is None or found.graph is None:
        raise found.fail()
    return found.card, found.graph


def _picture(graph: OnnxGraph) -> Port:
    """The input that takes the picture, which has to be the only one."""
    described = ", ".join(f"{one.name} {one.type} {_shape(one)}" for one in graph.inputs)
    if len(graph.inputs) != 1:
        raise CheckpointError(f"{graph.path}: expected one input, a picture, found {len(graph.inputs)}: {described}")
    [port] = graph.inputs
    if port.type not in PICTURES or len(port.shape) != 4:
        raise CheckpointError(
            f"{graph.path}: expected a picture of four dimensions as {', '.join(PICTURES)}, found {described}"
        )
    if 3 not in (port.shape[1], port.shape[3]) and None not in (port.shape[1], port.shape[3]):
        raise CheckpointError(f"{graph.path}: expected a picture of 3 channels, found {described}")
    return port


def _input_facts(found: Study, graph: OnnxGraph, card: CardFile, port: Port) -> None:
    given, ultralytics = card.input, graph.metadata.get("task") is not None

    def fact(name: str, *otherwise: tuple[Any, str]) -> None:
        found.facts[f"input.{name}"] = (given[name], "card") if name in given else otherwise[0]

    layout = "nchw" if port.shape[1] in (3, None) else "nhwc"
    fact("layout", (layout, "by its three channels" if 3 in (port.shape[1], port.shape[3]) else "assumed"))
    sides = (port.shape[2], port.shape[3]) if found.value("input.layout") == "nchw" else (port.shape[1], port.shape[2])
    fact("colours", ("rgb", "its exporter's" if ultralytics else "assumed"))
    if "mean" in given or port.type == "uint8" or ultralytics:
        origin, largest = ("it takes bytes", 1.0) if port.type == "uint8" else ("its exporter's", 255.0)
        fact("mean", ((0.0,) * 3, origin))
        fact("std", ((largest,) * 3, origin))
    else:
        found.missing.append(f"{_STATISTICS}  # ImageNet's; of values 0..255, as it was trained")
    fixed = None not in sides
    fact("size_rule", ("fixed" if fixed else "multiple", "by its input's dimensions"))
    fact("size", (sides if fixed else None, "by its input's dimensions"))
    stride = graph.metadata.get("stride", "")
    if stride.isdigit() and int(stride) > 0:
        fact("multiple", (int(stride), "metadata"))
    else:
        fact("multiple", (1, "of fixed size") if fixed else (ASSUMED_MULTIPLE, "assumed: all families take it"))
    fact("scale", (None, "not known: the picture's own size"))
    fact("rows", (None, "not known"))
    fact("enlarge", (1.0, "default: pictures of fewer rows are not enlarged"))


def _output_facts(found: Study, graph: OnnxGraph, card: CardFile) -> tuple[Port | None, Cut | None]:
    given = card.output
    if (task := graph.metadata.get("task")) not in (None, "semantic"):
        raise CheckpointError(f"{graph.path}: expected a segmentation network, its metadata say task {task!r}")
    maps = [one for one in graph.outputs if _is_map(one)]
    described = ", ".join(f"{one.name} {one.type} {_shape(one)}" for one in graph.outputs)
    if "name" in given:
        chosen = [one for one in maps if one.name == str(given["name"])]
        if not chosen:
            raise CheckpointError(f"{card.path}: output: name: expected one of {described}, got {given['name']!r}")
    elif not maps:
        raise CheckpointError(
            f"{graph.path}: expected an output of scores (B x C x h x w) or class ids (B x h x w), found {described}"
        )
    else:
        chosen = maps
    if len(chosen) > 1:
        found.missing.append(f"output: {{name: {maps[0].name}}}  # or another one of {described}")
        return None, None
    [port] = chosen
    found.facts["output.name"] = port.name, "card" if "name" in given else "its only one"
    cut = graph.cuts.get(port.name) if given.get("kind", "labels") == "labels" else None
    if cut is not None:
        kind = "logits", "taken in front of the argmax at its end"
    elif "kind" in given:
        kind = given["kind"], "card"
    elif port.type in IDS:
        kind = "labels", f"by its type, {port.type}"
    elif port.made_by in ("Sigmoid", "Softmax"):
        kind = "probabilities", f"its last operation is {port.made_by}"
    else:
        kind = "logits", f"assumed: its last operation is {port.made_by or 'unknown'}"
    found.facts["output.kind"] = kind
    if "corners" in given:
        found.facts["output.corners"] = given["corners"], "card"
    elif cut is not None and cut.corners is not None:
        found.facts["output.corners"] = cut.corners, "by the upsampling at its end"
    else:
        found.facts["output.corners"] = "half_pixel", "assumed: what most families are upsampled by"
    found.facts["output.threshold"] = given.get("threshold", 0.5), "card" if "threshold" in given else "default"
    return port, cut


def _is_map(port: Port) -> bool:
    if port.type in IDS:
        return len(port.shape) in (0, 3, 4)
    return port.type in ("float32", "float16") and len(port.shape) in (0, 4)


def _class_facts(found: Study, graph: OnnxGraph, card: CardFile, channels: int | None) -> ClassTable | None:
    names = graph.dictionary("names")
    table, origin = card.classes, "card"
    if table is None and names:
        table, origin = table_of(found.path.stem, [str(names[key]) for key in sorted(names)]), "metadata"
    if table is None:
        count = "its classes" if channels is None else f"the {max(2, channels)} classes"
        found.missing.append(_CLASSES.format(count))
        return None
    wanted = len(table) if channels is None else max(2, channels)
    if channels is not None and channels > MAX_CLASSES:
        raise CheckpointError(f"{found.path}: expected at most {MAX_CLASSES} classes, found {channels}")
    if len(table) != wanted:
        raise CheckpointError(
            f"{found.path}: expected {wanted} classes, as its output has {channels} channels, found {len(table)} in "
            f"{card.path.name if origin == 'card' else 'its metadata'} ({', '.join(table.names[:6])}, ...)"
        )
    found.facts["classes"] = table, origin
    return table


def _is_channels_last(shape: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    """Return whether dimensions are as of B x h x w x C and not as of B x C x h x w, by the aspect of the picture."""
    (_, a, b, c), (height, width) = shape, size

    def fits(h: int, w: int) -> bool:
        return abs(h * width - w * height) <= max(height, width)

    return fits(a, b) and (not fits(b, c) or c < a)


def _check_trial(path: Path, output: str, trial: Trial, size: tuple[int, int], kind: str) -> None:
    batch, channels, height, width = trial.shape
    where = f"{path}: {output}"
    if not trial.finite:
        raise CheckpointError(f"{where}: expected finite values for a picture, found NaN or infinity")
    if batch != 1 or not (size[0] / 64 <= height <= size[0] * 2 and size[1] / 64 <= width <= size[1] * 2):
        raise CheckpointError(f"{where}: expected a map of a {size[1]} x {size[0]} picture, found {list(trial.shape)}")
    if kind == "labels" and (channels != 1 or trial.low < 0 or trial.high > 255):
        raise CheckpointError(
            f"{where}: expected class ids 0 to 254, found {channels} channels of {trial.low:g} to {trial.high:g}"
        )
    if kind == "probabilities" and not (trial.low >= -1e-3 and trial.high <= 1 + 1e-3):
        raise CheckpointError(f"{where}: expected probabilities, found {trial.low:g} to {trial.high:g}")


def _card(found: Study, card: CardFile, table: ClassTable, checksum: str) -> ModelCard:
    value: Mapping[str, Any] = {name: fact for name, (fact, _) in found.facts.items()}
    given: dict[str, Any] = {
        name: value[f"input.{name}"]
        for name in ("layout", "colours", "size_rule", "multiple", "size", "scale", "rows", "enlarge")
    }
    statistics: dict[str, Any] = {name: tuple(value[f"input.{name}"]) for name in ("mean", "std")}
    taken = {name: value[f"output.{name}"] for name in ("kind", "stride", "corners", "threshold")}
    try:
        return ModelCard(
            ARCHITECTURE, InputCard(**given, **statistics), OutputCard(**taken), table,
            licence=card.licence, source=card.source, checksum=checksum,
        )  # fmt: skip
    except CheckpointError as error:
        raise CheckpointError(f"{card.path}: {error}") from error


def _tried_size(multiple: int) -> tuple[int, int]:
    """A size that is no square, so that sides which are mixed up show."""
    side = max(1, round(TRIED_SIDE / multiple)) * multiple
    return side, side + multiple


def _shape(port: Port) -> str:
    return "[" + ", ".join("?" if one is None else str(one) for one in port.shape) + "]"
