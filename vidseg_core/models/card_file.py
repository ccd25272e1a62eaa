"""Cards beside weight files of others: `NAME.card.yaml` says what the file does not, in the words of `ModelCard`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.errors import CheckpointError
from vidseg_core.models.card import CARD_VERSION, InputCard

_KEYS = ("card_version", "classes", "map", "input", "output", "licence", "source")
_INPUT = (
    "name", "layout", "colours", "mean", "std", "size_rule", "multiple", "size", "scale", "rows", "enlarge", "fit",
    "resize", "shortest_edge", "longest_edge",
)  # fmt: skip
_OUTPUT = ("name", "layout", "kind", "corners", "threshold", "class_queries", "mask_size")
BACKGROUND = "background"


@dataclass(frozen=True)
class CardFile:
    """Hold the content of a card beside a weight file.

    Attributes:
        path: where it is or would be.
        classes: a class table; None where it does not say. With `groups` alone, one of their names.
        groups: for each class, the network's own channels or ids that belong to it; None where it does not say.
        input, output: what it says of them, by the names in `InputCard` and `OutputCard`.
        licence, source: see `ModelCard`.
    """

    path: Path
    classes: ClassTable | None = None
    groups: tuple[tuple[int, ...], ...] | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None
    source: str | None = None


def read_card_file(weights: Path) -> CardFile:
    """Read the card beside a weight file; one that says nothing where there is none.

    Raises:
        CheckpointError: it is not a YAML file of the known keys, or mean and deviation are of values 0..1.
        ClassTableError: its class table is malformed or unknown.
    """
    path = card_path(weights)
    if not path.is_file():
        return CardFile(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    _known(path, "", content, _KEYS)
    version = content.get("card_version", CARD_VERSION)
    if version != CARD_VERSION:
        raise CheckpointError(f"{path}: card_version: expected {CARD_VERSION}, got {version!r}")
    given, taken = content.get("input") or {}, content.get("output") or {}
    _known(path, "input", given, _INPUT)
    _known(path, "output", taken, _OUTPUT)
    given, taken = (
        {key: tuple(value) if isinstance(value, list) else value for key, value in part.items()}
        for part in (given, taken)
    )
    _check_input(path, given)
    _check_units(path, given)
    table, groups = _groups(path, content.get("map"), _classes(path, content.get("classes")))
    return CardFile(path, table, groups, given, taken, content.get("licence"), content.get("source"))


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: the first one's lines would be dropped in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"expected each key once, got {twice[0]!r} twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def card_path(weights: Path) -> Path:
    """Return the place of the card of a weight file, or of a directory with one."""
    return weights.with_name(f"{weights.name if weights.is_dir() else weights.stem}.card.yaml")


def _groups(
    path: Path, given: object, table: ClassTable | None
) -> tuple[ClassTable | None, tuple[tuple[int, ...], ...] | None]:
    """Read `map`: by the name of a class, the network's channels or ids that belong to it."""
    if given is None:
        return table, None
    expected = "lists of the network's own class ids by the names of classes, each id once"
    if not isinstance(given, dict) or not given:
        raise CheckpointError(f"{path}: map: expected {expected}, got {given!r}")
    ids = {str(name): [one] if type(one) is int else one for name, one in given.items()}
    if not all(isinstance(one, list) and one and all(type(i) is int and i >= 0 for i in one) for one in ids.values()):
        raise CheckpointError(f"{path}: map: expected {expected}, got {given!r}")
    several = [i for one in ids.values() for i in one]
    if len(set(several)) < len(several):
        raise CheckpointError(f"{path}: map: expected {expected}, got one id twice")
    table = table_of(path.name.removesuffix(".card.yaml"), list(ids)) if table is None else table
    if set(table.names) != set(ids):
        raise CheckpointError(f"{path}: map: expected the classes {', '.join(table.names)}, got {', '.join(ids)}")
    return table, tuple(tuple(ids[name]) for name in table.names)


def _known(path: Path, where: str, content: object, keys: Sequence[str]) -> None:
    prefix = f"{path}: {where + ': ' if where else ''}"
    if not isinstance(content, dict):
        raise CheckpointError(f"{prefix}expected some of {', '.join(keys)}, got {content!r}")
    if unknown := sorted(set(map(str, content)) - set(keys)):
        raise CheckpointError(f"{prefix}expected some of {', '.join(keys)}, got {', '.join(unknown)}")


def _check_input(path: Path, given: Mapping[str, Any]) -> None:
    """Refuse values that no network is given, before the network is tried with them."""
    stands_alone = {key: value for key, value in given.items() if key != "name"}
    if "size" in given:
        stands_alone.setdefault("size_rule", "fixed")
    elif given.get("size_rule") in ("fixed", "preferred"):
        del stands_alone["size_rule"]  # perhaps the file tells the size
    try:
        InputCard(**stands_alone)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: input: {error}") from error


def _check_units(path: Path, given: Mapping[str, Any]) -> None:
    """Refuse statistics of values 0..1, which is how most other software writes them."""
    if ("mean" in given) != ("std" in given):
        raise CheckpointError(f"{path}: input: expected mean and std, both or neither, got {dict(given)}")
    mean, std = given.get("mean", ()), given.get("std", ())
    if not all(isinstance(values, tuple) and values for values in (mean, std)):
        return  # none; or `InputCard` says what is wrong
    if not all(isinstance(one, int | float) for one in (*mean, *std)):
        return
    if max(std) <= 1 and max(mean) <= 1 and (tuple(mean), tuple(std)) != ((0,) * 3, (1,) * 3):
        scaled = [round(255 * one, 3) for one in mean], [round(255 * one, 3) for one in std]
        raise CheckpointError(
            f"{path}: input: mean and std are of values 0..255, these look like those of values 0..1; expected "
            f"mean: {scaled[0]}, std: {scaled[1]}"
        )


def _classes(path: Path, given: object) -> ClassTable | None:
    if given is None:
        return None
    if isinstance(given, str):
        beside = path.parent / given
        return load_classes(beside if beside.is_file() else given)
    if isinstance(given, dict):
        return ClassTable.from_dict(given, path)
    if isinstance(given, list) and all(isinstance(one, str) for one in given):
        return table_of(path.name.removesuffix(".card.yaml"), given)
    raise CheckpointError(f"{path}: classes: expected a class table, its name, or a list of names, got {given!r}")


def table_of(name: str, names: Sequence[str]) -> ClassTable:
    """Make a class table of names alone; colours are spread over the hues. One name gets a black background before it.

    Raises:
        ClassTableError: none, too many, or one twice.
    """
    colours = tuple(_colour(i) for i in range(len(names)))
    if len(names) == 1:
        names, colours = (BACKGROUND, *names), ((0, 0, 0), *colours)
    return ClassTable(name, tuple(names), colours)


def _colour(index: int) -> tuple[int, int, int]:
    """A colour that differs from its neighbours': hues go by the golden ratio, brightness in three steps."""
    hue, value = (index * 0.61803398875) % 1.0, (0.95, 0.75, 0.55)[index % 3]
    channels = [value * (1 - 0.75 * np.clip(2 - abs((hue * 6 + shift) % 6 - 3), 0, 1)) for shift in (0.0, 4.0, 2.0)]
    return tuple(int(round(255 * channel)) for channel in channels)  # type: ignore[return-value]
