"""Write a fleet's results as one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.errors import SourceError
from vidseg_core.evaluation.page import canvas, cards, figure, legend, number, page, percent, png
from vidseg_core.fleet.collect import Row
from vidseg_core.fleet.store import Store

WORST = 6
TO_LABEL = 12
LISTED = 500
"""Drives in the table of the page; the rest is in Parquet."""

_SHOWN = {
    "labels": "labels of the engine",
    "looked": "per-frame network",
    "differing": "where they differ",
    "truth": "ground truth",
}


def html_report(
    rows: Sequence[Row], failed: Sequence[dict], provenance: dict, store: Store, classes: ClassTable, run: dict
) -> str:
    """Write the page.

    Args:
        rows: of all drives of which something was computed.
        failed: `place` and `error` of each recording that could not be replayed, or not as a whole.
        provenance: see `page`.
        store: has the pictures.
        classes: of the labels.
        run: what was done and how fast, by name.
    """
    scored = sorted((row for row in rows if row.figures.get("miou") is not None), key=lambda row: row.figures["miou"])
    parts = [_overview(rows, scored, run)]
    if failed:
        lines = "".join(f"<p class=error>{escape(one['place'])}: {escape(one['error'])}</p>" for one in failed)
        parts.append(f"<section><h2>Not replayed, or not as a whole</h2>{lines}</section>")
    if scored:
        parts.append(_distribution(scored))
        worst = "".join(_drive(row, store) for row in scored[:WORST])
        parts.append(f"<section><h2>Worst drives</h2>{legend(classes)}{worst}</section>")
    parts += [_to_label(rows, store, classes), _table(scored)]
    return page("vidseg fleet", "Fleet", parts, provenance)


def _overview(rows: Sequence[Row], scored: Sequence[Row], run: dict) -> str:
    frames = sum(row.figures["frames"] for row in rows)
    hours = sum(row.figures["frames"] / row.figures["rate_hz"] for row in rows if row.figures["frames"]) / 3600
    scores = [row.figures["miou"] for row in scored]
    shown = [
        ("drives", str(len(rows))),
        ("frames", f"{frames:,}"),
        ("of video", f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"),
        ("mIoU, median drive", percent(float(np.median(scores)) if scores else None)),
        ("mIoU, worst drive", percent(min(scores, default=None))),
        ("disagreement, median drive", percent(_median([row.figures.get("disagreement") for row in rows]))),
    ]
    told = "; ".join(f"{name} {number(value)}" for name, value in run.items())
    return f"<section><h2>Overview</h2>{cards(shown)}<p class=quiet>{escape(told)}</p></section>"


def _distribution(scored: Sequence[Row]) -> str:
    drawn = canvas(10, 3)
    left, right = drawn.subplots(1, 2)
    scores = np.array([row.figures["miou"] for row in scored])
    against = np.array(
        [np.nan if row.figures["disagreement"] is None else row.figures["disagreement"] for row in scored]
    )
    left.hist(scores, bins=min(40, max(5, len(scores) // 2)), color="#8aa4bf")
    left.set(xlabel="mIoU of a drive, %", ylabel="drives")
    left.yaxis.get_major_locator().set_params(integer=True)
    for reference, color in (("ground truth", "#1f6feb"), ("per-frame segmenter", "#d1570a")):
        chosen = np.array([row.figures["reference"] == reference for row in scored])
        if chosen.any():
            right.plot(against[chosen], scores[chosen], ".", color=color, label=f"mIoU against {reference}")
    right.set(xlabel="disagreement with the per-frame network, % of pixels", ylabel="mIoU, %")
    right.legend(loc="best", fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return f"<section><h2>Scores</h2>{figure(png(drawn), 'Drives by their mIoU, and by disagreement')}</section>"


def _drive(row: Row, store: Store) -> str:
    figures = row.figures
    iou = {name: value for name, value in figures["class_iou"].items() if value is not None}
    lowest = ", ".join(f"{name} {value:.1f}" for name, value in sorted(iou.items(), key=lambda item: item[1])[:3])
    told = (
        f"mIoU {percent(figures['miou'])} against {figures['reference']} on {figures['frames']} frames; "
        f"disagreement {percent(figures['disagreement'])}; lowest IoU: {lowest}"
    )
    pictures = "".join(_pictures(address, worst, store) for address, worst in row.hardest[:1])
    return f"<h3>{escape(_name(row))}</h3><p class=quiet>{escape(told)}</p>{pictures}"


def _to_label(rows: Sequence[Row], store: Store, classes: ClassTable) -> str:
    found = sorted(
        ((row, address, worst) for row in rows for address, worst in row.hardest), key=lambda one: -one[2]["differing"]
    )[:TO_LABEL]
    if not found:
        return ""
    parts = []
    for row, address, worst in found:
        parts.append(f"<h3>{escape(_name(row))}, message {escape(worst['frame'])}</h3>")
        parts.append(_pictures(address, worst, store))
    return (
        "<section><h2>Where to label next</h2><p class=quiet>Frames at which the labels differ most from what the "
        f"network says of the frame alone, at most one for each segment.</p>{legend(classes)}{''.join(parts)}</section>"
    )


def _pictures(address: str, worst: dict, store: Store) -> str:
    try:
        _, arrays = store.load(address)
    except SourceError as error:
        return f"<p class=error>{escape(str(error))}</p>"
    shown = [
        figure(("jpeg", arrays[f"picture_{name}"].tobytes()), caption)
        for name, caption in _SHOWN.items()
        if f"picture_{name}" in arrays
    ]
    columns = f"grid-template-columns:repeat({len(shown)},1fr)"
    told = f"stamp {worst['stamp_ns'] / 1e9:.3f} s: {worst['differing']:.1f} % of the pixels differ"
    return f"<p class=quiet>{told}</p><div class=samples style='{columns}'>{''.join(shown)}</div>"


def _table(scored: Sequence[Row]) -> str:
    columns = {
        "frames": "frames",
        "miou": "mIoU, %",
        "pixel_accuracy": "pixels right, %",
        "disagreement": "disagreement, %",
        "temporal_consistency": "consistency, %",
        "key_frames": "key frames",
        "resets": "resets",
        "reference": "reference",
    }
    head = "<th>drive</th>" + "".join(f"<th>{name}</th>" for name in columns.values())
    body = "".join(
        f"<tr><td>{escape(_name(row))}</td>"
        + "".join(f"<td>{escape(number(row.figures[name]))}</td>" for name in columns)
        + "</tr>"
        for row in scored[:LISTED]
    )
    more = f"<p class=quiet>The worst {LISTED} of {len(scored)}.</p>" if len(scored) > LISTED else ""
    return f"<section><h2>All drives, worst first</h2>{more}<table><tr>{head}</tr>{body}</table></section>"


def _name(row: Row) -> str:
    return f"{row.drive.place} {row.drive.topic}"


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
