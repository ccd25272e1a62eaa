"""Where frames come from, in order: a folder of images, a video file, a rosbag2 recording, the synthetic street."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.data.images import IMAGE_SUFFIXES, list_images, read_rgb, read_unchanged
from vidseg_core.errors import DatasetError, SourceError
from vidseg_core.frame import MIN_SIDE, Frame

DEFAULT_RATE_HZ = 30.0
BAG_SUFFIXES = (".mcap", ".db3")


class Source(ABC):
    """Frames of one camera in order. Iterating again starts again.

    A frame that cannot be read raises `SourceError` out of the iteration, or with `skip_bad` is left out and noted.

    Attributes:
        name: what to call the source; the frames' `stream`.
        rate_hz: nominal frame rate.
        size: (W, H) of the first frame; later frames may be of another size.
        classes: table of the ids in the frames' `labels`; None where frames have none.
        num_frames: how many frames there should be; None if that is not known beforehand.
        skipped: (frame name, reason) of the frames that the latest iteration left out.
    """

    def __init__(
        self, name: str, rate_hz: float, num_frames: int | None, skip_bad: bool, classes: ClassTable | None = None
    ):
        if not 0 < rate_hz < float("inf"):
            raise SourceError(f"{name}: expected a frame rate above 0 Hz, got {rate_hz}")
        self.name = name
        self.rate_hz = float(rate_hz)
        self.num_frames = num_frames
        self.classes = classes
        self.skipped: list[tuple[str, str]] = []
        self._skip_bad = skip_bad
        first = next(iter(self), None)
        if first is None:
            reason = f": {self.skipped[0][1]}" if self.skipped else ""
            raise SourceError(f"{name}: there is no frame that can be read{reason}")
        self.size = first.size[1], first.size[0]

    def __len__(self) -> int:
        """`num_frames`; raises TypeError if that is not known beforehand."""
        if self.num_frames is None:
            raise TypeError(f"the number of frames in {self.name} is not known")
        return self.num_frames

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        for name, frame in self._read():
            if not isinstance(frame, SourceError):
                yield frame
            elif self._skip_bad:
                self.skipped.append((name, str(frame)))
            else:
                raise frame

    @abstractmethod
    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        """The frames by name; in the place of one that cannot be read, why."""


def open_source(
    spec: str | Path,
    *,
    rate_hz: float | None = None,
    topic: str | None = None,
    skip_bad: bool = False,
    labels: str | Path | None = None,
    classes: ClassTable | None = None,
) -> Source:
    """Open a source of frames and read its first frame.

    Args:
        spec: a folder of images; a video file; a rosbag2 recording (its folder, or an .mcap or .db3 file);
            `street:seed=0,...` for the synthetic street (see `StreetConfig.parse`).
        rate_hz: frame rate of a folder of images (30 if None); for a video file, a rate that replaces its own stamps.
        topic: image topic of a recording; may be None if there is only one.
        skip_bad: leave out frames that cannot be read instead of raising.
        labels: for a folder of images, the folder of their ground truth: PNG files of the same stems
            (`X_gtFine_labelIds` for `X_leftImg8bit`); for a recording, a topic of it, or a folder (see
            `vidseg_core.data.bag.bag_labels`). Not every image needs one.
        classes: the class table of those labels.

    Raises:
        SourceError: there is nothing there, nothing in it can be read, or an option does not fit this kind of source.
        DatasetError: `labels` is not a folder, or holds nothing for these images.
    """
    spec = str(spec)
    if spec.startswith("street:"):
        _refuse(spec, "the synthetic street", rate_hz=rate_hz, topic=topic, labels=labels)
        return StreetSource(spec)
    path = Path(spec)
    if not path.exists():
        raise SourceError(f"{spec}: expected a folder of images, a video file or a recording, there is nothing")
    bag = find_bag(path)
    if bag is not None:
        from vidseg_core.data.bag import BagSource, bag_labels

        _refuse(spec, "a recording, which has stamps of its own", rate_hz=rate_hz)
        truth = None if labels is None else bag_labels(bag, labels, classes)
        return BagSource(bag, topic=topic, skip_bad=skip_bad, labels=truth)
    if path.is_dir():
        _refuse(spec, "a folder of images", topic=topic)
        truth = _Truth(Path(labels), classes) if labels is not None else None
        rate_hz = DEFAULT_RATE_HZ if rate_hz is None else rate_hz
        return FolderSource(path, rate_hz=rate_hz, skip_bad=skip_bad, truth=truth)
    from vidseg_core.data.video import VideoSource

    _refuse(spec, "a video file", topic=topic, labels=labels)
    return VideoSource(path, rate_hz=rate_hz, skip_bad=skip_bad)


class FolderSource(Source):
    """The images of a folder in natural order. The stamp of image i is i / rate_hz, also where others are skipped."""

    def __init__(self, folder: Path, *, rate_hz: float, skip_bad: bool = False, truth: _Truth | None = None):
        self._files = list_images(folder)
        self._truth = truth
        if not self._files:
            raise SourceError(f"{folder}: expected images ({', '.join(IMAGE_SUFFIXES)}), there are none")
        stems: dict[str, Path] = {}
        for path in self._files:
            if path.stem in stems:
                raise SourceError(f"{path}: expected one image of each name, got {stems[path.stem].name} as well")
            stems[path.stem] = path
        if truth is not None:
            truth.check_any(stems, folder)
        name = folder.resolve().name
        super().__init__(name, rate_hz, len(self._files), skip_bad, truth.classes if truth else None)

    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        for index, path in enumerate(self._files):
            yield path.stem, self._frame(index, path)

    def _frame(self, index: int, path: Path) -> Frame | SourceError:
        try:
            image = checked_size(read_rgb(path, SourceError), path)
        except SourceError as error:
            return error
        labels = self._truth.read(path, image.shape[:2]) if self._truth else None
        return Frame(image, round(index * 1e9 / self.rate_hz), stream=self.name, name=path.stem, labels=labels)


class StreetSource(Source):
    """The synthetic street, whose frames come with exact labels and flow."""

    def __init__(self, spec: str):
        from vidseg_core.data.street import Street, StreetConfig

        self._config = StreetConfig.parse(spec)
        self._street = Street(self._config)
        super().__init__("street", self._config.rate_hz, self._config.num_frames, False, load_classes("camvid"))

    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        for index in range(self._config.num_frames):
            frame = self._street.render(index)
            yield frame.name, frame


class _Truth:
    """Ground truth files of a folder, found by the stems of the images."""

    def __init__(self, folder: Path, classes: ClassTable | None):
        if classes is None:
            raise DatasetError(f"{folder}: a class table is needed to read labels")
        if not folder.is_dir():
            raise DatasetError(f"{folder}: expected a folder of label files (.png)")
        self.folder = folder
        self.classes = classes
        self._files = {path.stem.removesuffix("_gtFine_labelIds"): path for path in list_images(folder, (".png",))}

    def check_any(self, stems: dict[str, Path], image_folder: Path) -> None:
        if not any(_truth_key(stem) in self._files for stem in stems):
            raise DatasetError(
                f"{self.folder}: expected label files named like the images in {image_folder} "
                f"(for instance {next(iter(stems))}.png), none of {len(self._files)} .png files is"
            )

    def read(self, image: Path, size: tuple[int, int]) -> np.ndarray | None:
        path = self._files.get(_truth_key(image.stem))
        if path is None:
            return None
        labels = self.classes.read_ids(read_unchanged(path, DatasetError), path)
        if labels.shape != size:
            raise DatasetError(
                f"{path}: expected labels as large as {image} ({size[1]} x {size[0]}), "
                f"got {labels.shape[1]} x {labels.shape[0]}"
            )
        return labels


def checked_size(image: np.ndarray, where: str | Path) -> np.ndarray:
    """`image`, which must be at least `MIN_SIDE` pixels wide and high.

    Raises:
        SourceError: it is smaller; the message starts with `where`.
    """
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise SourceError(f"{where}: expected at least {MIN_SIDE} x {MIN_SIDE} pixels, got {width} x {height}")
    return image


def _truth_key(stem: str) -> str:
    return stem.removesuffix("_leftImg8bit")


def find_bag(path: Path) -> Path | None:
    """The path by which a recording is opened; None if `path` is something else.

    Raises:
        SourceError: it is a folder with several storage files and nothing that says how they belong together.
    """
    if path.is_file():
        return path if path.suffix in BAG_SUFFIXES else None
    if (path / "metadata.yaml").exists():
        return path
    storage = [file for file in sorted(path.iterdir()) if file.suffix in BAG_SUFFIXES]
    if len(storage) > 1:
        raise SourceError(f"{path}: a recording of {len(storage)} files without metadata.yaml; try `ros2 bag reindex`")
    return storage[0] if storage else None


def _refuse(spec: str, kind: str, **options: object) -> None:
    for option, value in options.items():
        if value is not None:
            raise SourceError(f"{spec}: option {option} does not apply to {kind}")
