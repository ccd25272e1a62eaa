"""Measure what ROS and several cameras cost."""
