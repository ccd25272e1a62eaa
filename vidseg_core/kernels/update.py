"""Replace carried logits by fresh ones where the picture is not what the past lets expect.

Between key frames a network looks at the current frame at low resolution. The two branches are Accel's (Jain et al.,
CVPR 2019), whose corrective fusion has learned weights.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidseg_core.kernels.cpu.update import update_rows
from vidseg_core.kernels.dispatch import Operation
from vidseg_core.kernels.fuse import likeness
from vidseg_core.kernels.resample import lattice, on_grid
from vidseg_core.threads import over_rows

# Chosen on streets that no training saw; 7 to 14 are about equally good.
TOLERANCE = 10.0  # grey levels
VALUE_NS = 0.7
"""On one thread, see `threads.over_rows`."""


def update(carried: Tensor, fresh: Tensor, apart: Tensor, picture: tuple[int, int] | None = None) -> Tensor:
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
    return UPDATE.on(carried.device.type)(carried, fresh, apart, picture)


def update_reference(carried: Tensor, fresh: Tensor, apart: Tensor, picture: tuple[int, int] | None) -> Tensor:
    """Compute `update` in plain torch."""
    wide = torch.promote_types(carried.dtype, torch.float32)
    fresh = on_grid(fresh.to(wide), (carried.shape[2], carried.shape[3]), picture)
    return torch.lerp(fresh, carried.to(wide), likeness(apart, TOLERANCE).to(wide))


UPDATE = Operation("update", update_reference)


@UPDATE.register("cpu")
def _update_on_cpu(carried: Tensor, fresh: Tensor, apart: Tensor, picture: tuple[int, int] | None) -> Tensor:
    past, new = (x.float().permute(0, 2, 3, 1).contiguous()[0].numpy() for x in (carried, fresh))  # h x w x C
    height, width = past.shape[:2]
    places = []
    for i, outputs in enumerate((height, width)):
        side = None if picture is None else picture[i]
        at = lattice(new.shape[i], outputs, side, source_half_pixel=side is not None)
        at = at.clip(0, new.shape[i] - 1)
        before = at.astype(np.int32)
        places += [before, (at - before).astype(np.float32)]
    out = np.empty_like(past)
    share = likeness(apart, TOLERANCE).contiguous()[0, 0].numpy()
    over_rows(update_rows, height, past, new, share, *places, out, work_us=VALUE_NS * out.size / 1e3)
    return torch.from_numpy(out)[None].permute(0, 3, 1, 2)
