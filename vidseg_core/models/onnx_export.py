"""SwiftNet as an ONNX file of one size: for other runtimes, for nodes of others, and for `weights` again.

Input `input`: 1 x 3 x H x W, float32, RGB, normalised by ImageNet's statistics, whatever the network's own are. Output
`logits`: 1 x C x H x W, as large as the picture. The scores at the network's own stride are in the graph as `scores`,
which is what vidseg takes when it opens such a file. Metadata: `classes`, `colours`, `mean`, `std`, `stride`.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg_core.classes import ClassTable
from vidseg_core.errors import CheckpointError, ConfigError
from vidseg_core.models.architectures import SEGMENTER
from vidseg_core.models.card import InputCard
from vidseg_core.models.onnx_graph import EXPORTED
from vidseg_core.models.open import Model
from vidseg_core.networks.swiftnet import PYRAMID_GRIDS, PyramidPooling, SwiftNet, resize

OPSET = 17
MULTIPLE = 32
INPUT, OUTPUT, SCORES = "input", "logits", "scores"
# ImageNet's statistics, of values 0..255: what nodes of others normalise by.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
BACKGROUND = "background"
NEVER = -1e4  # a logit that is no pixel's largest
LEAST_AGREEMENT = 0.999


@dataclass(frozen=True)
class Exported:
    """Hold what was written.

    Attributes:
        path: the ONNX file.
        classes: names of its output's channels.
        ontology: the list of classes for Nav2's node, beside it; None where it was not asked for.
        agreement: share of the pixels of the pictures whose label ONNX Runtime and PyTorch agree on.
    """

    path: Path
    classes: tuple[str, ...]
    ontology: Path | None
    agreement: float


class _MatrixPooling(nn.Module):
    """Pyramid pooling of maps of one size by products of matrices: ONNX has no adaptive pooling."""

    spp: Any

    def __init__(self, pooling: PyramidPooling):
        super().__init__()
        self.spp = pooling.spp

    def forward(self, x: Tensor) -> Tensor:
        h, w = (int(side) for side in x.shape[2:])
        x = self.spp.spp_bn(x)
        levels = [x]
        for level, rows in enumerate(PYRAMID_GRIDS):
            columns = max(1, round(rows * w / h))
            pooled = pooling_matrix(h, rows) @ x @ pooling_matrix(w, columns).T
            levels.append(resize(self.spp.get_submodule(f"spp{level}")(pooled), (h, w)))
        return self.spp.spp_fuse(torch.cat(levels, 1))


def pooling_matrix(pixels: int, cells: int) -> Tensor:
    """Make the matrix, cells x pixels, that averages as `adaptive_avg_pool2d` does along one side."""
    matrix = np.zeros((cells, pixels), np.float32)
    for cell in range(cells):
        start, end = cell * pixels // cells, -(-(cell + 1) * pixels // cells)
        matrix[cell, start:end] = 1 / (end - start)
    return torch.from_numpy(matrix)


class _Whole(nn.Module):
    """A network from pictures normalised by ImageNet's statistics to logits as large as they are."""

    factor: Tensor
    offset: Tensor

    def __init__(self, network: SwiftNet, given: InputCard, size: tuple[int, int], background: bool):
        super().__init__()
        self.network = deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.network.backbone.spp = _MatrixPooling(self.network.backbone.spp)
        self.size, self.background = size, background
        own_mean, own_std, mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (given.mean, given.std, MEAN, STD))
        self.register_buffer("factor", std / own_std)
        self.register_buffer("offset", (mean - own_mean) / own_std)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.network(picture * self.factor + self.offset)
        logits = F.interpolate(scores, self.size, mode="bilinear", align_corners=True)
        if self.background:
            logits = torch.cat((torch.full_like(logits[:, :1], NEVER), logits), 1)
        return logits, scores


def export(
    model: Model, path: Path, size: tuple[int, int], pictures: Iterable[np.ndarray], *, classes: ClassTable,
    background: bool = False,
) -> Exported:  # fmt: skip
    """Write a segmentation network as an ONNX file, and check it with ONNX Runtime.

    Args:
        model: brings a SwiftNet.
        path: of the file, which ends in `.onnx`.
        size: (H, W) of its input, multiples of 32.
        pictures: of that size, H x W x 3, uint8, RGB: what it is checked with; one or more.
        classes: class table of the network.
        background: put a class 0, `background`, before the others, which no pixel gets, and a file `NAME.ontology.yaml`
            beside: what Nav2's node wants.

    Raises:
        CheckpointError: it is no SwiftNet, or ONNX Runtime does not give PyTorch's labels.
        ConfigError: the size is none that it takes, or `onnx` or `onnxruntime` is not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"export needs the packages onnx and onnxruntime ({error}): pip install '.[onnx]'") from error
    if path.suffix != ".onnx":
        raise ConfigError(f"{path}: expected a file name that ends in .onnx")
    if min(size) < MULTIPLE or size[0] % MULTIPLE or size[1] % MULTIPLE:
        raise ConfigError(f"size: expected multiples of {MULTIPLE}, got {size[1]} x {size[0]}")
    network = model.torch_network(SEGMENTER)
    if not isinstance(network, SwiftNet) or model.card.input.colours != "rgb":
        raise CheckpointError(f"{model.path}: expected a SwiftNet, found {model.card.architecture}")
    whole = _Whole(network, model.card.input, size, background).eval()
    graph = onnx.load_model_from_string(_traced(whole, size))
    # The second output made sure that the scores keep their name.
    del graph.graph.output[1:]
    names = ((BACKGROUND,) if background else ()) + classes.names
    colours = [[0, 0, 0]] * background + [[int(value) for value in colour] for colour in classes.colors]
    onnx.helper.set_model_props(graph, _metadata(model, classes, names, colours))
    onnx.checker.check_model(graph)
    content = graph.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    agreement = _agreement(session, network, model.card.input, pictures, int(background))
    if agreement < LEAST_AGREEMENT:
        raise CheckpointError(
            f"{path}: not written: expected ONNX Runtime to give PyTorch's labels for {LEAST_AGREEMENT:.1%} of pixels, "
            f"found {agreement:.3%}"
        )
    _write(path, content)
    ontology = None
    if background:
        ontology = path.with_suffix(".ontology.yaml")
        listed = [{"name": name, "color": list(reversed(one))} for name, one in zip(names, colours, strict=True)][1:]
        text = yaml.safe_dump({"ontology": {"classes": listed}, "model": {"device": "cpu"}}, sort_keys=False)
        _write(ontology, f"# Classes of {path.name} for Nav2's segmentation node; colours are BGR.\n{text}".encode())
    return Exported(path, names, ontology, agreement)


def _traced(whole: _Whole, size: tuple[int, int]) -> bytes:
    content: Any = io.BytesIO()  # which the stubs do not know that it takes
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is the older one
        torch.onnx.export(
            whole, (torch.zeros(1, 3, *size),), content, input_names=[INPUT], output_names=[OUTPUT, SCORES],
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    return content.getvalue()


def _metadata(model: Model, classes: ClassTable, names: tuple[str, ...], colours: list[list[int]]) -> dict[str, str]:
    own = {
        "version": 1, "classes": classes.to_dict(),
        "input": {"mean": MEAN, "std": STD, "colours": "rgb", "resize": "aligned"},
        "output": {"kind": "logits", "corners": model.card.output.corners}, "scores": SCORES,
    }  # fmt: skip
    told: dict[str, Any] = {
        "classes": names, "colours": colours, "mean": MEAN, "std": STD, "stride": model.card.output.stride,
        "made_of": model.path.name, "sha256": model.card.checksum, "licence": model.card.licence,
        "notices": model.card.notes.get("notices"), EXPORTED: own,
    }  # fmt: skip
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items() if value is not None
    }


def _agreement(session: Any, network: SwiftNet, given: InputCard, pictures: Iterable[np.ndarray], first: int) -> float:
    shares = []
    for picture in pictures:
        values = np.ascontiguousarray(picture, np.float32).transpose(2, 0, 1)[None]
        own, imagenet = (
            (values - np.asarray(mean, np.float32).reshape(1, 3, 1, 1))
            / np.asarray(std, np.float32).reshape(1, 3, 1, 1)
            for mean, std in ((given.mean, given.std), (MEAN, STD))
        )
        [logits] = session.run([OUTPUT], {INPUT: np.ascontiguousarray(imagenet)})
        with torch.inference_mode():
            scores = network(torch.from_numpy(np.ascontiguousarray(own)))
            eager = F.interpolate(scores, picture.shape[:2], mode="bilinear", align_corners=True).argmax(1)[0].numpy()
        shares.append(float(np.mean(cast(np.ndarray, logits).argmax(1)[0] == eager + first)))
    return float(np.mean(shares))


def _write(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)
