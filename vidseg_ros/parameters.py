"""Every parameter of the node: declared, described, checked and documented from the one table below.

`python -m vidseg_ros.parameters` prints the table for the documentation, `... yaml` a parameter file with the defaults.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import yaml
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterNotDeclaredException, ParameterUninitializedException
from rclpy.node import Node
from rclpy.parameter import Parameter

from vidseg_core.engine.config import (
    DIS_PRESETS,
    FLOWS,
    GRID_STRIDES,
    KEY_FRAMES,
    PADDINGS,
    RUNTIMES,
    SCHEDULES,
    EngineConfig,
)
from vidseg_core.errors import ConfigError

OUTPUTS = ("labels", "overlay", "labels_color", "confidence")
NODE_NAME = "vidseg"
MOST_SECONDS = 86400.0


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
    """

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple = ()
    while_active: bool = False
    per_camera: bool = False

    @property
    def type(self) -> Parameter.Type:
        return Parameter.Type.from_parameter_value(self.default)

    @property
    def range(self) -> str:
        """The values allowed, in words; empty where anything is."""
        if self.choices:
            return ", ".join(str(choice) or "''" for choice in self.choices)
        return "" if self.low is None else f"{self.low:g} to {self.high:g}"

    @property
    def descriptor(self) -> ParameterDescriptor:
        constraints = [f"one of {self.range}"] if self.choices else []
        constraints += [] if self.while_active else ["can be set while the node is unconfigured"]
        descriptor = ParameterDescriptor(
            name=self.name,
            type=self.type.value,
            description=self.description,
            additional_constraints="; ".join(constraints),
        )
        if isinstance(self.default, float) and self.low is not None:
            descriptor.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high)]
        elif isinstance(self.default, int) and self.low is not None:
            descriptor.integer_range = [IntegerRange(from_value=self.low, to_value=self.high, step=1)]
        return descriptor

    def check(self, value: Any) -> None:
        """
        Raises:
            ConfigError: the value is out of range or not one of the choices.
        """
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name}: expected one of {self.range}, got {value!r}")
        if self.low is not None and not (math.isfinite(value) and self.low <= value <= self.high):
            raise ConfigError(f"{self.name}: expected {self.range}, got {value!r}")


ENGINE = EngineConfig()

NODE_DECLARATIONS = (
    Declaration(
        "autostart",
        True,
        "Configure and activate at the start, and end with status 1 where that fails; else a lifecycle manager does.",
    ),
    Declaration(
        "cameras",
        [""],
        "Names of the cameras, each with topics `<camera>/image_raw`, `<camera>/labels`, ...; none: one camera with "
        "`image_raw`, `labels`, ...",
    ),
    Declaration(
        "image_transport",
        "raw",
        "raw, or compressed: subscribe to the (remapped) name of image_raw with `/compressed` behind it.",
        choices=("raw", "compressed"),
        per_camera=True,
    ),
    Declaration(
        "sync",
        "none",
        "none: each camera for itself; approximate: frames of all cameras with stamps close to each other are processed"
        " as a set, others not at all (needs message_filters).",
        choices=("none", "approximate"),
    ),
    Declaration(
        "sync_slop_s",
        0.02,
        "Stamps in a set are less than this apart.",
        low=0.0001,
        high=10.0,
    ),
    Declaration(
        "engine",
        "network",
        "network, or pass_through: constant labels at no cost, to measure what ROS adds.",
        choices=("network", "pass_through"),
    ),
    *(
        Declaration(
            f"publish_{output}",
            output != "confidence",
            f"Publish `{output}` while somebody subscribes to it.",
            while_active=True,
            per_camera=True,
        )
        for output in OUTPUTS
    ),
    Declaration(
        "labels_encoding",
        "mono8",
        "Encoding of `labels`; 8UC1 for subscribers that take mono8 for a picture.",
        choices=("mono8", "8UC1"),
        while_active=True,
        per_camera=True,
    ),
    Declaration(
        "overlay_opacity",
        0.5,
        "How much the colours cover the image in `overlay`.",
        low=0.0,
        high=1.0,
        while_active=True,
        per_camera=True,
    ),
    Declaration(
        "wanted_rate_hz",
        0.0,
        "Diagnostics warn when fewer labels per second come out; 0 wants as many as the camera sends.",
        low=0.0,
        high=1000.0,
        while_active=True,
        per_camera=True,
    ),
    Declaration(
        "watchdog_s",
        30.0,
        "End the process with status 1 when one frame takes longer than this.",
        low=0.5,
        high=MOST_SECONDS,
        while_active=True,
    ),
)

ENGINE_DECLARATIONS = (
    Declaration(
        "weights", ENGINE.weights, "Segmentation network: a name in `weights/registry.yaml`, or the path of a file."
    ),
    Declaration("refine_weights", "", "Guided refinement, a name or a path; empty for none."),
    Declaration(
        "flow_weights", "", "Flow network for `flow` other than dis and none; empty takes the one in `refine_weights`."
    ),
    Declaration(
        "classes", "", "Class table, a name in `config/classes/` or a path; empty takes the one in the weights."
    ),
    Declaration(
        "interval",
        ENGINE.interval,
        "Number of propagated frames between two key frames; 0 makes every frame a key frame.",
        low=0,
        high=1000,
        while_active=True,
        per_camera=True,
    ),
    Declaration(
        "schedule",
        ENGINE.schedule,
        "fixed has a key frame every `interval` + 1 frames; adaptive has one when the picture has changed, but neither "
        "before `min_interval` nor after `max_interval` propagated frames.",
        choices=SCHEDULES,
    ),
    Declaration(
        "min_interval",
        ENGINE.min_interval,
        "For schedule adaptive: fewest propagated frames between two key frames.",
        low=0,
        high=1000,
    ),
    Declaration(
        "max_interval",
        ENGINE.max_interval,
        "For schedule adaptive: most propagated frames between two key frames.",
        low=0,
        high=1000,
    ),
    Declaration(
        "change_threshold",
        ENGINE.change_threshold,
        "For schedule adaptive: share of the picture that flow from the last key frame does not explain before there "
        "is a new one.",
        low=0.0,
        high=1.0,
    ),
    Declaration(
        "key_frames",
        ENGINE.key_frames,
        "sync waits for a key frame's segmentation; async computes it beside the stream: no frame takes longer than "
        "the others, and a key frame's labels come some frames later.",
        choices=KEY_FRAMES,
    ),
    Declaration(
        "input_scale",
        0.0,
        "Size of the network's input in units of the image's, 0.25 to 2; 0 takes what the weights were trained for.",
        low=0.0,
        high=2.0,
    ),
    Declaration(
        "grid_stride",
        0,
        "Image pixels per pixel of the carried logits; 0 takes what refinement was trained for, without it 2 for "
        "images of at most 320,000 pixels and 4 for larger.",
        choices=(0, *GRID_STRIDES),
    ),
    Declaration("flow", ENGINE.flow, "How motion is found; dis needs no weights, none copies labels.", choices=FLOWS),
    Declaration(
        "flow_scale",
        0.0,
        "Size of the image dis works on, 0.05 to 1; 0 chooses by the image's size.",
        low=0.0,
        high=1.0,
    ),
    Declaration(
        "dis_preset",
        ENGINE.dis_preset,
        "For dis: fine is the most accurate and about as fast as ultrafast; the others are OpenCV's.",
        choices=DIS_PRESETS,
    ),
    Declaration(
        "update_weights",
        "",
        "Network that looks at propagated frames at low resolution, a name or a path: less is lost far from key "
        "frames, and each frame takes longer. Empty for none.",
    ),
    Declaration(
        "update_scale",
        0.0,
        "Size of its input in units of the image's, 0.25 to 2; 0 takes what the weights were trained for.",
        low=0.0,
        high=2.0,
    ),
    Declaration("fusion", ENGINE.fusion, "Blend the carried past into key frames, where the picture agrees with it."),
    Declaration("refine", ENGINE.refine, "Repair propagated logits; needs `refine_weights`."),
    Declaration(
        "warp_align_corners",
        ENGINE.warp_align_corners,
        "false reproduces the published SwNet-seq, which samples half a pixel beside its flow.",
    ),
    Declaration(
        "warp_padding",
        "",
        "What moves in from outside the image; empty takes zeros where refinement feeds back, and border otherwise.",
        choices=("", *PADDINGS),
    ),
    Declaration(
        "ego_mask",
        "",
        "PNG of the image's size, not 0 where the vehicle sees itself: labels are void there. Empty for none.",
        per_camera=True,
    ),
    Declaration(
        "max_gap_s",
        ENGINE.max_gap_s,
        "After a longer pause between two frames the stream starts afresh.",
        low=0.001,
        high=MOST_SECONDS,
    ),
    Declaration("device", ENGINE.device, "auto (CUDA where there is one), cpu, cuda or cuda:N."),
    Declaration(
        "runtime",
        ENGINE.runtime,
        "What executes networks: eager (PyTorch), openvino (on the CPU), openvino_int8 (in 8 bit integers), or auto: "
        "the fastest by a short trial.",
        choices=RUNTIMES,
    ),
    Declaration(
        "num_threads", ENGINE.num_threads, "Thread budget on the CPU; 0 takes every processor.", low=0, high=1024
    ),
)

DECLARATIONS = {one.name: one for one in NODE_DECLARATIONS + ENGINE_DECLARATIONS}
PER_CAMERA = tuple(one for one in DECLARATIONS.values() if one.per_camera)
# The mask belongs to a camera; confidence is computed while somebody listens.
SET_ELSEWHERE = ("ego_mask", "confidence")


@dataclass(frozen=True)
class CameraSettings:
    """Settings of one camera.

    Attributes:
        name: prefix of its topics; empty for the only camera.
        outputs: which of `OUTPUTS` are published when somebody subscribes.
        ego_mask: path, or None.
        The others are as in the table.
    """

    name: str
    image_transport: str
    interval: int
    ego_mask: str | None
    outputs: frozenset[str]
    labels_encoding: str
    overlay_opacity: float
    wanted_rate_hz: float


def declare(node: Node) -> None:
    """Declare all of them on the node.

    Raises:
        rclpy.exceptions.ParameterException: a value given at the start has the wrong type or is out of range.
    """
    for one in DECLARATIONS.values():
        node.declare_parameter(one.name, one.default, one.descriptor)


def declare_overrides(node: Node, camera: str) -> None:
    """Declare what one camera may have of its own: of the type of the node's parameter, and unset until it is given."""
    for one in PER_CAMERA:
        name = f"{camera}.{one.name}"
        if not node.has_parameter(name):
            descriptor = one.descriptor
            descriptor.name = name
            descriptor.description = f"For camera {camera}, in place of `{one.name}`. {one.description}"
            node.declare_parameter(name, one.type, descriptor)


def undeclared(node: Node) -> list[str]:
    """Names that were given at the start and that the node does not have: misspelt, most likely."""
    # rclpy has no public way to ask for these.
    given = getattr(node, "_parameter_overrides", {})
    return sorted(name for name in given if not node.has_parameter(name))


def values_of(node: Node, changes: Iterable[Parameter] = ()) -> dict[str, Any]:
    """Name and value of all that are set, the cameras' own included, as they would be after `changes`."""
    names = [*DECLARATIONS, *(f"{camera}.{one.name}" for camera in _cameras_of(node) for one in PER_CAMERA)]
    values = {}
    for name in names:
        if node.has_parameter(name):
            try:
                values[name] = node.get_parameter(name).value
            except ParameterUninitializedException:
                # A camera without a value of its own; or an empty list in a parameter file, which has no type.
                if name in DECLARATIONS:
                    values[name] = DECLARATIONS[name].default
    # A camera's own parameter is declared without a value.
    given = {one.name: one.value for one in changes if declaration_of(one.name) is not None and one.value is not None}
    return values | given


def declaration_of(name: str) -> Declaration | None:
    """Find what the table says about a parameter, also about a camera's own; None if it is not one of these."""
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
        camera_names(values)
        engine_config(values)


def camera_names(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the cameras; one empty name for the only one.

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
    chosen = {field.name: values[field.name] for field in fields(EngineConfig) if field.name not in SET_ELSEWHERE}
    # ROS has no value for "not given": the empty string and, where 0 makes no sense, 0 stand for it.
    optional = {field.name for field in fields(EngineConfig) if field.default is None}
    return EngineConfig(**{name: None if name in optional and not value else value for name, value in chosen.items()})


def camera_settings(values: Mapping[str, Any], camera: str) -> CameraSettings:
    """The node's values, and in their place the camera's own."""

    def value(name: str) -> Any:
        return values.get(f"{camera}.{name}", values[name])

    return CameraSettings(
        name=camera,
        image_transport=value("image_transport"),
        interval=value("interval"),
        ego_mask=value("ego_mask") or None,
        outputs=frozenset(output for output in OUTPUTS if value(f"publish_{output}")),
        labels_encoding=value("labels_encoding"),
        overlay_opacity=value("overlay_opacity"),
        wanted_rate_hz=value("wanted_rate_hz"),
    )


def markdown() -> str:
    """The table for people."""
    lines = ["| parameter | default | values | while active | per camera | |", "|---|---|---|---|---|---|"]
    for one in DECLARATIONS.values():
        default = "[]" if one.default == [""] else f"`{_literal(one.default)}`"
        marks = ["yes" if mark else "" for mark in (one.while_active, one.per_camera)]
        cells = (f"`{one.name}`", default, one.range.replace("|", "\\|"), *marks, one.description)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parameter_file() -> str:
    """A commented ROS parameter file with every default."""
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
    for one in DECLARATIONS.values():
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
