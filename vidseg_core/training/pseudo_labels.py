"""Labels that a network gives to unlabelled footage: soft, kept on disk, and made only once.

For each picture three files: the picture, class ids at full size (what the teacher would publish), and the
probabilities of all classes at a quarter of the size.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from vidseg_core.arrays import as_tensor, on_host
from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.data.labelled import LabelledSet, Sample
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.geometry import grid_size
from vidseg_core.engine.protocol import capabilities
from vidseg_core.engine.segmenter import Segmenter
from vidseg_core.engine.segmenter import input_scale as usual_scale
from vidseg_core.errors import CheckpointError, DatasetError
from vidseg_core.frame import Frame
from vidseg_core.kernels.decode import decode
from vidseg_core.kernels.resample import on_grid
from vidseg_core.models.architectures import SEGMENTER
from vidseg_core.models.open import open_model

SOFT_STRIDE = 4
JPEG_QUALITY = 95
IMAGE, IDS, SOFT = "images/{}.jpg", "ids/{}.png", "soft/{}.npz"


class Teacher:
    """A segmentation network that labels pictures, each by itself.

    Args:
        weights: a name in the registry of weights, or a file, of others too.
        classes: class table, where the file does not tell: a name or a path.
        input_scale: size of its input in units of the picture's; None for what suits it.
        runtime, device: see `EngineConfig`.

    Attributes:
        classes: of its labels.
        record: what it is, JSON-safe: file, sha256, licence, input_scale (None where it depends on the picture).

    Raises:
        CheckpointError, ClassTableError: as `open_model`; or its classes are not known, or others than those given.
    """

    def __init__(
        self, weights: str | Path, classes: str | None = None, input_scale: float | None = None,
        runtime: str = "auto", device: str = "cpu",
    ):  # fmt: skip
        model = open_model(weights, SEGMENTER)
        table = load_classes(classes) if classes else model.card.classes
        if table is None:
            raise CheckpointError(f"{model.path}: does not tell its classes; name a class table (--classes)")
        model.check_classes(table)
        self.classes: ClassTable = table
        self.record: dict[str, Any] = {
            "file": model.path.name, "sha256": model.card.checksum, "licence": model.card.licence,
            "input_scale": usual_scale(model.card.input, input_scale),
        }  # fmt: skip
        self._config = EngineConfig(
            weights=str(weights), classes=classes, input_scale=self.record["input_scale"], interval=0, fusion=False,
            runtime=runtime, device=device,
        )  # fmt: skip
        self._segmenter: Segmenter | None = None

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Label a picture.

        Args:
            image: H x W x 3, uint8, RGB.

        Returns:
            Class ids, H x W, uint8; probabilities times 255, C x h x w, uint8, on a grid of `SOFT_STRIDE` whose
            outermost pixels lie on the picture's.
        """
        if self._segmenter is None:  # not needed where all is labelled already
            self._segmenter = build_engine(self._config).networks.segmenter
        frame, able = Frame(image, stamp_ns=0), capabilities(self._segmenter)
        scores = as_tensor(on_host(self._segmenter(frame))).float()  # 1 x C x any size
        soft = on_grid(scores, grid_size(frame.size, SOFT_STRIDE), able.picture_of(frame)).softmax(1)[0]
        return decode(scores, frame.size, able.half_pixel), (soft * 255).round().to(torch.uint8).numpy()


@dataclass(frozen=True)
class TaughtSet(LabelledSet):
    """Pictures with a teacher's labels.

    Attributes:
        folder: holds their files.
    """

    folder: Path = Path()

    def read_labels(self, index: int) -> np.ndarray:
        """Read the teacher's class ids, H x W, uint8.

        Raises:
            DatasetError: the file is missing or broken.
        """
        path = self.samples[index].labels
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if ids is None or ids.ndim != 2 or ids.dtype != np.uint8:
            raise DatasetError(f"{path}: expected class ids of a teacher, 8 bits; it is missing or broken")
        return ids

    def read_soft(self, index: int) -> np.ndarray:
        """Read the teacher's probabilities times 255, C x h x w, uint8; see `Teacher`.

        Raises:
            DatasetError: the file is missing or broken.
        """
        path = self.folder / SOFT.format(self.samples[index].name)
        try:
            with np.load(path) as file:
                return file["soft"]
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise DatasetError(f"{path}: expected probabilities of a teacher: {error}") from error


def label_footage(
    teacher: Teacher, name: str, number: int, frames: Callable[[], Iterable[Frame]], chosen: Iterable[int], cache: Path,
    identity: object, progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> TaughtSet:  # fmt: skip
    """Have the teacher label frames of a source, those left out that it has labelled before.

    Args:
        name: of the source, for messages and records.
        number: of the source among all; its frames are one sequence.
        frames: opens the source; not called where everything is labelled already.
        chosen: indices of the frames to label.
        cache: where the files are kept, in a folder whose name depends on teacher, source and `identity`.
        identity: JSON-safe; differs where the source does.
        progress: wraps the iteration over the indices, for instance `tqdm`.

    Raises:
        SourceError, DatasetError: the source cannot be read, or has fewer frames than chosen.
        OSError: the cache cannot be written.
    """
    key = hashlib.sha256(json.dumps([teacher.record, name, identity], sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / f"taught-{key}"
    for part in (IMAGE, IDS, SOFT):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
    wanted = {index: f"{number:02d}_{index:06d}" for index in sorted(chosen)}
    # Probabilities are written last: where they are, the others are, too.
    missing = {index for index, stem in wanted.items() if not (folder / SOFT.format(stem)).is_file()}
    if missing:
        left = set(missing)
        waiting = iter(progress(sorted(missing)))
        for index, frame in enumerate(frames()):
            if index not in left:
                continue
            next(waiting, None)
            _keep(folder, wanted[index], frame.image, *teacher(frame.image))
            left.remove(index)
            if not left:
                break
        next(waiting, None)
        if left:
            raise DatasetError(f"{name}: expected {max(wanted) + 1} frames, found fewer ({len(left)} are missing)")
    samples = tuple(
        Sample(folder / IMAGE.format(stem), folder / IDS.format(stem), stem) for _, stem in sorted(wanted.items())
    )
    return TaughtSet(name, teacher.classes, samples, folder=folder)


def _keep(folder: Path, stem: str, image: np.ndarray, ids: np.ndarray, soft: np.ndarray) -> None:
    """Write the three files, each whole or not at all."""
    shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    picture = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    packed = io.BytesIO()
    np.savez_compressed(packed, soft=soft)
    contents = (IMAGE, picture.tobytes()), (IDS, cv2.imencode(".png", ids)[1].tobytes()), (SOFT, packed.getvalue())
    for name, content in contents:
        path = folder / name.format(stem)
        part = path.with_suffix(".part")
        part.write_bytes(content)
        os.replace(part, path)
