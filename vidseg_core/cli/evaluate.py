"""`vidseg evaluate`: how much accuracy is lost between key frames, of one method or of many side by side."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

HELP = "score labels against ground truth, by the number of frames since the key frame"
EXAMPLES = """\
examples:
  vidseg evaluate --data camvid:CamVid
      the default network on key frames, DIS flow between them, 0 to 4 frames after the key frame
  vidseg evaluate --data camvid:CamVid --interval 0 1 2 3 4 --flow dis none --out results
      a row for each interval and flow; all rows score the same frames
  vidseg evaluate --data cityscapes:Cityscapes --weights cityscapes-swiftnet-r18 \\
      --refine-weights cityscapes-swnet-seq --flow light --refine on off --interval 0 2 --input-scale 0.5 0.75 1
      with and without refinement, at three input sizes
  vidseg evaluate --data street:seed=3,frames=100
      the synthetic street
  vidseg evaluate --data camvid:CamVid --key-frames truth --flow none dis
      ground truth on key frames: what is lost is lost by propagation alone
  vidseg evaluate --data camvid:CamVid --key-delay 4
      what asynchronous key frames cost whose labels come 4 frames later
  vidseg evaluate --data street:seed=7,size=1280x720,frames=240 --ladder street:seed=8,size=1280x720,frames=240
      what the node's governor has to know of the weights: mIoU by the size of the network's input, by the age of labels
      (with `--update-weights NAME` both without and with that update network)
  torchrun --nproc-per-node 4 -m vidseg_core.cli evaluate ...
      four processes, each with its share of the frames

Scored are the labelled frames with as many frames before them as the largest interval, each at every distance from its
key frame. `avg mIoU` is that of one confusion matrix over all distances, `min mIoU` that of the last frame before the
next key frame, `consistency` the agreement with the labels that motion carries there from the frame before.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from vidseg_core.cli.data_options import add_data_arguments
    from vidseg_core.cli.engine_options import add_engine_arguments

    add_data_arguments(parser)
    parser.add_argument(
        "--key-frames", choices=("network", "truth"), default="network",
        help="what labels key frames (default: network)",
    )  # fmt: skip
    parser.add_argument(
        "--key-delay", type=int, metavar="N",
        help="have labels of key frames come N frames later, as with asynchronous key frames; 0 scores the same frames "
        "without (default: at once)",
    )  # fmt: skip
    parser.add_argument(
        "--ladder", nargs="*", metavar="KIND:WHERE",
        help="measure, on consecutive labelled frames of --data and of further drives, what the node's governor has to "
        "know, with --update-weights also what that network brings, and print it as it stands in a record of "
        "weights/registry.yaml",
    )  # fmt: skip
    parser.add_argument("--no-fps", action="store_true", help="do not measure frame rates")
    add_result_arguments(parser)
    parser.add_argument("--json", metavar="FILE", help="write results.json here, too; with --ladder what is printed")
    add_engine_arguments(parser, several=True, without=("key_frames", "confidence"))


def add_result_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    group.add_argument(
        "--out", metavar="DIR", help="where everything goes (default: logs/run/KIND/CHECKNAME/, predictions in "
        "logs/pred_img_res/KIND/CHECKNAME/RESFOLDERNAME/)",
    )  # fmt: skip
    group.add_argument("--checkname", metavar="NAME", help="of the run (default: the segmentation weights' name)")
    group.add_argument(
        "--res-folder-name", default="pred", metavar="NAME", help="folder of the predictions (default: %(default)s)"
    )
    group.add_argument("--save-res", action="store_true", help="write predicted labels, as ids and in colours")
    group.add_argument(
        "--save-seq-res", action="store_true", help="write strips: a key frame and the frames up to the next one"
    )


def main(args: argparse.Namespace) -> int:
    from vidseg_core import distributed

    with distributed.session(args.device or "auto"):
        return _evaluate(args)


def _ladder(args: argparse.Namespace) -> int:
    from vidseg_core.cli.data_options import data_name
    from vidseg_core.cli.engine_options import method_choices
    from vidseg_core.cli.ladder import as_yaml, read_drives
    from vidseg_core.data.writers import write_json
    from vidseg_core.engine.build import build_engine
    from vidseg_core.errors import ConfigError
    from vidseg_core.evaluation.ladder import measure

    base, choices = method_choices(args)
    compared = (choices.scales, choices.flows, choices.update_weights)
    if any(len(values) > 1 for values in compared):
        raise ConfigError("--ladder: expected one value each of --input-scale, --flow and --update-weights")
    if args.update_scale:
        raise ConfigError("--update-scale: expected none with --ladder, as a record does not tell it")
    specs = [str(data_name(args)), *args.ladder]
    drives, rate_hz = read_drives(specs)
    (scale,), (flow,), (update_weights,) = compared
    with build_engine(replace(base, input_scale=scale, flow=flow, update_weights=update_weights)) as engine:
        accuracy = measure(engine, drives, rate_hz, progress("ladder"))
    print(as_yaml(accuracy), end="")
    if args.json:
        about = {"drives": specs, "rate_hz": rate_hz, "accuracy": accuracy.to_dict()}
        write_json(Path(args.json), {"command": shlex.join(["vidseg", *sys.argv[1:]])} | about)
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from vidseg_core import distributed
    from vidseg_core.classes import load_classes
    from vidseg_core.cli.data_options import data_name
    from vidseg_core.cli.engine_options import method_choices
    from vidseg_core.data.datasets import open_video
    from vidseg_core.data.writers import write_json
    from vidseg_core.errors import ConfigError
    from vidseg_core.evaluation.distance import tables
    from vidseg_core.evaluation.distance.evaluate import (
        PROTOCOL_CLIPS,
        PROTOCOL_STREAMS,
        check_labels,
        check_same_classes,
        evaluate,
        frames_before,
        frames_per_second,
        key_frames_depend_on_past,
        scored_frames,
    )
    from vidseg_core.evaluation.distance.methods import build_methods
    from vidseg_core.evaluation.metrics import consistency

    if args.ladder is not None:
        return _ladder(args)
    truth = args.key_frames == "truth"
    if truth:  # what is lost shall be lost by propagation, unless something else is asked for
        args.refine, args.fusion = args.refine or ["off"], args.fusion or ["off"]
    base, choices = method_choices(process_options(args))
    if args.key_delay is not None and not 0 <= args.key_delay <= min(choices.intervals):
        raise ConfigError(f"--key-delay: expected 0 to {min(choices.intervals)} (--interval), got {args.key_delay}")
    needed = frames_before(max(choices.intervals), args.key_delay)
    name = data_name(args)
    classes = load_classes(args.classes) if args.classes and name.kind == "folder" else None
    video = open_video(name, classes, size=args.size, frames_before=needed)
    folders = Folders(args, name.kind, "truth" if truth else None)
    methods = build_methods(base, choices, video.classes if truth else None)
    check_same_classes(methods[0].engine.classes, video)
    scored = scored_frames(video, needed)
    if name.kind != "street":
        counts = check_labels(video, scored, truth, progress("reading labels"))
        name_absent([known for known, count in zip(video.classes.names, counts, strict=False) if not count])
    saving = args.save_res or args.save_seq_res
    observer = folders.observer(args, methods)
    results = evaluate(video, methods, observer, not saving, progress("evaluating"), args.key_delay)
    if not distributed.is_writer():
        return 0
    rows, absent = [], []
    for method, interval, score in progress("measuring frame rates")(results):
        timed = not (truth or args.no_fps)
        fps = frames_per_second(method, interval, video.sequences[scored[0][0]]) if timed else None
        rows.append(
            tables.row(method, interval, score, fps, key_delay=args.key_delay or 0)
            | {"key_frames": args.key_frames, "key_delay": args.key_delay}
        )
        absent = [video.classes.names[i] for i in score.total(interval).absent()]  # the truth is the same for all rows
    if name.kind == "street":  # the others were read before
        name_absent(absent)
    delayed = args.key_delay is not None
    protocols = {key_frames_depend_on_past(method.engine.config) or delayed for method in methods}
    labelled = sum(map(sum, (sequence.labelled for sequence in video.sequences)))
    result = description(args, methods) | {
        "title": f"{video.name}: {len(scored)} of {labelled} labelled frames scored",
        "dataset": video.name,
        "labelled_frames": labelled,
        "scored_frames": len(scored),
        "absent_classes": absent,
        "definitions": {
            "protocol": "; ".join([PROTOCOL_CLIPS] * (False in protocols) + [PROTOCOL_STREAMS] * (True in protocols)),
            "avg_miou": "mean IoU of one confusion matrix accumulated over the distances 0..i",
            "min_miou": "mean IoU of the last frame before the next key frame's labels: distance i without delay",
            "key_delay": "how many frames later the labels of key frames come",
            "temporal_consistency": consistency.DEFINITION,
            "fps": "frames per second of the whole loop: a key frame, i propagated frames, labels at full size",
        },
        "rows": rows,
    }
    result["protocol"] = result["definitions"]["protocol"]
    folders.write(result)
    if args.json:
        write_json(Path(args.json), result)
    print(f"{result['title']}; shares in percent\n{tables.summary_table(rows)}\n")
    print(tables.distance_table(rows))
    return 0


def name_absent(classes: list[str]) -> None:
    """Say which classes no scored frame has, whose figures therefore mean nothing."""
    from vidseg_core import distributed

    if classes and distributed.is_writer():
        print(
            f"vidseg: the scored frames have no pixel of {', '.join(classes)}; such a class counts 0 in mIoU where it "
            "is predicted, and is left out where it is not",
            file=sys.stderr,
        )


def process_options(args: argparse.Namespace) -> argparse.Namespace:
    """Set device and threads of this process: of several, each has its own card or its part of the processors."""
    from vidseg_core import distributed
    from vidseg_core.threads import available_threads

    if distributed.world_size() > 1:
        args.device = distributed.local_device(args.device or "auto")
        if args.num_threads is None:
            args.num_threads = max(1, available_threads() // distributed.processes_here())
    return args


def progress(what: str):
    """Make a progress bar for the process that writes; for other processes one that shows nothing."""
    from functools import partial

    from tqdm import tqdm

    from vidseg_core import distributed

    return partial(tqdm, desc=what, unit="frame", leave=False, disable=not distributed.is_writer())


def description(args: argparse.Namespace, methods: list) -> dict:
    """Describe the run, for the head of every results.json."""
    from vidseg_core import __version__, distributed

    return {
        "version": __version__,
        "command": shlex.join(["vidseg", *sys.argv[1:]]),
        "size": None if args.size is None else list(args.size),
        "processes": distributed.world_size(),
        "engine": methods[0].engine.describe(),
    }


class Folders:
    """Folders for results, made at once, so that what cannot be written is known before anything is computed.

    Args:
        args: of the command.
        kind: of the data set.
        checkname: if `--checkname` is not given; None takes the weights' name.
    """

    def __init__(self, args: argparse.Namespace, kind: str, checkname: str | None = None):
        from vidseg_core.data.writers import output_folder
        from vidseg_core.engine.config import DEFAULT_WEIGHTS

        checkname = args.checkname or checkname or Path(args.weights or DEFAULT_WEIGHTS).name.split(".")[0]
        if args.out:
            self.run, self.predictions = Path(args.out), Path(args.out) / args.res_folder_name
        else:
            self.run = Path("logs", "run", kind, checkname)
            self.predictions = Path("logs", "pred_img_res", kind, checkname, args.res_folder_name)
        output_folder(self.run)

    def observer(self, args: argparse.Namespace, methods: list):
        """Return what writes the predictions of each method and interval; None if the options ask for none."""
        from vidseg_core.evaluation.distance.predictions import Predictions
        from vidseg_core.evaluation.distance.tables import name

        if not (args.save_res or args.save_seq_res):
            return None
        pairs = [(method, i) for method in methods for i in method.intervals]
        traits = [method.traits for method in methods]
        writers = {}
        for method, i in pairs:
            folder = self.predictions
            if len(pairs) > 1:  # one folder is enough for one
                folder = folder / f"{name(method.traits, traits).replace(' ', '-')}-i{i}"
            classes = method.engine.classes
            writers[id(method), i] = Predictions(folder, classes, i, args.save_res, args.save_seq_res)

        def observe(clip, position, frame, passes):
            for each in passes:
                for i in each.intervals:
                    writers[id(each.method), i].add(clip, position, frame, each.labels)

        return observe

    def write(self, result: dict) -> None:
        """results.json, results.md, plots and TensorBoard's files."""
        from vidseg_core.data.writers import write_json
        from vidseg_core.evaluation.distance import tables

        write_json(self.run / "results.json", result)
        (self.run / "results.md").write_text(tables.markdown(result), encoding="utf-8")
        if "avg_miou" in result["rows"][0]:
            tables.plot(self.run, result["rows"])
        tables.log(self.run / "tensorboard", result["rows"])
