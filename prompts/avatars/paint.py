"""Colours on the avatars' surfaces: skin, eyes, brows, lips, beard, age, hair, cloth.

Features are painted in the face's own (x, y), so that they turn with the head. All edges are
soft over about a hundredth of a head unit; the renderer's supersampling does the rest.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .shape import AFRO, BUZZ, CURLY, GOATEE, MOUSTACHE, NO_BEARD, RECEDING, SHORT_BEARD, STUBBLE


@njit(fastmath=True, error_model="numpy")
def ramp(a, b, v):
    """Smoothstep from 0 at a to 1 at b."""
    t = min(max((v - a) / (b - a), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(fastmath=True, error_model="numpy")
def mix(r, g, b, colour, k):
    """(r, g, b) moved by the share k towards a colour."""
    return r + k * (colour[0] - r), g + k * (colour[1] - g), b + k * (colour[2] - b)


@njit(fastmath=True, error_model="numpy")
def line(v, width):
    """1 on v = 0, falling to 0 at +-width."""
    t = max(1.0 - abs(v) / width, 0.0)
    return t * t * (3.0 - 2.0 * t)


@njit(fastmath=True, error_model="numpy")
def noise(x, y, salt):
    """Smooth value noise in [0, 1] from an integer lattice hash."""
    fx, fy = np.floor(x), np.floor(y)
    ix, iy = int(fx), int(fy)
    tx, ty = x - fx, y - fy
    tx, ty = tx * tx * (3 - 2 * tx), ty * ty * (3 - 2 * ty)
    total = 0.0
    for j in range(2):
        for i in range(2):
            h = (ix + i) * 374761393 + (iy + j) * 668265263 + salt * 974634777
            h = ((h ^ (h >> 13)) * 1274126177) & 0x7FFFFFFF
            w = (tx if i else 1 - tx) * (ty if j else 1 - ty)
            total += w * (h & 0xFFFF) / 65535.0
    return total


@njit(fastmath=True, error_model="numpy")
def beard_cover(p, x, y, z):
    """Share of the skin covered by beard at a point of the lower face, 0 to 1."""
    if p.beard == NO_BEARD or z < -0.25:
        return 0.0
    ax = abs(x)
    r = x / p.mouth_w
    my = y - p.mouth_y - p.smile * r * r
    nose_base = p.eye_y - p.nose_len - 0.06
    soft = 0.04
    lip = ramp(p.lip_u + 0.02, p.lip_u + 0.05, my) * ramp(nose_base, nose_base - soft, y)
    moustache = lip * ramp(p.mouth_w * 1.35, p.mouth_w * 1.05, ax + 0.5 * max(-my, 0.0))
    under = ramp(-p.lip_l - 0.03 - p.gap, -p.lip_l - 0.07 - p.gap, my)
    chin = under * ramp(0.30, 0.22, ax)
    edge = -0.16 - 0.42 * ramp(0.66, 0.30, ax)  # cheek line from sideburn to the mouth's corner
    side = ramp(edge + soft, edge - soft, y) * ramp(0.80 * p.mouth_w, 1.20 * p.mouth_w, ax)
    jaw = max(side, under)
    corner = line(ax - p.mouth_w * 1.12, 0.09) * ramp(0.10, 0.04, my) * ramp(-0.34, -0.26, my)
    if p.beard == MOUSTACHE:
        return moustache
    if p.beard == GOATEE:
        return max(max(moustache, chin), corner)
    return max(moustache, jaw)


@njit(fastmath=True, error_model="numpy")
def skin_colour(p, x, y, z):
    """RGB of the head's skin with everything painted on it, and the gloss there."""
    r, g, b = p.skin[0], p.skin[1], p.skin[2]
    gloss = 0.10
    ax = abs(x)
    grain = noise(x * 7.0 + 31.0, y * 7.0 + 17.0, p.salt) - 0.5
    r, g, b = r * (1 + 0.05 * grain), g * (1 + 0.05 * grain), b * (1 + 0.05 * grain)
    if ax > 0.72 * p.hw and z < 0.25:  # inside of the ear
        inner = line(y + 0.05, 0.16) * ramp(0.74 * p.hw, 0.80 * p.hw, ax)
        r, g, b = r * (1 - 0.18 * inner), g * (1 - 0.28 * inner), b * (1 - 0.28 * inner)
    # Shaved or thin hair on the skull shows as a tint.
    if p.style == RECEDING or p.style == BUZZ:
        stub = 0.30 * ramp(p.hairline - 0.04, p.hairline + 0.10, y) * ramp(1.0, 0.7, z)
        r, g, b = mix(r, g, b, p.hair, stub)
    if z < -0.2:
        return r, g, b, gloss
    # Blood in cheeks, nose and under the skin.
    blush = 0.16 * p.blush * np.exp(-((ax - 0.40) ** 2 + (y + 0.30) ** 2) / 0.035)
    blush += 0.10 * np.exp(-(x * x + (y + p.nose_len) ** 2) / 0.02)
    g, b = g * (1 - blush), b * (1 - 0.9 * blush)
    if p.freckles > 0.0:
        spots = ramp(0.60, 0.74, noise(x * 21.0 + 5.0, y * 21.0 + 9.0, p.salt + 7))
        spots *= p.freckles * 0.45 * np.exp(-((y + 0.22) ** 2) / 0.06)
        r, g, b = r * (1 - 0.35 * spots), g * (1 - 0.55 * spots), b * (1 - 0.65 * spots)
    if p.mole_r > 0.0:
        m = ramp(p.mole_r, 0.5 * p.mole_r, np.sqrt((x - p.mole_x) ** 2 + (y - p.mole_y) ** 2))
        r, g, b = r * (1 - 0.7 * m), g * (1 - 0.8 * m), b * (1 - 0.85 * m)

    # Age: folds from nose to mouth, forehead, corners of the eyes.
    old = ramp(0.35, 0.95, p.age)
    smile_fold = old + 7.0 * max(p.cheek_raise, 0.0)
    fx = 0.17 + 0.30 * (-(y + p.nose_len - p.eye_y)) + 0.4 * (p.nose_w - 0.1)
    fold = line(ax - fx, 0.035) * ramp(-p.nose_len + 0.04, -p.nose_len - 0.06, y - p.eye_y)
    fold *= ramp(p.mouth_y - 0.10, p.mouth_y + 0.02, y)
    dark = 0.40 * min(smile_fold, 1.0) * fold
    if y > p.brow_y + p.eye_y + 0.10:
        ripples = 0.5 + 0.5 * np.cos(52.0 * (y - 0.06 * x * x))
        dark += 0.20 * (old + 5 * max(p.brow_in, 0.0)) * ripples * ramp(0.42, 0.25, ax)
    crow = 0.5 + 0.5 * np.cos(26.0 * np.arctan2(y - p.eye_y, ax - p.eye_x - 0.02))
    reach = np.sqrt((ax - p.eye_x) ** 2 + (y - p.eye_y) ** 2)
    dark += (
        0.22 * old * crow * ramp(p.eye_w + 0.02, p.eye_w + 0.06, reach)
        * ramp(p.eye_w + 0.20, p.eye_w + 0.10, reach) * ramp(p.eye_x + 0.02, p.eye_x + 0.10, ax)
    )
    dark += 0.9 * p.brow_close * line(ax - 0.05, 0.035) * line(y - p.eye_y - p.brow_y + 0.03, 0.10)

    # Eye region: socket shade, crease, bag.
    u = ax - p.eye_x
    v = y - p.eye_y - p.eye_tilt * u
    q = 1.0 - (u / p.eye_w) ** 2
    near = np.exp(-(u * u / 0.030 + (v - 0.02) ** 2 / 0.016))
    dark += 0.10 * near
    if q > -0.6:
        top = p.eye_up * np.sqrt(max(q, 0.0))
        dark += 0.34 * line(v - top - p.crease, 0.030) * ramp(-0.5, 0.1, q)
        bag = line(v + p.eye_low + 0.085 - 0.03 * q, 0.035)
        dark += (0.10 + 0.35 * old) * bag * ramp(-0.2, 0.3, q)
    # Nostrils and the shade under the nose.
    ny = y - p.eye_y + p.nose_len
    nostril = ramp(0.045, 0.020, np.sqrt((ax - 0.55 * p.nose_w) ** 2 + 1.8 * (ny + 0.055) ** 2))
    dark += 0.42 * nostril
    dark = min(dark, 0.85)
    r, g, b = r * (1 - 0.80 * dark), g * (1 - 0.92 * dark), b * (1 - 0.95 * dark)

    # Beard.
    cover = beard_cover(p, x, y, z)
    if cover > 0.0:
        strand = 0.72 + 0.5 * noise(x * 26.0, y * 9.0, p.salt + 3)
        if p.beard == STUBBLE:
            cover *= 0.38
        elif p.beard == SHORT_BEARD:
            cover *= 0.80
        k = strand * 0.9
        r, g, b = mix(r, g, b, (p.hair[0] * k, p.hair[1] * k, p.hair[2] * k), cover)
        gloss *= 1 - cover

    # Lips, teeth and mouth.
    s = x / p.mouth_w
    if abs(s) < 1.15 and z > 0.2:
        lift = max(1.0 - s * s, 0.0)
        root = np.sqrt(lift)
        my = y - p.mouth_y - p.smile * s * s
        gap = p.gap * root
        up_low, low_up = 0.45 * gap, -0.55 * gap
        cupid = 1.0 - 0.28 * np.exp(-((x / 0.045) ** 2))
        upper = up_low + p.lip_u * 1.25 * lift**0.7 * cupid
        lower = low_up - p.lip_l * 1.25 * root
        e = 0.012
        on = ramp(upper + e, upper - e, my) * ramp(lower - e, lower + e, my)
        on *= ramp(1.02, 0.94, abs(s))
        tone = 0.86 if my > 0.5 * (up_low + low_up) else 1.0
        r, g, b = mix(r, g, b, (p.lips[0] * tone, p.lips[1] * tone, p.lips[2] * tone), on)
        gloss += 0.15 * on
        if p.gap > 0.012:
            hole = ramp(up_low, up_low - e, my) * ramp(low_up, low_up + e, my) * (lift > 0.02)
            teeth_low = up_low - p.teeth * min(0.085, 0.75 * p.gap)
            tooth = hole * ramp(teeth_low - e, teeth_low + e, my) * ramp(0.95, 0.75, abs(s))
            if p.teeth <= 0.0:
                tooth = 0.0
            r, g, b = mix(r, g, b, (0.26, 0.06, 0.07), hole)
            r, g, b = mix(r, g, b, (0.93, 0.91, 0.86), tooth)
        else:
            seam = 0.62 * line(my, 0.020) * ramp(1.08, 0.98, abs(s))
            r, g, b = r * (1 - seam), g * (1 - seam), b * (1 - seam)

    # Brows.
    t = (ax - p.eye_x + 0.01) / p.brow_len
    if abs(t) < 1.2 and z > 0.1:
        inner = 0.5 * (1.0 - min(max(t, -1.0), 1.0))
        centre = p.eye_y + p.brow_y + p.brow_arch * (1.0 - t * t)
        centre += p.brow_tilt * 0.5 * t * p.brow_len * 2
        centre += p.brow_in * inner * inner - p.brow_close * inner * inner
        thick = p.brow_t * (1.05 - 0.55 * max(t, 0.0))
        hairs = 0.86 + 0.3 * noise(x * 40.0, y * 12.0, p.salt + 11)
        k = ramp(thick + 0.012, thick - 0.012, abs(y - centre)) * ramp(1.12, 0.88, abs(t))
        k = min(k * hairs * 0.92, 1.0)
        r, g, b = mix(r, g, b, (p.hair[0] * 0.62, p.hair[1] * 0.62, p.hair[2] * 0.62), k)

    # Eyes.
    if q > -0.15 and z > 0.15:
        root = np.sqrt(max(q, 0.0))
        top, low = p.eye_up * root, -p.eye_low * root
        e = 0.012
        white = ramp(top + e, top - e, v) * ramp(low - e, low + e, v) * (1.0 if q > 0 else 0.0)
        if white > 0.0 and p.eye_up + p.eye_low > 0.02:
            side = 1.0 if x > 0 else -1.0
            gx, gy = x - side * p.eye_x - p.gaze_x, y - p.eye_y - p.gaze_y
            rr = np.sqrt(gx * gx + gy * gy)
            shade = 1.0 - 0.28 * ramp(top - 0.06, top + 0.01, v) - 0.12 * (1.0 - q)
            er, eg, eb = 1.05 * shade, 1.03 * shade, 1.01 * shade
            k = ramp(p.iris_r + 0.010, p.iris_r - 0.010, rr)
            ring = 0.55 + 0.45 * ramp(p.iris_r, 0.5 * p.iris_r, rr)
            ring *= shade
            iris = (p.iris[0] * ring, p.iris[1] * ring, p.iris[2] * ring)
            er, eg, eb = mix(er, eg, eb, iris, k)
            er, eg, eb = mix(er, eg, eb, (0.03, 0.03, 0.03), ramp(0.050, 0.036, rr))
            k = ramp(0.026, 0.012, np.sqrt((gx + 0.028) ** 2 + (gy - 0.034) ** 2))
            er, eg, eb = mix(er, eg, eb, (1.0, 1.0, 1.0), k)
            r, g, b = mix(r, g, b, (er, eg, eb), white)
            gloss = max(gloss, 0.3 * white)
        lash = (0.55 + 0.4 * p.lashes) * line(v - top - 0.004, 0.020 + 0.016 * p.lashes)
        lash *= ramp(-0.12, 0.08, q)
        r, g, b = mix(r, g, b, (0.05, 0.035, 0.03), lash)
        rim = 0.28 * line(v - low, 0.018) * ramp(0.0, 0.2, q)
        r, g, b = r * (1 - rim), g * (1 - 1.1 * rim), b * (1 - 1.1 * rim)
    return r, g, b, gloss


@njit(fastmath=True, error_model="numpy")
def hair_colour(p, x, y, z):
    """RGB of the hair with strands or curls."""
    if p.style == CURLY or p.style == AFRO:
        k = 0.62 + 0.65 * noise(x * 11.0 + 3.0, y * 11.0 + z * 7.0, p.salt)
    else:
        around = np.arctan2(x, z + 0.3)
        k = 0.70 + 0.50 * noise(around * 13.0, y * 2.2 + 4.0, p.salt)
    return p.hair[0] * k, p.hair[1] * k, p.hair[2] * k


@njit(fastmath=True, error_model="numpy")
def star(x, y, radius):
    """Signed distance (approximate) to a five-pointed star."""
    a = np.arctan2(x, y)
    sector = 2.0 * np.pi / 5.0
    a = abs((a + 50.0 * sector + 0.5 * sector) % sector - 0.5 * sector)
    rr = np.sqrt(x * x + y * y)
    px, py = rr * np.sin(a), rr * np.cos(a)
    # Edge from the tip (0, radius) to the notch at angle sector / 2, 0.45 radius.
    nx, ny = 0.45 * radius * np.sin(0.5 * sector), 0.45 * radius * np.cos(0.5 * sector)
    ex, ey = nx, ny - radius
    length = np.sqrt(ex * ex + ey * ey)
    return ((px * (-ey)) + (py - radius) * ex) / length


@njit(fastmath=True, error_model="numpy")
def heart(x, y, radius):
    """Implicit heart, scaled to look like a distance near its edge."""
    u, v = abs(x) / radius, y / radius
    v = 1.15 * v - 0.75 * np.sqrt(u) + 0.10
    return (np.sqrt(u * u + v * v) - 0.95) * radius


@njit(fastmath=True, error_model="numpy")
def cloth_colour(p, x, y):
    """RGB of the garment at (x, y) of the torso's front."""
    r, g, b = p.g1[0], p.g1[1], p.g1[2]
    k = 0.0
    e = 0.02
    if p.pattern == 1:
        k = ramp(-e, e, np.abs((y * 3.4) % 1.0 - 0.5) / 3.4 - 0.25 / 3.4)
    elif p.pattern == 2:
        i, j = np.floor(x * 3.6 + 40.0), np.floor(y * 3.6 + 40.0)
        k = 1.0 if (i + j) % 2 == 0 else 0.0
    elif p.pattern == 3:
        row = np.floor(y * 4.2)
        u = (x * 4.2 + 0.5 * (row % 2)) % 1.0 - 0.5
        v = (y * 4.2) % 1.0 - 0.5
        k = ramp(0.30, 0.22, np.sqrt(u * u + v * v))
    cy = y + 1.74
    reach = np.sqrt(x * x + cy * cy)
    if p.emblem > 0:  # no pattern around it
        k *= ramp(0.19, 0.25, reach)
    if p.emblem == 1:
        k = max(k, ramp(e, -e, star(x, cy, 0.22)))
    elif p.emblem == 2:
        k = max(k, ramp(e, -e, heart(x, cy, 0.19)))
    elif p.emblem == 3:
        k = max(k, ramp(0.18, 0.15, reach))
    weave = 0.95 + 0.1 * noise(x * 9.0 + 50.0, y * 9.0 + 50.0, p.salt + 23)
    r, g, b = mix(r, g, b, p.g2, k)
    return r * weave, g * weave, b * weave
