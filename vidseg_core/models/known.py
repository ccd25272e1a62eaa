"""Networks of our own weight files that were loaded before: all that is needed of one that another process executes.

Loading it again takes a second and hundreds of megabytes, for PyTorch, and says the same. What is known is kept beside
the compiled networks, under a name that differs for every other content of the file, other code that reads or computes
it, and other version of PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from vidseg_core.backends.blob_cache import (
    WITH_VERSION,
    cache_directory,
    code_files,
    digest_of,
    find_blob,
    identity_of,
    store_blob,
)
from vidseg_core.classes import MAX_CLASSES

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)
_NETWORKS = "vidseg_core.networks."


@dataclass(frozen=True)
class Known:
    """A segmentation network in a file of our own, as it was when it was loaded.

    Attributes:
        identity: see `identity_of`.
        num_classes: of its output.
        convolutions: their names.
        git_blob: digest of its file, see `checksum`.
    """

    identity: str
    num_classes: int
    convolutions: tuple[str, ...]
    git_blob: str

    @property
    def is_sound(self) -> bool:
        """Return whether all of it is of its kind."""
        return (
            isinstance(self.identity, str)
            and re.fullmatch("[0-9a-f]{64}", self.identity) is not None
            and type(self.num_classes) is int
            and 1 <= self.num_classes <= MAX_CLASSES
            and isinstance(self.convolutions, tuple)
            and all(isinstance(name, str) for name in self.convolutions)
            and isinstance(self.git_blob, str)
            and re.fullmatch("[0-9a-f]{40}", self.git_blob) is not None
        )


def known_network(sha256: str) -> Known | None:
    """Return what is known of the network in a file with that digest; None where nothing is, or the record is damaged.

    Args:
        sha256: of the whole file, hexadecimal.
    """
    try:
        check, content = find_blob(_name(sha256)).read_bytes().split(b"\n", 1)
        if check.decode() != hashlib.sha256(content).hexdigest():
            return None
        stored = json.loads(content)
        known = Known(**stored | {"convolutions": tuple(stored["convolutions"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return known if known.is_sound else None


def remember_network(sha256: str, known: Known, network: nn.Module) -> None:
    """Keep what is known for the next process; without a place for it, that one loads the network.

    Args:
        sha256: of the whole file, hexadecimal.
        network: that is described. One with code from elsewhere, which may change unseen, is not kept.
    """
    kinds = {base for module in network.modules() for base in type(module).__mro__}
    strangers = [kind for kind in kinds if kind.__module__.partition(".")[0] not in WITH_VERSION]
    if not all(kind.__module__.startswith(_NETWORKS) for kind in strangers) or not known.is_sound:
        return
    content = json.dumps(asdict(known)).encode()
    place = cache_directory() / _name(sha256)
    try:
        store_blob(place, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    except OSError as error:
        log.info("%s: what is known of a network is not kept: %s", place.parent, error.strerror)


def describe(network: nn.Module, convolutions: set[str], git_blob: str) -> Known:
    """Describe a segmentation network that was loaded from a file with that digest."""
    num_classes: int = network.num_classes  # type: ignore[assignment]
    return Known(identity_of(network), num_classes, tuple(sorted(convolutions)), git_blob)


def _name(sha256: str) -> str:
    models = Path(__file__).parent
    backends = models.with_name("backends")
    files = code_files() | set(models.glob("*.py")) | {backends / "backend.py", backends / "blob_cache.py"}
    key = hashlib.sha256(repr((sha256, version("torch"), digest_of(files))).encode())
    return f"{key.hexdigest()[:40]}.network"
