"""The engine that the parameters ask for, ready to work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from vidseg_core.engine.protocol import EngineProtocol
from vidseg_core.frame import Frame
from vidseg_core.kernels.points import Labelled, cloud_points, depth_points
from vidseg_core.kernels.vote import vote
from vidseg_core.overlay import colorize, overlay
from vidseg_ros import parameters
from vidseg_ros.pass_through import PassThrough

HEIGHT, WIDTH = 120, 160


def build_engine(values: Mapping[str, Any]) -> EngineProtocol:
    """Build the engine that parameters describe, or what takes its place.

    Raises:
        VidsegError: see `vidseg_core.engine.build.build_engine`.
        ImportError: a library that computes is not installed.
    """
    if values["engine"] == "pass_through":
        return PassThrough(values["classes"])
    from vidseg_core.devices import open_device
    from vidseg_core.engine.build import build_engine as build
    from vidseg_core.engine.governed import GovernedEngine

    config, free = parameters.engine_config(values), parameters.governed(values)
    if "key_frames" in free and open_device(config.device).type == "cpu":
        config = replace(config, key_frames="async")  # the engine that can do both
    else:
        free -= {"key_frames"}
    return GovernedEngine(build(config), free, values["max_age_s"])


def warm_up(engine: EngineProtocol) -> None:
    """Have everything compiled and allocated that the first frames need, so that no camera waits for it.

    Compiled code depends on how an image lies in memory: packed or with padded rows, and read-only in a message.
    """
    packed = np.frombuffer(bytes(HEIGHT * WIDTH * 3), dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    padded = np.frombuffer(bytes(HEIGHT * (WIDTH + 1) * 3), dtype=np.uint8).reshape(HEIGHT, WIDTH + 1, 3)[:, :WIDTH]
    stream = engine.stream()
    for image in (packed, padded, packed.copy()):
        labels = stream.step(Frame(image, stamp_ns=0)).labels
        overlay(image, labels, engine.classes.lut)
    colorize(labels, engine.classes.lut)
    picture = Labelled(packed, vote(labels, (HEIGHT // 2, WIDTH // 2)), None)
    for depth in (np.ones((HEIGHT, WIDTH), np.uint16), np.ones((HEIGHT, WIDTH), np.float32)):
        depth_points(picture, depth, np.eye(3, 4))
    cloud_points(Labelled(packed, labels, None), np.ones((1, 1, 3), np.float32), np.eye(3, 4))
