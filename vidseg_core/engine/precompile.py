"""Compile, ahead of any camera, what an engine would compile when its first frames come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch

from vidseg_core.backends.blob_cache import stored_in_the_installation
from vidseg_core.engine.build import UPDATE_SCALE, build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.governed import SHARES
from vidseg_core.engine.segmenter import NetworkSegmenter, input_scale
from vidseg_core.frame import Frame
from vidseg_core.kernels.points import Labelled, cloud_points, depth_points
from vidseg_core.kernels.vote import vote
from vidseg_core.models.accuracy import Accuracy
from vidseg_core.models.open import open_reloadable
from vidseg_core.overlay import colorize, overlay

PERIOD_NS = 33_000_000
# The network sees little of it: only kernels matter.
SMALL = (120, 160)
# A key frame that comes later, and what is blended in there.
ASYNC_FRAMES = 12


def compile_kernels(config: EngineConfig, update_weights: str, refine_weights: str) -> None:
    """Have numba compile the kernels of streams as `config` has them, and of those with further networks.

    Args:
        config: for a CPU; its runtime does not matter.
        update_weights, refine_weights: networks with the classes of `config.weights`.

    Raises:
        VidsegError: see `build_engine`.
    """
    plain = replace(config, runtime="eager", interval=1, device="cpu")
    for variant, count in (
        (plain, 4),
        (replace(plain, confidence=True, schedule="adaptive", update_weights=update_weights), 3),
        (replace(plain, refine=True, refine_weights=refine_weights), 3),
        (replace(plain, key_frames="async"), ASYNC_FRAMES),
    ):
        with stored_in_the_installation(), build_engine(variant) as engine:
            stream = engine.stream()
            for frame in _frames(SMALL, count):
                labels = stream.step(frame).labels
                overlay(frame.image, labels, engine.classes.lut)
                colorize(labels, engine.classes.lut)
    picture, identity = Labelled(frame.image, vote(labels, (SMALL[0] // 2, SMALL[1] // 2)), None), np.eye(3, 4)
    for depth in (np.ones(SMALL, np.uint16), np.ones(SMALL, np.float32)):
        depth_points(picture, depth, identity)
    cloud_points(Labelled(frame.image, labels, None), np.ones((1, 1, 3), np.float32), identity)


def compile_networks(config: EngineConfig, size: tuple[int, int]) -> dict[str, str | None]:
    """Have the networks compiled that a governor may use for cameras of `size`, (H, W), and kept beside the package.

    What is known of their files is kept there, too, so that an engine whose networks are executed by other processes
    need not load them.

    Returns:
        What executes each network, by its name: the segmentation network, and the update network that its record names.

    Raises:
        VidsegError: see `build_engine`.
        OSError: the installation cannot be written.
    """
    runtime, accuracy = _compile(config, size, SHARES)
    runtimes = {config.weights: runtime}
    if accuracy is not None and accuracy.update is not None:
        name = accuracy.update.weights
        scale = input_scale(open_reloadable(name).card.input, None, UPDATE_SCALE)  # as an update network has it
        runtimes[name], _ = _compile(replace(config, weights=name, input_scale=scale), size, (1.0,))
    return runtimes


def _compile(
    config: EngineConfig, size: tuple[int, int], shares: Sequence[float]
) -> tuple[str | None, Accuracy | None]:
    """Compile one network for these shares of its input's size; return what executes it, and its record."""
    with stored_in_the_installation(), build_engine(replace(config, key_frames="sync")) as engine:
        for frame in _frames(size, 1):
            engine.stream().step(frame)
        segmenter = cast(NetworkSegmenter, engine.networks.segmenter)
        with torch.inference_mode():
            for share in shares:
                segmenter.execute(torch.zeros(1, 3, *segmenter.input_size(size, share)))
        open_reloadable(config.weights)
        return segmenter.runtime, engine.accuracy


def _frames(size: tuple[int, int], count: int) -> Iterator[Frame]:
    """Yield frames of noise: packed as they come, with padded rows, and read-only as in a message."""
    height, width = size
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (height, width + 1, 3), np.uint8)
        image = noise[:, :width] if number % 3 == 1 else np.ascontiguousarray(noise[:, :width])
        if number % 3:
            image.flags.writeable = False
        yield Frame(image, number * PERIOD_NS)
