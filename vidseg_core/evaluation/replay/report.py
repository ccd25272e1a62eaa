"""Write a replay's results as one HTML file that needs nothing beside it: pictures are inside, as data URIs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO

import cv2
import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.replay.live import Log
from vidseg_core.evaluation.replay.replay import REFERENCES, Replay, ShownFrame
from vidseg_core.overlay import overlay

SAMPLE_WIDTH = 480
OPACITY = 0.6
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2733; background: #f4f6f8; margin: 0; }
main { max-width: 1060px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
section { background: #fff; border: 1px solid #dde3e9; border-radius: 8px; padding: 1.2rem 1.4rem; margin: 1.2rem 0; }
p { margin: .3rem 0; } .quiet { color: #5b6875; } .error { color: #a61b1b; overflow-wrap: anywhere; }
.cards { display: flex; flex-wrap: wrap; gap: .7rem; margin: .8rem 0; }
.card { background: #eef2f6; border-radius: 6px; padding: .5rem .9rem; min-width: 7rem; }
.card b { display: block; font-size: 1.25rem; } .card span { color: #5b6875; font-size: .85rem; }
table { border-collapse: collapse; margin: .4rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; } th { color: #5b6875; font-weight: 500; }
th:first-child, td:first-child { text-align: left; } tr + tr td { border-top: 1px solid #eef2f6; }
img { max-width: 100%; display: block; } figure { margin: .6rem 0; }
figcaption { color: #5b6875; font-size: .85rem; }
.samples { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem .8rem; }
.legend span { display: inline-block; margin-right: .9rem; white-space: nowrap; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .3em; border-radius: 2px; }
pre { background: #eef2f6; padding: .8rem; overflow: auto; font-size: .8rem; }
"""


def html_report(replays: Sequence[Replay], failed: Sequence[dict], provenance: dict, classes: ClassTable) -> str:
    """Write the whole page.

    Args:
        failed: `recording` and `error` of each that could not be replayed at all.
        provenance: JSON-safe; `command`, `version`, `created`, `engine`, ...
        classes: of the labels.
    """
    parts = [
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>vidseg replay</title>",
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style></head><body><main>",
        f"<h1>Replay</h1><p class=quiet>vidseg {escape(provenance['version'])}, {escape(provenance['created'])}</p>",
    ]
    if failed:
        lines = "".join(f"<p class=error>{escape(one['error'])}</p>" for one in failed)
        parts.append(f"<section><h2>Not replayed</h2>{lines}</section>")
    parts += [_section(replay, classes) for replay in replays]
    parts.append(
        "<section><h2>How this was made</h2>"
        f"<pre>{escape(provenance['command'])}</pre>"
        "<details><summary>Engine and versions</summary>"
        f"<pre>{escape(json.dumps(provenance, indent=2))}</pre></details>"
        "</section></main></body></html>\n"
    )
    return "\n".join(parts)


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
    parts.append("<h3>Sample frames</h3>" + _legend(classes) + _samples(replay.samples, summary["reference"], classes))
    return "\n".join(parts) + "</section>"


def _offline(summary: dict) -> str:
    every = summary["offline"]
    agreement = "pixel accuracy" if summary["reference"] == REFERENCES[0] else "agreement"
    cards = [
        ("mIoU, every frame in turn", _percent(every["miou"])),
        ("avg mIoU over the distances", _percent(summary["avg_miou"])),
        ("min mIoU, at the last distance", _percent(summary["min_miou"])),
        (agreement, _percent(every["pixel_accuracy"])),
        ("temporal consistency", _percent(every["temporal_consistency"])),
        ("key frames", f"{every['key_frames']} of {every['frames']}"),
    ]
    parts = ["<h3>Every frame</h3>", _cards(cards), _pairs("Reasons", every["reasons"])]
    if every["resets"]:
        resets = "; ".join(f"{reset['frame']}: {reset['reason']}" for reset in every["resets"])
        parts.append(f"<p class=quiet>The stream started afresh: {escape(resets)}</p>")
    if every["class_iou"]:
        parts.append(_figure(_accuracy_plot(summary), "mIoU by the frames since the key frame, and IoU by class"))
    return "\n".join(parts)


def _live(summary: dict, log: Log | None) -> str:
    live = summary["live"]
    if live is None:
        return ""
    latency = live["latency_ms"]
    cards = [
        ("streaming mIoU", _percent(live["streaming_miou"])),
        ("deadline mIoU", _percent(live["deadline_miou"])),
        ("labels per second", _number(live["rate_hz"])),
        ("frames dropped", f"{live['dropped']} of {live['frames']}"),
        ("latency, median", _number(latency["p50"], " ms")),
        ("latency, 95 %", _number(latency["p95"], " ms")),
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
            _cards(cards),
            _pairs("Reasons", live["reasons"]),
            _figure(_latency_plot(log), "From a frame's stamp to its labels, waiting included"),
        ]
    )


def _modes(rows: list[dict]) -> str:
    columns = ("mode", "rate_hz", "streaming_miou", "deadline_miou", "latency_ms", "dropped", "key_ms", "step_ms")
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_number(row[column])}</td>" for column in columns) + "</tr>" for row in rows)
    return f"<h3>Modes</h3><table><tr>{head}</tr>{body}</table>"


def _samples(samples: Iterable[ShownFrame], reference: str, classes: ClassTable) -> str:
    parts = []
    for sample in samples:
        frame, result = sample.frame, sample.segmentation
        kind = result.reason if result.is_key else f"propagated, {result.age} since the key frame"
        parts.append(_picture(frame.image, result.labels, classes, f"{frame.name}: {kind}"))
        if frame.labels is not None:
            parts.append(_picture(frame.image, frame.labels, classes, reference))
        else:
            parts.append(_picture(frame.image, None, classes, "image"))
    return f"<div class=samples>{''.join(parts)}</div>"


def _picture(image: np.ndarray, labels: np.ndarray | None, classes: ClassTable, caption: str) -> str:
    shown = image if labels is None else overlay(image, labels, classes.lut, OPACITY)
    size = SAMPLE_WIDTH, round(SAMPLE_WIDTH * shown.shape[0] / shown.shape[1])
    shown = cv2.resize(shown, size, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    return _figure(("jpeg", data), caption)


def _figure(picture: tuple[str, bytes], caption: str) -> str:
    kind, data = picture
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f"<figure><img src='{uri}' alt='{escape(caption)}'><figcaption>{escape(caption)}</figcaption></figure>"


def _accuracy_plot(summary: dict) -> tuple[str, bytes]:
    figure = _canvas(10, 3.6)
    iou = summary["offline"]["class_iou"]
    curve = summary["miou_by_distance"]
    if curve:
        axes, bars = figure.subplots(1, 2, width_ratios=(1, 1.2))
        axes.plot(range(len(curve)), curve, marker="o", color="#1f6feb")
        axes.set(xlabel="frames since the key frame", ylabel="mIoU, %", xticks=range(len(curve)))
        axes.grid(alpha=0.3)
    else:
        bars = figure.subplots()
    names = [name for name in iou if iou[name] is not None]
    bars.barh(names[::-1], [iou[name] for name in names[::-1]], color="#8aa4bf")
    bars.set(xlabel="IoU, %", xlim=(0, 100))
    bars.grid(alpha=0.3, axis="x")
    return _png(figure)


def _latency_plot(log: Log) -> tuple[str, bytes]:
    figure = _canvas(10, 3)
    course, share = figure.subplots(1, 2, width_ratios=(2, 1))
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
    return _png(figure)


def _canvas(width: float, height: float):
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("the report's plots need matplotlib, which is not installed") from error
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure) -> tuple[str, bytes]:
    data = BytesIO()
    figure.savefig(data, format="png")
    return "png", data.getvalue()


def _cards(cards: Iterable[tuple[str, str]]) -> str:
    shown = "".join(f"<div class=card><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in cards)
    return f"<div class=cards>{shown}</div>"


def _pairs(name: str, values: dict) -> str:
    text = ", ".join(f"{key} {value}" for key, value in values.items())
    return f"<p class=quiet>{escape(name)}: {escape(text)}</p>"


def _legend(classes: ClassTable) -> str:
    entries = (
        f"<span><i style='background:rgb{color}'></i>{escape(name)}</span>"
        for name, color in zip(classes.names, classes.palette, strict=True)
    )
    return f"<p class=legend>{''.join(entries)}</p>"


def _percent(value: float | None) -> str:
    return _number(value, " %")


def _number(value: float | str | None, unit: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:.1f}{unit}" if isinstance(value, float) else f"{value}{unit}"
