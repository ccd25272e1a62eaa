"""Make the figures of recordings out of what is stored of their segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from vidseg_core.errors import SourceError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.evaluation.metrics.consistency import Consistency
from vidseg_core.evaluation.replay.live import percent
from vidseg_core.evaluation.replay.replay import REFERENCES
from vidseg_core.fleet.plan import Drive, Segment
from vidseg_core.fleet.store import Store

Stored = tuple[Segment, dict, dict[str, np.ndarray]]


@dataclass
class Row:
    """Figures of one drive.

    Attributes:
        drive: whose.
        figures: JSON-safe, see `figures_of`.
        segments: of each segment that counts: address, figures.
        hardest: (address of a segment, what `Worker` stored of its worst frame), most disagreement first.
        errors: why it is not whole; none if it is.
        table: of the classes, see `ClassTable.to_dict`; None if nothing was computed.
    """

    drive: Drive
    figures: dict[str, Any]
    segments: list[dict] = field(default_factory=list)
    hardest: list[tuple[str, dict]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    table: dict | None = None


def stored_of(segments: Sequence[Segment], store: Store, errors: list[str]) -> Iterator[Stored]:
    """Load the results of a drive's segments, in order, up to where the recording ends or is damaged.

    Args:
        segments: all of the drive.
        store: what is not in it is left out.
        errors: takes what is wrong with those that are there.
    """
    for segment in segments:
        if not store.has(segment.address):
            continue
        try:
            meta, arrays = store.load(segment.address)
        except SourceError as error:
            errors.append(str(error))
            continue
        yield segment, meta, arrays
        if meta["error"] is not None:  # a sequential run ends here, too
            errors.append(f"ends early: {meta['error']}")
            return


def collect(
    drive: Drive,
    segments: Sequence[Segment],
    store: Store,
    take: Callable[[Drive, Stored], None] | None = None,
    most: int = 3,
) -> Row:
    """Put the results of a drive's segments together.

    Args:
        drive: whose.
        segments: all of it; those without a result are told.
        store: of the results.
        take: is called with each result in turn.
        most: how many of the hardest frames to keep.
    """
    errors: list[str] = []
    row = Row(drive, {})
    truth = per_frame = None
    consistency, reasons, steps_ns = Consistency(), Counter[str](), []
    counts = Counter[str]()
    classes: list[str] = []
    for stored in stored_of(segments, store, errors):
        segment, meta, arrays = stored
        one, looked = ConfusionMatrix.from_counts(arrays["truth"]), ConfusionMatrix.from_counts(arrays["per_frame"])
        if truth is None:
            truth, per_frame, classes, row.table = one, looked, meta["classes"], meta["table"]
        else:
            truth.merge(one)
            per_frame.merge(looked)
        consistency.merge(Consistency(meta["agreeing"], meta["valid"]))
        reasons.update(meta["reasons"])
        if meta["period_ns"] is not None:
            steps_ns.append(meta["period_ns"])
        labelled = int(np.count_nonzero(arrays["labelled_pixels"] >= 0))
        counts.update(
            frames=len(arrays["number"]), labelled=labelled, looked=int(np.count_nonzero(arrays["looked_pixels"] >= 0)),
            skipped=meta["skipped"], resets=len(meta["resets"]), seconds=meta["seconds"],
        )  # fmt: skip
        row.segments.append(
            {
                "address": segment.address,
                "index": segment.index,
                "begin": segment.begin,
                "first": segment.first,
                "stop": segment.stop,
                "frames": len(arrays["number"]),
                "miou": percent(one.mean_iou()) if labelled else None,
                "disagreement": _disagreement(looked),
                "seconds": meta["seconds"],
                "node": meta["node"],
            }
        )
        if "worst" in meta:
            row.hardest = sorted([*row.hardest, (segment.address, meta["worst"])], key=lambda w: -w[1]["differing"])[
                :most
            ]
        if take is not None:
            take(drive, stored)
    if truth is None or per_frame is None:
        row.errors = errors
        row.figures = {"place": drive.place, "content": drive.content, "topic": drive.topic, "frames": 0}
        return row
    has_truth = drive.truth is not None
    if has_truth and not counts["labelled"]:
        errors.append(f"expected ground truth for some of the {counts['frames']} frames, none has a stamp of theirs")
    reference = truth if has_truth else per_frame
    iou = [percent(value) for value in reference.iou().tolist()]
    row.figures = {
        "place": drive.place,
        "content": drive.content,
        "topic": drive.topic,
        "reference": REFERENCES[0] if has_truth else REFERENCES[1],
        "frames": counts["frames"],
        "labelled_frames": counts["labelled"],
        "looked_frames": counts["looked"],
        "skipped_frames": counts["skipped"],
        "rate_hz": round(1e9 / median(steps_ns), 3) if steps_ns else round(drive.rate_hz, 3),
        "miou": percent(reference.mean_iou()),
        "pixel_accuracy": percent(reference.pixel_accuracy()),
        "class_iou": dict(zip(classes, iou, strict=True)),
        "absent_classes": [classes[i] for i in reference.absent()],
        "disagreement": _disagreement(per_frame),
        "temporal_consistency": percent(consistency.share()),
        "key_frames": sum(n for reason, n in reasons.items() if reason != "propagated"),
        "reasons": dict(reasons),
        "resets": counts["resets"],
        "seconds": round(counts["seconds"], 3),
        "confusion": reference.all_counts.tolist(),
    }
    row.errors = errors
    return row


def _disagreement(matrix: ConfusionMatrix) -> float | None:
    """Percentage of the pixels for which the per-frame network says something else."""
    same = matrix.pixel_accuracy()
    return percent(1 - same)
