"""A recording, or any other source, through camera_player into the node, and a score of what comes out of it.

`ros2 launch vidseg_ros replay.launch.py source:=drive_bag topic:=/front/image_raw`
"""

import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

sys.path.insert(0, str(Path(__file__).absolute().parents[1]))  # where this is a checkout, its own package

from vidseg_ros import launching

PLAYER_ARGUMENTS = {
    "source": (None, "recording, folder of images, video file, or street:key=value,..."),
    "topic": ("", "of a recording with several image topics"),
    "labels": (
        "",
        "ground truth: PNG files of a folder's names, a recording's topic (left out: its labels_truth, if any)",
    ),
    "classes": ("camvid", "class table of the ground truth"),
    "rate": ("", "frames per second; the source's own where left out"),
    "duration": ("", "seconds, again from the beginning where the source ends before; once through where left out"),
}
ARGUMENTS = {
    **PLAYER_ARGUMENTS,
    **launching.NODE_ARGUMENTS,
    "namespace": ("camera", "of the camera and the node"),
    "rviz": ("false", "show image, overlay and coloured labels in rviz2"),
    "json": ("", "file for the figures"),
}


def start(context: LaunchContext) -> list[Node]:
    given = {name: LaunchConfiguration(name).perform(context) for name in (*PLAYER_ARGUMENTS, "namespace", "json")}
    options = [f"--{name}={given[name]}" for name in ("topic", "labels", "classes", "rate", "duration") if given[name]]
    # The score subscribes to camera_info when the node is ready, and thereby starts the camera.
    options += ["--loop"] if given["duration"] else []
    camera = launching.program(
        __file__,
        "camera_player",
        [given["source"], *options, "--wait-for", "image_raw", "camera_info"],
        namespace=given["namespace"],
        on_exit=launching.must_end_well,
    )
    options = [f"--json={given['json']}"] if given["json"] else []
    namespace = "/" + given["namespace"].strip("/")
    score = launching.program(
        __file__,
        "score",
        [f"--namespace={namespace}", f"--classes={given['classes']}", *options],
        on_exit=launching.end_with_it,
    )
    return [camera, score]


def generate_launch_description() -> LaunchDescription:
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name("vidseg.launch.py"))),
        launch_arguments={
            **{name: LaunchConfiguration(name) for name in (*launching.NODE_ARGUMENTS, "rviz")},
            "image": "image_raw",
            "respawn": "false",
        }.items(),
    )
    return LaunchDescription([*launching.declare(ARGUMENTS), node, OpaqueFunction(function=start)])
