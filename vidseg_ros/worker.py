"""The one thread that works, and the watchdog that ends a process whose worker does not."""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable

from vidseg_ros.heartbeat import Heartbeat
from vidseg_ros.mailbox import Mailbox

MOST_FAULTS_IN_A_ROW = 3
JOIN_S = 1.5
GRACE_S = 10.0


class Worker:
    """Takes from the mailbox what waits longest, and has it processed.

    Args:
        mailbox: closed by `stop`.
        log_error: takes a text.
        is_running: whether the middleware still takes messages; what is raised afterwards is no fault.
    """

    def __init__(self, mailbox: Mailbox, log_error: Callable[[str], None], is_running: Callable[[], bool]):
        self.failure: str | None = None
        """Why the process has to end; None while it need not."""
        self._mailbox = mailbox
        self._log_error = log_error
        self._is_running = is_running
        self._busy_since_s: float | None = None
        self._logged: set[tuple] = set()
        # A daemon: a worker that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="vidseg-worker", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """Let it finish its frame. Returns whether it did, within `JOIN_S`."""
        self._mailbox.close()
        self._thread.join(JOIN_S)
        return not self._thread.is_alive()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def busy_s(self) -> float:
        """Return how long it has been at its frame, in seconds; 0 between frames."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def stack(self) -> str:
        """Return the stack of the thread right now, as text."""
        frame = sys._current_frames().get(self._thread.ident)
        return "".join(traceback.format_stack(frame)) if frame is not None else "the worker is gone"

    def _run(self) -> None:
        while self.failure is None and (batch := self._mailbox.take()) is not None:
            for camera, letter in batch:
                if not self._mailbox.is_open:  # whoever stops this waits for one frame only
                    return
                self._busy_since_s = time.monotonic()
                try:
                    camera.process(letter)
                except Exception as error:  # whatever it is, one frame's fault must not end the stream
                    if not self._is_running():
                        return
                    self._fault(camera, error)
            self._busy_since_s = None

    def _fault(self, camera, error: Exception) -> None:
        camera.fault(error)
        text = f"{camera.topic}: {type(error).__name__}: {error}"
        [*_, raised] = traceback.extract_tb(error.__traceback__)
        place = (camera.topic, type(error), raised.filename, raised.lineno)
        if place not in self._logged:
            self._logged.add(place)
            self._log_error(f"{text}\n{traceback.format_exc()}")
        if camera.faults_in_a_row >= MOST_FAULTS_IN_A_ROW:
            self.failure = f"{text}, {MOST_FAULTS_IN_A_ROW} times in a row"


class Watchdog:
    """Finds out that the worker makes no progress.

    Args:
        worker: whom to watch.
        segmenting_s: how long the engine has been at a key frame in a thread of its own.
        heartbeat: of the thread that calls `check`; while that did not run, the worker may not have run either.
        last_resort: end the process from outside Python, should even `check` not be called any more. It is then
            armed for the whole process, so only the process's owner may ask for it.
    """

    def __init__(self, worker: Worker, segmenting_s: Callable[[], float], heartbeat: Heartbeat, last_resort: bool):
        self._worker = worker
        self._segmenting_s = segmenting_s
        self._heartbeat = heartbeat
        self._last_resort = last_resort
        self._armed_s = 0.0

    def check(self, limit_s: float) -> str | None:
        """Return why the process has to end; None while all is well. To be called more often than every `limit_s`."""
        if self._worker.failure is not None:
            return self._worker.failure
        if not self._worker.is_alive():
            return "the worker is gone"
        if (busy_s := self._running_s(self._worker.busy_s())) > limit_s:
            return f"no progress for {busy_s:.1f} s\n{self._worker.stack()}"
        if (busy_s := self._running_s(self._segmenting_s())) > limit_s:
            return f"no progress with a key frame for {busy_s:.1f} s"
        self._arm(limit_s)
        return None

    def close(self) -> None:
        """Disarm the last resort."""
        if self._last_resort:
            faulthandler.cancel_dump_traceback_later()

    def _running_s(self, busy_s: float) -> float:
        """Return what is left of the last `busy_s` seconds without those in which this process did not run."""
        return busy_s - self._heartbeat.stalled_since_s(time.monotonic() - busy_s)

    def _arm(self, limit_s: float) -> None:
        """A worker that keeps the interpreter to itself lets nobody check; this alarm needs no interpreter."""
        now_s = time.monotonic()
        if self._last_resort and now_s - self._armed_s > limit_s / 4:
            self._armed_s = now_s
            faulthandler.dump_traceback_later(2 * limit_s + GRACE_S, exit=True)
