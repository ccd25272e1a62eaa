"""The process that segments beside the streams: what runs in it, and the messages it exchanges."""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from vidseg_core.allocator import give_back_at_once, give_back_free_memory
from vidseg_core.backends.choose import Runtime
from vidseg_core.engine.key_frames.shared_memory import Shared
from vidseg_core.engine.segmenter import NetworkSegmenter, load_segmenter
from vidseg_core.frame import Frame
from vidseg_core.kernels.fuse import fuse
from vidseg_core.models.architectures import SEGMENTER
from vidseg_core.models.open import open_model
from vidseg_core.threads import set_num_threads

log = logging.getLogger(__name__)
# Where it takes its share, a frame goes first.
NICENESS = 5


@dataclass(frozen=True)
class Task:
    """The task of a segmenting process.

    Attributes:
        path: weights of a segmentation network.
        input_scale: see `NetworkSegmenter`.
        runtime: see `Runtime`.
        num_threads: of the CPU, 1 or more.
        is_idle: whether it runs only where nobody else wants a processor.
    """

    path: Path
    input_scale: float | None
    runtime: str
    num_threads: int
    is_idle: bool = True


@dataclass(frozen=True)
class Request:
    """The shapes of the arrays that lie in the shared memory, one behind the other.

    Attributes:
        image: H x W x 3, uint8, RGB.
        carried, apart: h x w x C and h x w, float32, for `fuse`; None where nothing is to be blended in.
        share: see `Capabilities.input_rows`.
    """

    image: tuple[int, ...]
    carried: tuple[int, ...] | None = None
    apart: tuple[int, ...] | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes:
        shape: of the scores in the shared memory, 1 x h x w x C.
        runtime: what executes the network.
        error: what went wrong instead, with its traceback; None for nothing.
        messages: level and text of its log records.
        share: of the size at which the network has seen it, where that tells what it costs; None where something was
            compiled meanwhile.
    """

    shape: tuple[int, ...] = ()
    runtime: str | None = None
    error: str | None = None
    messages: tuple[tuple[int, str], ...] = ()
    share: float | None = None


def arrays_of(memory: Shared, request: Request) -> list[np.ndarray]:
    """View the image in the shared memory and, if there are any, carried scores and where they are wrong."""
    past = [(shape, np.float32) for shape in (request.carried, request.apart) if shape is not None]
    return memory.arrays((request.image, np.uint8), *past)


def serve(connection: int, given: int, scores: int) -> None:
    """Segment whatever is asked for, until the owner hangs up.

    Args:
        connection: file descriptor, on which a `Task` comes and then `Request`s, each of which has an `Answer`.
        given: file descriptor of the memory where requests have their arrays.
        scores: file descriptor of the memory where scores are put, float32.
    """
    give_back_at_once()
    told = _Told()
    channel, asked, wanted = Connection(connection), Shared(given), Shared(scores)
    try:
        task, segmenter, problem = channel.recv(), None, None
        _let_others_go_first(task.is_idle)
        try:
            segmenter = _segmenter(task)
        except Exception:  # told to whoever asks for scores
            problem = traceback.format_exc()
        while True:
            request = channel.recv()
            if segmenter is None:
                channel.send(Answer(error=problem, messages=told.take()))
            else:
                segmenter.share = request.share
                channel.send(_answer(segmenter, arrays_of(asked, request), wanted, told))
    except (EOFError, ConnectionError):
        return


def _answer(segmenter: NetworkSegmenter, given: list[np.ndarray], wanted: Shared, told: _Told) -> Answer:
    try:
        with torch.inference_mode():
            image, *past = given
            scores = segmenter(Frame(image, 0))
            if past:
                carried, apart = map(torch.from_numpy, past)
                size = image.shape[:2] if segmenter.half_pixel else None
                scores = fuse(scores, carried.permute(2, 0, 1)[None], apart[None, None], size)
            values = scores.permute(0, 2, 3, 1).numpy()
        np.copyto(wanted.arrays((values.shape, np.float32))[0], values)
    except Exception:  # the owner raises it
        return Answer(error=traceback.format_exc(), messages=told.take())
    costs = [segmenter.costs.popleft() for _ in range(len(segmenter.costs))]
    if not costs:  # something was compiled meanwhile
        give_back_free_memory()
    return Answer(values.shape, segmenter.runtime, None, told.take(), costs[-1][1] if costs else None)


def _segmenter(task: Task) -> NetworkSegmenter:
    device = torch.device("cpu")
    set_num_threads(task.num_threads)
    runtime = Runtime(task.runtime, device, task.num_threads)
    return load_segmenter(open_model(task.path, SEGMENTER), task.input_scale, device, runtime, lean=True)


def _let_others_go_first(is_idle: bool) -> None:
    """Lower the priority of this process, for threads that it will start, too."""
    os.nice(NICENESS)
    # SCHED_BATCH: when it is let go on, it does not push aside the frame that has done so.
    policy = os.SCHED_IDLE if is_idle else os.SCHED_BATCH
    try:
        os.sched_setscheduler(0, policy, os.sched_param(0))
    except PermissionError as error:
        log.warning("the segmenter's process may not choose when it runs (%s): frames may wait for it", error.strerror)


class _Told(logging.Handler):
    """Keeps messages for the owner, whose log they go to."""

    def __init__(self):
        super().__init__(logging.INFO)
        self._messages: list[tuple[int, str]] = []
        project = logging.getLogger("vidseg_core")
        project.setLevel(logging.INFO)
        project.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append((record.levelno, record.getMessage()))

    def take(self) -> tuple[tuple[int, str], ...]:
        messages, self._messages = tuple(self._messages), []
        return messages
