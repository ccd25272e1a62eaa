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
import threading
import time
import weakref
from collections import deque
from dataclasses import replace
from functools import partial

import numpy as np

from vidseg_core.arrays import Array, as_array
from vidseg_core.engine.key_frames import spare
from vidseg_core.engine.key_frames.turns import Turns
from vidseg_core.engine.key_frames.worker import Answer, Request, Shape, Task
from vidseg_core.engine.network_picture import picture_for, place, without_border
from vidseg_core.engine.segmenter import SWIFTNET_OUTPUT, is_half_pixel, rows_of, scores_of
from vidseg_core.frame import Frame
from vidseg_core.models.card import SWIFTNET_INPUT, InputCard, OutputCard

log = logging.getLogger(__name__)
# How often it is looked whether that is enough, where neither a frame nor an answer comes.
LOOK_S = 0.25
MOST_COSTS = 64
# So many seconds in which it did not stand still, with less than that share of a processor, are too many.
STARVED_S, STARVED_SHARE = 2.0, 0.05


class SegmenterProcess:
    """A per-frame network in a process of its own, on the CPU; see `Segmenter`. One frame at a time.

    The process begins when this object is made. Should it end by itself, whoever waits for it is told and the next
    frame starts another one. It ends with `close`, with this object and with this process, however that ends.

    Args:
        task: what it computes.
        num_classes: of the network.
        input: how the network's input is made of a picture, which happens here.
        output: what it gives, which is read here.

    Attributes:
        turns: with which streams make it stand still.
        half_pixel, share, input_rows, costs: see `Capabilities`.
        runtime: what executes the network there; None while nothing is chosen yet.
    """

    def __init__(
        self,
        task: Task,
        num_classes: int,
        input: InputCard = SWIFTNET_INPUT,
        output: OutputCard = SWIFTNET_OUTPUT,
    ):
        self.num_classes = num_classes
        self.input = input
        self.output = output
        self.half_pixel = is_half_pixel(input, output)
        self.input_scale = task.input_scale
        self.input_rows = rows_of(input, task.input_scale)
        self.share = 1.0
        self.costs: deque[tuple[float, float]] = deque(maxlen=MOST_COSTS)
        self.runtime: str | None = None
        self._shares: dict[tuple[int, int], float] = {}  # in use, by the size of the picture
        self._task = task
        self._one_at_a_time = threading.Lock()
        self._closed = False
        # Another one, later, shall find what this one finds, wherever this process is then.
        self._path = spare.search_path()
        self.turns = Turns(partial(self._signal, signal.SIGSTOP), partial(self._signal, signal.SIGCONT))
        self._start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def __call__(self, frame: Frame) -> Array:
        """Raises RuntimeError: the network fails there, or the process ends, or `close` was called."""
        with self._one_at_a_time:
            if self._closed:
                raise RuntimeError("the segmenter's process is closed")
            if self._process.poll() is not None:
                log.warning("the segmenter's process %s; another one is started", self._how_it_ended())
                self._start()
            share = self._share_now(frame.size)
            begun_s = time.monotonic()
            placed = place(frame.size, self.input, self.input_scale, share)
            picture = picture_for(frame.image, self.input, placed)
            given = np.ascontiguousarray(as_array(picture).transpose(0, 2, 3, 1))
            with self.turns.segmentation():
                answer = self._ask(Request(given.shape), given)
                took_s = time.monotonic() - begun_s - self.turns.look()
            if answer.is_usual:
                self.costs.append((took_s, share))
            results = self._results.arrays(*((shape, np.float32) for shape in answer.shapes))
            found = tuple(values.copy().transpose(0, 3, 1, 2) for values in results)
        scores = scores_of(found if len(found) > 1 else found[0], self.output, self.num_classes)
        self.turns.quiet()
        return without_border(scores, placed)

    def prepare(self, size: tuple[int, int]) -> bool:
        """Have the network made ready for pictures of `size`, (H, W), without waiting for a compiler.

        Raises RuntimeError as a call does.

        Returns:
            Whether it is.
        """
        with self._one_at_a_time:
            return self._is_ready(self._shape(size, self.share))

    def _share_now(self, picture: tuple[int, int]) -> float:
        """Choose the share of the input's size: nothing waits for another one to be compiled."""
        share, last = self.share, self._shares.get(picture)
        if last is not None and last != share:
            used = frozenset(self._shape(*one) for one in self._shares.items())
            share = share if self._is_ready(self._shape(picture, share), used) else last
        self._shares[picture] = share
        return share

    def _shape(self, picture: tuple[int, int], share: float) -> Shape:
        """The shape of the network's input for a picture."""
        return 1, *place(picture, self.input, self.input_scale, share).size, 3

    def _is_ready(self, shape: Shape, used: frozenset[Shape] | None = None) -> bool:
        """Ask if the network is ready for a shape; it is made ready otherwise, beside what it is asked for."""
        return self._ask(Request(shape, is_ahead=True, used=used)).is_ready

    def close(self) -> None:
        """End the process at once. May be called again."""
        self._closed = True
        self._process.kill()

    def _ask(self, request: Request, given: np.ndarray | None = None) -> Answer:
        answer = self._answer(request, given)
        for level, text in answer.messages:
            log.log(level, text)
        if answer.error is not None:
            raise RuntimeError(f"the segmenter failed:\n{answer.error}")
        self.runtime = answer.runtime
        return answer

    def _answer(self, request: Request, given: np.ndarray | None) -> Answer:
        if given is not None:
            np.copyto(self._given.arrays((given.shape, np.float32))[0], given)
        begun_s, had_s = time.monotonic(), self._processor_s()
        try:
            self._connection.send(request)
            while not self._connection.poll(LOOK_S):
                stood_s = self.turns.look()
                waited_s, used_s = time.monotonic() - begun_s - stood_s, self._processor_s() - had_s
                is_starved = waited_s > STARVED_S and used_s < STARVED_SHARE * waited_s
                if self._task.priority == "idle" and is_starved and self._process.poll() is None:
                    self._replace(waited_s, used_s)
                    return self._answer(request, given)
            return self._connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError(f"the segmenter's process {self._how_it_ended()}") from None
        except BaseException:  # the answer is still to come, and would be taken for the next one's
            self._process.kill()
            raise

    def _replace(self, waited_s: float, used_s: float) -> None:
        """Start one that does not wait until nobody else wants a processor."""
        log.warning(
            "every processor is busy: the segmenter, which lets others go first, had one for %.2f s in %.1f s; "
            "from now on it takes its share, and frames may have to wait for it",
            used_s, waited_s,
        )  # fmt: skip
        self._process.kill()
        self._task = replace(self._task, priority="low")
        self._start()

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
        started = spare.take(self._path)
        self._process, self._connection = started.process, started.connection
        self._given, self._results = started.given, started.results
        self._connection.send(self._task)
        weakref.finalize(self, self._process.kill)
        if self._closed:  # meanwhile
            self._process.kill()
            raise RuntimeError("the segmenter's process is closed")
