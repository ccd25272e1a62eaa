"""The node: lifecycle, parameters, services, diagnostics. Images pass through `Camera` and `Worker` only.

`ros2 run vidseg_ros vidseg_node`, or `python -m vidseg_ros.node`.
"""

from __future__ import annotations

if __name__ == "__main__":  # what follows takes seconds to load
    import sys

    from vidseg_ros.ahead import start_segmenter
    from vidseg_ros.interruption import end_at_signal

    end_at_signal("vidseg_node")
    start_segmenter(sys.argv)

import gc
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import SetBool, Trigger

from vidseg_core.allocator import give_back_code, give_back_free_memory
from vidseg_core.errors import VidsegError
from vidseg_ros import parameters, transport
from vidseg_ros.camera import Camera, expected, is_governed
from vidseg_ros.diagnostics import device_name
from vidseg_ros.engine import build_engine, prepare, warm_up, warm_up_outputs
from vidseg_ros.heartbeat import BEAT_S, Heartbeat
from vidseg_ros.interruption import ENDING, ignore_signals, interrupt_at_signal
from vidseg_ros.mailbox import Mailbox
from vidseg_ros.memory import keep_freed_memory, leave_out_what_lives
from vidseg_ros.synchronizer import Synchronizer
from vidseg_ros.worker import Watchdog, Worker

NAME = "vidseg_node"
REPORT_S = 1.0
_COMPILER = "libllvmlite|libLLVM"
"""Of numba's kernels; where these are compiled already it only loads them, which maps 50 MB of its code."""
SWITCH_S = 1e-4
"""How long the worker waits at most for the interpreter, while rclpy prepares its next wait: 5 ms by default."""
# Of compiling what nobody waits for, and how often it is looked whether it is time.
NICENESS, LOOK_S = 5, 0.1
EXPECTED = (VidsegError, OSError, ImportError, RuntimeError, NameValidationException, ParameterException)


@dataclass
class Configured:
    """Everything that the transition configure makes and cleanup destroys."""

    mailbox: Mailbox = field(default_factory=Mailbox)
    cameras: list[Camera] = field(default_factory=list)
    services: list = field(default_factory=list)
    engine: Any = None
    hardware_id: str = ""


class VidsegNode(LifecycleNode):
    """Labels the images of one or several cameras.

    Args:
        build: makes the engine from the parameters' values.
        last_resort: the process is the node's own: the watchdog may end it from outside Python, and Python's garbage
            collector leaves out what lives when the node is activated.
        report_s: from one diagnostics message to the next, in seconds.

    Attributes:
        exit_code: what the process shall end with; None while it shall run.

    Raises:
        rclpy.exceptions.ParameterException: a parameter given at the start has the wrong type or is out of range.
    """

    def __init__(
        self,
        *,
        build: Callable[[Mapping[str, Any]], Any] = build_engine,
        last_resort: bool = False,
        report_s: float = REPORT_S,
        **kwargs,
    ):
        super().__init__(parameters.NODE_NAME, **kwargs)
        parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.exit_code: int | None = None
        self._autostart = self.get_parameter("autostart").value
        self._build = build
        self._last_resort = last_resort
        self._configured: Configured | None = None
        self._worker: Worker | None = None
        self._watchdog: Watchdog | None = None
        self._enabled = True
        self._heartbeat = Heartbeat(time.monotonic())
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Simulated time may stand still; these must not.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(report_s, self._report, clock=steady)
        self.create_timer(BEAT_S, self._watch, clock=steady)

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """Return the cameras that configure has made."""
        return tuple(self._configured.cameras) if self._configured else ()

    def start(self) -> None:
        """Configure and activate, unless the parameter `autostart` leaves that to a manager."""
        if self._autostart and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def end(self, exit_code: int) -> None:
        """Ask `main` to end the process; the first reason decides."""
        if self.exit_code is None:
            self.exit_code = exit_code

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("configure", self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("activate", self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("deactivate", self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("cleanup", self._cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.end(0)
        return self._attempt("shutdown", self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("error processing", self._release)

    def _attempt(self, transition: str, work: Callable[[], None]) -> TransitionCallbackReturn:
        """rclpy keeps to itself what a transition raises, so it has to be said here."""
        try:
            work()
        except EXPECTED as error:
            self.get_logger().error(f"{transition} failed: {error}")
        except Exception:
            self.get_logger().error(f"{transition} failed:\n{traceback.format_exc()}")
        else:
            return TransitionCallbackReturn.SUCCESS
        if self._autostart:
            self.end(1)
        return TransitionCallbackReturn.FAILURE

    def _configure(self) -> None:
        made = Configured()
        try:
            self._make(made)
        except BaseException:
            self._destroy(made)
            raise
        self._configured = made

    def _make(self, made: Configured) -> None:
        for camera in parameters.camera_names(self._values()):
            if camera:
                parameters.declare_overrides(self, camera)
        values = self._values()
        parameters.check(values, values, configured=False)
        engine = made.engine = self._build(values)
        names = parameters.camera_names(values)
        every = [parameters.camera_settings(values, name) for name in names]
        if is_governed(engine):
            # Of a camera whose pictures are not known yet the first one decides.
            for size, share in dict(filter(None, (expected(self, settings) for settings in every))).items():
                warm_up(engine, size, share)
        give_back_free_memory()  # of what building has taken
        made.hardware_id = device_name(engine.describe()["device"])
        for i, settings in enumerate(every):
            camera = Camera(
                self,
                settings,
                engine,
                made.mailbox,
                phase=i / len(names),
                heartbeat=self._heartbeat,
                max_gap_s=values["max_gap_s"],
            )
            made.cameras.append(camera)
            camera.open()
        if values["sync"] == "approximate":
            synchronizer = Synchronizer(made.cameras, made.mailbox, values["sync_slop_s"])
            for camera in made.cameras:
                camera.join(synchronizer)
        made.services += [
            self.create_service(Trigger, "~/reset", self._on_reset),
            self.create_service(Trigger, "~/key_frame", self._on_key_frame),
            self.create_service(SetBool, "~/enable", self._on_enable),
        ]
        if unknown := parameters.undeclared(self):
            self.get_logger().warning(f"given, but no parameters of this node: {', '.join(unknown)}")
        if transport.uses_profile() and (shortage := transport.shared_memory_shortage()):
            self.get_logger().warning(shortage)
        topics = ", ".join(camera.topic for camera in made.cameras)
        self.get_logger().info(f"{len(engine.classes)} classes on {made.hardware_id}; subscribed to {topics}")

    def _activate(self) -> None:
        made = self._configured
        made.mailbox.open()
        self._worker = Worker(made.mailbox, self.get_logger().error, self.context.ok)
        self._watchdog = Watchdog(self._worker, made.engine.segmenting_s, self._heartbeat, self._last_resort)
        self._enabled = True
        if self._last_resort:
            leave_out_what_lives()
        for camera in made.cameras:
            camera.listen("activated")
        # A daemon: a compiler that hangs must not keep the process from ending.
        Thread(target=self._warm_up_outputs, args=(self._worker,), name="vidseg-outputs", daemon=True).start()

    def _warm_up_outputs(self, worker: Worker) -> None:
        """Wait for the first label, then compile what it did not need. On a thread of its own."""
        while worker is self._worker:
            if any(camera.statistics.counts.processed for camera in self.cameras):
                os.nice(NICENESS)  # on Linux, of this thread alone
                begin_s = time.monotonic()
                warm_up_outputs(self._configured.engine.classes)
                self.get_logger().debug(f"outputs ready after another {time.monotonic() - begin_s:.1f} s")
                return
            time.sleep(LOOK_S)

    def _deactivate(self) -> None:
        if self._worker is None:
            return
        for camera in self.cameras:
            camera.listening = False
        self._watchdog.close()
        if not self._worker.stop():
            self.end(1)
            raise RuntimeError("the worker does not end its frame")
        self._worker = self._watchdog = None
        if self._last_resort:
            gc.unfreeze()

    def _cleanup(self) -> None:
        made, self._configured = self._configured, None
        if made is not None:
            self._destroy(made)

    def _destroy(self, made: Configured) -> None:
        for camera in made.cameras:
            camera.close()
        for service in made.services:
            self.destroy_service(service)
        if made.engine is not None and not made.engine.close():
            raise RuntimeError("the engine does not end its key frame")

    def _release(self) -> None:
        self._deactivate()
        self._cleanup()

    def release(self) -> bool:
        """Give back everything, in whatever state. Returns False if the worker does not let go."""
        return self._attempt("release", self._release) == TransitionCallbackReturn.SUCCESS

    def _values(self) -> dict[str, Any]:
        return parameters.values_of(self)

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        values = parameters.values_of(self, changes)
        names = [change.name for change in changes]
        try:
            parameters.check(values, names, configured=self._configured is not None)
        except VidsegError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for camera in self.cameras:
            camera.settings = parameters.camera_settings(values, camera.settings.name)
        return SetParametersResult(successful=True)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        for camera in self.cameras:
            camera.request_reset("requested")
        return self._answer(response, "the next frame starts afresh")

    def _on_key_frame(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        for camera in self.cameras:
            camera.request_key_frame()
        return self._answer(response, "the next frame is a key frame")

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Frames are not even stored while disabled."""
        if self._worker is not None and request.data != self._enabled:
            self._enabled = request.data
            for camera in self.cameras:
                if self._enabled:
                    camera.listen("enabled")
                else:
                    camera.listening = False
            self._configured.mailbox.discard()
        return self._answer(response, "enabled" if self._enabled else "disabled")

    def _answer(self, response, message: str):
        response.success = self._worker is not None
        response.message = message if response.success else "the node is not active"
        return response

    def _state(self) -> str:
        if self._worker is None:
            return "inactive"
        return "active" if self._enabled else "disabled"

    def _report(self) -> None:
        if self._configured is None:
            return
        now = self.get_clock().now()
        message = DiagnosticArray()
        message.header.stamp = now.to_msg()
        for camera in self.cameras:
            camera.follow_subscribers()
            report = camera.report(now.nanoseconds, self._state())
            message.status.append(report.status(self.get_name(), self._configured.hardware_id))
        self._diagnostics.publish(message)
        give_back_code(_COMPILER)  # a kernel may have been loaded since the last time

    def _watch(self) -> None:
        self._heartbeat.beat(time.monotonic())
        if self._watchdog is None or self.exit_code is not None:
            return
        failure = self._watchdog.check(self.get_parameter("watchdog_s").value)
        if failure is not None:
            self.get_logger().fatal(f"the process ends, to be started again: {failure}")
            self.end(1)


def main(args: list[str] | None = None, build: Callable[[Mapping[str, Any]], Any] = build_engine) -> int:
    """Run the node until it ends. Returns the exit status: 0 after SIGINT, SIGTERM or shutdown, 1 after a failure.

    Args:
        args: ROS arguments; None takes the process's.
        build: makes the engine.
    """
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_S)
    exit_code = 0
    try:
        # Until the node spins, a signal interrupts whatever is going on: there is nothing to finish yet.
        interrupt_at_signal()
        if build is build_engine:
            with suppress(ImportError):  # configure says what is missing
                prepare(sys.argv if args is None else args)
        # rclpy's own handlers take the middleware away while the worker still publishes.
        try:
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        except RuntimeError as error:  # of ROS arguments that mean nothing; there is no log yet
            print(f"{NAME}: error: {error}", file=sys.stderr)
            return 1
        exit_code = _run(build)
    except KeyboardInterrupt:
        exit_code = 0
    except ParameterException as error:
        get_logger(parameters.NODE_NAME).fatal(f"cannot start: {error}")
        exit_code = 1
    finally:
        ignore_signals()
        rclpy.try_shutdown()
    return exit_code


class RosLog(logging.Handler):
    """Hands what the core logs to a ROS logger."""

    def __init__(self, logger):
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        # One line for each: rclpy raises where one line of code logs with two severities.
        if record.levelno >= logging.ERROR:
            self._logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(message)
        else:
            self._logger.info(message)


def _run(build: Callable[[Mapping[str, Any]], Any]) -> int:
    node = VidsegNode(build=build, last_resort=True)
    core_log = logging.getLogger("vidseg_core")
    core_log.setLevel(logging.INFO)
    core_log.addHandler(RosLog(node.get_logger()))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        node.start()
        for one in ENDING:
            signal.signal(one, lambda number, frame: node.end(0))
        while node.exit_code is None:  # a timer wakes the executor several times a second
            executor.spin_once()
    except ExternalShutdownException:
        node.end(0)
    finally:
        _leave(node)
        ignore_signals()  # nothing is left to do, and a handler would keep the node
    return node.exit_code


def _leave(node: VidsegNode) -> None:
    """Give back what the node has; a worker that does not let go ends with the process."""
    if not node.release():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(node.exit_code or 0)
    node.destroy_node()


def program() -> None:
    """Run `main`, and end the process at once: taking down an interpreter with PyTorch takes most of a second."""
    exit_code = main()
    gc.collect()  # with the last of the node goes its DDS participant, and that one's shared memory
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    program()
