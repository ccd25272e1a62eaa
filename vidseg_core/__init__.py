"""Semantic labels for every camera frame: a network on key frames, optical flow and a small network between them."""

import os

from vidseg_core.kernel_cache import ensure_kernel_cache

__version__ = "0.1.0"

# Read once, when PyTorch is loaded. Its idle threads would otherwise spin for some milliseconds after each operation,
# on processors that flow, OpenVINO and our kernels want: propagated frames took 1.3 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ensure_kernel_cache()
