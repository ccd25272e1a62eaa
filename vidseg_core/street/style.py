"""Everything that one seed decides: the road, its light, its traffic, the camera and how it drives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LOT_KINDS = ("terrace", "shops", "blocks", "houses", "park", "yard")
FACADE_COLORS = (
    (0.62, 0.36, 0.28),
    (0.52, 0.30, 0.24),
    (0.70, 0.50, 0.36),
    (0.80, 0.74, 0.62),
    (0.84, 0.82, 0.78),
    (0.72, 0.68, 0.60),
    (0.60, 0.58, 0.55),
    (0.76, 0.62, 0.44),
    (0.66, 0.70, 0.70),
    (0.82, 0.66, 0.60),
    (0.45, 0.42, 0.40),
)
LEAF_COLORS = ((0.25, 0.34, 0.13), (0.20, 0.29, 0.12), (0.32, 0.38, 0.14), (0.30, 0.33, 0.18), (0.44, 0.36, 0.12))


@dataclass(frozen=True)
class Weather:
    """Colours 0..1; `sun`: unit vector towards it in the world; `clouds` 0..1; `haze_m`: how far one sees well."""

    sun: np.ndarray
    ambient: np.ndarray
    diffuse: np.ndarray
    haze: np.ndarray
    haze_m: float
    horizon: np.ndarray
    zenith: np.ndarray
    clouds: float
    cloud_scale: float


def _weather(rng: np.random.Generator) -> Weather:
    kind = rng.choice(["clear", "fair", "overcast", "evening"], p=[0.30, 0.32, 0.26, 0.12])
    elevation = math.radians(
        {"clear": rng.uniform(28, 62), "fair": rng.uniform(28, 55), "overcast": 50, "evening": rng.uniform(12, 20)}[
            kind
        ]
    )
    azimuth = rng.uniform(0, 2 * math.pi)
    sun = np.array(
        [math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation), math.sin(elevation)]
    )
    ambient, diffuse, horizon, zenith, clouds = {
        "clear": (
            (0.50, 0.55, 0.64),
            (0.78, 0.72, 0.60),
            (0.80, 0.87, 0.94),
            (0.33, 0.52, 0.80),
            rng.uniform(0.0, 0.35),
        ),
        "fair": (
            (0.60, 0.63, 0.68),
            (0.56, 0.53, 0.46),
            (0.84, 0.88, 0.92),
            (0.46, 0.60, 0.80),
            rng.uniform(0.45, 0.75),
        ),
        "overcast": (
            (0.88, 0.90, 0.93),
            (0.07, 0.07, 0.07),
            (0.86, 0.87, 0.89),
            (0.70, 0.73, 0.78),
            rng.uniform(0.8, 1.0),
        ),
        "evening": (
            (0.52, 0.50, 0.54),
            (0.78, 0.58, 0.36),
            (0.96, 0.82, 0.64),
            (0.46, 0.54, 0.70),
            rng.uniform(0.1, 0.6),
        ),
    }[kind]
    tint = 1.0 + rng.uniform(-0.04, 0.04, 3)
    horizon = np.array(horizon) * rng.uniform(0.92, 1.05)
    haze_m = rng.uniform(160, 320) if kind == "overcast" else rng.uniform(260, 900)
    return Weather(
        sun=sun,
        ambient=np.array(ambient) * tint * rng.uniform(0.92, 1.06),
        diffuse=np.array(diffuse) * tint,
        haze=0.92 * horizon,
        haze_m=haze_m,
        horizon=horizon,
        zenith=np.array(zenith) * rng.uniform(0.9, 1.06),
        clouds=float(clouds),
        cloud_scale=rng.uniform(0.5, 1.3),
    )


class Style:
    """Everything about a street that does not change along it. Lengths in metres, angles in radians.

    `d` is the distance from the centre line, positive to the left; `hand` is 1 where people drive on the right.
    """

    def __init__(self, seed: int):
        rng = np.random.default_rng([seed, 1])
        self.seed = seed
        self.hand = 1 if rng.random() < 0.6 else -1
        self._lay_out(rng)
        self._furnish(rng)
        self._crowd(rng)
        self.weather = _weather(rng)
        self._paint(rng)
        self._mount_camera(rng)

    def _lay_out(self, rng):
        self.lanes = 2 if rng.random() < 0.25 else 1
        self.lane_width = rng.uniform(2.9, 3.5)
        self.parking = {side: bool(rng.random() < 0.62) for side in (-1, 1)}
        self.half_width = {
            side: self.lanes * self.lane_width + (2.2 if self.parking[side] else rng.uniform(0.3, 0.9))
            for side in (-1, 1)
        }
        self.walk_width = {side: rng.uniform(1.8, 4.2) for side in (-1, 1)}
        self.kerb = rng.uniform(0.09, 0.15)
        self.waves = [
            (rng.uniform(-0.05, 0.05) * length / (2 * math.pi), 2 * math.pi / length, rng.uniform(0, 2 * math.pi))
            for length in rng.uniform(220, 700, 3)
        ]
        self.crossing_chance = rng.uniform(0.15, 0.5)

    def _furnish(self, rng):
        weights = rng.dirichlet((1.3, 1.0, 0.9, 1.2, 0.6, 0.45))
        self.lot_weights = {side: 0.75 * weights + 0.25 * rng.dirichlet((1.0,) * len(LOT_KINDS)) for side in (-1, 1)}
        self.stories = rng.uniform(1.8, 4.2)
        self.brick = rng.uniform(0.1, 0.8)
        self.palette = [FACADE_COLORS[int(k)] for k in rng.choice(len(FACADE_COLORS), 5, replace=False)]
        self.leaf = LEAF_COLORS[int(rng.choice(len(LEAF_COLORS), p=[0.3, 0.25, 0.22, 0.15, 0.08]))]
        self.row_of_trees = {side: float(rng.uniform(8, 18)) if rng.random() < 0.45 else 0.0 for side in (-1, 1)}
        self.tree_height = rng.uniform(5.5, 10.5)
        self.lamp_spacing = rng.uniform(22, 38)
        self.lamp_height = rng.uniform(5.5, 9.0)
        self.lamp_arm = rng.uniform(0.5, 1.8)
        self.lamp_sides = (-1, 1) if rng.random() < 0.4 else (int(rng.choice([-1, 1])),)
        self.lamp_color = ((0.30, 0.32, 0.31), (0.55, 0.57, 0.58), (0.14, 0.17, 0.16))[int(rng.integers(3))]
        self.signs_per_chunk = rng.uniform(0.6, 2.6)
        self.fence_kind = rng.dirichlet((1.0, 1.0, 0.4, 0.8, 0.8))

    def _crowd(self, rng):
        self.occupancy = {side: rng.uniform(0.25, 0.95) for side in (-1, 1)}
        self.oncoming_spacing = rng.uniform(16, 60)
        self.oncoming_speed = rng.uniform(6.0, 13.0)
        self.lead_chance = rng.uniform(0.0, 0.8)
        self.lead_gap = rng.uniform(9, 24)
        self.overtaking_speed = rng.uniform(0.8, 1.25)
        self.walker_spacing = float(np.exp(rng.uniform(math.log(4.0), math.log(28.0))))
        self.walker_speeds = rng.uniform(1.0, 1.6, 4)
        self.rider_spacing = rng.uniform(16, 70)
        self.rider_speeds = rng.uniform(3.2, 6.0, 2)

    def _paint(self, rng):
        walk = np.array(
            ((0.58, 0.56, 0.53), (0.46, 0.46, 0.46), (0.60, 0.49, 0.43), (0.66, 0.63, 0.57))[int(rng.integers(4))]
        )
        self.grass_verge = bool(rng.random() < 0.65)
        verge = (0.26, 0.30, 0.30) if self.grass_verge else (0.50, 0.49, 0.47)
        self.ground = np.array(
            [
                rng.uniform(0.27, 0.44),
                rng.uniform(0.15, 0.40),
                *(walk * rng.uniform(0.85, 1.12)),
                rng.uniform(0.3, 0.95),
                *(np.array(verge) * rng.uniform(0.9, 1.15)),
                0.0,
                0.0,
                0.0,
            ]
        )
        self.ground[7] = float(rng.random() < 0.75)
        self.ground[8] = float(self.grass_verge)
        self.ground[9] = float(rng.integers(200))
        self.skyline = np.array([float(rng.integers(200)), rng.uniform(0.015, 0.05)])
        marks = []
        if self.lanes == 1:
            centre = int(rng.integers(3))
            if centre < 2:
                period, dash = ((9.0, 3.0), (6.0, 4.0))[centre]
                marks.append((0.0, 0.12, period, dash))
        else:
            marks += [(-0.12, 0.11, 0.0, 0.0), (0.12, 0.11, 0.0, 0.0)]
            marks += [(side * self.lane_width, 0.12, 9.0, 3.0) for side in (-1, 1)]
        for side in (-1, 1):
            kerb = self.half_width[side]
            if self.parking[side] and rng.random() < 0.6:
                marks.append((side * (kerb - 2.15), 0.10, 0.0, 0.0))
            elif not self.parking[side]:
                edge = int(rng.integers(3))
                if edge < 2:
                    marks.append((side * (kerb - 0.3), 0.10, 0.0, 0.0))
        self.marks = np.array(marks, dtype=np.float64).reshape(-1, 4)

    def _mount_camera(self, rng):
        self.speed = rng.uniform(5.5, 13.0)
        self.speed_wave = (rng.uniform(0.1, 0.45), rng.uniform(0.12, 0.35), rng.uniform(0, 2 * math.pi))
        self.start = rng.uniform(100.0, 4000.0)
        self.camera_height = rng.uniform(1.2, 1.75)
        self.view_angle = math.radians(rng.uniform(52, 72))
        self.pitch = math.radians(rng.uniform(-3.5, 1.5))
        self.sway = [
            (rng.uniform(0.3, 1.0), rng.uniform(*band), rng.uniform(0, 2 * math.pi))
            for band in ((0.1, 0.3), (1.0, 1.8), (0.5, 1.3))
        ]
        self.gain = rng.uniform(0.86, 1.10)
        self.gain_waves = [
            (rng.uniform(0.02, 0.07), 1 / rng.uniform(4, 18), rng.uniform(0, 2 * math.pi)) for _ in range(2)
        ]
        self.vignette = rng.uniform(0.02, 0.10)
        self.grain = rng.uniform(3.0, 9.0)
        self.blur = rng.uniform(0.35, 0.6)

    def center(self, x):
        """y of the centre line."""
        return sum(a * np.sin(k * x + p) for a, k, p in self.waves)

    def heading(self, x):
        """Angle of the centre line."""
        return np.arctan(sum(a * k * np.cos(k * x + p) for a, k, p in self.waves))

    def place(self, x: float, d: float) -> tuple[float, float]:
        """World coordinates of the point `d` to the left of the centre line at x."""
        angle = float(self.heading(x))
        return x - d * math.sin(angle), float(self.center(x)) + d * math.cos(angle)

    def ego_x(self, t: float) -> float:
        part, rate, phase = self.speed_wave
        return self.start + self.speed * (t + part / rate * (math.sin(rate * t + phase) - math.sin(phase)))

    def ego_time(self, x: float) -> float:
        """Find the time at which the camera passes x (by bisection: it never stops)."""
        part, rate, _ = self.speed_wave
        middle, reach = (x - self.start) / self.speed, 2 * part / rate + 1.0
        low, high = middle - reach, middle + reach
        for _ in range(40):
            middle = 0.5 * (low + high)
            if self.ego_x(middle) < x:
                low = middle
            else:
                high = middle
        return middle
