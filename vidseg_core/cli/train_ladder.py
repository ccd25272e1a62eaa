"""After a training: measure what the node's governor has to know of the network, and store it in the weights."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

NONE = "none"
STREET_FRAMES = 240
BY_HAND = "`vidseg weights calibrate {weights} DST.safetensors --ladder DRIVE` measures it; without, the prior is used"


@dataclass(frozen=True)
class Drive:
    """Footage to measure a network on.

    Attributes:
        spec: of the source, see `open_source`.
        labelled: whether its labels are the truth; else the network's own ones are.
    """

    spec: str
    labelled: bool


def drive_for(args: argparse.Namespace) -> Drive | str:
    """Choose the footage: what `--ladder` names, else what the training's data allow; or say why there is none.

    Raises:
        VidsegError: `--ladder` names something that cannot be read.
    """
    from vidseg_core.data.datasets import DataName, split_share
    from vidseg_core.data.open import find_bag, open_source
    from vidseg_core.data.street_set import StreetStills

    if args.ladder == NONE:
        return f"not measured, as --ladder is {NONE}"
    if args.ladder is not None:
        open_source(args.ladder)  # now, not after hours of training
        return Drive(args.ladder, False)
    if args.teacher is not None:
        for spec in (*args.data, *args.sources):
            path = Path(spec)
            if spec.startswith("street:") or find_bag(path) is not None or path.is_file():
                return Drive(spec, False)
        return "not measured, as pictures do not tell their frame rate"
    streets = [name.where for text in args.data if (name := DataName.parse(split_share(text)[0])).kind == "street"]
    if not streets:
        return "not measured, as held-back pictures do not tell their frame rate"
    return Drive(_unseen_street([StreetStills.parse(where) for where in streets]), True)


def store_ladder(weights: Path, drive: Drive, device: str, threads: int | None) -> str:
    """Measure the network of a training and store it in its weights as `accuracy`, and how under `ladder`.

    Args:
        weights: one of our own files; replaced.
        drive: to measure on.
        device, threads: see `EngineConfig`; None takes all.

    Returns:
        A line for people.

    Raises:
        VidsegError: see `measure_own`.
    """
    from vidseg_core.cli.ladder import measure_by_labels, measure_own
    from vidseg_core.engine.config import EngineConfig
    from vidseg_core.models.files import read_file, save_weights

    config = EngineConfig(weights=str(weights), device=device, num_threads=threads or 0)
    accuracy, about = (measure_by_labels if drive.labelled else measure_own)(config, drive.spec)
    stored = read_file(weights)
    known = {"accuracy": accuracy.to_dict(), "ladder": {"drive": drive.spec} | about}
    save_weights(weights, stored.tensors, stored.metadata | known)
    points = ", ".join(f"{miou:g} at {rows:g} rows" for rows, miou in accuracy.rows)
    truth = "its labels" if drive.labelled else "the network's own labels"
    return f"expected accuracy for the node's governor, on {drive.spec} by {truth}: mIoU {points}"


def _unseen_street(trained: list) -> str:
    """Name a street of the size of the first set whose seed is in none of them."""
    from vidseg_core.street import TRAIN_SEEDS

    seen = {seed for stills in trained for seed in range(stills.seed, stills.seed + stills.scenes)}
    seed = next((seed for seed in reversed(TRAIN_SEEDS) if seed not in seen), TRAIN_SEEDS.start - 1)
    width, height = trained[0].size
    return f"street:seed={seed},size={width}x{height},frames={STREET_FRAMES}"
