"""Present an evaluation's figures as rows, text, Markdown, plots and TensorBoard scalars; shares are in percent."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from vidseg_core.evaluation.distance.evaluate import Method, Score

TRAITS = ("scale", "flow", "fusion", "update", "update_scale", "refine", "refine_weights", "edge")
_COLUMNS = {
    "interval": "i", "avg_miou": "avg mIoU", "min_miou": "min mIoU", "pixel_accuracy": "pixels",
    "temporal_consistency": "consistency", "fps": "FPS",
}  # fmt: skip


def row(
    method: Method, interval: int, score: Score, fps: float | None, scored: bool = True, key_delay: int = 0
) -> dict:
    """Collect the figures of one method at one interval; JSON-safe.

    Args:
        fps: frames per second of the whole loop; None if it was not measured.
        scored: whether labels were compared with the truth.
        key_delay: see `evaluate`.
    """
    result = {"interval": interval, **method.traits}
    if scored:
        total = score.total(interval)
        by_distance = score.matrices[: interval + 1]
        oldest = by_distance[key_delay - 1]  # without delay the last one
        names = method.engine.classes.names
        result |= {
            "avg_miou": percent(total.mean_iou()),
            "min_miou": percent(oldest.mean_iou()),
            "pixel_accuracy": percent(total.pixel_accuracy()),
            "miou_by_distance": [percent(matrix.mean_iou()) for matrix in by_distance],
            "class_iou": dict(zip(names, map(percent, total.iou().tolist()), strict=True)),
            "class_iou_last": dict(zip(names, map(percent, oldest.iou().tolist()), strict=True)),
            "confusion": total.counts.tolist(),
        }
    return result | {
        "temporal_consistency": percent(score.consistency(interval)),
        "fps": None if fps is None else round(fps, 2),
    }


def percent(share: float) -> float | None:
    """Convert a share of 0..1 to percent; None for nan."""
    return None if math.isnan(share) else 100 * share


def name(row: dict, rows: Sequence[dict]) -> str:
    """Name a row's method by what sets it apart from the others'; by its flow if nothing does."""
    parts = []
    for trait in TRAITS:
        matter = [other for other in rows if _matters(trait, other)]
        if row in matter and len({str(other.get(trait)) for other in matter}) > 1:
            parts.append(_trait(trait, row.get(trait)))
    return " ".join(parts) or row["flow"]


def _matters(trait: str, row: dict) -> bool:
    """Without refinement its weights and edge map are no trait, nor is the scale of an update that there is not."""
    depends_on = {"edge": "refine", "refine_weights": "refine", "update_scale": "update"}.get(trait)
    return depends_on is None or bool(row.get(depends_on))


def _trait(trait: str, value) -> str:
    if isinstance(value, bool):
        return trait if value else f"no-{trait}"
    if trait in ("scale", "update_scale"):
        return f"{trait.replace('_', '-')}-{'auto' if value is None else f'{value:g}'}"
    if value is None:
        return f"no-{trait}"
    return Path(value).name.split(".")[0]


def summary_table(rows: Sequence[dict]) -> str:
    """Format a text table with a line for each row."""
    columns = [key for key in _COLUMNS if key in rows[0]]
    width = max(len("method"), *(len(name(r, rows)) for r in rows))
    lines = [f"{'method':<{width}}" + "".join(f"{_COLUMNS[key]:>{len(_COLUMNS[key]) + 3}}" for key in columns)]
    for r in rows:
        cells = "".join(f"{_cell(r[key]):>{len(_COLUMNS[key]) + 3}}" for key in columns)
        lines.append(f"{name(r, rows):<{width}}" + cells)
    return "\n".join(lines)


def curves(rows: Sequence[dict]) -> list[dict]:
    """Choose each method's row with the largest interval, whose curve of mIoU over distance is the longest."""
    longest: dict[str, dict] = {}
    for r in rows:
        key = name(r, rows)
        if key not in longest or r["interval"] > longest[key]["interval"]:
            longest[key] = r
    return list(longest.values())


def distance_table(rows: Sequence[dict]) -> str:
    """Format mIoU in percent: a line for each method, a column for each distance from the key frame."""
    shown = curves(rows)
    width = max(12, *(len(name(r, rows)) + 1 for r in shown))
    distances = range(max(r["interval"] for r in shown) + 1)
    lines = [
        "mIoU in percent by frames since the key frame",
        f"{'method':<{width}}" + "".join(f"{k:>7}" for k in distances) + "    avg",
    ]
    for r in shown:
        values = [*r["miou_by_distance"], *[None] * (len(distances) - r["interval"] - 1), r["avg_miou"]]
        lines.append(f"{name(r, rows):<{width}}" + "".join(f"{_cell(value):>7}" for value in values))
    return "\n".join(lines)


def markdown(report: dict) -> str:
    """Format the whole report (see `vidseg_core.cli.evaluate`) as Markdown."""
    rows = report["rows"]
    columns = [key for key in _COLUMNS if key in rows[0]]
    parts = [f"# {report['title']}", "", f"`{report['command']}`", "", *_grid(
        ["method", *(_COLUMNS[key] for key in columns)],
        [[name(r, rows), *(_cell(r[key]) for key in columns)] for r in rows],
    )]  # fmt: skip
    if "class_iou" in rows[0]:
        distances = range(max(r["interval"] for r in rows) + 1)
        parts += ["", "mIoU by frames since the key frame", "", *_grid(
            ["method", *map(str, distances)],
            [[name(r, rows), *map(_cell, r["miou_by_distance"])]
             + [""] * (len(distances) - r["interval"] - 1) for r in curves(rows)],
        )]  # fmt: skip
        parts += ["", "IoU of each class, all distances together", "", *_grid(
            ["class", *(f"{name(r, rows)}, i = {r['interval']}" for r in rows)],
            [[label, *(_cell(r["class_iou"][label]) for r in rows)] for label in rows[0]["class_iou"]],
        )]  # fmt: skip
    parts += ["", *(f"- {key}: {text}" for key, text in report["definitions"].items()), ""]
    return "\n".join(parts)


def plot(folder: Path, rows: Sequence[dict]) -> None:
    """Write `miou_distance.png` and, if frame rates were measured, `miou_fps.png`."""
    figure, axes = _figure("frames since the key frame", "mIoU, %")
    for r in curves(rows):
        axes.plot(range(r["interval"] + 1), r["miou_by_distance"], marker="o", label=name(r, rows))
    axes.xaxis.get_major_locator().set_params(integer=True)
    _save(figure, axes, folder / "miou_distance.png")
    timed = [r for r in rows if r["fps"]]
    if not timed:
        return
    figure, axes = _figure("frames per second, whole loop", "avg mIoU, %")
    for label in dict.fromkeys(name(r, rows) for r in timed):
        points = sorted((r["fps"], r["avg_miou"], r["interval"]) for r in timed if name(r, rows) == label)
        axes.plot([p[0] for p in points], [p[1] for p in points], marker="o", label=label)
        for fps, miou, interval in points:
            axes.annotate(f"i = {interval}", (fps, miou), textcoords="offset points", xytext=(4, 5), fontsize=8)
    _save(figure, axes, folder / "miou_fps.png")


def log(folder: Path, rows: Sequence[dict]) -> None:
    """Write TensorBoard scalars of each method: figures over the interval, and mIoU over the distance."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as board:
        for r in rows:
            for key in _COLUMNS:
                if key != "interval" and r.get(key) is not None:
                    board.add_scalar(f"{name(r, rows)}/{key}", r[key], r["interval"])
            if "class_iou" in r:
                for label, iou in r["class_iou"].items():
                    if iou is not None:
                        board.add_scalar(f"{name(r, rows)}/iou/{label}", iou, r["interval"])
        if "miou_by_distance" in rows[0]:
            for r in curves(rows):
                for distance, miou in enumerate(r["miou_by_distance"]):
                    board.add_scalar(f"{name(r, rows)}/miou_by_distance", miou, distance)


def _figure(x: str, y: str):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure, axes, path: Path) -> None:
    axes.legend(loc="lower left")
    unfinished = path.with_name(f".{path.name}.part")
    figure.savefig(unfinished, format="png")
    os.replace(unfinished, path)


def _grid(header: list[str], lines: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *lines)]


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.1f}"
