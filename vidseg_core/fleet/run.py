"""Run a fleet: hand out jobs until all is done, and keep account of what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vidseg_core.fleet.inputs import Place
from vidseg_core.fleet.pool import Event, Workers
from vidseg_core.fleet.queue import Queue
from vidseg_core.fleet.task import Task

Progress = Callable[[Queue, Workers], None]
"""Called after everything that happens."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        queue: with the course of each recording.
        interrupted: by Ctrl-C, before all was done.
        wall_s: how long it took from the first job on.
        busy_s: how long workers computed, altogether.
        stepped: number of frames that they stepped over, those of leads included.
    """

    queue: Queue
    interrupted: bool
    wall_s: float
    busy_s: float
    stepped: int

    @property
    def frames_per_second(self) -> float | None:
        """Frames that were computed per second, leads not counted; None if there were none."""
        computed = self.queue.frames_done - self.queue.frames_found
        return round(computed / self.wall_s, 3) if computed and self.wall_s > 0 else None


def queue_of(task: Task, places: Sequence[Place]) -> Queue:
    """Make the jobs of a task for these recordings."""
    return Queue(places, task.segments, task.is_done, task.needs_finish)


def run(task: Task, places: Sequence[Place], workers: Workers, progress: Progress | None = None) -> Outcome:
    """Do all that is missing. After Ctrl-C what is done stays.

    Args:
        task: its folder is prepared.
        places: the recordings.
        workers: they are not closed.
        progress: see `Progress`.
    """
    queue = queue_of(task, places)
    interrupted, busy_s, stepped, begin = False, 0.0, 0, None
    try:
        while not queue.is_finished:
            for worker in workers.idle():
                begin = begin or time.perf_counter()
                job = queue.take(worker)
                if job is not None:
                    workers.start(worker, job)
            for event in workers.wait():
                _note(queue, event)
                if event.job.kind == "compute" and not event.error:
                    busy_s += event.result["seconds"]
                    stepped += event.result["frames"]
            if progress is not None:
                progress(queue, workers)
    except KeyboardInterrupt:
        interrupted = True
    wall_s = 0.0 if begin is None else time.perf_counter() - begin
    return Outcome(queue, interrupted, wall_s, busy_s, stepped)


def _note(queue: Queue, event: Event) -> None:
    if event.again:
        queue.lost(event.job, event.error)
    elif event.error:
        queue.failed(event.job, event.error)
    elif event.job.kind == "inspect":
        queue.inspected(event.job, event.result)
    elif event.job.kind == "compute":
        queue.computed(event.job)
    else:
        queue.finished(event.job, event.result)
