"""Write a replay's results as one HTML file that needs nothing beside it: pictures are inside, as data URIs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.evaluation.page import canvas, cards, figure, legend, number, page, pairs, percent, picture, png
from vidseg_core.evaluation.replay.live import Log
from vidseg_core.evaluation.replay.replay import REFERENCES, Replay, ShownFrame


def html_report(replays: Sequence[Replay], failed: Sequence[dict], provenance: dict, classes: ClassTable) -> str:
    """Write the whole page.

    Args:
        failed: `recording` and `error` of each that could not be replayed at all.
        provenance: JSON-safe; `command`, `version`, `created`, `engine`, ...
        classes: of the labels.
    """
    parts = []
    if failed:
        lines = "".join(f"<p class=error>{escape(one['error'])}</p>" for one in failed)
        parts.append(f"<section><h2>Not replayed</h2>{lines}</section>")
    parts += [_section(replay, classes) for replay in replays]
    return page("vidseg replay", "Replay", parts, provenance)


def _section(replay: Replay, classes: ClassTable) -> str:
    summary = replay.summary()
    every = summary["offline"]
    width, height = summary["size"][::-1]
    what = f"{escape(summary['topic'])}: {every['frames']} frames of {width} x {height} at {every['rate_hz']:.1f} Hz"
    compared = f"compared with {summary['reference']} on {every['labelled_frames']} of them"
    parts = [f"<section><h2>{escape(summary['recording'])}</h2><p class=quiet>{what}, {compared}</p>"]
    if summary["error"]:
        parts.append(f"<p class=error>Ends early: {escape(summary['error'])}</p>")
    parts += [_offline(summary), _live(summary, replay.log)]
    if replay.rows:
        parts.append(_modes(replay.rows))
    parts.append("<h3>Sample frames</h3>" + legend(classes) + _samples(replay.samples, summary["reference"], classes))
    return "\n".join(parts) + "</section>"


def _offline(summary: dict) -> str:
    every = summary["offline"]
    agreement = "pixel accuracy" if summary["reference"] == REFERENCES[0] else "agreement"
    shown = [
        ("mIoU, every frame in turn", percent(every["miou"])),
        ("avg mIoU over the distances", percent(summary["avg_miou"])),
        ("min mIoU, at the last distance", percent(summary["min_miou"])),
        (agreement, percent(every["pixel_accuracy"])),
        ("temporal consistency", percent(every["temporal_consistency"])),
        ("key frames", f"{every['key_frames']} of {every['frames']}"),
    ]
    parts = ["<h3>Every frame</h3>", cards(shown), pairs("Reasons", every["reasons"])]
    if every["resets"]:
        resets = "; ".join(f"{reset['frame']}: {reset['reason']}" for reset in every["resets"])
        parts.append(f"<p class=quiet>The stream started afresh: {escape(resets)}</p>")
    if every["class_iou"]:
        parts.append(figure(_accuracy_plot(summary), "mIoU by the frames since the key frame, and IoU by class"))
    return "\n".join(parts)


def _live(summary: dict, log: Log | None) -> str:
    live = summary["live"]
    if live is None:
        return ""
    latency = live["latency_ms"]
    shown = [
        ("streaming mIoU", percent(live["streaming_miou"])),
        ("deadline mIoU", percent(live["deadline_miou"])),
        ("labels per second", number(live["rate_hz"])),
        ("frames dropped", f"{live['dropped']} of {live['frames']}"),
        ("latency, median", number(latency["p50"], " ms")),
        ("latency, 95 %", number(latency["p95"], " ms")),
    ]
    how = "real threads at real pace" if live["realtime"] else "simulated clock"
    if live["timings"]:
        how += ", key frame {key_ms:g} ms, other frames {step_ms:g} ms".format(**live["timings"])
    elif not live["realtime"]:
        how += ", each frame takes what it takes on this machine"
    early = live["labelled_before_first_output"]
    return "\n".join(
        [
            f"<h3>As live</h3><p class=quiet>{escape(how)}. Streaming: the newest labels at a frame's stamp; deadline: "
            f"one frame period later. Before the first labels ({early} frames) all is wrong.</p>",
            cards(shown),
            pairs("Reasons", live["reasons"]),
            figure(_latency_plot(log), "From a frame's stamp to its labels, waiting included"),
        ]
    )


def _modes(rows: list[dict]) -> str:
    columns = ("mode", "rate_hz", "streaming_miou", "deadline_miou", "latency_ms", "dropped", "key_ms", "step_ms")
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{number(row[column])}</td>" for column in columns) + "</tr>" for row in rows)
    return f"<h3>Modes</h3><table><tr>{head}</tr>{body}</table>"


def _samples(samples: Iterable[ShownFrame], reference: str, classes: ClassTable) -> str:
    parts = []
    for sample in samples:
        frame, result = sample.frame, sample.segmentation
        kind = result.reason if result.is_key else f"propagated, {result.age} since the key frame"
        parts.append(picture(frame.image, result.labels, classes, f"{frame.name}: {kind}"))
        if frame.labels is not None:
            parts.append(picture(frame.image, frame.labels, classes, reference))
        else:
            parts.append(picture(frame.image, None, classes, "image"))
    return f"<div class=samples>{''.join(parts)}</div>"


def _accuracy_plot(summary: dict) -> tuple[str, bytes]:
    drawn = canvas(10, 3.6)
    iou = summary["offline"]["class_iou"]
    curve = summary["miou_by_distance"]
    if curve:
        axes, bars = drawn.subplots(1, 2, width_ratios=(1, 1.2))
        axes.plot(range(len(curve)), curve, marker="o", color="#1f6feb")
        axes.set(xlabel="frames since the key frame", ylabel="mIoU, %", xticks=range(len(curve)))
        axes.grid(alpha=0.3)
    else:
        bars = drawn.subplots()
    names = [name for name in iou if iou[name] is not None]
    bars.barh(names[::-1], [iou[name] for name in names[::-1]], color="#8aa4bf")
    bars.set(xlabel="IoU, %", xlim=(0, 100))
    bars.grid(alpha=0.3, axis="x")
    return png(drawn)


def _latency_plot(log: Log) -> tuple[str, bytes]:
    drawn = canvas(10, 3)
    course, share = drawn.subplots(1, 2, width_ratios=(2, 1))
    seconds = np.array([output.arrived_ns for output in log.outputs]) / 1e9
    latency_ms = np.array([output.done_ns - output.arrived_ns for output in log.outputs]) / 1e6
    is_key = np.array([output.segmentation.is_key for output in log.outputs], dtype=bool)
    course.plot(seconds, latency_ms, color="#b8c4d0", linewidth=1)
    for chosen, color, name in ((~is_key, "#5b7ea3", "propagated"), (is_key, "#d1570a", "key frame")):
        course.plot(seconds[chosen], latency_ms[chosen], ".", color=color, label=name)
    course.set(xlabel="time, s", ylabel="latency, ms", ylim=(0, None))
    course.legend(loc="upper right", fontsize="small")
    share.step(np.sort(latency_ms), np.linspace(0, 100, len(latency_ms)), where="post", color="#1f6feb")
    share.set(xlabel="latency, ms", ylabel="frames, %", ylim=(0, 102), xlim=(0, None))
    for axes in (course, share):
        axes.grid(alpha=0.3)
    return png(drawn)
