"""Segmentation networks of others in ONNX files: from the file and the card beside it to a `Model`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vidseg_core.classes import ClassTable
from vidseg_core.errors import CheckpointError
from vidseg_core.models.card_file import CardFile, read_card_file
from vidseg_core.models.onnx_graph import Cut, OnnxGraph, Port, exported, read_graph
from vidseg_core.models.sidecars import read_ranges
from vidseg_core.models.study import ASSUMED_MULTIPLE, CLASSES_LINE, IDS, STATISTICS_LINE, Study
from vidseg_core.networks.graph import Graph

ARCHITECTURE = "onnx"
PICTURES = ("float32", "float16", "uint8")


def study(path: Path) -> Study:
    """Find out what a network is, by its file, the card beside it and running it once.

    Raises:
        CheckpointError: the file is damaged, or no per-frame segmentation network of pictures with three channels.
        ClassTableError: the card's class table is malformed.
    """
    graph = read_graph(path)
    card = _with_own(read_card_file(path), graph)
    found = Study(path, card)
    picture = _picture(graph)
    _input_facts(found, graph, picture)
    output, cut, queries = _output_facts(found, graph, card)
    names = [str(name) for _, name in sorted(graph.dictionary("names").items())]
    if output is None or "input.mean" not in found.facts:
        if card.classes is None and not names:
            found.missing.append(CLASSES_LINE.format("its classes"))
        return found
    taken = output.name if cut is None else cut.tensor
    layout = card.output.get("layout") or ("nhw" if cut is None and len(output.shape) == 3 else "nchw")
    network = Graph(
        path, graph.checksum, input=picture.name, input_layout=found.value("input.layout"), output=taken,
        output_layout=layout, cut=cut is not None, num_classes=0, class_queries="" if queries is None else queries.name,
    )  # fmt: skip
    size = found.tried_size()
    trial = found.try_out(network, size)
    if "layout" not in card.output and layout == "nchw" and queries is None and _is_channels_last(trial.shape, size):
        network.output_layout = layout = "nhwc"
        trial = replace(trial, shape=(trial.shape[0], trial.shape[3], *trial.shape[1:3]))
    found.facts["output.layout"] = layout, "card" if "layout" in card.output else "by its dimensions"
    found.finish(ARCHITECTURE, network, trial, size, taken, names or None, "its metadata")
    if found.card is not None and (ranges := read_ranges(path, graph.checksum)) is not None:
        found.card = replace(found.card, activation_ranges=ranges)
    return found


def _with_own(card: CardFile, graph: OnnxGraph) -> CardFile:
    """Add what `vidseg weights export` has written into the file to what the card beside it says."""
    own = exported(graph.metadata)
    if not own:
        return card
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in own["input"].items()}
    return replace(card, classes=card.classes or ClassTable.from_dict(own["classes"]), input=given | dict(card.input))


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


def _input_facts(found: Study, graph: OnnxGraph, port: Port) -> None:
    ultralytics = graph.metadata.get("task") is not None
    is_first = port.shape[1] == 3 or (port.shape[1] is None and port.shape[3] != 3)
    layout = "nchw" if is_first else "nhwc"
    found.learn("input.layout", layout, "by its three channels" if 3 in (port.shape[1], port.shape[3]) else "assumed")
    nchw = found.value("input.layout") == "nchw"
    sides = (port.shape[2], port.shape[3]) if nchw else (port.shape[1], port.shape[2])
    found.learn("input.colours", "rgb", "its exporter's" if ultralytics else "assumed")
    if "mean" in found.beside.input or port.type == "uint8" or ultralytics:
        origin, largest = ("it takes bytes", 1.0) if port.type == "uint8" else ("its exporter's", 255.0)
        found.learn("input.mean", (0.0,) * 3, origin)
        found.learn("input.std", (largest,) * 3, origin)
    else:
        found.missing.append(f"{STATISTICS_LINE}  # ImageNet's; of values 0..255, as it was trained")
    found.learn_sizes(sides)
    stride = graph.metadata.get("stride", "")
    if stride.isdigit() and int(stride) > 0:
        found.learn("input.multiple", int(stride), "metadata")
    elif None not in sides:
        found.learn("input.multiple", 1, "of fixed size")
    else:
        found.learn("input.multiple", ASSUMED_MULTIPLE, "assumed: all families take it")
    found.learn("input.fit", "letterbox" if ultralytics else "stretch", "its exporter's" if ultralytics else "assumed")
    found.learn("input.resize", "linear" if ultralytics else "bilinear", "its exporter's" if ultralytics else "assumed")
    for name in ("shortest_edge", "longest_edge"):
        found.learn(f"input.{name}", None, "not known")


def _output_facts(found: Study, graph: OnnxGraph, card: CardFile) -> tuple[Port | None, Cut | None, Port | None]:
    """Choose the output; the scores in front of it where class ids are cut off; the classes of queries."""
    given = card.output
    if (task := graph.metadata.get("task")) not in (None, "semantic"):
        raise CheckpointError(f"{graph.path}: expected a segmentation network, its metadata say task {task!r}")
    maps = [one for one in graph.outputs if _is_map(one) or one.name in graph.cuts]
    described = ", ".join(f"{one.name} {one.type} {_shape(one)}" for one in graph.outputs)
    pair = _queries(found, graph, described)
    if pair is not None:
        masks, classes = pair
        found.facts["output.name"] = masks.name, "card" if "name" in given else "by its dimensions: masks of queries"
        found.learn("output.class_queries", classes.name, "by its dimensions: classes of queries")
        found.learn("output.kind", "queries", "by its two outputs")
        found.learn("output.corners", "half_pixel", "assumed: what such families are upsampled by")
        found.learn("output.mask_size", None, "masks as they are")
        return masks, None, classes
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
        return None, None, None
    [port] = chosen
    found.facts["output.name"] = port.name, "card" if "name" in given else "its only one"
    cut = graph.cuts.get(port.name) if given.get("kind", "labels") == "labels" else None
    if cut is not None:
        found.facts["output.kind"] = "logits", "taken in front of the argmax at its end"
    elif port.type in IDS:
        found.learn("output.kind", "labels", f"by its type, {port.type}")
    elif port.made_by in ("Sigmoid", "Softmax"):
        found.learn("output.kind", "probabilities", f"its last operation is {port.made_by}")
    else:
        found.learn("output.kind", "logits", f"assumed: its last operation is {port.made_by or 'unknown'}")
    if cut is not None and cut.corners is not None:
        found.learn("output.corners", cut.corners, "by the upsampling at its end")
    else:
        found.learn("output.corners", "half_pixel", "assumed: what most families are upsampled by")
    found.learn("output.threshold", 0.5, "default")
    return port, cut, None


def _queries(found: Study, graph: OnnxGraph, described: str) -> tuple[Port, Port] | None:
    """Find masks of queries, 1 x Q x h x w, and their classes, 1 x Q x (C + 1)."""
    given = found.beside.output
    if given.get("kind", "queries") != "queries":
        return None
    floats = [one for one in graph.outputs if one.type in ("float32", "float16")]
    pairs = [
        (masks, classes)
        for classes in floats
        for masks in floats
        if len(classes.shape) == 3 and len(masks.shape) == 4 and classes.shape[1] == masks.shape[1] is not None
        if given.get("name", masks.name) == masks.name and given.get("class_queries", classes.name) == classes.name
    ]
    wanted = "kind" in given or "class_queries" in given
    if len(pairs) == 1:
        return pairs[0]
    if wanted:
        raise CheckpointError(
            f"{found.beside.path}: output: expected `name` of masks (1 x Q x h x w) and `class_queries` of their "
            f"classes (1 x Q x C + 1) among {described}"
        )
    return None


def _is_map(port: Port) -> bool:
    if port.type in IDS:
        return len(port.shape) in (0, 3, 4)
    return port.type in ("float32", "float16") and len(port.shape) in (0, 4)


def _is_channels_last(shape: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    """Return whether dimensions are as of B x h x w x C and not as of B x C x h x w, by the aspect of the picture."""
    (_, a, b, c), (height, width) = shape, size

    def fits(h: int, w: int) -> bool:
        return abs(h * width - w * height) <= max(height, width)

    return fits(a, b) and (not fits(b, c) or c < a)


def _shape(port: Port) -> str:
    return "[" + ", ".join("?" if one is None else str(one) for one in port.shape) + "]"
