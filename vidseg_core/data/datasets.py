"""Open a data set by what a user names: `KIND:WHERE[:SPLIT]`, for a training with a share behind it, `@SHARE`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidseg_core.classes import ClassTable
from vidseg_core.data.camvid import camvid
from vidseg_core.data.cityscapes import cityscapes
from vidseg_core.data.labelled import LabelledSet, folder_pair
from vidseg_core.errors import ConfigError

if TYPE_CHECKING:
    from vidseg_core.data.sequences import VideoSet

KINDS = ("camvid", "cityscapes", "folder", "street")
CACHE = Path.home() / ".cache" / "vidseg"
SYNTAX = """\
data sets, each as KIND:WHERE:
  camvid:DIR[:SPLIT]         SegNet's arrangement of CamVid: DIR/SPLIT, DIR/SPLITannot
  cityscapes:DIR[:SPLIT]     DIR/leftImg8bit_sequence/SPLIT, DIR/gtFine/SPLIT
  folder:DIR[:SPLIT]         your own: images in DIR/SPLIT, labels (PNG) in DIR/SPLITannot; needs --classes
  street:[KEY=VALUE,...]     the synthetic street
"""
TRAINING_SYNTAX = f"""\
{SYNTAX}
SPLIT is train unless said. Streets are rendered into --cache: street:frames=800,scenes=50,seed=1000,size=640x360;
run=5 makes clips of five frames that follow each other. --data may be given several times, and @SHARE behind it weighs
the sets against each other: camvid:DIR@4 and street:@1 draw four images of CamVid for each of the street. An epoch sees
the first set once. All sets must have the same classes.
"""


@dataclass(frozen=True)
class DataName:
    """A data set as a user names it.

    Attributes:
        kind: one of `KINDS`.
        where: its folder; of a street, what is to be rendered (`seed=3,frames=100`).
        split: which part of it; None for the usual one.
    """

    kind: str
    where: str
    split: str | None = None

    @classmethod
    def parse(cls, text: str) -> DataName:
        """Split `KIND:WHERE[:SPLIT]` at its colons; a folder may have some in its name, if it exists.

        Raises:
            ConfigError: `text` is something else.
        """
        kind, colon, where = text.partition(":")
        if kind not in KINDS or not colon or (not where and kind != "street"):
            raise ConfigError(f"data {text!r}: expected KIND:WHERE with a KIND of {', '.join(KINDS)}")
        root, colon, split = where.rpartition(":")
        if kind == "street" or not colon or Path(where).is_dir():
            return cls(kind, where)
        if not root or not split:
            raise ConfigError(f"data {text!r}: expected {kind}:DIR or {kind}:DIR:SPLIT")
        return cls(kind, root, split)

    @staticmethod
    def is_one(text: str) -> bool:
        """Tell a data set's name from that of a file, a folder or a street, which are sources of frames."""
        return text.partition(":")[0] in KINDS[:-1] and ":" in text and not Path(text).exists()

    def folders(self) -> tuple[Path, Path]:
        """Return the folder of the images and that of their labels, where the set has one of each; split `val` if none.

        Raises:
            ConfigError: it is of another kind.
        """
        if self.kind not in ("camvid", "folder"):
            raise ConfigError(f"data {str(self)!r}: expected camvid:DIR or folder:DIR, whose images lie in one folder")
        split = self.split or "val"
        return Path(self.where, split), Path(self.where, f"{split}annot")

    def __str__(self) -> str:
        return ":".join(filter(None, (f"{self.kind}:{self.where}", self.split)))


def split_share(text: str) -> tuple[str, float]:
    """Split `camvid:/data@4` into `camvid:/data` and 4.0; the share is 1 where none is written."""
    match = re.fullmatch(r"(.*)@([0-9.]+)", text)
    if not match:
        return text, 1.0
    try:
        return match[1], float(match[2])
    except ValueError as error:
        raise ConfigError(f"data {text!r}: expected a number after @, got {match[2]!r}") from error


def open_labelled(
    name: DataName,
    classes: ClassTable | None = None,
    *,
    split: str = "train",
    video: bool = False,
    cache: Path = CACHE,
    progress: Callable[[Iterable], Iterable] = iter,
) -> LabelledSet:
    """Open a labelled set.

    Args:
        name: of the set.
        classes: class table of a folder; other kinds have their own.
        split: taken where `name` has none.
        video: whether the images of a folder are frames of video; see `folder_pair`.
        cache: where rendered streets are kept.
        progress: wraps the rendering of street frames, for instance `tqdm`.

    Raises:
        ConfigError: a street's description is malformed, or the class table of a folder is missing.
        DatasetError: there is no such data set, or it is incomplete.
    """
    if name.kind == "street":
        # Its compiled kernels take a second to import, which `--help` need not wait for.
        from vidseg_core.data.street_set import StreetStills, street_stills

        return street_stills(StreetStills.parse(name.where), cache, progress)
    split = name.split or split
    if name.kind == "camvid":
        return camvid(name.where, split)
    if name.kind == "cityscapes":
        return cityscapes(name.where, split)
    if classes is None:
        raise ConfigError(f"data {str(name)!r}: expected a class table for a folder (--classes), none is given")
    return folder_pair(name.where, split, classes, video=video)


def open_video(
    name: DataName, classes: ClassTable | None = None, *, size: tuple[int, int] | None = None, frames_before: int = 0
) -> VideoSet:
    """Open labelled video: sequences of frames, some or all of them with ground truth.

    Args:
        name: of the set; its split is `val` where it has none. A street is rendered when frames are asked for.
        classes: class table of a folder.
        size: (H, W) to which frames (bilinearly) and labels (nearest) are resized; None leaves them.
        frames_before: how many consecutive frames the labelled frames need before them.

    Raises:
        ConfigError, DatasetError: as `open_labelled`; or frames are missing before a labelled one.
    """
    from vidseg_core.data.sequences import check_unbroken, labelled_video, street_video

    if name.kind == "street":
        _refuse_split(name)
        return street_video(name.where, size)
    dataset = open_labelled(name, classes, split="val", video=True)
    check_unbroken(dataset, frames_before)
    return labelled_video(dataset, size)


def open_frames(name: DataName, *, split: str = "val", size: tuple[int, int] | None = None) -> VideoSet:
    """Open video without its labels, which need not exist.

    Args:
        name: of the set; a folder without a split is that of the images itself.
        split: taken where `name` has none.
        size: as in `open_video`.

    Raises:
        ConfigError: a street's description is malformed.
        DatasetError: a folder is missing or empty.
    """
    from vidseg_core.data.sequences import cityscapes_video, folder_video, street_video

    if name.kind == "street":
        _refuse_split(name)
        return street_video(name.where, size)
    if name.kind == "cityscapes":
        return cityscapes_video(name.where, name.split or split, size)
    return folder_video(Path(name.where, name.split or ("." if name.kind == "folder" else split)), size)


def _refuse_split(name: DataName) -> None:
    if name.split is not None:
        raise ConfigError(f"data {str(name)!r}: the synthetic street has no split, got {name.split!r}")
