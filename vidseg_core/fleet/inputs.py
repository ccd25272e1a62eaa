"""Find recordings by what a user names: files, folders, patterns, lists of them, and addresses of object stores."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Any

from vidseg_core.data.recordings.open import METADATA, is_split_by_name, is_storage_name
from vidseg_core.errors import ConfigError, SourceError

LIST_SUFFIX = ".txt"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://")
_SCRATCH = "vidseg-fleet"


@dataclass(frozen=True)
class Place:
    """A recording as it was found.

    Attributes:
        name: its path, or its address in an object store, with the options that the store is reached by.
        num_bytes: of all its files; 0 where that is not known.
    """

    name: str
    num_bytes: int

    @property
    def is_remote(self) -> bool:
        """Tell if it has to be fetched before it can be read."""
        return is_address(self.name)


def is_address(name: str) -> bool:
    """Tell an address, `s3://bucket/key`, from a path."""
    return _ADDRESS.match(name) is not None


def find(names: Iterable[str]) -> list[Place]:
    """List the recordings that `names` stand for, each once, in order.

    Args:
        names: of recordings; of folders, of which all recordings below are taken; patterns; text files ending in
            `.txt` with such names, a line each (empty ones and those that begin with # do not count); addresses
            `s3://bucket/key` of all these but lists, which may end in `?endpoint_override=HOST:PORT&scheme=http`.

    Raises:
        ConfigError: one of them stands for nothing, or pyarrow is needed and not installed.
    """
    found: dict[str, Place] = {}
    for name in names:
        for place in _find(name):
            key = place.name if place.is_remote else os.path.realpath(place.name)
            found.setdefault(key, place)
    return list(found.values())


def _find(name: str) -> list[Place]:
    if is_address(name):
        return _find_remote(name)
    if name.endswith(LIST_SUFFIX) and Path(name).is_file():
        lines = (line.strip() for line in Path(name).read_text(encoding="utf-8").splitlines())
        return [place for line in lines if line and not line.startswith("#") for place in _find(line)]
    is_pattern = has_magic(name) and not Path(name).exists()
    paths = sorted(glob(name, recursive=True)) if is_pattern else [name]
    if not paths:
        raise ConfigError(f"{name}: expected recordings, nothing has such a name")
    places = [place for path in paths for place in _find_local(Path(path), is_pattern)]
    if not places:
        raise ConfigError(f"{name}: expected recordings, there are none in it")
    return places


def _find_local(path: Path, one_of_many: bool) -> list[Place]:
    """Recordings at a path; what is none is left to whoever opens it, but where a pattern has found it."""
    if path.name == METADATA:
        path = path.parent
    if not path.is_dir():
        if one_of_many and not is_storage_name(path.name):
            return []
        return [Place(str(path), path.stat().st_size if path.is_file() else 0)]
    files = {}
    for folder, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            with suppress(OSError):  # a link to nowhere
                files[str(file)] = file.stat().st_size
    return group(files)


def group(files: dict[str, int]) -> list[Place]:
    """Find recordings among files.

    A folder with `metadata.yaml`, or whose recordings' names differ by a number at their end only, is one recording;
    in others, each file that is called one is.

    Args:
        files: sizes by path.
    """
    folders: dict[str, dict[str, int]] = {}
    for path, size in files.items():
        folders.setdefault(str(PurePosixPath(path).parent), {})[PurePosixPath(path).name] = size
    places = []
    for folder, inside in folders.items():
        stored = {name: size for name, size in inside.items() if is_storage_name(name)}
        as_one = METADATA in inside or (len(stored) > 1 and is_split_by_name(list(stored)))
        if as_one and stored:
            places.append(Place(folder, sum(stored.values())))
        else:
            places += [Place(f"{folder}/{name}", size) for name, size in stored.items()]
    return sorted(places, key=lambda place: place.name)


def _find_remote(name: str) -> list[Place]:
    """Recordings in an object store."""
    filesystem, path, options = _opened(name)
    from pyarrow import fs

    scheme = name.split("://")[0]
    pattern = path if has_magic(path) else None
    root = path if pattern is None else path[: re.search(r"[*?\[]", path).start()].rpartition("/")[0]
    try:
        one = filesystem.get_file_info(root)
        listed = [one] if one.is_file else filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    except OSError as error:
        raise ConfigError(f"{name}: cannot be listed: {error}") from error
    files = {info.path: info.size for info in listed if info.is_file}
    if one.is_file:
        places = [Place(one.path, one.size)]
    else:
        places = group(files) if pattern is None else matching(files, pattern)
    if not places:
        raise ConfigError(f"{name}: expected recordings, there are none")
    return [Place(f"{scheme}://{place.name}{options}", place.num_bytes) for place in places]


def matching(files: dict[str, int], pattern: str) -> list[Place]:
    """Find the recordings among files that a pattern stands for, by their own names or those of a folder above.

    Args:
        files: sizes by path.
        pattern: as for `glob`, with `**` for any number of folders.
    """
    form = re.compile(_expression(pattern))
    found = [Place(path, size) for path, size in files.items() if form.fullmatch(path) and is_storage_name(path)]
    below = {path: size for path, size in files.items() if any(form.fullmatch(str(one)) for one in _above(path))}
    return sorted({place.name: place for place in found + group(below)}.values(), key=lambda place: place.name)


def _above(path: str) -> list[PurePosixPath]:
    return list(PurePosixPath(path).parents)


def _expression(pattern: str) -> str:
    """A regular expression for a pattern of `glob`."""
    parts = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", pattern)
    words = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return "".join(words.get(part) or (part if part.startswith("[") else re.escape(part)) for part in parts)


def _opened(name: str) -> tuple[Any, str, str]:
    """(pyarrow's file system, the path in it, the options behind the address)."""
    try:
        from pyarrow import fs
    except ImportError as error:
        raise ConfigError(f"{name}: needs pyarrow, which is not installed: pip install 'vidseg_ros[fleet]'") from error
    scheme, _, rest = name.partition("://")
    where, mark, options = rest.rpartition("?")
    if "=" not in options:
        where, mark, options = rest, "", ""
    bucket = where.partition("/")[0]
    try:
        filesystem, _ = fs.FileSystem.from_uri(f"{scheme}://{bucket}{mark}{options}")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: expected an address that pyarrow can open: {error}") from error
    return filesystem, where.rstrip("/"), mark + options


class Fetcher:
    """Fetch recordings of object stores to this machine, one at a time: the next one takes the last one's place."""

    def __init__(self):
        self._name: str | None = None
        self._folder: tempfile.TemporaryDirectory | None = None
        self._path = Path()

    def fetch(self, name: str) -> Path:
        """Return the path of a recording; one in an object store is fetched if it is not here.

        Raises:
            SourceError: it is not there, or there is no room for it.
        """
        if not is_address(name):
            return Path(name)
        if name != self._name:
            self.clear()
            _remove_left_behind()
            self._folder = tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}-{os.getpid()}-")
            self._path = _fetched(name, Path(self._folder.name))
            self._name = name
        return self._path

    def clear(self) -> None:
        """Remove what was fetched."""
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = self._name = None


def _fetched(name: str, folder: Path) -> Path:
    from pyarrow import fs

    filesystem, path, _ = _opened(name)
    target = folder / PurePosixPath(path).name
    try:
        info = filesystem.get_file_info(path)
        if info.is_file:
            listed = [info]
        else:
            listed = [one for one in filesystem.get_file_info(fs.FileSelector(path)) if one.is_file]
        if not listed:
            raise SourceError(f"{name}: there is nothing")
        size, free = sum(one.size for one in listed), shutil.disk_usage(folder).free
        if size > free:
            raise SourceError(f"{name}: {size} bytes are needed in {folder.parent}, where {free} are free")
        for one in listed:
            file = target if info.is_file else target / one.base_name
            file.parent.mkdir(parents=True, exist_ok=True)
            with filesystem.open_input_stream(one.path) as stored, file.open("wb") as written:
                shutil.copyfileobj(stored, written, 1 << 22)
    except OSError as error:
        raise SourceError(f"{name}: cannot be fetched: {error}") from error
    return target


def _remove_left_behind() -> None:
    """Remove what workers fetched that were killed."""
    for folder in _left_behind():
        shutil.rmtree(folder, ignore_errors=True)


def _left_behind() -> Iterator[Path]:
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}-*-*"):
        number = folder.name.split("-")[2]
        if number.isdecimal() and not Path("/proc", number).exists():
            yield folder
