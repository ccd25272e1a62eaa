"""Command line options that make an `EngineConfig`; the same for every command that builds an engine.

An option that is not given is left to `EngineConfig`, where each default is written once.
"""

from __future__ import annotations

import argparse
import re
from functools import partial
from typing import Any

from vidseg_core.cli.former import add_spelling
from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError
from vidseg_core.options import AUTO, Option, options_of

# Options of which evaluations compare several values.
_COMPARED = ("refine_weights", "interval", "input_scale", "flow", "update_weights", "update_scale", "fusion", "refine")
_METAVARS = {int: "N", float: "X"}


def add_engine_arguments(parser: argparse.ArgumentParser, several: bool = False, without: tuple[str, ...] = ()) -> None:
    """Add a flag for every option of `EngineConfig`; `engine_config` reads them.

    Args:
        parser: of a command.
        several: let those options take more than one value that evaluations compare.
        without: options left out: the command has a flag of that name with a meaning of its own, or gives nothing that
            depends on them.
    """
    group = parser.add_argument_group("engine")
    names = [name for name in options_of(EngineConfig) if name not in without]
    for name in names:
        one = options_of(EngineConfig)[name]
        _add(group, one, several and name in _COMPARED)
        if several and name == "refine":
            group.add_argument(
                "--edge", choices=("on", "off"), nargs="+",
                help="let refinement see label edges; off gives a network made with them none "
                "(default: as it was made)",
            )  # fmt: skip
    parser.set_defaults(engine_options=tuple(names))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add(group: argparse._ArgumentGroup, one: Option, several: bool) -> None:
    about: dict = {"dest": one.name, "default": None}
    if several:
        about["nargs"] = "+"
    if one.type is bool:
        about |= {"choices": ("on", "off")} if several else {"action": argparse.BooleanOptionalAction}
    else:
        about["type"] = partial(_number_or_auto, one.type) if one.auto else one.type
        if one.choices:
            about["choices"] = one.choices
        elif metavar := one.metavar or _METAVARS.get(one.type):
            about["metavar"] = metavar
    action = group.add_argument(_flag(one.name), help=_help(one, several), **about)
    for spelling in one.spellings:
        add_spelling(group, spelling, action)


def _number_or_auto(kind: type, text: str) -> Any:
    if text == AUTO:
        return None
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {AUTO} or a number, got {text!r}") from None


def _help(one: Option, several: bool) -> str:
    """Word an option's help as that of a flag: other options by their flags, and the default behind."""
    text = one.help.removesuffix(".")
    if text[1:2].islower():
        text = text[0].lower() + text[1:]
    if several and one.name == "update_weights":
        text += "; none for none"
    if one.name == "refine":
        default = "on with `refine_weights`"
    elif one.default is None:
        default = one.unset
    else:
        default = ("on" if one.default else "off") if one.type is bool else str(one.default)
    known = options_of(EngineConfig)
    text = re.sub(
        r"`(\w+)`", lambda found: _flag(found[1]) if found[1] in known else found[1], f"{text} (default: {default})"
    )
    return text.replace("`", "").replace("%", "%%")


def method_choices(args: argparse.Namespace):
    """Return the `MethodChoices` of the options of `add_engine_arguments(several=True)` and all else as `EngineConfig`.

    Raises:
        ConfigError: as `engine_config`; or key frames would not come where scores by distance need them.
    """
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
    base = engine_config(args, refine_weights=choices.refine_weights[0], **fixed)
    for name, needed in (("schedule", "fixed"), ("key_frames", "sync")):
        if getattr(base, name) != needed:
            raise ConfigError(
                f"{_flag(name)}: expected {needed}, since frames are told apart by their distance from the key frame, "
                f"got {getattr(base, name)}"
            )
    return base, choices


def engine_config(args: argparse.Namespace, **fixed) -> EngineConfig:
    """Make the configuration that the options say; `fixed` values take the place of given ones.

    Raises:
        ConfigError: a value is out of range, or two contradict each other.
    """
    given = {name: getattr(args, name) for name in args.engine_options if getattr(args, name) is not None}
    given.setdefault("refine", args.refine_weights is not None)
    return EngineConfig(**given | fixed)
