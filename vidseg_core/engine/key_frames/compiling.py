"""Networks for the segmenting process that are not kept in compiled form: compiled there, or executed by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vidseg_core.backends.choose import Runtime
from vidseg_core.engine.segmenter import load_segmenter
from vidseg_core.models.architectures import SEGMENTER
from vidseg_core.models.open import open_model
from vidseg_core.threads import set_num_threads

Execute = Callable[[np.ndarray], list[np.ndarray]]
Shape = tuple[int, ...]


def compiler(
    path: Path, input_scale: float | None, choice: str, num_threads: int
) -> Callable[[Shape], tuple[Execute, str | None]]:
    """Load a network.

    Args:
        path: of a model with a segmenter.
        input_scale: see `NetworkSegmenter`.
        choice: see `Runtime`.
        num_threads: of the CPU, 1 or more.

    Returns:
        (shape of its input, 1 x h x w x 3) -> what executes it for that shape, which is compiled now, and its name.
    """
    device = torch.device("cpu")
    set_num_threads(num_threads)
    runtime = Runtime(choice, device, num_threads)
    segmenter = load_segmenter(open_model(path, SEGMENTER), input_scale, device, runtime, lean=True)

    def execute(picture: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            found = segmenter.execute(torch.from_numpy(picture).permute(0, 3, 1, 2))
            outputs = found if isinstance(found, tuple) else (found,)
            return [values.float().permute(0, 2, 3, 1).numpy() for values in outputs]

    def compiled(shape: Shape) -> tuple[Execute, str | None]:
        execute(np.zeros(shape, np.float32))
        return execute, segmenter.runtime

    return compiled
