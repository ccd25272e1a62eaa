"""Pieces of reports as HTML that needs nothing beside it: pictures are inside, as data URIs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from html import escape
from io import BytesIO

import cv2
import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.errors import ConfigError
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


def figure(file: tuple[str, bytes], caption: str) -> str:
    """Show a picture, (`png` or `jpeg`, its file), with a caption."""
    kind, data = file
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f"<figure><img src='{uri}' alt='{escape(caption)}'><figcaption>{escape(caption)}</figcaption></figure>"


def picture(image: np.ndarray, labels: np.ndarray | None, classes: ClassTable, caption: str) -> str:
    """Show an image, H x W x 3, uint8, RGB, under the colours of its labels (H x W, uint8) if there are any."""
    return figure(("jpeg", jpeg(image, labels, classes)), caption)


def jpeg(
    image: np.ndarray, labels: np.ndarray | None, classes: ClassTable, width: int = SAMPLE_WIDTH, quality: int = 88
) -> bytes:
    """Draw an image as `picture` shows it, `width` pixels wide, as a JPEG file."""
    shown = image if labels is None else overlay(image, labels, classes.lut, OPACITY)
    size = width, round(width * shown.shape[0] / shown.shape[1])
    shown = cv2.resize(shown, size, interpolation=cv2.INTER_AREA)
    coded = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return coded.tobytes()


def canvas(width: float, height: float):
    """Make a figure of matplotlib for plots, width and height in inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("the report's plots need matplotlib, which is not installed") from error
    drawn = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn


def png(drawn) -> tuple[str, bytes]:
    """Draw a figure of matplotlib."""
    data = BytesIO()
    drawn.savefig(data, format="png")
    return "png", data.getvalue()


def cards(values: Iterable[tuple[str, str]]) -> str:
    """Show figures, (name, value) each, side by side."""
    shown = "".join(
        f"<div class=card><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in values
    )
    return f"<div class=cards>{shown}</div>"


def pairs(name: str, values: dict) -> str:
    """Show what a dictionary has in one line."""
    text = ", ".join(f"{key} {value}" for key, value in values.items())
    return f"<p class=quiet>{escape(name)}: {escape(text)}</p>"


def legend(classes: ClassTable) -> str:
    """Show the colours of the classes."""
    entries = (
        f"<span><i style='background:rgb{color}'></i>{escape(name)}</span>"
        for name, color in zip(classes.names, classes.palette, strict=True)
    )
    return f"<p class=legend>{''.join(entries)}</p>"


def percent(value: float | None) -> str:
    """Word a percentage; a dash for None."""
    return number(value, " %")


def number(value: float | str | None, unit: str = "") -> str:
    """Word a value with one digit after the point; a dash for None, text as it is."""
    if value is None:
        return "–"
    return f"{value:.1f}{unit}" if isinstance(value, float) else f"{value}{unit}"


def page(title: str, heading: str, parts: Iterable[str], provenance: dict) -> str:
    """Write a whole page; at its end it says how it was made.

    Args:
        title: of the browser's window.
        heading: over everything.
        parts: what is on it.
        provenance: JSON-safe; `command`, `version`, `created`, ...
    """
    begin = [
        f"<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>",
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style></head><body><main>",
        f"<h1>{escape(heading)}</h1>"
        f"<p class=quiet>vidseg {escape(provenance['version'])}, {escape(provenance['created'])}</p>",
    ]
    end = (
        "<section><h2>How this was made</h2>"
        f"<pre>{escape(provenance['command'])}</pre>"
        "<details><summary>Engine and versions</summary>"
        f"<pre>{escape(json.dumps(provenance, indent=2))}</pre></details>"
        "</section></main></body></html>\n"
    )
    return "\n".join([*begin, *parts, end])
