"""The model card: all that is needed to use a trained network, whoever made it.

It is built from a file's metadata (`architecture`, `classes`, `normalisation`, `input_scale`, `input_rows`, `enlarge`,
`activation_ranges`, `accuracy`, `card_version`, 1 where it is missing) and from the file's record in the registry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidseg_core.classes import ClassTable
from vidseg_core.errors import CheckpointError
from vidseg_core.models.accuracy import Accuracy
from vidseg_core.models.registry import WeightRecord, is_ranges
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB

CARD_VERSION = 1
LAYOUTS = ("nchw", "nhwc")
COLOURS = ("rgb", "bgr")
SIZE_RULES = ("multiple", "fixed", "preferred", "square", "shortest_edge")
FITS = ("stretch", "letterbox")
RESIZES = ("aligned", "linear", "bilinear", "bicubic", "torch_bilinear", "torch_bicubic")
KINDS = ("logits", "probabilities", "labels", "flow", "queries")
CORNERS = ("aligned", "half_pixel")


def _expect(good: object, name: str, expected: str, value: object) -> None:
    if not good:
        raise CheckpointError(f"{name}: expected {expected}, got {value!r}")


def _numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        and all(math.isfinite(value) for value in values)
    )


def _counts(values: object, count: int) -> bool:
    return isinstance(values, tuple) and len(values) == count and all(type(v) is int and v >= 1 for v in values)


@dataclass(frozen=True)
class InputCard:
    """The picture as a network wants it: resized, then `(value - mean) / std` of values 0..255.

    Attributes:
        layout: nchw or nhwc, the order of dimensions.
        colours: rgb or bgr, the order of channels.
        mean, std: three numbers each, in the order red, green, blue whatever `colours` says; `std` above 0.
        size_rule: multiple (any size whose sides are multiples of `multiple`), fixed (`size` only), preferred (`size`
            unless a scale is asked for), square (any square, of `size` or of the picture's number of pixels) or
            shortest_edge (see there, unless a scale is asked for).
        multiple: of the sides of its input, 1 or more.
        size: (height, width) that it was trained at or, for `fixed`, has to have; None where not known.
        scale: size that it was trained at in units of the picture's, above 0; None where not known.
        rows: number of rows in which it saw a whole picture when it was trained, 1 or more; None where not known.
        enlarge: largest factor by which enlarging a picture of fewer rows was found to help, 1 or more.
        fit: stretch (the picture fills the input) or letterbox (it keeps its aspect, and grey fills the rest).
        resize: how the picture is resized: aligned (bilinear, the outermost pixels fall on each other), or by pixels
            that cover equal parts of it: linear (no smoothing), bilinear or bicubic (smoothed where it gets smaller,
            rounded as Pillow does, or as PyTorch with `torch_` in front).
        shortest_edge, longest_edge: of the picture in its input, pixels; the aspect is kept. `longest_edge` limits
            the other side; None for no limit.
    """

    layout: str = "nchw"
    colours: str = "rgb"
    mean: tuple[float, float, float] = MEAN_RGB
    std: tuple[float, float, float] = STD_RGB
    size_rule: str = "multiple"
    multiple: int = 1
    size: tuple[int, int] | None = None
    scale: float | None = None
    rows: int | None = None
    enlarge: float = 1.0
    fit: str = "stretch"
    resize: str = "aligned"
    shortest_edge: int | None = None
    longest_edge: int | None = None

    def __post_init__(self):
        _expect(self.layout in LAYOUTS, "layout", f"one of {', '.join(LAYOUTS)}", self.layout)
        _expect(self.colours in COLOURS, "colours", f"one of {', '.join(COLOURS)}", self.colours)
        _expect(_numbers(self.mean, 3), "mean", "three numbers", self.mean)
        _expect(_numbers(self.std, 3) and min(self.std) > 0, "std", "three numbers above 0", self.std)
        _expect(self.size_rule in SIZE_RULES, "size_rule", f"one of {', '.join(SIZE_RULES)}", self.size_rule)
        _expect(_counts((self.multiple,), 1), "multiple", "a whole number, 1 or more", self.multiple)
        optional = self.size is None and self.size_rule not in ("fixed", "preferred")
        _expect(optional or _counts(self.size, 2), "size", "height and width, whole numbers, 1 or more", self.size)
        _expect(
            self.scale is None or (_numbers((self.scale,), 1) and self.scale > 0), "input_scale", "a number above 0",
            self.scale,
        )  # fmt: skip
        _expect(self.rows is None or _counts((self.rows,), 1), "input_rows", "a whole number, 1 or more", self.rows)
        good = _numbers((self.enlarge,), 1) and self.enlarge >= 1
        _expect(good, "enlarge", "a number, 1 or more", self.enlarge)
        _expect(self.fit in FITS, "fit", f"one of {', '.join(FITS)}", self.fit)
        _expect(self.resize in RESIZES, "resize", f"one of {', '.join(RESIZES)}", self.resize)
        for name in ("shortest_edge", "longest_edge"):
            side = getattr(self, name)
            needed = name == "shortest_edge" and self.size_rule == name
            good = (side is None and not needed) or _counts((side,), 1)
            _expect(good, name, "a whole number, 1 or more", side)
        if self.size_rule == "square" and self.size is not None:
            _expect(self.size[0] == self.size[1], "size", "two equal sides, as the rule is square", self.size)

    def scale_for(self, size: tuple[int, int], default: float = 1.0) -> float:
        """Return the size of the input for a picture, in units of the picture's: it is seen as in training.

        Args:
            size: (H, W) of the picture.
            default: for a network whose card tells neither rows nor scale.
        """
        if self.rows is None:
            return self.scale or default
        return min(self.rows / size[0], self.enlarge)

    def normalisation(self) -> dict[str, tuple[float, float, float]]:
        """Describe the statistics as a file's metadata does."""
        return {"mean_rgb": self.mean, "std_rgb": self.std}

    @property
    def is_raw(self) -> bool:
        """Return whether the network takes values 0..255 as they are."""
        return (tuple(self.mean), tuple(self.std)) == ((0.0,) * 3, (1.0,) * 3)

    @property
    def is_default_normalisation(self) -> bool:
        """Return whether pictures are normalised by this project's own statistics."""
        return (tuple(self.mean), tuple(self.std)) == (MEAN_RGB, STD_RGB)


# SwiftNet halves the picture five times; only where each half is whole do its resizes shift nothing.
SWIFTNET_INPUT = InputCard(multiple=32)


@dataclass(frozen=True)
class OutputCard:
    """The meaning of a network's output.

    Attributes:
        kind: logits or probabilities (B x C x h x w), labels (B x h x w, class ids), queries (masks B x Q x h x w and
            classes B x Q x (C + 1), the last one for nothing) or flow (B x 2 x h x w).
        stride: pixels of the input per pixel of the output, 1 or more.
        corners: how its pixels lie in the picture: aligned (the outermost on the picture's outermost) or half_pixel
            (each covers an equal part of the picture).
        threshold: for one channel, the probability above which a pixel is of the second of two classes, 0..1.
        mask_size: (h, w) that masks of `queries` are brought to before classes are made of them; None for their own.
        groups: for each class, the channels or ids of the network that belong to it; None where each is a class.
    """

    kind: str = "logits"
    stride: int = 1
    corners: str = "aligned"
    threshold: float = 0.5
    mask_size: tuple[int, int] | None = None
    groups: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self):
        _expect(self.kind in KINDS, "kind", f"one of {', '.join(KINDS)}", self.kind)
        _expect(_counts((self.stride,), 1), "stride", "a whole number, 1 or more", self.stride)
        _expect(self.corners in CORNERS, "corners", f"one of {', '.join(CORNERS)}", self.corners)
        good = _numbers((self.threshold,), 1) and 0 < self.threshold < 1
        _expect(good, "threshold", "a number between 0 and 1", self.threshold)
        good = self.mask_size is None or _counts(self.mask_size, 2)
        _expect(good, "mask_size", "height and width, whole numbers, 1 or more", self.mask_size)


@dataclass(frozen=True)
class ModelCard:
    """All that is known about a trained network. Values are checked when it is made.

    Attributes:
        architecture: the network, by its name in `models.architectures`.
        input, output: see there.
        classes: class table of its output, with colours; None where it has no classes or they are not known.
        activation_ranges: smallest and largest value that each convolution is given, by its name; None if not known.
        accuracy: what to expect of it by the size of its input and the age of its labels; None where not measured.
        licence: under which it may be used; None where not known.
        source: where it can be fetched; None where not known.
        checksum: SHA-256 of its file, 64 hexadecimal digits; empty for a network that is in no file.
        registered_as: its name in the registry of weights; None for a network that is not registered.
        notes: what else its file says (`training`, `feedback`, `grid_stride`, ...), JSON-safe.
        version: of the card, `CARD_VERSION`.

    Raises:
        CheckpointError: a value is not of its kind or out of range, or the version is another one.
    """

    architecture: str
    input: InputCard = InputCard()
    output: OutputCard = OutputCard()
    classes: ClassTable | None = None
    activation_ranges: Mapping[str, tuple[float, float]] | None = None
    accuracy: Accuracy | None = None
    licence: str | None = None
    source: str | None = None
    checksum: str = ""
    registered_as: str | None = None
    notes: Mapping[str, object] = field(default_factory=dict)
    version: int = CARD_VERSION

    def __post_init__(self):
        known = type(self.version) is int and self.version == CARD_VERSION
        _expect(known, "card_version", f"{CARD_VERSION} (a later vidseg may have written this file)", self.version)
        _expect(isinstance(self.architecture, str) and self.architecture, "architecture", "a name", self.architecture)
        good = self.input.fit != "letterbox" or self.output.corners == "half_pixel" or self.output.kind == "labels"
        _expect(good, "corners", "half_pixel, as its pictures are letterboxed", self.output.corners)
        good = self.activation_ranges is None or is_ranges(self.activation_ranges)
        _expect(good, "activation_ranges", "two numbers for names of its convolutions", self.activation_ranges)


def card_of(
    architecture: str,
    metadata: Mapping[str, object],
    record: WeightRecord | None,
    *,
    input: InputCard,
    output: OutputCard,
    registered_classes: ClassTable | None,
    checksum: str,
) -> ModelCard:
    """Build a card from what a file says about itself, else its record, else its architecture.

    Args:
        metadata: of the file, see `files.read_metadata`; empty for a file that says nothing.
        record: the file's record in the registry; None for a file that is not registered.
        input, output: of the architecture, where the file does not say otherwise.
        registered_classes: class table that the record names.
        checksum: SHA-256 of the file.

    Raises:
        CheckpointError: see `ModelCard`; or `normalisation` is not of the form {"mean_rgb": [...], "std_rgb": [...]}.
        ClassTableError: `classes` is no class table.
    """
    stored: dict[str, Any] = dict(metadata)
    version = stored.pop("card_version", CARD_VERSION)
    _expect(version == CARD_VERSION, "card_version", f"{CARD_VERSION} (a later vidseg may have written it)", version)
    stored.pop("architecture", None)
    normalisation, scale = stored.pop("normalisation", None), stored.pop("input_scale", None)
    rows, enlarge = stored.pop("input_rows", None), stored.pop("enlarge", None)
    if rows is None and record is not None:
        rows, enlarge = record.input_rows, record.enlarge
    # Files of networks that take values as they are have been written with this project's statistics all the same.
    if normalisation is not None and not input.is_raw:
        good = isinstance(normalisation, Mapping) and set(normalisation) == {"mean_rgb", "std_rgb"}
        good = good and all(isinstance(values, list | tuple) for values in normalisation.values())
        _expect(good, "normalisation", "mean_rgb and std_rgb, three numbers each", normalisation)
        input = replace(input, mean=tuple(normalisation["mean_rgb"]), std=tuple(normalisation["std_rgb"]))
    table, ranges = stored.pop("classes", None), stored.pop("activation_ranges", None)
    if ranges is None and record is not None:
        ranges = record.activation_ranges
    if ranges is not None:
        _expect(is_ranges(ranges), "activation_ranges", "two numbers for names of its convolutions", ranges)
        ranges = {name: (low, high) for name, (low, high) in ranges.items()}
    accuracy = stored.pop("accuracy", None)
    if accuracy is None and record is not None:
        accuracy = record.accuracy
    return ModelCard(
        architecture=architecture,
        input=replace(input, scale=scale, rows=rows, enlarge=1.0 if enlarge is None else enlarge),
        output=output,
        classes=registered_classes if table is None else ClassTable.from_dict(table),
        activation_ranges=ranges,
        accuracy=None if accuracy is None else Accuracy.from_dict(accuracy),
        licence=None if record is None else record.licence,
        source=None if record is None else record.url,
        checksum=checksum,
        registered_as=None if record is None else record.name,
        notes=stored,
    )


def check_classes(path: str | Path, num_classes: int, classes: ClassTable) -> None:
    """Check that a network with `num_classes` outputs fits `classes`.

    Raises:
        CheckpointError: it does not.
    """
    if num_classes != len(classes):
        raise CheckpointError(
            f"{path}: expected {len(classes)} classes as in class table {classes.name!r}, found {num_classes}"
        )
