"""Command line options that make an `EngineConfig`; the same for every command that builds an engine.

An option that is not given is left to `EngineConfig`, where each default is written once.
"""

from __future__ import annotations

import argparse

from vidseg_core.engine.config import DIS_PRESETS, FLOWS, GRID_STRIDES, RUNTIMES, EngineConfig

_FIELDS = (
    "weights refine_weights flow_weights classes interval input_scale grid_stride flow flow_scale dis_preset "
    "update_weights update_scale fusion refine device runtime num_threads ego_mask"
).split()


def add_engine_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Add the options; with `several`, those that evaluations compare take more than one value."""
    default = EngineConfig()
    number = {"nargs": "+"} if several else {}
    group = parser.add_argument_group("engine")
    group.add_argument("--weights", metavar="NAME|PATH", help=f"segmentation network (default: {default.weights})")
    group.add_argument(
        "--refine-weights", metavar="NAME|PATH", help="guided refinement, perhaps with a flow network", **number
    )
    group.add_argument("--flow-weights", metavar="NAME|PATH", help="flow network (default: in --refine-weights)")
    group.add_argument("--classes", metavar="NAME|PATH", help="class table (default: the one in the weights)")
    group.add_argument(
        "--interval", type=int, metavar="N", help=f"frames between two key frames (default: {default.interval})",
        **number,
    )  # fmt: skip
    group.add_argument(
        "--scale", type=float, dest="input_scale", metavar="S",
        help="size of the network's input (default: as trained)", **number,
    )  # fmt: skip
    group.add_argument(
        "--grid-stride", type=int, choices=GRID_STRIDES, help="of the carried logits (default: 2 or 4, by image size)"
    )
    group.add_argument("--flow", choices=FLOWS, help=f"how motion is found (default: {default.flow})", **number)
    group.add_argument("--flow-scale", type=float, metavar="S", help="size of the image for --flow dis")
    group.add_argument("--dis-preset", choices=DIS_PRESETS, help=f"for --flow dis (default: {default.dis_preset})")
    group.add_argument(
        "--update-weights", metavar="NAME|PATH",
        help="network that looks at propagated frames at low resolution, so that less is lost far from key frames"
        + ("; none for none" if several else ""), **number,
    )  # fmt: skip
    group.add_argument(
        "--update-scale", type=float, metavar="S", help="size of its input (default: as trained)", **number
    )
    switch = {"choices": ("on", "off"), "nargs": "+"} if several else {"action": argparse.BooleanOptionalAction}
    usual = "on" if default.fusion else "off"
    group.add_argument("--fusion", help=f"blend the carried past into key frames (default: {usual})", **switch)
    group.add_argument("--refine", help="repair propagated labels (default: with its weights)", **switch)
    if several:
        group.add_argument(
            "--edge", choices=("on", "off"), nargs="+",
            help="let refinement see label edges; off gives a network made with them none (default: as it was made)",
        )  # fmt: skip
    group.add_argument("--device", help=f"auto, cpu, cuda or cuda:N (default: {default.device})")
    group.add_argument(
        "--runtime", choices=RUNTIMES, help=f"what executes networks on the CPU (default: {default.runtime})"
    )
    group.add_argument("--threads", type=int, dest="num_threads", metavar="N", help="on the CPU (default: all)")
    group.add_argument("--ego-mask", metavar="PNG", help="where it is not 0 the vehicle sees itself: labels are void")


def method_choices(args: argparse.Namespace):
    """Return the `MethodChoices` of the options of `add_engine_arguments(several=True)` and all else as `EngineConfig`.

    Raises:
        ConfigError: as `engine_config`.
    """
    from vidseg_core.errors import ConfigError
    from vidseg_core.evaluation.distance.methods import MethodChoices

    default = EngineConfig()

    def each(values, otherwise) -> tuple:
        return tuple(dict.fromkeys(values or (otherwise,)))

    def switches(words, otherwise) -> tuple:
        return each([word == "on" for word in words or ()], otherwise)

    choices = MethodChoices(
        intervals=tuple(sorted(each(args.interval, default.interval))),
        scales=each(args.input_scale, None),
        flows=each(args.flow, default.flow),
        fusion=switches(args.fusion, default.fusion),
        refine=switches(args.refine, args.refine_weights is not None),
        refine_weights=each(args.refine_weights, None),
        edge=switches(args.edge, None),
        update_weights=each([None if name == "none" else name for name in args.update_weights or ()], None),
        update_scales=each(args.update_scale, None),
    )
    if args.update_scale and not any(choices.update_weights):
        raise ConfigError("--update-scale: it is the scale of --update-weights, none are given")
    # What is chosen takes the place of these.
    fixed = {"interval": 0, "input_scale": None, "flow": "none", "fusion": False, "refine": False}
    fixed |= {"update_weights": None, "update_scale": None}
    return engine_config(args, refine_weights=choices.refine_weights[0], **fixed), choices


def engine_config(args: argparse.Namespace, **fixed) -> EngineConfig:
    """Make the configuration that the options say; `fixed` values take the place of given ones.

    Raises:
        ConfigError: a value is out of range, or two contradict each other.
    """
    given = {name: getattr(args, name) for name in _FIELDS if getattr(args, name) is not None}
    given.setdefault("refine", args.refine_weights is not None)
    return EngineConfig(**given | fixed)
