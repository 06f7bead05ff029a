"""The head as a signed distance function: about 25 smoothly joined ellipsoids, in numba.

`FACE` is the record the functions read: identity and expression of one person in one frame.
Coordinates are those of `identity.py`, in the head's own frame. Distances are lower bounds
(ellipsoids have no exact one), so marching takes slightly shortened steps.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_FLOATS = (
    # bone and flesh
    "hw ch cd fl jaw_w jaw_y jaw_open chin_w chin_y chin_z cheekbone cheekbone_y cheek_fat "
    "cheek_raise brow_ridge socket "
    # eyes and brows
    "eye_x eye_y eye_w eye_up eye_low eye_tilt eye_z gaze_x gaze_y iris_r crease brow_y "
    "brow_t brow_arch brow_tilt brow_len brow_in brow_close lashes "
    # nose
    "nose_len nose_w nose_out nose_bridge nose_tip nose_up nose_z0 nose_z1 "
    # mouth
    "mouth_y mouth_w mouth_z corner_z lip_u lip_l lip_out smile gap teeth "
    # ears, hair, glasses
    "ear ear_out hair_t hairline parting open_w open_low cut_y back_y glasses_w glasses_h "
    "glasses_r glasses_z "
    # age and marks
    "age freckles blush mole_x mole_y mole_r "
).split()
_COLOURS = ("skin", "hair", "iris", "lips", "glasses_rgb", "g1", "g2")
FACE = np.dtype(
    [(name, "f8") for name in _FLOATS]
    + [(name, "f8", (3,)) for name in _COLOURS]
    + [(name, "i8") for name in ("style", "beard", "glasses", "pattern", "emblem", "salt")]
    + [("neck_w", "f8"), ("shoulder", "f8")]
)

# Hair styles by the geometry they need; indices follow identity.HAIR_STYLES.
(
    BALD, RECEDING, BUZZ, SHORT, SIDE_PART, QUIFF, FRINGE, AFRO, CURLY, BOB, LONG, LONG_WAVY, BUN,
    PONYTAIL, MOHAWK,
) = range(15)
NO_BEARD, STUBBLE, MOUSTACHE, GOATEE, SHORT_BEARD, FULL_BEARD = range(6)


@njit(fastmath=True, error_model="numpy")
def ellipsoid(x, y, z, rx, ry, rz):
    """Approximate distance of a point to an axis-aligned ellipsoid at the origin."""
    ix, iy, iz = 1.0 / rx, 1.0 / ry, 1.0 / rz
    ax, ay, az = x * ix, y * iy, z * iz
    k0 = np.sqrt(ax * ax + ay * ay + az * az)
    bx, by, bz = ax * ix, ay * iy, az * iz
    k1 = np.sqrt(bx * bx + by * by + bz * bz)
    return k0 * (k0 - 1.0) / (k1 + 1e-6)


@njit(fastmath=True, error_model="numpy")
def smooth_min(a, b, k):
    h = max(k - abs(a - b), 0.0)
    return min(a, b) - h * h / (4.0 * k)


@njit(fastmath=True, error_model="numpy")
def smooth_max(a, b, k):
    h = max(k - abs(a - b), 0.0)
    return max(a, b) + h * h / (4.0 * k)


@njit(fastmath=True, error_model="numpy")
def join(d, x, y, z, rx, ry, rz, k):
    """`d` smoothly joined, over width `k`, with an ellipsoid."""
    return smooth_min(d, ellipsoid(x, y, z, rx, ry, rz), k)


@njit(fastmath=True, error_model="numpy")
def capsule(x, y, z, ax, ay, az, bx, by, bz, ra, rb):
    """Distance to a segment from a to b whose radius runs from ra to rb."""
    dx, dy, dz = bx - ax, by - ay, bz - az
    px, py, pz = x - ax, y - ay, z - az
    t = (px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz + 1e-9)
    t = min(max(t, 0.0), 1.0)
    qx, qy, qz = px - t * dx, py - t * dy, pz - t * dz
    return np.sqrt(qx * qx + qy * qy + qz * qz) - (ra + t * (rb - ra))


@njit(fastmath=True, error_model="numpy")
def beyond(offset, radius, reach):
    """Whether an ellipsoid `offset` away along one axis is too far to change a blend.

    With smallest radius m, `ellipsoid` is at least m / radius * (|offset| - radius), and m / radius
    is at least 0.6 for every caller. `reach`: the distance so far plus the width of the blend.
    """
    return 0.6 * (abs(offset) - radius) > reach


@njit(fastmath=True, error_model="numpy")
def bone(p, x, y, z):
    """The head without eyes, nose, lips and ears."""
    ax = abs(x)
    w = p.hw
    d = ellipsoid(x, y - 0.30, z + 0.10, 0.76 * w, 0.80 * p.ch, 0.92 * p.cd)
    d = join(d, x, y + 0.22 * p.fl, z - 0.12, 0.64 * w, 0.74 * p.fl, 0.70, 0.22)
    if d > 0.65:  # nothing below reaches further out than this
        return d - 0.40
    drop = p.jaw_open
    jaw_y = y + 0.60 * p.fl + p.jaw_y + 0.6 * drop
    if not beyond(jaw_y, 0.42, d + 0.20):
        d = join(d, x, jaw_y, z - 0.14, p.jaw_w * w, 0.42, 0.56, 0.20)
    chin_y = y + 0.96 * p.fl + p.chin_y + drop
    if not beyond(chin_y, 0.17, d + 0.20):
        d = join(d, x, chin_y, z - 0.44 - p.chin_z, p.chin_w, 0.17, 0.20, 0.20)
    bone_y = y - p.cheekbone_y
    if not beyond(bone_y, 0.15, d + 0.16):
        d = join(d, ax - 0.43 * w, bone_y, z - 0.46, 0.17 + p.cheekbone, 0.15, 0.20, 0.16)
    cheek_y = y + 0.46 * p.fl - 0.1 * p.cheek_raise
    flesh = 0.22 + 0.5 * p.cheek_fat
    if not beyond(cheek_y, flesh, d + 0.16):
        deep = 0.20 + 0.6 * p.cheek_fat + p.cheek_raise
        d = join(d, ax - 0.36 * w, cheek_y, z - 0.42, 0.18 + p.cheek_fat, flesh, deep, 0.16)
    brow_y = y - p.eye_y - 0.20
    if not beyond(brow_y, 0.07, d + 0.14):
        d = join(d, ax - 0.26, brow_y, z - 0.64, 0.26, 0.07, 0.08 + p.brow_ridge, 0.14)
    # Eye sockets and the hollow between nose and cheek.
    if beyond(y - p.eye_y, 0.13, 0.12 - d):
        return d
    socket = ellipsoid(ax - p.eye_x, y - p.eye_y, z - 0.86, 0.21, 0.13, 0.10 + p.socket)
    return smooth_max(d, -socket, 0.12)


@njit(fastmath=True, error_model="numpy")
def skin(p, x, y, z):
    """Signed distance to the skin of head and ears."""
    d = bone(p, x, y, z)
    if d > 0.45:
        return d - 0.32
    ax = abs(x)
    if z > 0.0:
        # Lidded eyeballs.
        eye_x, eye_y = ax - p.eye_x, y - p.eye_y
        if not beyond(eye_y, 0.125, d + 0.05):
            d = join(d, eye_x, eye_y, z - p.eye_z + 0.145, 0.155, 0.125, 0.155, 0.05)
        # Nose: bridge, tip, wings.
        tip_y = -p.nose_len + p.eye_y + p.nose_up
        tip_z = p.nose_z1 + p.nose_out
        tip = p.nose_tip
        if not beyond(x, p.nose_bridge, d + 0.12):
            bridge = capsule(
                x, y, z, 0.0, 0.08 + p.eye_y, p.nose_z0 - 0.03, 0.0, tip_y + 0.02,
                tip_z - tip - 0.02, p.nose_bridge * 0.8, p.nose_bridge,
            )
            d = smooth_min(d, bridge, 0.12)
        if not beyond(y - tip_y, tip * 0.9, d + 0.07):
            d = join(d, x, y - tip_y, z - tip_z + tip, tip * 1.05, tip * 0.9, tip, 0.07)
        wing_y = y + p.nose_len - p.eye_y + 0.015
        if not beyond(wing_y, 0.075, d + 0.05):
            wing_x, wing_z = ax - p.nose_w * 0.72, z - p.nose_z1 - 0.30 * p.nose_out
            d = join(d, wing_x, wing_y, wing_z, p.nose_w * 0.52, 0.075, 0.11, 0.05)
        # Lips, bent by the smile and parted by the gap.
        r = x / p.mouth_w
        bend = p.smile * r * r
        lift = max(1.0 - r * r, 0.0)
        my = y - p.mouth_y - bend
        gap = p.gap * lift
        mz = z - p.mouth_z + 0.09 * r * r
        upper, lower = my - 0.7 * p.lip_u - 0.45 * gap, my + 0.7 * p.lip_l + 0.55 * gap
        # Lips are thin: the bound is weaker than that of `beyond`.
        if 0.3 * (abs(upper) - p.lip_u - 0.02) < d + 0.05:
            d = join(d, x, upper, mz, p.mouth_w * 0.95, p.lip_u + 0.02, 0.055 + p.lip_out, 0.05)
        if 0.3 * (abs(lower) - p.lip_l - 0.02) < d + 0.05:
            mz += 0.01
            d = join(d, x, lower, mz, p.mouth_w * 0.80, p.lip_l + 0.02, 0.06 + p.lip_out, 0.05)
    # Ears.
    ex = ax - 0.745 * p.hw - 0.5 * p.ear_out
    ez = z + 0.08 + 0.5 * ex
    wide = 0.055 + p.ear_out
    if not beyond(ex, wide, d + 0.03):
        d = join(d, ex, y + 0.06, ez, wide, 0.23 * p.ear, 0.14 * p.ear, 0.03)
    return d


@njit(fastmath=True, error_model="numpy")
def hair(p, x, y, z, limit):
    """Signed distance to the hair; large where there is none.

    Exact only up to `limit`: beyond it any larger number may come, which saves most of the work.
    To find the nearer of skin and hair, pass the distance to the skin.
    """
    s = p.style
    if s == BALD:
        return 9.0
    t = p.hair_t
    ax = abs(x)
    # The opening is a tall ellipsoid whose upper rim is the hairline.
    front = p.parting * 0.22 if s == SIDE_PART else 0.0
    top = p.hairline + front * x
    ry = 0.5 * (top - p.open_low)
    oy = 0.5 * (top + p.open_low)
    opening = ellipsoid(x - 0.08 * front, y - oy, z - 0.78, p.open_w, ry, 0.80)
    if s == RECEDING:
        opening = min(opening, ellipsoid(ax - 0.34, y - top - 0.06, z - 0.55, 0.26, 0.26, 0.55))
    cut = p.cut_y - 0.45 * min(z + 0.15, 0.0) * (p.back_y - p.cut_y)  # lower at the nape
    extra, blend = _extra(p, x, y, z)
    least = max(-opening, cut - y)  # a lower bound of the cap's distance, computed below
    if limit < 1.4:  # beyond this, far caps are reported nearer than they are
        if least >= extra + blend:
            return extra
        if min(least, extra) - 0.25 * blend > limit:
            return min(least, extra)
    # The cap over the skull, less an opening for the face, cut at the ears and the nape.
    cap = ellipsoid(x, y - 0.32, z + 0.12, 0.76 * p.hw + t, 0.80 * p.ch + 1.15 * t, 0.92 * p.cd + t)
    if s == AFRO:
        cap = ellipsoid(x, y - 0.42, z + 0.16, 0.80 * p.hw + t, 0.84 * p.ch + t, 0.90 + t)
        cap += 0.028 * np.sin(17 * x) * np.sin(16 * y + 1.0) * np.sin(17 * z)
    if cap > 1.9:
        return cap - 0.5
    if s == CURLY:
        cap += 0.035 * np.sin(12 * x + 2 * np.sin(5 * y)) * np.sin(12 * y) * np.sin(12 * z + 1.0)
    elif s != AFRO and s != BUZZ:
        cap += 0.010 * np.sin(22 * x + 5 * z)
    if s == QUIFF:
        quiff_x, quiff_y = x + 0.08 * p.parting, y - 1.05 * p.ch
        cap = join(cap, quiff_x, quiff_y, z - 0.42, 0.42, 0.22 + t, 0.40, 0.2)
    if s == MOHAWK:
        cap = ellipsoid(x, y - 0.52, z + 0.05, 0.13, 0.78 * p.ch + t, 0.90)
    d = smooth_max(smooth_max(cap, -opening, 0.05), cut - y, 0.06)
    return smooth_min(d, extra, blend) if blend > 0.0 else d


@njit(fastmath=True, error_model="numpy")
def _extra(p, x, y, z):
    """Hair outside the cap (lengths, bun, tail, fringe): its distance, and its blend width."""
    s, t = p.style, p.hair_t
    ax = abs(x)
    if s == LONG or s == LONG_WAVY or s == BOB:
        length = p.back_y
        wave = 0.035 * np.sin(9.0 * y + 2.0 * np.sign(x)) if s == LONG_WAVY else 0.0
        fall = ellipsoid(
            ax - wave, y - 0.5 * (0.45 + length), z + 0.22,
            0.80 * p.hw + 0.9 * t, 0.5 * (0.55 - length), 0.56 + t,
        )
        # Keep the face and the throat free.
        throat = ellipsoid(x, y + 0.75, z - 0.62, 0.58 * p.hw, 1.25, 0.80)
        return smooth_max(fall, -throat, 0.08), 0.10
    if s == BUN:
        return ellipsoid(x, y - 1.26 * p.ch, z + 0.22, 0.32, 0.27, 0.32), 0.06
    if s == PONYTAIL:
        tail_x = x - 0.72 * p.parting * p.hw
        return ellipsoid(tail_x, y + 0.30, z + 0.38, 0.20 + 0.5 * t, 0.72, 0.24), 0.10
    if s == FRINGE:
        fringe = ellipsoid(x, y - p.hairline + 0.02, z - 0.52, 0.56 * p.hw, 0.22, 0.36)
        return smooth_max(fringe, p.brow_y + 0.075 + 0.02 * np.sin(25 * x) - y, 0.03), 0.06
    return 9.0, 0.0


@njit(fastmath=True, error_model="numpy")
def glasses(p, x, y, z):
    """Signed distance to the frame of the glasses; large where there is none."""
    if p.glasses == 0:
        return 9.0
    ax = abs(x)
    qx = abs(ax - p.eye_x - 0.01) - p.glasses_w + p.glasses_r
    qy = abs(y - p.eye_y + 0.015) - p.glasses_h + p.glasses_r
    outside = np.sqrt(max(qx, 0.0) ** 2 + max(qy, 0.0) ** 2)
    ring = abs(outside + min(max(qx, qy), 0.0) - p.glasses_r)
    plane = abs(z - p.glasses_z + 0.16 * ax * ax)
    d = max(ring, plane) - 0.021
    bridge = max(max(abs(y - p.eye_y - 0.04), plane), ax - p.eye_x + p.glasses_w) - 0.022
    arm_x = ax - p.eye_x - p.glasses_w + 0.02
    arm = max(max(abs(y - p.eye_y - 0.06), abs(arm_x - 0.24 * (p.glasses_z - z))), z - p.glasses_z)
    arm = max(arm - 0.02, -0.1 - z)
    return min(d, min(bridge, arm))


@njit(fastmath=True, error_model="numpy")
def surface(p, x, y):
    """z of the frontmost point of the bone at (x, y), for placing eyes, nose and mouth."""
    z = 1.6
    for _ in range(60):
        d = bone(p, x, y, z)
        if d < 0.002 or z < -0.5:
            break
        z -= 0.8 * d
    return z


@njit(fastmath=True, error_model="numpy", cache=True)  # Python calls it: else compiled every time
def settle(p):
    """Put eyes, nose, mouth and glasses on the bone. Call once after filling the record."""
    p.eye_z = surface(p, p.eye_x, p.eye_y) + 0.045
    p.nose_z0 = surface(p, 0.0, 0.08 + p.eye_y)
    p.nose_z1 = surface(p, 0.0, -p.nose_len + p.eye_y)
    p.mouth_z = surface(p, 0.0, p.mouth_y) + 0.005
    p.corner_z = surface(p, p.mouth_w, p.mouth_y + p.smile)
    p.glasses_z = max(p.eye_z + 0.12, p.nose_z0 + 0.12)


@njit(fastmath=True, error_model="numpy")
def body(p, x, y, z, nx, ny, nz):
    """Distances to (neck, torso) in the torso's frame; (nx, ny, nz): the head's end of the neck."""
    neck = capsule(x, y, z, nx, ny, nz, 0.0, -1.60, -0.28, p.neck_w, p.neck_w * 1.12)
    s = p.shoulder
    torso = capsule(abs(x), y, z, 0.0, -1.62, -0.25, s, -2.00, -0.25, 0.30, 0.36)
    torso = smooth_min(torso, ellipsoid(x, y + 2.8, z + 0.25, s + 0.12, 1.35, 0.66), 0.35)
    return neck, torso
