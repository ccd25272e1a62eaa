"""Every parameter of the node: declared, checked and documented from `NodeSettings` and `EngineConfig`.

`python -m vidseg_ros.parameters` prints the table for the documentation, `... yaml` a parameter file with the defaults.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import (
    InvalidParameterValueException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError
from vidseg_core.options import AUTO, Option, option, options_of
from vidseg_ros.messages.kinds import KINDS

OUTPUTS = ("labels", "overlay", "labels_color", "confidence")
ALWAYS = frozenset({"confidence", "probabilities"})
"""Outputs that need no parameter to be published while somebody subscribes."""
NODE_NAME = "vidseg"
# ROS has no value for "not given"; an option's own empty value stands for it.
EMPTY = {str: "", int: 0, float: 0.0}


@dataclass(frozen=True)
class Declaration:
    """One parameter.

    Attributes:
        name: as ROS knows it; per camera it is `<camera>.<name>`.
        default: also says of which type it is.
        description: one sentence.
        low, high: the smallest and the largest value allowed, for numbers.
        choices: the values allowed, where they can be listed.
        while_active: whether it may change while the node is configured or active.
        per_camera: whether a camera may have its own value.
        auto: whether the word auto stands beside numbers, or is the default; so the type is open.
        number: which kind of number stands beside the word auto, int or float.
    """

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple = ()
    while_active: bool = False
    per_camera: bool = False
    auto: bool = False
    number: type | None = None

    @classmethod
    def of(cls, one: Option) -> Declaration:
        """Declare an option. Where it may be None, the empty string or 0 stands for that and is allowed, too.

        Where None is `auto`, that word is written for it; 0, which version 0.1.0 wrote, is understood. By default
        `auto` stands for what the governor chooses, too.

        Raises:
            KeyError: it may be None and is of a type without an empty value.
        """
        default, description, choices = one.default, one.help, one.choices
        low, high = one.span or (None, None)
        if one.auto:
            description = f"{description.removesuffix('.')} ({one.unset})."
            default = AUTO if default is None else default
        elif one.optional:
            empty = EMPTY[one.type]
            default = empty if default is None else default
            description = f"{description.removesuffix('.')} ({'0' if empty == 0 else 'empty'}: {one.unset})."
            choices = (empty, *choices) if choices else ()
            low = empty if low is not None else None
        if one.governed:
            default, choices = AUTO, (AUTO, *choices) if choices and one.type is str else choices
            adds = "smaller where frames have no time for it" if one.auto else "chosen so that all frames are labelled"
            description = f"{description.removesuffix('.')}; auto: {adds}."
        # A choice of words has the type of a word.
        is_open = one.auto or (one.governed and one.type is not str)
        return cls(one.name, default, description, low, high, choices, one.live, one.per_camera, is_open, one.type)

    @property
    def type(self) -> Parameter.Type:
        return Parameter.Type.from_parameter_value(self.default)

    @property
    def range(self) -> str:
        """Say the values allowed in words; empty where all are."""
        if self.choices:
            values = ", ".join(str(choice) or "''" for choice in self.choices)
        else:
            values = "" if self.low is None else f"{self.low:g} to {self.high:g}"
        return f"{AUTO}, {values}" if self.auto else values

    @property
    def descriptor(self) -> ParameterDescriptor:
        constraints = [f"one of {self.range}"] if self.choices or self.auto else []
        constraints += [] if self.while_active else ["can be set while the node is unconfigured"]
        descriptor = ParameterDescriptor(
            name=self.name,
            type=self.type.value,
            description=self.description,
            additional_constraints="; ".join(constraints),
            dynamic_typing=self.auto,
        )
        kind = self.number if self.auto else type(self.default)
        if kind is float and self.low is not None and not self.auto:  # 0, which is understood, is outside
            descriptor.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high)]
        elif kind is int and self.low is not None:
            descriptor.integer_range = [IntegerRange(from_value=self.low, to_value=self.high, step=1)]
        return descriptor

    def check(self, value: Any) -> None:
        """Check range and choice of a value.

        Raises:
            ConfigError: the value is out of range or not one of the choices.
        """
        if self.auto and (value == AUTO or (value == 0 and not isinstance(value, bool))):
            return
        if self.auto and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"{self.name}: expected {self.range}, got {value!r}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name}: expected one of {self.range}, got {value!r}")
        if self.low is not None and not (math.isfinite(value) and self.low <= value <= self.high):
            raise ConfigError(f"{self.name}: expected {self.range}, got {value!r}")


def _publish(output: str, default: bool = True) -> Any:
    return option(default, f"Publish `{output}` while somebody subscribes to it.", live=True, per_camera=True)


@dataclass(frozen=True)
class NodeSettings:
    """Declare the node's own parameters; those of the engine are the fields of `EngineConfig`."""

    autostart: bool = option(
        True,
        "Configure and activate at the start, and end with status 1 where that fails; else a lifecycle manager does.",
    )
    cameras: list[str] = option(
        [""],
        "Names of the cameras, each with topics `<camera>/image_raw`, `<camera>/labels`, ...; none: one camera with "
        "`image_raw`, `labels`, ...",
    )
    image_transport: str = option(
        "raw",
        "raw; else subscribe to the (remapped) name of image_raw with this behind it: `/compressed`, or video from "
        "`/ffmpeg` (needs ffmpeg_image_transport_msgs) or `/foxglove` (needs foxglove_msgs).",
        choices=tuple(KINDS),
        per_camera=True,
    )
    sync: str = option(
        "none",
        "none: each camera for itself; approximate: frames of all cameras with stamps close to each other are processed"
        " as a set, others not at all (needs message_filters).",
        choices=("none", "approximate"),
    )
    sync_slop_s: float = option(0.02, "Stamps in a set are less than this apart.", low=0.0001, high=10.0)
    engine: str = option(
        "network",
        "network, or pass_through: constant labels at no cost, to measure what ROS adds.",
        choices=("network", "pass_through"),
    )
    publish_labels: bool = _publish("labels")
    publish_overlay: bool = _publish("overlay")
    publish_labels_color: bool = _publish("labels_color")
    publish_confidence: bool = option(
        False,
        "Of no effect any more: `confidence` is published while somebody subscribes to it.",
        live=True,
        per_camera=True,
    )
    labels_encoding: str = option(
        "mono8",
        "Encoding of `labels`; 8UC1 for subscribers that take mono8 for a picture.",
        choices=("mono8", "8UC1"),
        live=True,
        per_camera=True,
    )
    labels_size: str = option(
        "",
        "Size of `labels`, `labels_color` and `confidence` as WIDTHxHEIGHT, such as 640x360 (empty: the image's times "
        "`labels_scale`). Each pixel has the class that covers most of it. `labels/camera_info` fits.",
        live=True,
        per_camera=True,
    )
    labels_scale: float = option(
        1.0,
        "Size of `labels`, `labels_color` and `confidence` in units of the image's, where `labels_size` is empty.",
        low=0.05,
        high=2.0,
        live=True,
        per_camera=True,
    )
    overlay_opacity: float = option(
        0.5, "How much the colours cover the image in `overlay`.", low=0.0, high=1.0, live=True, per_camera=True
    )
    wanted_rate_hz: float = option(
        0.0,
        "Diagnostics warn when fewer labels per second come out; 0 wants as many as the camera sends.",
        low=0.0,
        high=1000.0,
        live=True,
        per_camera=True,
    )
    max_age_s: float = option(
        1.0,
        "Labels are void where no network has seen a frame for longer than this, in seconds; and diagnostics say so.",
        low=0.01,
        high=86400.0,
        live=True,
        per_camera=True,
    )
    points_from: str = option(
        "depth",
        "Source of `labels_points`: depth, an image registered to the camera's (topic `depth`), gives a point for each "
        "pixel of `labels`; cloud, a PointCloud2 (topic `points`), has its points labelled.",
        choices=("depth", "cloud"),
        per_camera=True,
    )
    points_stride: int = option(
        1,
        "Take every n-th row and column for `labels_points`; of a cloud without rows every n-th point.",
        low=1,
        high=100,
        live=True,
        per_camera=True,
    )
    points_slop_s: float = option(
        0.02,
        "Depth images and clouds belong to an image if their stamps are at most this apart.",
        low=0.0,
        high=10.0,
        live=True,
        per_camera=True,
    )
    points_extrinsic: str = option(
        "",
        "Pose of the cloud's frame in the camera's optical frame, `x y z qx qy qz qw` in metres (empty: by tf2).",
        live=True,
        per_camera=True,
    )
    watchdog_s: float = option(
        30.0, "End the process with status 1 when one frame takes longer than this.", low=0.5, high=86400.0, live=True
    )


# Confidence is computed while somebody listens: `publish_confidence` decides, not a parameter of the engine's.
NOT_PARAMETERS = ("confidence",)


def declarations(*settings: type) -> dict[str, Declaration]:
    """Declare every option of dataclasses of options, by name and in their order."""
    found = {}
    for one in settings:
        found |= {name: Declaration.of(each) for name, each in options_of(one).items() if name not in NOT_PARAMETERS}
    return found


DECLARATIONS = declarations(NodeSettings, EngineConfig)
PER_CAMERA = tuple(one for one in DECLARATIONS.values() if one.per_camera)
# The mask belongs to a camera.
SET_ELSEWHERE = ("ego_mask", *NOT_PARAMETERS)


@dataclass(frozen=True)
class CameraSettings:
    """The parameters of one camera.

    Attributes:
        name: prefix of its topics; empty for the only camera.
        interval: None leaves it to the governor.
        outputs: which of `OUTPUTS` are published when somebody subscribes.
        ego_mask: path, or None.
        labels_size: (h, w), or None where `labels_scale` decides.
        points_extrinsic: seven numbers, or None.
        The others are as in `NodeSettings`.
    """

    name: str
    image_transport: str
    interval: int | None
    ego_mask: str | None
    outputs: frozenset[str]
    labels_encoding: str
    labels_size: tuple[int, int] | None
    labels_scale: float
    overlay_opacity: float
    wanted_rate_hz: float
    max_age_s: float
    points_from: str
    points_stride: int
    points_slop_s: float
    points_extrinsic: tuple[float, ...] | None

    def size_of_labels(self, image: tuple[int, int]) -> tuple[int, int]:
        """Return (h, w) of the labels of an image of (H, W)."""
        if self.labels_size is not None:
            return self.labels_size
        return max(1, round(image[0] * self.labels_scale)), max(1, round(image[1] * self.labels_scale))


def declare(node: Node) -> None:
    """Declare every parameter on the node.

    Raises:
        rclpy.exceptions.ParameterException: a value given at the start has the wrong type or is out of range.
    """
    for one in DECLARATIONS.values():
        node.declare_parameter(one.name, one.default, one.descriptor)
        _check_start(node, one, one.name)


def declare_overrides(node: Node, camera: str) -> None:
    """Declare a camera's own parameters: of the types of the node's, and without a value until one is given.

    Raises:
        rclpy.exceptions.ParameterException: a value given at the start has the wrong type or is out of range.
    """
    for one in PER_CAMERA:
        name = f"{camera}.{one.name}"
        if not node.has_parameter(name):
            descriptor = one.descriptor
            descriptor.name = name
            descriptor.description = f"For camera {camera}, in place of `{one.name}`. {one.description}"
            node.declare_parameter(name, None if one.auto else one.type, descriptor)
            _check_start(node, one, name)


def _check_start(node: Node, one: Declaration, name: str) -> None:
    """Refuse a value that the middleware cannot, as its type is open."""
    value = node.get_parameter(name).value if one.auto else None
    try:
        if value is not None:
            one.check(value)
    except ConfigError as error:
        raise InvalidParameterValueException(name, value, str(error)) from error


def undeclared(node: Node) -> list[str]:
    """List names that were given at the start and that the node does not have: misspelt, most likely."""
    # rclpy has no public way to ask for these.
    given = getattr(node, "_parameter_overrides", {})
    return sorted(name for name in given if not node.has_parameter(name))


def values_of(node: Node, changes: Iterable[Parameter] = ()) -> dict[str, Any]:
    """Return name and value of all that are set, the cameras' own included, as they would be after `changes`."""
    names = [*DECLARATIONS, *(f"{camera}.{one.name}" for camera in _cameras_of(node) for one in PER_CAMERA)]
    values = {}
    for name in names:
        if node.has_parameter(name):
            try:
                value = node.get_parameter(name).value
                if value is not None:  # as is that of a camera without one of its own, where the type is open
                    values[name] = value
            except ParameterUninitializedException:
                # A camera without a value of its own; or an empty list in a parameter file, which has no type.
                if name in DECLARATIONS:
                    values[name] = DECLARATIONS[name].default
    # A camera's own parameter is declared without a value.
    given = {one.name: one.value for one in changes if declaration_of(one.name) is not None and one.value is not None}
    return values | given


def declaration_of(name: str) -> Declaration | None:
    """Find the declaration of a parameter or of a camera's own; None if the node declares no such name."""
    camera, _, base = name.rpartition(".")
    one = DECLARATIONS.get(base)
    return one if one is not None and (not camera or one.per_camera) else None


def check(values: Mapping[str, Any], changed: Iterable[str], configured: bool) -> None:
    """Check that parameters may get the values that `changed` names.

    Raises:
        ConfigError: a value is not allowed, contradicts another one, or cannot change now.
    """
    known = [(name, one) for name in changed if name in values and (one := declaration_of(name)) is not None]
    for name, one in known:
        if configured and not one.while_active:
            raise ConfigError(
                f"{name}: can be set while the node is unconfigured (transition `cleanup`), not while it is "
                "inactive or active"
            )
        one.check(values[name])
    if known:
        for camera in camera_names(values):
            camera_settings(values, camera)
        engine_config(values)


def camera_names(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the cameras; one empty name for the only one.

    Raises:
        ConfigError: a name is no part of a topic's name, or is given twice.
    """
    names = tuple(name for name in values["cameras"] if name) or ("",)
    for name in filter(None, names):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*", name):
            raise ConfigError(f"cameras: expected letters, digits, _ and /, beginning with a letter, got {name!r}")
    if len(set(names)) != len(names):
        raise ConfigError(f"cameras: expected names that differ, got {list(names)}")
    return names


def engine_config(values: Mapping[str, Any]) -> EngineConfig:
    """Make the configuration that the engine is built from.

    Raises:
        ConfigError: see `EngineConfig`.
    """
    options = {name: one for name, one in options_of(EngineConfig).items() if name not in SET_ELSEWHERE}
    return EngineConfig(**{name: _given(one, values[name]) for name, one in options.items()})


def governed(values: Mapping[str, Any]) -> frozenset[str]:
    """Name the options that are left to the governor."""
    options = [one for one in options_of(EngineConfig).values() if one.governed]
    return frozenset(one.name for one in options if values[one.name] == AUTO or (one.auto and values[one.name] == 0))


def _given(one: Option, value: Any) -> Any:
    """Turn the empty value of an option that need not be given into None, unless it is a value like any other."""
    if one.governed and value == AUTO:
        return one.default
    return None if one.optional and not value and one.low != 0 else value


def camera_settings(values: Mapping[str, Any], camera: str) -> CameraSettings:
    """Return a camera's values: its own, and the node's where it has none.

    Raises:
        ConfigError: a text is not of the form that it should have.
    """

    def value(name: str) -> Any:
        return values.get(f"{camera}.{name}", values[name])

    return CameraSettings(
        name=camera,
        image_transport=value("image_transport"),
        interval=None if value("interval") == AUTO else value("interval"),
        ego_mask=value("ego_mask") or None,
        outputs=ALWAYS | {output for output in OUTPUTS if value(f"publish_{output}")},
        labels_encoding=value("labels_encoding"),
        labels_size=_read_size("labels_size", value("labels_size")),
        labels_scale=value("labels_scale"),
        overlay_opacity=value("overlay_opacity"),
        wanted_rate_hz=value("wanted_rate_hz"),
        max_age_s=value("max_age_s"),
        points_from=value("points_from"),
        points_stride=value("points_stride"),
        points_slop_s=value("points_slop_s"),
        points_extrinsic=_read_pose("points_extrinsic", value("points_extrinsic")),
    )


def _read_size(name: str, text: str) -> tuple[int, int] | None:
    if not text:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise ConfigError(f"{name}: expected WIDTHxHEIGHT, such as 640x360, or nothing, got {text!r}")
    return int(found[2]), int(found[1])


def _read_pose(name: str, text: str) -> tuple[float, ...] | None:
    if not text.strip():
        return None
    try:
        numbers = tuple(map(float, text.split()))
    except ValueError:
        numbers = ()
    if len(numbers) != 7 or not all(map(math.isfinite, numbers)) or not any(numbers[3:]):
        raise ConfigError(f"{name}: expected seven numbers, x y z qx qy qz qw, or nothing, got {text!r}")
    return numbers


def markdown(declared: Mapping[str, Declaration] = DECLARATIONS) -> str:
    """Write the table for people."""
    lines = ["| parameter | default | values | while active | per camera | |", "|---|---|---|---|---|---|"]
    for one in declared.values():
        default = "[]" if one.default == [""] else f"`{_literal(one.default)}`"
        marks = ["yes" if mark else "" for mark in (one.while_active, one.per_camera)]
        cells = (f"`{one.name}`", default, one.range.replace("|", "\\|"), *marks, one.description)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parameter_file(declared: Mapping[str, Declaration] = DECLARATIONS) -> str:
    """Write a commented ROS parameter file with every default."""
    lines = [
        "# Parameters of the node, at their defaults; `python -m vidseg_ros.parameters yaml` writes this file.",
        "# Those marked * can also be given per camera, for instance:",
        "#   cameras: [front, left]",
        "#   front:",
        "#     ego_mask: /path/of/front.png",
        "#   left:",
        "#     interval: 9",
        "/**:",
        "  ros__parameters:",
    ]
    for one in declared.values():
        star = " *" if one.per_camera else ""
        values = f" [{one.range}]" if one.range else ""
        lines += ["", f"    # {one.description}{values}{star}", f"    {one.name}: {_literal(one.default)}"]
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


def _cameras_of(node: Node) -> tuple[str, ...]:
    try:
        return tuple(name for name in node.get_parameter("cameras").value if name)
    except (ParameterNotDeclaredException, ParameterUninitializedException):  # the latter: `cameras: []` in a file
        return ()


if __name__ == "__main__":
    sys.stdout.write(parameter_file() if sys.argv[1:] == ["yaml"] else markdown())
