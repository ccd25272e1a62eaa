"""Replace carried logits by fresh ones where the picture is not what the past lets expect.

Between key frames a network looks at the current frame at low resolution. The two branches are Accel's (Jain et al.,
CVPR 2019), whose corrective fusion has learned weights.
"""

from __future__ import annotations

import numpy as np

from vidseg_core.arrays import Array, channels_first, device_type_of, pixels_last
from vidseg_core.kernels.cpu.update import update_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.fuse import likeness
from vidseg_core.kernels.resample import places
from vidseg_core.threads import over_rows

# Chosen on streets that no training saw; 7 to 14 are about equally good.
TOLERANCE = 10.0  # grey levels
VALUE_NS = 0.7
"""On one thread, see `threads.over_rows`."""


def update(carried: Array, fresh: Array, apart: Array, picture: tuple[int, int] | None = None) -> Array:
    """Blend fresh logits into carried ones.

    Args:
        carried: 1 x C x h x w, logits of the past at their new places. Fastest in float32 and channels last on the CPU.
        fresh: 1 x C x any size, logits of the current frame, seen at low resolution.
        apart: 1 x 1 x h x w, see `difference`; the share of the past is exp(-(apart / `TOLERANCE`)^2).
        picture: (H, W) of the picture, of which the fresh logits' pixels cover equal parts; None where the outermost
            lie on its outermost, as those of the grid do.

    Returns:
        1 x C x h x w, float32, newly allocated.
    """
    return UPDATE.on(device_type_of(carried))(carried, fresh, apart, picture)


UPDATE = Operation("update", "update.update_reference")


@UPDATE.register("cpu")
def _update_on_cpu(
    carried: np.ndarray, fresh: np.ndarray, apart: np.ndarray, picture: tuple[int, int] | None
) -> np.ndarray:
    past, new = pixels_last(carried), pixels_last(fresh)
    at = places(new.shape[:2], past.shape[:2], picture, source_half_pixel=picture is not None)
    out = np.empty_like(past)
    share = np.ascontiguousarray(likeness(apart, TOLERANCE)[0, 0], dtype=np.float32)
    over_rows(update_rows, len(past), past, new, share, *at, out, work_us=VALUE_NS * out.size / 1e3)
    return channels_first(out)
