"""Processes that a program starts and ends: each writes to a log of its own, and none outlives the program."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from vidseg_core.tether import tether

PATIENCE_S = 10.0
TAIL_LINES = 15

# Runs a module as `python -m` does.
_RUN_MODULE = """
import runpy
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class ChildFailed(RuntimeError):
    """A process did not do what it was started for. The message has, below its first line, the end of the log."""

    def __init__(self, child: Child, what: str):
        super().__init__(f"{child.name} {what}; the end of {child.log}:\n{child.tail()}")


class Child:
    """A Python module that runs as a process. A context manager that ends it.

    Ctrl-C does not reach it: whoever started it ends it, when everything else is ready for that.

    Args:
        name: what to call it.
        module: to be run as `python -m` does.
        arguments: its command line.
        log: file for everything that it prints.
        environment: all its environment variables.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]):
        self.name = name
        self.log = log
        self._position = 0
        command = [sys.executable, "-c", tether(signal.SIGTERM) + _RUN_MODULE, module, *arguments]
        with open(log, "wb") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def status(self) -> int | None:
        """Return the exit status; None while it runs."""
        return self._process.poll()

    def is_running(self) -> bool:
        """Return False once it has ended with status 0.

        Raises:
            ChildFailed: it has ended with another one.
        """
        if self.status:
            raise ChildFailed(self, f"ended with status {self.status}")
        return self.status is None

    def must_run(self) -> None:
        """Check that it has not ended.

        Raises:
            ChildFailed: it has ended.
        """
        if not self.is_running():
            raise ChildFailed(self, "ended too early")

    def stop(self) -> int:
        """End it: asked first, forced after `PATIENCE_S`. Returns its exit status."""
        if self.status is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def output(self) -> str:
        """Return what it has printed since the last call."""
        with open(self.log, "rb") as file:
            file.seek(self._position)
            printed = file.read()
        self._position += len(printed)
        return printed.decode("utf-8", "replace")

    def tail(self) -> str:
        """Return the last lines that it printed; of a progress bar the last state."""
        text = self.log.read_bytes().decode("utf-8", "replace")
        lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
        return "\n".join([line for line in lines if line][-TAIL_LINES:])
