"""`vidseg evaluate`: how much accuracy is lost between key frames."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

HELP = "score labels against ground truth, by the number of frames since the key frame"
EXAMPLES = """\
examples:
  vidseg evaluate --dataset camvid --data CamVid --split val
      the default network on key frames, DIS flow between them, 0 to 4 frames after the key frame
  vidseg evaluate --dataset camvid --data CamVid --split val --key-frames truth --flow none dis
      ground truth on key frames: what is lost is lost by propagation alone

Every distance from the key frame is scored on the same frames: for each labelled frame t that has --interval frames
before it, key frames at t, t-1, ... are propagated to t.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from vidseg_core.commands.engine_options import add_engine_arguments

    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset", choices=("camvid", "cityscapes", "folder"), required=True, help="layout of the data set"
    )
    data.add_argument("--data", metavar="DIR", required=True, help="its folder")
    data.add_argument(
        "--split", default="val", metavar="NAME", help="camvid, folder: NAME/ and NAMEannot/ (default: val)"
    )
    data.add_argument("--size", type=parse_size, metavar="WxH", help="resize frames and labels to this size first")
    parser.add_argument(
        "--key-frames",
        choices=("network", "truth"),
        default="network",
        help="what labels key frames (default: network)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures here, too")
    add_engine_arguments(parser, several_flows=True)


def parse_size(text: str) -> tuple[int, int]:
    """`WxH` -> (H, W)."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, for instance 1024x768, got {text!r}")
    return int(height), int(width)


def main(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vidseg_core.commands.engine_options import engine_config
    from vidseg_core.data.writers import write_json
    from vidseg_core.engine.build import build_engine
    from vidseg_core.engine.segmenter import TruthSegmenter
    from vidseg_core.evaluation.evaluate import accumulated, by_distance, check_same_classes

    dataset = open_dataset(args)
    rows = []
    for flow in args.flow or ["dis"]:
        if args.key_frames == "truth":
            config = engine_config(args, flow=flow, refine=bool(args.refine))
            engine = build_engine(config, TruthSegmenter(len(dataset.classes)), dataset.classes)
        else:
            config = engine_config(args, flow=flow)
            engine = build_engine(config)
        check_same_classes(engine.classes, dataset)
        progress = partial(tqdm, desc=f"flow {flow}", unit="clip", leave=False)
        matrices = by_distance(dataset, engine.stream(), config.interval, args.size, progress)
        miou = [100 * matrix.mean_iou() for matrix in matrices]
        total = accumulated(matrices)
        rows.append(
            {
                "flow": flow,
                "interval": config.interval,
                "refine": config.refine,
                "key_frames": args.key_frames,
                "avg_miou": 100 * total.mean_iou(),
                "min_miou": miou[-1],
                "miou_by_distance": miou,
                "class_iou": class_iou(dataset.classes.names, total),
            }
        )
    print(table(rows))
    if args.json:
        write_json(Path(args.json), {"dataset": dataset.name, "engine": engine.describe(), "rows": rows})
    return 0


def open_dataset(args: argparse.Namespace):
    """The data set that `--dataset`, `--data`, `--split` and `--classes` name."""
    from vidseg_core.classes import load_classes
    from vidseg_core.data.camvid import camvid
    from vidseg_core.data.cityscapes import cityscapes
    from vidseg_core.data.labelled import folder_pair
    from vidseg_core.errors import ConfigError

    if args.dataset == "camvid":
        return camvid(args.data, args.split)
    if args.dataset == "cityscapes":
        return cityscapes(args.data, args.split)
    if args.classes is None:
        raise ConfigError("--dataset folder: expected a class table (--classes), none is given")
    return folder_pair(args.data, args.split, load_classes(args.classes), video=True)


def class_iou(names: tuple[str, ...], matrix) -> dict[str, float | None]:
    """IoU in percent by class name; None for a class that is nowhere."""
    return {name: None if iou != iou else 100 * iou for name, iou in zip(names, matrix.iou().tolist(), strict=True)}


def table(rows: list[dict]) -> str:
    """mIoU in percent, a line for each flow, a column for each distance."""
    distances = range(len(rows[0]["miou_by_distance"]))
    lines = [
        "mIoU in percent by frames since the key frame",
        "flow        " + "".join(f"{k:>7}" for k in distances) + "    avg",
    ]
    for row in rows:
        values = (*row["miou_by_distance"], row["avg_miou"])
        lines.append(f"{row['flow']:<12}" + "".join(f"{value:7.1f}" for value in values))
    return "\n".join(lines)
