"""The process that segments beside the streams: what runs in it, and the messages it exchanges.

It loads NumPy and OpenVINO, which takes a third of a second and little memory, and executes networks that were compiled
before. PyTorch, which takes a second and hundreds of megabytes, is loaded only where none was.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from vidseg_core.allocator import give_back_at_once, give_back_code, give_back_free_memory
from vidseg_core.backends.blob_cache import choice_key, read_choice
from vidseg_core.backends.compiled_network import openvino_core, read_network
from vidseg_core.engine.key_frames.shared_memory import Shared

log = logging.getLogger(__name__)
# Where it takes its share, a frame goes first; and of what is compiled meanwhile.
NICENESS = 5
_OPENVINO = r"libopenvino_intel_cpu_plugin|libopenvino\.so|_pyopenvino"
"""Of OpenVINO's libraries those that stay loaded: half of their code only reads networks."""
UNUSED_S = 20.0
"""A network that was read from a file is let go when no picture of its size has come for so long. It takes 33 to 65 MB,
and 0.1 s to read again."""
Shape = tuple[int, ...]
Execute = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class Task:
    """The task of a segmenting process.

    Attributes:
        path: weights of a segmentation network.
        input_scale: see `NetworkSegmenter`.
        runtime: see `Runtime`.
        num_threads: of the CPU, 1 or more.
        priority: idle runs only where nobody else wants a processor, low after others, usual as they do.
        identity: of the network, see `identity_of`; empty where that is not known.
        ranges: its activation ranges, see `Runtime.executor`.
    """

    path: Path
    input_scale: float | None
    runtime: str
    num_threads: int
    priority: str = "idle"
    identity: str = ""
    ranges: dict[str, tuple[float, float]] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Request:
    """A picture in the shared memory for the network, or one to be ready for.

    Attributes:
        shape: 1 x h x w x 3, of the network's input, float32.
        is_ahead: whether it is only asked to be ready for such pictures; it goes on serving others meanwhile.
        used: shapes that pictures come in now: networks of others are let go of, as a governor that begins tries one
            after the other; None where that is not known.
    """

    shape: Shape
    is_ahead: bool = False
    used: frozenset[Shape] | None = None


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes:
        shapes: of what the network gave, each B x h x w x C, one behind the other in the shared memory.
        runtime: what executes the network.
        error: what went wrong instead, with its traceback; None for nothing.
        messages: level and text of its log records.
        is_ready: whether the network is ready for pictures of that shape.
        is_usual: whether the time that this took tells what a segmentation costs: nothing was compiled meanwhile.
    """

    shapes: tuple[Shape, ...] = ()
    runtime: str | None = None
    error: str | None = None
    messages: tuple[tuple[int, str], ...] = ()
    is_ready: bool = True
    is_usual: bool = True


def serve(connection: int, given: int, results: int) -> None:
    """Execute the network on whatever is asked for, until the owner hangs up.

    Args:
        connection: file descriptor, on which a `Task` comes and then `Request`s, each of which has an `Answer`.
        given: file descriptor of the memory where the network's input is.
        results: file descriptor of the memory where its outputs are put.
    """
    give_back_at_once()
    told = _Told()
    channel, asked, wanted = Connection(connection), Shared(given), Shared(results)
    with suppress(ImportError):  # the time until there is a task is well used
        openvino_core().get_property("CPU", "FULL_DEVICE_NAME")
    try:
        task = channel.recv()
        _let_others_go_first(task.priority)
        networks = _Networks(task)
        while True:
            request = channel.recv()
            try:
                if request.is_ahead:
                    done = networks.prepare(request.shape, request.used)
                else:
                    done = networks.execute(request.shape, asked, wanted)
            except Exception:  # the owner raises it
                done = Answer(error=traceback.format_exc())
            channel.send(replace(done, messages=told.take()))
    except (EOFError, ConnectionError):
        return


class _Networks:
    """The network as it is executed for each shape of its input."""

    def __init__(self, task: Task):
        self._task = task
        self._ready: dict[Shape, Execute] = {}
        self._read_s: dict[Shape, float] = {}  # when those from files were asked for last
        self._refused: set[Shape] = set()
        self._compiling: threading.Thread | None = None
        self._compile: Callable[[Shape], tuple[Execute, str | None]] | None = None
        self._runtime: str | None = None
        self._lock = threading.Lock()

    def execute(self, shape: Shape, asked: Shared, wanted: Shared) -> Answer:
        is_usual = shape in self._ready and self._compiling is None
        execute = self._kept(shape) or self._compiled(shape)
        results = execute(asked.arrays((shape, np.float32))[0])
        layout = [(values.shape, np.float32) for values in results]
        for memory, values in zip(wanted.arrays(*layout), results, strict=True):
            np.copyto(memory, values)
        now_s = time.monotonic()
        is_let_go = self._let_go([one for one, read_s in self._read_s.items() if now_s - read_s > UNUSED_S])
        if is_let_go or not is_usual:
            give_back_free_memory()
        return Answer(tuple(values.shape for values in results), self._runtime, is_usual=is_usual)

    def _let_go(self, shapes: list[Shape]) -> bool:
        """Let go of networks that were read from files; return whether there were any."""
        for shape in shapes:
            del self._read_s[shape], self._ready[shape]
        return bool(shapes)

    def prepare(self, shape: Shape, used: frozenset[Shape] | None) -> Answer:
        if used is not None and self._let_go([one for one in self._read_s if one != shape and one not in used]):
            give_back_free_memory()
        if self._kept(shape) is None and self._compiling is None and shape not in self._refused:
            # A daemon: a compiler that hangs must not keep the process from ending.
            self._compiling = threading.Thread(target=self._compile_beside, args=(shape,), daemon=True)
            self._compiling.start()
        return Answer(runtime=self._runtime, is_ready=shape in self._ready)

    def _kept(self, shape: Shape) -> Execute | None:
        """Take a compiled network that was kept for this shape; None where there is none."""
        if shape not in self._ready and self._task.identity:
            task, inputs = self._task, [(shape[0], shape[3], *shape[1:3])]
            try:
                core = openvino_core()
                found = read_choice(
                    choice_key(core, task.identity, inputs, task.ranges, task.runtime, task.num_threads)
                )
                if found is None:
                    return None
                path, choice = found
                network = read_network(core, path, task.num_threads)
                give_back_code(_OPENVINO)
            except (ImportError, OSError, RuntimeError) as error:
                log.info("a compiled network that was kept is of no use: %s", " ".join(str(error).split()))
                return None
            if not all(len(output.shape) == 4 for output in network.model.outputs):
                return None
            if self._runtime is None and choice.said:
                log.info("%s", choice.said)
            self._runtime = choice.runtime
            self._ready[shape] = lambda picture: network([picture])
            self._read_s[shape] = time.monotonic()
        elif shape in self._read_s:
            self._read_s[shape] = time.monotonic()
        return self._ready.get(shape)

    def _compiled(self, shape: Shape) -> Execute:
        """Have the network compiled; from then on this process is as large as any that has PyTorch."""
        with self._lock:
            if self._compile is None:
                from vidseg_core.engine.key_frames.compiling import compiler

                task = self._task
                self._compile = compiler(task.path, task.input_scale, task.runtime, task.num_threads)
            if shape not in self._ready:  # meanwhile
                self._ready[shape], self._runtime = self._compile(shape)
            return self._ready[shape]

    def _compile_beside(self, shape: Shape) -> None:
        os.nice(NICENESS)  # on Linux, of this thread alone
        try:
            self._compiled(shape)
        except Exception:
            self._refused.add(shape)
            log.exception("the segmenter cannot be compiled for an input of %d x %d", shape[2], shape[1])
        finally:
            self._compiling = None


def _let_others_go_first(priority: str) -> None:
    """Lower the priority of this process, for threads that it will start, too; `usual` leaves it."""
    if priority == "usual":
        return
    os.nice(NICENESS)
    # SCHED_BATCH: when it is let go on, it does not push aside the frame that has done so.
    policy = os.SCHED_IDLE if priority == "idle" else os.SCHED_BATCH
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
