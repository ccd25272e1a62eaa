"""The course of a training as a file and as a picture."""

from __future__ import annotations

import json
import os
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def write_history(path: Path, history: list[dict], config: dict) -> None:
    """Write one entry per epoch, and the configuration, as JSON."""
    unfinished = path.with_name(f"{path.name}.part")
    text = json.dumps({"config": config, "epochs": history}, indent=1, allow_nan=False)
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def plot_history(path: Path, history: list[dict]) -> None:
    """Draw loss and held-back mIoU over the epochs as a PNG."""
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    losses = figure.add_subplot(xlabel="epoch", ylabel="loss")
    losses.plot([e["epoch"] for e in history], [e["loss"] for e in history], color="tab:gray", label="loss")
    scores = losses.twinx()
    scores.set_ylabel("held-back mIoU, %")
    evaluated = [e for e in history if e.get("held_back")]
    for name in evaluated[-1]["held_back"] if evaluated else ():
        values = [100 * e["held_back"][name]["miou"] for e in evaluated]
        scores.plot([e["epoch"] for e in evaluated], values, marker=".", label=name)
    scores.set_ylim(0, 100)
    losses.legend(handles=[*losses.get_lines(), *scores.get_lines()], loc="center right")
    unfinished = path.with_name(f"{path.name}.part")
    figure.savefig(unfinished, format="png")
    os.replace(unfinished, path)
