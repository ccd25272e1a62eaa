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
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidseg_core.engine.fusion import fuse
from vidseg_core.engine.runtime import Runtime
from vidseg_core.engine.segmenter import NetworkSegmenter, load_segmenter
from vidseg_core.frame import Frame
from vidseg_core.threads import set_num_threads

# Streams without a pause between their frames must not keep it from ever getting to an end.
# The seconds are for a frame that is there when the segmentation begins.
STILL_SHARE, STILL_S = 0.75, 0.05
# How often it is looked whether that is enough, where neither a frame nor an answer comes.
LOOK_S = 0.25
# What is left to do in this process takes a millisecond or two: it can wait for a pause, but not for long.
QUIET_S = 0.1
# Where it takes its share, a frame goes first.
NICENESS = 5
# So many seconds in which it did not stand still, with less than that share of a processor, are too many.
STARVED_S, STARVED_SHARE = 2.0, 0.05
PR_SET_PDEATHSIG = 1
ALIGNMENT = 64  # bytes

# What the process does first. The kernel shall end it with the thread that has started it, as one that stands still
# would not notice. An interrupt from the terminal is for the owner, who ends it; but it gets no session of its own, as
# Linux shares processors between sessions first (autogroup), and what is nice in one does not give way to another.
START = """
import ctypes, os, sys
ctypes.CDLL(None).prctl({death}, {kill})
if os.getppid() != {owner}:  # it was too late for that
    sys.exit(1)
os.setpgid(0, 0)
sys.path[:] = {path!r}
from {name} import serve
serve(*{files!r})
"""

log = logging.getLogger(__name__)


class Turns:
    """Whose turn it is: a frame's, or that of the segmentation beside it. For any number of threads.

    Args:
        stop: have the segmentation stand still.
        go: have it go on.
    """

    def __init__(self, stop: Callable[[], None], go: Callable[[], None]):
        self._stop, self._go = stop, go
        self._changed = threading.Condition()
        self._frames = 0
        self._waiting = 0
        self._begun_s: float | None = None  # when the segmentation was
        self._still_since_s: float | None = None
        self._still_s = 0.0  # in all, of this segmentation

    def frame(self) -> AbstractContextManager[None]:
        """A stream is at a frame: meanwhile the segmentation stands still, if it has not done so for too long."""
        return self._counted(frames=1)

    def waiting(self) -> AbstractContextManager[None]:
        """A stream waits for the segmentation: meanwhile it goes on in any case."""
        return self._counted(waiting=1)

    @contextmanager
    def segmentation(self) -> Iterator[None]:
        """A segmentation is under way."""
        with self._changed:
            self._begun_s, self._still_s = time.monotonic(), 0.0
            self._decide()
        try:
            yield
        finally:
            with self._changed:
                self._begun_s = None
                self._decide()

    def quiet(self, timeout_s: float = QUIET_S) -> None:
        """Return when no stream is at a frame or one waits for the segmentation, at the latest after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._frames, timeout_s)

    @contextmanager
    def _counted(self, frames: int = 0, waiting: int = 0) -> Iterator[None]:
        self._count(frames, waiting)
        try:
            yield
        finally:
            self._count(-frames, -waiting)

    def _count(self, frames: int, waiting: int) -> None:
        with self._changed:
            self._frames += frames
            self._waiting += waiting
            self._decide()
            self._changed.notify_all()

    def look(self) -> float:
        """Decide anew. How long this segmentation has stood still, in seconds."""
        with self._changed:
            self._decide()
            return self._stood_s(time.monotonic())

    def _stood_s(self, now_s: float) -> float:
        return self._still_s + (0.0 if self._still_since_s is None else now_s - self._still_since_s)

    def _decide(self) -> None:
        now_s = time.monotonic()
        is_still = self._still_since_s is not None
        stands = self._frames > 0 and self._waiting == 0 and self._begun_s is not None
        stands = stands and self._stood_s(now_s) <= STILL_SHARE * (now_s - self._begun_s) + STILL_S
        if stands and not is_still:
            self._still_since_s = now_s
            self._stop()
        elif is_still and not stands:
            self._still_s = self._stood_s(now_s)
            self._still_since_s = None
            self._go()


@dataclass(frozen=True)
class Task:
    """What a process is started for.

    Attributes:
        path: SwiftNet weights.
        input_scale: size of the network's input in units of the image's.
        runtime: see `Runtime`.
        num_threads: of the CPU, 1 or more.
        is_idle: whether it runs only where nobody else wants a processor.
    """

    path: Path
    input_scale: float
    runtime: str
    num_threads: int
    is_idle: bool = True


@dataclass(frozen=True)
class Request:
    """Of which shapes the arrays are that lie in the shared memory, one behind the other.

    Attributes:
        image: H x W x 3, uint8, RGB.
        carried, apart: h x w x C and h x w, float32, for `fuse`; None where nothing is to be blended in.
    """

    image: tuple[int, ...]
    carried: tuple[int, ...] | None = None
    apart: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Answer:
    """What it says about one frame.

    Attributes:
        shape: of the scores in the shared memory, 1 x h x w x C.
        runtime: what executes the network.
        error: what went wrong instead, with its traceback; None for nothing.
        messages: level and text of what it had to tell.
    """

    shape: tuple[int, ...] = ()
    runtime: str | None = None
    error: str | None = None
    messages: tuple[tuple[int, str], ...] = ()


class SegmenterProcess:
    """A per-frame network in a process of its own, on the CPU; see `Segmenter`. One frame at a time.

    The process begins when this object is made. Should it end by itself, whoever waits for it is told and the next
    frame starts another one. It ends with `close`, with this object and with this process, however that ends.

    Args:
        task: what it computes.
        num_classes: of the network.

    Attributes:
        turns: with which streams make it stand still.
        runtime: what executes the network there; None while nothing is chosen yet.
    """

    def __init__(self, task: Task, num_classes: int):
        self.num_classes = num_classes
        self.input_scale = task.input_scale
        self.runtime: str | None = None
        self._task = task
        self._one_at_a_time = threading.Lock()
        self._closed = False
        # Another one, later, shall find what this one finds, wherever this process is then.
        self._path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
        self.turns = Turns(partial(self._signal, signal.SIGSTOP), partial(self._signal, signal.SIGCONT))
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
            with self.turns.segmentation():
                answer = self._ask(arrays)
            for level, text in answer.messages:
                log.log(level, text)
            if answer.error is not None:
                raise RuntimeError(f"the segmenter failed:\n{answer.error}")
            self.runtime = answer.runtime
            scores = self._scores.arrays((answer.shape, np.float32))[0].copy()
        self.turns.quiet()
        return torch.from_numpy(scores).permute(0, 3, 1, 2)

    def close(self) -> None:
        """End the process at once. May be called again."""
        self._closed = True
        self._process.kill()

    def _ask(self, arrays: list[np.ndarray]) -> Answer:
        request = Request(*(values.shape for values in arrays))
        for memory, values in zip(_arrays(self._given, request), arrays, strict=True):
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
        started: Future[subprocess.Popen] = Future()
        command = START.format(
            death=PR_SET_PDEATHSIG, kill=int(signal.SIGKILL), owner=os.getpid(),
            path=self._path, name=__name__, files=files,
        )  # fmt: skip
        with theirs:
            # The process ends with the thread that has started it: one that is there for that alone.
            threading.Thread(
                target=_keep, args=(command, files, started), name="vidseg-keeper", daemon=True
            ).start()
            self._process = started.result()
        self._connection = Connection(ours.detach())
        self._connection.send(self._task)
        weakref.finalize(self, self._process.kill)
        if self._closed:  # meanwhile
            self._process.kill()
            raise RuntimeError("the segmenter's process is closed")


def _keep(command: str, files: tuple[int, ...], started: Future) -> None:
    try:
        process = subprocess.Popen([sys.executable, "-c", command], pass_fds=files, stdin=subprocess.DEVNULL)
    except BaseException as error:  # whoever waits for it raises it
        started.set_exception(error)
        return
    started.set_result(process)
    process.wait()


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
        """What is there, one behind the other, seen as arrays of these shapes and types.

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


def _arrays(memory: Shared, request: Request) -> list[np.ndarray]:
    """Image, and if there are any, carried scores and where they are wrong."""
    past = [(shape, np.float32) for shape in (request.carried, request.apart) if shape is not None]
    return memory.arrays((request.image, np.uint8), *past)


def serve(connection: int, given: int, scores: int) -> None:
    """What the process does, until its owner hangs up.

    Args:
        connection: file descriptor, on which a `Task` comes and then `Request`s, each of which has an `Answer`.
        given: file descriptor of the memory where requests have their arrays.
        scores: file descriptor of the memory where scores are put, float32.
    """
    told = _Told()
    channel, given, wanted = Connection(connection), Shared(given), Shared(scores)
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
                channel.send(_answer(segmenter, _arrays(given, request), wanted, told))
    except (EOFError, ConnectionError):
        return


def _answer(segmenter: NetworkSegmenter, given: list[np.ndarray], wanted: Shared, told: _Told) -> Answer:
    try:
        with torch.inference_mode():
            image, *past = given
            scores = segmenter(Frame(image, 0))
            if past:
                carried, apart = map(torch.from_numpy, past)
                scores = fuse(scores, carried.permute(2, 0, 1)[None], apart[None, None])
            scores = scores.permute(0, 2, 3, 1).numpy()
        np.copyto(wanted.arrays((scores.shape, np.float32))[0], scores)
    except Exception:  # the owner raises it
        return Answer(error=traceback.format_exc(), messages=told.take())
    return Answer(scores.shape, segmenter.execute.runtime, None, told.take())


def _segmenter(task: Task) -> NetworkSegmenter:
    device = torch.device("cpu")
    set_num_threads(task.num_threads)
    return load_segmenter(task.path, task.input_scale, device, Runtime(task.runtime, device, task.num_threads))


def _let_others_go_first(is_idle: bool) -> None:
    """For the threads that are not there yet, too."""
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
