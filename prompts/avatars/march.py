"""Ray marching and shading of one frame, in numba.

Points and directions are passed as three floats: numba compiles them to registers. The torso's
frame is the world's, with the person at the origin; the head's frame is turned about `pivot`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .paint import cloth_colour, hair_colour, ramp, skin_colour
from .shape import body, glasses, hair, skin

DATA_VERSION = 2
"""Version of the avatars' look. Raise it with every change of shape, paint or framing: data and
weights record it, and editing this file makes numba recompile the imported functions."""

PARTS = ("background", "skin", "hair", "glasses", "neck", "garment")


@njit(fastmath=True, error_model="numpy")
def _head(p, x, y, z):
    d = skin(p, x, y, z)
    return min(d, hair(p, x, y, z, d))


@njit(fastmath=True, error_model="numpy")
def _distance(p, part, x, y, z):
    """To one part of the head, of `PARTS`."""
    if part == 1:
        return skin(p, x, y, z)
    if part == 2:
        return hair(p, x, y, z, 9.0)
    return glasses(p, x, y, z)


@njit(fastmath=True, error_model="numpy")
def _turned_back(m, x, y, z):
    """A direction of the torso's frame in the head's (rows of `m` are the torso's axes)."""
    return (
        m[0, 0] * x + m[1, 0] * y + m[2, 0] * z,
        m[0, 1] * x + m[1, 1] * y + m[2, 1] * z,
        m[0, 2] * x + m[1, 2] * y + m[2, 2] * z,
    )


@njit(fastmath=True, error_model="numpy")
def _in_head(m, pivot, x, y, z):
    """A point of the torso's frame in the head's."""
    hx, hy, hz = _turned_back(m, x - pivot[0], y - pivot[1], z - pivot[2])
    return hx + pivot[0], hy + pivot[1], hz + pivot[2]


@njit(fastmath=True, error_model="numpy")
def _normalised(x, y, z):
    length = np.sqrt(x * x + y * y + z * z) + 1e-9
    return x / length, y / length, z / length


@njit(fastmath=True, error_model="numpy")
def _head_normal(p, part, x, y, z):
    """Outward normal of a part of the head, from four samples around a point."""
    e = 0.012
    a = _distance(p, part, x + e, y - e, z - e)
    b = _distance(p, part, x - e, y - e, z + e)
    c = _distance(p, part, x - e, y + e, z - e)
    d = _distance(p, part, x + e, y + e, z + e)
    return _normalised(a - b - c + d, -a - b + c + d, -a + b - c + d)


@njit(fastmath=True, error_model="numpy")
def _march_head(p, ox, oy, oz, dx, dy, dz, start, end):
    """First hit of a ray with the head, in its frame: (t, part) with part 0 for a miss.

    `start`: where to begin at the earliest; `end`: beyond it a hit is of no use.
    """
    # Bounding ellipsoid: wide enough for every hair style.
    by = -0.12
    rx, ry, rz = 1.30, 1.72, 1.45
    ax, ay, az = ox / rx, (oy - by) / ry, oz / rz
    bx, by_, bz = dx / rx, dy / ry, dz / rz
    qa = bx * bx + by_ * by_ + bz * bz
    qb = ax * bx + ay * by_ + az * bz
    qc = ax * ax + ay * ay + az * az - 1.0
    disc = qb * qb - qa * qc
    if disc <= 0.0:
        return 0.0, 0
    root = np.sqrt(disc)
    t, far = max((-qb - root) / qa, start), min((-qb + root) / qa, end)
    if t > far:
        return 0.0, 0
    for _ in range(48):
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        ds = skin(p, x, y, z)
        dh = hair(p, x, y, z, ds)
        dg = glasses(p, x, y, z)
        d = min(ds, min(dh, dg))
        if d < 0.005:
            if dg <= ds and dg <= dh:
                return t, 3
            if dh < ds:
                return t, 2
            return t, 1
        t += 0.88 * d
        if t > far:
            break
    return 0.0, 0


@njit(fastmath=True, error_model="numpy")
def _march_body(p, nx, ny, nz, ox, oy, oz, dx, dy, dz, end):
    """First hit of a ray with neck or torso before `end`, in the torso's frame: (t, part)."""
    t, far = 9.3, min(11.4, end)  # the torso is at most 0.4 in front of z = 0 and 0.9 behind
    if t > far:
        return 0.0, 0
    for _ in range(40):
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        a, b = body(p, x, y, z, nx, ny, nz)
        d = min(a, b)
        if d < 0.005:
            return t, 4 if a < b else 5
        t += 0.95 * d
        if t > far:
            break
    return 0.0, 0


@njit(fastmath=True, error_model="numpy")
def _light(r, g, b, nx, ny, nz, vx, vy, vz, occlusion, shadow, gloss, soft, light, key, ambient):
    """Lambert wrapped by `soft`, hemispheric ambient, a little fill, Blinn highlight, rim."""
    ndl = nx * light[0] + ny * light[1] + nz * light[2]
    diffuse = max((ndl + soft) / (1.0 + soft), 0.0) * shadow
    sky = (0.70 + 0.30 * ny) * occlusion
    fill = 0.16 * max(-0.6 * nx * light[0] + 0.8 * nz, 0.0) * occlusion
    hx, hy, hz = light[0] - vx, light[1] - vy, light[2] - vz
    length = np.sqrt(hx * hx + hy * hy + hz * hz)
    ndh = max((nx * hx + ny * hy + nz * hz) / length, 0.0)
    shine = gloss * ndh**24 * shadow
    # Skin lets red light through: the terminator is warmer than the lit side.
    warm = soft * max(0.35 - abs(ndl), 0.0) * 0.35
    red = r * (ambient[0] * sky + key[0] * (diffuse + warm) + fill) + shine
    green = g * (ambient[1] * sky + key[1] * diffuse + fill) + shine
    blue = b * (ambient[2] * sky + key[2] * diffuse + fill) + shine
    return red, green, blue


@njit(fastmath=True, error_model="numpy")
def _shade_head(p, turn, part, x, y, z, vx, vy, vz, light, key, ambient, occlusion, shadow):
    """Colour, occlusion and shadow of a hit on the head.

    (x, y, z): head's frame; (vx, vy, vz): ray, torso's frame. A negative `occlusion` is
    computed; one given is taken, with `shadow`, from a neighbouring ray.
    """
    hx, hy, hz = _head_normal(p, part, x, y, z)
    lx, ly, lz = _turned_back(turn, light[0], light[1], light[2])
    if occlusion < 0.0:
        near = _head(p, x + 0.17 * hx, y + 0.17 * hy, z + 0.17 * hz) / 0.17
        occlusion = 0.45 + 0.55 * min(max(near, 0.0), 1.0)
        shadow = 1.0
        if hx * lx + hy * ly + hz * lz > -0.1:
            t = 0.08
            for _ in range(3):
                s = _head(p, x + 0.02 * hx + t * lx, y + 0.02 * hy + t * ly, z + 0.02 * hz + t * lz)
                shadow = min(shadow, 0.5 + 6.0 * s / t)
                t += max(0.10, 0.9 * s)
                if s > 0.35:
                    break
        shadow = 0.55 + 0.45 * min(max(shadow, 0.0), 1.0)
    wx = turn[0, 0] * hx + turn[0, 1] * hy + turn[0, 2] * hz
    wy = turn[1, 0] * hx + turn[1, 1] * hy + turn[1, 2] * hz
    wz = turn[2, 0] * hx + turn[2, 1] * hy + turn[2, 2] * hz
    gloss, soft = 0.3, 0.2
    if part == 1:
        r, g, b_, gloss = skin_colour(p, x, y, z)
        soft = 0.35
    elif part == 2:
        r, g, b_ = hair_colour(p, x, y, z)
        gloss = 0.12
    else:
        r, g, b_ = p.glasses_rgb[0], p.glasses_rgb[1], p.glasses_rgb[2]
    r, g, b_ = _light(
        r, g, b_, wx, wy, wz, vx, vy, vz, occlusion, shadow, gloss, soft, light, key, ambient
    )
    return r, g, b_, occlusion, shadow


@njit(fastmath=True, error_model="numpy")
def _shade_body(p, turn, pivot, neck, part, x, y, z, vx, vy, vz, light, key, ambient):
    """Colour of a hit on neck or torso, in the torso's frame, and the part it turns out to be."""
    e = 0.02
    k = 0 if part == 4 else 1
    a = body(p, x + e, y - e, z - e, neck[0], neck[1], neck[2])[k]
    b = body(p, x - e, y - e, z + e, neck[0], neck[1], neck[2])[k]
    c = body(p, x - e, y + e, z - e, neck[0], neck[1], neck[2])[k]
    d = body(p, x + e, y + e, z + e, neck[0], neck[1], neck[2])[k]
    nx, ny, nz = _normalised(a - b - c + d, -a - b + c + d, -a + b - c + d)
    # Shade cast by the head: its distance a little above the hit, towards the light.
    hx, hy, hz = _in_head(turn, pivot, x + 0.30 * light[0], y + 0.38, z + 0.30 * light[2])
    over = _head(p, hx, hy, hz)
    shade = 0.50 + 0.50 * ramp(-0.05, 0.45, over)
    if part == 5:
        collar = np.sqrt(x * x * 1.2 + (y + 1.28) ** 2) - 0.24  # a round neckline
        if collar < 0.0 and z > -0.25:
            part = 4
        else:
            r, g, b_ = cloth_colour(p, x, y)
            hem = 1.0 - 0.25 * ramp(0.05, 0.01, collar)
            fold = 1.0 - 0.10 * ramp(0.2, -0.4, ny)
            r, g, b_ = r * hem * fold, g * hem * fold, b_ * hem * fold
            cr, cg, cb = _light(
                r, g, b_, nx, ny, nz, vx, vy, vz, shade, shade, 0.02, 0.25, light, key, ambient
            )
            return cr, cg, cb, 5
    r, g, b_ = p.skin[0] * 0.97, p.skin[1] * 0.95, p.skin[2] * 0.95
    cr, cg, cb = _light(
        r, g, b_, nx, ny, nz, vx, vy, vz, shade * 0.95, shade, 0.05, 0.35, light, key, ambient
    )
    return cr, cg, cb, 4


@njit(fastmath=True, error_model="numpy")
def _ray(
    people, turns, centres, pivot, camera, light, key, ambient,
    px, py, start, known, occlusion, shadow,
):
    """One ray through pixel position (px, py): colour, part, person, depth, occlusion, shadow.

    Part 0 is the background. `start` (0: anywhere) comes from neighbouring rays; `occlusion` and
    `shadow` of the pixel's middle serve again where the part is the `known` one.
    """
    dx, dy, dz = (px - camera[1]) / camera[0], -(py - camera[2]) / camera[0], -1.0
    length = np.sqrt(dx * dx + dy * dy + 1.0)
    dx, dy, dz = dx / length, dy / length, dz / length
    best, best_part, best_person = 1e9, 0, 0
    for i in range(people.shape[0]):
        p = people[i]
        ox, oy, oz = -centres[i, 0], -centres[i, 1], camera[3]
        # Rough reject: nothing of a person is wider than this.
        if abs(ox + 10.0 * dx) > 2.2:
            continue
        m = turns[i]
        hx, hy, hz = _in_head(m, pivot, ox, oy, oz)
        ex, ey, ez = _turned_back(m, dx, dy, dz)
        t, part = _march_head(p, hx, hy, hz, ex, ey, ez, start, best)
        if part > 0 and t < best:
            best, best_part, best_person = t, part, i
        if oy + 10.0 * dy < -0.6 and abs(ox + 10.0 * dx) < p.shoulder + 0.6:
            nx = m[0, 1] * 0.25 + m[0, 2] * 0.0
            ny = pivot[1] + m[1, 1] * 0.25
            nz = pivot[2] + m[2, 1] * 0.25
            t, part = _march_body(p, nx, ny, nz, ox, oy, oz, dx, dy, dz, best)
            if part > 0 and t < best:
                best, best_part, best_person = t, part, i
    if best_part == 0:
        return 0.0, 0.0, 0.0, 0, 0, 0.0, -1.0, 0.0
    i = best_person
    p, m = people[i], turns[i]
    x, y, z = best * dx - centres[i, 0], best * dy - centres[i, 1], best * dz + camera[3]
    if best_part >= 4:
        neck = np.array([m[0, 1] * 0.25, pivot[1] + m[1, 1] * 0.25, pivot[2] + m[2, 1] * 0.25])
        r, g, b, best_part = _shade_body(
            p, m, pivot, neck, best_part, x, y, z, dx, dy, dz, light, key, ambient
        )
    else:
        hx, hy, hz = _in_head(m, pivot, x, y, z)
        if best_part != known:
            occlusion = -1.0
        r, g, b, occlusion, shadow = _shade_head(
            p, m, best_part, hx, hy, hz, dx, dy, dz, light, key, ambient, occlusion, shadow
        )
    return r, g, b, best_part, i + 1, best, occlusion, shadow


@njit(fastmath=True, error_model="numpy", cache=True)
def render_frame(
    people, turns, centres, pivot, camera, light, key, ambient, backdrop, height, width
):
    """One frame.

    Args:
        people: FACE records (P,). turns: (P, 3, 3). centres: (P, 2) head positions.
        camera: focal length in pixels, column of x = 0, row of y = 0, distance.
        backdrop: float (2 height, 2 width, 3) in [0, 1].

    Returns:
        colour float (H, W, 3) in about [0, 1], part uint8 (H, W), person uint8 (H, W).
    """
    colour = np.empty((height, width, 3), np.float32)
    part = np.zeros((height, width), np.uint8)
    owner = np.zeros((height, width), np.uint8)
    depth = np.zeros((height, width))
    shade = np.zeros((height, width, 2))
    for row in range(height):
        for col in range(width):
            r, g, b, k, i, t, o, s = _ray(
                people, turns, centres, pivot, camera, light, key, ambient,
                col + 0.5, row + 0.5, 0.0, -1, -1.0, 0.0,
            )
            depth[row, col], shade[row, col, 0], shade[row, col, 1] = t, o, s
            part[row, col], owner[row, col] = k, i
            if k == 0:
                for c in range(3):
                    colour[row, col, c] = 0.25 * (
                        backdrop[2 * row, 2 * col, c]
                        + backdrop[2 * row, 2 * col + 1, c]
                        + backdrop[2 * row + 1, 2 * col, c]
                        + backdrop[2 * row + 1, 2 * col + 1, c]
                    )
            else:
                colour[row, col, 0], colour[row, col, 1], colour[row, col, 2] = r, g, b
    result = colour.copy()
    for row in range(height):
        for col in range(width):
            rough = 0.0
            edge = False
            start = depth[row, col] if owner[row, col] > 0 else 99.0
            for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                rr, cc = min(max(row + dr, 0), height - 1), min(max(col + dc, 0), width - 1)
                edge = edge or owner[rr, cc] != owner[row, col] or part[rr, cc] != part[row, col]
                if owner[rr, cc] > 0:
                    start = min(start, depth[rr, cc])
                if owner[row, col] > 0:
                    for c in range(3):
                        rough = max(rough, abs(colour[rr, cc, c] - colour[row, col, c]))
            if not edge and rough < 0.07:
                continue
            for c in range(3):
                result[row, col, c] = 0.0
            for sub in range(4):
                sr, sc = sub // 2, sub % 2
                # Rays begin just before the nearest of the hits around.
                r, g, b, k, i, _, _, _ = _ray(
                    people, turns, centres, pivot, camera, light, key, ambient,
                    col + 0.25 + 0.5 * sc, row + 0.25 + 0.5 * sr, start - 0.15,
                    part[row, col], shade[row, col, 0], shade[row, col, 1],
                )
                if k == 0:
                    r = backdrop[2 * row + sr, 2 * col + sc, 0]
                    g = backdrop[2 * row + sr, 2 * col + sc, 1]
                    b = backdrop[2 * row + sr, 2 * col + sc, 2]
                result[row, col, 0] += 0.25 * r
                result[row, col, 1] += 0.25 * g
                result[row, col, 2] += 0.25 * b
    return result, part, owner
