"""Draw `architecture.png`: the way of a frame through the engine. `python docs/architecture.py`"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch, Rectangle

ROS, CORE, NETWORK = "#dbe9f6", "#e4f1df", "#fbe5cf"
BOXES = {  # name: (x, y, colour, file)
    "camera message": (0, 3, CORE, "data/wire.py, encodings.py"),
    "mailbox": (2.4, 3, ROS, "mailbox.py"),
    "frame": (4.8, 3, CORE, "frame.py"),
    "schedule": (7.2, 3, CORE, "engine/schedule.py"),
    "segmenter": (9.8, 4.6, NETWORK, "engine/segmenter.py"),
    "fuse": (12.2, 4.6, CORE, "kernels/fuse.py"),
    "flow": (9.8, 3, CORE, "engine/flow.py"),
    "warp": (12.2, 3, CORE, "kernels/warp.py"),
    "refine, update": (12.2, 1.4, NETWORK, "engine/refine.py, kernels/update.py"),
    "decode": (14.8, 3, CORE, "kernels/decode.py"),
    "labels": (17.2, 3, CORE, "frame.py"),
    "label message": (19.6, 3, ROS, "outputs.py"),
}
ARROWS = (
    ("camera message", "mailbox"), ("mailbox", "frame"), ("frame", "schedule"), ("schedule", "segmenter"),
    ("schedule", "flow"), ("segmenter", "fuse"), ("flow", "warp"), ("warp", "fuse"), ("warp", "decode"),
    ("warp", "refine, update"), ("fuse", "decode"), ("refine, update", "decode"), ("decode", "labels"),
    ("labels", "label message"),
)  # fmt: skip
WIDTH, HEIGHT = 2.0, 0.9


def main() -> None:
    figure, axes = pyplot.subplots(figsize=(15, 4.2), dpi=110)
    for name, (x, y, colour, file) in BOXES.items():
        axes.add_patch(
            FancyBboxPatch((x, y), WIDTH, HEIGHT, boxstyle="round,pad=0.05", facecolor=colour, edgecolor="grey")
        )
        axes.text(x + WIDTH / 2, y + 0.58, name, ha="center", va="center", fontsize=10)
        axes.text(x + WIDTH / 2, y + 0.22, file, ha="center", va="center", fontsize=6.5, color="dimgrey")
    for begin, end in ARROWS:
        (x0, y0, *_), (x1, y1, *_) = BOXES[begin], BOXES[end]
        upright = x0 == x1
        up = y1 > y0
        start = (x0 + WIDTH / 2, y0 + (HEIGHT if up else 0)) if upright else (x0 + WIDTH + 0.05, y0 + HEIGHT / 2)
        target = (x1 + WIDTH / 2, y1 + (0 if up else HEIGHT)) if upright else (x1 - 0.05, y1 + HEIGHT / 2)
        axes.annotate("", target, start, arrowprops={"arrowstyle": "->", "color": "black", "shrinkA": 2, "shrinkB": 2})
    axes.text(10.9, 5.75, "key frames", ha="center", fontsize=9, style="italic")
    axes.text(
        9.3, 2.75, "propagated frames (and the past of key frames)", ha="center", va="top", fontsize=9, style="italic"
    )
    for x, (text, colour) in zip((0, 2.6, 5.2), (("ROS", ROS), ("core", CORE), ("networks", NETWORK)), strict=True):
        axes.add_patch(Rectangle((x, 0.9), 0.5, 0.35, facecolor=colour, edgecolor="grey"))
        axes.text(x + 0.75, 1.07, text, va="center", fontsize=9)
    axes.set_xlim(-0.3, 21.9)
    axes.set_ylim(0.6, 6.1)
    axes.axis("off")
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("architecture.png"))


if __name__ == "__main__":
    main()
