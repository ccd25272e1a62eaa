"""Everything that can be chosen about the engine: each option's default, range and help, declared once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from vidseg_core.backends import RUNTIMES
from vidseg_core.errors import ConfigError
from vidseg_core.kernels import PADDINGS
from vidseg_core.options import AUTO, check, option, options_of

FLOWS = ("dis", "light", "flownet_s", "flownet2_s", "none")
DIS_PRESETS = ("fine", "ultrafast", "fast", "medium", "rounds")
GRID_STRIDES = (2, 4, 8)
# Without a `grid_stride`, images of at most so many pixels get 2.
FINE_GRID_PIXELS = 320_000
SCHEDULES = ("fixed", "adaptive")
KEY_FRAMES = ("sync", "async")
DEFAULT_WEIGHTS = "camvid-swiftnet-lite0"


@dataclass(frozen=True)
class EngineConfig:
    """Choose networks and how they are used.

    `options_of(EngineConfig)` describes every field; command line flags, ROS parameters, the parameter file and the
    reference are made from it. Paths may be given as `pathlib.Path` and become strings; where None is `auto`, that word
    may be given and becomes None.

    Raises:
        ConfigError: a value is not allowed, or contradicts another one.
    """

    weights: str = option(
        DEFAULT_WEIGHTS,
        "Segmentation network: a name in `weights/registry.yaml`, or the path of a file (.safetensors, "
        ".onnx, .pt2, public checkpoints) or of a Hugging Face directory.",
        metavar="NAME|PATH",
    )
    refine_weights: str | None = option(
        None,
        "Guided refinement, perhaps with a flow network: a name or a path.",
        unset="none",
        metavar="NAME|PATH",
    )
    flow_weights: str | None = option(
        None,
        "Flow network for `flow` light, flownet_s and flownet2_s: a name or a path.",
        unset="the one in `refine_weights`",
        metavar="NAME|PATH",
    )
    classes: str | None = option(
        None,
        "Class table: a name in `config/classes/`, or a path.",
        unset="the one in the weights",
        metavar="NAME|PATH",
    )
    interval: int = option(
        4,
        "Number of propagated frames between two key frames; 0 makes every frame a key frame.",
        low=0,
        span=(0, 1000),
        live=True,
        per_camera=True,
        governed=True,
    )
    schedule: str = option(
        "fixed",
        "fixed has a key frame every `interval` + 1 frames; adaptive has one when the picture has changed, but neither "
        "before `min_interval` nor after `max_interval` propagated frames.",
        choices=SCHEDULES,
    )
    min_interval: int = option(
        1, "For `schedule` adaptive: fewest propagated frames between two key frames.", low=0, span=(0, 1000)
    )
    max_interval: int = option(
        12,
        "For `schedule` adaptive: most propagated frames between two key frames, `min_interval` or more.",
        low=0,
        span=(0, 1000),
    )
    change_threshold: float = option(
        0.2,
        "For `schedule` adaptive: share of the picture that flow from the last key frame does not explain before there "
        "is a new one.",
        low=0.0,
        high=1.0,
    )
    key_frames: str = option(
        "sync",
        "sync waits for a key frame's segmentation; async computes it beside the stream: no frame takes longer than "
        "the others, a key frame's labels come some frames later, and the next key frame begins when none is under "
        "way.",
        choices=KEY_FRAMES,
        governed=True,
    )
    input_scale: float | None = option(
        None,
        "Size of the segmentation network's input in units of the image's, 0.25 to 2.",
        low=0.25,
        high=2.0,
        unset="auto: as many rows as the weights were trained at, enlarged only where their record says that it helps; "
        "of weights that do not tell their rows, the scale they were trained at, or 1",
        metavar="S",
        spellings=("--scale",),
        auto=True,
        governed=True,
    )
    grid_stride: int | None = option(
        None,
        "Image pixels per pixel of the carried logits; 8 is the published one.",
        choices=GRID_STRIDES,
        governed=True,
        unset="what refinement was trained for; without it 2 for images of at most 320,000 pixels and 4 for larger",
    )
    flow: str = option(
        "dis",
        "How motion is found: dis (dense inverse search) needs no weights, light, flownet_s and flownet2_s are "
        "networks, none copies labels.",
        choices=FLOWS,
    )
    flow_scale: float | None = option(
        None,
        "Size of the image that `flow` dis works on, in units of the image's, 0.05 to 1.",
        low=0.05,
        high=1.0,
        unset="chosen by the image's size",
        metavar="S",
    )
    dis_preset: str = option(
        "fine",
        "For `flow` dis: fine is about as fast as ultrafast and more accurate than it, fast and medium, which are "
        "OpenCV's; rounds is what a GPU can compute: about as accurate as fine, at two to three times its time. On a "
        "CUDA device with Triton fine is computed in rounds, too, on the device.",
        choices=DIS_PRESETS,
    )
    update_weights: str | None = option(
        None,
        "Segmentation network that looks at propagated frames at low resolution, a name or a path: less is lost far "
        "from key frames, and each frame takes longer. The node's governor has the one that the record of `weights` "
        "names.",
        unset="none",
        metavar="NAME|PATH",
        governed=True,
    )
    update_scale: float | None = option(
        None,
        "Size of the input of `update_weights` in units of the image's, 0.25 to 2.",
        low=0.25,
        high=2.0,
        unset="auto: as for `input_scale`; of weights that tell neither rows nor scale, 0.5",
        metavar="S",
        auto=True,
    )
    fusion: bool = option(True, "Blend the carried past into key frames, where the picture agrees with it.")
    refine: bool = option(False, "Repair propagated logits by guided refinement; needs `refine_weights`.")
    warp_align_corners: bool = option(
        True,
        "Sample exactly where flow points; false samples half a pixel beside it, as the published SwNet-seq does.",
    )
    warp_padding: str | None = option(
        None,
        "Values that move in from outside the image.",
        choices=PADDINGS,
        unset="zeros where refinement feeds back, which was trained to fill them, and border otherwise",
    )
    confidence: bool = option(
        False,
        "Compute the top probability of every pixel, too; `vidseg run` writes confidence/NAME.png, 255 is certain.",
    )
    ego_mask: str | None = option(
        None,
        "PNG of the image's size, not 0 where the vehicle sees itself: labels are void there.",
        unset="none",
        per_camera=True,
        metavar="PNG",
    )
    max_gap_s: float = option(
        1.0,
        "Seconds of a pause of the camera after which the stream starts afresh; frames that were dropped are no pause.",
        above=0,
        unit="seconds",
        span=(0.001, 86400.0),
    )
    device: str = option(
        "auto",
        "auto (CUDA where there is one), cpu, cuda or cuda:N.",
        pattern=r"auto|cpu|cuda(:[0-9]+)?",
        expected="auto, cpu, cuda or cuda:N",
    )
    runtime: str = option(
        "auto",
        "Executor of networks: eager (PyTorch), openvino (on the CPU, in bfloat16 where that has it), openvino_int8 "
        "(convolutions in 8 bit integers, for weights that tell their activation ranges), onnxruntime (for ONNX "
        "files), cuda_half and cuda_half_graph (in half precision on a CUDA device; the second as one graph), or auto: "
        "the fastest by a short trial on the first frame.",
        choices=RUNTIMES,
    )
    num_threads: int = option(
        0,
        "Thread budget on the CPU; 0 takes what affinity, the container's CPU quota and OMP_NUM_THREADS allow.",
        low=0,
        span=(0, 1024),
        spellings=("--threads",),
    )

    def __post_init__(self):
        for name, one in options_of(type(self)).items():
            if isinstance(value := getattr(self, name), Path):
                object.__setattr__(self, name, str(value))
            elif one.auto and value == AUTO:
                object.__setattr__(self, name, None)
        check(self)
        if self.max_interval < self.min_interval:
            raise ConfigError(
                f"max_interval: expected {self.min_interval} (min_interval) or more, got {self.max_interval}"
            )
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
        """Return `grid_stride`, with its default filled in for images of `size`, (H, W)."""
        return self.grid_stride or (2 if size[0] * size[1] <= FINE_GRID_PIXELS else 4)

    def to_dict(self) -> dict:
        """Return all values by name, JSON-safe."""
        return asdict(self)
