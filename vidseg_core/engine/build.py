"""Build an engine from its configuration: device, threads, networks."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vidseg_core.backends.backend import is_foreign
from vidseg_core.backends.blob_cache import identity_of
from vidseg_core.backends.choose import Runtime
from vidseg_core.classes import ClassTable, load_classes
from vidseg_core.devices import Device, open_device
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.flow import DIS, FlowEstimator, NetworkFlow, NoFlow
from vidseg_core.engine.key_frames.process import SegmenterProcess
from vidseg_core.engine.key_frames.worker import Task
from vidseg_core.engine.segmenter import (
    Segmenter,
    check_segmenter,
    input_scale,
    is_half_pixel,
    load_segmenter,
    ranges_of,
    ready,
)
from vidseg_core.engine.stream import Networks
from vidseg_core.engine.update_network import UpdateNetwork
from vidseg_core.errors import CheckpointError, ConfigError, VidsegError
from vidseg_core.kernel_cache import take_over_installed
from vidseg_core.kernels.cpu.difference import difference_rows
from vidseg_core.models.architectures import FLOW, FLOW_LIGHT, REFINEMENT, SEGMENTER, SWNET_SEQ
from vidseg_core.models.open import Model, is_known, open_model, open_reloadable
from vidseg_core.models.registry import find_weights
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB
from vidseg_core.threads import available_threads, set_num_threads, tell_torch

if TYPE_CHECKING:
    from vidseg_core.networks.flow_light import FlowLight
    from vidseg_core.networks.flownet_s import FlowNet2S, UpstreamFlowNetS
    from vidseg_core.networks.guided_refine import GuidedRefine

log = logging.getLogger(__name__)
# Stride of the grid that public refinement files were trained on.
PUBLISHED_STRIDE = 8
# Default input scale of an update network whose card has none.
UPDATE_SCALE = 0.5


def build_engine(
    config: EngineConfig,
    segmenter: Segmenter | None = None,
    classes: ClassTable | None = None,
    *,
    updater: Segmenter | None = None,
) -> Engine:
    """Load what `config` names and put it together. Sets the process's thread budget.

    Args:
        segmenter: takes the place of the network in `config.weights`; then `classes` must be given, too. Any function
            becomes one by `network_segmenter`.
        updater: takes the place of the network in `config.update_weights`, which must not be given then.

    Raises:
        ConfigError: device not there, unreadable ego mask, a segmenter without its class table, or an updater with
            another number of classes.
        CheckpointError: weights missing, damaged, of another network or with other classes.
        ClassTableError: unknown or malformed class table.
    """
    take_over_installed(difference_rows)
    device = open_device(config.device)
    beside = config.key_frames == "async" and device.type == "cpu" and segmenter is None
    on_card = device.type == "cuda"
    num_threads = set_num_threads(_num_threads(config, beside or on_card))
    runtime = Runtime(config.runtime, device, num_threads)
    models = _Models()
    task: Task | None = None
    update_task: Task | None = None
    if segmenter is None:
        model = models.open_elsewhere(config.weights) if beside else models.open(config.weights, SEGMENTER)
        scale = input_scale(model.card.input, config.input_scale)
        num_classes = cast(int, model.networks[SEGMENTER].num_classes)
        classes = _classes(config, model, num_classes)
        if beside:
            task = _task(config, model, scale, runtime, num_threads)
        else:
            segmenter = load_segmenter(model, scale, device, runtime)
    elif classes is None:
        raise ConfigError("classes: expected the class table of the given segmenter, got none")
    refinement: Model | None = None
    feedback = True
    if config.refine_weights is not None:
        refinement = models.open(config.refine_weights, REFINEMENT)
        refinement.check_classes(classes)
        _check_grid_input(refinement)
        feedback = bool(refinement.card.notes.get("feedback", True))  # public files do
        if config.refine and config.grid_stride is None:
            stride: Any = refinement.card.notes.get("grid_stride", PUBLISHED_STRIDE)
            config = replace(config, grid_stride=stride)
    flow = _flow(config, refinement, models, device, runtime)
    refine = None
    if config.refine:
        from vidseg_core.engine.refine import Refinement

        assert refinement is not None  # `EngineConfig` asks for its weights
        network = cast("GuidedRefine", ready(refinement.networks[REFINEMENT], device))
        refine = Refinement(network, runtime.executor)
    if updater is not None:
        if config.update_weights is not None:
            raise ConfigError(f"update_weights: expected none beside the given updater, got {config.update_weights}")
        if updater.num_classes != len(classes):
            raise ConfigError(f"updater: expected {len(classes)} classes, got {updater.num_classes}")
    elif config.update_weights is not None:
        role = "updater"
        model = (
            models.open_elsewhere(config.update_weights, role)
            if beside
            else models.open(config.update_weights, SEGMENTER, role)
        )
        model.check_classes(classes)
        scale = input_scale(model.card.input, config.update_scale, UPDATE_SCALE)
        if beside:
            update_task = _task(config, model, scale, runtime, num_threads, "usual")
        else:
            updater = load_segmenter(model, scale, device, runtime, "update network")
    processes: list[SegmenterProcess] = []  # late, as they have to be ended where anything fails
    if task is not None:
        segmenter = _process(task, num_classes, models.by_role[SEGMENTER], processes)
    if update_task is not None:
        updater = _process(update_task, num_classes, models.by_role["updater"], processes)
    assert segmenter is not None  # one of the two
    networks = Networks(segmenter, flow, refine, device, feedback, updater)
    tell_torch()  # where it was loaded on the way
    try:
        if on_card:
            return _on_card(config, classes, networks, models, runtime, num_threads)
        return Engine(config, classes, networks, models.by_role, runtime, num_threads)
    except ConfigError:
        for process in processes:
            process.close()
        raise


def _process(task: Task, num_classes: int, model: Model, started: list[SegmenterProcess]) -> SegmenterProcess:
    """Start a process for a network with these classes, and add it to those that were started."""
    started.append(SegmenterProcess(task, num_classes, model.card.input, model.card.output))
    return started[-1]


def _on_card(
    config: EngineConfig, classes: ClassTable, networks: Networks, models: _Models, runtime: Runtime, num_threads: int
) -> Engine:
    """Put together an engine that asks a CUDA device, and times it by the device's clock."""
    import torch

    from vidseg_core.engine.event_times import EventTimes
    from vidseg_core.engine.key_frames.cuda_queues import CudaQueues
    from vidseg_core.kernels.recording import CudaGraphs

    device = networks.device
    networks = replace(networks, times=EventTimes, recorder=CudaGraphs(device))
    # Of several cards, kernels go to the one in use.
    in_use = partial(torch.cuda.device, device)
    return Engine(config, classes, networks, models.by_role, runtime, num_threads, partial(CudaQueues, device), in_use)


def update_network(engine: Engine) -> UpdateNetwork | None:
    """Make the update network that the record of an engine's segmentation network names, for a governor.

    Returns:
        None where the record names none, and where it cannot be used, which is logged: on other devices than the CPU,
        without its file, or where it was not compiled for this computer.
    """
    accuracy, config = engine.accuracy, engine.config
    named = None if accuracy is None or accuracy.update is None else accuracy.update.weights
    if named is None:
        return None
    try:
        if engine.networks.device.type != "cpu" or config.key_frames != "async":
            raise ConfigError("it is used only on the CPU, with asynchronous key frames")
        if not is_known(named):
            raise ConfigError("`vidseg compile` has not been run for it here")
        model = open_reloadable(named)
        model.check_classes(engine.classes)
        scale = input_scale(model.card.input, None, UPDATE_SCALE)
        task = _task(config, model, scale, engine.runtime, engine.num_threads, "usual")
    except VidsegError as error:
        log.info("governor: no update network (%s): %s", named, error)
        return None
    num_classes = cast(int, model.networks[SEGMENTER].num_classes)
    given, found = model.card.input, model.card.output
    start = partial(SegmenterProcess, task, num_classes, given, found)
    return UpdateNetwork(start, num_classes, is_half_pixel(given, found))


def _task(
    config: EngineConfig, model: Model, scale: float | None, runtime: Runtime, num_threads: int, priority: str = "idle"
) -> Task:
    """Describe a segmenter that is executed in another process; its network is not needed here."""
    check_segmenter(model, runtime)
    network, ranges = model.networks[SEGMENTER], ranges_of(model.card)
    if config.runtime != "auto" or is_foreign(network):
        runtime.backends_for(network, SEGMENTER, ranges)  # whether anything can execute it is said here
    return Task(model.path.absolute(), scale, config.runtime, num_threads, priority, identity_of(network), ranges)


class _Models:
    """The models of an engine, each of whose files is opened once.

    Attributes:
        by_role: which model the network of each role came from, without its networks.
    """

    def __init__(self):
        self.by_role: dict[str, Model] = {}
        self._opened: dict[Path, Model] = {}

    def open(self, name_or_path: str | Path, kind: str, role: str | None = None) -> Model:
        """Open a model that brings a network of `kind`, for `role`, by default that of the same name.

        A file that is asked for again gives networks of their own: they may run at the same time, at other sizes.
        """
        path = find_weights(name_or_path)
        if path in self._opened and kind in self._opened[path].networks:
            model = deepcopy(self._opened[path])
        else:
            model = self._opened[path] = open_model(path, kind)
        # The engine holds the networks that it uses.
        self.by_role[role or kind] = replace(model, networks={})
        return model

    def open_elsewhere(self, name_or_path: str | Path, role: str = SEGMENTER) -> Model:
        """Open a model whose segmentation network another process executes; see `open_reloadable`."""
        model = open_reloadable(name_or_path)
        self.by_role[role] = replace(model, networks={})
        return model


def _num_threads(config: EngineConfig, elsewhere: bool) -> int:
    """Thread budget of the streams.

    A segmenter in a process of its own stands still while a stream is at a frame, and one on a card takes no processor:
    each has everything. Stream and segmenter in threads compute at the same time, each with half of what there is.
    """
    budget = config.num_threads or available_threads()
    return max(1, budget // 2) if config.key_frames == "async" and not elsewhere else budget


def _classes(config: EngineConfig, model: Model, num_classes: int) -> ClassTable:
    """The class table of the segmenter: the model's own, or the configured one where the card has none."""
    stored = model.card.classes
    if config.classes is None and stored is None:
        raise CheckpointError(f"{model.path}: does not tell its {num_classes} classes; name a class table (`classes`)")
    table = stored if config.classes is None else load_classes(config.classes)
    assert table is not None
    model.check_classes(table)
    return table


def _check_grid_input(model: Model) -> None:
    """Check that a network on the grid can share the picture that the others on it see, see `geometry.View`."""
    given = model.card.input
    if not given.is_raw and not given.is_default_normalisation:
        raise CheckpointError(
            f"{model.path}: normalisation: expected mean {MEAN_RGB} and deviation {STD_RGB}, as all networks on the "
            f"grid share, found {given.mean} and {given.std}"
        )


def _flow(
    config: EngineConfig, refinement: Model | None, models: _Models, device: Device, runtime: Runtime
) -> FlowEstimator:
    if config.flow == "none":
        return NoFlow()
    if config.flow == "dis":
        flow = DIS(config.dis_preset, config.flow_scale)
        if device.type == "cuda":
            log.info("flow: dis_preset %s, computed %s", config.dis_preset, flow.place(device))
        return flow
    if config.flow_weights is not None:
        model = models.open(config.flow_weights, FLOW)
        expected = (FLOW_LIGHT, SWNET_SEQ) if config.flow == FLOW_LIGHT else (config.flow,)
        if model.card.architecture not in expected:
            raise CheckpointError(
                f"{model.path}: expected weights of {' or '.join(expected)}, found {model.card.architecture}"
            )
        _check_grid_input(model)
    else:
        assert refinement is not None  # `EngineConfig` asks for one of the two
        if FLOW not in refinement.networks:
            raise CheckpointError(
                f"{refinement.path}: brings no flow network, and flow 'light' needs one (`flow_weights`)"
            )
        model = refinement
    network = cast("FlowLight | UpstreamFlowNetS | FlowNet2S", ready(model.networks[FLOW], device))
    return NetworkFlow(network, runtime.executor(network, "flow network"))
