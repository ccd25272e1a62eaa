"""Decide which job a worker gets next, and what becomes of jobs whose worker was lost. Plain bookkeeping."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from vidseg_core.fleet.inputs import Place
from vidseg_core.fleet.plan import Drive, Segment

ATTEMPTS = 3
"""How often a job is tried whose worker is killed, runs out of memory, or meets an error that may pass."""


class Job(NamedTuple):
    """Request to a worker.

    Attributes:
        kind: `inspect` a recording, `compute` a segment, `finish` a drive whose segments are all there.
        place: of the recording.
        what: None, the segment, or the drive.
    """

    kind: str
    place: str
    what: Segment | Drive | None = None


@dataclass
class Course:
    """Progress of one recording.

    Attributes:
        place: where it is.
        pending: jobs that nobody has begun.
        running: number of jobs under way.
        drives: once it is inspected.
        errors: what could not be done, and why.
        left: segments of each topic that are not done.
        is_known: it was inspected, or cannot be.
    """

    place: Place
    pending: deque[Job] = field(default_factory=deque)
    running: int = 0
    drives: list[Drive] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    is_known: bool = False

    @property
    def is_ended(self) -> bool:
        """Tell if nothing is left to be done."""
        return self.is_known and not self.pending and not self.running


class Queue:
    """Jobs of a run, recording by recording.

    A worker stays with its recording, which it has open, then takes the next recording, the largest first, and helps
    with others' when there is none left: so a recording is fetched by few machines, and a long one ends by all of them.

    Args:
        places: the recordings.
        segments: cuts a drive into segments.
        is_done: tells of a segment if its result is there already.
        finishes: tells if a drive needs a last job when its segments are there; None: none does.

    Attributes:
        courses: by place, in the order of `places`.
        frames_known: frames of the recordings that were inspected so far.
        frames_done: of these, those whose results are there.
        frames_found: of these, those whose results were there before.
        frames_failed: frames that were given up.
        segments_computed: number of segments that were computed in this run.
        retried: (place, reason) of every job that was tried again.
    """

    def __init__(
        self,
        places: Iterable[Place],
        segments: Callable[[Drive], list[Segment]],
        is_done: Callable[[Segment], bool],
        finishes: Callable[[Drive], bool] | None = None,
    ):
        places = list(places)
        self.courses = {place.name: Course(place) for place in places}
        self.frames_known = self.frames_done = self.frames_found = self.frames_failed = 0
        self.segments_computed = 0
        self.retried: list[tuple[str, str]] = []
        self._segments, self._is_done, self._finishes = segments, is_done, finishes
        largest = sorted(places, key=lambda place: -place.num_bytes)
        self._inspections = deque(Job("inspect", place.name) for place in largest)
        self._bytes = sum(place.num_bytes for place in places)
        self._bytes_known = 0
        self._home: dict[Hashable, str] = {}
        self._waiting: dict[str, None] = {}  # places with pending jobs, in the order in which they came
        self._failures: dict[tuple[str, str, str], int] = {}
        self._running = 0

    @property
    def is_finished(self) -> bool:
        """Tell if nothing is left to be done."""
        return not (self._inspections or self._waiting or self._running)

    @property
    def frames_expected(self) -> int:
        """Number of frames altogether; recordings that were not inspected yet count by their size."""
        if not self._bytes_known:
            return self.frames_known
        return round(self.frames_known * self._bytes / self._bytes_known)

    def take(self, worker: Hashable) -> Job | None:
        """Take the next job for a worker; None if there is none (now)."""
        place = self._home.get(worker)
        if place is None or not self.courses[place].pending:
            if self._inspections:
                job = self._inspections.popleft()
                self._home[worker] = job.place
                return self._begun(job)
            if not self._waiting:
                return None
            place = max(self._waiting, key=lambda one: len(self.courses[one].pending))
            self._home[worker] = place
        pending = self.courses[place].pending
        job = pending.popleft()
        if not pending:
            del self._waiting[place]
        return self._begun(job)

    def inspected(self, job: Job, drives: list[Drive]) -> None:
        """Take what a recording has, and plan its segments."""
        course = self._ended(job)
        self._bytes_known += course.place.num_bytes
        course.drives, course.is_known = drives, True
        for drive in drives:
            segments = self._segments(drive)
            missing = [segment for segment in segments if not self._is_done(segment)]
            self.frames_known += sum(segment.frames for segment in segments)
            there = sum(segment.frames for segment in segments) - sum(segment.frames for segment in missing)
            self.frames_done += there
            self.frames_found += there
            course.left[drive.topic] = len(missing)
            for segment in missing:
                self._add(Job("compute", job.place, segment))
            if not missing:
                self._finish(course, drive)

    def computed(self, job: Job) -> None:
        """Note that a segment's result is there."""
        course = self._ended(job)
        segment = job.what
        assert isinstance(segment, Segment)
        self.segments_computed += 1
        self.frames_done += segment.frames
        course.left[segment.drive.topic] -= 1
        if not course.left[segment.drive.topic]:
            self._finish(course, segment.drive)

    def finished(self, job: Job, errors: list[str]) -> None:
        """Note that a drive is finished, and what is wrong with it."""
        self._ended(job).errors.extend(errors)

    def failed(self, job: Job, reason: str) -> None:
        """Give a job up: trying again would give the same."""
        course = self._ended(job)
        if job.kind == "inspect":
            self._bytes_known += course.place.num_bytes
            course.is_known = True
        if isinstance(job.what, Segment):
            self.frames_failed += job.what.frames
            reason = f"{job.what.drive.topic}: frames {job.what.first} to {job.what.stop - 1}: {reason}"
        course.errors.append(reason)

    def lost(self, job: Job, reason: str, counts: bool = True) -> bool:
        """Put a job back whose worker was lost, or that met an error that may pass; give it up after `ATTEMPTS`.

        Args:
            job: as it was taken.
            reason: what happened.
            counts: it was a try; False where the job had not begun.

        Returns:
            Whether it will be tried again.
        """
        which = job.kind, job.place, _address(job)
        failures = self._failures[which] = self._failures.get(which, 0) + counts
        if failures >= ATTEMPTS:
            self.failed(job, f"given up after {failures} tries: {reason}")
            return False
        self.retried.append((job.place, reason))
        self._ended(job)
        if job.kind == "inspect":
            self._inspections.append(job)
        else:
            self._add(job, first=True)
        return True

    def _finish(self, course: Course, drive: Drive) -> None:
        if self._finishes is not None and self._finishes(drive):
            self._add(Job("finish", course.place.name, drive))

    def _add(self, job: Job, first: bool = False) -> None:
        pending = self.courses[job.place].pending
        if first:
            pending.appendleft(job)
        else:
            pending.append(job)
        self._waiting[job.place] = None

    def _begun(self, job: Job) -> Job:
        self._running += 1
        self.courses[job.place].running += 1
        return job

    def _ended(self, job: Job) -> Course:
        self._running -= 1
        course = self.courses[job.place]
        course.running -= 1
        return course


def _address(job: Job) -> str:
    if isinstance(job.what, Segment):
        return job.what.address
    return "" if job.what is None else job.what.topic
