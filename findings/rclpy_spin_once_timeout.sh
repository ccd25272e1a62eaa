#!/bin/sh
# ros-rclpy 9.1.2 (Kilted): SingleThreadedExecutor.spin_once(timeout_sec) runs one of the callbacks that were found ready
# and keeps the others for the next call, but only if that has the same timeout. With another one, such as what remains
# until some time, it waits anew and begins with the first subscription again; one that was created later gets nothing
# while an earlier one has messages waiting. One would expect the timeout to bound the waiting, not to choose the callback.
# Seen with 20 messages in the queue of either subscription, its number for each callback:
#
#   spin_once(1.0):                      1212121212121212121212121212121212121212
#   spin_once(end - time.monotonic()):   1111111111111111111122222222222222222222
#
# (executors.py: wait_for_ready_callbacks drops its generator where its arguments are not equal to those before.)
# Exit status 0 while it is so, 1 once it is not.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'ros-rclpy[fastrtps]==9.1.2' ros-std-msgs==5.5.1
ROS_LOG_DIR="$work" ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=78 "$work/venv/bin/python" - <<'END'
import sys
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

MESSAGES = 20

rclpy.init()
node = rclpy.create_node("listener")
qos = QoSProfile(depth=MESSAGES, reliability=ReliabilityPolicy.RELIABLE)
order = []
topics = ("1", "2")
subscriptions = [node.create_subscription(String, f"topic_{topic}", lambda message: order.append(message.data), qos)
                 for topic in topics]
publishers = [node.create_publisher(String, f"topic_{topic}", qos) for topic in topics]
executor = SingleThreadedExecutor()
executor.add_node(node)


def served(timeout):
    """Queue messages on both topics; return whose callbacks run, in their order."""
    while any(publisher.get_subscription_count() == 0 for publisher in publishers):
        time.sleep(0.01)
    for publisher, topic in zip(publishers, topics):
        for _ in range(MESSAGES):
            publisher.publish(String(data=topic))
        publisher.wait_for_all_acked()
    order.clear()
    while len(order) < 2 * MESSAGES:
        executor.spin_once(timeout())
    return "".join(order)


end = time.monotonic() + 60
constant = served(lambda: 1.0)
remaining = served(lambda: end - time.monotonic())
print("spin_once(1.0):                     ", constant)
print("spin_once(end - time.monotonic()):  ", remaining)
rclpy.shutdown()
fair, unfair = "12" * MESSAGES, "1" * MESSAGES + "2" * MESSAGES
sys.exit(0 if (constant, remaining) == (fair, unfair) else "changed: both are served in turn")
END
