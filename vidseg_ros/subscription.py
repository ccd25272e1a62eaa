"""Raw subscriptions and image publishers: their QoS, how it is overridden, and what the middleware reports."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
    qos_profile_sensor_data,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image, PointCloud2

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)
OUTPUT_DEPTH = 5


def subscribe_raw(
    node: Node,
    message_type: type,
    topic: str,
    on_message: Callable[[bytes], None],
    on_lost: Callable[[int], None],
    on_incompatible: Callable[[str], None],
) -> Subscription:
    """Subscribe to the serialized messages of a topic, as sensor data unless `qos_overrides` say otherwise.

    Args:
        on_lost: called with the number of messages that the middleware lost, where it tells.
        on_incompatible: called with the policy that keeps a publisher's messages out.
    """
    events = {
        "incompatible_qos": lambda event: on_incompatible(qos_policy_name_from_kind(event.last_policy_kind).lower()),
        "message_lost": lambda event: on_lost(event.total_count_change),
    }
    try:
        return _subscribe(node, message_type, topic, on_message, SubscriptionEventCallbacks(**events))
    except UnsupportedEventTypeError:  # not every middleware tells of losses
        del events["message_lost"]
        return _subscribe(node, message_type, topic, on_message, SubscriptionEventCallbacks(**events))


def _subscribe(node, message_type, topic, on_message, events):
    return node.create_subscription(
        message_type,
        topic,
        on_message,
        # A copy: rclpy writes the overrides into the profile that it gets.
        _copy_of(qos_profile_sensor_data),
        event_callbacks=events,
        qos_overriding_options=QoSOverridingOptions(OVERRIDABLE),
        raw=True,
    )


def _copy_of(profile: QoSProfile) -> QoSProfile:
    return QoSProfile(
        history=profile.history,
        depth=profile.depth,
        reliability=profile.reliability,
        durability=profile.durability,
    )


def publish_images(node: Node, topic: str) -> Publisher:
    """Make a publisher of sensor_msgs/Image, reliable unless `qos_overrides` say otherwise."""
    return _publish(node, Image, topic)


def publish_points(node: Node, topic: str) -> Publisher:
    """Make a publisher of sensor_msgs/PointCloud2, with the QoS of images."""
    return _publish(node, PointCloud2, topic)


def _publish(node: Node, message_type: type, topic: str) -> Publisher:
    profile = QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=OUTPUT_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.VOLATILE,
    )
    return node.create_publisher(message_type, topic, profile, qos_overriding_options=QoSOverridingOptions(OVERRIDABLE))
