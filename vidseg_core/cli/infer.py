"""`vidseg infer`: labels for video without ground truth, by one method or by many side by side."""

from __future__ import annotations

import argparse

HELP = "label frames that have no ground truth: predictions, strips, frame rates"
EXAMPLES = """\
examples:
  vidseg infer --dataset folder --data drive/frames --save-res --out results
      label ids in results/pred/labels/, colours in results/pred/color/
  vidseg infer --dataset cityscapes --data Cityscapes --split test --interval 2 --save-seq-res
      snippets of leftImg8bit_sequence/test; strips of a key frame and the two after it, in logs/pred_img_res/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from vidseg_core.cli.engine_options import add_engine_arguments
    from vidseg_core.cli.evaluate import add_data_arguments, add_result_arguments

    add_data_arguments(parser, ("folder", "camvid", "cityscapes", "street"))
    add_result_arguments(parser)
    add_engine_arguments(parser, several=True)


def main(args: argparse.Namespace) -> int:
    from vidseg_core import distributed

    with distributed.session(args.device or "auto"):
        return _infer(args)


def _infer(args: argparse.Namespace) -> int:
    from vidseg_core import distributed
    from vidseg_core.cli.engine_options import method_choices
    from vidseg_core.cli.evaluate import Folders, description, process_options, progress
    from vidseg_core.evaluation.distance import tables
    from vidseg_core.evaluation.distance.evaluate import frames_per_second, label
    from vidseg_core.evaluation.distance.methods import build_methods
    from vidseg_core.evaluation.metrics import consistency

    base, choices = method_choices(process_options(args))
    video = open_frames(args)
    folders = Folders(args)
    methods = build_methods(base, choices)
    results = label(video, methods, folders.observer(args, methods), progress("labelling"))
    if not distributed.is_writer():
        return 0
    rows = [
        tables.row(method, interval, score, frames_per_second(method, interval, video.sequences[0]), scored=False)
        for method, interval, score in progress("measuring frame rates")(results)
    ]
    frames = sum(map(len, video.sequences))
    result = description(args, methods) | {
        "title": f"{video.name}: {frames} frames in {len(video.sequences)} sequences",
        "dataset": video.name,
        "frames": frames,
        "definitions": {
            "temporal_consistency": consistency.DEFINITION,
            "fps": "frames per second of the whole loop: a key frame, i propagated frames, labels at full size",
        },
        "rows": rows,
    }
    folders.write(result)
    print(f"{result['title']}\n{tables.summary_table(rows)}")
    if args.save_res or args.save_seq_res:
        print(f"predictions: {folders.predictions}")
    return 0


def open_frames(args: argparse.Namespace):
    """Open the video that `--dataset`, `--data` and `--split` name, without its labels."""
    from pathlib import Path

    from vidseg_core.data.sequences import cityscapes_video, folder_video, street_video

    if args.dataset == "street":
        return street_video(args.data, args.size)
    if args.dataset == "cityscapes":
        return cityscapes_video(args.data, args.split or "val", args.size)
    split = args.split or ("val" if args.dataset == "camvid" else ".")
    return folder_video(Path(args.data) / split, args.size)
