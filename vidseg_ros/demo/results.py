"""Results of a run of the demo: its numbers, a video and a page of pictures."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vidseg_core import __version__
from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.data.writers import VideoWriter, write_image
from vidseg_core.models.checksum import checksum
from vidseg_core.overlay import colorize
from vidseg_ros.demo.contact_sheet import contact_sheet
from vidseg_ros.demo.recording import Recording, rounded

VIDEO, SHEET = "overlay.mp4", "contact_sheet.png"
VIDEO_RATE_HZ = 30.0
SHEET_CELLS = 6
PACKAGES = {
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python"),
    "torch": ("torch",),
    "rclpy": ("ros-rclpy", "rclpy"),
}
# Of the diagnostics; the others speak of the last second only, in which nothing was left to do.
COUNTS = (
    "Frames received",
    "Frames processed",
    "Key frames",
    "Frames dropped",
    "Messages lost in transport",
    "Resets",
    "Last reset",
    "Engine faults",
    "Last error",
)


@dataclass(frozen=True)
class Run:
    """Everything that is known at the end of a run.

    Attributes:
        recording: what came.
        diagnostics: what the node said last, by its keys.
        device: which it computes on; None if that was never said.
        rmw: the middleware.
        classes: of the labels; None if they were never told.
        interrupted: whether Ctrl-C ended it.
        failure: why a process failed, in several lines; None if none did.
    """

    recording: Recording
    diagnostics: Mapping[str, str]
    device: str | None
    rmw: str
    classes: ClassTable | None
    interrupted: bool
    failure: str | None

    def problems(self) -> list[str]:
        """List all problems, one line each; a run that was interrupted before any labels came has none."""
        found = [self.failure.splitlines()[0]] if self.failure else []
        return found if self.interrupted and not len(self.recording.labels) else found + self.recording.problems()


def evaluate(run: Run, truth_classes: ClassTable) -> dict:
    """Return mIoU in percent against the camera's ground truth; None where there is none, or other classes."""
    if run.classes is None or run.classes.names != truth_classes.names:
        return {"miou": None, "labels_evaluated": 0}
    progress = partial(tqdm, desc="mIoU", unit="frame", leave=False, disable=None)
    mean_iou, count = run.recording.mean_iou(run.classes, progress)
    return {"miou": None if mean_iou is None else rounded(100 * mean_iou, 2), "labels_evaluated": count}


def figures(run: Run, truth_classes: ClassTable) -> dict:
    """Return what a run showed, JSON-safe: rates in Hz, latency in milliseconds, mIoU in percent."""
    processed = int(run.diagnostics.get("Frames processed", 0))
    return {
        **run.recording.statistics(),
        "key_ratio": rounded(int(run.diagnostics["Key frames"]) / processed, 4) if processed else None,
        **evaluate(run, truth_classes),
        "pictures_not_kept": run.recording.spool.num_refused,
        "device": run.device,
        "cpus": len(os.sched_getaffinity(0)),
        "governor": {name: text for name, text in run.diagnostics.items() if name.startswith("Governor ")},
        "node_counts": {name: run.diagnostics.get(name) for name in COUNTS},
        "interrupted": run.interrupted,
        "problems": run.problems(),
    }


def summarise(run: Run, options: argparse.Namespace, weights: Path) -> dict:
    """Return the summary: the figures, and what they were made with."""
    return {
        **figures(run, load_classes(options.classes)),
        "source": options.source,
        "parameters": options.parameters,
        "weights": {"name": options.weights, "file": weights.name, "sha256": checksum(weights, "sha256")},
        "versions": versions() | {"rmw": run.rmw},
    }


def describe(figures: Mapping[str, Any]) -> str:
    """Describe a run in a few words."""
    frames, latency = figures["frames"], figures["latency_ms"]
    parts = [f"{frames['labelled']} of {frames['sent']} frames labelled"]
    if figures["output_hz"] is not None:
        parts.append(f"{figures['output_hz']:.1f} of {figures['input_hz']:.1f} Hz")
    if latency["p50"] is not None:
        parts.append(f"latency {latency['p50']:.0f} ms (p95 {latency['p95']:.0f}, max {latency['max']:.0f})")
    if figures["key_ratio"] is not None:
        parts.append(f"{100 * figures['key_ratio']:.0f} % key frames")
    if figures["miou"] is not None:
        parts.append(f"mIoU {figures['miou']:.1f} %")
    if step := figures.get("governor", {}).get("Governor step"):
        parts.append(f"governor: {step}")
    if figures["pictures_not_kept"]:
        parts.append("video and mIoU of the beginning only, the disk has no room for more")
    if figures["device"] is not None:
        parts.append(figures["device"])
    return "; ".join(parts)


def versions() -> dict[str, str | None]:
    """Return versions of what took part; None for what cannot be told."""
    found = {name: next(filter(None, map(_version, packages)), None) for name, packages in PACKAGES.items()}
    own = {"vidseg": __version__, "python": platform.python_version(), "ros_distro": os.environ.get("ROS_DISTRO")}
    return own | found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def write_pictures(run: Run, folder: Path) -> None:
    """Write the video and the contact sheet, if there are overlays."""
    recording = run.recording
    stamps_ns = recording.spool.stamps_ns("overlay")
    if not stamps_ns or run.classes is None:
        return
    write_image(folder / SHEET, contact_sheet(_sheet_cells(recording, stamps_ns, run.classes), run.classes))
    with VideoWriter(folder / VIDEO, recording.statistics()["input_hz"] or VIDEO_RATE_HZ) as video:
        for picture in tqdm(recording.shown(), desc=VIDEO, total=len(recording.sent), leave=False, disable=None):
            video.write(picture)


def _sheet_cells(recording: Recording, kept_ns: list[int], classes: ClassTable) -> list[tuple[str, list[np.ndarray]]]:
    """Overlays from the whole length of the run, with the truth where there is some."""
    times_ns = np.linspace(kept_ns[0], kept_ns[-1], SHEET_CELLS)
    nearest = {kept_ns[np.abs(np.array(kept_ns) - time_ns).argmin()] for time_ns in times_ns}
    begin_ns = min(recording.sent.stamps_ns, default=kept_ns[0])
    cells = []
    for stamp_ns in sorted(nearest):
        pictures, caption = [recording.spool.pixels("overlay", stamp_ns)], f"{(stamp_ns - begin_ns) / 1e9:.1f} s"
        truth = recording.spool.pixels("labels_truth", stamp_ns)
        if truth is not None:
            pictures.append(colorize(truth[..., 0], classes.lut))
            caption += "; below: truth"
        cells.append((caption, pictures))
    return cells
