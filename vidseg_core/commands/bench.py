"""`vidseg bench`: what the engine gains over the plain pipeline."""

from __future__ import annotations

import argparse
from pathlib import Path

from vidseg_core.engine.config import RUNTIMES

HELP = "time the engine against the plain PyTorch pipeline, stage by stage"
EXAMPLES = """\
examples:
  vidseg bench
      2048 x 1024 and 480 x 360 frames of the synthetic street, a few minutes
  vidseg bench --case 480 --rounds 20 --json bench.json

Both pipelines run in turn, frame by frame, with the same weights, threads and frames. Read the ratios (plain / engine):
milliseconds depend on what else the machine does. `spread` is the smallest and the largest ratio.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write the figures here, too")
    parser.add_argument(
        "--interval", type=int, default=4, metavar="N", help="frames between two key frames (default: 4)"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measured loops per case (default: 5)")
    parser.add_argument("--case", action="append", metavar="TEXT", help="only cases whose name has TEXT (repeatable)")
    parser.add_argument("--weights", metavar="NAME|PATH", help="segmentation network")
    parser.add_argument("--classes", metavar="NAME|PATH", help="class table, where the weights do not tell")
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto", help="of the engine (default: auto)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="on the CPU (default: all)")


def main(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vidseg_core.data.writers import write_json
    from vidseg_core.engine.config import DEFAULT_WEIGHTS, EngineConfig
    from vidseg_core.errors import ConfigError
    from vidseg_core.evaluation.bench import CASES, bench, table

    for name in ("interval", "rounds"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name}: expected 1 or more, got {getattr(args, name)}")
    cases = [case for case in CASES if not args.case or any(text in case.name for text in args.case)]
    if not cases:
        raise ConfigError(f"--case {args.case}: expected part of one of: {'; '.join(case.name for case in CASES)}")
    config = EngineConfig(
        weights=args.weights or DEFAULT_WEIGHTS, classes=args.classes, device="cpu", runtime=args.runtime,
        num_threads=args.threads,
    )  # fmt: skip

    def progress(items, name):
        return tqdm(items, desc=name, unit="loop", leave=False)

    report = bench(config, cases, args.interval, args.rounds, progress)
    print(table(report))
    if args.json:
        write_json(Path(args.json), report)
    return 0
