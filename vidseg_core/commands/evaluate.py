"""`vidseg evaluate`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

HELP = "score labels against ground truth, by the number of frames since the key frame"
EXAMPLES = """\
examples:
  vidseg evaluate --dataset camvid --data CamVid --split val
      the default network on key frames, DIS flow between them, 0 to 4 frames after the key frame
  vidseg evaluate --dataset camvid --data CamVid --split val --key-frames truth --flow none dis
      ground truth on key frames: what is lost is lost by propagation alone
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset", choices=("camvid", "cityscapes", "folder"), required=True, help="layout of the data set"
    )
    data.add_argument("--data", metavar="DIR", required=True, help="its folder")
    data.add_argument(
        "--split", default="val", metavar="NAME", help="for folders: NAME/ and NAMEannot/ (default: %(default)s)"
    )
    data.add_argument("--classes", metavar="TABLE", help="class table: a name in config/classes or a YAML file")
    data.add_argument("--size", type=parse_size, metavar="WxH", help="resize frames and labels to this size first")
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--interval", type=int, default=4, metavar="N", help="frames to propagate a key frame (default: %(default)s)"
    )
    engine.add_argument(
        "--key-frames",
        choices=("network", "truth"),
        default="network",
        help="what labels key frames (default: %(default)s)",
    )
    engine.add_argument("--flow", nargs="+", default=["dis"], metavar="FLOW",
                        help="dis, light, flownet_s, flownet2_s, none; several are compared")  # fmt: skip
    engine.add_argument("--flow-scale", type=float, metavar="S", help="size of DIS's image in units of the frame's")
    engine.add_argument("--dis-preset", default="ultrafast", help="ultrafast, fast or medium (default: %(default)s)")
    engine.add_argument("--grid-stride", type=int, default=4, help="4 or 8 (default: %(default)s)")
    engine.add_argument("--scale", type=float, metavar="S", help="the network's input in units of the frame's size")
    engine.add_argument("--weights", metavar="NAME|FILE", help="segmentation network")
    engine.add_argument("--refine-weights", metavar="NAME|FILE", help="guided refinement, perhaps with FlowLight")
    engine.add_argument("--flow-weights", metavar="NAME|FILE", help="flow network")
    engine.add_argument("--refine", action=argparse.BooleanOptionalAction, default=None,
                        help="repair propagated labels (default: if --refine-weights are given and fit)")  # fmt: skip
    engine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N (default: %(default)s)")
    engine.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads; 0 takes all (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures here, too")


def parse_size(text: str) -> tuple[int, int]:
    """`WxH` -> (H, W)."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, for instance 1024x768, got {text!r}")
    return int(height), int(width)


def main(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vidseg_core.classes import load_classes
    from vidseg_core.data.camvid import camvid
    from vidseg_core.data.cityscapes import cityscapes
    from vidseg_core.data.labelled import folder_pair
    from vidseg_core.engine.build import build_engine
    from vidseg_core.engine.config import DEFAULT_WEIGHTS, EngineConfig
    from vidseg_core.engine.segmenter import TruthSegmenter
    from vidseg_core.errors import ConfigError
    from vidseg_core.evaluation.evaluate import accumulated, by_distance

    if args.dataset == "folder":
        if args.classes is None:
            raise ConfigError("--dataset folder: expected a class table (--classes), none is given")
        dataset = folder_pair(args.data, args.split, load_classes(args.classes), video=True)
    else:
        dataset = {"camvid": camvid, "cityscapes": cityscapes}[args.dataset](args.data, args.split)
    refine = args.refine
    if refine is None:
        refine = args.refine_weights is not None and args.key_frames == "network"
    rows = []
    for flow in args.flow:
        config = EngineConfig(
            weights=args.weights or DEFAULT_WEIGHTS, refine_weights=args.refine_weights, flow_weights=args.flow_weights,
            classes=args.classes, interval=args.interval, input_scale=args.scale, grid_stride=args.grid_stride,
            flow=flow, flow_scale=args.flow_scale, dis_preset=args.dis_preset, refine=refine,
            device=args.device, num_threads=args.threads,
        )  # fmt: skip
        if args.key_frames == "truth":
            engine = build_engine(config, TruthSegmenter(len(dataset.classes)), dataset.classes)
        else:
            engine = build_engine(config)
        if engine.classes.names != dataset.classes.names:
            raise ConfigError(
                f"weights know the classes of {engine.classes.name!r}, "
                f"the data set has those of {dataset.classes.name!r}"
            )

        def progress(items, flow=flow):
            return tqdm(items, desc=f"flow {flow}", unit="clip", disable=not sys.stderr.isatty())

        matrices = by_distance(dataset, engine.stream(), args.interval, args.size, progress)
        miou = [100 * matrix.mean_iou() for matrix in matrices]
        row = {
            "flow": flow, "interval": args.interval, "refine": refine, "key_frames": args.key_frames,
            "avg_miou": 100 * accumulated(matrices).mean_iou(), "min_miou": miou[-1], "miou_by_distance": miou,
            "class_iou": dict(zip(dataset.classes.names, (100 * accumulated(matrices).iou()).tolist(), strict=True)),
        }  # fmt: skip
        rows.append(row)
    print_table(rows, args.interval)
    if args.json:
        unfinished = Path(f"{args.json}.part")
        unfinished.write_text(json.dumps({"engine": engine.describe(), "rows": rows}, indent=2), encoding="utf-8")
        os.replace(unfinished, args.json)
    return 0


def print_table(rows: list[dict], interval: int) -> None:
    print("mIoU in percent, by the number of frames since the key frame")
    print("flow        " + "".join(f"{k:>7}" for k in range(interval + 1)) + "    avg")
    for row in rows:
        print(f"{row['flow']:<12}" + "".join(f"{v:7.1f}" for v in row["miou_by_distance"]) + f"{row['avg_miou']:7.1f}")
