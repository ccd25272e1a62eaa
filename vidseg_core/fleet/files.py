"""The files that a configuration names, sent once to each machine."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError
from vidseg_core.models.registry import find_weights

WEIGHTS = ("weights", "refine_weights", "flow_weights", "update_weights")


@dataclass(frozen=True)
class Files:
    """Hold the files of a configuration.

    Attributes:
        content: by option and name: a weight file is followed by the card beside it.
    """

    content: Mapping[str, Mapping[str, bytes]]

    @classmethod
    def of(cls, config: EngineConfig) -> Files:
        """Read the files of a configuration.

        Raises:
            CheckpointError: weights are not there.
            ConfigError: another file is not there.
        """
        content = {}
        for option in WEIGHTS:
            if (name := getattr(config, option)) is not None:
                path = find_weights(name)
                card = path.with_suffix(".card.yaml")
                content[option] = {one.name: one.read_bytes() for one in (path, card) if one.is_file()}
        for option in ("classes", "ego_mask"):
            name = getattr(config, option)
            if name is not None and (Path(name).is_file() or option == "ego_mask"):
                if not Path(name).is_file():
                    raise ConfigError(f"{option}: {name}: no such file")
                content[option] = {Path(name).name: Path(name).read_bytes()}
        return cls(content)

    def digests(self) -> dict[str, str]:
        """Digest the files of each option (SHA-256)."""
        return {
            option: hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in files.values())).hexdigest()
            for option, files in self.content.items()
        }

    def unpacked(self, config: EngineConfig) -> EngineConfig:
        """Write the files to this machine, unless they are there, and return the configuration that names them here."""
        here = {}
        for option, files in self.content.items():
            folder = Path(tempfile.gettempdir(), f"vidseg-fleet-files-{os.getuid()}", self.digests()[option])
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name, content in files.items():
                path = folder / name
                if not (path.is_file() and path.stat().st_size == len(content)):
                    part = folder / f".{name}.{os.getpid()}.part"
                    part.write_bytes(content)
                    os.replace(part, path)
            here[option] = str(folder / next(iter(files)))
        return replace(config, **here)
