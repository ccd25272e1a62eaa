"""Everything that can be chosen about the engine, documented once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vidseg_core.backends import RUNTIMES
from vidseg_core.errors import ConfigError
from vidseg_core.kernels import PADDINGS

FLOWS = ("dis", "light", "flownet_s", "flownet2_s", "none")
DIS_PRESETS = ("fine", "ultrafast", "fast", "medium")
GRID_STRIDES = (2, 4, 8)
# Without a `grid_stride`, images of at most so many pixels get 2.
FINE_GRID_PIXELS = 320_000
SCHEDULES = ("fixed", "adaptive")
KEY_FRAMES = ("sync", "async")
DEFAULT_WEIGHTS = "camvid-swiftnet-r18"


@dataclass(frozen=True)
class EngineConfig:
    """A choice of networks and of how they are used. Values are checked when it is made.

    Attributes:
        weights: segmentation network: a name in `weights/registry.yaml` or the path of a file.
        refine_weights: guided refinement (and its flow network, if the file has one); None for none.
        flow_weights: flow network for `flow` light, flownet_s, flownet2_s; None takes the one in `refine_weights`.
        classes: class table, a name in `config/classes/` or a path; None takes the one in the weights.
        interval: number of propagated frames between two key frames, 0 or more; 0 makes every frame a key frame.
        schedule: fixed has a key frame every `interval` + 1 frames; adaptive has one when the picture has changed.
        min_interval: for adaptive, fewest propagated frames between two key frames, 0 or more.
        max_interval: for adaptive, most of them, `min_interval` or more.
        change_threshold: for adaptive, the share of the picture, 0 to 1, that has to be another than flow from the last
            key frame says before there is a new one.
        key_frames: sync waits for the segmentation of a key frame; async segments beside the stream, which carries the
            past on meanwhile: no frame takes longer than the others, and a key frame's labels come some frames later.
            A key frame is begun when none is under way, so that they are as frequent as the machine can sustain.
        input_scale: size of the segmentation network's input in units of the image's, 0.25 to 2; None takes the scale
            that the weights were trained for, or 1.
        grid_stride: 8 (as published), 4 or 2: image pixels per pixel of the carried logits; None takes what the
            refinement was trained for; without one 2 for images of at most 320,000 pixels and 4 for larger ones.
        flow: how motion is found: dis (dense inverse search), light, flownet_s, flownet2_s, or none: labels are copied.
        flow_scale: size of the image that `dis` works on, 0.05 to 1; None chooses by the image's size.
        dis_preset: fine, our own and the most accurate; or OpenCV's ultrafast, fast or medium.
        update_weights: segmentation network that looks at every propagated frame at low resolution and labels what the
            past does not show, see `fusion.py`; None for none.
        update_scale: size of its input in units of the image's, 0.25 to 2; None takes the scale that the weights were
            trained for, or 0.5.
        fusion: whether key frames blend what is carried from the past into the network's scores, see `fusion.py`.
        refine: whether guided refinement repairs propagated logits; needs `refine_weights`.
        warp_align_corners: False reproduces the published SwNet-seq, which samples half a pixel beside its flow.
        warp_padding: what moves in from outside the image, zeros or border; None is zeros where refinement feeds back
            (as published: it was trained to fill them) and border otherwise.
        confidence: whether to compute `Segmentation.confidence`.
        ego_mask: PNG of the image's size; where it is not 0, the vehicle sees itself and labels are void. Or None.
        max_gap_s: a longer pause between two frames makes the stream start afresh; above 0.
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
        runtime: what executes networks: eager (PyTorch), openvino (on the CPU, in bfloat16 where that has it),
            openvino_int8 (the same with convolutions in 8 bit integers, for weights that tell their activation ranges),
            or auto: PyTorch or the fastest that is there, by a short trial on the first frame; integers only where the
            processor has instructions for them.
        num_threads: thread budget on the CPU, shared by all libraries; 0 takes every processor.
    """

    weights: str = DEFAULT_WEIGHTS
    refine_weights: str | None = None
    flow_weights: str | None = None
    classes: str | None = None
    interval: int = 4
    schedule: str = "fixed"
    min_interval: int = 1
    max_interval: int = 12
    change_threshold: float = 0.2
    key_frames: str = "sync"
    input_scale: float | None = None
    grid_stride: int | None = None
    flow: str = "dis"
    flow_scale: float | None = None
    dis_preset: str = "fine"
    update_weights: str | None = None
    update_scale: float | None = None
    fusion: bool = True
    refine: bool = False
    warp_align_corners: bool = True
    warp_padding: str | None = None
    confidence: bool = False
    ego_mask: str | None = None
    max_gap_s: float = 1.0
    device: str = "auto"
    runtime: str = "auto"
    num_threads: int = 0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Path):
                object.__setattr__(self, field.name, str(value))
        self._check_type("interval", int)
        self._check_type("num_threads", int)
        for name in ("fusion", "refine", "warp_align_corners", "confidence"):
            self._check_type(name, bool)
        self._check(self.interval >= 0, "interval", "0 or more")
        for name in ("min_interval", "max_interval"):
            self._check_type(name, int)
        self._check(self.min_interval >= 0, "min_interval", "0 or more")
        ordered = self.max_interval >= self.min_interval
        self._check(ordered, "max_interval", f"{self.min_interval} (min_interval) or more")
        self._check_choice("schedule", SCHEDULES)
        self._check_range("change_threshold", 0.0, 1.0)
        self._check(self.num_threads >= 0, "num_threads", "0 (all processors) or more")
        self._check_range("input_scale", 0.25, 2.0)
        self._check_range("flow_scale", 0.05, 1.0)
        self._check_range("update_scale", 0.25, 2.0)
        self._check(self._is_number("max_gap_s") and self.max_gap_s > 0, "max_gap_s", "a number of seconds above 0")
        self._check_choice("key_frames", KEY_FRAMES)
        if self.grid_stride is not None:
            self._check_choice("grid_stride", GRID_STRIDES)
        self._check_choice("flow", FLOWS)
        self._check_choice("dis_preset", DIS_PRESETS)
        self._check_choice("runtime", RUNTIMES)
        if self.warp_padding is not None:
            self._check_choice("warp_padding", PADDINGS)
        kind, _, number = str(self.device).partition(":")
        known = self.device in ("auto", "cpu", "cuda") or (kind == "cuda" and number.isdigit())
        self._check(known, "device", "auto, cpu, cuda or cuda:N")
        if self.refine and self.refine_weights is None:
            raise ConfigError("refine: refinement needs refine_weights, none are given")
        if self.update_scale is not None and self.update_weights is None:
            raise ConfigError("update_scale: it is the scale of update_weights, none are given")
        if self.flow in ("flownet_s", "flownet2_s") and self.flow_weights is None:
            raise ConfigError(f"flow: {self.flow!r} needs flow_weights, none are given")
        if self.flow == "light" and self.flow_weights is None and self.refine_weights is None:
            raise ConfigError(
                "flow: 'light' needs flow_weights, or refine_weights that bring a flow network; none are given"
            )

    def stride_of(self, size: tuple[int, int]) -> int:
        """`grid_stride` with its default filled in for images of `size`, (H, W)."""
        return self.grid_stride or (2 if size[0] * size[1] <= FINE_GRID_PIXELS else 4)

    def to_dict(self) -> dict:
        """JSON-safe."""
        return asdict(self)

    def _is_number(self, name: str) -> bool:
        value = getattr(self, name)
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    def _check(self, good: bool, name: str, expected: str) -> None:
        if not good:
            raise ConfigError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

    def _check_type(self, name: str, kind: type) -> None:
        value = getattr(self, name)
        self._check(type(value) is kind, name, f"a value of type {kind.__name__}")

    def _check_range(self, name: str, low: float, high: float) -> None:
        if getattr(self, name) is not None:
            good = self._is_number(name) and low <= getattr(self, name) <= high
            self._check(good, name, f"a number in {low:g}..{high:g}")

    def _check_choice(self, name: str, choices: tuple) -> None:
        self._check(getattr(self, name) in choices, name, f"one of {', '.join(map(str, choices))}")
