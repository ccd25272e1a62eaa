"""The loop of every training: epochs, evaluation, the best weights so far, and going on after an interruption."""

from __future__ import annotations

import contextlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from vidseg_core import distributed
from vidseg_core.errors import CheckpointError, ConfigError, VidsegError
from vidseg_core.models.files import read_metadata, read_tensors, save_weights
from vidseg_core.training.average import WeightAverage
from vidseg_core.training.history import plot_history, write_history
from vidseg_core.training.mix import Mix
from vidseg_core.training.schedule import progress_interval, rate_factor

STATE_FILE, WEIGHTS_FILE = "last.safetensors", "weights.safetensors"

Report = Callable[[str], None]


class TrainingError(VidsegError):
    """A training went wrong: its loss is no longer a number, or nothing tells how good it is."""


class Recipe(Protocol):
    """Tell the loop what every training has; a configuration is a frozen dataclass with defaults.

    Attributes:
        epochs: how often the first data set is seen.
        batch: samples per step, of all processes.
        rate: largest learning rate.
        warmup: epochs in which it rises from 0.
        schedule: how it falls afterwards, see `rate_factor`.
        average: decay of the weights' moving average, which is what is evaluated and written.
        seed: of everything random.
    """

    @property
    def epochs(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def warmup(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def average(self) -> float: ...
    @property
    def seed(self) -> int: ...


class Run(ABC):
    """One training: the network, its optimiser, its average, and how far it is.

    A subclass says what a batch is, what it costs, how good the network is, and what is written.

    Args:
        mix: the data.
        config: see `Recipe`.
        output: folder of everything that is written.
        net: to be trained, on its device.
        optimizer: of its parameters.

    Attributes:
        samples: what they are called, for instance "images".
        changeable: options that a resumed training may change; the learning rate then follows the new schedule from
            where it is.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        architectures: the networks whose training's state can be resumed, by their names; the first is the own.
        history: one entry per finished epoch, JSON-safe; with `miou` where it was evaluated.
        kept: what else a resumed training has to know, JSON-safe, by names that never change.
    """

    samples: str
    changeable: tuple[str, ...] = ("epochs",)
    evaluate_every: int = 1

    def __init__(
        self,
        mix: Mix,
        config: Any,
        output: Path,
        device: torch.device,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
    ):
        self.mix, self.config, self.output, self.device = mix, config, output, device
        self.net = net
        self.optimizer = optimizer
        self.average = WeightAverage(net, config.average)
        self.history: list[dict] = []
        self.kept: dict[str, Any] = {}

    @property
    @abstractmethod
    def architectures(self) -> tuple[str, ...]:
        """List the names of networks whose state can be resumed, the own one first."""

    @abstractmethod
    def batches(self, draws: list[list[tuple[int, int]]], workers: int) -> Generator[Any, None, None]:
        """Load this process's part of the batches of the next epoch, see `Mix.draws`."""

    @abstractmethod
    def loss_of(self, batch: Any) -> Tensor:
        """Compute the loss of a batch."""

    @abstractmethod
    def evaluate(self, entry: dict, workers: int) -> None:
        """Add to an epoch's entry how good the average is: `miou`, and what else is known."""

    @abstractmethod
    def weights(self, entry: dict) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Make tensors and metadata of the weights as they are after the epoch of `entry`."""

    @abstractmethod
    def line(self, entry: dict) -> str:
        """Word an evaluated epoch for the terminal."""

    def scalars(self, entry: dict) -> dict[str, float]:
        """Give the curves of TensorBoard their values, by their names."""
        curves = ("loss", "rate", f"{self.samples}_per_second", "miou")
        return {f"train/{key}": entry[key] for key in curves if key in entry}

    def begin_from_here(self) -> None:
        """Have the average forget how the network began, after it was initialised otherwise."""
        self.average = WeightAverage(self.net, self.config.average)

    @property
    def epoch(self) -> int:
        """Count the finished epochs."""
        return len(self.history)

    def data(self) -> list[dict]:
        """Describe the data sets, for the record."""
        return [
            {"name": p.train.name, "train": len(p.train), "held_back": len(p.held_back), "share": p.share}
            for p in self.mix.parts
        ]

    def loop(self, workers: int, budget_s: float, report: Report) -> Path:
        """Train until the last epoch, or until no further one fits into the budget.

        Args:
            workers: threads that prepare batches.
            budget_s: seconds; infinity for no limit.
            report: takes a line of text, on the process that writes.

        Returns:
            Path of the weights.

        Raises:
            TrainingError: see there.
        """
        started, config = time.monotonic(), self.config
        steps = len(self.mix.draws(config.seed, 0, config.batch))
        bar = tqdm(
            total=config.epochs * steps, initial=self.epoch * steps, desc="training", unit="step",
            mininterval=progress_interval(), smoothing=0.02, disable=is_quiet(),
        )  # fmt: skip
        with bar, self._board() as board:
            while self.epoch < config.epochs:
                entry = self._train_epoch(workers, bar)
                last = self.epoch + 1 == config.epochs
                elapsed_s = distributed.agreed(time.monotonic() - started)
                out_of_time = elapsed_s + entry["seconds"] > budget_s
                if last or out_of_time or (self.epoch + 1) % self.evaluate_every == 0:
                    self.evaluate(entry, workers)
                self.history.append(entry)
                if board is not None:
                    self._write(entry)
                    for name, value in self.scalars(entry).items():
                        board.add_scalar(name, value, entry["epoch"])
                if "miou" in entry or last:
                    say(report, self.line(entry))
                distributed.barrier()
                if out_of_time and not last:
                    say(report, f"time budget: stopped after epoch {self.epoch} of {config.epochs}")
                    break
        return self.output / WEIGHTS_FILE

    def _board(self) -> contextlib.AbstractContextManager[SummaryWriter | None]:
        if not distributed.is_writer():
            return contextlib.nullcontext()
        return SummaryWriter(str(self.output / "tensorboard"), purge_step=self.epoch)

    def _train_epoch(self, workers: int, bar: tqdm) -> dict:
        config, epoch = self.config, self.epoch
        started = time.monotonic()
        torch.manual_seed(config.seed + epoch)
        draws = self.mix.draws(config.seed, epoch, config.batch)
        total, rate = 0.0, 0.0
        self.net.train()
        with contextlib.closing(self.batches(draws, workers)) as batches:
            for number, batch in enumerate(batches):
                progress = epoch + number / len(draws)
                rate = config.rate * rate_factor(progress, config.warmup, config.epochs, config.schedule)
                total += self.step(batch, rate)
                bar.update()
                bar.set_postfix(epoch=epoch + 1, loss=f"{total / (number + 1):.3f}", refresh=False)
        seconds = distributed.agreed(time.monotonic() - started)
        return {
            "epoch": epoch + 1,
            "loss": total / len(draws),
            "rate": rate,
            "seconds": round(seconds, 1),
            f"{self.samples}_per_second": round(len(draws) * config.batch / seconds, 3),
        }

    def step(self, batch: Any, rate: float) -> float:
        """Learn from one batch; return its loss, the mean over the processes.

        Raises:
            TrainingError: the loss is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        loss = self.loss_of(batch)
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

    def _write(self, entry: dict) -> None:
        if self._is_best(entry):
            save_weights(self.output / WEIGHTS_FILE, *self.weights(entry))
        self._save()
        write_history(self.output / "history.json", self.history, asdict(self.config))
        plot_history(self.output / "history.png", self.history)

    def _is_best(self, entry: dict) -> bool:
        """Return whether no epoch before was better; where none is evaluated, the latest one is the best."""
        earlier = [one["miou"] for one in self.history if one is not entry and "miou" in one]
        return all(entry["miou"] >= miou for miou in earlier) if "miou" in entry else not earlier

    def _save(self) -> None:
        tensors = {f"net.{key}": value for key, value in self.net.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in self.average.net.state_dict().items()}
        names = {parameter: name for name, parameter in self.net.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            tensors |= {f"optimizer.{key}.{names[parameter]}": value for key, value in state.items()}
        metadata = {
            "architecture": _training_of(self.architectures[0]),
            "config": plain(self.config),
            "history": self.history,
            "updates": self.average.updates,
            "classes": self.mix.classes.to_dict(),
        }
        save_weights(self.output / STATE_FILE, tensors, metadata | self.kept)

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the last finished epoch.

        Raises:
            CheckpointError: there is none, its file is broken, or it is of another kind of training.
            ConfigError: it comes from another configuration, or has other classes.
        """
        path = self.output / STATE_FILE
        metadata, tensors = read_metadata(path) if path.is_file() else {}, read_tensors(path)
        kinds = tuple(map(_training_of, self.architectures))
        if "config" not in metadata or metadata["architecture"] not in kinds:
            raise CheckpointError(f"{path}: expected the state of a {kinds[0]}, found {metadata.get('architecture')!r}")
        # What an older version could not choose was as it is by default.
        was, now = plain(type(self.config)()) | metadata["config"], plain(self.config)
        fixed = [key for key in now if key not in self.changeable and now[key] != was[key]]
        if fixed:
            changed = "; ".join(f"{key} was {was[key]!r}, is {now[key]!r}" for key in fixed)
            raise ConfigError(f"{path}: expected the configuration that the training began with: {changed}")
        if [c["name"] for c in metadata["classes"]["classes"]] != list(self.mix.classes.names):
            raise ConfigError(f"{path}: expected the classes that the training began with")
        try:
            for prefix, net in (("net.", self.net), ("average.", self.average.net)):
                net.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
            self._restore_optimizer(tensors)
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"{path}: expected the state of a {kinds[0]}: {error}") from error
        self.average.updates, self.history = metadata["updates"], metadata["history"]
        self.kept = {name: metadata[name] for name in self.kept}

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        counts_on_device = bool(self.optimizer.defaults.get("fused"))
        for name, parameter in self.net.named_parameters():
            # A fused optimiser walks through memory, so its moments must lie as the parameter does.
            moments = {
                key: torch.empty_like(parameter).copy_(tensors[f"optimizer.{key}.{name}"])
                for key in ("exp_avg", "exp_avg_sq")
            }
            step = tensors[f"optimizer.step.{name}"].to(self.device if counts_on_device else "cpu")
            self.optimizer.state[parameter] = {"step": step, **moments}


def begin(mix: Mix, config: Recipe, output: Path, resume: bool, report: Report) -> np.ndarray:
    """Prepare the folder, and look through the data, before anything is computed.

    Returns:
        The share of each class, see `Mix.check`.

    Raises:
        VidsegError: the folder holds a training already, or the data or the batch are not what they must be.
    """
    output.mkdir(parents=True, exist_ok=True)
    if not resume and (output / STATE_FILE).exists():
        raise ConfigError(f"{output}: expected a new folder, it holds a training already; --resume goes on with it")
    check_parts(config.batch)
    pause = progress_interval()

    def watched(indices: Iterable) -> Iterable:
        return tqdm(indices, "reading the images", leave=False, mininterval=pause, disable=is_quiet())

    frequency = mix.check(watched)
    if (absent := mix.absent_classes(frequency)) is not None:
        say(report, absent)
    mix.draws(config.seed, 0, config.batch)  # a batch larger than an epoch is an error now, not later
    return frequency


def budget_s(minutes: float | None) -> float:
    """Return a time budget in seconds; infinity where there is none."""
    return math.inf if minutes is None else minutes * 60


def say(report: Report, line: str) -> None:
    """Report a line, on the process that writes."""
    if distributed.is_writer():
        report(line)


def is_quiet() -> bool:
    """Return whether another process draws the progress bars."""
    return not distributed.is_writer()


def check_parts(batch: int) -> None:
    """Check that each process gets as much of a batch, and enough for batch normalisation; else raise ConfigError."""
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


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration as it comes back from JSON."""
    return json.loads(json.dumps(asdict(config)))


def _training_of(architecture: str) -> str:
    return f"training of {architecture}"
