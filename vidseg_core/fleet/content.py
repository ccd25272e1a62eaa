"""Recognise a recording by what is in it, wherever it lies and whatever it is called."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vidseg_core.data.recordings.open import METADATA, is_storage_name

BLOCK_BYTES = 1 << 16
BLOCKS = 64


def content_of(path: Path) -> str:
    """Digest a recording: SHA-256 of sizes and contents of its files, in hexadecimal digits.

    Of a file of more than `BLOCKS` blocks of `BLOCK_BYTES`, so many are read, evenly spread, with the first and the
    last: reading whole petabytes to recognise them would double what a run reads. A file changed in between without
    changing its size is taken for the same.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    for file in files_of(path):
        size = file.stat().st_size
        digest.update(f"{size}\n".encode())
        with file.open("rb") as opened:
            for offset in _offsets(size):
                opened.seek(offset)
                digest.update(opened.read(BLOCK_BYTES))
    return digest.hexdigest()


def files_of(path: Path) -> list[Path]:
    """List the files of a recording: itself, or those in its folder; with the logs beside a database."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and _belongs(file.name))
        return files or [path / METADATA]
    logs = (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))
    return [path, *(log for log in logs if log.is_file())]


def _belongs(name: str) -> bool:
    return is_storage_name(name.removesuffix("-wal").removesuffix("-journal"))


def _offsets(size: int) -> list[int]:
    if size <= BLOCKS * BLOCK_BYTES:
        return list(range(0, size, BLOCK_BYTES))
    last = size - BLOCK_BYTES
    return [last * i // (BLOCKS - 1) for i in range(BLOCKS)]
