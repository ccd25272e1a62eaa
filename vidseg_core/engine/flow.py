"""Optical flow on the grid, by several methods behind one convention (see `kernels.warp`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import cv2
import numpy as np

from vidseg_core.arrays import Array, as_tensor, channels_first, device_type_of, on_device
from vidseg_core.devices import Device
from vidseg_core.engine.geometry import View
from vidseg_core.kernels.flow import computes_flow, dense_flow, order_on
from vidseg_core.kernels.grey import grey_picture
from vidseg_core.kernels.resample import resize

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from vidseg_core.networks.flow_light import FlowLight
    from vidseg_core.networks.flownet_s import FlowNet2S, UpstreamFlowNetS

# Without a `flow_scale`, DIS works on the largest of 1, 1/2, 1/4, ... of the image that has at most so many pixels.
DIS_PIXELS = 250_000
# Our own presets, and the order in which patches learn from each other.
OWN_ORDERS = {"fine": "raster", "rounds": "rounds"}

Prepared = TypeVar("Prepared")


class FlowEstimator(Protocol[Prepared]):
    """Find where things were.

    `prepare` makes of a frame what the estimator needs of it, owning its memory; the stream keeps that of the
    previous frame, so nothing is computed twice. `flow` returns 1 x 2 x h x w in pixels of the grid, from the
    current frame to the previous one, or None for "nothing moved"; the stream takes it to its device.

    One that can be recorded (`kernels.recording`) has a method `obstacle_to_recording(device)`, which returns None
    there or a reason; what it prepares is then made of tensors, lists and tuples, and values that never change.

    Attributes:
        any_grid: whether the grid may change from one frame to the next.
    """

    any_grid: bool

    def prepare(self, view: View) -> Prepared: ...

    def flow(self, current: Prepared, previous: Prepared) -> Array | None: ...


class NoFlow:
    """Nothing moves: labels are copied."""

    any_grid = True

    def prepare(self, view: View) -> None:
        return None

    def flow(self, current: None, previous: None) -> None:
        return None

    def obstacle_to_recording(self, device: Device | torch.device) -> str | None:
        """See `FlowEstimator`."""
        return "nothing moves, and there is next to nothing to record"


class DIS:
    """Dense inverse search (Kroeger et al., ECCV 2016) on the grey image.

    Our own presets are computed where the engine is, if there are kernels for that, in rounds on all devices but the
    CPU; OpenCV's are computed on the CPU.

    Args:
        preset: fine or rounds, which are our own (`kernels.flow`, in raster order and in rounds); or OpenCV's
            ultrafast, fast or medium, with OpenCV's threads. On video carried over four frames fine is more accurate
            than those, and nearly as fast as ultrafast.
        scale: of the image it works on, 0..1; None chooses by the image's size.
    """

    any_grid = True

    def __init__(self, preset: str = "ultrafast", scale: float | None = None):
        order = OWN_ORDERS.get(preset)
        self._preset = preset
        self._search = _OpenCVSearch(preset) if order is None else _OwnSearch(order)
        self._scale = scale

    def prepare(self, view: View) -> tuple[object, tuple[int, int], Device | torch.device]:
        height, width = view.image.shape[:2]
        scale = self._scale
        if scale is None:
            scale = 1.0
            while height * width * scale**2 > DIS_PIXELS:
                scale /= 2
        # DIS needs a few pixels for its coarsest patches.
        size = max(16, round(height * scale)), max(16, round(width * scale))
        return self._search.prepare(view, size), view.grid, view.device

    def flow(self, current, previous) -> Array:
        picture, grid, device = current
        return on_device(self._search.flow(picture, previous[0], grid), device)

    def place(self, device: Device | torch.device) -> str:
        """Describe how flow is computed for an engine on a device."""
        if self._preset not in OWN_ORDERS:
            own = " and ".join(OWN_ORDERS)
            return f"by OpenCV on the CPU and copied to {device} with every frame; {own} are computed on the device"
        return f"in rounds on {device}" if computes_flow(device) else f"on the CPU, as {device} has no kernels for it"

    def obstacle_to_recording(self, device: Device | torch.device) -> str | None:
        """See `FlowEstimator`."""
        if self._preset not in OWN_ORDERS:
            return f"OpenCV computes flow of the preset {self._preset} on the CPU"
        return None if computes_flow(device) else f"there are no kernels for flow on {device}"


class _OwnSearch:
    def __init__(self, order: str):
        self._order = order

    def prepare(self, view: View, size: tuple[int, int]) -> Sequence[Array]:
        return view.pyramid(size)

    def flow(self, current: Sequence[Array], previous: Sequence[Array], grid: tuple[int, int]) -> Array:
        """Find 1 x 2 x h x w, float32, in pixels of the grid."""
        return dense_flow(current, previous, grid, order_on(Device(device_type_of(current[0])), self._order))


class _OpenCVSearch:
    def __init__(self, preset: str):
        create = cv2.DISOpticalFlow_create  # type: ignore[attr-defined]  # OpenCV's stubs leave it out
        self._dis = create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))

    def prepare(self, view: View, size: tuple[int, int]) -> np.ndarray:
        return grey_picture(view.image, size)

    def flow(self, current: np.ndarray, previous: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """Find 1 x 2 x h x w, float32, in pixels of the grid."""
        flow = self._dis.calc(current, previous, None)  # pixels of the grey image
        (h, w), (height, width) = grid, current.shape
        on_grid = cv2.resize(flow, (w, h), interpolation=cv2.INTER_AREA)
        return channels_first(on_grid * np.array([w / width, h / height], dtype=np.float32))


class NetworkFlow:
    """A flow network on the grid.

    Args:
        network: FlowLight, UpstreamFlowNetS or FlowNet2S.
        execute: what calls it, see `backends.choose`; None for the network itself.
    """

    any_grid = False

    def __init__(
        self,
        network: FlowLight | UpstreamFlowNetS | FlowNet2S,
        execute: Callable[..., Any] | None = None,
    ):
        from vidseg_core.networks.flow_light import FLOW_UNIT
        from vidseg_core.networks.flownet_s import FlowNet2S

        self.network: nn.Module = network
        self.execute = execute or network
        self._raw_rgb = isinstance(network, FlowNet2S)
        self._unit = 1.0 if self._raw_rgb else FLOW_UNIT

    def prepare(self, view: View) -> Tensor:
        return as_tensor(view.grid_rgb if self._raw_rgb else view.grid_bgr)

    def obstacle_to_recording(self, device: Device | torch.device) -> str | None:
        """See `FlowEstimator`."""
        if self.execute is self.network:
            return None
        runtime = getattr(self.execute, "runtime", None)
        return None if runtime in ("eager", "cuda half") else f"the flow network is executed apart ({runtime or 'new'})"

    def flow(self, current: Tensor, previous: Tensor) -> Array:
        return resize(self.execute(current, previous), (current.shape[2], current.shape[3])) / self._unit
