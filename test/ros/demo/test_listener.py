"""The judge of a run hears every topic in its turn."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

DEADLINE_S = 60
NUM_FRAMES = 30
# In a process of its own, as it takes the middleware up and down again.
LISTEN = """
import json, sys
import numpy as np
from pathlib import Path
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vidseg_core.data.wire import ImageWriter
from vidseg_ros import rcl
from vidseg_ros.demo.listener import Listener
from vidseg_ros.demo.recording import Recording

count = int(sys.argv[2])
recording = Recording(Path(sys.argv[1]))

def message(header, channels, encoding):
    return ImageWriter().serialise(header, encoding, np.full((2, 2, channels), header.stamp.nanosec, np.uint8))

with Listener("/judged", recording) as listener:
    camera = Node("camera", namespace="/judged")
    labels, overlay = (camera.create_publisher(Image, topic, count) for topic in ("labels", "overlay"))
    info = camera.create_publisher(CameraInfo, "camera_info", count)
    listener.start_camera()
    while not all(one.get_subscription_count() for one in (info, labels, overlay)):
        listener.turn(0.1)
    for i in range(count):
        header = Header()
        header.stamp.nanosec = 1 + i
        info.publish(CameraInfo(header=header))
        rcl.publish(labels, message(header, 1, "mono8"))
        rcl.publish(overlay, message(header, 3, "rgb8"))
    assert all(one.wait_for_all_acked() for one in (info, labels, overlay))  # all of them wait in the listener
    while len(recording.sent) < count:
        listener.turn(0.1)
    camera.destroy_node()
tracks = {"camera_info": recording.sent, "labels": recording.labels, "overlay": recording.overlays}
print(json.dumps({topic: [track.stamps_ns, track.arrivals_ns] for topic, track in tracks.items()}))
"""


def test_no_topic_waits_for_the_others_to_be_quiet(ros_environment, tmp_path):
    """Behind, the listener takes a message of each topic in turn: else camera_info comes last, or never."""
    command = [sys.executable, "-c", LISTEN, str(tmp_path), str(NUM_FRAMES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    heard = json.loads(done.stdout)
    assert all(stamps == list(range(1, NUM_FRAMES + 1)) for stamps, _ in heard.values())
    info, labels, overlay = (np.array(heard[topic][1]) for topic in ("camera_info", "labels", "overlay"))
    assert (info[:-2] < np.minimum(labels, overlay)[2:]).all()
