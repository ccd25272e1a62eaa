"""Semantic labels for every camera frame: a network on key frames, optical flow and a small network between them.

The names in `__all__` are the library's public ones. Each is loaded when it is first asked for, so importing this
package loads neither PyTorch nor numba.
"""

import os
from importlib import import_module

from vidseg_core.kernel_cache import ensure_kernel_cache

__version__ = "0.2.0"

_HOME = {
    "ClassTable": "vidseg_core.classes",
    "Engine": "vidseg_core.engine.engine",
    "EngineConfig": "vidseg_core.engine.config",
    "Frame": "vidseg_core.frame",
    "InputCard": "vidseg_core.models.card",
    "OutputCard": "vidseg_core.models.card",
    "Segmentation": "vidseg_core.frame",
    "Stream": "vidseg_core.engine.stream",
    "build_engine": "vidseg_core.engine.build",
    "load_classes": "vidseg_core.classes",
    "network_segmenter": "vidseg_core.engine.function",
    "open_source": "vidseg_core.data.open",
}
__all__ = ["__version__", *_HOME]

# Read once, when PyTorch is loaded. Its idle threads would otherwise spin for some milliseconds after each operation,
# on processors that flow, OpenVINO and our kernels want: propagated frames took 1.3 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ensure_kernel_cache()


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
