"""Recordings of ROS messages: channels, stored messages, and one file per storage. Definitions of types are not read."""
