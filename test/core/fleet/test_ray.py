"""Fleets on Ray: workers killed, machines lost, out of memory, Ctrl-C. Skipped where Ray is not installed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from vidseg_core.engine.config import EngineConfig
from vidseg_core.fleet.collect import collect
from vidseg_core.fleet.files import Files
from vidseg_core.fleet.inputs import find
from vidseg_core.fleet.plan import Choices
from vidseg_core.fleet.pool import InTurn, RayPool, connect
from vidseg_core.fleet.queue import ATTEMPTS
from vidseg_core.fleet.run import run
from vidseg_core.fleet.task import Task
from vidseg_core.fleet.worker import Worker

ray = pytest.importorskip("ray")
COUNT = 30
DRIVES = 4


@pytest.fixture(scope="module")
def config(untrained):
    return EngineConfig(weights=untrained, interval=2, input_scale=0.5, runtime="eager", device="cpu")


@pytest.fixture(scope="module")
def drives(record, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drives")
    for i in range(DRIVES):
        record(folder / f"drive_{i}", COUNT, seed=i, storage=("sqlite3", "mcap")[i % 2], truth=i > 0)
    (folder / "broken.mcap").write_bytes(b"nothing")
    return folder


@pytest.fixture
def cluster():
    """Two machines of one CPU each, as far as Ray knows."""
    from ray.cluster_utils import Cluster

    one = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={**one, "num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(**one) for _ in range(2)]
    yield made
    ray.shutdown()
    made.shutdown()


def task_of(config, out, **choices):
    files = Files.of(config)
    task = Task.of(Choices("replay", config, **{"segment_frames": 6, "lead_frames": 3} | choices), files, out)
    task.prepare()
    return task, files


def figures(task, outcome):
    """Everything that a report says of drives, but for the time that it took and where."""
    found = {}
    for course in outcome.queue.courses.values():
        for drive in course.drives:
            row = collect(drive, task.segments(drive), task.store)
            segments = [{k: v for k, v in one.items() if k not in ("seconds", "node")} for one in row.segments]
            kept = {k: v for k, v in row.figures.items() if k != "seconds"}
            assert drive.place not in found
            found[drive.place] = kept, segments, row.hardest, row.errors
    return found, {name: course.errors for name, course in outcome.queue.courses.items()}


@pytest.fixture(scope="module")
def in_turn(config, drives, tmp_path_factory):
    """What one worker without Ray makes of the drives."""
    task, files = task_of(replace(config, num_threads=1), tmp_path_factory.mktemp("in_turn"))
    outcome = run(task, find([str(drives)]), InTurn(Worker(task, files, 1)))
    assert outcome.queue.frames_done == COUNT * DRIVES
    return figures(task, outcome)


class Once:
    """Calls something once, after so many segments."""

    def __init__(self, after, function):
        self._after, self._function = after, function
        self.told = []

    def __call__(self, queue, workers):
        if queue.segments_computed >= self._after and self._function is not None:
            function, self._function = self._function, None
            function(workers)


def kill_a_worker(workers):
    os.kill(next(iter(workers.about.values()))["pid"], signal.SIGKILL)


@pytest.mark.parametrize("happens", ["nothing", "a worker is killed", "a machine is lost"])
def test_whatever_happens_the_results_are_those_of_one_worker(config, drives, in_turn, cluster, tmp_path, happens):
    task, files = task_of(config, tmp_path)
    pool = RayPool(connect(cluster.address), task, files)

    def lose_a_machine(workers):
        cluster.remove_node(cluster.nodes[1], allow_graceful=False)

    what = {"nothing": None, "a worker is killed": kill_a_worker, "a machine is lost": lose_a_machine}[happens]
    outcome = run(task, find([str(drives)]), pool, Once(4, what))
    pool.close()
    assert figures(task, outcome) == in_turn
    assert outcome.queue.segments_computed == DRIVES * 5  # each once
    assert bool(outcome.queue.retried) == (happens != "nothing")
    again = run(task, find([str(drives)]), InTurn(Worker(task, files, 1)))
    assert again.queue.segments_computed == 0


def test_a_segment_that_ends_each_worker_is_named_and_the_others_are_done(
    config, drives, in_turn, cluster, tmp_path, monkeypatch
):
    """As one does that needs more memory than there is."""
    task, files = task_of(config, tmp_path)
    compute = Worker.compute

    def ends(self, segment):
        if segment.drive.place.endswith("drive_1") and segment.index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(self, segment)

    monkeypatch.setattr(Worker, "compute", ends)
    ray.cloudpickle.register_pickle_by_value(sys.modules[Worker.__module__])
    try:
        pool = RayPool(connect(cluster.address), task, files)
        outcome = run(task, find([str(drives)]), pool)
        pool.close()
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[Worker.__module__])
    (error,) = outcome.queue.courses[f"{drives}/drive_1"].errors
    assert error.startswith(f"/camera/image_raw: frames 12 to 17: given up after {ATTEMPTS} tries: a worker was lost")
    assert outcome.queue.frames_done == COUNT * DRIVES - 6 and outcome.queue.frames_failed == 6
    found, _ = figures(task, outcome)
    assert found[f"{drives}/drive_0"] == in_turn[0][f"{drives}/drive_0"]
    assert found[f"{drives}/drive_1"][0]["frames"] == COUNT - 6


def command(*arguments, cpus=2, **options):
    line = [sys.executable, "-m", "vidseg_core.cli", "fleet", *map(str, arguments), "--local-cpus", str(cpus)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_ctrl_c_leaves_what_is_done_and_the_same_line_goes_on(untrained, drives, tmp_path):
    out = tmp_path / "out"
    arguments = ["replay", drives, "--out", out, "--weights", untrained, "--interval", "2", "--input-scale", "0.5"]
    arguments += ["--runtime", "eager", "--segment-frames", "6", "--lead-frames", "3"]
    first = command(*arguments, cpus=1)
    end = time.monotonic() + 300
    while time.monotonic() < end and len(list(out.rglob("*.npz"))) < 3:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    said, errors = first.communicate(timeout=300)
    assert first.returncode == 130, errors
    assert "interrupted, the same command goes on" in said
    there = len(list(out.rglob("*.npz")))
    assert 3 <= there < DRIVES * 5 and not list(out.rglob("*.part"))
    second = command(*arguments)
    said, errors = second.communicate(timeout=600)
    assert second.returncode == 2, errors
    assert f"{(DRIVES * 5 - there) * 6} frames computed, {there * 6} were there" in said
    assert f"vidseg: error: {drives}/broken.mcap: {drives}/broken.mcap: not a recording that can be opened" in errors
    results = json.loads((out / "results.json").read_text())
    assert [row["place"] for row in results["recordings"]] == [f"{drives}/drive_{i}" for i in range(DRIVES)]
    assert [row["frames"] for row in results["recordings"]] == [COUNT] * DRIVES
    assert [one["place"] for one in results["failed"]] == [f"{drives}/broken.mcap"]
    assert "broken.mcap: not a recording" in (out / "report.html").read_text()


def test_no_cluster_at_an_address_is_told(untrained, drives, tmp_path):
    done = command("replay", drives, "--out", tmp_path, "--weights", untrained, "--ray", "127.0.0.1:1")
    _, errors = done.communicate(timeout=300)
    assert done.returncode == 2 and "vidseg: error: ray: 127.0.0.1:1: cannot be reached" in errors.splitlines()[-1]
