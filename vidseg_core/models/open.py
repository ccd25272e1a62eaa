"""The one door for trained networks: a name or a path in, networks and their card out.

PyTorch is loaded where networks are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vidseg_core.backends.backend import Reloadable, is_foreign
from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.errors import CheckpointError
from vidseg_core.models.architectures import SEGMENTER, SWIFTNETS, Architecture, expect, identify, names_with
from vidseg_core.models.card import ModelCard, card_of, check_classes
from vidseg_core.models.files import read_file, read_header
from vidseg_core.models.foreign import form_of, study
from vidseg_core.models.known import Known, describe, known_network, remember_network
from vidseg_core.models.registry import WeightRecord, find_weights, load_registry, record_with
from vidseg_core.models.sidecars import read_accuracy

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Model:
    """A trained network, or several that belong together.

    Attributes:
        path: the file that it came from.
        card: what is known about it.
        networks: by role (segmenter, refine, flow), on the CPU, in evaluation mode.
    """

    path: Path
    card: ModelCard
    networks: Mapping[str, nn.Module]

    def check_classes(self, table: ClassTable) -> None:
        """Check that its networks have the classes of `table`, as far as the card tells.

        Raises:
            CheckpointError: they have others, or another number of them.
        """
        for network in self.networks.values():
            check_classes(self.path, getattr(network, "num_classes", len(table)), table)
        stored = self.card.classes
        if stored is not None and stored.names != table.names:
            raise CheckpointError(
                f"{self.path}: expected the classes of table {table.name!r} ({', '.join(table.names)}), "
                f"found those of {stored.name!r} ({', '.join(stored.names)})"
            )

    def torch_network(self, role: str) -> nn.Module:
        """Return the network of that role, which PyTorch has to be able to run.

        Raises:
            CheckpointError: it is a network of others.
        """
        network = self.networks[role]
        if is_foreign(network):
            raise CheckpointError(f"{self.path}: expected {' or '.join(names_with(role))}, found {network.form}")
        return network


def open_model(
    name_or_path: str | Path, role: str | None = None, records: tuple[WeightRecord, ...] | None = None
) -> Model:
    """Open a weight file, once, and load what is in it.

    Args:
        name_or_path: a name in the registry of weights, or the path of a file or of a Hugging Face directory.
        role: the network that is wanted: segmenter, refine or flow; None for whatever there is.
        records: of the registry; None for the package's own.

    Raises:
        CheckpointError: not there, damaged, of an architecture that is not known or brings no such network, of an
            unknown version, or with metadata that make no sense.
        ClassTableError: its class table is malformed.
    """
    records = load_registry() if records is None else records
    path = find_weights(name_or_path, records)
    if form := form_of(path):
        if role not in (None, SEGMENTER):
            raise CheckpointError(f"{path}: expected weights of {' or '.join(names_with(role))}, found {form}")
        found = study(path)
        if found.card is None or found.network is None:
            raise found.fail()
        card = replace(found.card, accuracy=read_accuracy(path, found.card.checksum))
        return Model(path, card, {SEGMENTER: found.network})
    return _open_own(path, role, records)[0]


def is_known(name_or_path: str | Path, records: tuple[WeightRecord, ...] | None = None) -> bool:
    """Tell if `open_reloadable` gives this network without loading PyTorch.

    Args:
        name_or_path, records: see `open_model`.

    Raises:
        CheckpointError: there is no such file.
    """
    records = load_registry() if records is None else records
    return _known(find_weights(name_or_path, records), records) is not None


def open_reloadable(name_or_path: str | Path, records: tuple[WeightRecord, ...] | None = None) -> Model:
    """Open a segmentation network that another process executes.

    The network of a file of our own comes as a `Reloadable`. Where this very file was opened so before, by this code,
    PyTorch is not loaded. Otherwise the file is opened as by `open_model`, and that is remembered. Networks of others
    come as they are.

    Args:
        name_or_path, records: see `open_model`.

    Raises:
        CheckpointError, ClassTableError: see `open_model`.
    """
    records = load_registry() if records is None else records
    path = find_weights(name_or_path, records)
    if form_of(path):
        return open_model(path, SEGMENTER, records)
    if (found := _known(path, records)) is None:
        model, checksums = _open_own(path, SEGMENTER, records)
        network = model.networks[SEGMENTER]
        card, known = model.card, describe(network, _convolutions(network), checksums["git-blob"])
        if path.suffix == ".safetensors" and card.architecture in {one.name for one in SWIFTNETS.values()}:
            remember_network(checksums["sha256"], known, network)
    else:
        card, known = found

    def load() -> nn.Module:
        return open_model(path, SEGMENTER, records).networks[SEGMENTER]

    # Whoever executes networks takes either.
    return Model(path, card, {SEGMENTER: cast(Any, Reloadable(known.identity, load, known.num_classes))})


def _open_own(path: Path, role: str | None, records: tuple[WeightRecord, ...]) -> tuple[Model, Mapping[str, str]]:
    """Load all that is in a file of weights; with the file's digests by their kinds."""
    file = read_file(path)
    architecture = expect(path, file.tensors, *names_with(role))
    networks = architecture.networks(path, file.tensors)
    card = _card(path, architecture, file.metadata, file.checksums, records)
    if SEGMENTER in networks:
        _check_ranges(path, card, _convolutions(networks[SEGMENTER]))
    return Model(path, card, networks), file.checksums


def _known(path: Path, records: tuple[WeightRecord, ...]) -> tuple[ModelCard, Known] | None:
    """Make the card of a file that was loaded before; None for any other file, and for one that cannot be read."""
    if path.suffix != ".safetensors":
        return None
    try:
        header = read_header(path)
    except (CheckpointError, OSError):
        return None  # loading it says what is wrong
    known, architecture = known_network(header.sha256), identify(header.keys)
    if known is None or architecture is None or architecture not in SWIFTNETS.values():
        return None
    card = _card(path, architecture, header.metadata, {"sha256": header.sha256, "git-blob": known.git_blob}, records)
    _check_ranges(path, card, known.convolutions)
    return card, known


def _card(
    path: Path,
    architecture: Architecture,
    metadata: Mapping[str, object],
    checksums: Mapping[str, str],
    records: tuple[WeightRecord, ...],
) -> ModelCard:
    record = record_with(checksums, records)
    registered = None if record is None or record.classes is None else load_classes(record.classes)
    try:
        return card_of(
            architecture.name, metadata, record, input=architecture.input, output=architecture.output,
            registered_classes=registered, checksum=checksums["sha256"],
        )  # fmt: skip
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _check_ranges(path: Path, card: ModelCard, convolutions: Collection[str]) -> None:
    if strangers := sorted(set(card.activation_ranges or ()) - set(convolutions)):
        raise CheckpointError(
            f"{path}: activation_ranges: expected two numbers for names of its convolutions, got {strangers[0]!r}"
        )


def _convolutions(network: nn.Module) -> set[str]:
    """List the convolutions of a network, by their names."""
    from torch import nn

    return {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
