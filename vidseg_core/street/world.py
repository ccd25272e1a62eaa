"""The street along its length: chunks of what stands still, and who moves at a given time.

Everything is a function of (seed, chunk) or of (seed, stream, index, time): any frame can be made without the others.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vidseg_core.street import objects as O
from vidseg_core.street import primitives as P
from vidseg_core.street.primitives import Mesh, Primitives, concatenate, placed, pose_at
from vidseg_core.street.style import FACADE_COLORS, LOT_KINDS, Style

CHUNK = 48.0
AHEAD, BEHIND = 235.0, 14.0
FIRST_CHUNK = 1 << 20
CONTACT, SUN_SHADOW = -1.2, 0.0


class Chunk(NamedTuple):
    surfaces: Primitives
    shadows: np.ndarray


class Bodies(NamedTuple):
    """Bodies in the street at one time; `before`: `surfaces.frame` one frame earlier; shadows: see `cast_shadows`."""

    surfaces: Primitives
    before: np.ndarray
    shadows: np.ndarray


class World:
    """A street of one style."""

    def __init__(self, style: Style):
        self.style = style
        self.chunk = lru_cache(maxsize=16)(self._chunk)
        self.crossing = lru_cache(maxsize=64)(self._crossing)
        self.zebra = lru_cache(maxsize=64)(self._zebra)
        self.draw = lru_cache(maxsize=4096)(lambda stream, k: tuple(self._rng(20, stream, k).random(3)))
        self.person = lru_cache(maxsize=256)(lambda stream, k: O.Pedestrian(self._rng(11, stream, k)))
        self.rider = lru_cache(maxsize=64)(lambda stream, k: O.Bicyclist(self._rng(12, stream, k)))
        self.car = lru_cache(maxsize=128)(lambda stream, k: O.car(self._rng(13, stream, k)))

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.style.seed, *(int(k) + FIRST_CHUNK for k in key)])

    # ------------------------------------------------------------------------------------------ the road

    def chunks_near(self, x: float) -> range:
        return range(math.floor((x - BEHIND) / CHUNK), math.floor((x + AHEAD) / CHUNK) + 1)

    def _crossing(self, k: int) -> tuple[float, float] | None:
        """x from, to of the side street in chunk k."""
        rng = self._rng(1, k)
        if rng.random() > self.style.crossing_chance:
            return None
        middle, half = (k + rng.uniform(0.4, 0.6)) * CHUNK, rng.uniform(3.0, 4.5)
        return middle - half, middle + half

    def _zebra(self, k: int) -> tuple[float, float] | None:
        rng = self._rng(2, k)
        if self.crossing(k) is not None or rng.random() > 0.22:
            return None
        start = (k + rng.uniform(0.25, 0.7)) * CHUNK
        return start, start + 3.2

    def crossings_near(self, x: float) -> np.ndarray:
        found = [self.crossing(k) for k in self.chunks_near(x)]
        return np.array([c for c in found if c], dtype=np.float64).reshape(-1, 2)

    def zebras_near(self, x: float) -> np.ndarray:
        found = [self.zebra(k) for k in self.chunks_near(x)]
        return np.array([z for z in found if z], dtype=np.float64).reshape(-1, 2)

    def _free(self, x: float, margin: float) -> bool:
        """Whether x is away from side streets and zebra crossings."""
        k = math.floor(x / CHUNK)
        for near in (k - 1, k, k + 1):
            for span in (self.crossing(near), self.zebra(near)):
                if span and span[0] - margin < x < span[1] + margin:
                    return False
        return True

    # ------------------------------------------------------------------------------------------ what stands still

    def _chunk(self, k: int) -> Chunk:
        mesh, shadows, cars = Mesh(), [], []
        for side in (-1, 1):
            rng = self._rng(3, k, side)
            self._lots(mesh, shadows, rng, k, side)
            self._furniture(mesh, shadows, rng, k, side)
            cars += self._parked(shadows, rng, k, side)
            self._backdrop(mesh, rng, k, side)
            cars += self._bystanders(shadows, rng, k, side)
        self._traffic_lights(mesh, k)
        surfaces = concatenate([mesh.primitives(), *cars])
        return Chunk(surfaces, np.array(shadows, dtype=np.float64).reshape(-1, 9))

    def _lots(self, mesh, shadows, rng, k, side):
        """Fill one side of chunk k with buildings and gardens."""
        spans = [(k * CHUNK, (k + 1) * CHUNK)]
        crossing = self.crossing(k)
        if crossing:
            room = 1.2 + 0.5 * self.style.walk_width[side]
            spans = [(k * CHUNK, crossing[0] - room), (crossing[1] + room, (k + 1) * CHUNK)]
        for start, end in spans:
            kind = str(rng.choice(LOT_KINDS, p=self.style.lot_weights[side]))
            width = {"terrace": 6.5, "shops": 8.5, "blocks": 16.0, "houses": 13.0, "park": 24.0, "yard": 20.0}[kind]
            count = max(1, round((end - start) / (width * rng.uniform(0.85, 1.25))))
            cuts = start + (end - start) * np.concatenate(
                [[0.0], (np.arange(1, count) + rng.uniform(-0.22, 0.22, count - 1)) / count, [1.0]]
            )
            shared = self._facade(rng)
            for x0, x1 in zip(cuts[:-1], cuts[1:], strict=True):
                self._lot(mesh, shadows, rng, kind, float(x0), float(x1), side, shared)

    def _facade(self, rng) -> dict:
        style = self.style
        color = O.pick(rng, style.palette if rng.random() < 0.75 else FACADE_COLORS)
        return {
            "color": O.jitter(rng, color, 0.04),
            "storey": rng.uniform(2.7, 3.4),
            "column": rng.uniform(1.9, 3.6),
            "opening": (rng.uniform(0.8, 1.5), rng.uniform(1.2, 1.7)),
            "brick": float(rng.random() < style.brick),
            "gable": rng.random() < 0.6,
        }

    def _lot(self, mesh, shadows, rng, kind, x0, x1, side, shared):
        style = self.style
        edge = style.half_width[side] + style.walk_width[side]
        facade = dict(shared) if kind == "terrace" and rng.random() < 0.6 else self._facade(rng)
        if kind in ("terrace", "shops"):
            stories = max(2, round(style.stories + rng.uniform(-0.8, 0.8)))
            ground = 1.0 if kind == "shops" and rng.random() < 0.85 else 0.0
            set_back = -0.05 if kind == "shops" or rng.random() < 0.5 else 2.2
            self._building(mesh, shadows, rng, x0, x1, side, edge + set_back, 9.0, stories, facade, ground)
            if set_back > 1:
                self._border(mesh, rng, x0, x1, side, edge - 0.05, garden=True)
        elif kind == "blocks":
            stories = max(3, round(style.stories * 1.5 + rng.uniform(-1, 2)))
            facade["gable"] = False
            self._building(
                mesh,
                shadows,
                rng,
                x0,
                x1,
                side,
                edge + O.pick(rng, (-0.05, 2.5)),
                14.0,
                stories,
                facade,
                O.pick(rng, (0.0, 1.0, 2.0)),
            )
        elif kind == "houses":
            gap = 0.18 * (x1 - x0)
            facade["gable"] = True
            set_back = rng.uniform(3.5, 8.0)
            stories = int(rng.integers(1, 3)) + (rng.random() < 0.4)
            self._building(
                mesh, shadows, rng, x0 + gap, x1 - gap, side, edge + set_back, 9.0, int(stories), facade, 0.0
            )
            self._border(mesh, rng, x0, x1, side, edge - 0.05, garden=True)
            for _ in range(int(rng.integers(0, 3))):
                self._tree(
                    mesh,
                    shadows,
                    rng,
                    rng.uniform(x0, x1),
                    side * (edge + rng.uniform(1.5, set_back)),
                    rng.uniform(2.5, 6.5),
                )
            x, d = rng.uniform(x0, x1), side * (edge + rng.uniform(1.0, set_back))
            O.bush(mesh, rng, *style.place(x, d), style.kerb, rng.uniform(0.7, 1.4), style.leaf)
        else:
            self._border(mesh, rng, x0, x1, side, edge - 0.05, garden=kind == "park")
            for _ in range(int(rng.integers(2, 6)) if kind == "park" else int(rng.integers(0, 2))):
                self._tree(
                    mesh,
                    shadows,
                    rng,
                    rng.uniform(x0, x1),
                    side * (edge + rng.uniform(2.0, 16.0)),
                    rng.uniform(5.0, 12.0),
                )
            if kind == "yard":
                facade["gable"] = False
                self._building(
                    mesh,
                    shadows,
                    rng,
                    x0 + 1,
                    x1 - 1,
                    side,
                    edge + rng.uniform(6, 16),
                    14.0,
                    int(rng.integers(1, 4)),
                    facade,
                    2.0,
                )

    def _building(self, mesh, shadows, rng, x0, x1, side, front, depth, stories, facade, ground):
        """A house from x0 to x1 whose front is `front` metres from the centre line."""
        style = self.style
        height = stories * facade["storey"] + 0.35 + rng.uniform(0.0, 0.5)
        base = style.kerb - 0.02
        (ax, ay), (bx, by) = style.place(x0, side * front), style.place(x1, side * front)
        (cx, cy), (dx, dy) = style.place(x1, side * (front + depth)), style.place(x0, side * (front + depth))
        seed = int(rng.integers(1 << 16))
        color, top = facade["color"], base + height

        def parameters(width, kind):
            return (width, height, facade["storey"], facade["column"], *facade["opening"], facade["brick"], kind)

        def wall(px, py, qx, qy, kind):
            width = math.hypot(qx - px, qy - py)
            points = [(px, py, base), (qx, qy, base), (qx, qy, top), (px, py, top)]
            material = P.FACADE if kind is not None else P.WALL
            mesh.quad(points, material, color, P.BUILDING, parameters(width, kind or 0.0), seed=seed)

        blind = 2.0 if rng.random() < 0.6 else None
        wall(ax, ay, bx, by, ground)
        wall(dx, dy, ax, ay, blind)
        wall(bx, by, cx, cy, blind)
        roof = O.jitter(
            rng, O.pick(rng, ((0.42, 0.24, 0.18), (0.32, 0.31, 0.32), (0.25, 0.24, 0.25), (0.50, 0.32, 0.22))), 0.03
        )
        if facade["gable"]:
            rise = rng.uniform(1.8, 3.4)
            mx, my, nx, ny = (ax + dx) / 2, (ay + dy) / 2, (bx + cx) / 2, (by + cy) / 2
            ridge = top + rise
            mesh.quad(
                [(ax, ay, top), (bx, by, top), (nx, ny, ridge), (mx, my, ridge)], P.ROOF, roof, P.BUILDING, seed=seed
            )
            for p, q, m in (((dx, dy), (ax, ay), (mx, my)), ((bx, by), (cx, cy), (nx, ny))):
                triangle = [(*p, top), (*q, top), (*m, ridge), (*m, ridge)]
                mesh.quad(triangle, P.WALL, color, P.BUILDING, parameters(depth, 0.0), seed=seed)
            if rng.random() < 0.7:
                t = rng.uniform(0.1, 0.9)
                px, py = mx + (nx - mx) * t, my + (ny - my) * t
                brick = tuple(0.8 * v for v in color)
                low, high = (px - 0.4, py - 0.3, ridge - 0.8), (px + 0.4, py + 0.3, ridge + 1.0)
                mesh.box(low, high, P.WALL, brick, P.BUILDING, parameters(1.0, 0.0), seed=seed, faces="xXyY")
        else:
            cap = tuple(min(1.0, 1.1 * v) for v in color)
            out = side * 0.22
            (ex, ey), (fx, fy) = style.place(x0, side * front - out), style.place(x1, side * front - out)
            mesh.quad(
                [(ex, ey, top - 0.1), (fx, fy, top - 0.1), (fx, fy, top + 0.25), (ex, ey, top + 0.25)],
                P.PLAIN,
                cap,
                P.BUILDING,
            )
            mesh.quad(
                [(ex, ey, top - 0.1), (fx, fy, top - 0.1), (bx, by, top - 0.1), (ax, ay, top - 0.1)],
                P.PLAIN,
                cap,
                P.BUILDING,
            )
        shift = self._shadow_shift(height)
        for (px, py), (qx, qy) in (((ax, ay), (bx, by)), ((dx, dy), (ax, ay)), ((bx, by), (cx, cy))):
            middle = ((px + qx) / 2 + shift[0] / 2, (py + qy) / 2 + shift[1] / 2, style.kerb / 2)
            half = ((qx - px) / 2, (qy - py) / 2, shift[0] / 2, shift[1] / 2)
            if abs(half[0] * half[3] - half[1] * half[2]) > 1e-3:
                shadows.append((*middle, *half, 0.0, SUN_SHADOW))

    def _shadow_shift(self, height: float) -> tuple[float, float]:
        """How far the shadow of a point at `height` falls."""
        sun = self.style.weather.sun
        k = -height / max(sun[2], 0.2)
        return k * sun[0], k * sun[1]

    def _border(self, mesh, rng, x0, x1, side, d, garden):
        """Fence, wall or hedge along a plot, with a gate."""
        style = self.style
        kind = int(rng.choice(5, p=style.fence_kind))
        gate = rng.uniform(x0 + 1, max(x1 - 3, x0 + 1.1)) if garden else x1
        for start, end in ((x0, gate), (gate + 1.6, x1)):
            if end - start < 1.0:
                continue
            p, q = style.place(start, side * d), style.place(end, side * d)
            base = style.kerb - 0.02
            if kind == 3 and garden:
                O.hedge(mesh, rng, (*p, base), (*q, base), rng.uniform(0.9, 1.7), style.leaf)
                continue
            height = rng.uniform(0.9, 1.9) if garden else rng.uniform(1.5, 2.2)
            material, color = (
                (P.BOARDS, O.jitter(rng, (0.42, 0.31, 0.22))),
                (P.RAILING, O.jitter(rng, (0.16, 0.18, 0.17), 0.04)),
                (P.GUARD_RAIL, (0.62, 0.63, 0.64)),
                (P.BOARDS, O.jitter(rng, (0.68, 0.67, 0.63))),
                (P.RAILING, O.jitter(rng, (0.75, 0.75, 0.73), 0.04)),
            )[kind]
            low = base
            if material == P.GUARD_RAIL:
                height, low = 0.34, base + 0.42
                for x in np.arange(start + 0.5, end, 3.0):
                    px, py = style.place(float(x), side * (d + 0.06))
                    mesh.prism((px, py, base), (px, py, base + 0.7), 0.06, 0.06, P.PLAIN, color, P.FENCE, sides=4)
            points = [(*p, low), (*q, low), (*q, low + height), (*p, low + height)]
            mesh.quad(points, material, color, P.FENCE, (height,), seed=int(rng.integers(1 << 16)))

    def _tree(self, mesh, shadows, rng, x, d, height):
        style = self.style
        px, py = style.place(x, d)
        if rng.random() < 0.12:
            O.conifer(mesh, rng, px, py, style.kerb, height, style.leaf)
        else:
            O.tree(mesh, rng, px, py, style.kerb, height, O.jitter(rng, style.leaf, 0.02))
        shift = self._shadow_shift(0.65 * height)
        length = math.hypot(*shift) or 1.0
        ux, uy, radius = shift[0] / length, shift[1] / length, 0.27 * height
        stretch = radius + 0.35 * self._shadow_stretch(height)
        shadows.append(
            (
                px + shift[0],
                py + shift[1],
                style.kerb / 2,
                ux * stretch,
                uy * stretch,
                -uy * radius,
                ux * radius,
                1.0,
                SUN_SHADOW,
            )
        )

    def _shadow_stretch(self, height: float) -> float:
        return min(math.hypot(*self._shadow_shift(height)), 3.0 * height) * 0.5

    def _furniture(self, mesh, shadows, rng, k, side):
        style = self.style
        kerb = style.half_width[side]
        if side in style.lamp_sides:
            offset = 0.0 if side > 0 else 0.5
            first = math.ceil(k * CHUNK / style.lamp_spacing - offset)
            while (first + offset) * style.lamp_spacing < (k + 1) * CHUNK:
                x = (first + offset) * style.lamp_spacing
                if self._free(x, 0.5):
                    self._lamp(mesh, shadows, x, side)
                first += 1
        spacing = style.row_of_trees[side]
        if spacing and style.walk_width[side] > 2.2:
            for x in np.arange(k * CHUNK + 0.5 * spacing, (k + 1) * CHUNK, spacing):
                if self._free(x, 4.0) and rng.random() < 0.85:
                    self._tree(
                        mesh, shadows, rng, float(x), side * (kerb + 0.9), style.tree_height * rng.uniform(0.75, 1.15)
                    )
        for _ in range(int(rng.poisson(style.signs_per_chunk))):
            x = rng.uniform(k * CHUNK, (k + 1) * CHUNK)
            if not self._free(x, 1.0):
                continue
            px, py = style.place(x, side * (kerb + rng.uniform(0.35, 0.6)))
            # Signs face the traffic on their side of the road.
            angle = (
                float(style.heading(x))
                + (math.pi if side == -style.hand or rng.random() < 0.3 else 0.0)
                + rng.uniform(-0.15, 0.15)
            )
            O.sign_post(mesh, rng, px, py, style.kerb, np.array([math.cos(angle), math.sin(angle), 0.0]))

    def _lamp(self, mesh, shadows, x, side):
        style = self.style
        px, py = style.place(x, side * (style.half_width[side] + 0.45))
        angle = float(style.heading(x)) - side * math.pi / 2
        toward = np.array([math.cos(angle), math.sin(angle), 0.0])
        O.street_lamp(mesh, px, py, style.kerb, toward, style.lamp_height, style.lamp_arm, style.lamp_color)
        shift = self._shadow_shift(style.lamp_height)
        length = math.hypot(*shift) or 1.0
        half = (shift[0] / 2, shift[1] / 2, -0.06 * shift[1] / length, 0.06 * shift[0] / length)
        shadows.append((px + half[0], py + half[1], style.kerb / 2, *half, 0.0, SUN_SHADOW))

    def _traffic_lights(self, mesh, k):
        style, crossing = self.style, self.crossing(k)
        rng = self._rng(4, k)
        if crossing is None or rng.random() > 0.6:
            return
        for x, side, direction in (
            (crossing[0] - 1.2, -style.hand, math.pi),
            (crossing[1] + 1.2, style.hand, 0.0),
            (crossing[1] + 1.2, -style.hand, math.pi),
        ):
            px, py = style.place(x, side * (style.half_width[side] + 0.5))
            angle = float(style.heading(x)) + direction
            O.traffic_light(
                mesh, px, py, style.kerb, np.array([math.cos(angle), math.sin(angle), 0.0]), int(rng.integers(2))
            )

    def _parked(self, shadows, rng, k, side) -> list[Primitives]:
        style = self.style
        if not style.parking[side]:
            return []
        cars = []
        x = k * CHUNK + 3.0
        while x < (k + 1) * CHUNK - 2.9:
            if self._free(x, 5.5) and rng.random() < style.occupancy[side]:
                px, py = style.place(x, side * (style.half_width[side] - 1.08 + rng.uniform(-0.1, 0.1)))
                along = math.pi if (side == style.hand) != (rng.random() < 0.12) else 0.0
                yaw = float(style.heading(x)) + along + rng.uniform(-0.03, 0.03)
                cars.append(O.standing(O.car(rng), px, py, 0.0, yaw))
                shadows += self._car_shadows(px, py, yaw)
            x += rng.uniform(5.7, 6.6)
        return cars

    def _car_shadows(self, x, y, yaw) -> list[tuple]:
        c, s = math.cos(yaw), math.sin(yaw)
        shift = self._shadow_shift(0.9)
        contact = (x, y, 0.0, 2.35 * c, 2.35 * s, -1.06 * s, 1.06 * c, 1.0, CONTACT)
        cast = (
            x + shift[0] / 2,
            y + shift[1] / 2,
            0.0,
            2.2 * c + 0.3 * shift[0],
            2.2 * s + 0.3 * shift[1],
            -0.95 * s,
            0.95 * c,
            0.0,
            SUN_SHADOW,
        )
        return [cast, contact]

    def _person_shadows(self, x, y, z) -> list[tuple]:
        shift = self._shadow_shift(1.7)
        length = math.hypot(*shift) or 1.0
        half = (shift[0] / 2, shift[1] / 2, -0.22 * shift[1] / length, 0.22 * shift[0] / length)
        return [
            (x + half[0], y + half[1], z, *half, 1.0, SUN_SHADOW),
            (x, y, z, 0.32, 0.0, 0.0, 0.32, 1.0, CONTACT / 2),
        ]

    def _bystanders(self, shadows, rng, k, side) -> list[Primitives]:
        """People who stand about."""
        style, out = self.style, []
        for _ in range(int(rng.poisson(min(3.0, 12.0 / style.walker_spacing)))):
            person = O.Pedestrian(rng)
            x = rng.uniform(k * CHUNK, (k + 1) * CHUNK)
            px, py = style.place(x, side * (style.half_width[side] + rng.uniform(0.7, style.walk_width[side] - 0.3)))
            poses = person.poses(pose_at(px, py, style.kerb, rng.uniform(0, 2 * math.pi)), rng.uniform(0, 1), 0.15)
            frame = placed(person.mesh, poses)
            out.append(person.mesh._replace(frame=frame, part=np.zeros_like(person.mesh.part)))
            shadows += self._person_shadows(px, py, style.kerb)
        return out

    def _backdrop(self, mesh, rng, k, side):
        """Houses and trees behind the first row."""
        style = self.style
        for _ in range(2):
            x = rng.uniform(k * CHUNK, (k + 1) * CHUNK - 14)
            facade = self._facade(rng)
            crossing = self.crossing(k)
            width = rng.uniform(10, 16)
            if crossing and x < crossing[1] + 2 and x + width > crossing[0] - 2:
                continue
            self._building(
                mesh,
                [],
                rng,
                x,
                x + width,
                side,
                rng.uniform(32, 60),
                10.0,
                max(2, round(style.stories + rng.uniform(-1, 2))),
                facade,
                2.0,
            )
        for _ in range(3):
            px, py = style.place(rng.uniform(k * CHUNK, (k + 1) * CHUNK), side * rng.uniform(26, 70))
            height = rng.uniform(6, 13)
            for j in range(2):
                center = (px + rng.uniform(-2, 2), py + rng.uniform(-2, 2), height * (0.35 + 0.25 * j))
                radii = (height * 0.36, height * 0.36, height * 0.36)
                mesh.ellipsoid(
                    center,
                    radii,
                    P.LEAF,
                    O.jitter(rng, style.leaf, 0.03),
                    P.TREE,
                    (height * 0.36, 0.36),
                    mask=P.LEAVES,
                    seed=int(rng.integers(1 << 16)),
                )

    # ------------------------------------------------------------------------------------------ who moves

    def at(self, t: float, t_before: float) -> Bodies:
        """Collect everything within view of the camera at time `t` (seconds), with its place at `t_before`."""
        x = self.style.ego_x(t)
        chunks = [self.chunk(k) for k in self.chunks_near(x)]
        parts = [chunk.surfaces for chunk in chunks]
        before = [chunk.surfaces.frame for chunk in chunks]
        shadows = [chunk.shadows for chunk in chunks]
        moving_shadows: list[tuple] = []
        for body, poses, poses_before in self._movers(t, t_before, x, moving_shadows):
            parts.append(body._replace(frame=placed(body, poses)))
            before.append(placed(body, poses_before))
        shadows.append(np.array(moving_shadows, dtype=np.float64).reshape(-1, 9))
        return Bodies(concatenate(parts), np.concatenate(before), np.concatenate(shadows))

    def _movers(self, t, t_before, ego, shadows):
        yield from self._cars(t, t_before, ego, shadows)
        yield from self._riders(t, t_before, ego, shadows)
        yield from self._walkers(t, t_before, ego, shadows)
        yield from self._crossing_people(t, t_before, ego, shadows)

    def _pose(self, x: float, d: float, z: float, direction: int) -> np.ndarray:
        px, py = self.style.place(x, d)
        return pose_at(px, py, z, float(self.style.heading(x)) + (0.0 if direction > 0 else math.pi))

    def _stream(self, number: int, spacing: float, chance: float, shift: float, ego: float):
        """(index, x) of those of a stream of road users that are near; `shift`: how far the stream has moved."""
        first = math.floor((ego - BEHIND - shift) / spacing) - 1
        for k in range(first, math.floor((ego + AHEAD - 30.0 - shift) / spacing) + 1):
            draw = self.draw(number, k)
            if draw[0] < chance:
                x = (k + 0.6 * draw[1] - 0.3) * spacing + shift
                if ego - BEHIND < x < ego + AHEAD - 30.0:
                    yield k, x

    def _cars(self, t, t_before, ego, shadows):
        style = self.style
        lanes = []
        for i in range(style.lanes):
            d = style.hand * style.lane_width * (i + 0.5)
            speed = style.oncoming_speed * (1.0 - 0.15 * i)
            lanes.append((30 + i, d, max(style.oncoming_spacing, 11.0), 0.8, -speed * t, -speed * t_before, -1))
            if i > 0:
                speed = style.speed * style.overtaking_speed
                lanes.append((40 + i, -d, 26.0, 0.6, speed * t, speed * t_before, 1))
        lead, lead_before = self._lead_shift(t), self._lead_shift(t_before)
        lanes.append(
            (50, -style.hand * style.lane_width * 0.5, style.lead_gap, style.lead_chance, lead, lead_before, 1)
        )
        for number, d, spacing, chance, shift, shift_before, direction in lanes:
            for k, x in self._stream(number, spacing, chance, shift, ego):
                if number == 50 and x < ego + 7.0:
                    continue
                body = self.car(number, k)
                pose, pose_before = (self._pose(p, d, 0.0, direction) for p in (x, x - shift + shift_before))
                shadows += self._car_shadows(pose[0, 3], pose[1, 3], math.atan2(pose[1, 0], pose[0, 0]))
                yield body, pose[None], pose_before[None]

    def _lead_shift(self, t):
        """Those ahead in the camera's lane drive as it does, now a little faster, now slower."""
        return self.style.ego_x(t) + 2.5 * math.sin(0.4 * t + self.style.seed)

    def _riders(self, t, t_before, ego, shadows):
        style = self.style
        for number, side in ((60, -style.hand), (61, style.hand)):
            direction = 1 if side == -style.hand else -1
            speed = direction * float(style.rider_speeds[number - 60])
            inset = 2.75 if style.parking[side] else 0.55
            d = side * max(style.half_width[side] - inset, style.lane_width * 0.86)
            for k, x in self._stream(number, style.rider_spacing, 0.7, speed * t, ego):
                rider = self.rider(number, k)
                x_before = x + speed * (t_before - t)
                offset = direction * (x - k)
                now = rider.poses(self._pose(x, d, 0.0, direction), offset)
                past = rider.poses(self._pose(x_before, d, 0.0, direction), offset + direction * (x_before - x))
                shadows += self._person_shadows(now[0, 0, 3], now[0, 1, 3], 0.0)
                yield rider.mesh, now, past

    def _walkers(self, t, t_before, ego, shadows):
        style = self.style
        for number, (side, direction) in enumerate(((-1, 1), (-1, -1), (1, 1), (1, -1))):
            speed = direction * float(style.walker_speeds[number])
            for k, x in self._stream(number, 2 * style.walker_spacing, 0.75, speed * t, ego):
                person = self.person(number, k)
                lane = 0.75 + self.draw(number, k)[2] * max(0.05, style.walk_width[side] - 1.1)
                d = side * (style.half_width[side] + lane)
                x_before = x + speed * (t_before - t)
                z, z_before = (0.0 if self._on_side_street(p) else style.kerb for p in (x, x_before))
                now = person.poses(self._pose(x, d, z, direction), direction * x)
                past = person.poses(self._pose(x_before, d, z_before, direction), direction * x_before)
                shadows += self._person_shadows(now[0, 0, 3], now[0, 1, 3], z)
                yield person.mesh, now, past

    def _on_side_street(self, x: float) -> bool:
        crossing = self.crossing(math.floor(x / CHUNK))
        return crossing is not None and crossing[0] < x < crossing[1]

    def _crossing_people(self, t, t_before, ego, shadows):
        """At a zebra crossing people cross some seconds before the camera passes."""
        style = self.style
        for k in self.chunks_near(ego):
            zebra = self.zebra(k)
            if zebra is None:
                continue
            rng = self._rng(22, k)
            passing = style.ego_time(zebra[0])
            for j in range(int(rng.integers(1, 4))):
                direction, x = int(rng.choice([-1, 1])), rng.uniform(zebra[0] + 0.4, zebra[1] - 0.4)
                speed, start = rng.uniform(1.2, 1.7), passing - rng.uniform(9.5, 12.0)
                low, high = -style.half_width[-1] - 1.0, style.half_width[1] + 1.0

                def pose(time, direction=direction, speed=speed, start=start, x=x, low=low, high=high):
                    walked = float(np.clip((time - start) * speed, 0.0, high - low))
                    d = low + walked if direction > 0 else high - walked
                    z = style.kerb if d < low + 1.0 or d > high - 1.0 else 0.0
                    px, py = style.place(x, d)
                    moving = 0.0 < walked < high - low
                    return pose_at(px, py, z, float(style.heading(x)) + direction * math.pi / 2), walked, float(moving)

                person = self.person(70 + j, k)
                now, past = person.poses(*pose(t)), person.poses(*pose(t_before))
                shadows += self._person_shadows(now[0, 0, 3], now[0, 1, 3], now[0, 2, 3])
                yield person.mesh, now, past
