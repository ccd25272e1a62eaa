import pytest

from vidseg_core.data.wire import Stamp, Stamped


@pytest.mark.parametrize("stamp", [Stamp(7, 999_999_999), Stamp(-(2**31), 2**32 - 1)])
def test_the_header_of_a_view(stamp):
    messages = pytest.importorskip("std_msgs.msg", reason="needs ROS (extra `ros`)")
    from vidseg_ros.messages.headers import header_of

    header = header_of(Stamped(stamp, "前方"))
    assert isinstance(header, messages.Header)
    assert ((header.stamp.sec, header.stamp.nanosec), header.frame_id) == (stamp, "前方")
