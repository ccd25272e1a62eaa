"""`vidseg replay`: what the engine makes of recordings, every frame in turn and as it would have been live."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

from vidseg_core.errors import ConfigError, VidsegError

HELP = "evaluate on recordings: every frame in turn, and as it would have been live"
EXAMPLES = """\
examples:
  vidseg bag make CamVid/val --labels CamVid/valannot --rate 15 --out clip
  vidseg replay clip --out report
      report.html and report.json in report/; ground truth is /camera/labels_truth of the recording
  vidseg replay 'drives/*.mcap' --topic /front/image_raw --out report
      no ground truth: how far labels agree with those of the per-frame segmenter
  vidseg replay clip --timings key_ms=80,step_ms=10
      as live on a computer of that speed: the same figures every time
  vidseg replay clip --compare --json modes.json
      the segmenter on every frame against key frames, at the recording's rate and twice that
"""

REPORT, RESULTS = "report.html", "report.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from vidseg_core.cli.data_options import add_label_classes, parse_size
    from vidseg_core.cli.engine_options import add_engine_arguments

    parser.add_argument("bags", metavar="BAG", nargs="+", help="recording: folder, .mcap, .db3, .bag; or a pattern")
    parser.add_argument("--out", metavar="DIR", help=f"where {REPORT} and {RESULTS} go")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier report")
    parser.add_argument("--json", metavar="FILE", help=f"write what {RESULTS} has here, too")
    parser.add_argument("--bag-out", metavar="DIR", help="copies of the recordings with labels and overlay added")
    parser.add_argument(
        "--storage",
        action=_Chosen,
        choices=("sqlite3", "mcap"),
        default="sqlite3",
        help="of --bag-out (default: sqlite3; mcap for what SQLite cannot hold, as ROS 1 bags)",
    )
    group = parser.add_argument_group("recordings")
    group.add_argument("--topic", metavar="T", nargs="+", help="image topics (default: the only one of a camera)")
    group.add_argument(
        "--labels",
        metavar="TOPIC|DIR|none",
        help="ground truth: a topic of class ids (mono8); a folder of PNG files named by their stamps in nanoseconds "
        "(default: labels_truth beside the images, where there is one)",
    )
    add_label_classes(group)
    group.add_argument("--skip-bad", action="store_true", help="leave out frames that cannot be read")
    group.add_argument("--frames", type=int, metavar="N", help="the first N only")
    group.add_argument("--size", type=parse_size, metavar="WxH", help="resize frames and labels to this size first")
    parser.add_argument(
        "--key-delay",
        type=int,
        metavar="N",
        default=0,
        help="every frame in turn: have labels of key frames come N frames later (default: 0)",
    )
    group = parser.add_argument_group("as live")
    group.add_argument("--no-live", action="store_true", help="every frame in turn only")
    group.add_argument(
        "--timings", metavar="key_ms=A,step_ms=B", help="what the worker takes (default: what it takes here)"
    )
    group.add_argument("--realtime", action="store_true", help="play at real pace with real threads")
    group.add_argument(
        "--key-frames",
        choices=("sync", "async"),
        default="sync",
        help="whether the stream waits for key frames, or segments them beside itself (default: sync)",
    )
    group.add_argument("--compare", action="store_true", help="compare modes, at the recording's rate and twice that")
    add_engine_arguments(parser, without=("key_frames", "confidence"))


class _Chosen(argparse.Action):
    """Store a value, and that it was given: `storage_chosen`."""

    def __call__(self, parser, namespace, values, option_string=None):
        vars(namespace).update({self.dest: values, f"{self.dest}_chosen": True})


def main(args: argparse.Namespace) -> int:
    """Run the command; return 0, or 2 if something could not be replayed or ended early."""
    from vidseg_core.cli.engine_options import engine_config
    from vidseg_core.engine.build import build_engine
    from vidseg_core.evaluation.replay.live import WorkerTimes
    from vidseg_core.evaluation.replay.modes import config_of
    from vidseg_core.evaluation.replay.replay import ReplayChoices

    if args.frames is not None and args.frames < 1:
        raise ConfigError(f"--frames: expected 1 or more, got {args.frames}")
    if args.key_delay < 0:
        raise ConfigError(f"--key-delay: expected 0 or more, got {args.key_delay}")
    if args.bag_out and args.size:
        raise ConfigError("--bag-out: expected images of their own size, --size changes it")
    if args.realtime and args.timings:
        raise ConfigError("--realtime: expected no --timings, which only a simulated clock can obey")
    timings = WorkerTimes.parse(args.timings) if args.timings else None
    config = engine_config(args, key_frames=args.key_frames)
    choices = ReplayChoices(
        live=not (args.no_live or args.compare),
        timings=timings,
        realtime=args.realtime,
        engine_of=(lambda mode: build_engine(config_of(config, mode))) if args.compare else None,
        by_distance=not args.compare,
        key_delay=args.key_delay,
    )
    recordings = expand(args.bags)
    copies = copy_names(recordings)
    folder = prepare_output(args.out, args.overwrite) if args.out else None
    with build_engine(config) as engine:
        replays = RecordingReplays(args, engine, choices, copies)
        try:
            for recording in recordings:
                replays.replay(recording)
        finally:
            replays.write(folder)
    return 2 if replays.failed or any(one.error for one in replays.replays) else 0


def expand(patterns: list[str]) -> list[Path]:
    """List the paths that `patterns` name, in order, each recording once. A path that exists is no pattern.

    Raises:
        ConfigError: a pattern matches nothing. (What is no pattern is left to whoever opens it.)
    """
    import os
    from glob import glob, has_magic

    from vidseg_core.data.recordings.open import METADATA

    found: list[str] = []
    for pattern in patterns:
        is_pattern = has_magic(pattern) and not Path(pattern).exists()
        matches = sorted(glob(pattern, recursive=True)) if is_pattern else [pattern]
        if not matches:
            raise ConfigError(f"{pattern}: expected recordings, nothing has such a name")
        found += matches
    each: dict[str, Path] = {}
    for path in found:
        folder, name = os.path.split(path)
        # `drive`, `drive/` and `drive/metadata.yaml` are one.
        each.setdefault(os.path.realpath(folder if name == METADATA else path), Path(path))
    return list(each.values())


def copy_names(recordings: list[Path]) -> dict[Path, str]:
    """Name the copies of recordings: as the recordings are called, without the ending of a file.

    Those of one name in several folders get the folders' names in front; those in one folder keep their endings.
    """
    import os
    from collections import defaultdict

    from vidseg_core.data.recordings.open import name_of

    alike: dict[str, list[Path]] = defaultdict(list)
    for recording in recordings:
        alike[name_of(recording)].append(recording)
    names = {}
    for name, paths in alike.items():
        whole = [Path(os.path.abspath(path)) for path in paths]
        candidates = [
            ["_".join((*path.parts[max(len(path.parts) - 1 - depth, 1) : -1], ending)) for path, ending in named]
            for named in (list(zip(whole, [name] * len(paths), strict=True)), [(path, path.name) for path in whole])
            for depth in range(max(len(path.parts) for path in whole))
        ]
        # What nothing tells apart is refused when the second is about to be written.
        unique = next((found for found in candidates if len(set(found)) == len(paths)), candidates[0])
        names.update(zip(paths, unique, strict=True))
    return names


def prepare_output(path: str, overwrite: bool) -> Path:
    """Return the folder for the report; it is made if need be.

    Raises:
        ConfigError: it cannot be written, or holds a report and `overwrite` is not set.
    """
    from vidseg_core.data.writers import output_folder

    folder = output_folder(path)
    present = [name for name in (REPORT, RESULTS) if (folder / name).exists()]
    if present and not overwrite:
        raise ConfigError(f"{folder}: expected a folder without a report, it has {', '.join(present)} (--overwrite)")
    return folder


class RecordingReplays:
    """Replay all recordings of one call and collect what is found.

    Attributes:
        replays: what was found out.
        failed: recordings of which nothing was, and why.
    """

    def __init__(self, args: argparse.Namespace, engine, choices, copies: dict[Path, str]):
        self.replays = []
        self.failed: list[dict] = []
        self._args = args
        self._engine = engine
        self._choices = choices
        self._copies = copies

    def replay(self, recording: Path) -> None:
        """Replay each wanted topic of one recording; an error is noted and does not stop the others."""
        for topic in dict.fromkeys(self._args.topic or [None]):
            try:
                result = self._replay_topic(recording, topic)
            except VidsegError as error:
                self.failed.append({"recording": str(recording), "topic": topic, "error": str(error)})
                complain(str(error))
                continue
            self.replays.append(result)
            print(describe(result.summary()), flush=True)
            if result.error:
                complain(result.error)

    def write(self, folder: Path | None) -> None:
        """Write report and results of all that was replayed."""
        from vidseg_core.data.writers import write_json

        rows = [{"recording": one.recording, "topic": one.topic} | row for one in self.replays for row in one.rows]
        results = {
            "provenance": provenance(self._engine),
            "recordings": [one.summary() for one in self.replays],
            "failed": self.failed,
            "rows": rows,
        }
        for path in (folder and folder / RESULTS, self._args.json and Path(self._args.json)):
            if path:
                write_json(path, results)
        if rows:
            print(table(rows))
        if folder:
            from vidseg_core.evaluation.replay.report import html_report

            page = html_report(self.replays, self.failed, results["provenance"], self._engine.classes)
            (folder / REPORT).write_text(page, encoding="utf-8")
            print(folder / REPORT)

    def _replay_topic(self, recording: Path, topic: str | None):
        from tqdm import tqdm

        from vidseg_core.cli.data_options import label_table
        from vidseg_core.data.bag import BagSource, bag_labels
        from vidseg_core.data.open import find_bag
        from vidseg_core.errors import SourceError
        from vidseg_core.evaluation.replay.replay import Footage, replay

        args = self._args
        bag = find_bag(recording) if recording.exists() else None
        if bag is None:
            raise SourceError(f"{recording}: expected a recording: an .mcap, .db3 or .bag file, or the folder of one")
        topic = BagSource(bag, topic=topic, skip_bad=True).topic
        where = labels_of(bag, topic, args.labels)
        labels = None if where is None else bag_labels(bag, where, label_table(args, self._engine.classes))
        source = BagSource(bag, topic=topic, skip_bad=args.skip_bad, labels=labels)
        footage = Footage(source, args.size, args.frames)

        def progress(items, what):
            return tqdm(items, desc=f"{recording.name}: {what}", leave=False)

        task = partial(replay, self._engine, footage, str(recording), self._choices, progress=progress)
        if args.bag_out is None:
            return task()
        with self._extended(bag, recording, topic) as observe:
            return task(observe=observe)

    def _extended(self, bag: Path, recording: Path, topic: str):
        """Add labels and overlay to a copy of the recording, inside this context."""
        from contextlib import contextmanager

        from vidseg_core.data.bag_writer import BagExtender
        from vidseg_core.overlay import overlay

        namespace = topic.removesuffix("/compressed").rpartition("/")[0]
        labels, picture = f"{namespace}/labels", f"{namespace}/overlay"
        name = self._copies[recording] + ("" if self._args.topic is None else topic.replace("/", "_"))
        storage = self._args.storage if "storage_chosen" in self._args else None
        copy = BagExtender(bag, topic, [labels, picture], Path(self._args.bag_out) / name, storage)

        @contextmanager
        def adding():
            with copy:
                yield lambda frame, segmentation: copy.add(
                    int(frame.name),
                    {
                        labels: ("mono8", segmentation.labels),
                        picture: ("rgb8", overlay(frame.image, segmentation.labels, self._engine.classes.lut)),
                    },
                )

        return adding()


def labels_of(bag: Path, topic: str, wanted: str | None) -> str | None:
    """Find the ground truth of a topic's images; None for none."""
    from vidseg_core.data.bag import truth_topic

    return None if wanted == "none" else wanted or truth_topic(bag, topic)


def provenance(engine) -> dict:
    """Describe the origin of the figures, JSON-safe."""
    import platform
    from datetime import datetime, timezone
    from importlib.metadata import version

    from vidseg_core import __version__

    packages = ("numpy", "torch", "opencv-python-headless", "numba", "mcap", "zstandard")
    return {
        "command": shlex.join(["vidseg", *sys.argv[1:]]),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": __version__,
        "engine": engine.describe(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "machine": platform.machine(),
    }


def describe(summary: dict) -> str:
    """One recording in one line."""
    every, live = summary["offline"], summary["live"]
    name = "mIoU" if summary["reference"] == "ground truth" else "mIoU against the per-frame segmenter"
    parts = [f"{every['frames']} frames, {every['key_frames']} of them key frames; {name} {_percent(every['miou'])}"]
    if summary["reference"] == "ground truth" and every["absent_classes"]:
        parts.append(f"not in the truth: {', '.join(every['absent_classes'])}")
    if summary["avg_miou"] is not None:
        parts.append(f"avg {summary['avg_miou']:.1f}, min {summary['min_miou']:.1f}")
    if live:
        parts.append(
            f"live: {live['dropped']} dropped, {live['rate_hz']:.1f} Hz, latency {live['latency_ms']['p50']:.0f} ms, "
            f"streaming mIoU {_cell(live['streaming_miou'])}, deadline {_cell(live['deadline_miou'])}"
        )
    return f"{summary['recording']}: {summary['topic']}: {'; '.join(parts)}"


def table(rows: list[dict]) -> str:
    """Format the comparison of modes as a table."""
    lines = ["mode       rate Hz  streaming  deadline  latency ms  dropped  key ms  step ms"]
    for row in rows:
        streaming, deadline = _cell(row["streaming_miou"], 10), _cell(row["deadline_miou"], 9)
        lines.append(
            f"{row['mode']:<10} {row['rate_hz']:7.1f} {streaming} {deadline} "
            f"{row['latency_ms']:11.1f} {row['dropped']:8d} {row['key_ms']:7.1f} {row['step_ms']:8.1f}"
        )
    return "\n".join(lines)


def _percent(miou: float | None) -> str:
    """Word a mIoU; None, where the truth is void everywhere, is no number."""
    return "unknown, no labelled pixel" if miou is None else f"{miou:.1f} %"


def _cell(miou: float | None, width: int = 0) -> str:
    return "-".rjust(width) if miou is None else f"{miou:{width}.1f}"


def complain(message: str) -> None:
    print(f"vidseg: error: {' '.join(message.split())}", file=sys.stderr)
