"""The one door for trained networks: a name or a path in, networks and their card out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.errors import CheckpointError
from vidseg_core.models.architectures import SEGMENTER, expect, names_with
from vidseg_core.models.card import ModelCard, card_of
from vidseg_core.models.checkpoint import check_classes
from vidseg_core.models.files import read_file
from vidseg_core.models.foreign import is_foreign, study
from vidseg_core.models.registry import WeightRecord, find_weights, load_registry, record_with
from vidseg_core.models.sidecars import read_accuracy
from vidseg_core.networks.graph import Foreign


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
        if isinstance(network, Foreign):
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
    if form := is_foreign(path):
        if role not in (None, SEGMENTER):
            raise CheckpointError(f"{path}: expected weights of {' or '.join(names_with(role))}, found {form}")
        found = study(path)
        if found.card is None or found.network is None:
            raise found.fail()
        card = replace(found.card, accuracy=read_accuracy(path, found.card.checksum))
        return Model(path, card, {SEGMENTER: found.network})
    file = read_file(path)
    architecture = expect(path, file.tensors, *names_with(role))
    networks = architecture.networks(path, file.tensors)
    record = record_with(file.checksums, records)
    registered = None if record is None or record.classes is None else load_classes(record.classes)
    try:
        card = card_of(
            architecture.name, file.metadata, record, input=architecture.input, output=architecture.output,
            registered_classes=registered, checksum=file.checksums["sha256"],
        )  # fmt: skip
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if card.activation_ranges is not None and SEGMENTER in networks:
        modules = networks[SEGMENTER].named_modules()
        names = {name for name, module in modules if isinstance(module, nn.Conv2d)}
        if strangers := sorted(set(card.activation_ranges) - names):
            raise CheckpointError(
                f"{path}: activation_ranges: expected two numbers for names of its convolutions, got {strangers[0]!r}"
            )
    return Model(path, card, networks)
