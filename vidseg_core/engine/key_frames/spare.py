"""A process that was split off once everything was loaded, for the segmenter: it starts at once and shares memory.

PyTorch, numba and OpenVINO take two seconds to load, and a hundred megabytes and more for each process that loads them
itself. A process that is split off afterwards has them at once, and in common with this one as long as neither writes
there. It has to be split off while there is one thread only, before the middleware is up; until it is needed it waits.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence

from vidseg_core.engine.key_frames.worker import serve
from vidseg_core.tether import tether

STEP_S = 0.01
_spare: Spare | None = None


def prepare() -> None:
    """Split off a process that waits for `take` or `discard`; it ends with the thread that calls this.

    Raises:
        RuntimeError: this process has more than one thread, whose locks the other one would have and never let go.
    """
    global _spare
    if threading.active_count() > 1:
        raise RuntimeError(f"expected one thread, this process has {threading.active_count()}")
    discard()
    _spare = Spare()


def take(files: Sequence[int]) -> SplitOff | None:
    """Have the waiting process serve on these file descriptors, see `worker.serve`; None where there is none."""
    global _spare
    spare, _spare = _spare, None
    return None if spare is None else spare.serve(files)


def discard() -> None:
    """End the waiting process, if there is one."""
    global _spare
    spare, _spare = _spare, None
    if spare is not None:
        spare.end()


class Spare:
    """A process that has loaded what this one has loaded, and waits."""

    def __init__(self):
        self._ours, theirs = socket.socketpair()
        command = tether(signal.SIGKILL)
        gc.collect()
        gc.freeze()  # else its next collection writes to every object, and nothing is shared any more
        pid = os.fork()
        if pid == 0:
            self._ours.close()
            _wait(theirs, command)
        gc.unfreeze()
        theirs.close()
        self._process = SplitOff(pid)

    def serve(self, files: Sequence[int]) -> SplitOff | None:
        """Let it go to work; None if it has ended."""
        with self._ours:
            try:
                socket.send_fds(self._ours, [b"serve"], list(files))
            except OSError:
                self._process.wait()
                return None
        return self._process

    def end(self) -> None:
        """Let it end."""
        self._ours.close()
        self._process.wait()


def _wait(owner: socket.socket, command: str) -> None:
    """Be the process that was split off: wait, serve, end."""
    status = 1
    try:
        os.setpgid(0, 0)  # an interrupt from the terminal is for the owner
        exec(command, {})
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        message, files, *_ = socket.recv_fds(owner, 16, 3)
        owner.close()
        if message:
            serve(*files)
        status = 0
    finally:
        os._exit(status)


class SplitOff:
    """A process that was split off, with the methods of `subprocess.Popen` that its owner uses.

    Args:
        pid: of a child of this process.
    """

    def __init__(self, pid: int):
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return its exit code, below 0 for the signal that has ended it; None while it runs."""
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit code.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
        """
        end_s = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end_s is not None and time.monotonic() > end_s:
                raise TimeoutError(f"process {self.pid} runs after {timeout} s")
            time.sleep(STEP_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)
