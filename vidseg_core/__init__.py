"""Semantic labels for every camera frame: a network on key frames, optical flow and a small network between them."""

__version__ = "0.1.0"
