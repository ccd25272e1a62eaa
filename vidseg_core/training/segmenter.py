"""Training of the segmentation network."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from vidseg_core import distributed
from vidseg_core.backends.backend import Ranges
from vidseg_core.backends.integers import measured
from vidseg_core.errors import CheckpointError, ConfigError, VidsegError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.evaluation.metrics.images import evaluate_images
from vidseg_core.models.architectures import SWIFTNETS
from vidseg_core.models.checkpoint import initialise
from vidseg_core.models.files import read_metadata, read_tensors, save_weights
from vidseg_core.networks.normalisation import normalise
from vidseg_core.networks.swiftnet import DECODER_WIDTH, ENCODERS, SwiftNet
from vidseg_core.training.augment import Augmentation
from vidseg_core.training.average import WeightAverage
from vidseg_core.training.history import plot_history, write_history
from vidseg_core.training.loader import load_batches
from vidseg_core.training.losses import CLASS_WEIGHTINGS, SegmentationLoss, class_weights
from vidseg_core.training.mix import Mix
from vidseg_core.training.schedule import SCHEDULES, progress_interval, rate_factor

STATE_FILE, WEIGHTS_FILE = "last.safetensors", "weights.safetensors"
# What a resumed training may change; the learning rate then follows the new schedule from where it is.
CHANGEABLE = ("epochs", "evaluate_every")


class TrainingError(VidsegError):
    """A training went wrong: its loss is no longer a number."""


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
        input_scale: factor on an image's size at which the network will be used, and is evaluated.
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
        """The learning rate after `progress` epochs, a fraction included."""
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
) -> Path:
    """Train SwiftNet; with several processes (see `distributed.py`) each computes its part of every batch.

    `output` receives `last.safetensors` after each epoch (everything a resumed training needs), `weights.safetensors`
    (the best epoch's averaged weights so far), `history.json`, `history.png` and TensorBoard's files.

    Args:
        workers: threads that prepare images.
        init: weights to start from, see `checkpoint.initialise`.
        resume: go on from `output/last.safetensors`, which must come from the same configuration but for `CHANGEABLE`.
            The data may differ; the record in the weights then says from which epoch on.
        time_budget_min: minutes after which no further epoch is begun; the schedule does not follow it.
        compiled: run the network through `torch.compile`.
        command: what was typed, for the record in the weights.
        report: takes one line of text about classes without a labelled pixel, and one about each evaluated epoch.

    Returns:
        Path of the weights.

    Raises:
        VidsegError: the data, the configuration or a file is not what it must be, or the loss is no longer finite.
        KeyboardInterrupt: the user stopped it; `last.safetensors` holds the last finished epoch.
    """
    output.mkdir(parents=True, exist_ok=True)
    if not resume and (output / STATE_FILE).exists():
        raise ConfigError(f"{output}: expected a new folder, it holds a training already; --resume goes on with it")
    check_parts(config.batch)
    pause = progress_interval()
    frequency = mix.check(
        lambda indices: tqdm(indices, "reading the images", leave=False, mininterval=pause, disable=_quiet())
    )
    if (absent := mix.absent_classes(frequency)) is not None:
        _Run.report(report, absent)
    mix.draws(config.seed, 0, config.batch)  # a batch larger than an epoch is an error now, not later
    run = _Run(mix, config, output, torch.device(device), class_weights(frequency, config.weighting), compiled)
    notices: tuple[str, ...] = ()
    if resume:
        run.restore()
    elif init is not None:
        notices = initialise(init, run.net, mix.classes)
        run.average = WeightAverage(run.net, config.average)
    if run.sources and run.sources[-1]["data"] != run.data():
        run.report(report, f"from epoch {run.epoch + 1} on with other data than before")
    run.sources.append({
        "from_epoch": run.epoch + 1, "epochs": config.epochs, "command": command,
        "init": init.name if init and not resume else None, "notices": notices, "data": run.data(),
        "processes": distributed.world_size(),
    })  # fmt: skip
    return run.loop(workers, math.inf if time_budget_min is None else time_budget_min * 60, report)


class _Run:
    """One training: the network, its optimiser, its average, and how far it is."""

    def __init__(self, mix: Mix, config: SegmenterTraining, output: Path, device, weights: Tensor, compiled: bool):
        torch.manual_seed(config.seed)
        self.mix, self.config, self.output, self.device = mix, config, output, device
        self.architecture = SWIFTNETS[config.encoder]
        self.net = (
            SwiftNet(len(mix.classes), config.encoder, config.width)
            .to(device, memory_format=torch.channels_last)
            .train()
        )
        self.forward = torch.compile(self.net) if compiled else self.net
        self.average = WeightAverage(self.net, config.average)
        self.optimizer = torch.optim.AdamW(_groups(self.net, config), lr=config.rate, fused=True)
        self.loss = SegmentationLoss(weights.to(device), config.loss_stride, config.lovasz, config.hard_pixels)
        self.history: list[dict] = []
        self.ranges: Ranges = {}  # what the convolutions of the average met when it was last evaluated
        self.sources: list[dict] = []  # what each start, the first and those that resumed, was given

    def data(self) -> list[dict]:
        """The data sets, for the record."""
        return [
            {"name": p.train.name, "train": len(p.train), "held_back": len(p.held_back), "share": p.share}
            for p in self.mix.parts
        ]

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    def loop(self, workers: int, budget_s: float, report) -> Path:
        started = time.monotonic()
        steps = len(self.mix.draws(self.config.seed, 0, self.config.batch))
        bar = tqdm(
            total=self.config.epochs * steps, initial=self.epoch * steps, desc="training", unit="step",
            mininterval=progress_interval(), smoothing=0.02, disable=_quiet(),
        )  # fmt: skip
        with bar, self._board() as board:
            while self.epoch < self.config.epochs:
                entry = self._train_epoch(workers, bar)
                last = self.epoch + 1 == self.config.epochs
                elapsed = distributed.agreed(time.monotonic() - started)
                out_of_time = elapsed + entry["seconds"] > budget_s
                if last or out_of_time or (self.epoch + 1) % self.config.evaluate_every == 0:
                    self._evaluate(entry)
                self.history.append(entry)
                if distributed.is_writer():
                    self._write(entry)
                    _log(board, entry)
                bar.set_postfix(epoch=self.epoch, loss=f"{entry['loss']:.3f}")
                if entry.get("miou") is not None or last:
                    self.report(report, _line(entry))
                if out_of_time and not last:
                    self.report(report, f"time budget: stopped after epoch {self.epoch} of {self.config.epochs}")
                    break
        distributed.barrier()
        return self.output / WEIGHTS_FILE

    @staticmethod
    def report(report: Callable[[str], None], line: str) -> None:
        if distributed.is_writer():
            report(line)

    def _board(self) -> contextlib.AbstractContextManager[SummaryWriter | None]:
        if not distributed.is_writer():
            return contextlib.nullcontext()
        return SummaryWriter(str(self.output / "tensorboard"), purge_step=self.epoch)

    def _train_epoch(self, workers: int, bar: tqdm) -> dict:
        config, epoch = self.config, self.epoch
        started = time.monotonic()
        torch.manual_seed(config.seed + epoch)
        batches = self.mix.draws(config.seed, epoch, config.batch)
        total = 0.0
        self.net.train()
        loader = load_batches(self.mix, batches, config.augmentation, config.seed, epoch, workers)
        with contextlib.closing(loader):
            for number, (images, labels) in enumerate(loader):
                rate = config.rate_at(epoch + number / len(batches))
                total += self._step(images, labels, rate)
                bar.update()
        seconds = distributed.agreed(time.monotonic() - started)
        return {
            "epoch": epoch + 1,
            "loss": total / len(batches),
            "rate": rate,
            "seconds": round(seconds, 1),
            "images_per_second": round(len(batches) * config.batch / seconds, 3),
        }

    def _step(self, images: Tensor, labels: Tensor, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        images, labels = (x.to(self.device, non_blocking=True) for x in (images, labels))
        precision = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16)
        with precision:
            seen = self.architecture.input
            logits = self.forward(normalise(images.float(), seen.mean, seen.std))
        loss = self.loss(logits.float(), labels)
        mean = loss.detach().clone()
        distributed.average([mean])
        value = mean.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"epoch {self.epoch + 1}: expected a finite loss, got {value}; "
                f"lower the learning rate ({self.config.rate}) or lengthen the warm-up"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average(p.grad for p in self.net.parameters() if p.grad is not None)
        self.optimizer.step()
        # Each process normalises its own part of a batch; the statistics for later are those of all.
        distributed.average(buffer for buffer in self.net.buffers() if buffer.is_floating_point())
        self.average.update(self.net)
        return value

    def _evaluate(self, entry: dict) -> None:
        """Add the held-back images' mIoU to `entry`: of each data set, and the mean over the sets by their shares."""
        sets, score, shares = {}, 0.0, 0.0
        with measured(self.average.net) as self.ranges:
            for number, part in enumerate(self.mix.parts):
                if not len(part.held_back):
                    continue
                matrix = evaluate_images(
                    self.average.net, part.held_back, self.config.input_scale, self.device, self.config.bfloat16,
                    self.architecture.input,
                )  # fmt: skip
                sets[f"{number}:{part.held_back.name}"] = _figures(matrix, self.mix.classes.names)
                score += part.share * matrix.mean_iou()
                shares += part.share
        if shares:
            entry |= {"miou": score / shares, "held_back": sets}

    def _write(self, entry: dict) -> None:
        best = max((e["miou"] for e in self.history if "miou" in e), default=None)
        if best is None or entry.get("miou") == best:
            self._write_weights(entry)
        self._save()
        write_history(self.output / "history.json", self.history, asdict(self.config))
        plot_history(self.output / "history.png", self.history)

    def _write_weights(self, entry: dict) -> None:
        # Convolutions in half precision are as good; batch-normalisation statistics may lie outside its range.
        tensors = {
            key: value.half() if value.ndim == 4 and not key.startswith("backbone.img_") else value
            for key, value in self.average.net.state_dict().items()
        }
        training = {
            "sources": self.sources,
            "config": asdict(self.config),
            "seed": self.config.seed,
            "device": device_name(self.device),
            "epochs": entry["epoch"],
            "seconds": round(sum(e["seconds"] for e in self.history)),
            "held_back_miou": entry.get("miou"),
            "held_back": entry.get("held_back"),
            "torch": torch.__version__,
        }
        metadata = {
            "architecture": self.architecture.name,
            "normalisation": self.architecture.input.normalisation(),
            "classes": self.mix.classes.to_dict(),
            "input_scale": self.config.input_scale,
            "training": training,
        }
        if notices := [notice for source in self.sources for notice in source.get("notices", ())]:
            metadata["notices"] = notices
        if self.ranges:
            metadata["activation_ranges"] = self.ranges
        save_weights(self.output / WEIGHTS_FILE, tensors, metadata)

    def _save(self) -> None:
        tensors = {f"net.{key}": value for key, value in self.net.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in self.average.net.state_dict().items()}
        names = {parameter: name for name, parameter in self.net.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            tensors |= {f"optimizer.{key}.{names[parameter]}": value for key, value in state.items()}
        metadata = {
            "architecture": f"training of {self.architecture.name}",
            "config": _plain(self.config),
            "history": self.history,
            "sources": self.sources,
            "updates": self.average.updates,
            "classes": self.mix.classes.to_dict(),
        }
        save_weights(self.output / STATE_FILE, tensors, metadata)

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the last finished epoch.

        Raises:
            CheckpointError: there is none, or its file is broken.
            ConfigError: it comes from another configuration.
        """
        path = self.output / STATE_FILE
        metadata, tensors = read_metadata(path) if path.is_file() else {}, read_tensors(path)
        was, now = metadata.get("config"), _plain(self.config)
        if was is None:
            raise CheckpointError(f"{path}: expected the state of a training, found {metadata.get('architecture')!r}")
        was = _plain(SegmenterTraining()) | was  # what an older version could not choose was as it is by default
        fixed = [key for key in now if key not in CHANGEABLE and now[key] != was[key]]
        if fixed:
            changed = "; ".join(f"{key} was {was[key]!r}, is {now[key]!r}" for key in fixed)
            raise ConfigError(f"{path}: expected the configuration that the training began with: {changed}")
        if [c["name"] for c in metadata["classes"]["classes"]] != list(self.mix.classes.names):
            raise ConfigError(f"{path}: expected the classes that the training began with")
        try:
            for prefix, net in (("net.", self.net), ("average.", self.average.net)):
                net.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
            for name, parameter in self.net.named_parameters():
                # The fused optimiser walks through memory, so its moments must lie as the parameter does.
                moments = {
                    key: torch.empty_like(parameter).copy_(tensors[f"optimizer.{key}.{name}"])
                    for key in ("exp_avg", "exp_avg_sq")
                }
                step = tensors[f"optimizer.step.{name}"].to(self.device)
                self.optimizer.state[parameter] = {"step": step, **moments}
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"{path}: expected the state of a {self.architecture.name} training: {error}"
            ) from error
        self.average.updates = metadata["updates"]
        self.history, self.sources = metadata["history"], metadata["sources"]


def check_parts(batch: int) -> None:
    """Raises ConfigError unless each process gets as much of a batch, and enough for batch normalisation."""
    parts = distributed.world_size()
    if batch % parts or batch // parts < 2:
        raise ConfigError(f"batch: expected a multiple of {parts} (processes), two images or more each, got {batch}")


def device_name(device: torch.device) -> str:
    """Name the device for records: the graphics card, or the number of threads of which processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def use_threads(threads: int | None) -> None:
    """Give PyTorch `threads` threads (None: as it likes); OpenCV works in the loader's own threads."""
    cv2.setNumThreads(1)
    if threads is not None:
        torch.set_num_threads(threads)


def _groups(net: SwiftNet, config: SegmenterTraining) -> list[dict]:
    """Encoder and decoder with rates of their own; biases and batch normalisation are not decayed."""
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


def _line(entry: dict) -> str:
    sets = "  ".join(f"{name} {100 * figures['miou']:.1f}" for name, figures in entry.get("held_back", {}).items())
    speed = f"{entry['images_per_second']:.2f} images/s"
    return f"epoch {entry['epoch']}: loss {entry['loss']:.4f}  {speed}  held-back mIoU: {sets or 'nothing held back'}"


def _log(board: SummaryWriter, entry: dict) -> None:
    for key in ("loss", "rate", "images_per_second", "miou"):
        if key in entry:
            board.add_scalar(f"train/{key}", entry[key], entry["epoch"])
    for name, figures in entry.get("held_back", {}).items():
        for key, iou in figures["iou"].items():
            if iou is not None:
                board.add_scalar(f"{name}/{key}", iou, entry["epoch"])


def _plain(config: SegmenterTraining) -> dict:
    """As it comes back from JSON."""
    return json.loads(json.dumps(asdict(config)))


def _quiet() -> bool:
    """Whether another process draws the progress bars."""
    return not distributed.is_writer()
