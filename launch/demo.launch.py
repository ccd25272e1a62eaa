"""See it work: the synthetic street into the node. `ros2 launch vidseg_ros demo.launch.py rviz:=true`"""

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

sys.path.insert(0, str(Path(__file__).absolute().parents[1]))  # where this is a checkout, its own package

from vidseg_core.resources import resource
from vidseg_ros import launching

ARGUMENTS = {
    "source": ("street:seed=1,frames=300", "what is played: see replay.launch.py"),
    "duration": ("20", "seconds"),
    "params_file": (str(resource("config/demo.yaml")), "YAML file with parameters of the node"),
    "rviz": ("false", "show image, overlay and coloured labels in rviz2"),
}


def generate_launch_description() -> LaunchDescription:
    replay = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name("replay.launch.py"))),
        launch_arguments={name: LaunchConfiguration(name) for name in ARGUMENTS}.items(),
    )
    return LaunchDescription([*launching.declare(ARGUMENTS), replay])
