#!/bin/sh
# opencv-python-headless 5.0.0.93: the same Y, U and V become another colour by COLOR_YUV2RGB (three channels, 4:4:4) than
# by COLOR_YUV2RGB_YUY2 (4:2:2) and COLOR_YUV2RGB_NV12 (4:2:0). One would expect the family to differ by how chroma is
# sampled alone. But the subsampled ones read video range (luma 16 to 235) by BT.601, and 4:4:4 full range by the weights
# of analogue YUV (1.140 V, 2.032 U): a camera's yuv444 and nv24 pictures come out pale and in other hues.
#
#   Y 120 U 90 V 180: 4:4:4 [179, 105, 43], 4:2:2 [204, 94, 44], 4:2:0 [204, 94, 44]
#   white (Y 235):    4:4:4 [235, 235, 235], 4:2:2 [255, 255, 255], 4:2:0 [255, 255, 255]
#
# Exit status 0 while it is so, 1 once it is not.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q opencv-python-headless==5.0.0.93 numpy==2.2.6
"$work/venv/bin/python" - <<'END'
import sys

import cv2
import numpy as np


def colours(y, u, v):
    full = np.full((2, 2, 3), (y, u, v), np.uint8)
    half = np.array([[(y, u), (y, v)]] * 2, np.uint8)
    quarter = np.array([[y, y], [y, y], [u, v]], np.uint8)
    pictures = (
        cv2.cvtColor(full, cv2.COLOR_YUV2RGB),
        cv2.cvtColor(half, cv2.COLOR_YUV2RGB_YUY2),
        cv2.cvtColor(quarter, cv2.COLOR_YUV2RGB_NV12),
    )
    return [picture[0, 0].tolist() for picture in pictures]


some, white = colours(120, 90, 180), colours(235, 128, 128)
print("Y 120 U 90 V 180: 4:4:4 {}, 4:2:2 {}, 4:2:0 {}".format(*some))
print("white (Y 235):    4:4:4 {}, 4:2:2 {}, 4:2:0 {}".format(*white))
expected = ([[179, 105, 43], [204, 94, 44], [204, 94, 44]], [[235] * 3, [255] * 3, [255] * 3])
sys.exit(0 if (some, white) == expected else "changed: other colours than stated")
END
