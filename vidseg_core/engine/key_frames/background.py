"""A thread that segments key frames beside the streams."""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, Generic, cast

import numpy as np

from vidseg_core.arrays import Array, without_gradients
from vidseg_core.engine.key_frames.jobs import KeyFrameWork, Result
from vidseg_core.engine.key_frames.queues import InOrder, Queues
from vidseg_core.engine.key_frames.turns import Turns
from vidseg_core.frame import Frame

# Where processors are short, a frame that has come goes first. Much more would have a thread that is not let run keep
# the interpreter's lock from the stream.
NICENESS = 5
CLOSE_S = 3.0
MOST_IMAGES = 4


class Background:
    """One thread beside the streams: one key frame after the other, in the order they were begun.

    Where a device computes several best together (`Queues.most_together`), those of one size that wait one behind the
    other are.

    As all of an engine's key frames are its work, it alone uses the segmenter. A context manager: `close` when left.

    Args:
        turns: of a segmenter that stands still while a stream is at a frame; None where it does not.
        queues: of the device that computes; None for the processor.
    """

    at_once = False

    def __init__(self, turns: Turns | None = None, queues: Queues | None = None):
        self._turns = turns
        self._queues = queues or InOrder()
        self._images: deque[np.ndarray] = deque(maxlen=MOST_IMAGES)
        self._jobs: SimpleQueue[_Begun | None] = SimpleQueue()
        self._busy_since_s: float | None = None
        self._closed = False
        self._closing = threading.Lock()
        # A daemon: a segmenter that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="vidseg-segmenter", daemon=True)
        self._thread.start()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def frame(self) -> AbstractContextManager:
        """See `KeyFrames`."""
        return self._queues.frame() if self._turns is None else self._turns.frame()

    def begin(self, work: Callable[[Frame], Result], frame: Frame) -> BackgroundJob[Result]:
        """Raises RuntimeError once it is closed."""
        result: Future[Result] = Future()
        job = _Begun(work, replace(frame, image=self._copy(frame.image)), self._queues.mark(), result)
        with self._closing:
            if self._closed:
                raise RuntimeError("the thread for key frames is closed")
            self._jobs.put(job)
        return BackgroundJob(result, self._turns)

    def _copy(self, image: np.ndarray) -> np.ndarray:
        """Copy a camera's image, where possible into the memory of one that is done with.

        The system clears fresh memory page by page, which takes longer than the copying: of large images, by far.
        """
        with suppress(IndexError):
            copy = self._images.popleft()
            if copy.shape == image.shape and copy.dtype == image.dtype:
                np.copyto(copy, image)
                return copy
        return image.copy()

    def busy_s(self) -> float:
        """Return for how many seconds the thread has been at its key frame; 0 if it is idle."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def close(self, timeout_s: float | None = CLOSE_S) -> bool:
        """Let it finish the key frame it is at; what waits behind that is cancelled. May be called again.

        Returns:
            Whether it did within `timeout_s` (None: however long it takes).
        """
        with self._closing:
            self._closed = True
            self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        os.nice(NICENESS)  # on Linux, of this thread alone
        held: _Begun | None = None
        while (job := held or self._jobs.get()) is not None:
            jobs, held, ends = self._with_others(job)
            if self._closed:
                for one in jobs:
                    one.result.cancel()
            jobs = [one for one in jobs if one.result.set_running_or_notify_cancel()]
            if jobs:
                self._do(jobs)
            if ends:
                break

    def _with_others(self, job: _Begun) -> tuple[list[_Begun], _Begun | None, bool]:
        """Take what waits behind a job and can be done with it.

        Returns:
            All of them; the next job, where one was taken that cannot; and whether it was the end that was taken.
        """
        jobs, together = [job], job.together
        while together is not None and len(jobs) < self._queues.most_together:
            try:
                following = self._jobs.get_nowait()
            except Empty:
                break
            if following is None:
                return jobs, None, True
            if following.together != together or following.frame.size != job.frame.size:
                return jobs, following, False
            jobs.append(following)
        return jobs, None, False

    def _do(self, jobs: list[_Begun]) -> None:
        self._busy_since_s = time.monotonic()
        if self._turns is not None:
            self._turns.quiet()
        try:
            with self._queues.key_frames([job.after for job in jobs]), without_gradients():
                if len(jobs) == 1:
                    found = [jobs[0].work(jobs[0].frame)]
                else:
                    together = jobs[0].together
                    assert together is not None  # see `_with_others`
                    scores = together([job.frame for job in jobs])
                    works = [cast(KeyFrameWork, job.work).work for job in jobs]
                    found = [work(job.frame, one) for work, job, one in zip(works, jobs, scores, strict=True)]
            self._queues.finish(found)
            if self._turns is not None:  # a segmenter of ours, which keeps none
                self._images.extend(job.frame.image for job in jobs)
            for job, result in zip(jobs, found, strict=True):
                job.result.set_result(result)
        except BaseException as error:  # it belongs to whoever waits for the result
            for job in jobs:
                if not job.result.done():
                    job.result.set_exception(error)
        finally:
            self._busy_since_s = None


@dataclass(frozen=True)
class _Begun:
    """A key frame: its work, the frame, a mark in the device's queue of frames, and who gets the result."""

    work: Callable[[Frame], Any]
    frame: Frame
    after: Any
    result: Future

    @property
    def together(self) -> Callable[[Sequence[Frame]], list[Array]] | None:
        return self.work.together if isinstance(self.work, KeyFrameWork) else None


class BackgroundJob(Generic[Result]):
    def __init__(self, result: Future[Result], turns: Turns | None = None):
        self._result = result
        self._turns = turns

    def poll(self) -> Result | None:
        return self._result.result() if self._result.done() else None

    def wait(self) -> Result:
        with nullcontext() if self._turns is None else self._turns.waiting():
            return self._result.result()

    def discard(self) -> None:
        """Cancel the job if it has not started; otherwise let it finish and log any exception."""
        if not self._result.cancel():
            self._result.add_done_callback(_log_failure)


def _log_failure(result: Future) -> None:
    error = result.exception()
    if error is not None:
        text = "".join(traceback.format_exception(error))
        logging.getLogger(__name__).error("a key frame that nobody waits for any more failed:\n%s", text)
