"""A process for the segmenter that is started before there is anything to do, and loads its libraries meanwhile.

PyTorch takes this process a second to load. The segmenter's does without it (see `worker.py`), and is ready before.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection

from vidseg_core.engine.key_frames import worker
from vidseg_core.engine.key_frames.shared_memory import Shared
from vidseg_core.tether import tether

# Code that the process runs once it is tethered: the kernel shall end it with the thread that has started it, as one
# that stands still would not notice. An interrupt from the terminal is for the owner, who ends it; but it gets no
# session of its own, as Linux shares processors between sessions first (autogroup), and what is nice in one does not
# give way to another.
START = """
os.setpgid(0, 0)
sys.path[:] = {path!r}
from {name} import serve
serve(*{files!r})
"""
_spare: Started | None = None


@dataclass(frozen=True)
class Started:
    """A process that serves, see `worker.serve`.

    Attributes:
        process: itself.
        connection: to it.
        given, results: the memory that it shares with this one.
    """

    process: subprocess.Popen
    connection: Connection
    given: Shared
    results: Shared

    def end(self) -> None:
        """End it at once."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


def prepare() -> None:
    """Start a process that waits for `take` or `discard`, with the libraries that it needs; it ends with this one."""
    global _spare
    if _spare is None:
        _spare = start(search_path())


def take(path: list[str]) -> Started:
    """Return the process that waits, if there is one that has not ended, else a new one.

    Args:
        path: where a new one looks for modules.
    """
    global _spare
    spare, _spare = _spare, None
    return start(path) if spare is None or spare.process.poll() is not None else spare


def discard() -> None:
    """End the process that waits, if there is one."""
    global _spare
    spare, _spare = _spare, None
    if spare is not None:
        spare.end()


def search_path() -> list[str]:
    """Return where this process looks for modules, so that another one finds them from wherever it is started."""
    return [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]


def start(path: list[str]) -> Started:
    """Start a process that serves.

    Args:
        path: where it looks for modules.

    Raises:
        OSError, TypeError: this Python cannot be started.
    """
    ours, theirs = socket.socketpair()
    given, results = (Shared(os.memfd_create(f"vidseg-{name}")) for name in ("given", "results"))
    files = theirs.fileno(), given.file, results.file
    command = tether(signal.SIGKILL, is_silent=True) + START.format(path=path, name=worker.__name__, files=files)
    started: Future[subprocess.Popen] = Future()
    # The process ends with the thread that has started it: one that is there for that alone.
    threading.Thread(target=_keep, args=(command, files, started), name="vidseg-keeper", daemon=True).start()
    with theirs:
        process = started.result()
    return Started(process, Connection(ours.detach()), given, results)


def _keep(command: str, files: tuple[int, ...], started: Future) -> None:
    try:
        process = subprocess.Popen([sys.executable, "-c", command], pass_fds=files, stdin=subprocess.DEVNULL)
    except BaseException as error:  # whoever waits for it raises it
        started.set_exception(error)
        return
    started.set_result(process)
    process.wait()
