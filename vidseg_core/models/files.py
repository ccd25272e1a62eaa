"""Weight files: tensors and metadata, read whole or not at all. PyTorch is loaded where tensors are read or written."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from safetensors import SafetensorError, safe_open

from vidseg_core.classes import ClassTable
from vidseg_core.errors import CheckpointError
from vidseg_core.models.checksum import BLOCK_BYTES
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "vidseg-1"
# What `torch.load` raises, besides RuntimeError, for files that are damaged or no weight files at all.
UNREADABLE = (
    RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    BadZipFile, pickle.UnpicklingError, struct.error,
)  # fmt: skip
# In public SwNet-seq files these eleven shifts are stored as kernels; ours are written out in `guided_sum`.
SHIFT_KERNELS = "grm.ideal_dk.filter_copy_s"


@dataclass(frozen=True)
class WeightFile:
    """The content of a weight file.

    Attributes:
        path: where it was.
        tensors: see `read_tensors`.
        metadata: see `read_metadata`.
        checksums: its hexadecimal digests by their kind, see `checksum`.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict
    checksums: dict[str, str]


@dataclass(frozen=True)
class WeightHeader:
    """Hold what a file of our own says before its tensors.

    Attributes:
        keys: of its tensors.
        metadata: see `read_metadata`.
        sha256: of the whole file, hexadecimal.
    """

    keys: frozenset[str]
    metadata: dict
    sha256: str


def read_header(path: Path) -> WeightHeader:
    """Read what a file of our own says before its tensors, opening it once; its tensors are not looked at.

    Raises:
        CheckpointError: a safetensors file that is truncated or not ours.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        begin = file.read(8)
        header = file.read(min(int.from_bytes(begin, "little"), path.stat().st_size))
        digest = hashlib.sha256(begin + header)
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    try:
        entries = json.loads(header)
        stored, keys = entries.pop("__metadata__", {}), frozenset(entries)
    except (ValueError, AttributeError) as error:
        raise CheckpointError(_not_safetensors(path, error)) from error
    return WeightHeader(keys, _metadata(path, stored), digest.hexdigest())


def read_file(path: str | Path) -> WeightFile:
    """Read everything of a weight file, opening it once.

    Raises:
        CheckpointError: see `read_tensors` and `read_metadata`.
    """
    path = Path(path)
    content = _content(path)
    tensors, metadata = _tensors(path, content), {}
    if path.suffix == ".safetensors":
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = _metadata(path, header.get("__metadata__", {}))
    checksums = {"sha256": hashlib.sha256(content).hexdigest(), "git-blob": _git_blob(content)}
    return WeightFile(path, tensors, metadata, checksums)


def _git_blob(content: bytes) -> str:
    digest = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read every tensor of a weight file by its key, on the CPU, as stored.

    The two dictionaries of a public SwNet-seq file come with the prefixes `refine.` and `flow.`, as in our own.

    Raises:
        CheckpointError: missing, truncated, not a weight file, or holding something other than tensors.
    """
    path = Path(path)
    return _tensors(path, _content(path))


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    return path.read_bytes()


def _tensors(path: Path, raw: bytes) -> dict[str, Tensor]:
    if path.suffix == ".onnx":
        raise CheckpointError(f"{path}: expected a file of weights, found an ONNX file (`vidseg weights inspect`)")
    if path.suffix == ".safetensors":
        from safetensors.torch import load

        try:
            return load(raw)
        except SafetensorError as error:
            raise CheckpointError(_not_safetensors(path, error)) from error
    import torch

    try:
        content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # Of archives torch says what is damaged; of other files it names its own stack, or advises running their code.
        reason = str(error).partition("\n")[0] if isinstance(error, RuntimeError) else "not a pickle of tensors alone"
        raise CheckpointError(
            f"{path}: expected a PyTorch weight file; it is truncated or of another kind ({reason})"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected a dictionary of tensors, found {type(content).__name__}")
    if "state_dict_of" in content:
        parts = {"refine.": content.get("state_dict"), "flow.": content["state_dict_of"]}
    else:
        parts = {"": content.get("state_dict", content)}
    tensors = {}
    for prefix, part in parts.items():
        if not isinstance(part, Mapping) or not all(isinstance(value, torch.Tensor) for value in part.values()):
            raise CheckpointError(f"{path}: expected a dictionary of tensors, found something else in it")
        tensors.update({prefix + str(key): value for key, value in part.items()})
    if "refine." in parts:
        tensors = _public_refine_keys(path, tensors)
    return tensors


def open_safetensors(path: Path):
    """Open a safetensors file for its metadata, in a `with` statement.

    Raises:
        CheckpointError: it is truncated, or no such file.
    """
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_not_safetensors(path, error)) from error


def _not_safetensors(path: Path, error: Exception) -> str:
    return f"{path}: expected a safetensors file; it is truncated or of another kind ({error})"


def _public_refine_keys(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    import torch

    kernels = tensors.pop(f"refine.{SHIFT_KERNELS}", None)
    if kernels is not None:
        taps = kernels.reshape(9, 9) if kernels.numel() == 81 else None
        expected = torch.zeros(9, 9)
        expected[range(8), [0, 1, 2, 3, 5, 6, 7, 8]] = 1
        if taps is None or not torch.equal(taps.float(), expected):
            raise CheckpointError(f"{path}: {SHIFT_KERNELS}: expected the eight one-pixel shifts and a zero kernel")
    renamed = {"refine.grm.intra_net.intra_net.": "refine.intra_net.", "refine.grm.guide.": "refine.guide."}
    result = {}
    for key, value in tensors.items():
        for old, new in renamed.items():
            if key.startswith(old):
                key = new + key[len(old) :]
        result[key] = value
    return result


def read_metadata(path: str | Path) -> dict:
    """Read the metadata of one of our own files; empty for other files.

    Returns:
        `architecture`; where known `classes` (as `ClassTable.to_dict`), `normalisation`, `training`, ...

    Raises:
        CheckpointError: a safetensors file that is truncated or not ours.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return {}
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    with open_safetensors(path) as file:
        stored = file.metadata() or {}
    return _metadata(path, stored)


def _metadata(path: Path, stored: Mapping[str, str]) -> dict:
    if stored.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected metadata with format {FORMAT!r}, found {stored.get('format')!r}")
    try:
        return {key: json.loads(value) for key, value in stored.items() if key != "format"}
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: metadata is not JSON: {error}") from error


def read_classes(path: str | Path) -> ClassTable | None:
    """Read the class table in one of our own files; None where the file does not tell."""
    table = read_metadata(path).get("classes")
    return None if table is None else ClassTable.from_dict(table, path)


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]) -> None:
    """Write a file of our own; it takes its name only when it is complete.

    Args:
        tensors: a state dict.
        metadata: `architecture` and whatever else shall be known, JSON-safe.
    """
    from safetensors.torch import save

    path = Path(path)
    unfinished = path.with_name(path.name + ".part")
    stored = {"format": FORMAT} | {key: json.dumps(value) for key, value in metadata.items()}
    stored.setdefault("normalisation", json.dumps({"mean_rgb": MEAN_RGB, "std_rgb": STD_RGB}))
    # `save_file` would make a file that only its owner may read.
    unfinished.write_bytes(save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, stored))
    unfinished.replace(path)
