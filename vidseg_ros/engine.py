"""The engine that the parameters ask for, ready to work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg_core.classes import ClassTable
from vidseg_core.engine.protocol import EngineProtocol
from vidseg_core.frame import Frame
from vidseg_core.kernels.points import Labelled, cloud_points, depth_points
from vidseg_core.kernels.vote import vote
from vidseg_core.overlay import colorize, overlay
from vidseg_ros import parameters
from vidseg_ros.ahead import start_segmenter
from vidseg_ros.pass_through import PassThrough

if TYPE_CHECKING:
    from vidseg_core.engine.governed import GovernedEngine

HEIGHT, WIDTH = 120, 160
# A key frame and a propagated one.
FRAMES, PERIOD_NS = 2, 33_000_000


def prepare(arguments: Sequence[str]) -> None:
    """Load what an engine needs, while the process in which it may segment does the same.

    Args:
        arguments: of the command line; those that ask for no engine save the time.

    Raises:
        ImportError: a library that computes is not installed.
    """
    if start_segmenter(arguments):
        import vidseg_core.engine.governed  # noqa: F401


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
    from vidseg_core.engine.build import update_network
    from vidseg_core.engine.governed import GovernedEngine
    from vidseg_core.engine.key_frames import spare

    config, free = parameters.engine_config(values), parameters.governed(values)
    if "key_frames" in free and open_device(config.device).type == "cpu":
        # The engine that can do both; to begin with, as fresh key frames as there are beside the frames.
        config = replace(config, key_frames="async", interval=0 if "interval" in free else config.interval)
    else:
        free -= {"key_frames"}
    engine = build(config)
    spare.discard()  # one that segments in this process
    update = update_network(engine) if "update_weights" in free else None
    return GovernedEngine(engine, free, values["max_age_s"], update)


def warm_up(engine: GovernedEngine, size: tuple[int, int], share: float | None = None) -> None:
    """Have everything compiled and allocated that the first labels of pictures of `size`, (H, W), need.

    Args:
        share: of the network's input to begin with; None for all of it.
    """
    engine.prepare(size, share)
    height, width = size
    stream = engine.stream()
    image = np.frombuffer(bytes(height * width * 3), dtype=np.uint8).reshape(height, width, 3)  # read-only, as messages
    for number in range(FRAMES):
        stream.step(Frame(image, stamp_ns=number * PERIOD_NS))


def warm_up_outputs(classes: ClassTable) -> None:
    """Compile what other layouts of images and other outputs need, so that whoever subscribes later does not wait.

    Compiled code depends on how an image lies in memory: packed or with padded rows, and read-only in a message.
    """
    packed = np.frombuffer(bytes(HEIGHT * WIDTH * 3), dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    padded = np.frombuffer(bytes(HEIGHT * (WIDTH + 1) * 3), dtype=np.uint8).reshape(HEIGHT, WIDTH + 1, 3)[:, :WIDTH]
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for image in (packed, padded, packed.copy()):
        overlay(image, labels, classes.lut)
    colorize(labels, classes.lut)
    picture = Labelled(packed, vote(labels, (HEIGHT // 2, WIDTH // 2)), None)
    for depth in (np.ones((HEIGHT, WIDTH), np.uint16), np.ones((HEIGHT, WIDTH), np.float32)):
        depth_points(picture, depth, np.eye(3, 4))
    cloud_points(Labelled(packed, labels, None), np.ones((1, 1, 3), np.float32), np.eye(3, 4))
