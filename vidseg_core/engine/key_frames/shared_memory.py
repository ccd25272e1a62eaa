"""Memory that two processes see."""

from __future__ import annotations

import math
import mmap
import os
import weakref

import numpy as np

ALIGNMENT = 64  # bytes


class Shared:
    """Memory that two processes see, as large as the largest array that was asked for.

    Attributes:
        file: of `os.memfd_create`; belongs to this object from now on.
    """

    def __init__(self, file: int):
        self.file = file
        self._memory: mmap.mmap | None = None
        weakref.finalize(self, os.close, file)

    def arrays(self, *layout: tuple[tuple[int, ...], type]) -> list[np.ndarray]:
        """View the memory as arrays of these shapes and types, one behind the other.

        They stay what they are only until the next call.
        """
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in layout]
        begins = [sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes[:k]) for k in range(len(sizes))]
        end = begins[-1] + sizes[-1]
        if self._memory is None or len(self._memory) < end:
            if os.fstat(self.file).st_size < end:
                os.ftruncate(self.file, end)
            self._memory = mmap.mmap(self.file, end)
        return [
            np.frombuffer(self._memory, dtype, math.prod(shape), begin).reshape(shape)
            for begin, (shape, dtype) in zip(begins, layout, strict=True)
        ]
