"""Things in the street, as meshes in body coordinates: x forward, y left, z up, origin on the ground."""

from __future__ import annotations

import math

import numpy as np

from vidseg_core.street import primitives as P
from vidseg_core.street.primitives import Mesh, Primitives, pose_at, swing

DARK = (0.06, 0.06, 0.065)
GALVANISED = (0.56, 0.58, 0.59)
CAR_COLORS = (
    (0.80, 0.80, 0.80),
    (0.62, 0.63, 0.65),
    (0.30, 0.31, 0.33),
    (0.10, 0.10, 0.11),
    (0.12, 0.20, 0.42),
    (0.55, 0.08, 0.08),
    (0.10, 0.28, 0.20),
    (0.45, 0.55, 0.66),
    (0.72, 0.66, 0.52),
    (0.75, 0.48, 0.10),
)
CLOTH_COLORS = (
    (0.10, 0.10, 0.13),
    (0.14, 0.18, 0.30),
    (0.30, 0.31, 0.33),
    (0.55, 0.12, 0.13),
    (0.70, 0.68, 0.64),
    (0.26, 0.32, 0.22),
    (0.45, 0.36, 0.26),
    (0.20, 0.36, 0.56),
    (0.75, 0.58, 0.20),
    (0.48, 0.22, 0.42),
)
SKIN_COLORS = ((0.86, 0.66, 0.55), (0.74, 0.54, 0.42), (0.50, 0.34, 0.25), (0.34, 0.23, 0.17))


def pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


def jitter(rng: np.random.Generator, color, amount=0.06):
    k = 1.0 + rng.uniform(-amount, amount) * 2
    return tuple(float(np.clip(v * k + rng.uniform(-amount, amount), 0.02, 0.97)) for v in color)


# In metres: length, width, height, sill, belt, bonnet. Then, in parts of the length from the middle, where these are:
# windscreen foot, front and rear end of the roof, rear window foot.
CAR_SHAPES = {
    "hatchback": (3.9, 1.70, 1.47, 0.24, 0.94, 0.74, 0.20, 0.03, -0.36, -0.47),
    "estate": (4.5, 1.76, 1.48, 0.24, 0.95, 0.76, 0.20, 0.05, -0.40, -0.48),
    "saloon": (4.6, 1.78, 1.44, 0.23, 0.93, 0.75, 0.20, 0.04, -0.22, -0.36),
    "suv": (4.5, 1.86, 1.72, 0.30, 1.10, 0.92, 0.21, 0.08, -0.40, -0.48),
    "van": (5.3, 1.96, 2.30, 0.30, 1.20, 0.98, 0.37, 0.25, -0.49, -0.495),
}


def car(rng: np.random.Generator, shape: str | None = None) -> Primitives:
    """A car of 4 to 5.3 m."""
    if shape is None:
        shape = str(rng.choice(list(CAR_SHAPES), p=[0.36, 0.17, 0.20, 0.17, 0.10]))
    length, width, height, sill, belt, bonnet, foot, front, rear, back = CAR_SHAPES[shape]
    size = rng.uniform(0.95, 1.05)
    length, height = length * size, height * rng.uniform(0.97, 1.03)
    color = jitter(rng, pick(rng, CAR_COLORS if shape != "van" else CAR_COLORS[:3]))
    seed = int(rng.integers(1 << 20))
    mesh = Mesh()
    x0, x1, w = -length / 2, length / 2, width / 2
    foot, front, rear, back = (v * length for v in (foot, front, rear, back))
    inner = w * (0.80 if shape != "van" else 0.92)
    nose, waist = x1 - 0.10, 0.5 * (sill + bonnet)
    tail_belt = belt + 0.02
    tail = x0 + 0.05
    for side in (-1, 1):
        y, yi = side * w, side * inner
        mesh.quad([(x0, y, sill), (x1 - 0.04, y, sill), (x1, y, waist), (x0, y, waist)], P.PAINT, color, P.CAR)
        mesh.quad([(x0, y, waist), (x1, y, waist), (nose, y, bonnet), (tail, y, bonnet)], P.PAINT, color, P.CAR)
        mesh.quad([(tail, y, bonnet), (nose, y, bonnet), (foot, y, belt), (tail, y, tail_belt)], P.PAINT, color, P.CAR)
        parameters = (back - foot, height - belt)
        glass = [(back, y, tail_belt), (foot, y, belt), (front, yi, height), (rear, yi, height)]
        mesh.quad(glass, P.SIDE_WINDOW, color, P.CAR, (foot - back, height - belt))
        if shape == "van":
            panel = [
                (back, y * 1.004, belt),
                (front - 0.5, y * 1.004, belt),
                (front - 0.5, yi * 1.004, height),
                (rear, yi * 1.004, height),
            ]
            mesh.quad(panel, P.PAINT, color, P.CAR, parameters)
        rocker = y * 0.96
        mesh.quad(
            [(x0 + 0.2, rocker, 0.14), (x1 - 0.2, rocker, 0.14), (x1 - 0.2, rocker, sill), (x0 + 0.2, rocker, sill)],
            P.PLAIN,
            DARK,
            P.CAR,
        )
        mirror = (foot - 0.25, side * (w + 0.09), belt + 0.08)
        mesh.ellipsoid(mirror, (0.07, 0.11, 0.08), P.PLAIN, color, P.CAR)
        for axle in (x1 - 0.19 * length, x0 + 0.19 * length):
            _disk(mesh, (axle, side * (w + 0.008), 0.33), 0.39 if shape != "van" else 0.41, side, P.PLAIN, DARK)
            _disk(mesh, (axle, side * (w + 0.020), 0.32), 0.32, side, P.WHEEL, DARK)
            tread = (side * (w - 0.19), side * (w + 0.02))
            for x, top in ((axle - 0.06, 0.60), (axle + 0.06, 0.60), (axle - 0.22, 0.5), (axle + 0.22, 0.5)):
                low = 0.32 - math.sqrt(0.32**2 - (x - axle) ** 2)
                corners = [(x, tread[0], low), (x, tread[1], low), (x, tread[1], top), (x, tread[0], top)]
                mesh.quad(corners, P.PLAIN, DARK, P.CAR)
    mesh.quad([(nose, -w, bonnet), (nose, w, bonnet), (foot, w, belt), (foot, -w, belt)], P.PAINT, color, P.CAR)
    mesh.quad(
        [(x1 - 0.02, w, sill), (x1 - 0.02, -w, sill), (nose, -w, bonnet), (nose, w, bonnet)],
        P.CAR_FRONT,
        color,
        P.CAR,
        (width, bonnet - sill),
        seed=seed,
    )
    mesh.quad(
        [(foot, -w, belt), (foot, w, belt), (front, inner, height), (front, -inner, height)],
        P.GLASS,
        (0.10, 0.12, 0.13),
        P.CAR,
    )
    mesh.quad(
        [(front, -inner, height), (front, inner, height), (rear, inner, height), (rear, -inner, height)],
        P.PAINT,
        color,
        P.CAR,
    )
    window = [(back, w, tail_belt), (back, -w, tail_belt), (rear, -inner, height), (rear, inner, height)]
    mesh.quad(window, P.PAINT if shape == "van" else P.GLASS, color if shape == "van" else (0.09, 0.10, 0.11), P.CAR)
    mesh.quad(
        [(tail, w, tail_belt), (tail, -w, tail_belt), (back, -w, tail_belt), (back, w, tail_belt)],
        P.PAINT,
        color,
        P.CAR,
    )
    mesh.quad(
        [(x0, w, sill), (x0, -w, sill), (tail, -w, tail_belt), (tail, w, tail_belt)],
        P.CAR_REAR,
        color,
        P.CAR,
        (width, tail_belt - sill),
        seed=seed,
    )
    return mesh.primitives()


def _disk(mesh, center, radius, side, material, color, label=P.CAR, inner_radius=0.0):
    x, y, z = center
    points = [
        (x - radius, y, z - radius),
        (x + radius, y, z - radius),
        (x + radius, y, z + radius),
        (x - radius, y, z + radius),
    ]
    mesh.quad(points, material, color, label, (0.0,) * 7 + (inner_radius,), mask=P.DISK)


class Pedestrian:
    """A person of 1.2 to 1.9 m; parts: body, two legs (thigh, shank), two arms."""

    def __init__(self, rng: np.random.Generator):
        self.height = rng.uniform(1.1, 1.4) if rng.random() < 0.1 else rng.uniform(1.58, 1.90)
        k = self.k = self.height / 1.75
        skin, top, legs = (
            pick(rng, SKIN_COLORS),
            jitter(rng, pick(rng, CLOTH_COLORS)),
            jitter(rng, pick(rng, CLOTH_COLORS[:6])),
        )
        build = rng.uniform(0.88, 1.2)
        self.hip, self.knee, self.shoulder = 0.90 * k, 0.48 * k, 1.42 * k
        self.spread = 0.09 * k * build
        mesh = Mesh()
        seed = int(rng.integers(1 << 20))
        mesh.ellipsoid(
            (0.01, 0, 1.17 * k),
            (0.13 * k * build, 0.20 * k * build, 0.33 * k),
            P.CLOTH,
            top,
            P.PEDESTRIAN,
            (0.3,),
            seed=seed,
        )
        mesh.ellipsoid(
            (0.0, 0, 1.38 * k), (0.10 * k, 0.21 * k * build, 0.11 * k), P.CLOTH, top, P.PEDESTRIAN, (0.2,), seed=seed
        )
        mesh.ellipsoid(
            (0.0, 0, 0.93 * k), (0.12 * k * build, 0.17 * k * build, 0.14 * k), P.CLOTH, legs, P.PEDESTRIAN, (0.2,)
        )
        if rng.random() < 0.3:
            coat = (0.15 * k * build, 0.21 * k * build, 0.34 * k)
            mesh.ellipsoid((0.0, 0, 0.88 * k), coat, P.CLOTH, top, P.PEDESTRIAN, (0.3,), seed=seed)
        mesh.limb((0, 0, 1.44 * k), (0.01, 0, 1.56 * k), 0.05 * k, P.PLAIN, skin, P.PEDESTRIAN)
        mesh.ellipsoid(
            (0.02, 0, 1.635 * k), (0.10 * k, 0.08 * k, 0.12 * k), P.HEAD, skin, P.PEDESTRIAN, (rng.random() ** 2,)
        )
        if rng.random() < 0.25:
            bag = jitter(rng, pick(rng, CLOTH_COLORS))
            mesh.ellipsoid((-0.16 * k, 0, 1.22 * k), (0.10, 0.15, 0.22), P.CLOTH, bag, P.PEDESTRIAN, (0.2,))
        for side, part in ((1, 1), (-1, 3)):
            y = side * self.spread
            mesh.part = part
            mesh.limb((0, y, self.hip), (0, y, self.knee), 0.085 * k * build, P.PLAIN, legs, P.PEDESTRIAN)
            mesh.part = part + 1
            mesh.limb((0, y, self.knee), (0, y, 0.08 * k), 0.062 * k * build, P.PLAIN, legs, P.PEDESTRIAN)
            mesh.ellipsoid((0.06 * k, y, 0.05 * k), (0.13 * k, 0.05 * k, 0.05 * k), P.PLAIN, DARK, P.PEDESTRIAN)
        for side, part in ((1, 5), (-1, 6)):
            y = side * 0.23 * k * build
            mesh.part = part
            mesh.limb((0, y, self.shoulder), (-0.02, y * 1.12, 1.12 * k), 0.058 * k, P.PLAIN, top, P.PEDESTRIAN)
            mesh.limb((-0.02, y * 1.12, 1.12 * k), (0.08 * k, y * 1.1, 0.90 * k), 0.045 * k, P.PLAIN, top, P.PEDESTRIAN)
            mesh.ellipsoid((0.10 * k, y * 1.1, 0.86 * k), (0.05, 0.035, 0.06), P.PLAIN, skin, P.PEDESTRIAN)
        self.mesh = mesh.primitives()

    def poses(self, pose: np.ndarray, distance: float, stride: float = 1.0) -> np.ndarray:
        """7 x 3 x 4 for someone who has walked `distance` metres; `stride` 0 stands."""
        phase = 2 * math.pi * distance / (1.45 * self.k)
        out = [pose]
        for side, offset in ((1, 0.0), (-1, math.pi)):
            y = side * self.spread
            thigh = stride * 0.45 * math.sin(phase + offset)
            bend = stride * 0.55 * max(0.0, math.cos(phase + offset + 0.3))
            upper = swing(pose, (0.0, y, self.hip), thigh)
            out += [upper, swing(upper, (0.0, y, self.knee), -bend)]
        for side, offset in ((1, math.pi), (-1, 0.0)):
            joint = (0.0, side * 0.23 * self.k, self.shoulder)
            out.append(swing(pose, joint, stride * 0.40 * math.sin(phase + offset)))
        return np.array(out)


class Bicyclist:
    """Bicycle and rider; parts: both and the rider's body, four of the legs."""

    HIP, KNEE_LENGTH, SHANK, CRANK = (-0.18, 0.10, 0.98), 0.45, 0.46, 0.17
    AXLE = (0.02, 0.10, 0.30)

    def __init__(self, rng: np.random.Generator):
        skin, top, legs = (
            pick(rng, SKIN_COLORS),
            jitter(rng, pick(rng, CLOTH_COLORS)),
            jitter(rng, pick(rng, CLOTH_COLORS)),
        )
        paint = jitter(rng, pick(rng, CAR_COLORS))
        mesh = Mesh()
        label = P.BICYCLIST
        for x in (-0.52, 0.52):
            for y in (-0.018, 0.018):
                _disk(mesh, (x, y, 0.34), 0.34, 1, P.PLAIN, DARK, label, inner_radius=0.285)
            _disk(mesh, (x, 0.0, 0.34), 0.06, 1, P.PLAIN, GALVANISED, label)
            for k in range(4):
                dx, dz = 0.3 * math.cos(k * math.pi / 4), 0.3 * math.sin(k * math.pi / 4)
                mesh.prism(
                    (x - dx, 0, 0.34 - dz), (x + dx, 0, 0.34 + dz), 0.006, 0.006, P.PLAIN, GALVANISED, label, sides=3
                )
        tubes = [
            ((-0.52, 0.34), (0.0, 0.30)),
            ((-0.52, 0.34), (-0.16, 0.80)),
            ((0.0, 0.30), (-0.20, 0.92)),
            ((0.0, 0.30), (0.38, 0.82)),
            ((-0.16, 0.80), (0.38, 0.84)),
            ((0.52, 0.34), (0.36, 0.98)),
        ]
        for (xa, za), (xb, zb) in tubes:
            mesh.prism((xa, 0, za), (xb, 0, zb), 0.022, 0.022, P.PLAIN, paint, label, sides=5)
        mesh.prism((0.38, -0.28, 1.03), (0.38, 0.28, 1.03), 0.018, 0.018, P.PLAIN, DARK, label, sides=4)
        mesh.ellipsoid((-0.20, 0, 0.94), (0.13, 0.08, 0.04), P.PLAIN, DARK, label)
        mesh.limb((-0.20, 0, 0.98), (0.08, 0, 1.42), 0.16, P.PLAIN, top, label)
        mesh.ellipsoid((0.05, 0, 1.38), (0.12, 0.21, 0.12), P.PLAIN, top, label)
        mesh.ellipsoid((0.19, 0, 1.62), (0.10, 0.08, 0.12), P.HEAD, skin, label, (rng.random() ** 2,))
        if rng.random() < 0.5:
            mesh.ellipsoid((0.17, 0, 1.69), (0.14, 0.10, 0.08), P.PLAIN, jitter(rng, pick(rng, CAR_COLORS)), label)
        for side in (-1, 1):
            mesh.limb((0.06, side * 0.20, 1.40), (0.22, side * 0.25, 1.18), 0.055, P.PLAIN, top, label)
            mesh.limb((0.22, side * 0.25, 1.18), (0.40, side * 0.24, 1.06), 0.045, P.PLAIN, skin, label)
        for k, side in enumerate((1, -1)):
            y = side * self.HIP[1]
            x, z = self.HIP[0], self.HIP[2]
            mesh.part = 1 + 2 * k
            mesh.limb((x, y, z), (x, y, z - self.KNEE_LENGTH), 0.085, P.PLAIN, legs, label)
            mesh.part = 2 + 2 * k
            knee = z - self.KNEE_LENGTH
            mesh.limb((x, y, knee), (x, y, knee - self.SHANK), 0.06, P.PLAIN, legs, label)
            mesh.ellipsoid((x + 0.07, y, knee - self.SHANK), (0.13, 0.05, 0.05), P.PLAIN, DARK, label)
        self.mesh = mesh.primitives()

    def poses(self, pose: np.ndarray, distance: float, stride: float = 1.0) -> np.ndarray:
        """5 x 3 x 4 after `distance` metres of riding."""
        out = [pose]
        for side, offset in ((1, 0.0), (-1, math.pi)):
            crank = -distance / 0.34 / 2.2 + offset
            x = self.AXLE[0] + self.CRANK * math.cos(crank) - self.HIP[0]
            z = self.AXLE[2] + self.CRANK * math.sin(crank) - self.HIP[2]
            reach = min(math.hypot(x, z), self.KNEE_LENGTH + self.SHANK - 1e-3)
            to_pedal = math.atan2(x, -z)
            up, low = self.KNEE_LENGTH, self.SHANK
            at_hip = math.acos(np.clip((up * up + reach * reach - low * low) / (2 * up * reach), -1, 1))
            at_knee = math.pi - math.acos(np.clip((up * up + low * low - reach * reach) / (2 * up * low), -1, 1))
            y = side * self.HIP[1]
            upper = swing(pose, (self.HIP[0], y, self.HIP[2]), to_pedal + at_hip)
            out += [upper, swing(upper, (self.HIP[0], y, self.HIP[2] - up), -at_knee)]
        return np.array(out)


def tree(mesh: Mesh, rng: np.random.Generator, x: float, y: float, z: float, height: float, leaf):
    """A trunk, some boughs and a crown of leafy ellipsoids."""
    crown_radius = height * rng.uniform(0.22, 0.34)
    fork = height * rng.uniform(0.28, 0.42)
    girth = 0.035 * height * rng.uniform(0.5, 0.9)
    wood = jitter(rng, (0.30, 0.25, 0.20), 0.04)
    lean = rng.uniform(-0.3, 0.3, 2)
    top = (x + lean[0], y + lean[1], z + fork * 1.25)
    mesh.prism((x, y, z - 0.1), top, girth, girth * 0.6, P.BARK, wood, P.TREE, sides=7, seed=int(rng.integers(1 << 20)))
    middle = (fork + height) / 2
    half = (height - fork) / 2
    heart = (x + lean[0], y + lean[1], z + middle)
    dark = tuple(0.62 * v for v in leaf)
    _leaves(mesh, rng, heart, (crown_radius * 0.72, crown_radius * 0.72, half * 0.8), dark, 0.30)
    count = int(rng.integers(9, 14))
    for k in range(count):
        level = 1.0 - 2.0 * (k + rng.uniform(0.2, 0.8)) / count
        angle = k * 2.4 + rng.uniform(-0.4, 0.4)
        spread = crown_radius * 0.74 * math.sqrt(max(0.05, 1 - level * level))
        center = (
            heart[0] + spread * math.cos(angle),
            heart[1] + spread * math.sin(angle),
            heart[2] + level * half * 0.72,
        )
        size = crown_radius * rng.uniform(0.34, 0.52)
        if level < 0.2:
            mesh.prism(top, center, girth * 0.35, girth * 0.15, P.BARK, wood, P.TREE, sides=4)
        _leaves(mesh, rng, center, (size, size * rng.uniform(0.85, 1.1), size * rng.uniform(0.7, 0.95)), leaf)


def _leaves(mesh, rng, center, radii, leaf, holes=None):
    seed = int(rng.integers(1 << 20))
    threshold = rng.uniform(0.44, 0.50) if holes is None else holes
    parameters = (float(np.mean(radii)), threshold)
    mesh.ellipsoid(center, radii, P.LEAF, jitter(rng, leaf, 0.02), P.TREE, parameters, mask=P.LEAVES, seed=seed)


def conifer(mesh: Mesh, rng: np.random.Generator, x: float, y: float, z: float, height: float, leaf):
    mesh.prism((x, y, z - 0.1), (x, y, z + height * 0.5), 0.16, 0.08, P.BARK, (0.25, 0.20, 0.16), P.TREE, sides=6)
    radius = height * rng.uniform(0.15, 0.20)
    dark = tuple(0.75 * v for v in leaf)
    for k in range(9):
        t = k / 8
        center = (x + rng.uniform(-0.1, 0.1), y + rng.uniform(-0.1, 0.1), z + height * (0.16 + 0.76 * t))
        size = radius * (1.08 - 0.9 * t)
        _leaves(mesh, rng, center, (size, size, height * 0.12), dark, 0.42)
    _leaves(mesh, rng, (x, y, z + height * 0.45), (radius * 0.6, radius * 0.6, height * 0.42), dark, 0.25)


def hedge(mesh: Mesh, rng: np.random.Generator, start, end, height: float, leaf):
    """A clipped hedge: leafy planes with leaves sticking out."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    length = np.linalg.norm(end - start)
    unit = (end - start) / length
    side = np.array([-unit[1], unit[0], 0.0])
    seed, color = int(rng.integers(1 << 20)), jitter(rng, leaf, 0.03)
    up = np.array([0.0, 0.0, height])
    p, q, r, t = start - side * 0.3, end - side * 0.3, end + side * 0.3, start + side * 0.3
    for points in ((p, q, q + up, p + up), (t, r, r + up, t + up), (p + up, q + up, r + up, t + up)):
        mesh.quad([tuple(v) for v in points], P.LEAF, color, P.TREE, (1.0,), seed=seed)
    for points in ((p, t, t + up, p + up), (q, r, r + up, q + up)):
        mesh.quad([tuple(v) for v in points], P.LEAF, color, P.TREE, (1.0,), seed=seed)
    for k in range(int(length / 0.8)):
        center = start + unit * (0.8 * k + rng.uniform(0.2, 0.8)) + (0, 0, height * rng.uniform(0.55, 0.95))
        axes = (unit * 0.5, side * 0.37, (0.0, 0.0, rng.uniform(0.16, 0.32)))
        mesh.ellipsoid(center, axes, P.LEAF, color, P.TREE, (0.45, 0.45), mask=P.LEAVES, seed=seed + k)


def bush(mesh: Mesh, rng: np.random.Generator, x: float, y: float, z: float, size: float, leaf):
    for _ in range(3):
        center = (
            x + rng.uniform(-0.5, 0.5) * size,
            y + rng.uniform(-0.5, 0.5) * size,
            z + size * rng.uniform(0.3, 0.5),
        )
        _leaves(mesh, rng, center, (size * 0.7, size * 0.7, size * rng.uniform(0.5, 0.7)), leaf, 0.28)


def street_lamp(mesh: Mesh, x: float, y: float, z: float, toward: np.ndarray, height: float, arm: float, color):
    """`toward`: horizontal unit vector over the road."""
    top = np.array([x, y, z + height])
    mesh.prism((x, y, z), (x, y, z + 1.2), 0.085, 0.085, P.PLAIN, color, P.POLE, sides=8)
    mesh.prism((x, y, z + 1.2), top, 0.06, 0.045, P.PLAIN, color, P.POLE, sides=6)
    end = top + np.array([toward[0] * arm, toward[1] * arm, 0.35])
    mesh.prism(top - (0, 0, 0.03), end, 0.04, 0.035, P.PLAIN, color, P.POLE, sides=5)
    across = np.array([-toward[1], toward[0], 0.0])
    forward = np.array([toward[0], toward[1], 0.05])
    mesh.ellipsoid(end + forward * 0.2, (forward * 0.38, across * 0.13, (0.0, 0.0, 0.08)), P.PLAIN, color, P.POLE)


def sign_post(mesh: Mesh, rng: np.random.Generator, x: float, y: float, z: float, facing: np.ndarray):
    """A traffic sign whose front looks along `facing` (horizontal unit vector)."""
    right = np.array([-facing[1], facing[0], 0.0])
    kind = int(rng.integers(4))
    size = rng.uniform(0.60, 0.80)
    low = z + rng.uniform(1.9, 2.4)
    seed = int(rng.integers(1 << 20))
    center = np.array([x, y, 0.0]) + facing * 0.05
    tall = size * (0.866 if kind == 1 else 1.0)
    if kind == 3:
        size, tall = rng.uniform(0.8, 1.6), rng.uniform(0.4, 0.9)
    points = [
        center - right * size / 2 + (0, 0, low),
        center + right * size / 2 + (0, 0, low),
        center + right * size / 2 + (0, 0, low + tall),
        center - right * size / 2 + (0, 0, low + tall),
    ]
    if kind == 1:
        points[2:] = [center + (0, 0, low + tall)] * 2
    back = [p - facing * 0.02 for p in points]
    mask = P.DISK if kind in (0, 2) else P.NO_MASK
    material = (P.ROUND_SIGN, P.TRIANGLE_SIGN, P.ROUND_SIGN, P.PLATE_SIGN)[kind]
    board = pick(rng, ((0.08, 0.25, 0.60), (0.05, 0.38, 0.22), (0.85, 0.85, 0.83), (0.80, 0.62, 0.10)))
    mesh.quad([tuple(p) for p in points], material, board, P.SIGN, (size, tall), mask=mask, seed=seed)
    mesh.quad([tuple(p) for p in back], P.PLAIN, (0.45, 0.46, 0.47), P.SIGN, mask=mask)
    mesh.prism((x, y, z), (x, y, low + tall * 0.9), 0.038, 0.038, P.PLAIN, GALVANISED, P.POLE, sides=5)
    if kind == 3:
        for s in (-0.35, 0.35):
            foot = center - facing * 0.08 + right * s * size
            mesh.prism(
                (foot[0], foot[1], z),
                (foot[0], foot[1], low + tall),
                0.035,
                0.035,
                P.PLAIN,
                GALVANISED,
                P.POLE,
                sides=5,
            )


def traffic_light(mesh: Mesh, x: float, y: float, z: float, facing: np.ndarray, seed: int):
    right = np.array([-facing[1], facing[0], 0.0])
    mesh.prism((x, y, z), (x, y, z + 3.3), 0.06, 0.055, P.PLAIN, (0.35, 0.36, 0.36), P.POLE, sides=6)
    center = np.array([x, y, z + 2.35]) + facing * 0.14
    width, height, depth = 0.34, 0.98, 0.20
    corners = [center + right * sx * width / 2 + (0, 0, sz) for sx, sz in ((-1, 0), (1, 0), (1, height), (-1, height))]
    mesh.quad([tuple(p) for p in corners], P.LAMPS, DARK, P.SIGN, (width, height), seed=seed)
    rear = [p - facing * depth for p in corners]
    mesh.quad([tuple(p) for p in rear], P.PLAIN, DARK, P.SIGN)
    for k in range(4):
        j = (k + 1) % 4
        mesh.quad([tuple(p) for p in (corners[k], corners[j], rear[j], rear[k])], P.PLAIN, DARK, P.SIGN)


def standing(primitives: Primitives, x: float, y: float, z: float, yaw: float) -> Primitives:
    """A body that never moves, in world coordinates."""
    poses = np.repeat(pose_at(x, y, z, yaw)[None], int(primitives.part.max()) + 1, axis=0)
    return primitives._replace(frame=P.placed(primitives, poses), part=np.zeros_like(primitives.part))
