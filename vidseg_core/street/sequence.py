"""Frames of a drive along a synthetic street, with exact labels, flow and occlusion."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from vidseg_core.frame import Frame
from vidseg_core.street import render
from vidseg_core.street.config import StreetConfig
from vidseg_core.street.style import Style
from vidseg_core.street.textures import noise_table
from vidseg_core.street.world import AHEAD, BEHIND, World


class _Geometry(NamedTuple):
    """What each pixel of a frame sees, before any colour."""

    view: render.Camera
    ground: render.Ground
    surfaces: render.Surfaces
    before: np.ndarray
    shadows: np.ndarray
    inverse_depth: np.ndarray
    ids: np.ndarray


class Street:
    """A camera drives along a street. A frame depends on the configuration and its number only, bit by bit.

    Labels are ids of `config/classes/camvid.yaml`. Flow is exact for each pixel's centre: the sky turns with the
    camera, bodies move rigidly (a walking person is several of them).
    """

    def __init__(self, config: StreetConfig):
        self.config = config
        self._style = Style(config.seed)
        self._world = World(self._style)
        self._noise = noise_table()
        self._geometry = lru_cache(maxsize=2)(self._see)

    def __len__(self) -> int:
        return self.config.num_frames

    @property
    def num_frames(self) -> int:
        return self.config.num_frames

    def render(self, i: int) -> Frame:
        """Frame `i`: image, stamp, labels (H x W, uint8), flow (H x W x 2, float32) to frame i - 1; none for frame 0.

        Raises:
            IndexError: `i` is not in 0 .. len - 1.
        """
        image, labels, flow, _ = self._shaded(i)
        config = self.config
        return Frame(
            image=self._exposed(image, i),
            stamp_ns=round(i * 1e9 / config.rate_hz),
            name=f"{i:06d}",
            labels=labels,
            flow=flow if i > 0 else None,
        )

    def occluded(self, i: int) -> np.ndarray:
        """H x W, bool: True where frame i - 1 does not show what frame `i` shows at this pixel; all True for frame 0.

        Raises:
            IndexError: `i` is not in 0 .. len - 1.
        """
        _, _, flow, depth_before = self._shaded(i)
        hidden = np.ones(flow.shape[:2], dtype=np.bool_)
        if i > 0:
            past = self._geometry(i - 1)
            render.hidden_before(
                past.surfaces, past.ground, past.view, self._noise, past.ids, flow, depth_before, hidden
            )
        return hidden

    def depth(self, i: int) -> np.ndarray:
        """Return the depth that each pixel of frame `i` sees at its centre: H x W, float32, z in metres.

        It is infinite where the sky is seen, or the skyline painted on it.

        Raises:
            IndexError: `i` is not in 0 .. len - 1.
        """
        self._check(i)
        with np.errstate(divide="ignore"):
            return (1.0 / self._geometry(i).inverse_depth).astype(np.float32)

    def intrinsics(self) -> np.ndarray:
        """Return the camera's K, 3 x 3, float64: focal length and centre in pixels."""
        view = self._view(0.0)
        return np.array([[view.focal, 0.0, view.cx], [0.0, view.focal, view.cy], [0.0, 0.0, 1.0]])

    def _check(self, i: int) -> None:
        if not 0 <= i < len(self):
            raise IndexError(f"{self.config}: expected a frame in 0 .. {len(self) - 1}, got {i}")

    def _time(self, i: int) -> float:
        return i / self.config.rate_hz

    def _view(self, t: float) -> render.Camera:
        style, config = self._style, self.config
        yaw_sway, bounce, roll_sway = (a * math.sin(2 * math.pi * rate * t + phase) for a, rate, phase in style.sway)
        x = style.ego_x(t)
        px, py = style.place(x, -style.hand * style.lane_width * 0.5 + 0.12 * yaw_sway)
        yaw = float(style.heading(x + 5.0)) + math.radians(0.5) * yaw_sway
        pitch = style.pitch + math.radians(0.22) * bounce
        roll = math.radians(0.35) * roll_sway
        forward = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)])
        level = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
        upright = np.cross(forward, level)
        right = math.cos(roll) * level + math.sin(roll) * upright
        rotation = np.stack([right, np.cross(forward, right), forward])
        focal = 0.5 * config.width / math.tan(style.view_angle / 2)
        position = np.array([px, py, style.camera_height + 0.012 * bounce])
        return render.Camera(focal, (config.width - 1) / 2, (config.height - 1) / 2, rotation, position)

    def _ground(self, x: float) -> render.Ground:
        style = self._style
        step = render.LINE_STEP
        first = math.floor((x - BEHIND - 40.0) / step) * step
        grid = first + step * np.arange(int((AHEAD * 3 + 100.0) / step))
        line = np.stack([style.center(grid), np.cos(style.heading(grid))], axis=1)
        left, right = style.half_width[1], style.half_width[-1]
        widths = np.array([left, right, left + style.walk_width[1], right + style.walk_width[-1], style.kerb])
        return render.Ground(
            line,
            float(first),
            widths,
            self._world.crossings_near(x),
            style.marks,
            self._world.zebras_near(x),
            style.ground,
        )

    def _see(self, i: int) -> _Geometry:
        t, t_before = self._time(i), self._time(max(i - 1, 0))
        view, view_before = self._view(t), self._view(t_before)
        bodies = self._world.at(t, t_before)
        now = render.to_camera(bodies.surfaces.frame, view.rotation, view.position)
        # The nearest first: what is hidden costs little then.
        reach = np.abs(now[:, 1:, 2]).max(axis=1)
        order = np.flatnonzero(now[:, 0, 2] > -30.0)
        order = order[np.argsort((now[:, 0, 2] - reach)[order], kind="stable")]
        now = now[order]
        before = render.to_camera(bodies.before[order], view_before.rotation, view_before.position)
        source = bodies.surfaces
        surfaces = render.Surfaces(
            now,
            render.invert(now),
            source.corners[order],
            source.meta[order],
            source.color[order],
            source.parameters[order],
        )
        ground = self._ground(self._style.ego_x(t))
        shape = (self.config.height, self.config.width)
        inverse_depth, ids = np.empty(shape), np.empty(shape, dtype=np.int32)
        render.visibility(surfaces, ground, view, self._noise, inverse_depth, ids)
        return _Geometry(view, ground, surfaces, before, bodies.shadows, inverse_depth, ids)

    def _light(self, view: render.Camera) -> render.Light:
        weather = self._style.weather
        return render.Light(
            sun=view.rotation @ weather.sun,
            up=np.ascontiguousarray(view.rotation[:, 2]),
            ambient=weather.ambient,
            diffuse=weather.diffuse,
            haze=np.array([*weather.haze, weather.haze_m]),
            sky=np.array([*weather.horizon, *weather.zenith, weather.clouds, weather.cloud_scale]),
            skyline=self._style.skyline,
        )

    def _shaded(self, i: int):
        """Linear image (float32), labels, flow, and depth of each pixel's point in frame i - 1."""
        self._check(i)
        seen = self._geometry(i)
        view, past = seen.view, self._view(self._time(max(i - 1, 0)))
        shape = seen.ids.shape
        shadow = np.ones(shape, dtype=np.float32)
        render.cast_shadows(seen.shadows, view, seen.inverse_depth, seen.ids, shadow)
        image = np.empty((*shape, 3), dtype=np.float32)
        labels, depth_before = np.empty(shape, dtype=np.uint8), np.empty(shape)
        flow = np.empty((*shape, 2), dtype=np.float32)
        turn = past.rotation @ view.rotation.T
        shift = past.rotation @ (view.position - past.position)
        render.shade(
            self._noise, seen.surfaces, seen.ground, self._light(view), view, seen.before, turn, shift,
            seen.inverse_depth, seen.ids, shadow, image, labels, flow, depth_before,
        )  # fmt: skip
        return image, labels, flow, depth_before

    def _exposed(self, image: np.ndarray, i: int) -> np.ndarray:
        style, t = self._style, self._time(i)
        # Lens and sensor of a real camera blur by about half a pixel; it also softens the stairs along edges.
        image = cv2.GaussianBlur(image, (5, 5), style.blur * max(1.0, self.config.width / 1280))
        gain = style.gain * (
            1.0 + sum(a * math.sin(2 * math.pi * rate * t + phase) for a, rate, phase in style.gain_waves)
        )
        out = np.empty(image.shape, dtype=np.uint8)
        offset = int(np.random.default_rng([style.seed, 5, i]).integers(1 << 16))
        render.expose(self._noise, image, gain, style.vignette, style.grain, offset, out)
        return out
