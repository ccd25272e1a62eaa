"""Write the labels of a drive, put together from its segments: as a recording, as PNG files, or in Parquet."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import zstandard

from vidseg_core.data.bag import PARSE, image_channels
from vidseg_core.data.bag_writer import BagWriter
from vidseg_core.data.recordings.open import name_of, open_recording
from vidseg_core.data.wire import CDR, WireError
from vidseg_core.data.writers import output_folder, write_json, write_labels
from vidseg_core.errors import ConfigError
from vidseg_core.fleet.collect import Stored
from vidseg_core.fleet.inputs import is_address
from vidseg_core.fleet.plan import Drive
from vidseg_core.fleet.tables import labels_table

FORMS = ("recording", "png", "parquet")
_COLUMNS = ("number", "stamp_ns", "received_ns", "height", "width")


def target_of(place: str, form: str, folder: Path | None, topic: str = "") -> Path:
    """Choose where the labels of a recording go: `drive_labels` for `drive`.

    Args:
        place: of the recording.
        form: one of `FORMS`.
        folder: that they go to; None: beside the recording.
        topic: is added to the name, where a recording has several that are labelled.

    Raises:
        ConfigError: the recording is in an object store, and there is no folder.
    """
    path = Path(place)
    if is_address(place):
        if folder is None:
            raise ConfigError(f"{place}: expected a folder for its labels (--to), nothing is written beside it")
        path = Path(place.partition("://")[2].partition("?")[0])
    name = f"{name_of(path)}_labels{topic.replace('/', '_')}{'.parquet' * (form == 'parquet')}"
    return (path.parent if folder is None else folder) / name


def check_targets(places: Iterable[str], form: str, folder: Path | None) -> None:
    """Check that no two recordings' labels would go to one place.

    Raises:
        ConfigError: two would.
    """
    taken: dict[Path, str] = {}
    for place in places:
        target = target_of(place, form, folder)
        if target in taken:
            raise ConfigError(f"{place}: its labels would go to {target}, as those of {taken[target]}")
        taken[target] = place


def write_drive(path: Path, drive: Drive, form: str, target: Path, stored: Iterable[Stored], marker: Path) -> None:
    """Write a drive's labels; they are there as a whole or not at all.

    Args:
        path: of the recording on this machine.
        drive: that they belong to.
        form: one of `FORMS`.
        target: see `target_of`.
        stored: results of its segments.
        marker: is written, so that a repeated run finds that the target is from this one.

    Raises:
        ConfigError: the target exists, or cannot be written.
    """
    if target.exists():
        raise ConfigError(f"{target}: exists already, and is not of this task; it is not overwritten")
    output_folder(target.parent)
    output_folder(marker.parent)
    write_json(marker, {"place": drive.place, "topic": drive.topic, "target": str(target)})
    if form == "recording":
        _write_recording(path, drive, target, stored)
    elif form == "png":
        _write_png(target, stored)
    else:
        _write_parquet(target, stored)


def is_written(marker: Path) -> bool:
    """Tell by its marker if a drive's labels are there."""
    try:
        return Path(json.loads(marker.read_text(encoding="utf-8"))["target"]).exists()
    except (OSError, ValueError, KeyError):
        return False


def unpacked(stored: Iterable[Stored]) -> Iterator[tuple[dict[str, int], np.ndarray]]:
    """Labels frame by frame: (`number`, `stamp_ns`, ... of the frame; H x W, uint8)."""
    unpacker = zstandard.ZstdDecompressor()
    for columns, packed in _packed(stored):
        shape = columns["height"], columns["width"]
        yield columns, np.frombuffer(unpacker.decompress(packed), np.uint8).reshape(shape)


def _packed(stored: Iterable[Stored]) -> Iterator[tuple[dict[str, int], bytes]]:
    for _, _, arrays in stored:
        begin = 0
        for i, end in enumerate(arrays["end"].tolist()):
            yield {name: int(arrays[name][i]) for name in _COLUMNS}, arrays["labels"][begin:end].tobytes()
            begin = end


def _write_recording(path: Path, drive: Drive, target: Path, stored: Iterable[Stored]) -> None:
    encoding, frame_id = _header_of(path, drive.topic)
    topic = f"{drive.topic.removesuffix('/compressed').rpartition('/')[0]}/labels"
    with BagWriter(target, "mcap", encoding) as bag:
        for columns, labels in unpacked(stored):
            times = {"stamp_ns": columns["stamp_ns"], "recorded_ns": columns["received_ns"]}
            bag.write_image(topic, "mono8", labels, frame_id=frame_id, **times)


def _header_of(path: Path, topic: str) -> tuple[str, str]:
    """(encoding, frame_id) of a topic's first message."""
    with open_recording(path) as recording:
        for message in recording.messages(image_channels(recording, topic)):
            try:
                view = PARSE[message.channel.type](message.data, message.channel.encoding)
            except WireError:
                continue
            return message.channel.encoding, view.frame_id
    return CDR, ""


def _write_png(target: Path, stored: Iterable[Stored]) -> None:
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        for columns, labels in unpacked(stored):
            write_labels(part / f"{columns['stamp_ns']}.png", labels)
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_parquet(target: Path, stored: Iterable[Stored]) -> None:
    columns: dict[str, list[int]] = {name: [] for name in _COLUMNS}
    packed = []
    for row, data in _packed(stored):
        for name in _COLUMNS:
            columns[name].append(row[name])
        packed.append(data)
    labels_table(target, {name: np.array(values, np.int64) for name, values in columns.items()}, packed)
