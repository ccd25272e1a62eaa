"""Checksums of files. Loads neither PyTorch nor anything else that computes."""

from __future__ import annotations

import hashlib
from pathlib import Path

BLOCK_BYTES = 1 << 20


def checksum(path: str | Path, kind: str) -> str:
    """Compute a file's hexadecimal digest: SHA-256 (`sha256`), or the id that git gives its content (`git-blob`)."""
    path = Path(path)
    if kind == "sha256":
        digest = hashlib.sha256()
    elif kind == "git-blob":
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        raise ValueError(f"expected sha256 or git-blob, got {kind!r}")
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
