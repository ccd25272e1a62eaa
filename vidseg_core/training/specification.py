"""Data sets as they are written on the command line: `KIND:WHERE[@SHARE]`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from vidseg_core.classes import ClassTable
from vidseg_core.data.camvid import camvid
from vidseg_core.data.cityscapes import cityscapes
from vidseg_core.data.labelled import LabelledSet, folder_pair
from vidseg_core.errors import ConfigError

KINDS = ("camvid", "cityscapes", "folder", "street")
SYNTAX = """\
data sets, each as KIND:WHERE[@SHARE], repeatable:
  camvid:DIR[:SPLIT]         SegNet's arrangement of CamVid: DIR/train, DIR/trainannot; SPLIT train unless said
  cityscapes:DIR[:SPLIT]     DIR/leftImg8bit_sequence/SPLIT, DIR/gtFine/SPLIT
  folder:DIR:NAME            your own: images in DIR/NAME, labels (PNG, ids) in DIR/NAMEannot; needs --classes
  street:[KEY=VALUE,...]     the synthetic street, rendered into --cache: frames=800,scenes=50,seed=1000,size=640x360;
                             run=5 makes clips of five frames that follow each other
SHARE weighs the sets against each other: camvid:DIR@4 and street:@1 draw four images of CamVid for each of the street.
An epoch sees the first set once. All sets must have the same classes.
"""


def split_share(text: str) -> tuple[str, float]:
    """`camvid:/data@4` -> (`camvid:/data`, 4.0); the share is 1 where none is written."""
    match = re.fullmatch(r"(.*)@([0-9.]+)", text)
    if not match:
        return text, 1.0
    try:
        return match[1], float(match[2])
    except ValueError as error:
        raise ConfigError(f"dataset {text!r}: expected a number after @, got {match[2]!r}") from error


def open_dataset(
    text: str, classes: ClassTable | None, cache: Path, progress: Callable[[Iterable], Iterable] = iter
) -> LabelledSet:
    """The labelled set that `text` (without its share) describes.

    Args:
        classes: of a folder.
        cache: where rendered streets are kept.
        progress: wraps the rendering of street frames, for instance `tqdm`.

    Raises:
        ConfigError: `text` is malformed.
        DatasetError: there is no such data set, or it is incomplete.
    """
    kind, colon, where = text.partition(":")
    if kind not in KINDS or not colon or (not where and kind != "street"):
        raise ConfigError(f"dataset {text!r}: expected KIND:WHERE with a KIND of {', '.join(KINDS)}")
    if kind == "street":
        # Its compiled kernels take a second to import, which `--help` need not wait for.
        from vidseg_core.training.street_set import StreetStills, street_stills

        return street_stills(StreetStills.parse(where), cache, progress)
    root, colon, name = where.rpartition(":")
    if kind == "folder":
        if classes is None:
            raise ConfigError(f"dataset {text!r}: a folder's class table must be named by --classes")
        if not colon:
            raise ConfigError(f"dataset {text!r}: expected folder:DIR:NAME")
        return folder_pair(root, name, classes)
    if not colon:
        root, name = where, "train"
    return {"camvid": camvid, "cityscapes": cityscapes}[kind](root, name)
