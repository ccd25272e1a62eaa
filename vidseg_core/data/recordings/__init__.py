"""Recordings of ROS messages: channels and stored messages, one file per storage; definitions of types stay unread."""
