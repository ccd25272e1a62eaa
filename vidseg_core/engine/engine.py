"""Networks that are loaded once, and streams over them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from vidseg_core.backends.choose import Executor, Runtime
from vidseg_core.classes import ClassTable
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.key_frames.background import CLOSE_S, Background
from vidseg_core.engine.key_frames.jobs import AtOnce, Delayed
from vidseg_core.engine.key_frames.process import SegmenterProcess
from vidseg_core.engine.key_frames.turns import Turns
from vidseg_core.engine.stream import Networks, Stream
from vidseg_core.errors import ConfigError
from vidseg_core.models.files import checksum


class Engine:
    """Networks that are loaded once, and as many streams over them as there are cameras.

    With asynchronous key frames it has a thread, and on the CPU a process, which `close` ends; a context manager that
    does so when left.

    Attributes:
        config: what it was built from.
        classes: the class table of its labels.
        networks: shared by its streams.
        weight_files: which file each network came from.
        runtime: makes what executes them.
        background: the thread that segments beside the streams; None with synchronous key frames.
    """

    def __init__(
        self,
        config: EngineConfig,
        classes: ClassTable,
        networks: Networks,
        weight_files: dict[str, Path],
        runtime: Runtime,
        num_threads: int,
    ):
        self.config = config
        self.classes = classes
        self.networks = networks
        self.weight_files = weight_files
        self.runtime = runtime
        self._num_threads = num_threads
        self._ego_mask = None if config.ego_mask is None else read_ego_mask(config.ego_mask)
        self.background = Background(self.turns) if config.key_frames == "async" else None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self, timeout_s: float | None = CLOSE_S) -> bool:
        """Let a segmentation under way come to its end; streams cannot begin another one. May be called again.

        Returns:
            Whether it did within `timeout_s` (None: however long it takes). One in a process of its own is ended then.
        """
        ended = self.background is None or self.background.close(timeout_s)
        if self._process is not None:
            self._process.close()
            ended = ended or self.background.close(CLOSE_S)
        return ended

    @property
    def turns(self) -> Turns | None:
        """With which its streams make the segmenter stand still; None where they do not."""
        return None if self._process is None else self._process.turns

    @property
    def _process(self) -> SegmenterProcess | None:
        segmenter = self.networks.segmenter
        return segmenter if isinstance(segmenter, SegmenterProcess) else None

    def segmenting_s(self) -> float:
        """How long the segmentation beside the streams has been under way; 0 if none is."""
        return 0.0 if self.background is None else self.background.busy_s()

    def stream(self, ego_mask: str | Path | None = None, *, phase: float = 0.0, key_delay: int | None = None) -> Stream:
        """A stream for one camera.

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
        key_frames = self.background if key_delay is None else Delayed(key_delay) if key_delay else AtOnce()
        return Stream(self.config, self.networks, mask, key_frames, phase)

    def runtimes(self) -> dict[str, str | None]:
        """What executes each network: "eager", "openvino bf16", ...; None where it has not been called yet."""
        parts = ("segmenter", "updater", "flow", "refine")
        computing = {role: getattr(self.networks, role) for role in parts}
        executors = {role: getattr(one, "execute", one) for role, one in computing.items()}
        return {role: one.runtime for role, one in executors.items() if isinstance(one, (Executor, SegmenterProcess))}

    def describe(self) -> dict:
        """What computes the labels, JSON-safe: configuration, classes, weight files with checksum, device, threads."""
        return {
            "config": self.config.to_dict(),
            "classes": list(self.classes.names),
            "weights": {
                role: {"file": path.name, "sha256": checksum(path, "sha256")}
                for role, path in self.weight_files.items()
            },
            "input_scale": getattr(self.networks.segmenter, "input_scale", None),
            "device": str(self.networks.device),
            "runtime": self.runtimes(),
            "num_threads": self._num_threads,
            "torch": torch.__version__,
        }


def read_ego_mask(path: str | Path) -> np.ndarray:
    """H x W, bool: where the picture is not 0.

    Raises:
        ConfigError: no such file, or not a picture.
    """
    if not Path(path).is_file():
        raise ConfigError(f"ego_mask: {path}: no such file")
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ConfigError(f"ego_mask: {path}: expected a picture, it cannot be read as one")
    return mask != 0
