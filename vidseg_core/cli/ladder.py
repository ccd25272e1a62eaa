"""Read the drive that a governor's ladder is measured on, and write the result."""

from __future__ import annotations

import sys

from tqdm import tqdm

from vidseg_core.data.open import open_source
from vidseg_core.errors import ConfigError
from vidseg_core.frame import Frame
from vidseg_core.models.accuracy import Accuracy

MOST_FRAMES = 300


def read_drive(spec: str) -> tuple[list[Frame], float]:
    """Read the first consecutive frames of a source that have labels, at most `MOST_FRAMES`, and their rate in Hz.

    Raises:
        ConfigError: fewer than two consecutive frames have labels.
        VidsegError: the source cannot be read.
    """
    source = open_source(spec, packed=True)
    frames: list[Frame] = []
    total = min(MOST_FRAMES, source.num_frames or MOST_FRAMES)
    for frame in tqdm(source, desc="reading", total=total, unit="frame", leave=False, disable=not sys.stderr.isatty()):
        if frame.labels is None:
            if len(frames) > 1:
                break
            frames.clear()
            continue
        frames.append(frame)
        if len(frames) == MOST_FRAMES:
            break
    if len(frames) < 2:
        raise ConfigError(f"{spec}: expected consecutive frames with labels, got {len(frames)}")
    return frames, source.rate_hz


def as_yaml(accuracy: Accuracy) -> str:
    """Write expected accuracies as they stand in a record of the registry."""
    lines = ["    accuracy:"]
    for name, points in accuracy.to_dict().items():
        lines.append(f"      {name}: {{{', '.join(f'{place:g}: {value:g}' for place, value in points.items())}}}")
    return "\n".join(lines) + "\n"
