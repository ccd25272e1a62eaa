"""The node for several cameras: `ros2 launch vidseg_ros surround.launch.py cameras:=mine.yaml`."""

import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

sys.path.insert(0, str(Path(__file__).absolute().parents[1]))  # where this is a checkout, its own package

from vidseg_core.resources import resource
from vidseg_ros import launching

ARGUMENTS = {
    "cameras": (str(resource("config/surround.yaml")), "YAML list of cameras: names, topics, parameters of their own"),
    **launching.NODE_ARGUMENTS,
    "respawn": ("true", "start the node again when it ends; else the launch ends with it"),
}


def start(context: LaunchContext) -> list[Node]:
    parameters, remappings = launching.cameras(Path(LaunchConfiguration("cameras").perform(context)).expanduser())
    respawn = IfCondition(LaunchConfiguration("respawn")).evaluate(context)
    return [launching.vidseg_node(context, __file__, parameters, remappings, respawn)]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*launching.declare(ARGUMENTS), *launching.transport(), OpaqueFunction(function=start)])
