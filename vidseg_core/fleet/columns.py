"""The columns of the table of frames."""

from __future__ import annotations

import numpy as np

COLUMNS = {
    "number": np.int32,
    "stamp_ns": np.int64,
    "is_key": np.bool_,
    "age": np.int16,
    "labelled_pixels": np.int32,
    "right_pixels": np.int32,
    "looked_pixels": np.int32,
    "same_pixels": np.int32,
}
"""What is stored of each frame: pixels with a known class in the truth and those right among them, pixels with a class
in the per-frame network's labels and those with the same class among them; -1 where there is nothing to compare with.
"""
