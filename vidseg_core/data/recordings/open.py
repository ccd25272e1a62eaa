"""Open a recording by what a user names: a file or a folder of them, known by their first bytes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import yaml
import zstandard

from vidseg_core.data.recordings import mcap, ros1, sqlite
from vidseg_core.data.recordings.compression import ZSTD_MAGIC
from vidseg_core.data.recordings.recording import Recording, warn_once
from vidseg_core.data.recordings.scratch import Scratch, decompressed, keep_for
from vidseg_core.data.recordings.split import SplitRecording
from vidseg_core.errors import SourceError

METADATA = "metadata.yaml"
SUFFIXES = (".mcap", ".db3", ".bag", ".bag.active")
"""Names that recordings have. A file of one of them that is none is an error, and not taken for something else."""

COMPRESSED = (".zstd", ".zst")

_STORAGES: dict[bytes, tuple[str, Callable[[Path, Scratch | None], Recording]]] = {
    mcap.MAGIC: ("mcap", mcap.McapRecording),
    sqlite.MAGIC: ("sqlite3", sqlite.SqliteRecording),
    ros1.MAGIC: ("ros1", ros1.Ros1Recording),
}
_MAGIC_BYTES = max(map(len, _STORAGES))
_UNREAD = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}
# Between the files of a split there is no more than this; and those that were written at once overlap no more.
_GAP_NS = 10 * 10**9
_OVERLAP_NS = 10**9


def open_recording(path: Path) -> Recording:
    """Open a recording: an MCAP file, a rosbag2 database, a ROS 1 bag, compressed or not, or a folder of one of them.

    A folder may be split into several files. Its metadata.yaml says which belong to it; where it is missing or names
    files that are not there, the files themselves are looked at.

    Raises:
        SourceError: there is none, it cannot be opened, or it is not clear which files belong together.
    """
    keep_for(path.absolute())
    if not path.is_dir():
        return _open_file(path)
    files = _listed(path)
    if not files:
        raise SourceError(f"{path}: not a recording that can be opened: no {', '.join(SUFFIXES)} file is in it")
    if len(files) == 1:
        return _open_file(files[0])
    parts = _open_parts(files)
    storages = sorted({part.storage for part in parts})
    if len(storages) > 1:
        raise SourceError(f"{path}: expected files of one recording, got {', '.join(storages)}; name one of the files")
    return SplitRecording(path, parts) if len(parts) > 1 else parts[0]


def is_recording(path: Path) -> bool:
    """Tell if `path` is a recording, by what is in it, or at least is called one."""
    if path.is_dir():
        return (path / METADATA).is_file() or bool(_storage_files(path))
    return is_storage_name(path.name) or storage_of(path) is not None


def storage_of(path: Path) -> str | None:
    """Name the storage of a file by its first bytes: `mcap`, `sqlite3`, `ros1`; None if it is none of them.

    A file that Zstandard compressed has the storage that is inside.
    """
    begin = _begin(path)
    return next((name for magic, (name, _) in _STORAGES.items() if begin.startswith(magic)), None)


def is_storage_name(name: str) -> bool:
    """Tell if a file is called a recording, compressed or not."""
    return _plain_name(name).lower().endswith(SUFFIXES)


def is_split_by_name(names: Sequence[str]) -> bool:
    """Tell if files' names differ by a number behind the same name only, as those of a split recording do."""
    forms = Counter(re.sub(r"_\d+(?=\.\w+$)", "", _plain_name(name)) for name in names)
    return len(forms) == 1


def name_of(path: Path) -> str:
    """Name a recording as its folder or its file, without the endings that tell the format."""
    path = Path(os.path.abspath(path))
    if path.name == METADATA:
        path = path.parent
    if path.is_dir():
        return path.name
    name = _plain_name(path.name)
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name) or name


def compression_of(path: Path) -> str | None:
    """Name a compression that is not undone here, by a file's first bytes; None if there is none."""
    begin = _begin(path)
    return next((name for magic, name in _UNREAD.items() if begin.startswith(magic)), None)


def _open_parts(files: list[Path]) -> list[Recording]:
    """Open the files of a split; one that cannot be opened is left out with a warning, where others can."""
    parts: list[Recording] = []
    failed: list[SourceError] = []
    for file in files:
        try:
            parts.append(_open_file(file))
        except SourceError as error:
            failed.append(error)
    if not parts:
        raise failed[0]
    for one in failed:
        warn_once(f"{one}; left out")
    return parts


def _open_file(path: Path) -> Recording:
    try:
        with path.open("rb"):
            size = path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path}: cannot be opened: {error.strerror}") from error
    storage = storage_of(path)
    if storage is None:
        compression = compression_of(path)
        reason = "it is empty" if not size else "it begins with none of MCAP's, SQLite's and ROS 1's marks"
        if compression is not None:
            reason = f"it is compressed by {compression}; decompress it first"
        raise SourceError(f"{path}: not a recording that can be opened: {reason}")
    opened = next(opener for name, opener in _STORAGES.values() if name == storage)
    return opened(path, decompressed(path) if _is_compressed(path) else None)


def _begin(path: Path) -> bytes:
    """A file's first bytes, decompressed if Zstandard compressed it; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            begin = file.read(_MAGIC_BYTES)
            if begin.startswith(ZSTD_MAGIC):
                file.seek(0)
                begin = zstandard.ZstdDecompressor().stream_reader(file).read(_MAGIC_BYTES)
    except (OSError, zstandard.ZstdError):
        return b""
    return begin


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(ZSTD_MAGIC)) == ZSTD_MAGIC


def _plain_name(name: str) -> str:
    """The name without what compression added to it."""
    return next((name.removesuffix(suffix) for suffix in COMPRESSED if name.lower().endswith(suffix)), name)


def _storage_files(folder: Path) -> list[Path]:
    """The files of a folder that are called recordings, the decompressed one where both are there."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if is_storage_name(file.name) and file.is_file():
            plain = _plain_name(file.name)
            if plain not in found or file.name == plain:
                found[plain] = file
    return list(found.values())


def _listed(folder: Path) -> list[Path]:
    """The files that make up a recording.

    Raises:
        SourceError: the metadata cannot be read, or it is not clear which files belong together.
    """
    if not (folder / METADATA).is_file():
        return _together(folder, _not_empty(_storage_files(folder)))
    names = _names_in_metadata(folder)
    found, missing = [], []
    for name in names:
        candidates = [folder / name, folder / _plain_name(name), *(folder / (name + suffix) for suffix in COMPRESSED)]
        file = next((candidate for candidate in candidates if candidate.is_file()), None)
        if file is None:
            missing.append(name)
        else:
            found.append(file)
    plain = {_plain_name(file.name) for file in found}
    others = [file for file in _storage_files(folder) if _plain_name(file.name) not in plain]
    if not names:
        found = _together(folder, others)
    elif others and len(others) == len(missing):
        warn_once(
            f"{folder}: {METADATA} names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not there; "
            f"read instead: {', '.join(file.name for file in others)}"
        )
        found += others
    elif missing and not found:
        found = _together(folder, others)
        if found:
            warn_once(f"{folder}: none of the files is there that {METADATA} names; read are those that are")
    elif missing:
        warn_once(f"{folder}: {', '.join(missing)}, named in {METADATA}, not there; what was in it is missing")
    elif others:
        warn_once(f"{folder}: {', '.join(file.name for file in others)}, not named in {METADATA}, not read")
    if missing and not found:
        raise SourceError(f"{folder}: not a recording that can be opened: {', '.join(missing)} are not there")
    return _not_empty(found)


def _names_in_metadata(folder: Path) -> list[str]:
    """Read the names of the files, without folders, which old versions put before them."""
    try:
        information = yaml.safe_load((folder / METADATA).read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
        names = information["relative_file_paths"]
        compression, mode = information.get("compression_format"), information.get("compression_mode")
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise SourceError(f"{folder}: not a recording that can be opened: {METADATA}: {reason}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SourceError(
            f"{folder}: not a recording that can be opened: {METADATA}: relative_file_paths is no list of names"
        )
    if str(mode or "none").lower() != "none" and compression not in (None, "", "zstd"):
        raise SourceError(f"{folder}: not a recording that can be opened: expected compression zstd, got {compression}")
    return [re.split(r"[/\\]", name)[-1] for name in names]


def _not_empty(files: list[Path]) -> list[Path]:
    """Leave out files without a byte, as a killed recorder leaves its last, where there are others."""
    filled = [file for file in files if file.stat().st_size]
    if filled and len(filled) < len(files):
        warn_once(f"{', '.join(str(file) for file in files if file not in filled)}: empty, left out")
    return filled or files


def _together(folder: Path, files: list[Path]) -> list[Path]:
    """`files`, which must be the parts of one recording.

    By their names (x_0, x_1, ...); or by what is in them: they follow each other in time, and have common topics.

    Raises:
        SourceError: they are not.
    """
    if len(files) < 2 or is_split_by_name([file.name for file in files]):
        return files
    parts = [(part.span, {channel.topic for channel in part.channels}) for part in _open_parts(files) if part.span]
    parts.sort(key=lambda part: part[0])
    for (before, topics), (after, more) in pairwise(parts):
        in_turn = before[0] < after[0] and before[1] < after[1]
        if in_turn and -_OVERLAP_NS <= after[0] - before[1] <= _GAP_NS and topics & more:
            continue
        raise SourceError(
            f"{folder}: a recording of {len(files)} files without metadata.yaml, which do not follow each other in "
            "time; name one of them, or try `ros2 bag reindex`"
        )
    return files
