#!/bin/sh
# ros-rclpy 9.1.2 (Kilted): a QoS override by parameter is written into the QoSProfile object that the program passed. Give
# one profile to several subscriptions, or rclpy's own qos_profile_sensor_data, and an override meant for one topic holds
# for all that are made later, in every node of the process. One would expect create_subscription to work on a copy.
# Seen with qos_overrides./first.subscription.reliability := reliable:
#
#   qos_profile_sensor_data before: BEST_EFFORT, after: RELIABLE; /second, without an override: RELIABLE
#
# Exit status 0 while it is so, 1 once it is not.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'ros-rclpy[fastrtps]==9.1.2' ros-std-msgs==5.5.1
ROS_LOG_DIR="$work" ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=77 "$work/venv/bin/python" - <<'END'
import sys

import rclpy
from rclpy.qos import QoSPolicyKind, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import String

rclpy.init(args=["--ros-args", "-p", "qos_overrides./first.subscription.reliability:=reliable"])
node = rclpy.create_node("listener")
before = qos_profile_sensor_data.reliability.name
node.create_subscription(
    String, "first", print, qos_profile_sensor_data,
    qos_overriding_options=QoSOverridingOptions((QoSPolicyKind.RELIABILITY,)),
)
node.create_subscription(String, "second", print, qos_profile_sensor_data)
after = qos_profile_sensor_data.reliability.name
second = node.get_subscriptions_info_by_topic("/second")[0].qos_profile.reliability.name
print(f"qos_profile_sensor_data before: {before}, after: {after}; /second, without an override: {second}")
rclpy.shutdown()
sys.exit(0 if (before, after, second) == ("BEST_EFFORT", "RELIABLE", "RELIABLE") else "changed: the profile is kept")
END
