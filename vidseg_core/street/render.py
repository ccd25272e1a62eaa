"""Rasterising, shading and exact flow of one frame. Compiled, one thread.

Camera coordinates: x right, y down, z forward, in metres. A pixel (x, y) looks along ((x - cx) / f, (y - cy) / f, 1):
the parameter along that ray is the depth z. `ids` is the primitive seen there, or one of the negative ids below.

numba's cache of a compiled function knows only the file that the function is in. After a change to `textures.py`, or to
the constants of `primitives.py`, delete `__pycache__` here; otherwise the old textures stay.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from vidseg_core.street import primitives as P
from vidseg_core.street import textures as T
from vidseg_core.street.textures import JIT, band, cell, clamp, mix, noise2, noise3, scale, visible

ALLOCATING_JIT = {**JIT, "_nrt": True}

SKY_ID, ROAD_ID, WALK_ID, KERB_ID = -1, -2, -3, -4
NEAR = 0.15
GROUND_LIMIT = 1500.0

QUAD, ELLIPSOID, DISK, LEAVES_MASK = P.QUAD, P.ELLIPSOID, P.DISK, P.LEAVES
SKY, BUILDING, ROAD, SIDEWALK, TREE = P.SKY, P.BUILDING, P.ROAD, P.SIDEWALK, P.TREE


class Camera(NamedTuple):
    """A pinhole camera: focal length and centre in pixels; rows of `rotation` are its axes in the world."""

    focal: float
    cx: float
    cy: float
    rotation: np.ndarray
    position: np.ndarray


class Surfaces(NamedTuple):
    """Primitives in camera coordinates, n x 4 x 3: `now` as in `Primitives.frame`; `inverse`: local = W P + offset,
    three rows of W and the offset. The others as in `Primitives`."""

    now: np.ndarray
    inverse: np.ndarray
    corners: np.ndarray
    meta: np.ndarray
    color: np.ndarray
    parameters: np.ndarray


class Ground(NamedTuple):
    """The road and what is beside it.

    line: k x 2: centre line (y, cosine of the heading) at x = first + index * STEP.
    first: x of line[0].
    widths: half width of the road left and right, outer edge of the sidewalk left and right, kerb height.
    crossings: m x 2: x from, to of side streets.
    marks: k x 4: d of the centre, width, period, length of a dash (period 0: solid).
    zebras: m x 2: x from, to.
    style: asphalt grey, asphalt roughness, sidewalk r g b, slab size, verge r g b, verge is grass (0/1), texture seed.
    """

    line: np.ndarray
    first: float
    widths: np.ndarray
    crossings: np.ndarray
    marks: np.ndarray
    zebras: np.ndarray
    style: np.ndarray


LINE_STEP = 2.0


class Light(NamedTuple):
    """sun, up: directions in camera coordinates; ambient, diffuse: r g b; haze: r g b and metres; sky: r g b at the
    horizon, r g b at the zenith, cloud amount, cloud scale; skyline: seed, height as a slope."""

    sun: np.ndarray
    up: np.ndarray
    ambient: np.ndarray
    diffuse: np.ndarray
    haze: np.ndarray
    sky: np.ndarray
    skyline: np.ndarray


@njit(**ALLOCATING_JIT)
def to_camera(frame, rotation, position):
    out = np.empty_like(frame)
    for i in range(frame.shape[0]):
        for k in range(4):
            x, y, z = frame[i, k, 0], frame[i, k, 1], frame[i, k, 2]
            if k == 0:
                x, y, z = x - position[0], y - position[1], z - position[2]
            for r in range(3):
                out[i, k, r] = rotation[r, 0] * x + rotation[r, 1] * y + rotation[r, 2] * z
    return out


@njit(**ALLOCATING_JIT)
def invert(now):
    """Rows w with local = w P + offset."""
    out = np.empty_like(now)
    for i in range(now.shape[0]):
        ax, ay, az = now[i, 1]
        bx, by, bz = now[i, 2]
        cx, cy, cz = now[i, 3]
        ux, uy, uz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
        vx, vy, vz = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
        wx, wy, wz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        det = ax * ux + ay * uy + az * uz
        rows = ((ux, uy, uz), (vx, vy, vz), (wx, wy, wz))
        for k in range(3):
            for j in range(3):
                out[i, k, j] = rows[k][j] / det
            out[i, 3, k] = -(out[i, k, 0] * now[i, 0, 0] + out[i, k, 1] * now[i, 0, 1] + out[i, k, 2] * now[i, 0, 2])
    return out


# ---------------------------------------------------------------------------------------------------- visibility


@njit(inline="always", **JIT)
def road_offset(ground, x, y):
    """d: signed distance from the centre line, positive to the left."""
    t = clamp((x - ground.first) / LINE_STEP, 0.0, ground.line.shape[0] - 1.001)
    i = int(t)
    u = t - i
    middle = ground.line[i, 0] + (ground.line[i + 1, 0] - ground.line[i, 0]) * u
    cosine = ground.line[i, 1] + (ground.line[i + 1, 1] - ground.line[i, 1]) * u
    return (y - middle) * cosine


@njit(inline="always", **JIT)
def on_road(ground, x, y):
    d = road_offset(ground, x, y)
    if -ground.widths[1] < d < ground.widths[0]:
        return True
    for k in range(ground.crossings.shape[0]):
        if ground.crossings[k, 0] < x < ground.crossings[k, 1]:
            return True
    return False


@njit(inline="always", **JIT)
def ground_hit(ground, view, rx, ry):
    """1 / depth and id of the ground seen along a ray; (0, SKY_ID) for none."""
    rotation = view.rotation
    dx = rotation[0, 0] * rx + rotation[1, 0] * ry + rotation[2, 0]
    dy = rotation[0, 1] * rx + rotation[1, 1] * ry + rotation[2, 1]
    dz = rotation[0, 2] * rx + rotation[1, 2] * ry + rotation[2, 2]
    height = view.position[2]
    if dz >= -height / GROUND_LIMIT:
        return 0.0, SKY_ID
    x0, y0 = view.position[0], view.position[1]
    per_dz = -1.0 / dz
    lower = height * per_dz
    d = road_offset(ground, x0 + dx * lower, y0 + dy * lower)
    # Most rays meet road at both heights: between them d changes by less than this, as the road's slope is below 0.16.
    margin = ground.widths[4] * per_dz * (abs(dy) + 0.16 * abs(dx))
    if margin - ground.widths[1] < d < ground.widths[0] - margin:
        return 1.0 / lower, ROAD_ID
    upper = (height - ground.widths[4]) * per_dz
    if not on_road(ground, x0 + dx * upper, y0 + dy * upper):
        return 1.0 / upper, WALK_ID
    if on_road(ground, x0 + dx * lower, y0 + dy * lower):
        return 1.0 / lower, ROAD_ID
    for _ in range(8):
        middle = 0.5 * (upper + lower)
        if on_road(ground, x0 + dx * middle, y0 + dy * middle):
            upper = middle
        else:
            lower = middle
    return 2.0 / (upper + lower), KERB_ID


@njit(**JIT)
def ground_pass(ground, view, inverse_depth, ids):
    for y in range(ids.shape[0]):
        ry = (y - view.cy) / view.focal
        for x in range(ids.shape[1]):
            inverse_depth[y, x], ids[y, x] = ground_hit(ground, view, (x - view.cx) / view.focal, ry)


@njit(inline="always", **JIT)
def masked(noise, mask, corners, meta, parameters, a, b, c):
    """Tell whether a surface has a hole at local coordinates (a, b, c)."""
    if mask == DISK:
        radius = 0.5 * (corners[1, 0] - corners[0, 0])
        x, y = a - 0.5 * (corners[0, 0] + corners[2, 0]), b - 0.5 * (corners[0, 1] + corners[2, 1])
        r = x * x + y * y
        return r > radius * radius or r < parameters[7] * parameters[7]
    if mask == LEAVES_MASK:
        s, t = parameters[0], parameters[1]
        hole = 0.6 * noise3(noise, a * s * 2.6, b * s * 2.6, c * s * 2.6, meta[4])
        hole += 0.4 * noise3(noise, a * s * 8.5, b * s * 8.5, c * s * 8.5, meta[4] + 5)
        return hole < t
    return False


@njit(inline="always", **JIT)
def ellipsoid_hit(surfaces, i, noise, rx, ry):
    """1 / depth of an ellipsoid along a ray, 0 for none."""
    w = surfaces.inverse[i]
    x = w[0, 0] * rx + w[0, 1] * ry + w[0, 2]
    y = w[1, 0] * rx + w[1, 1] * ry + w[1, 2]
    z = w[2, 0] * rx + w[2, 1] * ry + w[2, 2]
    ox, oy, oz = w[3, 0], w[3, 1], w[3, 2]
    a = x * x + y * y + z * z
    b = x * ox + y * oy + z * oz
    root = b * b - a * (ox * ox + oy * oy + oz * oz - 1.0)
    if root <= 0.0:
        return 0.0
    root = math.sqrt(root)
    mask = surfaces.meta[i, 1]
    for sign in (-1.0, 1.0):
        t = (-b + sign * root) / a
        if t < NEAR:
            return 0.0
        if mask == 0:
            return 1.0 / t
        if not masked(
            noise,
            mask,
            surfaces.corners[i],
            surfaces.meta[i],
            surfaces.parameters[i],
            x * t + ox,
            y * t + oy,
            z * t + oz,
        ):
            return 1.0 / t
    return 0.0


@njit(inline="always", **JIT)
def plane(surfaces, i):
    """Coefficients of 1 / depth = kx rx + ky ry + kz on the plane of a quad."""
    n, o = surfaces.now[i, 3], surfaces.now[i, 0]
    k = n[0] * o[0] + n[1] * o[1] + n[2] * o[2]
    if abs(k) < 1e-7:
        return 0.0, 0.0, 0.0
    return n[0] / k, n[1] / k, n[2] / k


@njit(inline="always", **JIT)
def quad_local(surfaces, i, rx, ry, depth):
    w = surfaces.inverse[i]
    a = (w[0, 0] * rx + w[0, 1] * ry + w[0, 2]) * depth + w[3, 0]
    b = (w[1, 0] * rx + w[1, 1] * ry + w[1, 2]) * depth + w[3, 1]
    return a, b


@njit(**JIT)
def surface_hit(surfaces, i, noise, rx, ry):
    """1 / depth of primitive i along a ray, 0 for none; the same answer as rasterising it."""
    if surfaces.meta[i, 0] == ELLIPSOID:
        return ellipsoid_hit(surfaces, i, noise, rx, ry)
    kx, ky, kz = plane(surfaces, i)
    inverse = kx * rx + ky * ry + kz
    if inverse <= 0.0 or inverse > 1.0 / NEAR:
        return 0.0
    a, b = quad_local(surfaces, i, rx, ry, 1.0 / inverse)
    corners = surfaces.corners[i]
    low, high = 0.0, 0.0
    for k in range(4):
        j = (k + 1) & 3
        side = (corners[j, 0] - corners[k, 0]) * (b - corners[k, 1]) - (corners[j, 1] - corners[k, 1]) * (
            a - corners[k, 0]
        )
        low, high = min(low, side), max(high, side)
    if low < -1e-9 and high > 1e-9:
        return 0.0
    if masked(noise, surfaces.meta[i, 1], corners, surfaces.meta[i], surfaces.parameters[i], a, b, 0.0):
        return 0.0
    return inverse


@njit(inline="always", **JIT)
def corner(frame, corners, k):
    """Corner k of a quad in camera coordinates."""
    a, b = corners[k, 0], corners[k, 1]
    return (
        frame[0, 0] + a * frame[1, 0] + b * frame[2, 0],
        frame[0, 1] + a * frame[1, 1] + b * frame[2, 1],
        frame[0, 2] + a * frame[1, 2] + b * frame[2, 2],
    )


@njit(**JIT)
def clipped_outline(frame, corners, view, outline):
    """Image outline of a quad in front of the camera, into `outline`; how many points it has (0: not in view)."""
    count = 0
    x, y, z = corner(frame, corners, 0)
    for k in range(4):
        next_x, next_y, next_z = corner(frame, corners, (k + 1) & 3)
        if z >= NEAR:
            outline[count, 0] = view.focal * x / z + view.cx
            outline[count, 1] = view.focal * y / z + view.cy
            count += 1
        if (z >= NEAR) != (next_z >= NEAR):
            t = (NEAR - z) / (next_z - z)
            outline[count, 0] = view.focal * (x + t * (next_x - x)) / NEAR + view.cx
            outline[count, 1] = view.focal * (y + t * (next_y - y)) / NEAR + view.cy
            count += 1
        x, y, z = next_x, next_y, next_z
    return count


@njit(**JIT)
def row_span(outline, count, y):
    """Find the span in which row y crosses a convex outline."""
    low, high = 1e30, -1e30
    for k in range(count):
        j = k + 1 if k + 1 < count else 0
        y0, y1 = outline[k, 1], outline[j, 1]
        if (y0 <= y) != (y1 <= y):
            x = outline[k, 0] + (y - y0) / (y1 - y0) * (outline[j, 0] - outline[k, 0])
            low, high = min(low, x), max(high, x)
    return low, high


@njit(**JIT)
def rows_of(outline, count, height):
    top, bottom = 1e30, -1e30
    for k in range(count):
        top, bottom = min(top, outline[k, 1]), max(bottom, outline[k, 1])
    return int(math.ceil(clamp(top, 0.0, height))), int(math.floor(clamp(bottom, -1.0, height - 1.0)))


@njit(**JIT)
def raster_quad(surfaces, i, view, noise, outline, inverse_depth, ids):
    height, width = ids.shape
    count = clipped_outline(surfaces.now[i], surfaces.corners[i], view, outline)
    if count < 3:
        return
    kx, ky, kz = plane(surfaces, i)
    mask = surfaces.meta[i, 1]
    first, last = rows_of(outline, count, height)
    for y in range(first, last + 1):
        low, high = row_span(outline, count, float(y))
        if high < 0.0 or low > width - 1.0:
            continue
        ry = (y - view.cy) / view.focal
        for x in range(int(math.ceil(max(low, 0.0))), int(math.floor(min(high, width - 1.0))) + 1):
            rx = (x - view.cx) / view.focal
            inverse = kx * rx + ky * ry + kz
            if inverse <= inverse_depth[y, x]:
                continue
            if mask != 0:
                a, b = quad_local(surfaces, i, rx, ry, 1.0 / inverse)
                if masked(noise, mask, surfaces.corners[i], surfaces.meta[i], surfaces.parameters[i], a, b, 0.0):
                    continue
            inverse_depth[y, x] = inverse
            ids[y, x] = i


@njit(**JIT)
def ellipsoid_range(center, axes, k):
    """Bounds of P_k / P_z over an ellipsoid in front of the camera (projection of its dual quadric)."""
    qkk = qkz = qzz = 0.0
    for j in range(3):
        qkk += axes[j, k] * axes[j, k]
        qkz += axes[j, k] * axes[j, 2]
        qzz += axes[j, 2] * axes[j, 2]
    qkk -= center[k] * center[k]
    qkz -= center[k] * center[2]
    qzz -= center[2] * center[2]
    root = math.sqrt(max(qkz * qkz - qkk * qzz, 0.0))
    r0, r1 = (qkz - root) / qzz, (qkz + root) / qzz
    return min(r0, r1), max(r0, r1)


@njit(**JIT)
def raster_ellipsoid(surfaces, i, view, noise, inverse_depth, ids):
    height, width = ids.shape
    center, axes = surfaces.now[i, 0], surfaces.now[i, 1:]
    reach = math.sqrt(axes[0, 2] ** 2 + axes[1, 2] ** 2 + axes[2, 2] ** 2)
    if center[2] - reach < NEAR:
        return
    left, right = ellipsoid_range(center, axes, 0)
    top, bottom = ellipsoid_range(center, axes, 1)
    x0, x1 = view.focal * left + view.cx, view.focal * right + view.cx
    y0, y1 = view.focal * top + view.cy, view.focal * bottom + view.cy
    if x1 < 0.0 or y1 < 0.0 or x0 > width - 1.0 or y0 > height - 1.0:
        return
    nearest = 1.0 / (center[2] - reach)
    for y in range(int(math.ceil(max(y0, 0.0))), int(math.floor(min(y1, height - 1.0))) + 1):
        ry = (y - view.cy) / view.focal
        for x in range(int(math.ceil(max(x0, 0.0))), int(math.floor(min(x1, width - 1.0))) + 1):
            if nearest <= inverse_depth[y, x]:
                continue
            inverse = ellipsoid_hit(surfaces, i, noise, (x - view.cx) / view.focal, ry)
            if inverse > inverse_depth[y, x]:
                inverse_depth[y, x] = inverse
                ids[y, x] = i


@njit(**ALLOCATING_JIT)
def visibility(surfaces, ground, view, noise, inverse_depth, ids):
    """Fill `inverse_depth` (0 = infinitely far) and `ids` for every pixel centre."""
    ground_pass(ground, view, inverse_depth, ids)
    outline = np.empty((8, 2))
    for i in range(surfaces.now.shape[0]):
        if surfaces.meta[i, 0] == QUAD:
            raster_quad(surfaces, i, view, noise, outline, inverse_depth, ids)
        else:
            raster_ellipsoid(surfaces, i, view, noise, inverse_depth, ids)


@njit(**ALLOCATING_JIT)
def cast_shadows(blobs, view, inverse_depth, ids, light):
    """Darken the ground.

    blobs: n x 9: centre x y z, two half vectors (x y each), 1 for an ellipse or 0 for a parallelogram, what is left
        of the light (0: no sun, below: less of the sky, too).
    """
    height, width = ids.shape
    rotation, position = view.rotation, view.position
    outline = np.empty((8, 2))
    frame = np.empty((4, 3))
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    for i in range(blobs.shape[0]):
        blob = blobs[i]
        for r in range(3):
            frame[0, r] = (
                rotation[r, 0] * (blob[0] - position[0])
                + rotation[r, 1] * (blob[1] - position[1])
                + rotation[r, 2] * (blob[2] - position[2])
            )
            frame[1, r] = rotation[r, 0] * blob[3] + rotation[r, 1] * blob[4]
            frame[2, r] = rotation[r, 0] * blob[5] + rotation[r, 1] * blob[6]
        count = clipped_outline(frame, corners, view, outline)
        if count < 3:
            continue
        det = blob[3] * blob[6] - blob[4] * blob[5]
        first, last = rows_of(outline, count, height)
        for y in range(first, last + 1):
            low, high = row_span(outline, count, float(y))
            ry = (y - view.cy) / view.focal
            for x in range(int(math.ceil(max(low, 0.0))), int(math.floor(min(high, width - 1.0))) + 1):
                if ids[y, x] > ROAD_ID:
                    continue
                rx, depth = (x - view.cx) / view.focal, 1.0 / inverse_depth[y, x]
                wx = (rotation[0, 0] * rx + rotation[1, 0] * ry + rotation[2, 0]) * depth + position[0] - blob[0]
                wy = (rotation[0, 1] * rx + rotation[1, 1] * ry + rotation[2, 1]) * depth + position[1] - blob[1]
                a, b = (wx * blob[6] - wy * blob[5]) / det, (wy * blob[3] - wx * blob[4]) / det
                r = math.sqrt(a * a + b * b) if blob[7] > 0.5 else max(abs(a), abs(b))
                edge = clamp((1.0 - r) * 4.0, 0.0, 1.0) if blob[7] > 0.5 else clamp((1.0 - r) * 25.0, 0.0, 1.0)
                light[y, x] = min(light[y, x], 1.0 - edge * (1.0 - blob[8]))


# ---------------------------------------------------------------------------------------------------- shading


@njit(**JIT)
def skyline(noise, azimuth, elevation, height, seed):
    """Trees and blocks on the horizon; SKY above them."""
    trees = 0.35 + 0.65 * noise2(noise, azimuth, 0.5, seed) + 0.25 * noise2(noise, azimuth * 5.0, 3.5, seed)
    column = int(math.floor(azimuth * 0.8))
    towers = 1.7 * cell(noise, column, 11, seed) if cell(noise, column, 12, seed) > 0.55 else 0.0
    if elevation >= height * max(trees, towers):
        return (0.0, 0.0, 0.0), SKY
    if towers > trees:
        return (0.42, 0.40, 0.40), BUILDING
    k = 0.8 + 0.4 * noise2(noise, azimuth * 9.0, elevation * 400.0, seed + 1)
    return (0.22 * k, 0.29 * k, 0.17 * k), TREE


@njit(inline="always", **JIT)
def sky_color(noise, light, dx, dy, dz):
    """World direction -> colour and label of what is infinitely far: sky, or the distant skyline."""
    level = math.sqrt(dx * dx + dy * dy)
    elevation = dz / level
    seed = int(light.skyline[0])
    sky = light.sky
    if elevation < 2.2 * light.skyline[1]:
        color, label = skyline(noise, math.atan2(dy, dx) * 40.0, elevation, light.skyline[1], seed)
        if label != SKY:
            return mix(color, (light.haze[0], light.haze[1], light.haze[2]), 0.55), label
    t = math.sqrt(clamp(elevation * 1.6, 0.0, 1.0))
    color = mix((sky[0], sky[1], sky[2]), (sky[3], sky[4], sky[5]), t)
    amount = sky[6]
    if amount > 0.02:
        u, v = dx / (dz + 0.12 * level) * sky[7], dy / (dz + 0.12 * level) * sky[7]
        n = 0.55 * noise2(noise, u, v, seed + 20) + 0.28 * noise2(noise, u * 2.3, v * 2.3, seed + 21)
        n += 0.17 * noise2(noise, u * 5.1, v * 5.1, seed + 22)
        cover = clamp((n - (0.86 - 0.75 * amount)) * 4.5, 0.0, 1.0)
        white = 0.80 + 0.35 * (n - 0.4)
        color = mix(color, (white, white, white * 1.015), cover * clamp(elevation * 9.0, 0.25, 1.0) * 0.92)
    return color, SKY


@njit(inline="always", **JIT)
def asphalt(noise, ground, x, y, d, along, across):
    """`along`, `across`: pixels per metre in these directions of the road."""
    style = ground.style
    seed = int(style[9])
    k = 1.0 + 0.12 * (noise2(noise, x * 0.12, d * 0.5, seed) - 0.5)
    low = min(along, across)
    k += 0.09 * visible(0.7, low) * (noise2(noise, x * 0.9, y * 1.4, seed + 1) - 0.5)
    middle = math.sqrt(along * across)
    fine = visible(0.025, middle)
    if fine > 0.0:
        k += 0.7 * style[1] * fine * (noise2(noise, x * 40.0, y * 40.0, seed + 5) - 0.5)
    k += style[1] * visible(0.06, middle) * (noise2(noise, x * 16.0, y * 16.0, seed + 2) - 0.5)
    patch = cell(noise, int(math.floor(x * 0.2)), int(math.floor(d / 2.6)), seed + 3)
    if patch > 0.90:
        k *= 0.86
    lane = d / 3.3
    track = abs(lane - math.floor(lane) - 0.5)
    k -= 0.07 * band(track, 0.16, 0.34, across * 3.3)
    g = style[0] * k
    return (g, g * 1.0, g * 1.02)


@njit(inline="always", **JIT)
def road_color(noise, ground, x, y, d, along, across):
    color = asphalt(noise, ground, x, y, d, along, across)
    for k in range(ground.crossings.shape[0]):
        if ground.crossings[k, 0] - 2.5 < x < ground.crossings[k, 1] + 2.5:
            return color
    seed = int(ground.style[9])
    paint = 0.0
    zebra = False
    for k in range(ground.zebras.shape[0]):
        inside = band(x, ground.zebras[k, 0], ground.zebras[k, 1], along)
        if inside > 0.0:
            zebra = True
            stripe = d - math.floor(d)
            paint = max(paint, inside * band(stripe, 0.0, 0.5, across))
    if not zebra:
        for k in range(ground.marks.shape[0]):
            cover = band(
                d, ground.marks[k, 0] - ground.marks[k, 1] / 2, ground.marks[k, 0] + ground.marks[k, 1] / 2, across
            )
            if cover > 0.0:
                period = ground.marks[k, 2]
                if period > 0.0:
                    phase = x - math.floor(x / period) * period
                    cover *= band(phase, 0.0, ground.marks[k, 3], along)
                paint = max(paint, cover)
    wear = 0.80 + 0.35 * noise2(noise, x * 9.0, y * 13.0, seed + 4)
    return mix(color, (0.84, 0.84, 0.80), paint * min(wear, 1.0) * 0.9)


@njit(inline="always", **JIT)
def walk_color(noise, ground, x, y, d, along, across):
    """Beside the road: kerb stone, sidewalk, then verge. Colour and label."""
    style, widths = ground.style, ground.widths
    seed = int(style[9])
    edge = d - widths[0] if d > 0.0 else -d - widths[1]
    outer = d - widths[2] if d > 0.0 else -d - widths[3]
    middle = math.sqrt(along * across)
    grain = 1.0 + 0.14 * (noise2(noise, x * 0.5, y * 0.5, seed + 6) - 0.5)
    grain += 0.16 * visible(0.08, middle) * (noise2(noise, x * 11.0, y * 11.0, seed + 7) - 0.5)
    if outer > 0.0 and style[8] > 0.5:
        k = 0.75 + 0.4 * noise2(noise, x * 0.6, y * 0.6, seed + 8)
        k += 0.6 * visible(0.15, middle) * (noise2(noise, x * 8.0, y * 8.0, seed + 9) - 0.5)
        return (style[6] * k * 0.9, style[6] * k * 1.18, style[6] * k * 0.45), TREE
    if outer > 0.0:
        return scale((style[6], style[6] * 0.98, style[6] * 0.93), grain), SIDEWALK
    size = style[5]
    i, j = math.floor(x / size), math.floor(d / size)
    k = grain
    if style[7] > 0.5:
        near = visible(size * 0.35, min(along, across))
        k += 0.16 * near * (cell(noise, int(i), int(j), seed + 10) - 0.5)
        joint = max(band(x - i * size, 0.0, 0.02, along), band(d - j * size, 0.0, 0.02, across))
        k -= 0.35 * joint
    color = scale((style[2], style[3], style[4]), k)
    stone = band(edge, -1.0, 0.18, across)
    return mix(color, scale((0.62, 0.61, 0.59), grain), 0.75 * stone), SIDEWALK


@njit(inline="always", **JIT)
def material_color(noise, surfaces, i, a, b, c, shade, density):
    """Colour of a primitive at local coordinates, before light."""
    meta, parameters, corners = surfaces.meta[i], surfaces.parameters[i], surfaces.corners[i]
    material, seed = meta[2], meta[4]
    base = (surfaces.color[i, 0], surfaces.color[i, 1], surfaces.color[i, 2])
    if material == P.FACADE:
        return T.facade(noise, base, a, b, parameters, seed, density)
    if material == P.LEAF:
        s = parameters[0]
        return T.leaves(noise, base, a * s, b * s, c * s, shade, seed, density)
    if material == P.WALL:
        return T.masonry(noise, base, a, b, parameters[6], seed, density)
    if material == P.ROOF:
        return T.roof(noise, base, a, b, seed, density)
    if material == P.BARK:
        return T.bark(noise, base, a, b, seed, density)
    if material == P.BOARDS:
        return T.boards(noise, base, a, b, parameters[0], seed, density)
    if material == P.RAILING:
        return T.railing(noise, base, a, b, parameters[0], seed, density)
    if material == P.GUARD_RAIL:
        return T.guard_rail(base, a, b, parameters[0], density)
    if material == P.CLOTH:
        s = parameters[0]
        return T.cloth(noise, base, a * s, b * s, c * s, seed, density)
    if material == P.HEAD:
        return T.head(base, a, c, parameters[0])
    if material == P.WHEEL:
        x, y = a - 0.5 * (corners[0, 0] + corners[2, 0]), b - 0.5 * (corners[0, 1] + corners[2, 1])
        return T.wheel(x, y, 0.5 * (corners[1, 0] - corners[0, 0]), density)
    if material == P.ROUND_SIGN:
        x, y = a - 0.5 * (corners[0, 0] + corners[2, 0]), b - 0.5 * (corners[0, 1] + corners[2, 1])
        return T.round_sign(x, y, 0.5 * (corners[1, 0] - corners[0, 0]), seed, density)
    if material == P.TRIANGLE_SIGN:
        return T.triangle_sign(a, b, parameters[0], seed, density)
    if material == P.PLATE_SIGN:
        return T.plate_sign(noise, base, a, b, parameters[0], parameters[1], seed, density)
    if material == P.LAMPS:
        return T.lamps(a, b, parameters[0], parameters[1], seed, density)
    if material == P.CAR_FRONT or material == P.CAR_REAR:
        return T.car_end(base, a, b, parameters[0], parameters[1], seed, material == P.CAR_REAR, density)
    if material == P.SIDE_WINDOW:
        return T.side_window(base, a, b, parameters[0], parameters[1], density)
    return base


@njit(inline="always", **JIT)
def surface_color(noise, surfaces, light, i, px, py, pz, focal):
    """Lit colour and local coordinates of primitive i at a point in camera coordinates."""
    w = surfaces.inverse[i]
    a = w[0, 0] * px + w[0, 1] * py + w[0, 2] * pz + w[3, 0]
    b = w[1, 0] * px + w[1, 1] * py + w[1, 2] * pz + w[3, 1]
    c = w[2, 0] * px + w[2, 1] * py + w[2, 2] * pz + w[3, 2]
    if surfaces.meta[i, 0] == QUAD:
        nx, ny, nz = surfaces.now[i, 3]
        c = 0.0
    else:
        nx = w[0, 0] * a + w[1, 0] * b + w[2, 0] * c
        ny = w[0, 1] * a + w[1, 1] * b + w[2, 1] * c
        nz = w[0, 2] * a + w[1, 2] * b + w[2, 2] * c
        n = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz)
        nx, ny, nz = nx * n, ny * n, nz * n
    distance = math.sqrt(px * px + py * py + pz * pz)
    facing = (nx * px + ny * py + nz * pz) / distance
    if facing > 0.0:
        nx, ny, nz, facing = -nx, -ny, -nz, -facing
    up = nx * light.up[0] + ny * light.up[1] + nz * light.up[2]
    sun = nx * light.sun[0] + ny * light.sun[1] + nz * light.sun[2]
    material = surfaces.meta[i, 2]
    density = focal / pz * math.sqrt(max(-facing, 0.02))
    r, g, b_ = material_color(noise, surfaces, i, a, b, c, 0.5 + 0.5 * up, density)
    if material == P.LAMPS:
        return (r, g, b_), a, b, c
    lit = 0.72 + 0.28 * up
    direct = max(sun, 0.0) if material != P.LEAF else clamp(0.45 + 0.55 * sun, 0.0, 1.0)
    r *= light.ambient[0] * lit + light.diffuse[0] * direct
    g *= light.ambient[1] * lit + light.diffuse[1] * direct
    b_ *= light.ambient[2] * lit + light.diffuse[2] * direct
    if material == P.GLASS or material == P.PAINT or material == P.SIDE_WINDOW:
        # Polished surfaces mirror the sky: upwards it is bright, towards the street dark.
        mirror = 2.0 * facing
        toward = (py * light.up[1] + px * light.up[0] + pz * light.up[2]) / distance - mirror * up
        fresnel = 0.05 + 0.6 * (1.0 + facing) ** 4 + (0.10 if material == P.GLASS else 0.06)
        bright = clamp(0.25 + 1.4 * toward, 0.12, 1.0)
        color = mix(
            (r, g, b_), (light.sky[0] * bright, light.sky[1] * bright, light.sky[2] * bright), min(fresnel, 0.8)
        )
        return color, a, b, c
    return (r, g, b_), a, b, c


@njit(inline="always", **JIT)
def seen_color(noise, surfaces, ground, light, view, i, rx, ry, inverse, shadow):
    """Colour 0..1, label, and the seen point (local coordinates for primitives, camera coordinates for the ground)."""
    rotation = view.rotation
    dx = rotation[0, 0] * rx + rotation[1, 0] * ry + rotation[2, 0]
    dy = rotation[0, 1] * rx + rotation[1, 1] * ry + rotation[2, 1]
    dz = rotation[0, 2] * rx + rotation[1, 2] * ry + rotation[2, 2]
    if i == SKY_ID:
        color, label = sky_color(noise, light, dx, dy, dz)
        return color, label, rx, ry, 1.0
    depth = 1.0 / inverse
    px, py, pz = rx * depth, ry * depth, depth
    if i >= 0:
        color, a, b, c = surface_color(noise, surfaces, light, i, px, py, pz, view.focal)
        label = surfaces.meta[i, 3]
    else:
        x, y = view.position[0] + dx * depth, view.position[1] + dy * depth
        d = road_offset(ground, x, y)
        across = view.focal * inverse
        along = min(across, across * view.position[2] * inverse)
        if i == ROAD_ID:
            color, label = road_color(noise, ground, x, y, d, along, across), ROAD
        elif i == WALK_ID:
            color, label = walk_color(noise, ground, x, y, d, along, across)
        else:
            color, label = scale((0.52, 0.51, 0.49), 1.0 + 0.2 * (noise2(noise, x * 1.2, y, 3) - 0.5)), SIDEWALK
        direct = max(light.sun[0] * light.up[0] + light.sun[1] * light.up[1] + light.sun[2] * light.up[2], 0.0) * max(
            shadow, 0.0
        )
        k = 0.70 + 0.30 * shadow
        color = (
            color[0] * (light.ambient[0] * k + light.diffuse[0] * direct),
            color[1] * (light.ambient[1] * k + light.diffuse[1] * direct),
            color[2] * (light.ambient[2] * k + light.diffuse[2] * direct),
        )
        a, b, c = px, py, pz
    thick = depth / light.haze[3]
    fog = 1.0 - 1.0 / (1.0 + thick + 0.5 * thick * thick)
    return mix(color, (light.haze[0], light.haze[1], light.haze[2]), fog), label, a, b, c


@njit(inline="always", **JIT)
def point_before(i, a, b, c, before, turn, shift):
    """Find the seen point in the previous camera's coordinates."""
    if i >= 0:
        f = before[i]
        return (
            f[0, 0] + a * f[1, 0] + b * f[2, 0] + c * f[3, 0],
            f[0, 1] + a * f[1, 1] + b * f[2, 1] + c * f[3, 1],
            f[0, 2] + a * f[1, 2] + b * f[2, 2] + c * f[3, 2],
        )
    k = 0.0 if i == SKY_ID else 1.0
    return (
        turn[0, 0] * a + turn[0, 1] * b + turn[0, 2] * c + k * shift[0],
        turn[1, 0] * a + turn[1, 1] * b + turn[1, 2] * c + k * shift[1],
        turn[2, 0] * a + turn[2, 1] * b + turn[2, 2] * c + k * shift[2],
    )


@njit(**JIT)
def shade(
    noise,
    surfaces,
    ground,
    light,
    view,
    before,
    turn,
    shift,
    inverse_depth,
    ids,
    shadow,
    image,
    labels,
    flow,
    depth_before,
):
    """image: H x W x 3 float32; labels; flow to the previous frame; depth_before: depth there, 0 for infinitely far."""
    height, width = ids.shape
    per_focal = 1.0 / view.focal
    for y in range(height):
        ry = (y - view.cy) * per_focal
        for x in range(width):
            rx = (x - view.cx) * per_focal
            i = ids[y, x]
            color, label, a, b, c = seen_color(
                noise, surfaces, ground, light, view, i, rx, ry, inverse_depth[y, x], shadow[y, x]
            )
            image[y, x, 0], image[y, x, 1], image[y, x, 2] = color
            labels[y, x] = label
            px, py, pz = point_before(i, a, b, c, before, turn, shift)
            k = view.focal / max(pz, 1e-3)
            flow[y, x, 0] = px * k + view.cx - x
            flow[y, x, 1] = py * k + view.cy - y
            depth_before[y, x] = 0.0 if i == SKY_ID else pz


@njit(**JIT)
def nearest_at(surfaces, ground, view, noise, ids, x, y):
    """1 / depth of what is seen at a place between pixels: the nearest among what the four pixels around it see."""
    height, width = ids.shape
    x0, y0 = int(clamp(math.floor(x), 0.0, width - 2.0)), int(clamp(math.floor(y), 0.0, height - 2.0))
    rx, ry = (x - view.cx) / view.focal, (y - view.cy) / view.focal
    nearest, _ = ground_hit(ground, view, rx, ry)
    for k in range(4):
        i = ids[y0 + (k >> 1), x0 + (k & 1)]
        if i >= 0:
            nearest = max(nearest, surface_hit(surfaces, i, noise, rx, ry))
    return nearest


@njit(**JIT)
def hidden_before(surfaces, ground, view, noise, ids, flow, depth_before, hidden):
    """Which pixels' points the previous frame (whose surfaces, ground, view and ids these are) does not show."""
    height, width = ids.shape
    for y in range(height):
        for x in range(width):
            u, v = x + flow[y, x, 0], y + flow[y, x, 1]
            if not (-0.5 <= u <= width - 0.5 and -0.5 <= v <= height - 0.5) or depth_before[y, x] < 0.0:
                hidden[y, x] = True
                continue
            inverse = 0.0 if depth_before[y, x] == 0.0 else 1.0 / depth_before[y, x]
            nearest = nearest_at(surfaces, ground, view, noise, ids, u, v)
            hidden[y, x] = abs(nearest - inverse) > 2e-3 * inverse + 1e-6


@njit(**JIT)
def expose(noise, image, gain, vignette, grain, offset, out):
    """Exposure, vignetting and sensor noise; float 0..1 -> uint8."""
    height, width = out.shape[:2]
    for y in range(height):
        dy = 2.0 * y / height - 1.0
        row = int(65536 * cell(noise, y, offset & 255, offset >> 8))
        for x in range(width):
            dx = 2.0 * x / width - 1.0
            k = gain * (1.0 - vignette * (dx * dx + dy * dy))
            for c in range(3):
                n = noise[((row + 3 * x + c) >> 8) & 255, (row + 3 * x + c) & 255] - 0.5
                out[y, x, c] = np.uint8(clamp(255.0 * k * image[y, x, c] + grain * n + 0.5, 0.0, 255.0))
