"""From a configuration to networks, and from networks to streams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from vidseg_core.backends.choose import Runtime
from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.flow import DIS, FlowEstimator, NetworkFlow, NoFlow
from vidseg_core.engine.key_frames.process import SegmenterProcess
from vidseg_core.engine.key_frames.worker import Task
from vidseg_core.engine.refine import Refinement
from vidseg_core.engine.segmenter import Segmenter, load_segmenter, ready
from vidseg_core.engine.stream import Networks
from vidseg_core.errors import CheckpointError, ConfigError
from vidseg_core.models import checkpoint
from vidseg_core.models.files import read_classes, read_metadata
from vidseg_core.models.registry import find_weights, record_of
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.threads import available_threads, set_num_threads

# Of the grid that public refinement files were trained on.
PUBLISHED_STRIDE = 8
# Of update networks that do not tell: an eighth of the work of a key frame that is seen at 1.5.
UPDATE_SCALE = 0.5


def build_engine(config: EngineConfig, segmenter: Segmenter | None = None, classes: ClassTable | None = None) -> Engine:
    """Load what `config` names and put it together. Sets the process's thread budget.

    Args:
        segmenter: takes the place of the network in `config.weights`; then `classes` must be given, too.

    Raises:
        ConfigError: device not there, or unreadable ego mask.
        CheckpointError: weights missing, damaged, of another network or with other classes.
        ClassTableError: unknown or malformed class table.
    """
    device = _device(config.device)
    beside = config.key_frames == "async" and device.type == "cpu" and segmenter is None
    num_threads = set_num_threads(_num_threads(config, beside))
    runtime = Runtime(config.runtime, device, num_threads)
    files: dict[str, Path] = {}
    if segmenter is None:
        files["segmenter"] = find_weights(config.weights)
        scale = _input_scale(files["segmenter"], config.input_scale, 1.0)
        segmenter = load_segmenter(files["segmenter"], scale, device, runtime)
        classes = _classes(config, files["segmenter"], segmenter.num_classes)
    light, refine, feedback = None, None, True
    if config.refine_weights is not None:
        files["refine"] = find_weights(config.refine_weights)
        light, refine = checkpoint.load_swnet_seq(files["refine"])
        check_table(files["refine"], refine.num_classes, classes)
        trained = read_metadata(files["refine"])
        feedback = trained.get("feedback", True)  # public files do
        if config.refine and config.grid_stride is None:
            config = replace(config, grid_stride=trained.get("grid_stride", PUBLISHED_STRIDE))
    flow = _flow(config, light, files, device, runtime)
    refine = Refinement(ready(refine, device), runtime.executor) if config.refine else None
    updater = None
    if config.update_weights is not None:
        files["updater"] = find_weights(config.update_weights)
        scale = _input_scale(files["updater"], config.update_scale, UPDATE_SCALE)
        # Even if it is the network of key frames: the two run at the same time, at sizes of their own.
        updater = load_segmenter(files["updater"], scale, device, runtime, "update network")
        check_table(files["updater"], updater.num_classes, classes)
    if beside:  # late, as it has to be ended where anything fails
        task = Task(files["segmenter"].absolute(), segmenter.input_scale, config.runtime, num_threads)
        segmenter = SegmenterProcess(task, segmenter.num_classes)
    networks = Networks(segmenter, flow, refine, device, feedback, updater)
    try:
        return Engine(config, classes, networks, files, runtime, num_threads)
    except ConfigError:
        if beside:
            segmenter.close()
        raise


def _input_scale(path: Path, scale: float | None, otherwise: float) -> float:
    """`scale`, or else the one that the network in a file was trained for, or else `otherwise`."""
    return scale or read_metadata(path).get("input_scale") or otherwise


def _num_threads(config: EngineConfig, beside: bool) -> int:
    """The budget.

    A segmenter in a process of its own stands still while a stream is at a frame: each has everything. Stream and
    segmenter in threads compute at the same time, each with half of what there is.
    """
    budget = config.num_threads or available_threads()
    return max(1, budget // 2) if config.key_frames == "async" and not beside else budget


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device: expected a device that is there, got {name!r}; CUDA devices: {torch.cuda.device_count()}"
        )
    return device


def _classes(config: EngineConfig, path: Path, num_classes: int) -> ClassTable:
    """The class table of the segmenter: the file's own, or the configured one where the file does not tell."""
    stored = _stored_classes(path)
    if config.classes is None and stored is None:
        raise CheckpointError(f"{path}: does not tell its {num_classes} classes; name a class table (`classes`)")
    table = stored if config.classes is None else load_classes(config.classes)
    check_table(path, num_classes, table)
    return table


def _stored_classes(path: Path) -> ClassTable | None:
    stored = read_classes(path)
    if stored is None and (record := record_of(path)) is not None and record.classes:
        stored = load_classes(record.classes)
    return stored


def check_table(path: Path, num_classes: int, table: ClassTable) -> None:
    """Raises CheckpointError unless the network in `path` has the classes of `table`, as far as the file tells."""
    checkpoint.check_classes(path, num_classes, table)
    stored = _stored_classes(path)
    if stored is not None and stored.names != table.names:
        raise CheckpointError(
            f"{path}: expected the classes of table {table.name!r} ({', '.join(table.names)}), "
            f"found those of {stored.name!r} ({', '.join(stored.names)})"
        )


def _flow(
    config: EngineConfig, light: FlowLight | None, files: dict[str, Path], device: torch.device, runtime: Runtime
) -> FlowEstimator:
    if config.flow == "none":
        return NoFlow()
    if config.flow == "dis":
        return DIS(config.dis_preset, config.flow_scale)
    if config.flow_weights is not None:
        path = files["flow"] = find_weights(config.flow_weights)
        network = checkpoint.load_flow_light(path) if config.flow == "light" else checkpoint.load_flownet(path)
        expected = checkpoint.FLOW_NETWORKS[config.flow]
        if not isinstance(network, expected):
            raise CheckpointError(f"{path}: expected weights of {expected.__name__}, found {type(network).__name__}")
    elif light is None:
        raise CheckpointError(f"{files['refine']}: brings no flow network, and flow 'light' needs one (`flow_weights`)")
    else:
        network = light
    network = ready(network, device)
    return NetworkFlow(network, runtime.executor(network, "flow network"))
