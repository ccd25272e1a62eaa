"""Workers: one in this process, or many on Ray."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from vidseg_core.errors import ConfigError, VidsegError
from vidseg_core.fleet.files import Files
from vidseg_core.fleet.queue import Job
from vidseg_core.fleet.tables import INSTALL
from vidseg_core.fleet.task import Task

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""How often to look which machines there are."""

NOBODY_S = 600.0
"""How long to wait for the first or another worker where there is none."""

OBJECT_STORE_BYTES = 512 * 2**20
"""Of a local Ray: weights and small results pass through it."""


class Event(NamedTuple):
    """Outcome of a job.

    Attributes:
        job: which.
        worker: that had it.
        result: what it gave.
        error: why it gave nothing; "" if it did.
        again: trying again may help: the worker was lost, or met an error that may pass.
    """

    job: Job
    worker: int
    result: Any = None
    error: str = ""
    again: bool = False


class Workers(Protocol):
    """Several workers, each of which has one job at a time."""

    def idle(self) -> list[int]:
        """List workers that have nothing to do."""
        ...

    def start(self, worker: int, job: Job) -> None:
        """Give a job to an idle worker."""
        ...

    def wait(self) -> list[Event]:
        """Wait for something to happen, but not long; list the jobs that ended."""
        ...

    def count(self) -> int:
        """Count the workers that there are."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


def call(worker: Any, job: Job) -> tuple[Any, str]:
    """Have a worker do a job. Returns its result, or what of the input is to blame: trying again would not help."""
    try:
        if job.kind == "inspect":
            return worker.inspect(job.place), ""
        if job.kind == "compute":
            return worker.compute(job.what), ""
        return worker.finish(job.what), ""
    except VidsegError as error:
        return None, str(error)


class InTurn:
    """One worker in this process: everything one after the other.

    Args:
        worker: a `Worker`.
    """

    def __init__(self, worker: Any):
        self._worker = worker
        self._events: list[Event] = []

    def idle(self) -> list[int]:
        """See `Workers`."""
        return [] if self._events else [0]

    def start(self, worker: int, job: Job) -> None:
        """See `Workers`."""
        try:
            result, error = call(self._worker, job)
            event = Event(job, worker, result, error)
        except Exception as error:
            event = Event(job, worker, None, _said(error), again=True)
        self._events.append(event)

    def wait(self) -> list[Event]:
        """See `Workers`."""
        events, self._events = self._events, []
        return events

    def count(self) -> int:
        """See `Workers`."""
        return 1

    def close(self) -> None:
        """See `Workers`."""


class RayPool:
    """Workers on Ray, as many as its machines have room for; those that are lost are replaced.

    Args:
        ray: see `connect`.
        task, files: see `Worker`.
        cpus: of each worker, which are its threads.
        gpus: of each worker; several share one if it is below 1.
        most: at most so many workers; None: as many as fit.
        on_change: is called with what has happened to workers.

    Attributes:
        about: see `Worker.about`, of the workers that are ready, by number.
    """

    def __init__(
        self,
        ray: Any,
        task: Task,
        files: Files,
        *,
        cpus: int = 1,
        gpus: float = 0.0,
        most: int | None = None,
        on_change: Callable[[str], None] = log.info,
    ):
        self._ray = ray
        from vidseg_core.fleet.worker import Worker

        class Remote(Worker):
            def do(self, job: Job) -> tuple[Any, str]:
                return call(self, job)

        # A worker whose process ends is not restarted by Ray: a new one may find room on another machine.
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        self._kind = ray.remote(Remote).options(**options)
        self._files = ray.put(files)  # once; from there each machine gets it once
        self._task = ray.put(task)
        self._cpus, self._gpus, self._most = cpus, gpus, most
        self._actors: dict[int, Any] = {}
        self.about: dict[int, dict] = {}
        self._idle: list[int] = []
        self._starting: dict[Any, int] = {}
        self._working: dict[Any, tuple[int, Job]] = {}
        self._next = 0
        self._looked_s = float("-inf")
        self._nobody_since_s = time.monotonic()
        self._on_change = on_change
        self._staff()

    def idle(self) -> list[int]:
        """See `Workers`."""
        return list(self._idle)

    def start(self, worker: int, job: Job) -> None:
        """See `Workers`."""
        self._idle.remove(worker)
        self._working[self._actors[worker].do.remote(job)] = worker, job

    def wait(self) -> list[Event]:
        """See `Workers`.

        Raises:
            ConfigError: workers cannot be started, or there is none for `NOBODY_S`.
        """
        self._staff()
        references = [*self._working, *self._starting]
        ready, _ = self._ray.wait(references, timeout=LOOK_S) if references else ([], [])
        events = []
        for reference in ready:
            if reference in self._starting:
                self._started(reference)
            else:
                events.append(self._ended(reference))
        if self._working or self._idle:
            self._nobody_since_s = time.monotonic()
        elif time.monotonic() - self._nobody_since_s > NOBODY_S:
            raise ConfigError(
                f"ray: expected a machine with {self._cpus} CPUs and {self._gpus:g} GPUs free, there is none"
            )
        return events

    def count(self) -> int:
        """See `Workers`."""
        return len(self._idle) + len(self._working)

    def close(self) -> None:
        """See `Workers`."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors = {}
        self._ray.shutdown()

    def _staff(self) -> None:
        """Start as many workers as the machines have room for."""
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        room = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                fits = int(has.get("CPU", 0) // self._cpus)
                room += min(fits, int(has.get("GPU", 0) / self._gpus)) if self._gpus else fits
        wanted = max(1, room if self._most is None else min(room, self._most))
        while len(self._actors) < wanted:
            number, self._next = self._next, self._next + 1
            actor = self._actors[number] = self._kind.remote(self._task, self._files, self._cpus)
            self._starting[actor.about.remote()] = number

    def _started(self, reference: Any) -> None:
        from vidseg_core import __version__

        number = self._starting.pop(reference)
        try:
            about = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._dismiss(number)
            cause = getattr(error, "cause", None) or getattr(error, "__cause__", None)
            for one in (cause, error):
                if isinstance(one, VidsegError):
                    raise ConfigError(str(one)) from error
            text = _said(error)
            if "ConfigError" in text:
                raise ConfigError(text) from error
            self._on_change(f"a worker could not be started: {text}")
            return
        if about["version"] != __version__:
            raise ConfigError(
                f"{about['node']}: expected vidseg {__version__} on all machines, it has {about['version']}"
            )
        self.about[number] = about
        self._idle.append(number)

    def _ended(self, reference: Any) -> Event:
        number, job = self._working.pop(reference)
        exceptions = self._ray.exceptions
        try:
            result, error = self._ray.get(reference)
        except (exceptions.RayActorError, exceptions.OutOfMemoryError, exceptions.NodeDiedError) as error:
            self._dismiss(number)
            self._looked_s = float("-inf")
            reason = f"a worker was lost: {_said(error)}"
            self._on_change(reason)
            return Event(job, number, None, reason, again=True)
        except exceptions.RayError as error:
            self._idle.append(number)
            return Event(job, number, None, _said(error), again=True)
        self._idle.append(number)
        return Event(job, number, result, error)

    def _dismiss(self, number: int) -> None:
        self.about.pop(number, None)
        actor = self._actors.pop(number, None)
        if actor is not None:
            self._ray.kill(actor)


def connect(address: str | None, local_cpus: int | None = None) -> Any:
    """Connect to Ray and return it.

    Args:
        address: of a cluster; None starts Ray on this machine.
        local_cpus: for that; None takes what affinity and the container's quota allow.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"fleet: needs Ray, which is not installed: {INSTALL}") from error
    from vidseg_core.threads import available_threads

    quiet = {"logging_level": "error", "log_to_driver": False}
    try:
        if address is not None:
            _knock(address)
            ray.init(address=address, **quiet)
        else:
            cpus = local_cpus or available_threads()
            # "local" begins one of its own, also where another one runs on this machine.
            own = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            ray.init(address="local", **own, **quiet)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(f"ray: {address or 'local'}: cannot be reached: {_said(error)}") from error
    return ray


def _knock(address: str) -> None:
    """See if anybody listens at HOST:PORT, where Ray would ask again and again for minutes.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=LOOK_S).close()


def _said(error: BaseException) -> str:
    """The last line of what an error says, with its kind: Ray puts traces of other processes before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(getattr(error, "cause", None) or error).__name__
    said = lines[-1] if lines else ""
    return said if said.startswith(kind) else f"{kind}: {said}"
