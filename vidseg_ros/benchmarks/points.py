"""Measure how long labelled points take: from a depth image or a serialized cloud to the message that is published.

    python -m vidseg_ros.benchmarks.points --size 1000x1000 --repeats 100 --threads 2

Milliseconds of one call. `message` is the copy of the points into their message.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from vidseg_core.data.wire import Stamp, Stamped, parse_point_cloud, serialise_point_cloud
from vidseg_core.kernels.points import Labelled, cloud_points, depth_points
from vidseg_core.threads import set_num_threads
from vidseg_ros.memory import keep_freed_memory
from vidseg_ros.points import FIELDS

HEADER = Stamped(Stamp(1, 0), "camera")


def ways(height: int, width: int) -> dict[str, Callable[[], np.ndarray]]:
    """Return what makes labelled points of each kind of source, by its name."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels, levels = (rng.integers(0, 256, (height, width), dtype=np.uint8) for _ in range(2))
    picture = Labelled(image, labels, levels)
    metres = rng.uniform(1.0, 60.0, (height, width)).astype(np.float32)
    projection = np.array([[0.8 * width, 0, width / 2, 0], [0, 0.8 * width, height / 2, 0], [0, 0, 1.0, 0]])
    points = depth_points(picture, metres, projection)
    organised = serialise_point_cloud(HEADER, FIELDS, points)
    single = serialise_point_cloud(HEADER, FIELDS, points.reshape(1, -1, points.shape[2]))
    millimetres = (metres * 1000).astype(np.uint16)
    return {
        "depth 16UC1": lambda: depth_points(picture, millimetres, projection),
        "depth 32FC1": lambda: depth_points(picture, metres, projection),
        "cloud, organised": lambda: cloud_points(picture, parse_point_cloud(organised).positions(), projection),
        "cloud, one row": lambda: cloud_points(picture, parse_point_cloud(single).positions(), projection),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="points", description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1000x1000", metavar="WxH", help="pixels or points (default: 1000x1000)")
    parser.add_argument("--repeats", type=int, default=100, help="calls of each kind (default: 100)")
    parser.add_argument("--threads", type=int, default=0, help="0: what may be used (default)")
    options = parser.parse_args(argv)
    width, height = map(int, options.size.split("x"))
    keep_freed_memory()
    threads = set_num_threads(options.threads)
    print(f"{width * height} points, {threads} threads; ms     p50      p95      max  message p50")
    for name, make in ways(height, width).items():
        points = make()  # compiled now
        took = np.empty((options.repeats, 2))
        for i in range(options.repeats):
            begin = time.perf_counter()
            points = make()
            made = time.perf_counter()
            serialise_point_cloud(HEADER, FIELDS, points)
            took[i] = made - begin, time.perf_counter() - made
        took *= 1e3
        whole = took.sum(1)
        marks = (*np.percentile(whole, (50, 95)), whole.max(), np.median(took[:, 1]))
        print(f"{name:32s}" + "".join(f"{mark:9.2f}" for mark in marks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
