"""The node for one camera: `ros2 launch vidseg_ros vidseg.launch.py image:=/front/image_raw`."""

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
    "image": ("image_raw", "topic of the camera's images"),
    "depth": ("depth", "topic of depth images registered to them, for labels_points"),
    "points": ("points", "topic of a point cloud, for labels_points with points_from: cloud"),
    **launching.NODE_ARGUMENTS,
    "respawn": ("true", "start the node again when it ends; else the launch ends with it"),
    "rviz": ("false", "show image, overlay and coloured labels in rviz2"),
}


def start(context: LaunchContext) -> list[Node]:
    image, namespace = (LaunchConfiguration(name).perform(context) for name in ("image", "namespace"))
    respawn = IfCondition(LaunchConfiguration("respawn")).evaluate(context)
    sources = [(name, LaunchConfiguration(name).perform(context)) for name in ("depth", "points")]
    node = launching.vidseg_node(context, __file__, remappings=[("image_raw", image), *sources], respawn=respawn)
    outputs = [(f"/{name}", f"/{namespace}/{name}".replace("//", "/")) for name in ("overlay", "labels_color")]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=namespace,
        arguments=["-d", str(resource("config/vidseg.rviz"))],
        remappings=[("/image_raw", image), *outputs],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return [node, rviz]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*launching.declare(ARGUMENTS), *launching.transport(), OpaqueFunction(function=start)])
