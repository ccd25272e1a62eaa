"""Compare schedules by mIoU against their share of key frames, for fixed intervals and adaptive ones.

The whole clips are run through a stream, as a camera would be. Each frame is segmented once for all schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vidseg_core.data.images import read_rgb
from vidseg_core.data.labelled import LabelledSet
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.remember import RememberedSegmenter, by_name
from vidseg_core.errors import ConfigError, DatasetError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.frame import Frame
from vidseg_core.street import Street, StreetConfig

INTERVALS = (1, 2, 3, 4, 6, 9)
THRESHOLDS = (0.08, 0.12, 0.16, 0.20, 0.25)
PHASES = (0.0, 0.5)


@dataclass(frozen=True)
class LabelledClip:
    """Frames of one video in order, all of them labelled."""

    name: str
    frames: tuple[Frame, ...]


def street_clips(seeds: Iterable[int], num_frames: int, size: tuple[int, int], rate_hz: float) -> list[LabelledClip]:
    """Render the first frames of synthetic streets; `size` is (W, H)."""
    clips = []
    for seed in seeds:
        street = Street(StreetConfig(seed, *size, rate_hz, num_frames))
        frames = tuple(replace(street.render(i), stream=f"street {seed}") for i in range(num_frames))
        clips.append(LabelledClip(f"street {seed}", frames))
    return clips


def labelled_clip(dataset: LabelledSet) -> LabelledClip:
    """Read the frames of a data set that is one video, all of them labelled.

    Raises:
        DatasetError: it is not, or a file cannot be read.
    """
    for before, sample in zip(dataset.samples, dataset.samples[1:], strict=False):
        if not sample.predecessors or sample.predecessors[-1] != before.image:
            raise DatasetError(f"{dataset.name}: expected one video, {sample.image} does not follow {before.image}")
    frames = (
        Frame(read_rgb(sample.image, DatasetError), i * 66_666_667, dataset.name, sample.image.stem,
              dataset.read_labels(i))
        for i, sample in enumerate(dataset.samples)
    )  # fmt: skip
    return LabelledClip(dataset.name, tuple(frames))


def run_schedule(clips: Sequence[LabelledClip], engine: Engine) -> dict:
    """Run the schedule of an engine over the clips, from several phases; key frames are waited for.

    Returns:
        `key_share`: key frames per frame; `avg_miou`: of all frames, `min_miou`: of those before a key frame, whose
        labels are the oldest, both in percent.
    """
    total, oldest = (ConfusionMatrix(len(engine.classes)) for _ in range(2))
    frames = key_frames = 0
    for clip in clips:
        for phase in PHASES:
            stream, before = engine.stream(phase=phase, key_delay=0), None
            for frame in clip.frames:
                result = stream.step(frame)
                if before is not None and result.is_key:
                    oldest.update(*before)
                before = result.labels, frame.labels
                total.update(*before)
                frames, key_frames = frames + 1, key_frames + result.is_key
    return {
        "key_share": key_frames / frames,
        "avg_miou": 100 * total.mean_iou(),
        "min_miou": 100 * oldest.mean_iou(),
    }


def compare(
    groups: dict[str, Sequence[LabelledClip]], engine: Engine, progress: Callable[[Iterable], Iterable] = iter,
    intervals: Sequence[int] = INTERVALS, thresholds: Sequence[float] = THRESHOLDS,
) -> list[dict]:  # fmt: skip
    """Compute a row for each schedule and group of clips; JSON-safe."""
    base = replace(engine.config, ego_mask=None)  # of a vehicle that took none of these clips
    fixed = [replace(base, schedule="fixed", interval=interval) for interval in intervals]
    adaptive = [replace(base, schedule="adaptive", change_threshold=value) for value in thresholds]
    known = engine.variant(
        segmenter=RememberedSegmenter(engine.networks.segmenter, recognise=by_name, dtype=torch.float16)
    )
    rows = []
    for name, clips in groups.items():
        for config in progress(fixed + adaptive):
            row = {"clips": name, "schedule": config.schedule}
            row |= (
                {"interval": config.interval}
                if config.schedule == "fixed"
                else {
                    "change_threshold": config.change_threshold,
                    "min_interval": config.min_interval,
                    "max_interval": config.max_interval,
                }
            )
            rows.append(row | run_schedule(clips, known.variant(config)))
    return rows


def gains(rows: Sequence[dict]) -> list[dict]:
    """Compute how many points of mIoU each adaptive row lies above fixed intervals with the same share of key frames.

    Between two intervals the share is interpolated; rows outside all of them are left out.
    """
    found = []
    for row in rows:
        if row["schedule"] != "adaptive":
            continue
        fixed = [one for one in rows if one["schedule"] == "fixed" and one["clips"] == row["clips"]]
        fixed.sort(key=lambda one: one["key_share"])
        shares = [one["key_share"] for one in fixed]
        if shares and shares[0] <= row["key_share"] <= shares[-1]:
            above = {
                f"{which}_gain": row[which] - float(np.interp(row["key_share"], shares, [one[which] for one in fixed]))
                for which in ("avg_miou", "min_miou")
            }
            found.append({key: row[key] for key in ("clips", "change_threshold", "key_share")} | above)
    return found


def table(rows: Sequence[dict]) -> str:
    """Format the rows as text."""
    lines = ["clips         schedule             key frames   avg mIoU   min mIoU"]
    for row in rows:
        what = f"every {row['interval'] + 1}" if row["schedule"] == "fixed" else f"change {row['change_threshold']:g}"
        lines.append(
            f"{row['clips']:<14}{row['schedule']:<9}{what:<12}{100 * row['key_share']:8.1f} %"
            f"{row['avg_miou']:11.2f}{row['min_miou']:11.2f}"
        )
    for gain in gains(rows):
        lines.append(
            f"{gain['clips']}, change {gain['change_threshold']:g}: at {100 * gain['key_share']:.1f} % key frames "
            f"{gain['avg_miou_gain']:+.2f} avg, {gain['min_miou_gain']:+.2f} min mIoU against fixed intervals"
        )
    return "\n".join(lines)


def draw(rows: Sequence[dict], path: Path) -> None:
    """Draw mIoU against the share of key frames, one plot for each group of clips.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("the figure needs matplotlib, which is not installed") from error
    names = list(dict.fromkeys(row["clips"] for row in rows))
    figure = Figure(figsize=(5.2 * len(names), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for schedule, color in (("fixed", "tab:gray"), ("adaptive", "tab:blue")):
            chosen = [row for row in rows if row["clips"] == name and row["schedule"] == schedule]
            chosen.sort(key=lambda row: row["key_share"])
            for which, style in (("avg_miou", "-o"), ("min_miou", "--s")):
                axes.plot(
                    [100 * row["key_share"] for row in chosen], [row[which] for row in chosen], style, color=color,
                    markersize=4, label=f"{schedule}, {'all frames' if which == 'avg_miou' else 'before a key frame'}",
                )  # fmt: skip
        axes.set(title=name, xlabel="key frames, percent of all frames", ylabel="mIoU, percent")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
