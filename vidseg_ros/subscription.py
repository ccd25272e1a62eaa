"""Raw subscriptions and image publishers: their QoS, how it is overridden, and what the middleware reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
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
from rclpy.waitable import NumberOfEntities, Waitable
from sensor_msgs.msg import Image, PointCloud2

from vidseg_ros import rcl

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)
OUTPUT_DEPTH = 5


class _EventsOnly(MutuallyExclusiveCallbackGroup):
    """A callback group that lets an executor execute anything but subscriptions."""

    def can_execute(self, entity: Any) -> bool:
        return not isinstance(entity, Subscription) and super().can_execute(entity)


class _Taker(Waitable):
    """Takes the messages of a subscription in rclpy's place, with one copy less.

    Args:
        node: whose default callback group it belongs to.
        subscription: whose callback group lets no executor take its messages.
        on_message: called with each, as `rcl.take` returns it.
    """

    def __init__(
        self,
        node: Node,
        subscription: Subscription,
        on_message: Callable[[memoryview], None],
        libraries: rcl.Libraries,
    ):
        super().__init__(node.default_callback_group)
        self._subscription = subscription
        self._on_message = on_message
        self._libraries = libraries
        self._index: int | None = None

    def __enter__(self) -> None:
        self._subscription.handle.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self._subscription.handle.__exit__(*exception)

    def get_num_entities(self) -> NumberOfEntities:
        return NumberOfEntities(num_subs=1)

    def add_to_wait_set(self, wait_set: Any) -> None:
        self._index = wait_set.add_subscription(self._subscription.handle)

    def is_ready(self, wait_set: Any) -> bool:
        return wait_set.is_ready("subscription", self._index)

    def take_data(self) -> memoryview | None:
        return rcl.take(self._libraries, self._subscription)

    async def execute(self, taken_data: memoryview | None) -> None:
        if taken_data is not None:
            self._on_message(taken_data)


class RawSubscription:
    """A subscription to the serialized messages of a topic; see `subscribe_raw`."""

    def __init__(self, node: Node, subscription: Subscription, taker: _Taker | None):
        self._node = node
        self._subscription = subscription
        self._taker = taker
        if taker is not None:
            node.add_waitable(taker)

    def destroy(self) -> None:
        """Receive no more."""
        if self._taker is not None:
            self._node.remove_waitable(self._taker)
        self._node.destroy_subscription(self._subscription)


def subscribe_raw(
    node: Node,
    message_type: type,
    topic: str,
    on_message: Callable[[bytes | memoryview], None],
    on_lost: Callable[[int], None],
    on_incompatible: Callable[[str], None],
) -> RawSubscription:
    """Subscribe to the serialized messages of a topic, as sensor data unless `qos_overrides` say otherwise.

    Args:
        on_message: called with the bytes of each message, read-only.
        on_lost: called with the number of messages that the middleware lost, where it tells.
        on_incompatible: called with the policy that keeps a publisher's messages out.
    """
    libraries = rcl.libraries()
    group = None if libraries is None else _EventsOnly()
    events = {
        "incompatible_qos": lambda event: on_incompatible(qos_policy_name_from_kind(event.last_policy_kind).lower()),
        "message_lost": lambda event: on_lost(event.total_count_change),
    }
    while True:
        try:
            subscription = _subscribe(node, message_type, topic, on_message, events, group)
            break
        except UnsupportedEventTypeError:  # not every middleware tells of losses; Humble's rclpy raises for QoS, too
            if not events:
                raise
            events.popitem()
    taker = None if libraries is None else _Taker(node, subscription, on_message, libraries)
    return RawSubscription(node, subscription, taker)


def _subscribe(node, message_type, topic, on_message, events, group) -> Subscription:
    return node.create_subscription(
        message_type,
        topic,
        on_message,
        # A copy: rclpy writes the overrides into the profile that it gets.
        _copy_of(qos_profile_sensor_data),
        callback_group=group,
        event_callbacks=SubscriptionEventCallbacks(**events),
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
