"""Expressions and head motions as curves over time, and a person's `FACE` record in one frame."""

from __future__ import annotations

import numpy as np

from .identity import BEARDS, GLASSES, HAIR_STYLES, Identity
from .scene import GARMENT_EMBLEMS, GARMENT_PATTERNS, Garment
from .shape import FACE, settle

CLOTH = {
    "white": (0.90, 0.90, 0.88), "black": (0.09, 0.09, 0.10), "grey": (0.50, 0.51, 0.53),
    "red": (0.76, 0.12, 0.12), "orange": (0.92, 0.48, 0.10), "yellow": (0.93, 0.80, 0.18),
    "green": (0.14, 0.52, 0.25), "blue": (0.13, 0.29, 0.70), "purple": (0.46, 0.20, 0.62),
    "pink": (0.94, 0.56, 0.70),
}
GLASSES_SIZES = {
    "round": (0.19, 0.17, 0.17), "square": (0.20, 0.14, 0.04), "wide": (0.225, 0.13, 0.09),
}
"""Half width, half height and corner radius of a lens."""
HAIR_THICKNESS = {
    "buzz": 0.025, "short": 0.05, "receding": 0.035, "side part": 0.07, "quiff": 0.06,
    "fringe": 0.08, "afro": 0.20, "curly": 0.12, "bob": 0.09, "long": 0.07, "long wavy": 0.10,
    "bun": 0.045, "ponytail": 0.05, "mohawk": 0.14,
}

# smile: height of the corners; width: of the mouth; gap: between the lips; jaw: drop;
# raise/inner/close: brows up, inner ends up, inner ends down; eye: opening; cheek: raised.
_NEUTRAL = dict(
    smile=0.0, width=1.0, gap=0.0, teeth=0.0, jaw=0.0, brow=0.0, inner=0.0, close=0.0, eye=1.0,
    low=1.0, cheek=0.0, look=0.0,
)
_EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": dict(smile=0.070, width=1.18, gap=0.035, teeth=1.0, eye=0.88, low=0.8, cheek=0.05),
    "laugh": dict(
        smile=0.080, width=1.20, gap=0.17, teeth=1.0, jaw=0.07, eye=0.62, low=0.6, cheek=0.07,
        brow=0.03,
    ),
    "surprise": dict(gap=0.22, width=0.74, jaw=0.13, brow=0.10, eye=1.38, low=1.2),
    "sadness": dict(smile=-0.075, width=0.92, inner=0.10, brow=-0.01, eye=0.80, look=-0.02),
    "anger": dict(
        smile=-0.045, width=1.0, gap=0.035, teeth=1.0, brow=-0.045, close=0.085, eye=0.85, low=0.9
    ),
    "eyes closed": dict(eye=-0.12, low=1.0),
    "speaking": dict(gap=0.07, jaw=0.03, width=0.96, brow=0.01),
}

MAXIMUM_YAW = 0.44
"""Largest head turn in radians (25 degrees), before small differences of pose."""


def head_pose(motion: str, time: float, rng_values: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in radians at `time` in [0, 1] of the clip: + to the viewer's right, down
    and clockwise. `rng_values`: 4 uniform numbers fixed for the clip."""
    yaw = 0.10 * (2 * rng_values[0] - 1)
    pitch = 0.06 * (2 * rng_values[1] - 1)
    roll = 0.04 * (2 * rng_values[2] - 1)
    sweep = 0.5 - 0.5 * np.cos(np.pi * min(time * 1.15, 1.0))  # eased 0 -> 1
    size = 0.85 + 0.15 * rng_values[3]
    if motion in ("turn left", "turn right"):
        sign = -1.0 if motion == "turn left" else 1.0
        yaw = 0.4 * yaw + sign * MAXIMUM_YAW * size * (1.15 * sweep - 0.15)
    elif motion == "nod":
        pitch += 0.20 * size * np.sin(2 * np.pi * 1.25 * time)
    elif motion == "shake":
        yaw += 0.30 * size * np.sin(2 * np.pi * 1.25 * time)
    elif motion == "tilt":
        side = 1.0 if rng_values[0] > 0.5 else -1.0
        roll += side * 0.30 * size * sweep
    return float(yaw), float(pitch), float(roll)


def expression_values(
    expression: str, time: float, phase: float, strength: float
) -> dict[str, float]:
    """Facial controls at `time` in [0, 1]; `phase` in [0, 1] shifts speech and laughter."""
    values = dict(_NEUTRAL)
    # An expression is there from the first frame and settles within the first third.
    k = strength * (0.75 + 0.25 * min(time * 3.0, 1.0))
    if expression == "eyes closed":
        k = 1.0
    for name, value in _EXPRESSIONS[expression].items():
        values[name] += k * (value - _NEUTRAL[name])
    if expression == "speaking":
        beat = 0.5 + 0.5 * np.sin(2 * np.pi * (2.3 * time + phase))
        values["gap"] = 0.015 + 0.13 * beat * strength
        values["jaw"] = 0.07 * beat
        values["width"] = 1.02 - 0.16 * beat
        values["teeth"] = 1.0
    elif expression == "laugh":
        values["gap"] *= 0.85 + 0.15 * np.sin(2 * np.pi * (3 * time + phase))
    return values


def garment_colours(garment: Garment) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Main colour, and the colour of its pattern and emblem: white, or dark on light cloth."""
    main = CLOTH[garment.colour]
    light = garment.colour in ("white", "yellow", "pink", "orange")
    return main, (0.12, 0.12, 0.20) if light else (0.94, 0.93, 0.90)


def face_record(
    identity: Identity, garment: Garment, controls: dict[str, float],
    gaze: tuple[float, float] = (0, 0),
) -> np.ndarray:
    """The `FACE` record (shape (1,)) of a person in one frame."""
    s, c = identity.shape, controls
    record = np.zeros(1, dtype=FACE)
    p = record[0]
    for name in s.keys() & set(FACE.names or ()):  # what carries the name of its parameter
        p[name] = s[name]
    length = s["face_length"]
    p["hw"], p["ch"], p["cd"] = s["head_width"], s["cranium_height"], s["cranium_depth"]
    p["fl"] = length
    p["jaw_w"], p["jaw_y"], p["jaw_open"] = s["jaw_width"], s["jaw_height"], c["jaw"]
    p["chin_w"], p["chin_y"], p["chin_z"] = s["chin_width"], s["chin_length"], s["chin_forward"]
    p["cheek_raise"], p["socket"] = c["cheek"], s["socket_depth"]
    p["eye_x"] = s["eye_spacing"] * (0.5 + 0.5 * s["head_width"])
    p["eye_w"] = s["eye_width"]
    opening = s["eye_height"] * (1 - 0.35 * s["eye_lid"])
    p["eye_up"] = opening * c["eye"]
    p["eye_low"] = 0.62 * opening * max(c["low"], 0.0) * (1.0 if c["eye"] > 0 else 0.35)
    if c["eye"] <= 0:  # shut: the upper lid lies on the lower one
        p["eye_up"] = -p["eye_low"]
    p["gaze_x"], p["gaze_y"] = gaze[0], gaze[1] + c["look"] + 0.004
    p["iris_r"] = 0.068
    p["crease"] = 0.050 * (1 - s["eye_lid"]) + 0.012
    p["brow_y"] = s["brow_y"] + c["brow"]
    p["brow_t"], p["brow_len"] = s["brow_thickness"], s["brow_length"]
    p["brow_in"], p["brow_close"] = c["inner"], c["close"]
    p["nose_len"], p["nose_w"] = s["nose_length"] * length, s["nose_width"]
    p["mouth_y"] = s["eye_y"] - (s["nose_length"] + s["philtrum"]) * length - 0.02 - 0.25 * c["jaw"]
    p["mouth_w"] = s["mouth_width"] * c["width"]
    p["lip_u"], p["lip_l"] = s["lip_upper"], s["lip_lower"]
    p["smile"] = s["mouth_curve"] + c["smile"]
    p["gap"], p["teeth"] = max(c["gap"], 0.0), c["teeth"]
    p["ear"], p["neck_w"], p["shoulder"] = s["ear_size"], s["neck_width"], s["shoulder_width"]
    p["age"], p["freckles"], p["blush"] = identity.age, identity.freckles, identity.blush
    p["lashes"] = identity.lashes
    p["mole_x"], p["mole_y"], p["mole_r"] = identity.mole
    _hair(p, identity)
    p["glasses"] = GLASSES.index(identity.glasses)
    if p["glasses"]:
        p["glasses_w"], p["glasses_h"], p["glasses_r"] = GLASSES_SIZES[identity.glasses]
    p["skin"], p["hair"], p["iris"] = identity.skin, identity.hair_colour, identity.iris
    p["lips"], p["glasses_rgb"] = identity.lips, identity.glasses_colour
    p["g1"], p["g2"] = garment_colours(garment)
    p["pattern"] = GARMENT_PATTERNS.index(garment.pattern)
    p["emblem"] = GARMENT_EMBLEMS.index(garment.emblem)
    p["beard"] = BEARDS.index(identity.beard)
    p["salt"] = identity.seed % 65521
    settle(p)
    return record


def _hair(p: np.void, identity: Identity) -> None:
    style, volume = identity.hair_style, identity.hair_volume
    p["style"] = HAIR_STYLES.index(style)
    p["hair_t"] = HAIR_THICKNESS.get(style, 0.0) * (0.75 + 0.7 * volume)
    p["hairline"] = identity.hairline + (0.10 if style == "receding" else 0.0)
    p["parting"] = identity.parting
    p["open_w"] = 0.60 * identity.shape["head_width"]
    p["open_low"] = -1.75
    p["cut_y"], p["back_y"] = 0.0, -0.5
    if style in ("buzz", "short", "receding", "quiff", "side part"):
        p["cut_y"] = 0.10 - 0.12 * volume
    if style == "afro":
        p["cut_y"], p["back_y"] = -0.25, -0.6
    elif style == "curly":
        p["cut_y"], p["back_y"] = -0.30, -0.7
    elif style == "bob":
        p["back_y"] = -0.75 - 0.25 * volume
    elif style in ("long", "long wavy"):
        p["back_y"] = -1.35 - 0.35 * volume
