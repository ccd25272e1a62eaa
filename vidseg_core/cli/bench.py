"""`vidseg bench`: what the engine gains over the plain pipeline, and video over a network on every frame."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidseg_core.cli.former import add_former, notice
from vidseg_core.engine.config import DEFAULT_WEIGHTS, RUNTIMES, EngineConfig
from vidseg_core.errors import ConfigError

# Streets that no network has been trained on.
STREET_SEEDS = range(4)
STREET_FRAMES = 45
STREET_RATE_HZ = 15.0
INTERVAL = 4

HELP = "time the engine against the plain PyTorch pipeline, or video against the same network on every frame"
EXAMPLES = """\
examples:
  vidseg bench
      2048 x 1024 and 480 x 360 frames of the synthetic street, a few minutes
  vidseg bench --case 480 --rounds 20 --json bench.json
  vidseg bench propagated --rounds 100
      the propagated frame stage by stage on all threads and on one: bytes, what they alone would take, milliseconds
  vidseg bench propagated --against ../vidseg-0.1.0 --rounds 10
      the same frames here and in another checkout, in processes that take turns: medians, shortest and their ratios
  vidseg bench propagated --counts
      calls, locks and memory of a propagated frame of 320 x 240, from a camera's message to what is published
  vidseg bench threads
      each kernel of a propagated frame on one thread, on all, and on as many as are worth it
  vidseg bench --device cuda --json card.json
      on a GPU: every kernel against the CPU and its floor, networks in each runtime, frames stage by stage
  vidseg bench --weights mine.onnx
      a network of others: video with 9 propagated frames against the same network on every frame in the same runtime
  vidseg bench video --weights NAME --size 640x480
      the same for any network and size
  vidseg bench camera --size 1280x720 --seconds 20
      a camera in real time: the governor against the best fixed configuration, alone and with a processor taken away;
      without --size four sizes, half an hour
  vidseg bench schedules --data camvid:CamVid --out schedules.png
      mIoU against the share of key frames, for fixed intervals and for key frames when the picture has changed

Without --case the last figures are those of asynchronous key frames, with 480 x 360 frames that arrive at 30 Hz.
Both pipelines run in turn, frame by frame, with the same weights (but for --plain-weights), threads and frames. Read
the ratios (plain / engine): milliseconds depend on what else the machine does. `spread` is the smallest and the largest
ratio.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", default="engine",
        choices=("engine", "propagated", "threads", "video", "schedules", "camera"),
        help="what to measure (default: engine; video for networks that are not vidseg's own)",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the figures here, too")
    parser.add_argument(
        "--interval", type=int, action=Given, default=INTERVAL, metavar="N",
        help="frames between two key frames (default: 4; video: 9)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=int, action=Given, default=5, metavar="N",
        help="measured loops per case, or streets (default: 5; camera: runs of each kind, 1)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=size_of_frames, metavar="WxH", help="video, camera: size of the frames (default: 1024x512; four)"
    )
    parser.add_argument("--seconds", type=float, metavar="S", default=30.0, help="camera: of each run (default: 30)")
    parser.add_argument(
        "--against", metavar="CHECKOUT", help="propagated: compare with another checkout of vidseg, in turn"
    )
    parser.add_argument("--counts", action="store_true", help="propagated: count calls, locks and memory instead")
    parser.add_argument("--case", action="append", metavar="TEXT", help="only cases whose name has TEXT (repeatable)")
    parser.add_argument(
        "--data", metavar="KIND:WHERE", help="schedules: a labelled video, for instance camvid:DIR (default: without)"
    )
    parser.add_argument("--camvid", metavar="DIR", help=argparse.SUPPRESS)
    out = parser.add_argument("--out", metavar="PNG", help="schedules: where to draw (default: schedules.png)")
    add_former(parser, "bench", out)
    parser.add_argument(
        "--device", default="cpu", metavar="cpu|cuda|cuda:N",
        help="cuda: check every kernel against the CPU, and time copies, kernels, networks and frames on the card, "
        "--rounds loops of these (default: cpu)",
    )  # fmt: skip
    parser.add_argument("--weights", metavar="NAME|PATH", help="segmentation network")
    parser.add_argument(
        "--plain-weights", metavar="NAME|PATH",
        help="segmentation network of the plain pipeline, to compare two networks (default: the same)",
    )  # fmt: skip
    parser.add_argument("--classes", metavar="NAME|PATH", help="class table, where the weights do not tell")
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto", help="of the engine (default: auto)")
    threads = parser.add_argument("--num-threads", type=int, default=0, metavar="N", help="on the CPU (default: all)")
    add_former(parser, "bench", threads)
    parser.set_defaults(given=())


def main(args: argparse.Namespace) -> int:
    for name in ("interval", "rounds"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name}: expected 1 or more, got {getattr(args, name)}")
    if args.device != "cpu":
        return card(args)
    if args.what == "schedules":
        return schedules(args)
    if args.what == "camera":
        return camera(args)
    from tqdm import tqdm

    from vidseg_core.data.writers import write_json
    from vidseg_core.evaluation.bench.against_plain import CASES, bench, table
    from vidseg_core.evaluation.bench.asynchronous import bench_async, describe

    if args.what == "video" or (args.plain_weights is None and is_of_others(args.weights)):
        return video(args)
    if args.what == "threads":
        return threads(args)
    if args.counts and args.what != "propagated":
        raise ConfigError("--counts: it belongs to bench propagated")
    if args.what == "propagated":
        return in_turn(args) if args.against else propagated(args)
    if args.against:
        raise ConfigError("--against: it belongs to bench propagated")
    if args.size:
        raise ConfigError("--size: it belongs to bench video; bench engine has --case")
    cases = chosen(CASES, args.case)
    config = config_of(args, device="cpu")

    def progress(items, name):
        return tqdm(items, desc=name, unit="loop", leave=False)

    report = bench(config, cases, args.interval, args.rounds, progress, args.plain_weights)
    print(table(report))
    if not args.case:
        report |= bench_async(
            config, progress=lambda items: progress(items, "asynchronous key frames"), rounds=args.rounds
        )
        print(describe(report))
    if args.json:
        write_json(Path(args.json), report)
    return 0


def card(args: argparse.Namespace) -> int:
    """Run `vidseg bench --device cuda`."""
    from vidseg_core.data.writers import write_json
    from vidseg_core.devices import open_device
    from vidseg_core.evaluation.bench.gpu import measure
    from vidseg_core.kernels.dispatch import provide

    if args.what != "engine":
        raise ConfigError(f"--device: expected cpu for bench {args.what}, got {args.device}")
    device = open_device(args.device)
    if device.type != "cuda" or not provide(device.type):
        raise ConfigError(f"--device {args.device}: expected a CUDA device, and Triton installed")
    report = measure(device, args.rounds)
    if args.json:
        write_json(Path(args.json), report)
    return 0 if report["good"] else 1


def propagated(args: argparse.Namespace) -> int:
    """Run `vidseg bench propagated`."""
    from tqdm import tqdm

    from vidseg_core.data.writers import write_json
    from vidseg_core.evaluation.bench import counts
    from vidseg_core.evaluation.bench.propagated import CASES, bench_propagated, table

    config = config_of(args, device="cpu")
    if args.counts:
        report = counts.bench_counts(config, chosen((*counts.CASES, *CASES), args.case) if args.case else counts.CASES)
        print(counts.table(report))
    else:
        cases = chosen(CASES, args.case)
        report = bench_propagated(config, cases, args.rounds, lambda jobs: tqdm(jobs, unit="case", leave=False))
        print(table(report))
    if args.json:
        write_json(Path(args.json), report)
    return 0


def threads(args: argparse.Namespace) -> int:
    """Run `vidseg bench threads`."""
    from tqdm import tqdm

    from vidseg_core.data.writers import write_json
    from vidseg_core.evaluation.bench.threads import CASES, bench_threads, table

    cases = chosen(CASES, args.case)
    report = bench_threads(args.num_threads, cases, args.rounds, lambda each: tqdm(each, unit="case", leave=False))
    print(table(report))
    if args.json:
        write_json(Path(args.json), report)
    return 0


def in_turn(args: argparse.Namespace) -> int:
    """Run `vidseg bench propagated --against`."""
    from tqdm import tqdm

    from vidseg_core.data.writers import write_json
    from vidseg_core.evaluation.bench.in_turn import PAIRINGS, bench_in_turn, table

    pairings = chosen(PAIRINGS, args.case)
    config = config_of(args, device="cpu")
    report = bench_in_turn(
        config, Path(args.against), pairings, args.rounds, lambda jobs: tqdm(jobs, unit="case", leave=False)
    )
    print(table(report))
    if args.json:
        write_json(Path(args.json), report)
    return 0


class Given(argparse.Action):
    """Store a value, and in `given` that there was one: one command's default is not another's."""

    def __call__(self, parser, namespace, values, option_string=None):
        vars(namespace)[self.dest] = values
        namespace.given = (*namespace.given, self.dest)


def size_of_frames(text: str) -> tuple[int, int]:
    """Parse `WxH` as (H, W)."""
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}")
    return int(height), int(width)


def config_of(args: argparse.Namespace, **more: Any) -> EngineConfig:
    """Return what the engine is to be built of, as the flags that all benchmarks share say."""
    return EngineConfig(
        weights=args.weights or DEFAULT_WEIGHTS, classes=args.classes, runtime=args.runtime,
        num_threads=args.num_threads, **more,
    )  # fmt: skip


def chosen(cases: Sequence[Any], texts: list[str] | None) -> list[Any]:
    """Return the cases whose `name` has one of the texts; all of them without texts.

    Raises:
        ConfigError: there is none.
    """
    found = [case for case in cases if not texts or any(text in case.name for text in texts)]
    if not found:
        raise ConfigError(f"--case {texts}: expected part of one of: {'; '.join(case.name for case in cases)}")
    return found


def is_of_others(weights: str | None) -> bool:
    """Return whether the network is none of vidseg's own architectures."""
    from vidseg_core.models.architectures import SEGMENTER, names_with
    from vidseg_core.models.open import open_model

    return weights is not None and open_model(weights, SEGMENTER).card.architecture not in names_with(SEGMENTER)


def video(args: argparse.Namespace) -> int:
    """`vidseg bench video`."""
    from tqdm import tqdm

    from vidseg_core.data.writers import write_json
    from vidseg_core.evaluation.bench import asynchronous, every_frame

    for name in ("case", "plain_weights"):
        if getattr(args, name):
            raise ConfigError(f"--{name.replace('_', '-')}: it belongs to bench engine, not to bench video")
    config = config_of(args)
    size = args.size or every_frame.SIZE
    interval = args.interval if "interval" in args.given else every_frame.INTERVAL

    def progress(items, name):
        return tqdm(items, desc=name, unit="street", leave=False)

    report = every_frame.bench_every_frame(config, interval, size, args.rounds, progress)
    print(every_frame.describe(report))
    report |= asynchronous.bench_async(
        EngineConfig(**config.to_dict() | {"interval": interval}), size=size, rounds=args.rounds,
        progress=lambda items: tqdm(items, desc="asynchronous key frames", unit="frame", leave=False),
    )  # fmt: skip
    print(asynchronous.describe(report, size))
    if args.json:
        write_json(Path(args.json), report)
    return 0


def camera(args: argparse.Namespace) -> int:
    """`vidseg bench camera`."""
    from vidseg_core.data.writers import write_json
    from vidseg_core.evaluation.bench.camera import CAMERAS, bench_camera, table

    if not args.seconds >= 3:
        raise ConfigError(f"--seconds: expected 3 or more, got {args.seconds:g}")
    config = config_of(args)
    rounds = args.rounds if "rounds" in args.given else 1
    # Of another size, as many frames per second as most cameras give.
    known = {(width, height): rate_hz for width, height, rate_hz in CAMERAS}
    sizes = list(known) if args.size is None else [(args.size[1], args.size[0])]
    reports = []
    for size in sizes:

        def tell(line: str) -> None:
            print(line, file=sys.stderr, flush=True)

        rate_hz = known.get(size, CAMERAS[0][2])
        reports.append(bench_camera(config, size, rate_hz, args.seconds, STREET_SEEDS[0], tell, rounds))
        print(table(reports[-1:]), flush=True)
    if args.json:
        write_json(Path(args.json), {"cameras": reports})
    return 0


def schedules(args: argparse.Namespace) -> int:
    """`vidseg bench schedules`."""
    from tqdm import tqdm

    from vidseg_core.classes import load_classes
    from vidseg_core.data.datasets import DataName, open_labelled
    from vidseg_core.data.writers import write_json
    from vidseg_core.engine.build import build_engine
    from vidseg_core.evaluation.distance.schedules import compare, draw, gains, labelled_clip, street_clips, table

    config = config_of(args)
    engine = build_engine(config)
    if engine.classes.names != load_classes("camvid").names:
        raise ConfigError(f"bench schedules: expected a network with CamVid's classes, got {engine.classes.name!r}'s")
    name = DataName.parse(args.data) if args.data else None
    if args.camvid:
        name = DataName("camvid", args.camvid)
        notice(args, "--camvid", f"--data {name}")
    groups = {}
    if name is not None:
        title = "CamVid" if name.kind == "camvid" else str(name)
        groups[title] = [labelled_clip(open_labelled(name, engine.classes, split="val", video=True))]
    groups["street"] = street_clips(STREET_SEEDS, STREET_FRAMES, (480, 360), STREET_RATE_HZ)
    rows = compare(groups, engine, lambda configs: tqdm(configs, unit="schedule", leave=False))
    print(table(rows))
    draw(rows, Path(args.out or "schedules.png"))
    if args.json:
        write_json(Path(args.json), {"engine": engine.describe(), "rows": rows, "gains": gains(rows)})
    return 0
