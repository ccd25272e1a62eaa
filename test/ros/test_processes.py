"""Processes that are started, watched and ended."""

import os
import signal
import subprocess
import sys
import time

import pytest

from vidseg_ros.processes import Child, ChildFailed

DEADLINE_S = 120
PROGRAMS = {
    "waits": """
        import signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print("waiting", *sys.argv[1:], flush=True)
        signal.pause()
    """,
    "insists": """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("waiting", flush=True)
        while True:
            signal.pause()
    """,
    "fails": """
        import sys
        print("one", flush=True)
        sys.stderr.write("10 %\\r20 %\\rtwo\\n\\n")
        sys.exit(3)
    """,
    "ends": "print('done')",
}
PARENT = """
import os, sys
from pathlib import Path
from vidseg_ros.processes import Child
child = Child("waits", "waits", [], Path(sys.argv[1]), os.environ)
print(child._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def environment(tmp_path):
    for name, text in PROGRAMS.items():
        lines = text.strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        (tmp_path / f"{name}.py").write_text("\n".join(line[indent:] for line in lines))
    return dict(os.environ) | {"PYTHONPATH": str(tmp_path)}


@pytest.fixture
def start(tmp_path, environment):
    children = []

    def make(name, *arguments):
        children.append(Child(name, name, arguments, tmp_path / f"{name}.log", environment))
        return children[-1]

    yield make
    for child in children:
        child.stop()


def until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def is_alive(pid):
    """Whether a process runs that may not be ours to wait for."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_runs_a_module_with_its_arguments_and_ends_when_asked(start):
    child = start("waits", "--rate", "10")
    until(lambda: "waiting --rate 10" in child.tail())
    assert child.is_running() and child.status is None
    child.must_run()
    assert child.stop() == child.stop() == 0 and not child.is_running()
    with pytest.raises(ChildFailed, match="waits ended too early; the end of .*waits.log:\nwaiting --rate 10"):
        child.must_run()


def test_output_comes_once(start):
    child = start("waits")
    printed = []
    until(lambda: printed.append(child.output()) or "waiting\n" in "".join(printed))
    assert "".join(printed) == "waiting\n" and child.output() == ""


def test_one_that_does_not_listen_is_forced(start, monkeypatch):
    monkeypatch.setattr("vidseg_ros.processes.PATIENCE_S", 0.2)
    child = start("insists")
    until(lambda: "waiting" in child.tail())
    assert child.stop() == -signal.SIGKILL


def test_a_failure_shows_the_last_lines(start):
    child = start("fails")
    until(lambda: child.status is not None)
    with pytest.raises(ChildFailed, match="fails ended with status 3; the end of .*fails.log:\none\ntwo$"):
        child.is_running()


def test_the_context_ends_it(start):
    with pytest.raises(KeyboardInterrupt):
        with start("waits") as child:
            until(lambda: "waiting" in child.tail())
            raise KeyboardInterrupt
    assert child.status == 0


def test_a_good_end_is_no_failure(start):
    child = start("ends")
    until(lambda: not child.is_running())
    assert child.status == 0 and child.tail() == "done"


def test_it_ends_with_a_parent_that_is_killed(tmp_path, environment, checkout):
    log = tmp_path / "waits.log"
    environment["PYTHONPATH"] += os.pathsep + str(checkout)
    command = [sys.executable, "-c", PARENT, str(log)]
    parent = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    until(lambda: log.read_text() == "waiting\n")
    assert is_alive(pid)
    parent.kill()
    parent.communicate()
    until(lambda: not is_alive(pid))
