"""`vidseg infer`: labels for video without ground truth, by one method or by many side by side."""

from __future__ import annotations

import argparse

HELP = "label frames that have no ground truth: predictions, strips, frame rates"
EXAMPLES = """\
examples:
  vidseg infer --data folder:drive/frames --save-res --out results
      label ids in results/pred/labels/, colours in results/pred/color/
  vidseg infer --data cityscapes:Cityscapes:test --interval 2 --save-seq-res
      snippets of leftImg8bit_sequence/test; strips of a key frame and the two after it, in logs/pred_img_res/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from vidseg_core.cli.data_options import add_data_arguments
    from vidseg_core.cli.engine_options import add_engine_arguments
    from vidseg_core.cli.evaluate import add_result_arguments

    add_data_arguments(parser, ("folder", "camvid", "cityscapes", "street"))
    add_result_arguments(parser)
    add_engine_arguments(parser, several=True, without=("confidence",))


def main(args: argparse.Namespace) -> int:
    from vidseg_core import distributed

    with distributed.session(args.device or "auto"):
        return _infer(args)


def _infer(args: argparse.Namespace) -> int:
    from vidseg_core import distributed
    from vidseg_core.cli.data_options import data_name
    from vidseg_core.cli.engine_options import method_choices
    from vidseg_core.cli.evaluate import Folders, description, process_options, progress
    from vidseg_core.data.datasets import open_frames
    from vidseg_core.evaluation.distance import tables
    from vidseg_core.evaluation.distance.evaluate import frames_per_second, label
    from vidseg_core.evaluation.distance.methods import build_methods
    from vidseg_core.evaluation.metrics import consistency

    base, choices = method_choices(process_options(args))
    name = data_name(args)
    video = open_frames(name, size=args.size)
    folders = Folders(args, name.kind)
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
