import pytest

from vidseg_core.engine.config import EngineConfig
from vidseg_core.fleet.inputs import Place
from vidseg_core.fleet.plan import Choices, Drive
from vidseg_core.fleet.queue import ATTEMPTS, Queue

CHOICES = Choices("label", EngineConfig(interval=0, fusion=False), segment_frames=10, lead_frames=0)
PLACES = [Place("small", 1), Place("large", 3), Place("middle", 2)]
FRAMES = {"small": 10, "large": 30, "middle": 20}


def queue(done=(), finishes=None):
    def segments(drive):
        return drive.segments(CHOICES, "x")

    return Queue(PLACES, segments, lambda segment: (segment.drive.place, segment.index) in done, finishes)


def drive(place):
    return Drive(place, place, "/images", None, FRAMES[place], 15.0)


def inspect(jobs, worker=0):
    job = jobs.take(worker)
    assert job.kind == "inspect"
    jobs.inspected(job, [drive(job.place)])
    return job.place


def shown(job):
    return job.place, job.what.index


def test_a_worker_stays_with_its_recording_and_helps_when_there_is_no_other():
    jobs = queue()
    assert inspect(jobs, "a") == "large"
    assert shown(jobs.take("a")) == ("large", 0)
    assert inspect(jobs, "b") == "middle"
    assert shown(jobs.take("b")) == ("middle", 0)
    assert shown(jobs.take("a")) == ("large", 1)
    assert inspect(jobs, "c") == "small"
    assert shown(jobs.take("c")) == ("small", 0)
    assert shown(jobs.take("c")) == ("large", 2)
    assert shown(jobs.take("b")) == ("middle", 1)
    assert jobs.take("a") is None and not jobs.is_finished


def test_all_is_counted_until_it_is_finished():
    jobs = queue(done={("large", 1)})
    inspect(jobs)
    assert (jobs.frames_known, jobs.frames_done, jobs.frames_found) == (30, 10, 10)
    assert jobs.frames_expected == 60  # by sizes: 30 of 3 of 6 bytes
    while not jobs.is_finished:
        job = jobs.take(0)
        if job.kind == "inspect":
            jobs.inspected(job, [drive(job.place)])
        else:
            jobs.computed(job)
    assert (jobs.frames_known, jobs.frames_expected, jobs.frames_done, jobs.frames_found) == (60, 60, 60, 10)
    assert jobs.segments_computed == 5
    assert all(course.is_ended and not course.errors for course in jobs.courses.values())


def test_a_lost_job_is_tried_again_and_then_given_up():
    jobs = queue()
    inspect(jobs)
    lost = jobs.take(0)
    for attempt in range(1, ATTEMPTS):
        assert jobs.lost(lost, "killed") is True
        assert len(jobs.retried) == attempt
        assert jobs.take(0) == lost
    assert jobs.lost(lost, "killed") is False
    (error,) = jobs.courses["large"].errors
    assert error == f"/images: frames 0 to 9: given up after {ATTEMPTS} tries: killed"
    assert jobs.frames_failed == 10
    assert shown(jobs.take(0)) == ("large", 1)  # the others are done all the same


def test_a_recording_that_cannot_be_read_does_not_stop_the_others():
    jobs = queue()
    jobs.failed(jobs.take(0), "damaged")
    assert jobs.courses["large"].errors == ["damaged"] and jobs.courses["large"].is_ended
    assert inspect(jobs) == "middle"
    assert jobs.frames_expected == 24  # the broken one counts as done: 20 of 5 of 6 bytes
    assert jobs.lost(jobs.take(1), "killed") and inspect(jobs, 1) == "small"


@pytest.mark.parametrize("needed", [True, False])
def test_a_drive_is_finished_once_when_its_segments_are_there(needed):
    jobs = queue(done={("middle", 0), ("middle", 1)}, finishes=lambda drive: needed)
    inspect(jobs)
    for _ in range(3):
        jobs.computed(jobs.take(0))
    seen = []
    while not jobs.is_finished:
        job = jobs.take(0)
        if job.kind == "inspect":
            jobs.inspected(job, [drive(job.place)])
        elif job.kind == "compute":
            jobs.computed(job)
        else:
            seen.append(job.what.place)
            jobs.finished(job, ["ends early"] if job.place == "small" else [])
    assert sorted(seen) == (["large", "middle", "small"] if needed else [])
    assert jobs.courses["small"].errors == (["ends early"] if needed else [])
