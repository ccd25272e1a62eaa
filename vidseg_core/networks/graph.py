"""Networks that others have made: graphs in ONNX files, and modules of libraries that PyTorch runs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn


class Foreign(nn.Module):
    """A network of others, from a file or a directory.

    Args:
        path: of the file or the directory.
        checksum: SHA-256 of all that decides what it computes, hexadecimal.
        num_classes: classes of the scores that are made of its output.

    Attributes:
        executors: names of the backends that may be able to run it, the baseline first.
        executors_on_cuda: the same for CUDA devices, where they are others.
        form: what it is in, for messages.
        backends: names of those that have run it; empty while none was tried.
        problems: what others said, by their names.
    """

    executors: tuple[str, ...] = ()
    executors_on_cuda: tuple[str, ...] = ()
    form = ""

    def __init__(self, path: Path, checksum: str, num_classes: int = 0):
        super().__init__()
        self.path = path
        self.checksum = checksum
        self.num_classes = num_classes
        self.backends: tuple[str, ...] = ()
        self.problems: Mapping[str, str] = {}

    def describe(self) -> dict[str, Any]:
        """Describe it for another process, JSON-safe; see `from_description`."""
        raise NotImplementedError

    def identity(self) -> tuple[object, ...]:
        """Return what decides what it computes, besides its code and its tensors."""
        raise NotImplementedError


def from_description(description: Mapping[str, Any]) -> Foreign:
    """Make the network that `Foreign.describe` has described: `loader` names what is called with all the rest."""
    given = dict(description)
    module, _, name = given.pop("loader").partition(":")
    return getattr(importlib.import_module(module), name)(**given)


class Graph(Foreign):
    """One picture in, one map out, of a graph in an ONNX file: executed by backends that read such files.

    Called through a backend it is a function of B x 3 x h x w, float32, to B x C x h' x w', float32, whatever order of
    dimensions and type of numbers the graph itself has. With `class_queries` the map has the masks of Q queries, and a
    second tensor comes with it, B x Q x (C + 1) x 1.

    Args:
        path: of the .onnx file.
        checksum: of the file and of the files with its data.
        input: name of its input.
        input_layout: nchw or nhwc.
        output: name of the tensor that is taken.
        cut: whether that is in the middle of the graph, not one of its outputs.
        output_layout: nchw, nhwc or nhw (no channels).
        num_classes: see `Foreign`.
        class_queries: name of an output with the classes of queries; empty for none.
    """

    executors = ("onnxruntime", "openvino")
    executors_on_cuda = ("onnxruntime_cuda", "onnxruntime_tensorrt")
    form = "an ONNX file"

    def __init__(
        self,
        path: Path | str,
        checksum: str,
        *,
        input: str,
        input_layout: str,
        output: str,
        output_layout: str,
        cut: bool,
        num_classes: int,
        class_queries: str = "",
    ):
        super().__init__(Path(path), checksum, num_classes)
        self.input = input
        self.input_layout = input_layout
        self.output = output
        self.output_layout = output_layout
        self.cut = cut
        self.class_queries = class_queries

    def describe(self) -> dict[str, Any]:
        """Describe it, JSON-safe; see `from_description`."""
        names = ("checksum", "input", "input_layout", "output", "output_layout", "cut", "num_classes", "class_queries")
        loader = {"loader": f"{__name__}:{type(self).__name__}", "path": str(self.path.absolute())}
        return loader | {name: getattr(self, name) for name in names}

    def identity(self) -> tuple[object, ...]:
        """Return its checksum and the tensors that are taken."""
        return self.checksum, self.output, self.class_queries

    def forward(self, image: Tensor) -> Tensor:
        """Raise NotImplementedError: PyTorch does not read ONNX files."""
        raise NotImplementedError(f"{self.path}: expected a backend that reads ONNX files, was called by PyTorch")


class Imported(Foreign):
    """A module of a library, or an exported program, which PyTorch runs.

    Called it is a function of B x 3 x h x w, float32, to B x C x h' x w', float32; for two `outputs`, masks of queries
    and their classes, to B x Q x h' x w' and B x Q x (C + 1) x 1.

    Args:
        network: takes a picture; gives a tensor, several, or something with tensors by name.
        path, checksum: see `Foreign`.
        outputs: names (or places) of the tensors that are taken; empty where it gives one tensor.
        loader: `module:function` that loads it again from its path and `outputs`.
        form: what it is in, for messages.
        input_layout: nchw or nhwc, of `network`.
    """

    executors = ("eager", "openvino")

    def __init__(
        self,
        network: nn.Module,
        path: Path,
        checksum: str,
        *,
        outputs: tuple[str, ...],
        loader: str,
        form: str,
        input_layout: str = "nchw",
    ):
        super().__init__(path, checksum)
        self.network = network
        self.outputs = outputs
        self.loader = loader
        self.form = form
        self.input_layout = input_layout

    def describe(self) -> dict[str, Any]:
        """Describe it, JSON-safe; see `from_description`."""
        return {
            "loader": self.loader, "path": str(self.path.absolute()), "outputs": list(self.outputs),
            "input_layout": self.input_layout,
        }  # fmt: skip

    def identity(self) -> tuple[object, ...]:
        """Return its checksum and the tensors that are taken."""
        return self.checksum, self.outputs, self.input_layout

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run it; see above."""
        found = self.network(image.permute(0, 2, 3, 1) if self.input_layout == "nhwc" else image)
        if not self.outputs:
            return _map(found)
        if len(self.outputs) == 1:
            return _map(_taken(found, self.outputs[0]))
        masks, classes = (_taken(found, name) for name in self.outputs)
        return masks.float(), classes.float()[..., None]


def _taken(found: Any, name: str) -> Any:
    if isinstance(found, Mapping):
        return found[name]
    return found[int(name)] if name.isdigit() else getattr(found, name)


def _map(found: Tensor) -> Tensor:
    """The same with four dimensions: class ids may come without channels."""
    return (found[:, None] if found.ndim == 3 else found).float()
