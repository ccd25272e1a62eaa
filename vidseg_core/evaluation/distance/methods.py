"""Build the methods that an evaluation compares: all combinations of its choices, each built once."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import product

import torch

from vidseg_core.classes import ClassTable
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.refine import Refinement
from vidseg_core.engine.segmenter import Segmenter, TruthSegmenter
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.distance.evaluate import Method
from vidseg_core.networks.guided_refine import GuidedRefine


@dataclass(frozen=True)
class MethodChoices:
    """Choices to combine into methods. Where there is no refinement, `refine_weights` and `edge` make no difference.

    Attributes:
        intervals: frames between two key frames.
        scales: of the network's input; None takes the one it was trained for.
        flows: see `EngineConfig.flow`.
        fusion: whether key frames keep what the past knew.
        update_weights: see `EngineConfig`.
        update_scales: see `EngineConfig.update_scale`.
        refine: whether to repair propagated labels.
        refine_weights: with which weights.
        edge: whether the refinement sees the edge map; None: as its network was made. False for a network that was
            made with it gives it an empty map.
    """

    intervals: tuple[int, ...]
    scales: tuple[float | None, ...]
    flows: tuple[str, ...]
    fusion: tuple[bool, ...]
    refine: tuple[bool, ...]
    refine_weights: tuple[str | None, ...]
    edge: tuple[bool | None, ...] = (None,)
    update_weights: tuple[str | None, ...] = (None,)
    update_scales: tuple[float | None, ...] = (None,)


def build_methods(base: EngineConfig, choices: MethodChoices, truth: ClassTable | None = None) -> list[Method]:
    """Build one method for each combination.

    Args:
        base: everything that `choices` do not say.
        truth: ground truth of these classes labels the key frames instead of a network.

    Raises:
        ConfigError, CheckpointError, ClassTableError: as `build_engine`.
        ConfigError: `edge` is True for a network that was made without edge map.
    """
    methods: list[Method] = []
    segmenters: dict[float | None, tuple[Segmenter, ClassTable]] = {}
    if truth is not None:
        segmenters = {scale: (TruthSegmenter(len(truth)), truth) for scale in choices.scales}
    repairs: list[tuple[bool, str | None, bool | None]] = []
    for refine in dict.fromkeys(choices.refine):
        if refine:
            repairs += product((True,), choices.refine_weights, choices.edge)
        else:
            repairs.append((False, choices.refine_weights[0], None))
    combinations = []
    updates: list[tuple[str | None, float | None]] = []
    for name in choices.update_weights:
        updates += product((name,), choices.update_scales if name else (None,))
    for scale, flow, fusion, (update, update_scale), (refine, weights, edge) in product(
        choices.scales, choices.flows, choices.fusion, updates, repairs
    ):
        chosen = {
            "input_scale": scale, "flow": flow, "fusion": fusion, "refine": refine, "refine_weights": weights,
            "update_weights": update, "update_scale": update_scale,
        }  # fmt: skip
        # All are checked before the first file is read.
        configs = [replace(base, **chosen, interval=interval) for interval in choices.intervals]
        combinations.append((configs[-1], edge))
    updaters: dict[tuple[str | None, float | None], Segmenter | None] = {}
    for config, edge in combinations:
        engine = build_engine(config, *segmenters.get(config.input_scale, ()))
        segmenters.setdefault(config.input_scale, (engine.networks.segmenter, engine.classes))
        updater = updaters.setdefault((config.update_weights, config.update_scale), engine.networks.updater)
        engine = engine.variant(updater=updater)
        if config.refine:
            engine, edge = _choose_edge(engine, edge)
        traits = {
            "scale": getattr(engine.networks.segmenter, "input_scale", None), "flow": config.flow,
            "fusion": config.fusion, "update": config.update_weights,
            "update_scale": getattr(updater, "input_scale", None), "refine": config.refine, "edge": edge,
            "refine_weights": config.refine_weights if config.refine else None,
        }  # fmt: skip
        methods.append(Method(engine, traits, choices.intervals))
    return methods


def _choose_edge(engine: Engine, edge: bool | None) -> tuple[Engine, bool]:
    """Return the engine whose refinement does or does not see the edge map, and whether it does."""
    network = engine.networks.refine.network
    if edge is None or edge == network.edge:
        return engine, network.edge
    if edge:
        raise ConfigError(f"edge: expected a network made with edge map, {engine.config.refine_weights} has none")
    return engine.variant(refine=Refinement(without_edge(network), engine.runtime.executor)), False


def without_edge(network: GuidedRefine) -> GuidedRefine:
    """Copy a network so that it computes as with an empty edge map: the weights that see the map become 0."""
    copy = deepcopy(network)
    with torch.no_grad():
        copy.guide.guide_conv[0].weight[:, copy.num_classes :] = 0.0
    return copy
