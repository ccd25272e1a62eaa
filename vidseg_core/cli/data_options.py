"""The command line options that name a data set, `--data KIND:WHERE[:SPLIT]`, or say how labels are read."""

from __future__ import annotations

import argparse
from pathlib import Path

from vidseg_core.classes import ClassTable, for_label_files, load_classes
from vidseg_core.cli.former import notice
from vidseg_core.data.datasets import KINDS, DataName
from vidseg_core.errors import ClassTableError, ConfigError


def add_data_arguments(parser: argparse.ArgumentParser, kinds: tuple[str, ...] = KINDS) -> None:
    """Add `--data` and `--size`; `data_name` reads them.

    Args:
        parser: of a command.
        kinds: in the order in which 0.1.0 listed them.
    """
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="KIND:WHERE",
        required=True,
        help="camvid:DIR[:SPLIT], cityscapes:DIR[:SPLIT], folder:DIR[:SPLIT] (images in DIR/SPLIT/, labels in "
        "DIR/SPLITannot/) or street:seed=0,frames=100,... (SPLIT: val unless said)",
    )
    data.add_argument("--size", type=parse_size, metavar="WxH", help="resize frames (and labels) to this size first")
    data.add_argument("--dataset", choices=kinds, help=argparse.SUPPRESS)
    data.add_argument("--split", help=argparse.SUPPRESS)


def data_name(args: argparse.Namespace) -> DataName:
    """Read which data set is meant, also in the form of 0.1.0: `--dataset KIND --data DIR --split NAME`.

    Raises:
        ConfigError: it is neither.
    """
    former = [f"--{name}" for name in ("dataset", "split") if getattr(args, name) is not None]
    name = DataName.parse(args.data) if args.dataset is None else DataName(args.dataset, args.data)
    if args.split is not None:
        name = DataName(name.kind, name.where, args.split)
    if former:
        notice(args, " with ".join(former), f"--data {name}")
    return name


def add_label_classes(group) -> None:
    """Add `--label-classes`, of a command with `--labels`; `label_table` reads it."""
    group.add_argument(
        "--label-classes",
        metavar="NAME|PATH",
        help="class table by which the files in --labels are read, for instance cityscapes-trainids; it has the "
        "network's classes (default: the network's table)",
    )


def label_table(args: argparse.Namespace, classes: ClassTable, source: str = "") -> ClassTable:
    """Return the class table of label files: the network's `classes`, or `--label-classes`.

    Args:
        args: of the command.
        classes: of the network.
        source: of the frames, which has label files of its own if it is a data set.

    Raises:
        ClassTableError: the tables have other classes, or there is no such table.
        ConfigError: there are no such files.
    """
    if args.label_classes is None:
        return for_label_files(classes)
    if not DataName.is_one(source) and (args.labels is None or not Path(args.labels).is_dir()):
        raise ConfigError(f"--label-classes: expected --labels to name a folder of label files, got {args.labels}")
    table = load_classes(args.label_classes)
    if table.names != classes.names:
        raise ClassTableError(
            f"--label-classes: expected the network's classes ({', '.join(classes.names)}), "
            f"table {table.name!r} has {', '.join(table.names)}"
        )
    return table


def parse_size(text: str) -> tuple[int, int]:
    """Parse `WxH` to (H, W)."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, for instance 1024x768, got {text!r}")
    return int(height), int(width)
