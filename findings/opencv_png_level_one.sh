#!/bin/sh
# opencv-python-headless 5.0.0.93: a PNG written with IMWRITE_PNG_COMPRESSION 1 is larger AND slower to write than one
# written without any parameter, though the documentation calls 1 the default and the setting of best speed. One would
# expect 1 to change nothing. But naming any level also replaces the default strategy, run-length coding, by zlib's
# search for matches. A label image of 2048 x 1024 with 19 classes (milliseconds of one run):
#
#   default: 69290 bytes, 9 ms; level 1: 80279 bytes, 26 ms
#
# Exit status 0 while it is so, 1 once it is not.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q opencv-python-headless==5.0.0.93 numpy==2.2.6
"$work/venv/bin/python" - <<'END'
import sys
import time

import cv2
import numpy as np

rng = np.random.default_rng(0)
labels = np.zeros((1024, 2048), np.uint8)
for x, y, radius, label in zip(
    rng.integers(0, 2048, 400), rng.integers(0, 1024, 400), rng.integers(5, 120, 400), rng.integers(0, 19, 400)
):
    cv2.circle(labels, (int(x), int(y)), int(radius), int(label), -1)


def written(parameters):
    best = float("inf")
    for _ in range(9):
        started = time.perf_counter()
        data = cv2.imencode(".png", labels, parameters)[1]
        best = min(best, time.perf_counter() - started)
    assert (cv2.imdecode(data, cv2.IMREAD_UNCHANGED) == labels).all()
    return len(data), 1e3 * best


default, one = written([]), written([cv2.IMWRITE_PNG_COMPRESSION, 1])
print("default: {} bytes, {:.0f} ms; level 1: {} bytes, {:.0f} ms".format(*default, *one))
sys.exit(0 if one[0] > 1.1 * default[0] and one[1] > 1.3 * default[1] else "changed: level 1 is smaller or as fast")
END
