"""Read the drives that a governor's ladder is measured on, and write the result."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from vidseg_core.data.open import open_source
from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError
from vidseg_core.frame import Frame
from vidseg_core.models.accuracy import Accuracy

MOST_FRAMES = 300
MOST_BYTES, LEAST_BYTES = 10**9, 150 * 10**6
"""Of the pictures of all drives; but each may have so much, which is 1.8 s of 1280 x 720."""


def read_drives(specs: Sequence[str]) -> tuple[list[list[Frame]], float]:
    """Read the first consecutive labelled frames of each source, and the rate in Hz that all have.

    Raises:
        ConfigError: the rates differ, or see `read_drive`.
        VidsegError: a source cannot be read.
    """
    drives, rate_hz = [], 0.0
    for spec in specs:
        frames, rate = read_drive(spec, most_bytes=max(LEAST_BYTES, MOST_BYTES // len(specs)))
        if drives and rate != rate_hz:
            raise ConfigError(f"{spec}: expected {rate_hz:g} Hz as in {specs[0]}, got {rate:g}")
        drives.append(frames)
        rate_hz = rate
    return drives, rate_hz


def read_drive(spec: str, labelled: bool = True, most_bytes: int = MOST_BYTES) -> tuple[list[Frame], float]:
    """Read the first consecutive frames of a source that have one size, and their rate in Hz.

    There are at most `MOST_FRAMES`, and fewer of large pictures.

    Args:
        spec: see `open_source`.
        labelled: take only frames with labels.
        most_bytes: of all images.

    Raises:
        ConfigError: there are fewer than two such frames.
        VidsegError: the source cannot be read.
    """
    source = open_source(spec, packed=True)
    frames: list[Frame] = []
    total = min(MOST_FRAMES, source.num_frames or MOST_FRAMES)
    for frame in tqdm(source, desc="reading", total=total, unit="frame", leave=False, disable=not sys.stderr.isatty()):
        continues = (not labelled or frame.labels is not None) and (not frames or frame.size == frames[0].size)
        if not continues and len(frames) > 1:
            break
        if not continues:
            frames.clear()
            continue
        frames.append(frame)
        if len(frames) == MOST_FRAMES or (len(frames) + 1) * frame.image.nbytes > most_bytes:
            break
    if len(frames) < 2:
        wanted = "with labels" if labelled else "of one size"
        raise ConfigError(f"{spec}: expected consecutive frames {wanted}, got {len(frames)}")
    return frames, source.rate_hz


def measure_own(config: EngineConfig, spec: str) -> tuple[Accuracy, dict[str, Any]]:
    """Measure a network on a drive without labels: the truth are its own labels of every frame at full size.

    Scored are the classes that have at least `COMMON` of the pixels.

    Args:
        config: names the network, and perhaps an update network; with synchronous key frames.
        spec: the drive, see `open_source`.

    Returns:
        The accuracies, and how they were measured, JSON-safe.

    Raises:
        ConfigError: see `read_drive` and `measure`.
        VidsegError: drive or network cannot be read.
    """
    from vidseg_core.engine.build import build_engine
    from vidseg_core.evaluation.ladder import COMMON, measure, with_own_labels

    frames, rate_hz = read_drive(spec, labelled=False)
    progress = partial(tqdm, leave=False, disable=not sys.stderr.isatty())
    with build_engine(config) as engine:
        labelled = with_own_labels(engine, frames, partial(progress, desc="labelling", unit="frame"))
        accuracy = measure(engine, [labelled], rate_hz, partial(progress, desc="ladder", unit="step"), COMMON)
    about = {"truth": "own labels", "frames": len(frames), "size": list(frames[0].size), "rate_hz": rate_hz}
    return accuracy, about


def measure_by_labels(config: EngineConfig, spec: str) -> tuple[Accuracy, dict[str, Any]]:
    """Measure a network on a drive by its labels; see `measure_own`."""
    from vidseg_core.engine.build import build_engine
    from vidseg_core.evaluation.ladder import measure

    frames, rate_hz = read_drive(spec)
    progress = partial(tqdm, leave=False, disable=not sys.stderr.isatty(), desc="ladder", unit="step")
    with build_engine(config) as engine:
        accuracy = measure(engine, [frames], rate_hz, progress)
    about = {"truth": "labels", "frames": len(frames), "size": list(frames[0].size), "rate_hz": rate_hz}
    return accuracy, about


def as_yaml(accuracy: Accuracy) -> str:
    """Write expected accuracies as they stand in a record of the registry."""
    stored = accuracy.to_dict()
    update = stored.pop("update", None)
    lines = ["    accuracy:"] + [f"      {name}: {_points(points)}" for name, points in stored.items()]
    if update is not None:
        lines += ["      update:", f"        weights: {update['weights']}"]
        lines.append(f"        lost_by_age_s: {_points(update['lost_by_age_s'])}")
    return "\n".join(lines) + "\n"


def _points(points: Mapping[float, float]) -> str:
    return f"{{{', '.join(f'{place:g}: {value:g}' for place, value in points.items())}}}"
