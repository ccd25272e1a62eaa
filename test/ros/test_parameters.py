"""One table declares, checks and documents every parameter."""

from dataclasses import fields

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from rclpy.parameter import Parameter  # noqa: E402

from vidseg_core.engine.config import EngineConfig  # noqa: E402
from vidseg_core.errors import ConfigError  # noqa: E402
from vidseg_ros import parameters  # noqa: E402
from vidseg_ros.parameters import DECLARATIONS  # noqa: E402

DEFAULTS = {name: one.default for name, one in DECLARATIONS.items()}


@pytest.fixture
def node(ros):
    made = []

    def make(**given):
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        made.append(ros.create_node("owner", parameter_overrides=overrides))
        return made[-1]

    yield make
    for one in made:
        one.destroy_node()


def test_every_field_of_the_engine_s_configuration_is_a_parameter():
    assert {field.name for field in fields(EngineConfig)} - set(DECLARATIONS) == {"confidence"}


def test_the_defaults_are_the_engine_s():
    assert parameters.engine_config(DEFAULTS) == EngineConfig()


def test_values_reach_the_engine():
    values = DEFAULTS | {"interval": 2, "input_scale": 0.5, "weights": "/w", "warp_padding": "zeros", "num_threads": 1}
    expected = EngineConfig(interval=2, input_scale=0.5, weights="/w", warp_padding="zeros", num_threads=1)
    assert parameters.engine_config(values) == expected


@pytest.mark.parametrize("written", ["auto", 0.0, 0])
def test_auto_and_the_0_of_version_0_1_0_leave_the_size_to_the_weights(written):
    values = DEFAULTS | {"input_scale": written}
    parameters.check(values, values, configured=False)
    assert parameters.engine_config(values).input_scale is None


@pytest.mark.parametrize("written", ["auto", 0.75, 1])
def test_a_number_may_stand_where_auto_does(node, written):
    owner = node(input_scale=written)
    parameters.declare(owner)
    assert parameters.values_of(owner)["input_scale"] == written


def test_each_is_declared_with_description_type_and_range(node):
    owner = node()
    parameters.declare(owner)
    for name, one in DECLARATIONS.items():
        descriptor = owner.describe_parameter(name)
        assert descriptor.description.endswith(".") and descriptor.type == one.type.value
        assert owner.get_parameter(name).value == one.default
    interval, opacity = owner.describe_parameter("interval"), owner.describe_parameter("overlay_opacity")
    assert (interval.integer_range[0].from_value, interval.integer_range[0].to_value) == (0, 1000)
    assert (opacity.floating_point_range[0].from_value, opacity.floating_point_range[0].to_value) == (0.0, 1.0)
    assert "dis, light" in owner.describe_parameter("flow").additional_constraints
    assert "unconfigured" in owner.describe_parameter("flow").additional_constraints
    assert "unconfigured" not in interval.additional_constraints


def test_a_value_out_of_range_is_refused_at_the_start(node):
    from rclpy.exceptions import InvalidParameterValueException

    with pytest.raises(InvalidParameterValueException, match="interval"):
        parameters.declare(node(interval=-1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"flow": "magic"}, "flow: expected one of dis, light, flownet_s, flownet2_s, none, got 'magic'"),
        ({"overlay_opacity": 1.5}, "overlay_opacity: expected 0 to 1, got 1.5"),
        ({"wanted_rate_hz": float("nan")}, "wanted_rate_hz: expected 0 to 1000, got nan"),
        ({"front.interval": -3}, "interval: expected auto, 0 to 1000, got -3"),
        ({"input_scale": 0.1}, "input_scale: expected auto, 0.25 to 2, got 0.1"),
        ({"input_scale": "large"}, "input_scale: expected auto, 0.25 to 2, got 'large'"),
        ({"input_scale": True}, "input_scale: expected auto, 0.25 to 2, got True"),
        ({"refine": True}, "refine: refinement needs refine_weights, none are given"),
        ({"device": "tpu"}, "device: expected auto, cpu, cuda or cuda:N, got 'tpu'"),
        ({"cameras": ["front", "front"]}, "cameras: expected names that differ, got ['front', 'front']"),
        ({"labels_size": "640*360"}, "labels_size: expected WIDTHxHEIGHT, such as 640x360, or nothing, got '640*360'"),
        (
            {"points_extrinsic": "0 0 1 0 0 0 0"},
            "points_extrinsic: expected seven numbers, x y z qx qy qz qw, or nothing, got '0 0 1 0 0 0 0'",
        ),
        ({"cameras": ["2nd"]}, "cameras: expected letters, digits, _ and /, beginning with a letter, got '2nd'"),
    ],
)
def test_an_invalid_value_is_refused_with_the_reason(changes, reason):
    with pytest.raises(ConfigError) as caught:
        parameters.check(DEFAULTS | changes, changes, configured=False)
    assert str(caught.value) == reason


def test_what_cannot_change_while_configured_says_so():
    with pytest.raises(ConfigError, match="flow: can be set while the node is unconfigured"):
        parameters.check(DEFAULTS | {"flow": "none"}, ["flow"], configured=True)
    parameters.check(DEFAULTS | {"flow": "none"}, ["flow"], configured=False)


def test_what_may_change_while_active():
    changing = {name for name, one in DECLARATIONS.items() if one.while_active}
    outputs = {f"publish_{output}" for output in parameters.OUTPUTS}
    assert changing == outputs | {
        "interval",
        "labels_encoding",
        "labels_scale",
        "labels_size",
        "max_age_s",
        "overlay_opacity",
        "points_extrinsic",
        "points_slop_s",
        "points_stride",
        "wanted_rate_hz",
        "watchdog_s",
    }
    parameters.check(DEFAULTS, changing, configured=True)


def test_parameters_of_others_are_not_our_business():
    parameters.check(DEFAULTS | {"refine": True}, ["use_sim_time", "front.nonsense", "front.flow"], configured=True)


def test_no_names_mean_one_camera():
    assert parameters.camera_names({"cameras": [""]}) == ("",)
    assert parameters.camera_names({"cameras": []}) == ("",)
    assert parameters.camera_names({"cameras": ["front", "rear/left"]}) == ("front", "rear/left")


def test_a_camera_s_own_value_takes_the_place_of_the_node_s(node):
    owner = node(
        cameras=["front", "left"],
        interval=7,
        **{"front.interval": 2, "left.ego_mask": "/left.png", "left.publish_overlay": False},
    )
    parameters.declare(owner)
    for camera in ("front", "left"):
        parameters.declare_overrides(owner, camera)
    values = parameters.values_of(owner)
    front, left = (parameters.camera_settings(values, camera) for camera in ("front", "left"))
    assert (front.interval, left.interval) == (2, 7)
    assert (front.ego_mask, left.ego_mask) == (None, "/left.png")
    assert front.outputs - parameters.ALWAYS == {"labels", "overlay", "labels_color"}
    assert left.outputs - parameters.ALWAYS == {"labels", "labels_color"} and left.outputs >= parameters.ALWAYS
    changed = parameters.values_of(owner, [Parameter("left.interval", value=0), Parameter("interval", value=9)])
    assert [parameters.camera_settings(changed, camera).interval for camera in ("front", "left")] == [2, 0]


def test_overrides_are_of_the_node_s_type(node):
    owner = node(**{"front.interval": "often"})
    parameters.declare(owner)
    from rclpy.exceptions import InvalidParameterValueException

    with pytest.raises(InvalidParameterValueException, match="front.interval"):
        parameters.declare_overrides(owner, "front")


def test_declaring_overrides_again_keeps_their_values(node):
    owner = node(**{"front.interval": 3})
    parameters.declare(owner)
    parameters.declare_overrides(owner, "front")
    owner.set_parameters([Parameter("front.interval", value=5)])
    parameters.declare_overrides(owner, "front")
    assert owner.get_parameter("front.interval").value == 5


def test_the_table_for_people_has_a_row_for_each():
    rows = parameters.markdown().splitlines()
    assert len(rows) == 2 + len(DECLARATIONS)
    assert all(row.count("|") == 7 for row in rows)
    assert "| `interval` | `auto` | auto, 0 to 1000 | yes | yes |" in rows[2 + list(DECLARATIONS).index("interval")]


def test_the_parameter_file_is_the_table_s_and_holds_the_defaults(checkout):
    written = (checkout / "config" / "vidseg.yaml").read_text(encoding="utf-8")
    assert written == parameters.parameter_file()
    assert yaml.safe_load(written)["/**"]["ros__parameters"] == DEFAULTS


def test_a_node_takes_the_parameter_file(ros, checkout):
    arguments = ["--ros-args", "--params-file", str(checkout / "config" / "vidseg.yaml"), "-p", "interval:=2"]
    owner = ros.create_node("owner", cli_args=arguments)
    try:
        parameters.declare(owner)
        assert parameters.values_of(owner) == DEFAULTS | {"interval": 2}
    finally:
        owner.destroy_node()


def test_what_is_auto_is_the_governor_s_and_what_is_given_the_user_s():
    assert parameters.governed(DEFAULTS) == {
        "interval", "key_frames", "input_scale", "grid_stride", "update_weights"
    }  # fmt: skip
    config = parameters.engine_config(DEFAULTS)
    assert (config.interval, config.key_frames, config.input_scale, config.grid_stride) == (4, "sync", None, None)
    assert config.update_weights is None
    given = DEFAULTS | {"interval": 0, "key_frames": "sync", "input_scale": 0.5, "grid_stride": 8, "update_weights": ""}
    assert parameters.governed(given) == set()
    assert parameters.engine_config(given).interval == 0
    assert parameters.camera_settings(DEFAULTS, "").interval is None
    assert parameters.camera_settings(given, "").interval == 0
    # As files for version 0.1.0 have it.
    of_before = {"interval": 4, "key_frames": "sync", "grid_stride": 0, "update_weights": ""}
    assert parameters.governed(DEFAULTS | of_before) == {"input_scale"}
    named = DEFAULTS | {"update_weights": "camvid-update-lite0"}
    assert "update_weights" not in parameters.governed(named)
    assert parameters.engine_config(named).update_weights == "camvid-update-lite0"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (720, 1280)),
        ({"labels_scale": 0.3}, (216, 384)),
        ({"labels_size": "640x400", "labels_scale": 0.3}, (400, 640)),
    ],
)
def test_the_size_of_labels(given, expected):
    assert parameters.camera_settings(DEFAULTS | given, "").size_of_labels((720, 1280)) == expected
    assert parameters.camera_settings(DEFAULTS | {"labels_scale": 0.05}, "").size_of_labels((9, 64)) == (1, 3)
