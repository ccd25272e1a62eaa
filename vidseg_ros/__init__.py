"""The ROS 2 side: messages in, messages out. What is computed, when and how is `vidseg_core`'s business."""
