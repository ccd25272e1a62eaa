"""The registry of weight files: a record for each known file, where it is on this machine, and how to fetch it."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from vidseg_core.errors import CheckpointError
from vidseg_core.models.accuracy import Accuracy
from vidseg_core.models.checksum import checksum
from vidseg_core.resources import YAML_LOADER, resource

log = logging.getLogger(__name__)
_noticed: set[str] = set()

LAYOUTS = ("vidseg", "public", "torchvision")
# Shorter beginnings of a SHA-256 say too little about a file; eight digits are what torchvision puts into its names.
MIN_SHA256_DIGITS = 8
NAME = r"[a-z0-9][a-z0-9._-]*"
NOT_TEXT = ("activation_ranges", "input_rows", "enlarge", "accuracy")


@dataclass(frozen=True)
class WeightRecord:
    """A registered weight file.

    Attributes:
        name: what commands and configurations call it.
        file: its file name.
        layout: one of `LAYOUTS`.
        architecture: the network, by its name in `models.architectures`.
        classes: name of the class table that its outputs follow; None for a network without classes.
        licence: under which the file may be used.
        url: where it can be fetched; None for a file that comes with the package.
        checksum: `sha256:` and at least the first 8 hexadecimal digits, or `git-blob:` and 40.
        note: what else a user must know.
        formerly: name of the file that it replaced, which configurations may still have; empty: none.
        activation_ranges: what values its convolutions meet, by their names: see `vidseg_core.backends.integers`; None
            where that is not known, or the file itself tells.
        input_rows, enlarge: see `vidseg_core.models.card.InputCard`; None where that is not known, or the file itself
            tells.
        accuracy: see `vidseg_core.models.accuracy.Accuracy`; None where it was not measured, or the file itself tells.
    """

    name: str
    file: str
    layout: str
    architecture: str
    classes: str | None
    licence: str
    url: str | None
    checksum: str
    note: str = ""
    formerly: str = ""
    activation_ranges: dict[str, list[float]] | None = None
    input_rows: int | None = None
    enlarge: float | None = None
    accuracy: dict[str, Any] | None = None

    def __post_init__(self):
        def expect(condition: bool, expected: str, value: object):
            if not condition:
                raise CheckpointError(f"weights {self.name!r}: expected {expected}, got {value!r}")

        expect(
            self.activation_ranges is None or is_ranges(self.activation_ranges),
            "two numbers, the smaller one first, for each name in activation_ranges",
            self.activation_ranges,
        )
        rows, enlarge = self.input_rows, self.enlarge
        expect(rows is None or (type(rows) is int and rows >= 1), "a whole number, 1 or more, as input_rows", rows)
        good = isinstance(enlarge, int | float) and not isinstance(enlarge, bool) and 1 <= enlarge < math.inf
        expect(enlarge is None or good, "a number, 1 or more, as enlarge", enlarge)
        if self.accuracy is not None:
            Accuracy.from_dict(self.accuracy)
        for field in fields(self)[: -len(NOT_TEXT)]:
            value, optional = getattr(self, field.name), field.name in ("classes", "url")
            expect(isinstance(value, str) or (optional and value is None), f"text as {field.name}", value)
        expect(re.fullmatch(NAME, self.name), "a name of a-z, 0-9, '.', '_' and '-'", self.name)
        expect(re.fullmatch(NAME + "|", self.formerly), "a name or nothing as formerly", self.formerly)
        expect(re.fullmatch(r"[\w][\w.-]*", self.file), "a file name without a directory", self.file)
        expect(self.url is None or re.match(r"https?://", self.url), "a url that begins with http(s)://", self.url)
        expect(self.layout in LAYOUTS, f"a layout out of {LAYOUTS}", self.layout)
        expect(
            re.fullmatch(rf"sha256:[0-9a-f]{{{MIN_SHA256_DIGITS},64}}|git-blob:[0-9a-f]{{40}}", self.checksum),
            f"a checksum as sha256:HEX ({MIN_SHA256_DIGITS} to 64 digits) or git-blob:HEX (40 digits)",
            self.checksum,
        )

    def locate(self) -> Path | None:
        """Find the file, in the first of `search_directories` that has it; None where none has."""
        candidates = (directory / self.file for directory in search_directories())
        return next((path for path in candidates if path.is_file()), None)

    @property
    def digest(self) -> tuple[str, str]:
        """Split the checksum into kind and hexadecimal digits: `("sha256", "f37072fd")`."""
        kind, digits = self.checksum.split(":")
        return kind, digits

    def mismatch(self, path: str | Path) -> str | None:
        """Return None where the file at `path` has this record's checksum, else what was expected and what came."""
        kind, digits = self.digest
        found = checksum(path, kind)
        return None if found.startswith(digits) else f"expected {kind} {digits}, found {found}"

    def verify(self, path: str | Path) -> None:
        """Check that the file at `path` has this record's checksum.

        Raises:
            CheckpointError: it has another one.
        """
        if mismatch := self.mismatch(path):
            raise CheckpointError(f"{path}: not weights {self.name!r}, or damaged: {mismatch}")


def is_ranges(value: object) -> bool:
    """Return whether `value` maps names to pairs of finite numbers, the smaller one first."""
    return (
        isinstance(value, dict)
        and all(isinstance(limits, list | tuple) and len(limits) == 2 for limits in value.values())
        and all(isinstance(limit, int | float) and math.isfinite(limit) for pair in value.values() for limit in pair)
        and all(low <= high for low, high in value.values())
    )


def load_registry(path: str | Path | None = None) -> tuple[WeightRecord, ...]:
    """Load the records of a registry file; without a path those of `weights/registry.yaml`.

    Raises:
        CheckpointError: not a YAML file of records, a field missing, unknown or malformed, a name or file used twice,
            or an accuracy with an update network that is not registered or has other classes.
    """
    path = resource("weights/registry.yaml") if path is None else Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), YAML_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a YAML file: {error}") from error
    entries = content.get("weights") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CheckpointError(f"{path}: expected a list of records under `weights`")
    try:
        records = tuple(WeightRecord(**entry) for entry in entries)
    except (TypeError, CheckpointError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    for kind in ("name", "file"):
        values = [getattr(record, kind) for record in records]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise CheckpointError(f"{path}: expected every {kind} once, found {twice} more than once")
    fitting = {(record.name, record.classes) for record in records}
    for record in records:
        update = None if record.accuracy is None else record.accuracy.get("update")
        if update is not None and (update["weights"], record.classes) not in fitting:
            raise CheckpointError(
                f"{path}: weights {record.name!r}: accuracy: expected a registered update network of classes "
                f"{record.classes!r}, got {update['weights']!r}"
            )
    return records


def find_record(name: str, records: tuple[WeightRecord, ...] | None = None) -> WeightRecord:
    """Find the record of that name.

    Raises:
        CheckpointError: there is none; the message lists those that there are.
    """
    records = load_registry() if records is None else records
    record = _called(name, records)
    if record is not None:
        return record
    raise CheckpointError(f"no weights named {name!r}: expected one of {[record.name for record in records]}")


def _called(name: str, records: tuple[WeightRecord, ...]) -> WeightRecord | None:
    for record in records:
        if record.name == name:
            return record
        if record.formerly == name:
            if name not in _noticed:
                _noticed.add(name)
                log.warning("weights %s are replaced by %s, which is used; the old name goes in 0.3", name, record.name)
            return record
    return None


def registered_name(name_or_path: str | Path) -> str:
    """Return the present name of registered weights, be they called by a former one; anything else as it is."""
    record = _called(str(name_or_path), load_registry())
    return str(name_or_path) if record is None else record.name


def record_of(path: str | Path, records: tuple[WeightRecord, ...] | None = None) -> WeightRecord | None:
    """Find the record whose checksum a file has, whatever the file is called; None for one that is not registered."""
    records = load_registry() if records is None else records
    return record_with({kind: checksum(path, kind) for kind in {record.digest[0] for record in records}}, records)


def record_with(checksums: Mapping[str, str], records: tuple[WeightRecord, ...]) -> WeightRecord | None:
    """Find the record of a file with these digests, by their kind; None for a file that is not registered."""
    found = ((record, *record.digest) for record in records)
    return next((record for record, kind, digits in found if checksums[kind].startswith(digits)), None)


def download_directory() -> Path:
    """Return the directory that fetched files go to: `$VIDSEG_WEIGHTS`, or else `~/.cache/vidseg/weights`."""
    chosen = os.environ.get("VIDSEG_WEIGHTS")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "vidseg" / "weights"


def search_directories() -> tuple[Path, ...]:
    """List where weight files are looked for, in order: the package, `$VIDSEG_WEIGHTS`, `~/.cache/vidseg/weights`."""
    cache = Path.home() / ".cache" / "vidseg" / "weights"
    return tuple(dict.fromkeys((resource("weights"), download_directory(), cache)))


def find_weights(name_or_path: str | Path, records: tuple[WeightRecord, ...] | None = None) -> Path:
    """Find the file that a path or a registered name stands for. Its content is not looked at.

    Raises:
        CheckpointError: neither a file nor a registered name, or the file of that name is not on this machine; the
            message then names the command that fetches it.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file() or (path / "config.json").is_file():
        return path
    if path.is_dir():
        raise CheckpointError(f"{path}: expected a weight file or a Hugging Face directory; it has no config.json")
    records = load_registry() if records is None else records
    record = _called(str(name_or_path), records)
    if record is None:
        raise CheckpointError(
            f"{name_or_path}: neither a weight file nor the name of one: expected a path or one of "
            f"{[record.name for record in records]}"
        )
    found = record.locate()
    if found is None:
        fetching = f"`vidseg weights get {record.name}` fetches it"
        advice = fetching if record.url else "it comes with vidseg: reinstall it"
        searched = ", ".join(map(str, search_directories()))
        raise CheckpointError(f"weights {record.name!r}: no {record.file} in {searched}: {advice}")
    return found
