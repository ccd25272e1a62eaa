"""std_msgs/Header from the views of serialized messages, which know no ROS."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from vidseg_core.data.wire import HeaderLike


def header_of(view: HeaderLike) -> Header:
    """Make the std_msgs/Header that a view's message began with."""
    return Header(stamp=Time(sec=view.stamp.sec, nanosec=view.stamp.nanosec), frame_id=view.frame_id)
