"""`vidseg fleet`: thousands of recordings on this machine or a Ray cluster, scored or labelled, and runs compared."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vidseg_core.errors import ConfigError

HELP = "score or label thousands of recordings on Ray, compare two runs"
EXAMPLES = """\
examples:
  vidseg fleet replay 'drives/*.mcap' --out scores
      score all of them on this machine; report.html, results.json and Parquet in scores/
  vidseg fleet replay drives/ more.txt s3://bucket/drives --out /shared/scores --ray auto
      on the cluster that this machine belongs to; all machines see /shared
  vidseg fleet replay drives/ --out scores --dry-run
      what would be done, and how long it would take
  vidseg fleet label drives/ --form png --to labels --out state
      label each frame; state/ has what is done so far, so that the same line goes on
  vidseg fleet compare scores_of_old_weights scores_of_new_weights
      which drives got worse

What is done is never done again: the same line after Ctrl-C, a crash or with more recordings does what is missing.
"""

REPORT, RESULTS = "report.html", "results.json"
IN_TURN = "none"
TRIAL_FRAMES = 100
SAMPLED_RESULTS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True, dest="action")
    about = "score recordings: every frame in turn, and where the per-frame network disagrees"
    replay = actions.add_parser("replay", help=about, description=about, epilog=EXAMPLES)
    _add_task(replay, "where results go; all machines must see it")
    group = replay.add_argument_group("scores")
    group.add_argument(
        "--labels", metavar="TOPIC|none", help="ground truth (default: labels_truth beside the images, if there is one)"
    )
    _add_size(group)
    group.add_argument(
        "--look-every",
        type=int,
        metavar="N",
        help="the per-frame network looks at every Nth frame; one that shares no factor with --interval + 1 meets all "
        "distances from the key frame (default: 11)",
    )
    about = "label recordings"
    label = actions.add_parser("label", help=about, description=about, epilog=EXAMPLES)
    _add_task(label, "what is done so far; all machines must see it")
    group = label.add_argument_group("labels")
    group.add_argument(
        "--form",
        choices=("recording", "png", "parquet"),
        default="recording",
        help="recording: MCAP with the images' stamps; png: STAMP.png for each; parquet: a row for each, Zstandard "
        "(default: recording)",
    )
    group.add_argument("--to", metavar="DIR", help="where they go (default: drive_labels beside drive)")
    about = "compare two runs of replay: which drives got worse"
    compare = actions.add_parser("compare", help=about, description=about, epilog=EXAMPLES)
    compare.add_argument("a", metavar="A", help=f"folder of a run, or its {RESULTS}")
    compare.add_argument("b", metavar="B", help="folder of another run over the same recordings")
    compare.add_argument("--json", metavar="FILE", help="write all of it here")
    compare.add_argument("--most", type=int, metavar="N", default=20, help="drives to list (default: 20)")


def _add_task(parser: argparse.ArgumentParser, out: str) -> None:
    from vidseg_core.cli.engine_options import add_engine_arguments

    parser.add_argument(
        "bags", metavar="BAG", nargs="+",
        help="recording, folder of recordings, pattern, .txt with a line for each, s3://bucket/key of these",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="DIR", help=out)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and how long it would take")
    group = parser.add_argument_group("machines")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help=f"cluster: auto, HOST:PORT, ray://...; {IN_TURN}: without Ray, one after the other (default: Ray on this "
        "machine)",
    )
    group.add_argument("--workers", type=int, metavar="N", help="at most so many (default: as many as fit)")
    group.add_argument("--cpus-per-worker", type=int, metavar="N", default=1, help="and its threads (default: 1)")
    group.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="X",
        help="0.25: four share one (default: 1 with --device cuda, else 0)",
    )
    group.add_argument(
        "--local-cpus", type=int, metavar="N", help="of Ray on this machine (default: what this process may use)"
    )
    group = parser.add_argument_group("recordings")
    group.add_argument("--topic", metavar="T", nargs="+", help="image topics (default: the only one of a camera)")
    group.add_argument("--skip-bad", action="store_true", help="leave out frames that cannot be read")
    group.add_argument(
        "--segment-frames", type=int, metavar="N", help="about how many frames are computed at once (default: 900)"
    )
    group.add_argument(
        "--lead-frames", type=int, metavar="N",
        help="how many before each of these give the stream its past (default: 8 key frames; 1 with --no-fusion)",
    )  # fmt: skip
    add_engine_arguments(parser, without=("key_frames", "confidence", "num_threads"))


def _add_size(group: argparse._ArgumentGroup) -> None:
    from vidseg_core.cli.data_options import parse_size

    group.add_argument("--size", type=parse_size, metavar="WxH", help="resize frames and labels to this size first")


def main(args: argparse.Namespace) -> int:
    """Run the command; return 0, 2 if something could not be done, 130 after Ctrl-C."""
    if args.action == "compare":
        return _compare(args)
    from vidseg_core.fleet.files import Files
    from vidseg_core.fleet.inputs import find
    from vidseg_core.fleet.labels import check_targets
    from vidseg_core.fleet.tables import parquet
    from vidseg_core.fleet.task import Task

    _check(args)
    choices, gpus = _choices(args)
    places = find(args.bags)
    labels_folder = None
    if args.action == "label":
        labels_folder = None if args.to is None else Path(args.to)
        check_targets((place.name for place in places), args.form, labels_folder)
    if args.action == "replay" or args.form == "parquet":
        parquet()
    files = Files.of(choices.config)
    task = Task.of(choices, files, Path(args.out).absolute(), labels_folder)
    if args.dry_run:
        return _dry_run(args, task, files, places)
    outcome = _run(args, task, files, places, gpus)
    return _conclude(task, files, outcome)


def _check(args: argparse.Namespace) -> None:
    for name in ("workers", "cpus_per_worker", "local_cpus"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')}: expected 1 or more, got {value}")
    if args.gpus_per_worker is not None and args.gpus_per_worker < 0:
        raise ConfigError(f"--gpus-per-worker: expected 0 or more, got {args.gpus_per_worker:g}")


def _choices(args: argparse.Namespace):
    """(what is computed, GPUs of each worker)."""
    from vidseg_core.cli.engine_options import engine_config
    from vidseg_core.fleet import plan

    config = engine_config(args, key_frames="sync")
    gpus = args.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if config.device.startswith("cuda") else 0.0
    if config.device.startswith("cuda") and not gpus:
        raise ConfigError("--device: expected cpu with --gpus-per-worker 0, got cuda")
    given = {"segment_frames": args.segment_frames, "lead_frames": args.lead_frames}
    if args.action == "replay":
        given |= {"labels": args.labels, "size": args.size, "look_every": args.look_every}
    else:
        given |= {"form": args.form}
    given = {name: value for name, value in given.items() if value is not None}
    topics = None if args.topic is None else tuple(dict.fromkeys(args.topic))
    config = plan.settled(config, gpus > 0)
    return plan.Choices(args.action, config, topics, skip_bad=args.skip_bad, **given), gpus


def _run(args: argparse.Namespace, task, files, places, gpus: float):
    """Run the task with a bar of progress."""
    from tqdm import tqdm

    from vidseg_core.fleet.pool import InTurn, RayPool, connect
    from vidseg_core.fleet.run import run
    from vidseg_core.fleet.worker import Worker

    ray = None if args.ray == IN_TURN else connect(args.ray, args.local_cpus)
    task.prepare()
    with tqdm(total=0, unit="frame", smoothing=0.05) as bar:
        if ray is None:
            workers = InTurn(Worker(task, files, args.cpus_per_worker))
        else:
            workers = RayPool(
                ray, task, files, cpus=args.cpus_per_worker, gpus=gpus, most=args.workers, on_change=bar.write
            )

        def progress(queue, workers) -> None:
            bar.total, bar.n, bar.initial = queue.frames_expected, queue.frames_done, queue.frames_found
            ended = sum(course.is_ended for course in queue.courses.values())
            retried = f", {len(queue.retried)} tried again" if queue.retried else ""
            bar.set_postfix_str(f"{ended}/{len(queue.courses)} recordings, {workers.count()} workers{retried}")

        try:
            return run(task, places, workers, progress)
        finally:
            workers.close()


def _conclude(task, files, outcome) -> int:
    """Write the report, say what was done, and return the exit status."""
    queue = outcome.queue
    computed, there = queue.frames_done - queue.frames_found, queue.frames_found
    told = f"{task.out}: {len(queue.courses)} recordings, {computed} frames computed, {there} were there"
    if outcome.frames_per_second is not None:
        told += f"; {outcome.frames_per_second:.1f} frames per second"
    if queue.retried:
        told += f"; {len(queue.retried)} jobs tried again"
    if outcome.interrupted:
        print(f"{told}; interrupted, the same command goes on")
        return 130
    if task.choices.kind == "replay":
        failed = _write_report(task, files, outcome)
    else:
        failed = _failures(queue)
    print(told)
    for one in failed:
        _complain(f"{one['place']}: {one['error']}")
    return 2 if failed else 0


def _failures(queue) -> list[dict]:
    return [{"place": name, "error": error} for name, course in queue.courses.items() for error in course.errors]


def _write_report(task, files, outcome) -> list[dict]:
    """Write tables, results and page; return what could not be replayed, or not as a whole."""
    from vidseg_core.classes import ClassTable
    from vidseg_core.cli.replay import provenance
    from vidseg_core.data.writers import write_json
    from vidseg_core.fleet.collect import collect
    from vidseg_core.fleet.report import html_report
    from vidseg_core.fleet.tables import Tables

    queue, rows, failed = outcome.queue, [], _failures(outcome.queue)
    with Tables(task.out) as tables:
        for course in queue.courses.values():
            for drive in course.drives:
                row = collect(drive, task.segments(drive), task.store, take=tables.add_frames)
                tables.add_recording(row)
                rows.append(row)
                failed += [{"place": drive.place, "error": error} for error in row.errors]
    classes = next((row.table for row in rows if row.table is not None), None)
    described = provenance(_Described(task, files))
    speed = outcome.frames_per_second
    run = {"frames computed": queue.frames_done - queue.frames_found, "frames that were there": queue.frames_found}
    run |= {"jobs tried again": len(queue.retried)} | ({} if speed is None else {"frames per second": speed})
    results = {
        "provenance": described,
        "recordings": [row.figures | {"errors": row.errors} for row in rows],
        "failed": failed,
        "run": run | {"retried": [{"place": place, "reason": reason} for place, reason in queue.retried]},
    }
    write_json(task.out / RESULTS, results)
    if classes is not None:
        page = html_report(rows, failed, described, task.store, ClassTable.from_dict(classes), run)
        part = task.out / f".{REPORT}.part"
        part.write_text(page, encoding="utf-8")
        part.replace(task.out / REPORT)
        print(task.out / REPORT)
    return failed


class _Described:
    """What computes the labels, for `provenance`, without building it."""

    def __init__(self, task, files):
        self._task, self._files = task, files

    def describe(self) -> dict:
        choices = self._task.choices
        weights = {option: list(content) for option, content in self._files.content.items()}
        about = {
            "segment_frames": choices.segment_frames,
            "lead_frames": choices.lead,
            "look_every": choices.look_every,
        }
        return {"config": choices.config.to_dict(), "files": weights, "digests": self._files.digests(), **about}


def _dry_run(args: argparse.Namespace, task, files, places) -> int:
    """Say what would be done, and what it would cost by what was measured."""
    from vidseg_core.errors import VidsegError
    from vidseg_core.fleet.worker import found, inspect

    drives, failed, remote = [], [], [place for place in places if place.is_remote]
    looked_bytes = 0
    for place in places:
        if place.is_remote:
            continue
        try:
            drives += inspect(place.name, found(place.name, Path(place.name)), task.choices)
            looked_bytes += place.num_bytes
        except (VidsegError, OSError) as error:
            failed.append(str(error))
    segments = [segment for drive in drives for segment in task.segments(drive)]
    missing = [segment for segment in segments if not task.is_done(segment)]
    frames, todo = sum(one.frames for one in segments), sum(one.frames for one in missing)
    lead = sum(one.first - one.begin for one in missing)
    print(
        f"{len(drives)} drives in {len(places) - len(remote)} recordings on this machine: {frames} frames, "
        f"{len(segments)} segments"
    )
    print(
        f"to be computed: {len(missing)} segments, {todo} frames, and {lead} before segments that give streams their "
        "past"
    )
    steps = todo + lead
    if remote:
        size = sum(place.num_bytes for place in remote)
        told = f"in object stores: {len(remote)} recordings, {size / 1e9:.2f} GB"
        if looked_bytes:
            others = round(frames * size / looked_bytes)
            steps += others
            told += f", about {others} frames if they are like those on this machine"
        print(told)
    measured = _seconds_per_frame(task, files, segments, missing, args.cpus_per_worker)
    if steps and measured is not None:
        seconds, how = measured
        workers = _workers(args)
        total_s = steps * seconds
        print(
            f"cost: {seconds * 1e3:.1f} ms for each frame ({how}), {_duration(total_s)} of one worker with "
            f"{args.cpus_per_worker} CPU; {_duration(total_s / workers)} with {workers} workers"
        )
    for error in failed:
        _complain(error)
    return 2 if failed else 0


def _seconds_per_frame(task, files, segments, missing, cpus: int) -> tuple[float, str] | None:
    """(seconds that a worker takes for a frame, how that is known); None where nothing can be measured."""
    import tempfile
    from dataclasses import replace

    from vidseg_core.fleet.worker import Worker

    done = [one for one in segments if task.store.has(one.address)][:SAMPLED_RESULTS]
    if done:
        seconds = sum(task.store.load(one.address)[0]["seconds"] for one in done)
        return seconds / sum(one.stop - one.begin for one in done), f"measured on {len(done)} segments that are there"
    if not missing:
        return None
    first = missing[0]
    short = replace(first, begin=first.first, stop=min(first.stop, first.first + TRIAL_FRAMES))
    with tempfile.TemporaryDirectory() as folder:
        trial = replace(task, out=Path(folder))
        trial.prepare()
        worker = Worker(trial, files, cpus)
        worker.compute(replace(short, stop=short.first + 2))  # what is compiled and loaded only once is not measured
        took = worker.compute(short)
    return took["seconds"] / took["frames"], f"measured here on {took['frames']} frames of {first.drive.place}"


def _workers(args: argparse.Namespace) -> int:
    from vidseg_core.threads import available_threads

    if args.ray == IN_TURN:
        return 1
    return args.workers or max(1, (args.local_cpus or available_threads()) // args.cpus_per_worker)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _compare(args: argparse.Namespace) -> int:
    """`vidseg fleet compare`."""
    from vidseg_core.data.writers import write_json
    from vidseg_core.fleet.compare import compare

    found = compare(_results(args.a), _results(args.b))
    print(comparison(found, args.most))
    if args.json:
        write_json(Path(args.json), found)
    return 0


def _results(name: str) -> dict:
    import json

    path = Path(name) / RESULTS if Path(name).is_dir() else Path(name)
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(results["recordings"], list)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise ConfigError(f"{name}: expected the folder of a run of `vidseg fleet replay`: {error}") from error
    return results


def comparison(found: dict, most: int) -> str:
    """Format a comparison for the terminal."""
    lines = [
        f"{len(found['drives'])} drives, by mIoU {found['worse']} worse, {found['better']} better, "
        f"{found['equal']} equal"
    ]
    words = {"miou": "mIoU", "pixel_accuracy": "pixels right", "disagreement": "disagreement",
             "temporal_consistency": "consistency"}  # fmt: skip
    rows = [("mIoU, all pixels together", found["pooled_miou"])]
    rows += [(f"{words[name]}, mean over drives", one) for name, one in found["differences"].items()]
    for name, one in rows:
        clear = "" if one["low"] <= 0 <= one["high"] else "  clear"
        lines.append(f"{name:<32} {one['mean']:+8.3f}  95 % {one['low']:+.3f} to {one['high']:+.3f}{clear}")
    lines.append(f"{'change':>8} {'A':>6} {'B':>6} {'frames':>8}  drive, worst first")
    for row in found["drives"][:most]:
        change = row["changes"]["miou"]
        cells = [f"{change:+8.2f}" if change is not None else "       -"]
        cells += ["     -" if row[side] is None else f"{row[side]:6.1f}" for side in ("a", "b")]
        lines.append(f"{' '.join(cells)} {row['frames']:8d}  {row['place']} {row['topic']}")
    for which, text in (("only_a", "only in A"), ("only_b", "only in B"), ("unlike", "other frames or reference")):
        if found[which]:
            lines.append(f"not compared, {text}: {', '.join(found[which][:most])}")
    return "\n".join(lines)


def _complain(message: str) -> None:
    print(f"vidseg: error: {' '.join(message.split())}", file=sys.stderr)
