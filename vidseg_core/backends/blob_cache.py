"""Compiled networks on disk, kept for the next process."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a process that executes what is kept loads no PyTorch
    import openvino

    from vidseg_core.backends.backend import Network, Ranges

    Shapes = Sequence[tuple[int, ...]]

MOST_CACHED = 24
log = logging.getLogger(__name__)
# Their code changes with their version, which is in the key.
WITH_VERSION = ("torch", "builtins", "typing")


_INSTALLED = Path(__file__).parents[1] / "__compiled__" / "openvino"
_kept_in: Path | None = None


@contextmanager
def stored_in_the_installation() -> Iterator[None]:
    """Keep what is compiled meanwhile beside the package, for all its users."""
    global _kept_in
    _kept_in = _INSTALLED
    try:
        yield
    finally:
        _kept_in = None


def find_blob(name: str) -> Path:
    """Return where a compiled network is: of those that came with the installation, or in the user's cache, or nowhere
    yet, and that is its place there."""
    installed, own = _INSTALLED / name, cache_directory() / name
    return installed if installed.is_file() and not own.is_file() else own


def read_trial(blob: Path) -> list[float] | None:
    """Read what a trial of a compiled network has shown: seconds that PyTorch and it took; None where none is kept.

    Args:
        blob: where the compiled network is or would be, see `find_blob`.
    """
    try:
        kept = json.loads(find_blob(f"{blob.stem}.json").read_text(encoding="utf-8"))
        return [float(kept["baseline_s"]), float(kept["compiled_s"])]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def store_trial(blob: Path, baseline_s: float, compiled_s: float) -> None:
    """Keep the result of a trial for the next process; without a place for it, that one tries again."""
    content = json.dumps({"baseline_s": baseline_s, "compiled_s": compiled_s})
    try:
        store_blob(cache_directory() / f"{blob.stem}.json", content.encode())
    except OSError as error:
        log.info("%s: the result of a trial is not kept: %s", cache_directory(), error.strerror)


@dataclass(frozen=True)
class Choice:
    """The choice of a kept compiled network as the executor of a network.

    Attributes:
        blob: name of its file.
        runtime: what executes it, for people.
        said: why it was chosen, for the log; empty where that was said of another size.
    """

    blob: str
    runtime: str
    said: str = ""


def choice_key(
    core: openvino.Core, identity: str, shapes: Shapes, ranges: Ranges | None, runtime: str, num_threads: int
) -> str:
    """Make a key that differs when anything does that the choice of a runtime depends on; see `key_of`."""
    return key_of(core, identity, shapes, {"runtime": runtime, "num_threads": num_threads}, ranges)


def read_choice(key: str) -> tuple[Path, Choice] | None:
    """Return the file of the compiled network that was chosen, and the choice; None where there is none."""
    try:
        choice = Choice(**json.loads(find_blob(f"{key}.choice").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    blob = find_blob(choice.blob)
    return (blob, choice) if blob.is_file() else None


def store_choice(key: str, choice: Choice) -> None:
    """Keep a choice for the next process, if none is; without a place for it, or for the network, that one chooses."""
    if not find_blob(choice.blob).is_file() or read_choice(key) is not None:
        return
    try:
        store_blob(cache_directory() / f"{key}.choice", json.dumps(asdict(choice)).encode())
    except OSError as error:
        log.info("%s: the choice of a runtime is not kept: %s", cache_directory(), error.strerror)


def cache_directory() -> Path:
    """Return where compiled networks are kept: `$XDG_CACHE_HOME/vidseg/openvino`, by default below `~/.cache`."""
    if _kept_in is not None:
        return _kept_in
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vidseg" / "openvino"


def key_of(core: openvino.Core, identity: str, shapes: Shapes, options: dict, ranges: Ranges | None) -> str:
    """Make a key that differs when anything does that the compiled network depends on.

    Args:
        identity: see `identity_of`.
        shapes: of its inputs, B x C x h x w.
        options: of the compiler.
    """
    import openvino

    key = hashlib.sha256()
    for value in (
        openvino.__version__,
        version("torch"),
        core.get_property("CPU", "FULL_DEVICE_NAME"),
        core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
        sorted(options.items()),
        ranges,
        [tuple(shape) for shape in shapes],
        identity,
    ):
        key.update(repr(value).encode())
    return key.hexdigest()[:40]


def identity_of(network: Network) -> str:
    """Digest all that decides what a network computes: its weights and its code."""
    from vidseg_core.backends.backend import Reloadable, is_foreign

    if isinstance(network, Reloadable):
        return network.identity
    key = hashlib.sha256()
    kinds = frozenset(type(module) for module in network.modules())
    key.update(repr((type(network).__qualname__, _source_digest(kinds))).encode())
    if is_foreign(network):  # whose weights, or what its tensors mean, are in the file
        key.update(repr(network.identity()).encode())
    for name, value in sorted(network.state_dict().items()):
        key.update(name.encode())
        key.update(value.contiguous().numpy().tobytes())
    return key.hexdigest()


@cache
def _source_digest(kinds: frozenset[type]) -> str:
    """Digest of the code that decides what a network of modules of these classes computes."""
    files = code_files()
    bases = {base for kind in kinds for base in kind.__mro__ if base.__module__.partition(".")[0] not in WITH_VERSION}
    # Wrappers and architectures may be defined anywhere.
    places = (getattr(sys.modules.get(base.__module__), "__file__", None) for base in bases)
    return digest_of(files | {Path(place) for place in places if place is not None})


def code_files() -> set[Path]:
    """List the files whose code decides what our own networks compute, as it is compiled here."""
    here = Path(__file__)
    files = {here.with_name(name) for name in ("openvino.py", "integers.py")}
    return files | set(here.parents[1].joinpath("networks").glob("*.py"))


def digest_of(files: set[Path]) -> str:
    """Digest the contents of files, in the order of their paths."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


def store_blob(path: Path, blob: bytes | memoryview) -> None:
    """Write a file that is whole or not there, and remove the longest unused ones where there are many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
        if _kept_in is not None:  # for all users
            os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    by_use = sorted(path.parent.glob("*.blob"), key=lambda file: file.stat().st_mtime)
    for old in by_use[:-MOST_CACHED]:
        old.unlink(missing_ok=True)
        old.with_suffix(".json").unlink(missing_ok=True)
    for kind in ("*.choice", "*.network"):
        for old in sorted(path.parent.glob(kind), key=lambda file: file.stat().st_mtime)[:-MOST_CACHED]:
            old.unlink(missing_ok=True)
