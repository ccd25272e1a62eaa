"""The task of a fleet as driver and workers know it: what is computed, and where results are kept."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vidseg_core.data.writers import output_folder
from vidseg_core.fleet.files import Files
from vidseg_core.fleet.labels import is_written
from vidseg_core.fleet.plan import Choices, Drive, Segment, digest
from vidseg_core.fleet.store import Store

SEEN = ".seen-by-workers"
"""A file by which workers find that they see the folder of results."""


@dataclass(frozen=True)
class Task:
    """Say what is computed and where it goes.

    Attributes:
        choices: what is computed.
        out: folder of the results, which all machines see.
        address: of everything that results depend on but the recording, see `Choices.address`.
        seen: what workers have to find in `SEEN`.
        labels_folder: where labels go; None: beside each recording.
    """

    choices: Choices
    out: Path
    address: str
    seen: str
    labels_folder: Path | None = None

    @classmethod
    def of(cls, choices: Choices, files: Files, out: Path, labels_folder: Path | None = None) -> Task:
        """Make a task.

        Args:
            choices, out, labels_folder: see above.
            files: of the configuration.
        """
        return cls(choices, out, choices.address(files.digests()), secrets.token_hex(8), labels_folder)

    @cached_property
    def store(self) -> Store:
        """Return the results of segments."""
        return Store(self.out / "segments")

    def prepare(self) -> None:
        """Make the folder, and write into it what workers have to see.

        Raises:
            ConfigError: it cannot be written.
        """
        output_folder(self.out)
        (self.out / SEEN).write_text(self.seen, encoding="utf-8")

    def segments(self, drive: Drive) -> list[Segment]:
        """Cut a drive into segments."""
        return drive.segments(self.choices, self.address)

    def marker(self, drive: Drive) -> Path:
        """Return the file that tells where the labels of a drive are."""
        said = [self.address, drive.content, drive.topic, drive.place, self.choices.form, str(self.labels_folder)]
        return self.out / "labelled" / f"{digest(said)}.json"

    def is_done(self, segment: Segment) -> bool:
        """Tell if a segment's result is there, or the labels that it became a part of."""
        if self.store.has(segment.address):
            return True
        return self.choices.kind == "label" and is_written(self.marker(segment.drive))

    def needs_finish(self, drive: Drive) -> bool:
        """Tell if the labels of a drive are still to be put together."""
        return self.choices.kind == "label" and not is_written(self.marker(drive))
