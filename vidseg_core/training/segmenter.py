"""Training of the segmentation network."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidseg_core import distributed
from vidseg_core.backends.backend import Ranges
from vidseg_core.backends.integers import measured
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.evaluation.metrics.images import evaluate_images
from vidseg_core.models.architectures import SWIFTNETS
from vidseg_core.models.checkpoint import initialise
from vidseg_core.networks.normalisation import normalise
from vidseg_core.networks.swiftnet import DECODER_WIDTH, ENCODERS, SwiftNet
from vidseg_core.training.augment import Augmentation
from vidseg_core.training.depthwise import hasten_gradients
from vidseg_core.training.loader import load_batches
from vidseg_core.training.losses import CLASS_WEIGHTINGS, SegmentationLoss, class_weights
from vidseg_core.training.mix import Mix, Part
from vidseg_core.training.run import Run, begin, budget_s, device_name, say
from vidseg_core.training.schedule import SCHEDULES, rate_factor


@dataclass(frozen=True)
class SegmenterTraining:
    """Everything that decides what a training computes; two trainings with equal values and data give equal networks.

    Attributes:
        encoder: of SwiftNet, one of `networks.swiftnet.ENCODERS`.
        width: channels of its decoder.
        epochs: how often the first data set is seen.
        batch: images per step.
        rate: largest learning rate (AdamW).
        encoder_rate: factor on it for the encoder; less than 1 for one that is trained already.
        weight_decay: of AdamW.
        warmup: epochs in which the rate rises from 0.
        schedule: how it falls afterwards, "cosine" or "poly" (power 0.9), to 1 % of the largest.
        weighting: class weights of the cross-entropy, see `losses.class_weights`.
        loss_stride: of the grid for cross-entropy: 1, 2 or 4.
        lovasz: factor of the Lovasz-softmax loss; 0 leaves it out.
        hard_pixels: cross-entropy of hard pixels only (OHEM), without class weights.
        average: decay of the moving average of the weights; the average is what is evaluated and written.
        hold_back: share of each data set kept from training, to choose the best epoch by.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        input_scale: factor on an image's size at which the network will be used, and is evaluated; above 1 it is
            evaluated at 1, too, and the weights tell whether enlarging helps.
        seed: of everything random.
        bfloat16: compute in bfloat16 where that is safe.
        augmentation: of the training images.
    """

    encoder: str = "r18"
    width: int = DECODER_WIDTH
    epochs: int = 60
    batch: int = 8
    rate: float = 8e-4
    encoder_rate: float = 1.0
    weight_decay: float = 0.05
    warmup: float = 1.0
    schedule: str = "cosine"
    weighting: str = "sqrt"
    loss_stride: int = 2
    lovasz: float = 0.0
    hard_pixels: bool = False
    average: float = 0.998
    hold_back: float = 0.08
    evaluate_every: int = 1
    input_scale: float = 1.0
    seed: int = 0
    bfloat16: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self):
        def expect(name, valid, what):
            if not valid(getattr(self, name)):
                raise ConfigError(f"{name}: expected {what}, got {getattr(self, name)!r}")

        expect("encoder", lambda v: v in ENCODERS, f"one of {', '.join(ENCODERS)}")
        expect("width", lambda v: 8 <= v <= 1024, "8..1024 channels")
        expect("encoder_rate", lambda v: 0 < v <= 1, "a factor above 0, at most 1")
        for name in ("epochs", "evaluate_every"):
            expect(name, lambda v: v >= 1, "at least 1")
        expect("batch", lambda v: v >= 2, "at least 2, which batch normalisation needs")
        expect("rate", lambda v: 0 < v < math.inf, "a number greater than 0")
        expect("weight_decay", lambda v: 0 <= v < math.inf, "at least 0")
        expect("warmup", lambda v: 0 <= v <= self.epochs, f"0..{self.epochs} epochs")
        expect("schedule", lambda v: v in SCHEDULES, f"one of {SCHEDULES}")
        expect("weighting", lambda v: v in CLASS_WEIGHTINGS, f"one of {CLASS_WEIGHTINGS}")
        expect("loss_stride", lambda v: v in (1, 2, 4), "1, 2 or 4")
        expect("lovasz", lambda v: 0 <= v < math.inf, "at least 0")
        expect("average", lambda v: 0 <= v < 1, "0 <= average < 1")
        expect("hold_back", lambda v: 0 <= v <= 0.5, "0..0.5")
        expect("input_scale", lambda v: 0.1 <= v <= 4, "0.1..4")
        expect("seed", lambda v: v >= 0, "at least 0")

    def rate_at(self, progress: float) -> float:
        """Return the learning rate after `progress` epochs, a fraction included."""
        return self.rate * rate_factor(progress, self.warmup, self.epochs, self.schedule)


def train_segmenter(
    mix: Mix,
    config: SegmenterTraining,
    output: Path,
    *,
    device: torch.device | str = "cpu",
    workers: int = 1,
    init: Path | None = None,
    resume: bool = False,
    time_budget_min: float | None = None,
    compiled: bool = False,
    command: str = "",
    report: Callable[[str], None] = print,
    make: Callable[..., SegmenterRun] | None = None,
) -> Path:
    """Train SwiftNet; with several processes (see `distributed.py`) each computes its part of every batch.

    `output` receives `last.safetensors` after each epoch (everything a resumed training needs), `weights.safetensors`
    (the best epoch's averaged weights so far), `history.json`, `history.png` and TensorBoard's files.

    Args:
        workers: threads that prepare images.
        init: weights to start from, see `checkpoint.initialise`.
        resume: go on from `output/last.safetensors`, which must come from the same configuration but for the epochs.
            The data may differ; the record in the weights then says from which epoch on.
        time_budget_min: minutes after which no further epoch is begun; the schedule does not follow it.
        compiled: run the network through `torch.compile`.
        command: what was typed, for the record in the weights.
        report: takes one line of text about classes without a labelled pixel, and one about each evaluated epoch.
        make: makes the training of the arguments of `SegmenterRun`; None for that itself.

    Returns:
        Path of the weights.

    Raises:
        VidsegError: the data, the configuration or a file is not what it must be, or the loss is no longer finite.
        KeyboardInterrupt: the user stopped it; `last.safetensors` holds the last finished epoch.
    """
    frequency = begin(mix, config, output, resume, report)
    weights = class_weights(frequency, config.weighting)
    run = (make or SegmenterRun)(mix, config, output, torch.device(device), weights, compiled)
    notices: tuple[str, ...] = ()
    if resume:
        run.restore()
    elif init is not None:
        notices = initialise(init, run.net, mix.classes)
        run.begin_from_here()
    if run.sources and run.sources[-1]["data"] != run.data():
        say(report, f"from epoch {run.epoch + 1} on with other data than before")
    run.sources.append({
        "from_epoch": run.epoch + 1, "epochs": config.epochs, "command": command,
        "init": init.name if init and not resume else None, "notices": notices, "data": run.data(),
        "processes": distributed.world_size(),
    })  # fmt: skip
    return run.loop(workers, budget_s(time_budget_min), report)


class SegmenterRun(Run):
    """One training of SwiftNet; see `Run`."""

    samples = "images"
    changeable = ("epochs", "evaluate_every")

    def __init__(
        self, mix: Mix, config: SegmenterTraining, output: Path, device: torch.device, weights: Tensor, compiled: bool
    ):
        torch.manual_seed(config.seed)
        self.architecture = SWIFTNETS[config.encoder]
        net = SwiftNet(len(mix.classes), config.encoder, config.width)
        net = net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(_groups(net, config), lr=config.rate, fused=True)
        super().__init__(mix, config, output, device, net, optimizer)
        if device.type == "cpu" and not compiled:
            hasten_gradients(net)
        self.forward = torch.compile(net) if compiled else net
        self.evaluate_every = config.evaluate_every
        self.loss = SegmentationLoss(weights.to(device), config.loss_stride, config.lovasz, config.hard_pixels)
        self.ranges: Ranges = {}  # what the convolutions of the average met when it was last evaluated
        self.kept = {"sources": []}

    @property
    def sources(self) -> list[dict]:
        """Return what each start, the first and those that resumed, was given."""
        return self.kept["sources"]

    @property
    def architectures(self) -> tuple[str, ...]:
        others = [one.name for one in SWIFTNETS.values() if one is not self.architecture]
        return (self.architecture.name, *others)

    def batches(self, draws: list[list[tuple[int, int]]], workers: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Load images and labels; see `load_batches`."""
        return load_batches(self.mix, draws, self.config.augmentation, self.config.seed, self.epoch, workers)

    def loss_of(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the loss of images and labels."""
        images, labels = (x.to(self.device, non_blocking=True) for x in batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            seen = self.architecture.input
            logits = self.forward(normalise(images.float(), seen.mean, seen.std))
        return self.loss(logits.float(), labels)

    def evaluate(self, entry: dict, workers: int) -> None:
        """Add the held-back images' mIoU to `entry`: of each data set, and the mean over the sets by their shares."""
        sets, score, shares = {}, 0.0, 0.0
        with measured(self.average.net) as self.ranges:
            for number, part in enumerate(self.mix.parts):
                if not len(part.held_back):
                    continue
                matrix = self._confusion(part, self.config.input_scale)
                sets[f"{number}:{part.held_back.name}"] = _figures(matrix, self.mix.classes.names)
                score += part.share * matrix.mean_iou()
                shares += part.share
        if shares:
            entry |= {"miou": score / shares, "held_back": sets}
        if shares and self.config.input_scale > 1:
            parts = [part for part in self.mix.parts if len(part.held_back)]
            entry["miou_not_enlarged"] = sum(one.share * self._confusion(one, 1.0).mean_iou() for one in parts) / shares

    def _confusion(self, part: Part, input_scale: float) -> ConfusionMatrix:
        return evaluate_images(
            self.average.net, part.held_back, input_scale, self.device, self.config.bfloat16, self.architecture.input
        )

    def weights(self, entry: dict) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Make the average's weights, convolutions in half precision, and the record of the training."""
        # Convolutions in half precision are as good; batch-normalisation statistics may lie outside its range.
        tensors = {
            key: value.half() if value.ndim == 4 and not key.startswith("backbone.img_") else value
            for key, value in self.average.net.state_dict().items()
        }
        helps = entry.get("miou", 0.0) > entry.get("miou_not_enlarged", math.inf)
        training = {
            "sources": self.sources,
            "config": asdict(self.config),
            "seed": self.config.seed,
            "device": device_name(self.device),
            "epochs": entry["epoch"],
            "seconds": round(sum(e["seconds"] for e in self.history)),
            "held_back_miou": entry.get("miou"),
            "held_back_miou_not_enlarged": entry.get("miou_not_enlarged"),
            "held_back": entry.get("held_back"),
            "torch": torch.__version__,
        }
        metadata = {
            "architecture": self.architecture.name,
            "normalisation": self.architecture.input.normalisation(),
            "classes": self.mix.classes.to_dict(),
            "input_scale": self.config.input_scale,
            "input_rows": round(self.config.input_scale * self.mix.picture_size()[0]),
            "enlarge": self.config.input_scale if helps else 1.0,
            "training": training,
        }
        if notices := [notice for source in self.sources for notice in source.get("notices", ())]:
            metadata["notices"] = notices
        if self.ranges:
            metadata["activation_ranges"] = self.ranges
        return tensors, metadata

    def line(self, entry: dict) -> str:
        sets = "  ".join(f"{name} {100 * figures['miou']:.1f}" for name, figures in entry.get("held_back", {}).items())
        sets = sets or "nothing held back"
        speed = f"{entry['images_per_second']:.2f} images/s"
        return f"epoch {entry['epoch']}: loss {entry['loss']:.4f}  {speed}  held-back mIoU: {sets}"

    def scalars(self, entry: dict) -> dict[str, float]:
        """Add each class's IoU in each held-back set."""
        classes = {
            f"{name}/{key}": iou
            for name, figures in entry.get("held_back", {}).items()
            for key, iou in figures["iou"].items()
            if iou is not None
        }
        return super().scalars(entry) | classes


def _groups(net: SwiftNet, config: SegmenterTraining) -> list[dict]:
    """Group the parameters: encoder and decoder with rates of their own, biases and batch normalisation not decayed."""
    encoder = set(net.backbone.encoder_parameters())
    parameters = list(net.parameters())
    return [
        {
            "params": [p for p in parameters if (p in encoder) == of_encoder and (p.ndim > 1) == decayed],
            "weight_decay": config.weight_decay if decayed else 0.0,
            "rate_factor": config.encoder_rate if of_encoder else 1.0,
        }
        for of_encoder in (True, False)
        for decayed in (True, False)
    ]


def _figures(matrix: ConfusionMatrix, names: tuple[str, ...]) -> dict:
    return {
        "miou": matrix.mean_iou(),
        "pixel_accuracy": matrix.pixel_accuracy(),
        "iou": {name: None if np.isnan(iou) else float(iou) for name, iou in zip(names, matrix.iou(), strict=True)},
    }
