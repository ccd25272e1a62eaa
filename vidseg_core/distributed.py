"""Several processes with one job, started by `torchrun`: who has which share, sums over all, and one who writes.

Without `torchrun` there is one process, and everything here does nothing. Then it does not need PyTorch either, whose
import takes seconds, in programs that only count what others have computed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def _has_joined() -> bool:
    """Whether this process is one of several."""
    if "torch" not in sys.modules:
        return False
    from torch import distributed

    return distributed.is_initialized()


def rank() -> int:
    """This process's number, from 0."""
    if not _has_joined():
        return 0
    from torch import distributed

    return distributed.get_rank()


def world_size() -> int:
    """Count the processes of the session."""
    if not _has_joined():
        return 1
    from torch import distributed

    return distributed.get_world_size()


def processes_here() -> int:
    """Count the session's processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_writer() -> bool:
    """Tell whether this process is the one that prints and writes files."""
    return rank() == 0


def local_device(name: str) -> str:
    """The device for this process: with several processes and CUDA, each has its own card; else `name`."""
    if "LOCAL_RANK" in os.environ and name in ("auto", "cuda"):
        import torch

        if torch.cuda.is_available():
            return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return name


@contextmanager
def session(device: str) -> Iterator[None]:
    """Join the other processes that `torchrun` has started; without it, nothing.

    Args:
        device: of the computation: NCCL for cuda, gloo for cpu.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch
    from torch import distributed

    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda:
        torch.cuda.set_device(local_device(device))
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


@contextmanager
def writer_first() -> Iterator[None]:
    """The writer does what is inside before the others, who then find the files that it has made."""
    if not is_writer():
        barrier()
    yield
    if is_writer():
        barrier()


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        from torch import distributed

        distributed.barrier()


def agreed(value: float) -> float:
    """The writer's value, for decisions that all must make alike."""
    if world_size() == 1:
        return value
    import torch
    from torch import distributed

    tensor = torch.tensor([value], dtype=torch.float64, device=_device())
    distributed.broadcast(tensor, 0)
    return float(tensor)


def sum_counts(counts: np.ndarray) -> np.ndarray:
    """The sum over all processes of int64 arrays of one shape."""
    if world_size() == 1:
        return counts
    import torch
    from torch import distributed

    tensor = torch.from_numpy(np.ascontiguousarray(counts)).to(_device())
    distributed.all_reduce(tensor)
    return tensor.cpu().numpy()


def average(tensors: Iterable[Tensor]) -> None:
    """Replace floating-point tensors by their mean over all processes, in one exchange."""
    tensors = list(tensors)
    if world_size() == 1 or not tensors:
        return
    import torch
    from torch import distributed

    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= world_size()
    start = 0
    for tensor in tensors:
        with torch.no_grad():
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


def _device() -> torch.device:
    """Where tensors must be that are exchanged."""
    import torch
    from torch import distributed

    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
