"""Networks that are loaded once, and streams over them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidseg_core.backends.choose import Runtime
from vidseg_core.classes import ClassTable
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.key_frames.background import CLOSE_S, Background
from vidseg_core.engine.key_frames.jobs import AtOnce, Delayed, KeyFrames
from vidseg_core.engine.key_frames.queues import InOrder, Queues
from vidseg_core.engine.key_frames.turns import Turns
from vidseg_core.engine.protocol import capabilities
from vidseg_core.engine.stream import Networks, Stream
from vidseg_core.errors import ConfigError
from vidseg_core.models.accuracy import Accuracy
from vidseg_core.models.architectures import SEGMENTER
from vidseg_core.models.open import Model


class Engine:
    """Networks that are loaded once, and as many streams over them as there are cameras.

    With asynchronous key frames it has a thread, and on the CPU a process, which `close` ends; a context manager that
    does so when left. Its attributes cannot be assigned to: `variant` makes an engine that differs.

    Args:
        config: what it was built from.
        classes: the class table of its labels.
        networks: shared by its streams.
        models: which model each network came from; their own networks are not needed.
        runtime: makes what executes them.
        num_threads: of the CPU, for which they were built.
        queues: makes the queues of the device, for asynchronous key frames.
        frame: makes the context of each frame, for all others.

    Raises:
        ConfigError: the configuration's ego mask cannot be read.
    """

    def __init__(
        self,
        config: EngineConfig,
        classes: ClassTable,
        networks: Networks,
        models: dict[str, Model],
        runtime: Runtime,
        num_threads: int,
        queues: Callable[[], Queues] = InOrder,
        frame: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self._config = config
        self._classes = classes
        self._networks = networks
        self._models = models
        self._runtime = runtime
        self._num_threads = num_threads
        self._queues = queues
        self._frame = frame
        self._ego_mask = None if config.ego_mask is None else read_ego_mask(config.ego_mask)
        self._owned: Background | None = None
        self._shares_networks = False
        self._key_frames = self._own_key_frames()

    @property
    def config(self) -> EngineConfig:
        """The configuration that it was built from."""
        return self._config

    @property
    def classes(self) -> ClassTable:
        """The class table of its labels."""
        return self._classes

    @property
    def networks(self) -> Networks:
        """The networks that its streams share."""
        return self._networks

    @property
    def weight_files(self) -> dict[str, Path]:
        """The file of each network."""
        return {role: model.path for role, model in self._models.items()}

    @property
    def accuracy(self) -> Accuracy | None:
        """Tell what to expect of the segmentation network; None where its weights do not tell."""
        model = self._models.get(SEGMENTER)
        return None if model is None else model.card.accuracy

    @property
    def runtime(self) -> Runtime:
        """Makes what executes the networks."""
        return self._runtime

    @property
    def num_threads(self) -> int:
        """Threads of the CPU that its networks are built for."""
        return self._num_threads

    @property
    def key_frames(self) -> KeyFrames:
        """Computes the key frames of its streams: at once, or beside them in a thread."""
        return self._key_frames

    @property
    def turns(self) -> Turns | None:
        """Pauses the segmenter while a stream is at a frame; None if it cannot be paused."""
        return capabilities(self._networks.segmenter).turns

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def variant(
        self, config: EngineConfig | None = None, *, key_frames: KeyFrames | None = None, **networks: Any
    ) -> Engine:
        """Make an engine that differs in some parts and shares all others; this one stays as it is.

        `close` of a variant ends only the thread that it has started itself: one with asynchronous key frames of an
        engine with synchronous ones. Threads and networks of this engine end with this one.

        Args:
            config: replaces the configuration; networks are not loaded anew, whatever it names.
            key_frames: computes the key frames of its streams; None: as `config.key_frames` says, in this engine's
                thread if it has one.
            networks: replace those of the same names, see `Networks`: `segmenter`, `flow`, `refine`, `updater`, ...

        Raises:
            ConfigError: the ego mask of `config` cannot be read.
            TypeError: `Networks` has no part of that name.
        """
        other = copy(self)
        other._networks = replace(self._networks, **networks)
        other._shares_networks = True
        other._owned = None
        if config is not None:
            other._config = config
            if config.ego_mask != self._config.ego_mask:
                other._ego_mask = None if config.ego_mask is None else read_ego_mask(config.ego_mask)
        if key_frames is not None:
            other._key_frames = key_frames
        elif other._config.key_frames != self._config.key_frames:
            other._key_frames = other._own_key_frames()
        return other

    def _own_key_frames(self) -> KeyFrames:
        if self._config.key_frames == "sync":
            return AtOnce(self._frame)
        self._owned = Background(self.turns, self._queues())
        return self._owned

    def close(self, timeout_s: float | None = CLOSE_S) -> bool:
        """Let a segmentation under way come to its end; streams cannot begin another one. May be called again.

        Returns:
            Whether it did within `timeout_s` (None: however long it takes). One in a process of its own is ended then.
        """
        ended = self._owned is None or self._owned.close(timeout_s)
        if self._shares_networks:
            return ended
        if (end_updater := capabilities(self._networks.updater).close) is not None:
            end_updater()
        if (end_segmenter := capabilities(self._networks.segmenter).close) is not None:
            end_segmenter()
            ended = ended or self._owned is None or self._owned.close(CLOSE_S)
        return ended

    def segmenting_s(self) -> float:
        """Return for how many seconds the segmentation beside the streams has been under way; 0 if none is."""
        return self._key_frames.busy_s()

    def stream(self, ego_mask: str | Path | None = None, *, phase: float = 0.0, key_delay: int | None = None) -> Stream:
        """Make a stream for one camera.

        Args:
            ego_mask: PNG of this camera; None takes the configuration's.
            phase: 0 or more and below 1, see `Stream`; other for each camera.
            key_delay: have a key frame's labels come so many frames later, neither sooner nor later, whatever
                `EngineConfig.key_frames` says: asynchronous key frames that give the same labels every time. None for
                what it says.

        Raises:
            ConfigError: the mask cannot be read.
            ValueError: `key_delay` is below 0.
        """
        mask = self._ego_mask if ego_mask is None else read_ego_mask(ego_mask)
        if key_delay is None:
            key_frames = self._key_frames
        else:
            key_frames = Delayed(key_delay, self._frame) if key_delay else AtOnce(self._frame)
        return Stream(self._config, self._networks, mask, key_frames, phase)

    def runtimes(self) -> dict[str, str | None]:
        """Return what executes each network: "eager", "openvino bf16", ...; None where it has not been called yet."""
        parts = ("segmenter", "updater", "flow", "refine")
        computing = {role: getattr(self._networks, role) for role in parts}
        executors = {role: getattr(one, "execute", one) for role, one in computing.items()}
        return {role: one.runtime for role, one in executors.items() if hasattr(one, "runtime")}

    def describe(self) -> dict:
        """Describe what computes the labels, JSON-safe: configuration, classes, weights, device, threads."""
        return {
            "config": self._config.to_dict(),
            "classes": list(self._classes.names),
            "weights": {
                role: {"file": model.path.name, "sha256": model.card.checksum} for role, model in self._models.items()
            },
            "input_scale": getattr(self._networks.segmenter, "input_scale", None),  # None: as the rows want it
            "input_rows": None if "segmenter" not in self._models else self._models["segmenter"].card.input.rows,
            "device": str(self._networks.device),
            "runtime": self.runtimes(),
            "num_threads": self._num_threads,
            "torch": version("torch"),
        }


def read_ego_mask(path: str | Path) -> np.ndarray:
    """Read a picture as a mask, H x W, bool: True where it is not 0.

    Raises:
        ConfigError: no such file, or not a picture.
    """
    if not Path(path).is_file():
        raise ConfigError(f"ego_mask: {path}: no such file")
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ConfigError(f"ego_mask: {path}: expected a picture, it cannot be read as one")
    return mask != 0
