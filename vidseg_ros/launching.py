"""Common parts of the launch files: starting our programs, their transport, and what their end means.

Needs `launch` and `launch_ros`, which come with a ROS distribution; nothing but launch files imports this.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from vidseg_ros.transport import profile_environment

PACKAGE = "vidseg_ros"
NODE_NAME = "vidseg"
RESPAWN_DELAY_S = 2.0
TETHER = "setpriv --pdeathsig TERM "
"""A launch that gets SIGTERM ends at once, and would leave its processes behind: so the kernel sends them one, too."""
HOLD = "env --block-signal=INT --block-signal=TERM "
"""Holds back a signal that comes while Python itself is starting, until `end_at_signal` (GNU coreutils 8.31)."""
MODULES = {
    "vidseg_node": "vidseg_ros.node",
    "camera_player": "vidseg_ros.player.camera_player",
    "score": "vidseg_ros.demo.score",
}
"""What runs each executable where the package is not installed."""

NODE_ARGUMENTS = {
    "params_file": ("", "YAML file with parameters of the node; config/vidseg.yaml has them all with their defaults"),
    "weights": ("", "segmentation network, a name or a file, in place of the one in params_file"),
    "device": ("", "auto, cpu, cuda or cuda:N, in place of the one in params_file"),
    "namespace": ("", "of the node and its outputs"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "use_sim_time": ("false", "take the time from /clock"),
}
"""Name: (default, description) of the launch arguments that `vidseg_node` reads."""


@cache
def hold() -> str:
    """Return `HOLD`, or nothing where `env` cannot do that."""
    try:
        done = subprocess.run([*HOLD.split(), "true"], capture_output=True, check=False)
    except OSError:
        return ""
    return HOLD if done.returncode == 0 else ""


def declare(arguments: Mapping[str, tuple[str | None, str]]) -> list[DeclareLaunchArgument]:
    """Declare launch arguments from name: (default, description); without a default they must be given."""
    return [
        DeclareLaunchArgument(name, default_value=value, description=text) for name, (value, text) in arguments.items()
    ]


def transport() -> list[SetEnvironmentVariable]:
    """Have Fast DDS take the profile for images, in all processes started afterwards; unless the user chose another."""
    return [SetEnvironmentVariable(name, value) for name, value in profile_environment(os.environ).items()]


def program(launch_file: str, executable: str, arguments: Sequence[str] = (), **options) -> Node:
    """Describe one of our executables as a process.

    Args:
        launch_file: its `__file__`. One that lies in a checkout starts the checkout's code, with the `python3` that is
            first in PATH; any other what colcon installed.
        executable: see `MODULES`.
        arguments: its command line.
        options: of `launch_ros.actions.Node`.
    """
    prefix = [TETHER, hold(), LaunchConfiguration("launch-prefix", default="")]
    common = {"exec_name": executable, "output": "screen", "prefix": prefix, **options}
    common["additional_env"] = {"TQDM_DISABLE": "1"}  # launch prints whole lines only
    root = Path(launch_file).absolute().parents[1]
    if not (root / PACKAGE).is_dir():
        return Node(package=PACKAGE, executable=executable, arguments=list(arguments), **common)
    common["additional_env"]["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    return Node(executable="python3", arguments=["-m", MODULES[executable], *arguments], **common)


def vidseg_node(
    context: LaunchContext,
    launch_file: str,
    parameters: Mapping[str, Any] | None = None,
    remappings: Sequence[tuple[str, str]] = (),
    respawn: bool = False,
) -> Node:
    """Describe the node as the launch arguments in `NODE_ARGUMENTS` want it.

    Args:
        parameters, remappings: further ones.
        respawn: start it again whenever it ends; else everything ends with it.
    """
    given = {name: LaunchConfiguration(name).perform(context) for name in NODE_ARGUMENTS}
    chosen = {name: given[name] for name in ("weights", "device") if given[name]}
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    files = [existing(given["params_file"])] if given["params_file"] else []
    return program(
        launch_file,
        "vidseg_node",
        name=NODE_NAME,
        namespace=given["namespace"],
        parameters=[*files, {**chosen, **(parameters or {}), "use_sim_time": use_sim_time}],
        remappings=list(remappings),
        ros_arguments=["--log-level", given["log_level"]],
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_S,
        on_exit=None if respawn else end_with_it,
    )


def cameras(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Read parameters and remappings of the node for the cameras in a YAML list: see config/surround.yaml.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such list. What the node itself finds wrong it says itself.
    """
    entries = yaml.safe_load(Path(existing(str(path))).read_text(encoding="utf-8"))
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: expected a list of cameras, got {entries!r}")
    parameters, remappings = {"cameras": []}, []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ValueError(f"{path}: expected a camera with a name, got {entry!r}")
        own = dict(entry)
        name = own.pop("name")
        parameters["cameras"].append(name)
        if image := own.pop("image", None):
            remappings.append((f"{name}/image_raw", image))
        parameters |= {f"{name}.{parameter}": value for parameter, value in own.items()}
    return parameters, remappings


def existing(path: str) -> str:
    """Return the path if the file is there; launch_ros would start a node without a parameter file that is not.

    Raises:
        FileNotFoundError: there is none.
    """
    if not Path(path).expanduser().is_file():
        raise FileNotFoundError(f"no such file: {path}")
    return str(Path(path).expanduser())


def must_end_well(event: ProcessExited, context: LaunchContext) -> None:
    """End everything if the process failed, `ros2 launch` with status 1. For `on_exit`.

    Raises:
        RuntimeError: it ended with an error, and not because everything ends.
    """
    if event.returncode != 0 and not context.is_shutdown:
        raise RuntimeError(f"{event.process_name} ended with status {event.returncode}")


def end_with_it(event: ProcessExited, context: LaunchContext) -> Shutdown:
    """End everything with this process, as in `must_end_well` if it failed. For `on_exit`."""
    must_end_well(event, context)
    return Shutdown(reason=f"{event.process_name} has ended")
