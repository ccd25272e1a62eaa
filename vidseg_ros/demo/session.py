"""A run of the demo: its processes, from their start to their end, and what the user sees meanwhile."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TextIO

from vidseg_ros.demo.listener import Listener
from vidseg_ros.demo.recording import MOST_BYTES, Recording
from vidseg_ros.demo.results import Run
from vidseg_ros.processes import Child, ChildFailed
from vidseg_ros.transport import profile_environment

NAMESPACE = "/camera"
HIGHEST_DOMAIN = 100
"""Above this the ports of a domain lie among those that Linux hands out to anybody."""
START_S = 300.0
GRACE_S = 60.0
QUIET_S = 2.0
REPORT_S = 10.0
SETTLE_S = 0.5
TURN_S = 0.1
GOVERNOR = "governor: "
"""Begins what the node logs of its governor."""


def ros_environment(chosen_domain: int | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return variables for all processes: a domain of their own, on this machine only, with room for large images."""
    if chosen_domain is None:
        chosen_domain = 1 + os.getpid() % HIGHEST_DOMAIN
        if environ.get("ROS_DOMAIN_ID") == str(chosen_domain):
            chosen_domain = 1 + chosen_domain % HIGHEST_DOMAIN
    # Before ROS 2 Iron there was no discovery range, and afterwards one had better not use its predecessor.
    local = {"ROS_LOCALHOST_ONLY": "1"} if environ.get("ROS_DISTRO") == "humble" else {}
    return {
        "ROS_DOMAIN_ID": str(chosen_domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        **local,
        **profile_environment(environ),
    }


class Display:
    """One line that changes, and others above it. Where there is no terminal, the line is printed now and then."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._every_s = 0.25 if self._is_terminal else 5.0
        self._last_s = -self._every_s
        self._line = ""

    def update(self, line: Callable[[], str]) -> None:
        """Show the line, which is only made when it is time for another one."""
        now_s = time.monotonic()
        if now_s - self._last_s >= self._every_s:
            # A line that is broken in two cannot be written over.
            self._last_s, self._line = now_s, line()[: shutil.get_terminal_size().columns - 1]
            self._stream.write(f"\r\x1b[K{self._line}" if self._is_terminal else f"{self._line}\n")
            self._stream.flush()

    def print(self, text: str) -> None:
        """Print a line that stays."""
        self._stream.write(f"\r\x1b[K{text}\n{self._line}" if self._is_terminal else f"{text}\n")
        self._stream.flush()

    def echo(self, text: str) -> None:
        """Print what a process has printed, as it is, so that a progress bar moves; nowhere but in a terminal."""
        if self._is_terminal:
            self._stream.write(text)
            self._stream.flush()

    def close(self) -> None:
        """Leave the line standing."""
        if self._line and self._is_terminal:
            self._stream.write("\n")
        self._line = ""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came."""


class Signals:
    """While entered, the first SIGINT or SIGTERM is only noted, as no message may be lost half-way; a second one
    interrupts."""

    def __init__(self):
        self.received = False

    def __enter__(self) -> Signals:
        self._previous = {one: signal.signal(one, self._handle) for one in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for one, handler in self._previous.items():
            signal.signal(one, handler)

    def _handle(self, number: int, stack: object) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True


class Session:
    """One run, from the start of its processes to their end.

    Args:
        options: of the command line; `parameters` has the node's.
        folder: for results and logs.
        environment: of the processes; this one's must be the same.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, environment: Mapping[str, str]):
        self._options = options
        self._folder = folder
        self._environment = environment
        self._signals = Signals()
        self._display = Display(sys.stderr)
        self._recording = Recording(folder, min(MOST_BYTES, shutil.disk_usage(folder).free // 2))

    def run(self) -> Run:
        """Run until the end, and leave no process behind. Ctrl-C ends the run with what has come so far."""
        failure = None
        with Listener(NAMESPACE, self._recording) as listener, self._signals:
            try:
                with ExitStack() as children:
                    camera, node = (children.enter_context(start()) for start in (self._camera, self._node))
                    self._prepare(listener, camera, node)
                    self._watch(listener, camera, node)
                    self._wait_for_the_last(listener, node)
            except Interrupted:
                pass  # `Signals` remembers
            except ChildFailed as error:
                failure = str(error)
            listener.turn(SETTLE_S)  # labels may have come before the camera_info of their frame
            self._display.close()
            return Run(
                recording=self._recording,
                diagnostics=listener.diagnostics,
                device=listener.device,
                rmw=listener.rmw,
                classes=listener.classes,
                interrupted=self._signals.received,
                failure=failure,
            )

    def _camera(self) -> Child:
        options = self._options
        arguments = [options.source, "--loop", "--duration", str(options.duration), "--classes", options.classes]
        arguments += ["--memory", f"{options.memory_mb:.0f}"]
        for name in ("rate", "topic", "labels"):
            value = getattr(options, name)
            arguments += [] if value is None else [f"--{name}", str(value)]
        # This process subscribes to camera_info when all is ready, and thereby starts the camera.
        arguments += ["--wait-for", "image_raw", "camera_info", "--ros-args", "-r", f"__ns:={NAMESPACE}"]
        return self._child("camera_player", "vidseg_ros.player.camera_player", arguments)

    def _node(self) -> Child:
        arguments = ["--ros-args", "-r", f"__ns:={NAMESPACE}"]
        for name, value in self._options.parameters.items():
            arguments += ["-p", f"{name}:={value}"]
        return self._child("vidseg_node", "vidseg_ros.node", arguments)

    def _child(self, name: str, module: str, arguments: list[str]) -> Child:
        size = shutil.get_terminal_size()  # a progress bar that goes into a log cannot ask the terminal
        environment = self._environment | {"COLUMNS": str(size.columns), "LINES": str(size.lines)}
        return Child(name, module, arguments, self._folder / f"{name}.log", environment)

    def _prepare(self, listener: Listener, camera: Child, node: Child) -> None:
        """Wait until the camera has its frames and the node its network; then let the camera start."""
        self._display.print("preparing: the camera reads its frames, the node loads its network")
        while not listener.has_camera():  # however long rendering a street may take
            self._turn(listener, camera, node)
            self._display.echo(camera.output())
        end_s = time.monotonic() + START_S
        while not listener.is_ready():
            self._turn(listener, camera, node)
            if time.monotonic() > end_s:
                raise ChildFailed(node, f"is not ready after {START_S:.0f} s")
        listener.start_camera()

    def _watch(self, listener: Listener, camera: Child, node: Child) -> None:
        """Until the camera has sent everything."""
        end_s = time.monotonic() + self._options.duration + GRACE_S
        while camera.is_running():
            self._turn(listener, node)
            self._display.update(listener.live_line)
            self._print_warnings(camera, node)
            if time.monotonic() > end_s:
                raise ChildFailed(camera, "does not end")

    def _wait_for_the_last(self, listener: Listener, node: Child) -> None:
        """Until nothing comes any more, and the node has reported that it is idle; then the node has to end well."""

        def turn() -> bool:
            self._turn(listener, node)
            return True

        listener.turn_until_quiet(QUIET_S)
        reports, end_s = listener.num_reports, time.monotonic() + REPORT_S
        while listener.num_reports == reports and time.monotonic() < end_s:
            turn()
        listener.turn_until_idle(turn)
        if status := node.stop():
            raise ChildFailed(node, f"ended with status {status}")

    def _turn(self, listener: Listener, *children: Child) -> None:
        """Take what comes for a moment; raises `Interrupted` or `ChildFailed` if that was the last."""
        listener.turn(TURN_S)
        if self._signals.received:
            raise Interrupted
        for child in children:
            child.must_run()

    def _print_warnings(self, *children: Child) -> None:
        for child in children:
            for line in child.output().splitlines():
                if any(level in line for level in ("[WARN]", "[ERROR]", "[FATAL]")):
                    self._display.print(line)
                elif GOVERNOR in line:
                    self._display.print(line[line.index(GOVERNOR) :])
