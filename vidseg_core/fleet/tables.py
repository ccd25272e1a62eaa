"""Write results as Parquet: a row for each recording's topic, for each segment, for each frame."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from vidseg_core.errors import ConfigError
from vidseg_core.fleet.collect import Row, Stored
from vidseg_core.fleet.columns import COLUMNS
from vidseg_core.fleet.plan import Drive

INSTALL = "pip install 'vidseg_ros[fleet]'"
RECORDINGS, SEGMENTS, FRAMES = "recordings.parquet", "segments.parquet", "frames"
PART_ROWS = 2_000_000
"""Of each file in `frames/`."""

_FIGURES = (
    "place", "content", "topic", "reference", "frames", "labelled_frames", "looked_frames", "skipped_frames", "rate_hz",
    "miou", "pixel_accuracy", "disagreement", "temporal_consistency", "key_frames", "resets", "seconds",
)  # fmt: skip


def parquet() -> tuple[Any, Any]:
    """Load pyarrow and its Parquet.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(f"fleet: needs pyarrow, which is not installed: {INSTALL}") from error
    return pyarrow, pyarrow.parquet


class Tables:
    """Tables of a run; a context manager on whose exit they take the place of those of an earlier run.

    Args:
        folder: of the results.
    """

    def __init__(self, folder: Path):
        self._pyarrow, self._parquet = parquet()
        self._folder = folder
        self._part = folder / f".tables.{os.getpid()}.part"
        self._writer: Any = None
        self._rows = self._files = 0
        self._recordings: list[dict] = []
        self._segments: list[dict] = []

    def __enter__(self) -> Tables:
        shutil.rmtree(self._part, ignore_errors=True)
        (self._part / FRAMES).mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_part()
        if kind is None:
            self._write(RECORDINGS, self._recordings, self._recording_schema())
            self._write(SEGMENTS, self._segments, self._segment_schema())
            shutil.rmtree(self._folder / FRAMES, ignore_errors=True)
            for path in self._part.iterdir():
                os.replace(path, self._folder / path.name)
        shutil.rmtree(self._part, ignore_errors=True)

    def add_frames(self, drive: Drive, stored: Stored) -> None:
        """Add the frames of a segment."""
        segment, _, arrays = stored
        count, pa = len(arrays["number"]), self._pyarrow
        if not count:
            return
        same = {"content": drive.content, "topic": drive.topic, "segment": segment.index}
        columns = {name: pa.array([value] * count) for name, value in same.items()}
        columns |= {name: pa.array(arrays[name]) for name in COLUMNS}
        table = pa.table(columns)
        if self._writer is None:
            path = self._part / FRAMES / f"{self._files:05d}.parquet"
            self._writer = self._parquet.ParquetWriter(path, table.schema, compression="zstd")
            self._files += 1
        self._writer.write_table(table)
        self._rows += count
        if self._rows >= PART_ROWS:
            self._end_part()

    def add_recording(self, row: Row) -> None:
        """Add a recording and its segments."""
        figures = {name: row.figures.get(name) for name in _FIGURES}
        figures["class_iou"] = list((row.figures.get("class_iou") or {}).items())
        self._recordings.append(figures | {"errors": row.errors})
        which = {"content": row.drive.content, "topic": row.drive.topic}
        self._segments += [which | segment for segment in row.segments]

    def _end_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._rows = None, 0

    def _write(self, name: str, rows: Iterable[dict], schema: Any) -> None:
        table = self._pyarrow.Table.from_pylist(list(rows), schema=schema)
        self._parquet.write_table(table, self._part / name, compression="zstd")

    def _recording_schema(self) -> Any:
        pa = self._pyarrow
        texts, counts = ("place", "content", "topic", "reference"), ("frames", "labelled_frames", "looked_frames")
        counts += ("skipped_frames", "key_frames", "resets")
        kinds = dict.fromkeys(_FIGURES, pa.float64())
        kinds |= dict.fromkeys(texts, pa.string()) | dict.fromkeys(counts, pa.int64())
        kinds |= {"class_iou": pa.map_(pa.string(), pa.float64()), "errors": pa.list_(pa.string())}
        return pa.schema(list(kinds.items()))

    def _segment_schema(self) -> Any:
        pa = self._pyarrow
        kinds = dict.fromkeys(("content", "topic", "address"), pa.string())
        kinds |= dict.fromkeys(("index", "begin", "first", "stop", "frames"), pa.int64())
        kinds |= dict.fromkeys(("miou", "disagreement", "seconds"), pa.float64()) | {"node": pa.string()}
        return pa.schema(list(kinds.items()))


def labels_table(path: Path, columns: dict[str, np.ndarray], labels: Iterable[bytes]) -> None:
    """Write labels of one drive, a row for each frame; there as a whole or not at all.

    Args:
        path: of the file.
        columns: of the same length, by name.
        labels: compressed by Zstandard, so that the file does not compress them again.
    """
    pa, pq = parquet()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    table = pa.table(
        {name: pa.array(values) for name, values in columns.items()} | {"labels": pa.array(labels, pa.binary())}
    )
    try:
        pq.write_table(table, part, compression="none")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
