"""Fetch registered weight files."""

from __future__ import annotations

import http.client
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from vidseg_core import __version__
from vidseg_core.errors import CheckpointError
from vidseg_core.models.checksum import BLOCK_BYTES
from vidseg_core.models.registry import WeightRecord

TIMEOUT_S = 30


def download(
    record: WeightRecord,
    directory: str | Path,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Fetch a record's file into `directory`. It takes its name only when it is complete and its checksum is right.

    Args:
        progress: called after every block with the number of bytes so far and of the whole file (None: not known).

    Raises:
        CheckpointError: there is no address to fetch it from, the transfer failed or broke off, or what came is another
            file. Then nothing stays behind.
    """
    if record.url is None:
        raise CheckpointError(f"weights {record.name!r} come with vidseg and cannot be fetched: reinstall it")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".fetching-") as temporary:
        unfinished = Path(temporary) / record.file
        try:
            _fetch(record.url, unfinished, progress)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            raise CheckpointError(f"weights {record.name!r}: cannot fetch {record.url}: {error}") from error
        if mismatch := record.mismatch(unfinished):
            raise CheckpointError(f"weights {record.name!r}: {record.url} has another file: {mismatch}: not kept")
        return unfinished.replace(directory / record.file)


def _fetch(url: str, path: Path, progress: Callable[[int, int | None], None] | None) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": f"vidseg/{__version__}"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response, open(path, "wb") as file:
        length = response.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        done = 0
        while block := response.read(BLOCK_BYTES):
            file.write(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    # A connection that is closed early looks like the end of the file to `read` with a size.
    if total is not None and done != total:
        raise ConnectionError(f"the transfer broke off after {done} of {total} bytes")
