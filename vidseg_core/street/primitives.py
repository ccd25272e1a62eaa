"""Planar quads and ellipsoids with a material and a label: everything in the street that is not ground or sky."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

SKY, BUILDING, POLE, ROAD, SIDEWALK, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

QUAD, ELLIPSOID = 0, 1
KIND, MASK, MATERIAL, LABEL, SEED = range(5)
NO_MASK, DISK, LEAVES = range(3)
(
    PLAIN,
    FACADE,
    ROOF,
    BARK,
    LEAF,
    PAINT,
    GLASS,
    WHEEL,
    ROUND_SIGN,
    TRIANGLE_SIGN,
    PLATE_SIGN,
    LAMPS,
    BOARDS,
    RAILING,
    GUARD_RAIL,
    CLOTH,
    HEAD,
    CAR_FRONT,
    CAR_REAR,
    SIDE_WINDOW,
    WALL,
) = range(21)
NUM_PARAMETERS = 8


class Primitives(NamedTuple):
    """n surfaces. A surface point has local coordinates (a, b, c) and lies at origin + a A + b B + c C.

    frame: n x 4 x 3, float64: origin, A, B, C. Quads: A and B unit vectors in the plane, C its normal, c = 0.
        Ellipsoids: the half axes; (a, b, c) is on the unit sphere.
    corners: n x 4 x 2, float64: (a, b) of the corners of a quad, in metres.
    meta: n x 5, int64: kind, mask, material, label, texture seed.
    color: n x 3, float64, 0..1.
    parameters: n x 8, float64: what the material asks for.
    part: n, int64: index of the rigid part of its body.
    """

    frame: np.ndarray
    corners: np.ndarray
    meta: np.ndarray
    color: np.ndarray
    parameters: np.ndarray
    part: np.ndarray


def concatenate(items: Sequence[Primitives]) -> Primitives:
    return Primitives(*(np.concatenate(arrays) for arrays in zip(*items, strict=True)))


class Mesh:
    """Collects primitives; `current part` is the rigid part that the next ones belong to."""

    def __init__(self):
        self.part = 0
        self._frames: list = []
        self._corners: list = []
        self._meta: list = []
        self._colors: list = []
        self._parameters: list = []
        self._parts: list = []

    def quad(self, points, material, color, label, parameters=(), mask=NO_MASK, seed=0):
        """A convex, planar quad. `points`: 4 x 3 around its border; A runs from the first to the second."""
        p0, p1, p2, p3 = ([float(v) for v in p] for p in points)
        a = _unit(_sub(p1, p0))
        normal = _unit(_cross(a, _sub(p3, p0) if p3 != p0 else _sub(p2, p0)))
        b = _cross(normal, a)
        corners = [(_dot(_sub(p, p0), a), _dot(_sub(p, p0), b)) for p in (p0, p1, p2, p3)]
        self._add((p0, a, b, normal), corners, (QUAD, mask, material, label, seed), color, parameters)

    def ellipsoid(self, center, axes, material, color, label, parameters=(), mask=NO_MASK, seed=0):
        """`axes`: three half axes as vectors, or three radii along x, y, z."""
        if not hasattr(axes[0], "__len__"):
            axes = ((axes[0], 0.0, 0.0), (0.0, axes[1], 0.0), (0.0, 0.0, axes[2]))
        corners = ((0.0, 0.0),) * 4
        self._add((center, *axes), corners, (ELLIPSOID, mask, material, label, seed), color, parameters)

    def limb(self, start, end, radius, material, color, label):
        """A long ellipsoid from `start` to `end`, a little longer than that so that limbs overlap at joints."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        along = (end - start) / 2
        unit = along / np.linalg.norm(along)
        side = np.cross(unit, (0.0, 1.0, 0.0) if abs(unit[1]) < 0.9 else (1.0, 0.0, 0.0))
        side /= np.linalg.norm(side)
        axes = (along * 1.12, side * radius, np.cross(unit, side) * radius)
        self.ellipsoid((start + end) / 2, axes, material, color, label)

    def box(self, low, high, material, color, label, parameters=(), seed=0, faces="xXyYZ"):
        """An axis-aligned box; `faces` names the ones to draw: lower case the low side, upper case the high side."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        points = {
            "x": [(x0, y1, z0), (x0, y0, z0), (x0, y0, z1), (x0, y1, z1)],
            "X": [(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)],
            "y": [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)],
            "Y": [(x1, y1, z0), (x0, y1, z0), (x0, y1, z1), (x1, y1, z1)],
            "z": [(x0, y0, z0), (x0, y1, z0), (x1, y1, z0), (x1, y0, z0)],
            "Z": [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
        }
        for face in faces:
            self.quad(points[face], material, color, label, parameters, seed=seed)

    def prism(self, start, end, radius, radius_end, material, color, label, sides=6, seed=0):
        """A round bar from `start` to `end` as a prism."""
        unit = _unit(_sub(end, start))
        first = _unit(_cross(unit, (1.0, 0.0, 0.0) if abs(unit[0]) < 0.9 else (0.0, 1.0, 0.0)))
        second = _cross(unit, first)
        start, end = np.asarray(start, float), np.asarray(end, float)
        angles = 2 * np.pi / sides * np.arange(sides)
        ring = np.outer(np.cos(angles), first) + np.outer(np.sin(angles), second)
        for k in range(sides):
            r0, r1 = ring[k], ring[(k + 1) % sides]
            points = [start + r0 * radius, start + r1 * radius, end + r1 * radius_end, end + r0 * radius_end]
            self.quad(points, material, color, label, seed=seed)

    def _add(self, frame, corners, meta, color, parameters):
        self._frames.append([tuple(v) for v in frame])
        self._corners.append(corners)
        self._meta.append(meta)
        self._colors.append(tuple(color))
        self._parameters.append(tuple(parameters) + (0.0,) * (NUM_PARAMETERS - len(parameters)))
        self._parts.append(self.part)

    def primitives(self) -> Primitives:
        return Primitives(
            np.array(self._frames, dtype=np.float64).reshape(-1, 4, 3),
            np.array(self._corners, dtype=np.float64).reshape(-1, 4, 2),
            np.array(self._meta, dtype=np.int64).reshape(-1, 5),
            np.array(self._colors, dtype=np.float64).reshape(-1, 3),
            np.array(self._parameters, dtype=np.float64).reshape(-1, NUM_PARAMETERS),
            np.array(self._parts, dtype=np.int64),
        )


def placed(primitives: Primitives, poses: np.ndarray) -> np.ndarray:
    """Frames (n x 4 x 3) of a body whose rigid part k has the pose `poses[k]` (3 x 4: rotation, translation)."""
    return _placed(primitives.frame, primitives.part, poses)


@njit(cache=True, nogil=True)
def _placed(frame, part, poses):
    out = np.empty_like(frame)
    for i in range(frame.shape[0]):
        pose = poses[part[i]]
        for k in range(4):
            for r in range(3):
                out[i, k, r] = pose[r, 0] * frame[i, k, 0] + pose[r, 1] * frame[i, k, 1] + pose[r, 2] * frame[i, k, 2]
        for r in range(3):
            out[i, 0, r] += pose[r, 3]
    return out


def pose_at(x: float, y: float, z: float, yaw: float) -> np.ndarray:
    """3 x 4: turned about the vertical by `yaw` (radians, counterclockwise), then moved."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, -s, 0.0, x], [s, c, 0.0, y], [0.0, 0.0, 1.0, z]])


@njit(cache=True, nogil=True)
def swing(pose, joint, angle):
    """The pose of a part that hangs on a body at `joint` (body coordinates), swung forward about the y axis."""
    c, s = math.cos(angle), math.sin(angle)
    out = np.empty((3, 4))
    x, _, z = joint
    dx, dz = x - c * x + s * z, z - s * x - c * z
    for r in range(3):
        out[r, 0] = pose[r, 0] * c + pose[r, 2] * s
        out[r, 1] = pose[r, 1]
        out[r, 2] = pose[r, 2] * c - pose[r, 0] * s
        out[r, 3] = pose[r, 3] + pose[r, 0] * dx + pose[r, 2] * dz
    return out


def _sub(p, q):
    return (p[0] - q[0], p[1] - q[1], p[2] - q[2])


def _dot(p, q):
    return p[0] * q[0] + p[1] * q[1] + p[2] * q[2]


def _cross(p, q):
    return (p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0])


def _unit(p):
    n = math.sqrt(_dot(p, p))
    return (p[0] / n, p[1] / n, p[2] / n)
