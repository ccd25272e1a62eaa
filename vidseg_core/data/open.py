"""Open a source of frames by what a user names."""

from __future__ import annotations

from pathlib import Path

from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.data.datasets import DataName
from vidseg_core.data.folder import FolderSource, FolderTruth
from vidseg_core.data.recordings.open import METADATA, compression_of, is_recording
from vidseg_core.data.source import DEFAULT_RATE_HZ, Source
from vidseg_core.data.street_source import StreetSource
from vidseg_core.errors import SourceError


def open_source(
    spec: str | Path,
    *,
    rate_hz: float | None = None,
    topic: str | None = None,
    skip_bad: bool = False,
    labels: str | Path | None = None,
    classes: ClassTable | None = None,
    packed: bool = False,
) -> Source:
    """Open a source of frames and read its first frame.

    Args:
        spec: a folder of images; a video file; a recording (see `vidseg_core.data.recordings.open`);
            `street:seed=0,...` for the synthetic street (see `StreetConfig.parse`); `camvid:DIR[:SPLIT]` or
            `folder:DIR[:SPLIT]`, a data set with its labels (see `vidseg_core.data.datasets`).
        rate_hz: frame rate of a folder of images (30 if None); for a video file, a rate that replaces its own stamps.
        topic: image topic of a recording; may be None if there is only one.
        skip_bad: leave out frames that cannot be read instead of raising.
        labels: for a folder of images, the folder of their ground truth: PNG files of the same stems
            (`X_gtFine_labelIds` for `X_leftImg8bit`); for a recording, a topic of it, or a folder (see
            `vidseg_core.data.bag.bag_labels`). Not every image needs one.
        classes: the class table of those labels, and of those that a `folder:` has; without it these are not read.
        packed: of the synthetic street, see `StreetSource`.

    Raises:
        SourceError: there is nothing there, nothing in it can be read, or an option does not fit this kind of source.
        DatasetError: `labels` is not a folder, or holds nothing for these images.
    """
    spec = str(spec)
    if spec.startswith("street:"):
        _refuse(spec, "the synthetic street", rate_hz=rate_hz, topic=topic, labels=labels)
        return StreetSource(spec, packed)
    if DataName.is_one(spec):
        _refuse(spec, "a data set", topic=topic, labels=labels)
        name = DataName.parse(spec)
        path, labels = name.folders()
        where = str(path)
        classes = load_classes("camvid") if name.kind == "camvid" else classes
        labels = labels if labels.is_dir() and classes is not None else None
    else:
        path, where = Path(spec), spec
    if not path.exists():
        raise SourceError(f"{where}: expected a folder of images, a video file or a recording, there is nothing")
    bag = find_bag(path)
    if bag is not None:
        from vidseg_core.data.bag import BagSource, bag_labels

        _refuse(spec, "a recording, which has stamps of its own", rate_hz=rate_hz)
        truth = None if labels is None else bag_labels(bag, labels, classes)
        return BagSource(bag, topic=topic, skip_bad=skip_bad, labels=truth)
    if path.is_dir():
        _refuse(spec, "a folder of images", topic=topic)
        truth = FolderTruth(Path(labels), classes) if labels is not None else None
        rate_hz = DEFAULT_RATE_HZ if rate_hz is None else rate_hz
        return FolderSource(path, rate_hz=rate_hz, skip_bad=skip_bad, truth=truth)
    compression = compression_of(path)
    if compression is not None:
        raise SourceError(f"{spec}: compressed by {compression}; decompress it first")
    from vidseg_core.data.video import VideoSource

    _refuse(spec, "a video file", topic=topic, labels=labels)
    return VideoSource(path, rate_hz=rate_hz, skip_bad=skip_bad)


def find_bag(path: Path) -> Path | None:
    """Return the path by which a recording is opened; None if `path` is something else."""
    if path.name == METADATA and path.is_file():
        path = path.parent
    return path if is_recording(path) else None


def _refuse(spec: str, kind: str, **options: object) -> None:
    for option, value in options.items():
        if value is not None:
            raise SourceError(f"{spec}: option {option} does not apply to {kind}")
