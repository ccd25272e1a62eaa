"""The judge of a run hears every topic in its turn."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from vidseg_core.data.wire import ImageWriter
from vidseg_ros import rcl
from vidseg_ros.demo.listener import Listener
from vidseg_ros.demo.recording import Recording

NUM_FRAMES = 30


def test_no_topic_waits_for_the_others_to_be_quiet(tmp_path):
    """Behind, the listener takes a message of each topic in turn: else camera_info comes last, or never."""
    recording = Recording(tmp_path)
    with Listener("/judged", recording) as listener:
        camera = Node("camera", namespace="/judged")
        try:
            publishers = {topic: camera.create_publisher(Image, topic, NUM_FRAMES) for topic in ("labels", "overlay")}
            info = camera.create_publisher(CameraInfo, "camera_info", NUM_FRAMES)
            listener.start_camera()
            everybody = (info, *publishers.values())
            while not all(publisher.get_subscription_count() for publisher in everybody):
                listener.turn(0.1)
            for i in range(NUM_FRAMES):
                header = Header()
                header.stamp.nanosec = 1 + i
                info.publish(CameraInfo(header=header))
                rcl.publish(publishers["labels"], message(header, 1, "mono8"))
                rcl.publish(publishers["overlay"], message(header, 3, "rgb8"))
            for publisher in everybody:
                assert publisher.wait_for_all_acked()  # all of them wait in the listener
            while len(recording.sent) < NUM_FRAMES:
                listener.turn(0.1)
        finally:
            camera.destroy_node()
    assert recording.labels.stamps_ns == recording.overlays.stamps_ns == recording.sent.stamps_ns
    others = np.minimum(recording.labels.arrivals_ns, recording.overlays.arrivals_ns)
    assert (np.array(recording.sent.arrivals_ns[:-2]) < others[2:]).all()


def message(header, channels, encoding):
    return ImageWriter().serialise(header, encoding, np.full((2, 2, channels), header.stamp.nanosec, np.uint8))
