"""Textures of surfaces: colour as a function of the place on the surface, filtered to the size of a pixel there.

All functions are compiled; colours are red, green, blue in 0..1 before light and exposure. `noise` is a 256 x 256 table
of uniform random numbers that all textures share. `density`: pixels per unit of length. A detail smaller than a pixel
fades to its mean, so nothing shimmers.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

JIT = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    # Without the assumption that no number is infinite or undefined, which the rest of fastmath makes.
    "fastmath": {"contract", "arcp", "nsz", "reassoc"},
    # Arrays are not counted: these functions only read and fill what they are given. Counting every view of a row took
    # two thirds of the time of shading. A function that makes an array needs the count.
    "_nrt": False,
}


def noise_table() -> np.ndarray:
    return np.random.default_rng(20240229).random((256, 256)).astype(np.float32)


@njit(inline="always", **JIT)
def cell(noise, i, j, seed):
    """A uniform random number of grid cell (i, j)."""
    return noise[(i + seed * 61) & 255, (j + seed * 149 + (seed >> 8) * 37) & 255]


@njit(inline="always", **JIT)
def clamp(value, low, high):
    return min(max(value, low), high)


@njit(**JIT)
def noise2(noise, x, y, seed):
    """Smooth noise in 0..1 with features of size 1."""
    fx, fy = math.floor(x), math.floor(y)
    i, j = int(fx) + seed * 61, int(fy) + seed * 149
    u, v = x - fx, y - fy
    u, v = u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v)
    i0, i1, j0, j1 = i & 255, (i + 1) & 255, j & 255, (j + 1) & 255
    low = noise[i0, j0] + (noise[i1, j0] - noise[i0, j0]) * u
    high = noise[i0, j1] + (noise[i1, j1] - noise[i0, j1]) * u
    return low + (high - low) * v


@njit(**JIT)
def noise3(noise, x, y, z, seed):
    fz = math.floor(z)
    k = int(fz)
    w = z - fz
    w = w * w * (3.0 - 2.0 * w)
    low = noise2(noise, x, y, seed + 7 * k)
    return low + (noise2(noise, x, y, seed + 7 * (k + 1)) - low) * w


@njit(inline="always", **JIT)
def visible(size, density):
    """1 where a detail of `size` covers several pixels, 0 where it is below a pixel."""
    return clamp(1.6 * size * density - 0.6, 0.0, 1.0)


@njit(inline="always", **JIT)
def band(x, low, high, density):
    """Compute the share of the pixel around x that lies in low..high."""
    return clamp((x - low) * density + 0.5, 0.0, 1.0) - clamp((x - high) * density + 0.5, 0.0, 1.0)


@njit(inline="always", **JIT)
def mix(a, b, t):
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t


@njit(inline="always", **JIT)
def scale(a, k):
    return a[0] * k, a[1] * k, a[2] * k


@njit(**JIT)
def masonry(noise, base, u, v, brick, seed, density):
    """Plaster with stains, or brick where `brick` is 1."""
    k = (
        1.0
        + 0.22 * (noise2(noise, u * 0.35, v * 0.35, seed) - 0.5)
        + 0.10 * (noise2(noise, u * 1.7, v * 0.5, seed + 3) - 0.5)
    )
    fine = visible(0.06, density)
    if fine > 0.0:
        k += 0.10 * fine * (noise2(noise, u * 14.0, v * 14.0, seed + 5) - 0.5)
    if brick > 0.5:
        near = visible(0.075, density)
        row = math.floor(v / 0.075)
        column = u / 0.225 + 0.5 * (int(row) & 1)
        tone = cell(noise, int(math.floor(column)), int(row), seed) - 0.5
        k += 0.24 * tone * visible(0.225, density)
        along, up = column - math.floor(column), v / 0.075 - row
        mortar = max(band(along, 0.0, 0.06, density * 0.225), band(up, 0.0, 0.16, density * 0.075)) * near + 0.2 * (
            1.0 - near
        )
        return mix(scale(base, k), (0.66, 0.63, 0.58), 0.55 * mortar)
    return scale(base, k)


@njit(**JIT)
def window(noise, x, y, width, height, frame, pane_seed, i, j, density):
    """Colour and coverage of one window; x from its centre, y from its sill."""
    inside = band(x, -width / 2, width / 2, density) * band(y, 0.0, height, density)
    if inside <= 0.0:
        return frame, 0.0
    lit = cell(noise, i, j, pane_seed)
    sky = 0.22 + 0.30 * lit + 0.22 * y / height
    glass = (0.55 * sky, 0.66 * sky, 0.78 * sky)
    if lit > 0.72:
        curtain = band(abs(x), width * 0.22, width, density)
        glass = mix(glass, (0.72, 0.70, 0.64), 0.75 * curtain)
    elif lit < 0.12:
        glass = mix(glass, (0.78, 0.75, 0.68), 0.8 * band(y, height * 0.45, height, density))
    bar = 0.07
    pane = band(x, -width / 2 + bar, -0.02, density) + band(x, 0.02, width / 2 - bar, density)
    pane *= band(y, bar, height * 0.62, density) + band(y, height * 0.62 + 0.045, height - bar, density)
    return mix(frame, glass, clamp(pane, 0.0, 1.0)), inside


@njit(**JIT)
def facade(noise, base, u, v, parameters, seed, density):
    """parameters: width, height, storey, column width, window width, window height, brick (0/1), ground floor (0 with a
    door, 1 shops, 2 as the others)."""
    width, height, storey, column = parameters[0], parameters[1], parameters[2], parameters[3]
    opening_w, opening_h, brick, ground = parameters[4], parameters[5], parameters[6], parameters[7]
    color = masonry(noise, base, u, v, brick, seed, density)
    bright = cell(noise, 3, 1, seed)
    frame = (0.88, 0.87, 0.84) if bright > 0.3 else (0.22, 0.20, 0.19)
    trim = mix(base, (0.92, 0.90, 0.86), 0.6) if bright > 0.15 else scale(base, 0.7)
    columns = max(1.0, math.floor(width / column))
    pitch = width / columns
    along = u / pitch
    i = int(clamp(math.floor(along), 0.0, columns - 1.0))
    x = u - (i + 0.5) * pitch
    j = int(math.floor(v / storey))
    y = v - j * storey
    stories = int(math.floor((height - 0.35) / storey))
    if v > height - 0.35:
        return mix(color, trim, 0.9)
    if j == 0 and ground > 0.5 and ground < 1.5:
        return shop_front(noise, u, v, width, storey, trim, seed, density)
    if j >= stories:
        return color
    sill = 0.95 if storey > opening_h + 1.05 else max(0.25, storey - opening_h - 0.3)
    if j == 0 and ground < 0.5 and (i + seed) % max(2, int(columns)) == 0:
        door_w = min(1.05, pitch * 0.6)
        t = band(x, -door_w / 2 - 0.12, door_w / 2 + 0.12, density) * band(v, 0.0, 2.35, density)
        color = mix(color, trim, t)
        hue = cell(noise, 5, 2, seed)
        leaf = (0.10 + 0.45 * hue, 0.12 + 0.15 * cell(noise, 5, 3, seed), 0.12 + 0.35 * (1.0 - hue))
        t = band(x, -door_w / 2, door_w / 2, density) * band(v, 0.0, 2.05, density)
        return mix(color, leaf, t)
    t = band(x, -opening_w / 2 - 0.10, opening_w / 2 + 0.10, density) * (
        band(y, sill - 0.12, sill, density) + band(y, sill + opening_h, sill + opening_h + 0.18, density)
    )
    color = mix(color, trim, 0.85 * clamp(t, 0.0, 1.0))
    if j > 0 and cell(noise, 9, 4, seed) > 0.55:
        color = mix(color, trim, 0.8 * band(y, 0.0, 0.16, density))
    pane, inside = window(noise, x, y - sill, opening_w, opening_h, frame, seed + 11, i, j, density)
    return mix(color, pane, inside)


@njit(**JIT)
def shop_front(noise, u, v, width, storey, trim, seed, density):
    shops = max(1.0, math.floor(width / 6.5))
    pitch = width / shops
    i = int(clamp(math.floor(u / pitch), 0.0, shops - 1.0))
    x = u - i * pitch
    r, g, b = cell(noise, i, 21, seed), cell(noise, i, 22, seed), cell(noise, i, 23, seed)
    panel = (0.15 + 0.65 * r, 0.12 + 0.5 * g, 0.12 + 0.6 * b)
    color = scale(panel, 0.62)
    board = band(v, storey - 0.85, storey - 0.12, density) * band(x, 0.12, pitch - 0.12, density)
    color = mix(color, panel, board)
    letter = 0.0
    if v > storey - 0.7 and v < storey - 0.3 and x > pitch * 0.25 and x < pitch * 0.75:
        letter = visible(0.15, density) * (1.0 if noise2(noise, u * 6.0, v * 4.0, seed + 31) > 0.52 else 0.0)
        letter += 0.4 * (1.0 - visible(0.15, density))
    color = mix(color, (0.93, 0.92, 0.86) if r + g < 1.3 else (0.1, 0.1, 0.12), letter)
    door_at = pitch * (0.15 + 0.6 * cell(noise, i, 24, seed))
    in_door = band(x, door_at, door_at + 1.0, density)
    low = 0.45 * (1.0 - in_door)
    pane = band(x, 0.2, pitch - 0.2, density) * band(v, low, storey - 0.95, density)
    stuff = noise2(noise, u * 1.6, v * 1.6, seed + 17)
    glow = 0.16 + 0.34 * stuff + 0.10 * r
    glass = (glow * (0.9 + 0.3 * r), glow, glow * (0.85 + 0.3 * b))
    edge = band(x, door_at - 0.05, door_at + 0.03, density) + band(x, door_at + 0.97, door_at + 1.05, density)
    return mix(mix(color, glass, pane), trim, 0.8 * clamp(edge, 0.0, 1.0) * pane)


@njit(**JIT)
def roof(noise, base, u, v, seed, density):
    k = 1.0 + 0.25 * (noise2(noise, u * 0.6, v * 0.6, seed) - 0.5)
    row = math.floor(v / 0.32)
    k += 0.2 * visible(0.3, density) * (cell(noise, int(math.floor(u / 0.3)), int(row), seed) - 0.5)
    k -= 0.2 * visible(0.2, density) * band(v - row * 0.32, 0.0, 0.06, density)
    return scale(base, k)


@njit(**JIT)
def bark(noise, base, u, v, seed, density):
    return scale(base, 1.0 + visible(0.06, density) * 0.7 * (noise2(noise, u * 18.0, v * 3.0, seed) - 0.5))


@njit(**JIT)
def leaves(noise, base, x, y, z, shade, seed, density):
    """x, y, z in metres inside the crown; shade 0 (underside) .. 1 (top)."""
    k = 0.50 + 0.62 * shade
    k += 0.55 * (noise3(noise, x * 1.1, y * 1.1, z * 1.1, seed + 1) - 0.5)
    k += 0.60 * visible(0.22, density) * (noise3(noise, x * 4.3, y * 4.3, z * 4.3, seed + 2) - 0.5)
    fine = visible(0.07, density)
    if fine > 0.0:
        k += 0.6 * fine * (noise3(noise, x * 13.0, y * 13.0, z * 13.0, seed + 3) - 0.5)
    k = max(k, 0.12)
    warm = 0.10 * (k - 0.6)
    return base[0] * k + warm, base[1] * k + 0.7 * warm, base[2] * k


@njit(**JIT)
def boards(noise, base, u, v, height, seed, density):
    i = math.floor(u / 0.14)
    k = 1.0 + 0.35 * visible(0.14, density) * (cell(noise, int(i), 7, seed) - 0.5)
    k += 0.15 * (noise2(noise, u * 0.8, v * 0.8, seed) - 0.5)
    k -= 0.55 * visible(0.05, density) * band(u - i * 0.14, 0.0, 0.018, density)
    post = u - math.floor(u / 2.0) * 2.0
    k *= 1.0 - 0.22 * band(post, 0.0, 0.12, density)
    k *= 1.0 - 0.25 * band(v, height - 0.08, height, density)
    return scale(base, k)


@njit(**JIT)
def railing(noise, base, u, v, height, seed, density):
    """Upright bars before something dark."""
    i = u / 0.13
    bar = band(i - math.floor(i), 0.0, 0.42, density * 0.13)
    near = visible(0.13, density)
    bar = bar * near + 0.42 * (1.0 - near)
    bar = max(bar, band(v, height - 0.10, height, density), band(v, 0.08, 0.15, density))
    post = u - math.floor(u / 2.5) * 2.5
    bar = max(bar, band(post, 0.0, 0.09, density))
    back = 0.20 + 0.15 * noise2(noise, u * 2.0, v * 2.0, seed)
    return mix((back * 0.85, back, back * 0.7), base, bar)


@njit(**JIT)
def guard_rail(base, u, v, height, density):
    """A profiled steel beam."""
    t = v / height
    k = 0.78 + 0.35 * abs(math.sin(t * 2.0 * math.pi)) - 0.1 * band(u - math.floor(u / 4.0) * 4.0, 0.0, 0.06, density)
    return scale(base, k)


@njit(**JIT)
def wheel(x, y, radius, density):
    """x, y from the hub."""
    r = math.sqrt(x * x + y * y) / radius
    rim_density = density * radius
    rim = band(r, -0.1, 0.62, rim_density)
    angle = math.atan2(y, x) * 5.0 / (2.0 * math.pi)
    spoke = abs(angle - math.floor(angle) - 0.5) * 2.0
    slot = band(r, 0.22, 0.55, rim_density) * (1.0 if spoke > 0.5 else 0.0)
    return mix((0.07, 0.07, 0.075), (0.55, 0.56, 0.58), rim * (1.0 - 0.7 * slot))


@njit(**JIT)
def car_end(base, u, v, width, height, seed, rear, density):
    """Front or rear of a car: lamps, plate, bumper; u, v from the lower left corner."""
    x, y = abs(u / width - 0.5) * 2.0, v / height
    fx, fy = density * width / 2.0, density * height
    color = mix(base, (0.09, 0.09, 0.10), band(y, 0.0, 0.30, fy) * 0.85)
    plate = band(x, 0.0, 0.30, fx) * band(y, 0.32, 0.52, fy)
    lamp = band(x, 0.70, 0.97, fx) * band(y, 0.60, 0.88, fy)
    if rear:
        color = mix(color, (0.85, 0.80, 0.45) if seed & 1 else (0.9, 0.9, 0.88), plate)
        return mix(color, (0.72, 0.06, 0.05), lamp)
    grille = band(x, 0.0, 0.52, fx) * band(y, 0.56, 0.86, fy)
    color = mix(color, (0.10, 0.10, 0.11), 0.9 * grille)
    color = mix(color, (0.92, 0.92, 0.90), plate)
    return mix(color, (0.93, 0.93, 0.90), lamp)


@njit(**JIT)
def side_window(base, u, v, width, height, density):
    """The glass of a car's side with its pillars."""
    x, y = u / width, v / height
    fx, fy = density * width, density * height
    glass = (band(x, 0.05, 0.46, fx) + band(x, 0.51, 0.93, fx)) * band(y, 0.06, 0.86, fy)
    tone = 0.10 + 0.16 * y
    return mix(base, (tone, tone * 1.08, tone * 1.15), clamp(glass, 0.0, 1.0))


@njit(**JIT)
def round_sign(x, y, radius, seed, density):
    r = math.sqrt(x * x + y * y) / radius
    f = density * radius
    if seed % 3 == 0:
        color = mix((0.10, 0.25, 0.62), (0.93, 0.93, 0.93), band(abs(x) / radius + 0.3 * abs(y) / radius, 0.0, 0.3, f))
        return mix(color, (0.93, 0.93, 0.93), band(r, 0.9, 2.0, f))
    if seed % 3 == 1:
        color = (0.72, 0.07, 0.08)
        return mix(color, (0.93, 0.93, 0.93), band(abs(y) / radius, 0.0, 0.2, f) * band(abs(x) / radius, 0.0, 0.7, f))
    digit = band(abs(abs(x) / radius - 0.28), 0.0, 0.14, f) * band(abs(y) / radius, 0.0, 0.38, f)
    color = mix((0.94, 0.94, 0.93), (0.10, 0.10, 0.10), digit)
    return mix(color, (0.75, 0.08, 0.09), band(r, 0.76, 2.0, f))


@njit(**JIT)
def triangle_sign(u, v, side, seed, density):
    """u, v from the lower left corner of an upright triangle."""
    height = side * 0.866
    edge = min(v, (u * 1.732 - v) / 2.0, ((side - u) * 1.732 - v) / 2.0)
    color = mix((0.75, 0.08, 0.09), (0.95, 0.94, 0.90), band(edge, 0.11 * height, height, density))
    symbol = band(abs(u - side / 2), 0.0, 0.05 * side, density) * band(v, 0.22 * height, 0.62 * height, density)
    return mix(color, (0.08, 0.08, 0.08), symbol)


@njit(**JIT)
def plate_sign(noise, base, u, v, width, height, seed, density):
    border = min(u, v, width - u, height - v)
    color = mix(base, (0.94, 0.94, 0.94), band(border, -1.0, 0.03, density))
    line = v / 0.19
    row = math.floor(line)
    text = band(border, 0.06, 10.0, density) * band(line - row, 0.25, 0.75, density * 0.19)
    word = noise2(noise, u * 5.0, row * 1.37, seed)
    letter = noise2(noise, u * 34.0, row * 2.1, seed + 1)
    text *= 1.0 if word > 0.40 else 0.0
    near = visible(0.04, density)
    text *= near * (1.0 if letter > 0.42 else 0.0) + 0.6 * (1.0 - near)
    ink = (0.94, 0.94, 0.94) if base[0] + base[1] + base[2] < 1.7 else (0.08, 0.08, 0.10)
    return mix(color, ink, text)


@njit(**JIT)
def lamps(u, v, width, height, seed, density):
    """A traffic light's face."""
    y = v / height * 3.0
    k = int(clamp(math.floor(y), 0.0, 2.0))
    dx, dy = u - width / 2, (y - k - 0.5) * height / 3.0
    lamp = band(math.sqrt(dx * dx + dy * dy), -1.0, 0.36 * width, density)
    on = (2 if seed % 2 else 0) == k
    red = (1.0, 0.16, 0.10) if on else (0.22, 0.05, 0.05)
    amber = (0.25, 0.16, 0.03)
    green = (0.15, 1.0, 0.55) if on else (0.03, 0.2, 0.1)
    return mix((0.05, 0.05, 0.055), green if k == 0 else (amber if k == 1 else red), lamp)


@njit(**JIT)
def cloth(noise, base, x, y, z, seed, density):
    return scale(base, 1.0 + visible(0.1, density) * 0.5 * (noise3(noise, x * 7.0, y * 7.0, z * 3.0, seed) - 0.5))


@njit(**JIT)
def head(base, a, c, hair):
    """a forward, c up, on the unit sphere."""
    if c > 0.35 - 0.5 * (a < 0.2) or a < -0.25:
        return (0.08 + 0.30 * hair, 0.06 + 0.20 * hair, 0.05 + 0.10 * hair)
    return base[0], base[1], base[2]
