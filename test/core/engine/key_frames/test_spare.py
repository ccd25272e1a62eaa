"""A process that was started ahead serves as any other does, and never outlives its owner."""

import os
import select
import subprocess
import sys

from vidseg_core.engine.key_frames import spare

WAIT_S = 60
SCRIPT = """
import os
from vidseg_core.engine.key_frames import spare
spare.prepare()
print(spare._spare.process.pid, flush=True)
os._exit(0)  # as a process that is killed: nothing is tidied up
"""


def test_one_waits_until_it_is_taken():
    spare.prepare()
    waiting = spare._spare
    spare.prepare()
    assert spare._spare is waiting  # one is enough
    taken = spare.take(spare.search_path())
    assert taken is waiting and taken.process.poll() is None and spare._spare is None
    other = spare.take(spare.search_path())
    assert other.process.pid != taken.process.pid
    for one in (taken, other):
        one.end()
        assert one.process.returncode is not None


def test_one_that_has_ended_is_not_taken():
    spare.prepare()
    ended = spare._spare.process
    ended.kill()
    ended.wait(WAIT_S)
    taken = spare.take(spare.search_path())
    assert taken.process.pid != ended.pid
    taken.end()


def test_one_that_nobody_takes_is_ended():
    spare.prepare()
    process = spare._spare.process
    spare.discard()
    assert process.returncode is not None and spare._spare is None
    spare.discard()


def test_it_ends_with_its_owner():
    done = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, timeout=WAIT_S, check=True)
    try:
        handle = os.pidfd_open(int(done.stdout))
    except ProcessLookupError:
        return
    assert select.select([handle], [], [], WAIT_S)[0]
    os.close(handle)
