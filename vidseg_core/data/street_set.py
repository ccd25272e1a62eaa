"""Render frames of the synthetic street once, and keep them as a labelled set of files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidseg_core.classes import load_classes
from vidseg_core.data.images import encode_png
from vidseg_core.data.labelled import LabelledSet, folder_pair
from vidseg_core.errors import ConfigError
from vidseg_core.street import TRAIN_SEEDS, Street, StreetConfig

SCENE_FRAMES = 600
RATE_HZ = 30.0
VIDEO_STEP = 2  # every second frame of a scene makes video of 15 Hz


@dataclass(frozen=True)
class StreetStills:
    """Which frames to render.

    Attributes:
        frames: how many in all, evenly from all scenes.
        scenes: how many different streets.
        seed: of the first street; the others follow. All must be seeds for training.
        size: (width, height), pixels.
        run: how many follow each other as video of 15 Hz; 1 for stills.
    """

    frames: int = 800
    scenes: int = 50
    seed: int = TRAIN_SEEDS[0]
    size: tuple[int, int] = (640, 360)
    run: int = 1

    def __post_init__(self):
        if not 1 <= self.scenes <= self.frames:
            raise ConfigError(f"street: expected 1 <= scenes <= frames, got scenes={self.scenes} frames={self.frames}")
        most = self.scenes * SCENE_FRAMES // (VIDEO_STEP if self.run > 1 else 1)
        if self.frames > most:
            raise ConfigError(f"street: expected at most {most} frames, got {self.frames}")
        if not 1 <= self.run <= self.frames // self.scenes:
            raise ConfigError(
                f"street: expected runs of 1..{self.frames // self.scenes} frames (frames / scenes), got run={self.run}"
            )
        if self.seed not in TRAIN_SEEDS or self.seed + self.scenes - 1 not in TRAIN_SEEDS:
            raise ConfigError(
                f"street: expected seeds for training ({TRAIN_SEEDS[0]}..{TRAIN_SEEDS[-1]}), "
                f"got {self.seed}..{self.seed + self.scenes - 1}"
            )

    @classmethod
    def parse(cls, text: str) -> StreetStills:
        """Parse `frames=800,scenes=50,seed=1000,size=640x360,run=1`, each with a default.

        Raises:
            ConfigError: a key is unknown or a value is not of its kind.
        """
        values: dict = {}
        for item in filter(None, text.split(",")):
            key, _, value = item.partition("=")
            try:
                if key == "size":
                    width, height = (int(side) for side in value.split("x"))
                    values[key] = (width, height)
                elif key in ("frames", "scenes", "seed", "run"):
                    values[key] = int(value)
                else:
                    raise ConfigError(f"street: expected keys frames, scenes, seed, size, run, got {key!r}")
            except ValueError as error:
                if isinstance(error, ConfigError):
                    raise
                raise ConfigError(f"street: {key}: expected a number (size: WIDTHxHEIGHT), got {value!r}") from error
        return cls(**values)

    def folder_name(self) -> str:
        run = f"-{self.run}" if self.run > 1 else ""
        return f"street-{self.size[0]}x{self.size[1]}-{self.seed}-{self.scenes}-{self.frames}{run}"

    def where(self) -> list[tuple[int, int]]:
        """List (seed, number of the frame) of every frame, scene by scene."""
        shots = []
        for scene in range(self.scenes):
            count = self.frames // self.scenes + (scene < self.frames % self.scenes)
            runs = -(-count // self.run)
            apart = SCENE_FRAMES // runs
            # The first frame differs from scene to scene, so that all ages of a scene are seen.
            first = scene * 7 % max(1, apart - VIDEO_STEP * (self.run - 1))
            for k in range(count):
                run, place = divmod(k, self.run)
                shots.append((self.seed + scene, first + run * SCENE_FRAMES // runs + VIDEO_STEP * place))
        return [(seed, min(number, SCENE_FRAMES - 1)) for seed, number in shots]


def street_stills(stills: StreetStills, cache: Path, progress: Callable[[Iterable], Iterable] = iter) -> LabelledSet:
    """Render the frames into `cache`, as far as they are not there yet, and open them as a set.

    Args:
        progress: wraps the iteration over the frames, for instance `tqdm`.
    """
    classes = load_classes("camvid")
    root = cache / stills.folder_name()
    for name in ("street", "streetannot"):
        (root / name).mkdir(parents=True, exist_ok=True)
    width, height = stills.size
    seed_now, street = None, None
    for seed, number in progress(stills.where()):
        name = f"{seed}_{number:06d}.png"
        if (root / "streetannot" / name).is_file():
            continue
        if seed != seed_now:
            street = Street(StreetConfig(seed, width, height, RATE_HZ, SCENE_FRAMES))
            seed_now = seed
        frame = street.render(number)
        _write(root / "street" / name, frame.image)
        _write(root / "streetannot" / name, frame.labels)  # last: a frame is complete when its labels are there
    return folder_pair(root, "street", classes, video=stills.run > 1)


def _write(path: Path, image: np.ndarray) -> None:
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_bytes(encode_png(image))
    os.replace(unfinished, path)
