"""Training of guided refinement, and of FlowLight where it is the flow, with the segmenter frozen."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidseg_core import distributed
from vidseg_core.classes import ClassTable
from vidseg_core.engine.config import DIS_PRESETS, GRID_STRIDES
from vidseg_core.engine.flow import DIS, FlowEstimator
from vidseg_core.errors import CheckpointError, ConfigError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.kernels.decode import decode
from vidseg_core.kernels.resample import resize
from vidseg_core.kernels.warp import warp
from vidseg_core.models.architectures import REFINE, SWNET_SEQ
from vidseg_core.models.card import SWIFTNET_INPUT, InputCard
from vidseg_core.models.checkpoint import load_swnet_seq
from vidseg_core.models.files import read_classes
from vidseg_core.networks.flow_light import FLOW_UNIT, FlowLight
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.swiftnet import SwiftNet
from vidseg_core.training.augment import Augmentation
from vidseg_core.training.clip_loader import ClipBatch, ClipSource, load_clips
from vidseg_core.training.clips import ClipMaker
from vidseg_core.training.losses import CLASS_WEIGHTINGS, SegmentationLoss, class_weights
from vidseg_core.training.mix import Mix
from vidseg_core.training.run import Run, TrainingError, begin, budget_s, device_name, say
from vidseg_core.training.schedule import SCHEDULES

FLOWS = ("dis", "light")
MOST_STEPS = 8


@dataclass(frozen=True)
class RefineTraining:
    """Everything that decides what a training of refinement computes.

    Attributes:
        epochs: how often the first data set is seen.
        batch: clips per step.
        rate: largest learning rate (AdamW).
        warmup: epochs in which the rate rises from 0.
        schedule: how it falls afterwards, "cosine" or "poly".
        steps: clips have 1 to so many propagated frames; the last one is scored, and held-back clips have all of them.
        flow: dis, or light, which is then trained as well.
        dis_preset: see `EngineConfig`.
        grid_stride: of the carried logits, 2, 4 or 8.
        edge: whether the guide sees where the warped labels change.
        feedback: whether each frame's repaired logits are what the next frame warps (as published), or the key frame's
            are, with each frame's repair for itself.
        weighting: class weights of the cross-entropy, see `losses.class_weights`.
        distillation: weight of the divergence from what the segmenter says of the last frame.
        average: decay of the moving average of the weights; the average is what is evaluated and written.
        hold_back: share of each data set kept from training, to choose the best epoch by.
        seed: of everything random.
        bfloat16: compute the segmenter in bfloat16 where that is safe.
        motion: strength of the camera's motion in clips made from stills, see `ClipMaker`.
        augmentation: of the clips.
    """

    epochs: int = 8
    batch: int = 6
    rate: float = 2e-3
    warmup: float = 0.5
    schedule: str = "cosine"
    steps: int = 4
    flow: str = "dis"
    dis_preset: str = "fine"
    grid_stride: int = 2
    edge: bool = True
    feedback: bool = False
    weighting: str = "sqrt"
    distillation: float = 0.5
    average: float = 0.99
    hold_back: float = 0.08
    seed: int = 0
    bfloat16: bool = True
    motion: float = 1.0
    augmentation: Augmentation = field(default_factory=lambda: Augmentation((288, 384), (0.8, 1.5), 0.4, 0.4, 0.1))

    def __post_init__(self):
        def expect(name, valid, what):
            if not valid(getattr(self, name)):
                raise ConfigError(f"{name}: expected {what}, got {getattr(self, name)!r}")

        expect("epochs", lambda v: v >= 1, "at least 1")
        expect("batch", lambda v: v >= 2, "at least 2, which batch normalisation needs")
        expect("rate", lambda v: 0 < v < math.inf, "a number greater than 0")
        expect("warmup", lambda v: 0 <= v <= self.epochs, f"0..{self.epochs} epochs")
        expect("schedule", lambda v: v in SCHEDULES, f"one of {SCHEDULES}")
        expect("steps", lambda v: 1 <= v <= MOST_STEPS, f"1..{MOST_STEPS}")
        expect("flow", lambda v: v in FLOWS, f"one of {FLOWS}")
        expect("dis_preset", lambda v: v in DIS_PRESETS, f"one of {DIS_PRESETS}")
        expect("grid_stride", lambda v: v in GRID_STRIDES, f"one of {GRID_STRIDES}")
        expect("weighting", lambda v: v in CLASS_WEIGHTINGS, f"one of {CLASS_WEIGHTINGS}")
        expect("distillation", lambda v: 0 <= v < math.inf, "at least 0")
        expect("average", lambda v: 0 <= v < 1, "0 <= average < 1")
        expect("hold_back", lambda v: 0 < v <= 0.5, "above 0, at most 0.5: something must tell whether it helps")
        expect("seed", lambda v: v >= 0, "at least 0")
        ClipMaker(self.augmentation, self.motion)


class Propagation(nn.Module):
    """Refinement and, where it is trained, the flow network.

    Args:
        num_classes: 1 to 255.
        config: what is trained.
    """

    def __init__(self, num_classes: int, config: RefineTraining):
        super().__init__()
        self.refine = GuidedRefine(num_classes, config.edge)
        self.flow = FlowLight() if config.flow == "light" else None
        self._feedback = config.feedback
        self._padding = "zeros" if config.feedback else "border"
        start_from_the_warped(self.refine)

    def forward(self, key_logits: Tensor, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Return refined and merely warped logits of the last frame, both B x C x h x w.

        Args:
            key_logits: B x C x h x w on the grid, of the first frame.
            batch: its other frames.
        """
        carried, plain, motion = key_logits, key_logits, None
        steps = len(batch.images) - 1
        for k in range(1, steps + 1):
            flow = self._flow(batch, k)
            motion = flow if motion is None else flow + warp(motion, flow, padding="border")
            if self._feedback:
                carried = self.refine(warp(carried, flow, padding=self._padding), batch.images[k]).logits
        plain = warp(key_logits, motion, padding="border")
        if not self._feedback:
            carried = self.refine(plain, batch.images[-1]).logits
        return carried, plain

    def _flow(self, batch: ClipBatch, k: int) -> Tensor:
        if self.flow is None:
            return batch.flows[k - 1]
        current, previous = batch.images[k], batch.images[k - 1]
        return resize(self.flow(current, previous), current.shape[2:]) / FLOW_UNIT


def start_from_the_warped(refine: GuidedRefine) -> None:
    """Let an untrained refinement begin as what it must improve on: most of the weight on the warped logits."""
    norm = refine.guide.guide_decoder[1]
    nn.init.constant_(norm.weight, 0.2)
    nn.init.constant_(norm.bias, 0.1)
    norm.bias.data[0] = 3.0


def initialise(path: Path, net: Propagation, classes: ClassTable) -> list[str]:
    """Start `net` from a file: its flow network where one is trained, its refinement where that is of the same form.

    Returns:
        What was taken.

    Raises:
        CheckpointError: nothing of it fits, or it cannot be read.
    """
    flow, refine = load_swnet_seq(path)
    stored = read_classes(path)
    taken = []
    if net.flow is not None and flow is not None:
        net.flow.load_state_dict(flow.state_dict())
        taken.append("the flow network")
    same = refine.num_classes == len(classes) and (stored is None or stored.names == classes.names)
    if same and refine.edge == net.refine.edge:
        net.refine.load_state_dict(refine.state_dict())
        taken.append("the refinement")
    if not taken:
        raise CheckpointError(
            f"{path}: expected refinement for the {len(classes)} classes of table {classes.name!r}, edge map "
            f"{'on' if net.refine.edge else 'off'}, or a flow network to train; found refinement for "
            f"{refine.num_classes} classes, edge map {'on' if refine.edge else 'off'}"
        )
    return taken


def train_refine(
    mix: Mix,
    segmenter: SwiftNet,
    config: RefineTraining,
    output: Path,
    *,
    input_scale: float = 1.0,
    segmenter_input: InputCard = SWIFTNET_INPUT,
    segmenter_record: dict | None = None,
    device: torch.device | str = "cpu",
    workers: int = 1,
    init: Path | None = None,
    resume: bool = False,
    time_budget_min: float | None = None,
    command: str = "",
    report: Callable[[str], None] = print,
) -> Path:
    """Train guided refinement for `segmenter`, which stays as it is.

    `output` receives the same files as from `train_segmenter`; held-back figures come in pairs, with refinement and
    without, so that one sees what it is worth.

    Args:
        segmenter: makes the key frames' logits.
        input_scale: size of its input in units of the image's.
        segmenter_input: how its input is made of a picture.
        segmenter_record: which weights it has, for the record in the new ones.
        workers: threads that prepare clips.
        init: weights to start from, see `initialise`.
        resume: go on from the last finished epoch in `output`.
        time_budget_min: minutes after which no further epoch is begun; the schedule does not follow it.
        command: what was typed, for the record.
        report: takes one line of text about classes without a labelled pixel, and one about each epoch.

    Raises:
        VidsegError: the data, the configuration or a file is not what it must be, or the loss is no longer finite.
        KeyboardInterrupt: the user stopped it; the last finished epoch is kept.
    """
    frequency = begin(mix, config, output, resume, report)
    if not any(len(part.held_back) for part in mix.parts):
        raise ConfigError(f"hold_back: {config.hold_back} of the images is none; hold back more, or give more images")
    weights = class_weights(frequency, config.weighting)
    run = RefinementRun(mix, segmenter, config, output, torch.device(device), weights, input_scale, segmenter_input)
    if resume:
        run.restore()
    elif init is not None:
        taken = initialise(init, run.net, mix.classes)
        say(report, f"from {init.name}: {' and '.join(taken)}")
        run.begin_from_here()
    run.record = {
        "command": command, "init": init.name if init and not resume else None, "segmenter": segmenter_record,
        "data": run.data(),
    }  # fmt: skip
    return run.loop(workers, budget_s(time_budget_min), report)


class RefinementRun(Run):
    """One training of refinement, and of the flow network where that is trained; see `Run`."""

    samples = "clips"
    architectures = (REFINE,)

    def __init__(
        self, mix: Mix, segmenter: SwiftNet, config: RefineTraining, output: Path, device: torch.device,
        weights: Tensor, input_scale: float, segmenter_input: InputCard,
    ):  # fmt: skip
        torch.manual_seed(config.seed)
        # PyTorch's stubs do not know `memory_format` of modules.
        frozen = segmenter.eval().requires_grad_(False)
        self.segmenter = frozen.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        net = Propagation(len(mix.classes), config).to(device).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=config.rate, weight_decay=1e-4)
        super().__init__(mix, config, output, device, net, optimizer)
        self.loss = SegmentationLoss(weights.to(device), stride=2)
        flow: FlowEstimator | None = DIS(config.dis_preset) if config.flow == "dis" else None
        maker = ClipMaker(config.augmentation, config.motion)
        self.source = ClipSource(maker, flow, input_scale, config.grid_stride, segmenter_input)
        self.record: dict = {}

    def batches(self, draws: list[list[tuple[int, int]]], workers: int) -> Generator[ClipBatch, None, None]:
        """Load clips of 1 to `steps` propagated frames; see `load_clips`."""
        config, epoch = self.config, self.epoch
        lengths = np.random.default_rng([config.seed, epoch, 1]).integers(1, config.steps + 1, len(draws))
        mine = slice(distributed.rank(), None, distributed.world_size())
        planned = [
            (
                [(self.mix.parts[part].train, index) for part, index in draw][mine],
                int(steps),
                (config.seed, epoch, number),
            )
            for number, (draw, steps) in enumerate(zip(draws, lengths, strict=True))
        ]
        return load_clips(self.source, planned, workers)

    def loss_of(self, batch: ClipBatch) -> Tensor:
        """Compute the loss of the clips' last frames, and their divergence from what the segmenter says of them."""
        batch = batch.to(self.device)
        key, teacher = (self._logits(images, batch) for images in (batch.key, batch.last))
        refined, _ = self.net(key, batch)
        loss = self.loss(refined, batch.labels)
        if self.config.distillation:
            loss = loss + self.config.distillation * divergence(refined, teacher)
        return loss

    @torch.no_grad()
    def _logits(self, images: Tensor, batch: ClipBatch) -> Tensor:
        """Compute the segmenter's logits of `images`, on the grid."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            scores = self.segmenter(images)
        return resize(scores.float(), tuple(batch.images[0].shape[2:]))

    def evaluate(self, entry: dict, workers: int) -> None:
        """Add to `entry` the held-back clips' mIoU with refinement and without, by data set and in the mean."""
        net: Propagation = self.average.net
        sets, score, plain_score, shares = {}, 0.0, 0.0, 0.0
        for number, part in enumerate(self.mix.parts):
            held = part.held_back
            if not len(held):
                continue
            indices = range(distributed.rank(), len(held), distributed.world_size())
            planned = [([(held, index)], self.config.steps, (self.config.seed, number, index)) for index in indices]
            matrices = [ConfusionMatrix(len(self.mix.classes)) for _ in range(2)]
            for batch in load_clips(self.source, planned, workers):
                labels = batch.labels[0].numpy().astype(np.uint8)
                batch = batch.to(self.device)
                with torch.inference_mode():
                    for matrix, logits in zip(matrices, net(self._logits(batch.key, batch), batch), strict=True):
                        matrix.update(decode(logits.contiguous(), labels.shape), labels)
            for matrix in matrices:
                matrix.sum_over_processes()
            if not matrices[0].num_pixels:  # views of clips may miss the few labelled pixels of large images
                continue
            refined, plain = (matrix.mean_iou() for matrix in matrices)
            sets[f"{number}:{held.name}"] = {"miou": refined, "warped_miou": plain}
            score, plain_score, shares = (
                score + part.share * refined,
                plain_score + part.share * plain,
                shares + part.share,
            )
        if not shares:
            raise TrainingError(
                f"epoch {self.epoch + 1}: expected labelled pixels in the held-back clips, every pixel seen is void; "
                "hold back more images"
            )
        entry |= {"miou": score / shares, "warped_miou": plain_score / shares, "held_back": sets}

    def weights(self, entry: dict) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Make the average's weights, and the record of the training."""
        net: Propagation = self.average.net
        metadata = {
            "architecture": REFINE if net.flow is None else SWNET_SEQ,
            "classes": self.mix.classes.to_dict(),
            "grid_stride": self.config.grid_stride,
            "flow": self.config.flow,
            "feedback": self.config.feedback,
            "training": self.record
            | {
                "config": asdict(self.config), "device": device_name(self.device), "epochs": entry["epoch"],
                "seconds": round(sum(e["seconds"] for e in self.history)), "held_back": entry["held_back"],
                "torch": torch.__version__,
            },
        }  # fmt: skip
        return net.state_dict(), metadata

    def line(self, entry: dict) -> str:
        sets = "  ".join(
            f"{name} {100 * figures['miou']:.2f} (warped only {100 * figures['warped_miou']:.2f})"
            for name, figures in entry["held_back"].items()
        )
        speed = f"{entry['clips_per_second']:.2f} clips/s"
        return f"epoch {entry['epoch']}: loss {entry['loss']:.4f}  {speed}  held-back mIoU: {sets}"

    def scalars(self, entry: dict) -> dict[str, float]:
        """Add the mIoU without refinement."""
        return super().scalars(entry) | {"train/warped_miou": entry["warped_miou"]}


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """Average the Kullback-Leibler divergence of softmax(`logits`) from softmax(`teacher`) over the pixels.

    Args:
        logits, teacher: B x C x h x w.
    """
    return F.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="none").sum(1).mean()
