"""config/vidseg.rviz against what rviz2 documents; rviz2 itself is not needed."""

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_ros.parameters import OUTPUTS

# As in the plugin descriptions and the sources of ros2/rviz: classes, and the properties that these read.
IMAGE = {"Class", "Enabled", "Name", "Value", "Topic", "Normalize Range", "Min Value", "Max Value", "Median window"}
TOPIC = {"Value", "Depth", "History Policy", "Reliability Policy", "Durability Policy"}
PANELS = {"rviz_common/Displays", "rviz_common/Time"}
MANAGER = {"Class", "Displays", "Enabled", "Global Options", "Name", "Tools", "Value", "Views"}


@pytest.fixture(scope="module")
def config(checkout):
    return yaml.safe_load((checkout / "config/vidseg.rviz").read_text())


def test_it_shows_the_image_and_what_the_node_publishes_of_it(config):
    displays = config["Visualization Manager"]["Displays"]
    assert [one["Topic"]["Value"] for one in displays] == ["/image_raw", "/overlay", "/labels_color"]
    assert {one["Topic"]["Value"].strip("/") for one in displays} <= {"image_raw", *OUTPUTS}
    assert len({one["Name"] for one in displays}) == 3


def test_its_classes_and_properties_are_those_of_rviz(config):
    manager = config["Visualization Manager"]
    assert set(config) == {"Panels", "Visualization Manager", "Window Geometry"} and set(manager) == MANAGER
    assert {panel["Class"] for panel in config["Panels"]} <= PANELS
    for display in manager["Displays"]:
        assert display["Class"] == "rviz_default_plugins/Image"
        assert set(display) == IMAGE and set(display["Topic"]) == TOPIC
        assert display["Enabled"] is True and display["Value"] is True


def test_it_does_not_hold_up_the_node(config):
    for display in config["Visualization Manager"]["Displays"]:
        assert display["Topic"]["Reliability Policy"] == "Best Effort"
        assert display["Topic"]["Durability Policy"] == "Volatile"
        assert display["Topic"]["History Policy"] == "Keep Last"
