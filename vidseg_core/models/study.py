"""The known properties of a network of others: what its file tells, what its card says, what was assumed.

What is unknown and would change the labels is an error that names the line to add. What is assumed is told (`vidseg
weights inspect`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidseg_core.backends.probe import Trial, probe
from vidseg_core.classes import MAX_CLASSES, ClassTable
from vidseg_core.errors import CheckpointError
from vidseg_core.models.card import InputCard, ModelCard, OutputCard
from vidseg_core.models.card_file import CardFile, table_of
from vidseg_core.networks.graph import Foreign

IDS = ("uint8", "int8", "uint16", "int16", "int32", "int64", "bool")
# Sizes that every family of networks met so far takes; one that was not made for this project's rule says otherwise.
ASSUMED_MULTIPLE = 32
TRIED_SIDE = 256
CLASSES_LINE = "classes: [road, car, ...]  # the names of {} in order, or a class table"
STATISTICS_LINE = "input: {mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375]}"
_INPUT = (
    "layout", "colours", "size_rule", "multiple", "size", "scale", "rows", "enlarge", "fit", "resize",
    "shortest_edge", "longest_edge",
)  # fmt: skip
_MOST_IDS = 65_535


@dataclass
class Study:
    """Collect the known properties of a network of others.

    Attributes:
        path: of the file or directory.
        beside: the card beside it.
        facts: value and where it comes from, by the name in the card (`input.mean`, `output.kind`, `classes`, ...).
        missing: for what is not known and matters, the line that the card beside the file should have.
        card: None where something is missing.
        network: to be executed; None where something is missing that its trial needs.
        trial: what running it once has shown; None where it was not run.
    """

    path: Path
    beside: CardFile
    facts: dict[str, tuple[Any, str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    card: ModelCard | None = None
    network: Foreign | None = None
    trial: Trial | None = None

    def value(self, name: str) -> Any:
        return self.facts[name][0]

    def learn(self, name: str, value: Any, origin: str) -> None:
        """Note a fact of the input or the output (`input.mean`); what the card says counts first."""
        part, _, key = name.partition(".")
        said: Mapping[str, Any] = getattr(self.beside, part)
        self.facts[name] = (said[key], "card") if key in said else (value, origin)

    def fail(self) -> CheckpointError:
        """Make the error that says what is missing."""
        lines = "; ".join(f"`{line}`" for line in self.missing)
        return CheckpointError(
            f"{self.path}: does not tell all that is needed; add to {self.beside.path.name} beside it: {lines}"
        )

    def learn_sizes(self, sides: tuple[int | None, int | None] = (None, None)) -> None:
        """Note what sizes it takes, where no library tells: `sides` (h, w) are fixed or free."""
        fixed = None not in sides
        self.learn("input.size_rule", "fixed" if fixed else "multiple", "by its input's dimensions")
        self.learn("input.size", sides if fixed else None, "by its input's dimensions")
        self.learn("input.scale", None, "not known: the picture's own size")
        self.learn_rows()

    def learn_rows(self) -> None:
        """Note in how many rows it saw a picture, which no file of others tells."""
        self.learn("input.rows", None, "not known")
        self.learn("input.enlarge", 1.0, "default: pictures of fewer rows are not enlarged")

    def learn_classes(self, names: Sequence[str] | None, origin: str, channels: int | None) -> ClassTable | None:
        """Note its classes.

        Args:
            names: that the file tells; None where it does not.
            origin: who says so.
            channels: of its output; None for class ids.

        Raises:
            CheckpointError: not as many as its output has, or too many.
        """
        own = "its classes" if channels is None else f"the {max(2, channels)} classes"
        groups, table = self.beside.groups, self.beside.classes
        if groups is None and max(channels or 0, len(names or ())) > MAX_CLASSES:
            raise CheckpointError(
                f"{self.path}: expected at most {MAX_CLASSES} classes, found {channels or len(names or ())}; "
                f"{self.beside.path.name} beside it may put them together: `map: {{road: [7, 8], ...}}`"
            )
        if groups is not None:
            assert table is not None  # `read_card_file` has made one
            largest = max(max(group) for group in groups)
            if channels is not None and largest >= channels:
                raise CheckpointError(
                    f"{self.beside.path}: map: expected ids below {channels}, as its output has {channels} channels, "
                    f"got {largest}"
                )
            self.facts["classes"] = table, "card"
            self.facts["map"] = dict(zip(table.names, map(list, groups), strict=True)), "card"
            return table
        if table is None and names:
            table = table_of(self.path.stem, list(names))
        else:
            origin = "card"
        if table is None:
            self.missing.append(CLASSES_LINE.format(own))
            return None
        wanted = len(table) if channels is None else max(2, channels)
        if len(table) != wanted:
            raise CheckpointError(
                f"{self.path}: expected {wanted} classes, as its output has {channels} channels, found {len(table)} "
                f"in {self.beside.path.name if origin == 'card' else origin} ({', '.join(table.names[:6])}, ...)"
            )
        self.facts["classes"] = table, origin
        return table

    def try_out(self, network: Foreign, size: tuple[int, int]) -> Trial:
        """Run the network once, see `probe`.

        Args:
            size: (h, w) of its input, see `tried_size`.

        Raises:
            CheckpointError: nothing runs it; where that may be because of the size, with the line that would change it.
        """
        try:
            return probe(network, size, self.value("input.mean"), self.value("input.std"))
        except CheckpointError as error:
            multiple, origin = self.facts["input.multiple"]
            if self.value("input.size_rule") == "fixed" or not origin.startswith("assumed"):
                raise
            lines = f"`input: {{multiple: {2 * multiple}}}`, or one that it takes: `input: {{size: [512, 1024]}}`"
            raise CheckpointError(
                f"{error}; it was given {size[1]} x {size[0]}: if it takes other sizes, {self.beside.path.name} beside "
                f"it should say so: {lines}"
            ) from error

    def finish(self, architecture: str, network: Foreign, trial: Trial, size: tuple[int, int], taken: str,
               names: Sequence[str] | None, origin: str) -> Study:  # fmt: skip
        """Check what the trial has shown, and make the card if nothing is missing.

        Args:
            architecture: see `ModelCard`.
            size: (h, w) of the picture that was tried.
            taken: name of the output, for messages.
            names, origin: see `learn_classes`.
        """
        kind = self.value("output.kind")
        self._check(trial, size, taken, kind)
        stride = max(1, round(size[0] / trial.shape[2]))
        self.facts["output.stride"] = stride, f"by running it at {size[1]} x {size[0]}"
        table = self.learn_classes(names, origin, None if kind == "labels" else trial.shape[1])
        if self.missing:
            return self
        assert table is not None
        network.num_classes = len(table)
        self.network, self.trial = network, trial
        self.card = self._card(architecture, table, network.checksum)
        return self

    def _check(self, trial: Trial, size: tuple[int, int], taken: str, kind: str) -> None:
        batch, channels, height, width = trial.shape
        where = f"{self.path}: {taken}"
        if not trial.finite:
            raise CheckpointError(f"{where}: expected finite values for a picture, found NaN or infinity")
        near = size[0] / 64 <= height <= size[0] * 2 and size[1] / 64 <= width <= size[1] * 2
        if batch != 1 or not (near or kind == "queries"):
            raise CheckpointError(
                f"{where}: expected a map of a {size[1]} x {size[0]} picture, found {list(trial.shape)}"
            )
        most = 255 if self.beside.groups is None else _MOST_IDS
        if kind == "labels" and (channels != 1 or trial.low < 0 or trial.high > most):
            raise CheckpointError(
                f"{where}: expected class ids 0 to 254, found {channels} channels of {trial.low:g} to {trial.high:g}; "
                f"{self.beside.path.name} beside it may put more of them together: `map: {{road: [7, 8], ...}}`"
            )
        if kind == "probabilities" and not (trial.low >= -1e-3 and trial.high <= 1 + 1e-3):
            raise CheckpointError(f"{where}: expected probabilities, found {trial.low:g} to {trial.high:g}")

    def _card(self, architecture: str, table: ClassTable, checksum: str) -> ModelCard:
        value: Mapping[str, Any] = {name: fact for name, (fact, _) in self.facts.items()}
        given: dict[str, Any] = {name: value[f"input.{name}"] for name in _INPUT if f"input.{name}" in value}
        statistics: dict[str, Any] = {name: tuple(value[f"input.{name}"]) for name in ("mean", "std")}
        names = ("kind", "stride", "corners", "threshold", "mask_size")
        taken: dict[str, Any] = {name: value[f"output.{name}"] for name in names if f"output.{name}" in value}
        beside = self.beside
        try:
            output = OutputCard(**taken, groups=beside.groups)
            return ModelCard(
                architecture, InputCard(**given, **statistics), output, table,
                licence=beside.licence, source=beside.source, checksum=checksum,
            )  # fmt: skip
        except CheckpointError as error:
            raise CheckpointError(f"{beside.path}: {error}") from error

    def tried_size(self) -> tuple[int, int]:
        """Choose a size for the trial: its own, or one that is no square, so that sides which are mixed up show."""
        if (size := self.value("input.size")) is not None:
            return size
        multiple = self.value("input.multiple")
        side = max(1, round(TRIED_SIDE / multiple)) * multiple
        return (side, side) if self.value("input.size_rule") == "square" else (side, side + max(multiple, 32))
