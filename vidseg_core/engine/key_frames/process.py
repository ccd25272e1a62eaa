"""The segmentation network in a process of its own, beside the streams, which stands still while one is at a frame.

Two threads that both want the processors get them in turns of milliseconds, and a frame that has just come may have to
wait for several of those. A process can be made to stand still from outside, within microseconds, whatever library
computes in it (SIGSTOP), and goes on where it was (SIGCONT). So frames have the whole machine, and the segmentation all
of it in between. It needs no privileges.

Besides, Linux is told to run it where nobody else wants a processor (SCHED_IDLE): so a thread that wakes up for a frame
has one at once, and when the process goes on it does not push that thread aside. Where all processors are busy for
long, it would never get one; then it is replaced by one that takes its share as others do.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import Tensor

from vidseg_core.engine.key_frames import spare, worker
from vidseg_core.engine.key_frames.shared_memory import Shared
from vidseg_core.engine.key_frames.turns import Turns
from vidseg_core.engine.key_frames.worker import Answer, Request, Task, arrays_of
from vidseg_core.frame import Frame
from vidseg_core.tether import tether

log = logging.getLogger(__name__)
# How often it is looked whether that is enough, where neither a frame nor an answer comes.
LOOK_S = 0.25
MOST_COSTS = 64
# So many seconds in which it did not stand still, with less than that share of a processor, are too many.
STARVED_S, STARVED_SHARE = 2.0, 0.05
# Code that the process runs once it is tethered: the kernel shall end it with the thread that has started it, as one
# that stands still would not notice. An interrupt from the terminal is for the owner, who ends it; but it gets no
# session of its own, as Linux shares processors between sessions first (autogroup), and what is nice in one does not
# give way to another.
START = """
os.setpgid(0, 0)
sys.path[:] = {path!r}
from {name} import serve
serve(*{files!r})
"""


class SegmenterProcess:
    """A per-frame network in a process of its own, on the CPU; see `Segmenter`. One frame at a time.

    The process begins when this object is made. Should it end by itself, whoever waits for it is told and the next
    frame starts another one. It ends with `close`, with this object and with this process, however that ends.

    Args:
        task: what it computes.
        num_classes: of the network.
        half_pixel: see `Capabilities`.

    Attributes:
        turns: with which streams make it stand still.
        share, input_rows, costs: see `Capabilities.input_rows`.
        runtime: what executes the network there; None while nothing is chosen yet.
    """

    def __init__(
        self,
        task: Task,
        num_classes: int,
        half_pixel: bool = False,
        input_rows: Callable[[tuple[int, int]], int] | None = None,
    ):
        self.num_classes = num_classes
        self.half_pixel = half_pixel
        self.input_scale = task.input_scale
        self.input_rows = input_rows
        self.share = 1.0
        self.costs: deque[tuple[float, float]] = deque(maxlen=MOST_COSTS)
        self.runtime: str | None = None
        self._task = task
        self._one_at_a_time = threading.Lock()
        self._closed = False
        # Another one, later, shall find what this one finds, wherever this process is then.
        self._path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
        self.turns = Turns(partial(self._signal, signal.SIGSTOP), partial(self._signal, signal.SIGCONT))
        self._process: subprocess.Popen | spare.SplitOff
        self._start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def __call__(self, frame: Frame) -> Tensor:
        """Raises RuntimeError: the network fails there, or the process ends, or `close` was called."""
        return self._segment(frame, [])

    def fused(self, frame: Frame, carried: Tensor, apart: Tensor) -> Tensor:
        """`fuse` of this frame's scores and the past, computed there, too. Raises as `__call__`."""
        return self._segment(frame, [carried[0].permute(1, 2, 0), apart[0, 0]])

    def _segment(self, frame: Frame, past: list[Tensor]) -> Tensor:
        with self._one_at_a_time:
            if self._closed:
                raise RuntimeError("the segmenter's process is closed")
            if self._process.poll() is not None:
                log.warning("the segmenter's process %s; another one is started", self._how_it_ended())
                self._start()
            arrays = [frame.image, *(values.float().numpy() for values in past)]
            begun_s = time.monotonic()
            with self.turns.segmentation():
                answer = self._ask(arrays)
                took_s = time.monotonic() - begun_s - self.turns.look()
            for level, text in answer.messages:
                log.log(level, text)
            if answer.error is not None:
                raise RuntimeError(f"the segmenter failed:\n{answer.error}")
            self.runtime = answer.runtime
            if answer.share is not None:
                self.costs.append((took_s, answer.share))
            scores = self._scores.arrays((answer.shape, np.float32))[0].copy()
        self.turns.quiet()
        return torch.from_numpy(scores).permute(0, 3, 1, 2)

    def close(self) -> None:
        """End the process at once. May be called again."""
        self._closed = True
        self._process.kill()

    def _ask(self, arrays: list[np.ndarray]) -> Answer:
        image, *past = (values.shape for values in arrays)
        carried, apart = past or (None, None)
        request = Request(image, carried, apart, self.share)
        for memory, values in zip(arrays_of(self._given, request), arrays, strict=True):
            np.copyto(memory, values)
        begun_s, had_s = time.monotonic(), self._processor_s()
        try:
            self._connection.send(request)
            while not self._connection.poll(LOOK_S):
                stood_s = self.turns.look()
                waited_s, used_s = time.monotonic() - begun_s - stood_s, self._processor_s() - had_s
                is_starved = waited_s > STARVED_S and used_s < STARVED_SHARE * waited_s
                if self._task.is_idle and is_starved and self._process.poll() is None:
                    return self._ask_another(arrays, waited_s, used_s)
            return self._connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError(f"the segmenter's process {self._how_it_ended()}") from None
        except BaseException:  # the answer is still to come, and would be taken for the next one's
            self._process.kill()
            raise

    def _ask_another(self, arrays: list[np.ndarray], waited_s: float, used_s: float) -> Answer:
        """One that does not wait until nobody else wants a processor."""
        log.warning(
            "every processor is busy: the segmenter, which lets others go first, had one for %.2f s in %.1f s; "
            "from now on it takes its share, and frames may have to wait for it",
            used_s, waited_s,
        )  # fmt: skip
        self._process.kill()
        self._task = replace(self._task, is_idle=False)
        self._start()
        return self._ask(arrays)

    def _processor_s(self) -> float:
        """How long it has had a processor, in seconds; 0 once it has ended."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system time

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _signal(self, number: int) -> None:
        self._process.send_signal(number)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._given, self._scores = (Shared(os.memfd_create(f"vidseg-{name}")) for name in ("given", "scores"))
        files = theirs.fileno(), self._given.file, self._scores.file
        with theirs:
            self._process = spare.take(files) or self._start_afresh(files)
        self._connection = Connection(ours.detach())
        self._connection.send(self._task)
        weakref.finalize(self, self._process.kill)
        if self._closed:  # meanwhile
            self._process.kill()
            raise RuntimeError("the segmenter's process is closed")

    def _start_afresh(self, files: tuple[int, ...]) -> subprocess.Popen:
        started: Future[subprocess.Popen] = Future()
        command = tether(signal.SIGKILL) + START.format(path=self._path, name=worker.__name__, files=files)
        # The process ends with the thread that has started it: one that is there for that alone.
        threading.Thread(target=_keep, args=(command, files, started), name="vidseg-keeper", daemon=True).start()
        return started.result()


def _keep(command: str, files: tuple[int, ...], started: Future) -> None:
    try:
        process = subprocess.Popen([sys.executable, "-c", command], pass_fds=files, stdin=subprocess.DEVNULL)
    except BaseException as error:  # whoever waits for it raises it
        started.set_exception(error)
        return
    started.set_result(process)
    process.wait()
