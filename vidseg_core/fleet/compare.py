"""Compare two runs over the same recordings: which drives got worse, and is it more than chance.

Drives are paired by what is in them, wherever they lie. Differences between single frames of a drive are no independent
evidence, so drives are what is drawn anew: intervals are percentiles of the mean over drives drawn with replacement
(Efron, Tibshirani: An Introduction to the Bootstrap, 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix

FIGURES = ("miou", "pixel_accuracy", "disagreement", "temporal_consistency")
DRAWS = 10_000
LEVEL = 95.0
_PIECE = 500


@dataclass(frozen=True)
class Difference:
    """Difference of a figure, B - A.

    Attributes:
        mean: over drives, or of all of them together.
        low, high: ends of the interval of `LEVEL` percent.
        drives: number of drives.
    """

    mean: float
    low: float
    high: float
    drives: int

    @property
    def is_clear(self) -> bool:
        """Tell if the interval does not hold 0."""
        return self.low > 0 or self.high < 0


def compare(a: dict, b: dict, seed: int = 0, draws: int = DRAWS) -> dict:
    """Compare what `results.json` has of two runs.

    Args:
        a, b: the runs.
        seed: of the draws.
        draws: number of them.

    Returns:
        JSON-safe: `drives` (a row for each drive that both have, the one that lost most mIoU first), `differences` (by
        figure, each with mean, low, high, drives), `pooled_miou` (of all pixels of all drives, by confusion matrices),
        `worse`, `better`, `equal` (numbers of drives by mIoU), `only_a`, `only_b`, `unlike` (places of drives that are
        not compared, the last because frames or reference differ).

    Raises:
        ConfigError: they have no drive in common, or networks of other classes.
    """
    of_a, of_b = (_by_content(run) for run in (a, b))
    both = [key for key in of_a if key in of_b]
    rows, unlike, matrices = [], [], []
    for key in both:
        one, other = of_a[key], of_b[key]
        if list(one["class_iou"]) != list(other["class_iou"]):
            raise ConfigError(f"{one['place']}: expected the same classes in both runs, got {list(other['class_iou'])}")
        if (one["frames"], one["reference"]) != (other["frames"], other["reference"]):
            unlike.append(one["place"])
            continue
        changes = {name: _minus(other[name], one[name]) for name in FIGURES}
        rows.append({"place": one["place"], "topic": one["topic"], "frames": one["frames"], "a": one["miou"],
                     "b": other["miou"], "changes": changes})  # fmt: skip
        matrices.append((one["confusion"], other["confusion"]))
    if not rows:
        raise ConfigError("expected recordings that both runs have, with as many frames; there are none")
    random = np.random.default_rng(seed)
    differences = {}
    for name in FIGURES:
        values = [row["changes"][name] for row in rows if row["changes"][name] is not None]
        if values:
            differences[name] = vars(mean_difference(values, random, draws))
    changes = [row["changes"]["miou"] for row in rows if row["changes"]["miou"] is not None]
    return {
        "drives": sorted(rows, key=lambda row: (row["changes"]["miou"] is None, row["changes"]["miou"])),
        "differences": differences,
        "pooled_miou": vars(pooled_difference(matrices, random, draws)),
        "worse": sum(change < 0 for change in changes),
        "better": sum(change > 0 for change in changes),
        "equal": sum(change == 0 for change in changes),
        "only_a": [of_a[key]["place"] for key in of_a if key not in of_b],
        "only_b": [of_b[key]["place"] for key in of_b if key not in of_a],
        "unlike": unlike,
    }


def mean_difference(values: Sequence[float], random: np.random.Generator, draws: int = DRAWS) -> Difference:
    """Return the mean of drives' differences and its interval."""
    known = np.asarray(values, float)
    means = []
    for piece in _pieces(draws):
        means.append(known[random.integers(len(known), size=(piece, len(known)))].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), _ends())
    return Difference(round(float(known.mean()), 4), round(float(low), 4), round(float(high), 4), len(known))


def pooled_difference(
    matrices: Sequence[tuple[list, list]], random: np.random.Generator, draws: int = DRAWS
) -> Difference:
    """Return the difference of the mIoU of all drives together, in percent, and its interval.

    Args:
        matrices: for each drive the counts of A and of B, see `ConfusionMatrix.all_counts`.
    """
    counts = np.array(matrices, dtype=np.float64)  # drives x 2 x n x (n + 1)
    found = []
    for piece in _pieces(draws):
        weights = random.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=piece)
        sums = np.tensordot(weights, counts, axes=1)  # piece x 2 x n x (n + 1)
        miou = _mean_iou(sums)
        found.append(miou[:, 1] - miou[:, 0])
    low, high = np.nanpercentile(np.concatenate(found), _ends())
    a, b = (ConfusionMatrix.from_counts(counts[:, i].sum(axis=0).astype(np.int64)).mean_iou() for i in (0, 1))
    return Difference(round(100 * (b - a), 4), round(float(low), 4), round(float(high), 4), len(counts))


def _mean_iou(counts: np.ndarray) -> np.ndarray:
    """mIoU in percent of ... x n x (n + 1) counts, as `ConfusionMatrix.mean_iou`."""
    square = counts[..., :-1]
    hits = np.diagonal(square, axis1=-2, axis2=-1)
    union = counts.sum(axis=-1) + square.sum(axis=-2) - hits
    iou = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)
    return 100 * np.nanmean(iou, axis=-1)


def _by_content(run: dict) -> dict[tuple[str, str], dict]:
    return {(one["content"], one["topic"]): one for one in run["recordings"] if one.get("frames")}


def _minus(b: float | None, a: float | None) -> float | None:
    return None if a is None or b is None else round(b - a, 4)


def _pieces(draws: int) -> list[int]:
    """Sizes of parts of the draws, so that memory is bounded."""
    return [min(_PIECE, draws - begin) for begin in range(0, draws, _PIECE)]


def _ends() -> tuple[float, float]:
    return (100 - LEVEL) / 2, (100 + LEVEL) / 2
