"""The command line options that name a data set, `--data KIND:WHERE[:SPLIT]`, and what 0.1.0 had in their place."""

from __future__ import annotations

import argparse

from vidseg_core.cli.former import notice
from vidseg_core.data.datasets import KINDS, DataName


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


def parse_size(text: str) -> tuple[int, int]:
    """Parse `WxH` to (H, W)."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, for instance 1024x768, got {text!r}")
    return int(height), int(width)
