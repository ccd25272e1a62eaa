"""Every option of the engine is a flag of every command that builds one; confidence is one of what it writes."""

import argparse
import os
import subprocess
import sys

import pytest

from vidseg_core.cli.engine_options import add_engine_arguments, engine_config, method_choices
from vidseg_core.cli.main import build_parser
from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError
from vidseg_core.options import options_of

REQUIRED = {
    "run": "drive --out o",
    "replay": "bag",
    "evaluate": "--data street:frames=9",
    "infer": "--data street:frames=9",
}
# For each option another value than its default, and what makes it possible.
OTHERS = {
    "weights": "a",
    "refine_weights": "b",
    "flow_weights": "c",
    "classes": "cityscapes",
    "interval": 7,
    "schedule": "adaptive",
    "min_interval": 2,
    "max_interval": 20,
    "change_threshold": 0.3,
    "key_frames": "async",
    "input_scale": 0.5,
    "grid_stride": 8,
    "flow": "light",
    "flow_scale": 0.25,
    "dis_preset": "medium",
    "update_weights": "d",
    "update_scale": 0.75,
    "fusion": False,
    "refine": False,
    "warp_align_corners": False,
    "warp_padding": "zeros",
    "confidence": True,
    "ego_mask": "m.png",
    "max_gap_s": 2.5,
    "device": "cpu",
    "runtime": "eager",
    "num_threads": 2,
}


def words(values, several=False):
    found = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if value is True or value is False:
            compared = several and name in ("fusion", "refine")
            found += [f"--{flag}", "on" if value else "off"] if compared else [f"--{flag}" if value else f"--no-{flag}"]
        else:
            found += [f"--{flag}", str(value)]
    return found


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_engine_arguments(parser)
    return engine_config(parser.parse_args(arguments))


def test_options_that_are_not_given_are_left_to_the_configuration():
    assert parsed() == EngineConfig()


def test_every_option_has_another_value_here():
    assert OTHERS.keys() == options_of(EngineConfig).keys()
    # With weights for refinement, off is what has to be said.
    assert {name for name, one in options_of(EngineConfig).items() if one.default == OTHERS[name]} == {"refine"}


@pytest.mark.parametrize("command", ["run", "replay"])
def test_every_option_reaches_the_configuration(command):
    values = {name: value for name, value in OTHERS.items() if command == "run" or name != "confidence"}
    arguments = [command, *REQUIRED[command].split(), *words(values)]
    args = build_parser([command]).parse_args(arguments)
    # replay hands its own --key-frames on.
    assert engine_config(args, key_frames=args.key_frames) == EngineConfig(**values)


@pytest.mark.parametrize("command", ["evaluate", "infer"])
def test_every_option_reaches_the_methods_that_are_compared(command):
    values = {name: value for name, value in OTHERS.items() if name not in ("schedule", "key_frames", "confidence")}
    args = build_parser([command]).parse_args([command, *REQUIRED[command].split(), *words(values, several=True)])
    base, choices = method_choices(args)
    compared = {"interval": 0, "input_scale": None, "flow": "none", "update_weights": None, "update_scale": None}
    assert base == EngineConfig(**values | compared)
    assert (choices.intervals, choices.scales, choices.flows) == ((7,), (0.5,), ("light",))
    assert (choices.fusion, choices.refine, choices.refine_weights) == ((False,), (False,), ("b",))
    assert (choices.update_weights, choices.update_scales) == (("d",), (0.75,))


@pytest.mark.parametrize(
    ("command", "option", "message"),
    [
        ("evaluate", "--schedule adaptive", "--schedule: expected fixed, .*, got adaptive"),
        ("infer", "--schedule adaptive", "--schedule: expected fixed, .*, got adaptive"),
        ("infer", "--key-frames async", "--key-frames: expected sync, .*, got async"),
    ],
)
def test_scores_by_distance_need_key_frames_at_fixed_places(command, option, message):
    args = build_parser([command]).parse_args([command, *REQUIRED[command].split(), *option.split()])
    with pytest.raises(ConfigError, match=message):
        method_choices(args)


def test_a_command_s_own_key_frames_keep_their_meaning():
    evaluate = build_parser(["evaluate"]).parse_args(["evaluate", *REQUIRED["evaluate"].split()])
    assert evaluate.key_frames == "network" and method_choices(evaluate)[0].key_frames == "sync"
    assert build_parser(["replay"]).parse_args(["replay", "bag"]).key_frames == "sync"


@pytest.mark.parametrize(("older", "name", "value"), [("--scale", "input_scale", 0.5), ("--threads", "num_threads", 3)])
def test_older_spellings_still_work(older, name, value):
    assert parsed(older, str(value)) == EngineConfig(**{name: value})
    assert parsed(*words({name: value})) == EngineConfig(**{name: value})


def test_auto_is_a_word_where_numbers_are():
    assert parsed("--input-scale", "auto").input_scale is None and parsed("--input-scale", "1").input_scale == 1.0
    args = build_parser(["evaluate"]).parse_args(["evaluate", "--data", "camvid:x", "--input-scale", "auto", "0.5"])
    assert method_choices(args)[1].scales == (None, 0.5)
    with pytest.raises(SystemExit):
        parsed("--input-scale", "large")


def test_refinement_is_on_if_there_are_weights_for_it():
    assert parsed("--refine-weights", "b").refine is True
    assert parsed("--refine-weights", "b", "--no-refine").refine is False
    with pytest.raises(ConfigError, match="refinement needs refine_weights"):
        parsed("--refine")


def test_help_names_flags_and_defaults():
    parser = argparse.ArgumentParser(formatter_class=lambda prog: argparse.HelpFormatter(prog, width=400))
    add_engine_arguments(parser)
    lines = [" ".join(line.split()) for line in parser.format_help().splitlines()]
    assert (
        "--min-interval N for --schedule adaptive: fewest propagated frames between two key frames (default: 1)"
    ) in lines
    assert any(line.endswith("(default: the one in --refine-weights)") for line in lines)
    assert not any("--scale" in line and "input" not in line for line in lines)
    assert "`" not in "".join(lines)


ADDED = """
import argparse
from dataclasses import dataclass

from vidseg_core.engine import config
from vidseg_core.options import option


@dataclass(frozen=True)
class Extended(config.EngineConfig):
    dummy_level: int = option(3, "Level of the dummy.", low=1, high=5, live=True)


config.EngineConfig = Extended
"""


def run_with_an_option_more(script):
    done = subprocess.run(
        [sys.executable, "-c", ADDED + script], capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_option_added_in_one_place_is_a_flag():
    script = """
from vidseg_core.cli.engine_options import engine_config
from vidseg_core.cli.main import build_parser
for command, rest in (("run", "drive --out o"), ("replay", "bag"), ("infer", "--data street:frames=9")):
    args = build_parser([command]).parse_args([command, *rest.split(), "--dummy-level", "5"])
    print(command, args.dummy_level)
args = build_parser(["run"]).parse_args(["run", "drive", "--out", "o", "--dummy-level", "5"])
print(engine_config(args).dummy_level)
try:
    build_parser(["run"]).parse_args(["run", "--help"])
except SystemExit:
    pass
"""
    lines = run_with_an_option_more(script).splitlines()
    assert lines[:4] == ["run 5", "replay 5", "infer 5", "5"]
    assert "--dummy-level N level of the dummy (default: 3)" in [" ".join(line.split()) for line in lines]


def test_an_option_added_in_one_place_is_a_parameter_and_documented():
    pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")
    script = """
from vidseg_ros import parameters
one = parameters.DECLARATIONS["dummy_level"]
print(one.type.name, one.default, one.range, one.while_active, one.per_camera)
values = {name: one.default for name, one in parameters.DECLARATIONS.items()}
print(parameters.engine_config(values | {"dummy_level": 4}).dummy_level)
print(parameters.markdown())
print(parameters.parameter_file())
"""
    lines = run_with_an_option_more(script).splitlines()
    assert lines[:2] == ["INTEGER 3 1 to 5 True False", "4"]
    assert "| `dummy_level` | `3` | 1 to 5 | yes |  | Level of the dummy. |" in lines
    at = lines.index("    dummy_level: 3")
    assert lines[at - 1] == "    # Level of the dummy. [1 to 5]"
