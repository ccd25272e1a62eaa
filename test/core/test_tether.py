"""A tethered process ends with the one that started it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from vidseg_core.tether import tether

DEADLINE_S = 60
PARENT = """
import signal, subprocess, sys
from vidseg_core.tether import tether
code = tether(signal.Signals(int(sys.argv[1]))) + "import time; print('tethered', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_tethered_process_ends_with_a_parent_that_is_killed(number, checkout):
    command = [sys.executable, "-c", PARENT, str(int(number))]
    parent = subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + DEADLINE_S
    while is_alive(pid):
        assert time.monotonic() < deadline
        os.sched_yield()


def test_one_that_comes_too_late_does_nothing():
    """Its parent is gone already: here it never was the one that is named."""
    code = tether(signal.SIGTERM).replace(str(os.getpid()), "1") + "print('not reached')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the program that started this one is gone" in done.stderr
