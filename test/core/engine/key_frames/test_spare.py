"""A process that was split off serves as one that was started does, and never outlives its owner."""

import os
import subprocess
import sys

SCRIPT = """
import os, socket, sys
from multiprocessing.connection import Connection
from vidseg_core.engine.key_frames import spare

def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

spare.serve = lambda *files: os.write(files[0], b"served")
spare.prepare()
unused = spare._spare._process.pid
spare.discard()
assert not alive(unused) and spare.take([]) is None

spare.prepare()
ours, theirs = socket.socketpair()
process = spare.take([theirs.fileno()] * 3)
assert ours.recv(6) == b"served" and process.wait(10) == 0 and process.poll() == 0
assert spare.take([]) is None

spare.prepare()
killed = spare._spare._process
killed.kill()
assert killed.wait(10) == -9 and spare.take([theirs.fileno()] * 3) is None

spare.prepare()
print(spare._spare._process.pid, flush=True)
os._exit(0)  # as a process that is killed: nothing is tidied up
"""


def test_a_process_that_was_split_off(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for _ in range(100):
        if not os.path.exists(f"/proc/{done.stdout.strip()}"):
            return
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError(f"process {done.stdout.strip()} outlives its owner")
