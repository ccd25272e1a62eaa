"""Operations as Triton kernels, for CUDA devices; importing this registers them.

Kernels are compiled without contraction of multiplication and addition (`LAUNCH`), so that they round as the
references in plain torch do. The same sources run in Triton's interpreter on the CPU (`TRITON_INTERPRET=1`) and compile
without a card (`ahead.py`); tests do both, since each finds what the other does not.

Tables of positions, one for each size that was ever asked for, are kept for good (`@cache`): recorded frames
(`kernels.recording`) read them where they are.
"""

from vidseg_core.kernels.triton import difference, flow, fuse, look, paint, refine, stretch, transfer, update, warp

__all__ = ["difference", "flow", "fuse", "look", "paint", "refine", "stretch", "transfer", "update", "warp"]
