"""The identity of an avatar: bone, flesh, colour, hair, beard, glasses, age; all from one seed.

Lengths are in head units: the head is about 2.2 units from crown to chin, the eyes lie at
y = 0, x points to the viewer's right, y up and z out of the face. Ranges are wide on purpose:
networks trained on photographs must tell the people apart by shape, not by colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

SHAPE_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType({
    "head_width": (0.88, 1.13), "cranium_height": (0.90, 1.08), "cranium_depth": (0.92, 1.08),
    "face_length": (0.86, 1.14), "jaw_width": (0.36, 0.66), "jaw_height": (-0.08, 0.10),
    "chin_width": (0.11, 0.30), "chin_length": (-0.06, 0.12), "chin_forward": (-0.10, 0.10),
    "cheekbone": (0.00, 0.13), "cheekbone_y": (-0.30, -0.14), "cheek_fat": (0.00, 0.17),
    "brow_ridge": (0.00, 0.10), "socket_depth": (0.01, 0.08),
    "eye_spacing": (0.265, 0.375), "eye_width": (0.125, 0.180), "eye_height": (0.060, 0.105),
    "eye_tilt": (-0.20, 0.28), "eye_y": (-0.05, 0.05), "eye_lid": (0.00, 0.45),
    "nose_length": (0.34, 0.50), "nose_width": (0.095, 0.20), "nose_out": (0.12, 0.29),
    "nose_bridge": (0.05, 0.11), "nose_tip": (0.065, 0.115), "nose_up": (-0.06, 0.09),
    "philtrum": (0.17, 0.26), "mouth_width": (0.20, 0.33), "lip_upper": (0.030, 0.080),
    "lip_lower": (0.042, 0.105), "lip_out": (0.00, 0.06), "mouth_curve": (-0.030, 0.045),
    "ear_size": (0.75, 1.30), "ear_out": (0.00, 0.10),
    "brow_y": (0.155, 0.255), "brow_thickness": (0.018, 0.055), "brow_arch": (0.00, 0.07),
    "brow_tilt": (-0.14, 0.16), "brow_length": (0.15, 0.23),
    "neck_width": (0.27, 0.40), "shoulder_width": (0.95, 1.35),
})
"""Range of each shape parameter, drawn uniformly in this order."""

HAIR_STYLES = (
    "bald", "receding", "buzz", "short", "side part", "quiff", "fringe", "afro", "curly", "bob",
    "long", "long wavy", "bun", "ponytail", "mohawk",
)
BEARDS = ("none", "stubble", "moustache", "goatee", "short beard", "full beard")
GLASSES = ("none", "round", "square", "wide")

SKIN_TONES = np.array([
    [0.96, 0.82, 0.74], [0.94, 0.78, 0.66], [0.90, 0.72, 0.58], [0.85, 0.65, 0.49],
    [0.78, 0.57, 0.40], [0.68, 0.47, 0.32], [0.56, 0.37, 0.25], [0.44, 0.28, 0.19],
    [0.35, 0.22, 0.155],
])
HAIR_COLOURS = np.array([
    [0.06, 0.05, 0.05], [0.13, 0.08, 0.06], [0.24, 0.14, 0.08], [0.36, 0.21, 0.11],
    [0.52, 0.34, 0.17], [0.74, 0.57, 0.30], [0.88, 0.76, 0.50], [0.58, 0.20, 0.08],
    [0.70, 0.33, 0.12], [0.55, 0.55, 0.56], [0.86, 0.86, 0.86],
])
IRIS_COLOURS = np.array([
    [0.20, 0.11, 0.06], [0.33, 0.19, 0.09], [0.42, 0.33, 0.14],
    [0.27, 0.42, 0.24], [0.25, 0.42, 0.62], [0.45, 0.55, 0.62],
])
GLASSES_COLOURS = np.array([
    [0.05, 0.05, 0.06], [0.30, 0.16, 0.08], [0.55, 0.10, 0.10],
    [0.12, 0.18, 0.45], [0.55, 0.48, 0.30],
])
HAIR_SHARES = {
    "dark": [0.34, 0.25, 0.14, 0.08, 0.03, 0.05, 0.03, 0.03, 0.02, 0.02, 0.01],
    "light": [0.11, 0.12, 0.13, 0.13, 0.12, 0.12, 0.09, 0.08, 0.07, 0.02, 0.01],
}
"""Probability of each hair colour, for darker and lighter skin."""
FEMININE_STYLES = {
    "bob": 3, "long": 4, "long wavy": 4, "bun": 3, "ponytail": 3, "fringe": 2, "curly": 2,
    "afro": 2, "side part": 2, "short": 1, "buzz": 0.5,
}
MASCULINE_STYLES = {
    "bald": 3, "receding": 3, "buzz": 3, "short": 3, "side part": 3, "quiff": 3, "fringe": 2,
    "afro": 2, "curly": 2, "long": 1, "mohawk": 0.8,
}
"""Hair styles with their weights."""


@dataclass(frozen=True)
class Identity:
    """Who an avatar is. Two identities are equal if and only if their seeds are.

    Attributes:
        shape: each parameter of `SHAPE_RANGES`, in head units.
        skin, hair_colour, iris, lips, glasses_colour: linear-looking RGB in [0, 1].
        age: 0 (young) to 1 (old): lines, bags under the eyes.
        freckles, blush, lashes: strength in [0, 1].
        mole: x and y of a mole on the face in head units, and its radius (0: none).
    """

    seed: int
    shape: Mapping[str, float]
    skin: tuple[float, float, float]
    hair_style: str
    hair_colour: tuple[float, float, float]
    hair_volume: float
    hairline: float
    parting: float
    beard: str
    iris: tuple[float, float, float]
    lips: tuple[float, float, float]
    glasses: str
    glasses_colour: tuple[float, float, float]
    age: float
    freckles: float
    blush: float
    lashes: float
    mole: tuple[float, float, float]


def rgb(values: np.ndarray) -> tuple[float, float, float]:
    """A colour of numbers (3,), cut to [0, 1]."""
    r, g, b = (float(v) for v in np.clip(values, 0.0, 1.0))
    return r, g, b


@lru_cache(maxsize=4096)
def sample_identity(seed: int) -> Identity:
    """The identity of a seed (any non-negative integer); the same on every machine."""
    rng = np.random.default_rng([7919, seed])
    feminine = rng.uniform() < 0.5
    shape = {name: float(rng.uniform(low, high)) for name, (low, high) in SHAPE_RANGES.items()}
    age = float(rng.beta(1.2, 1.6))
    if feminine:  # a mild tendency, not a rule: the ranges overlap almost wholly
        shape["jaw_width"] = 0.36 + 0.75 * (shape["jaw_width"] - 0.36)
        shape["brow_thickness"] *= 0.75
        shape["neck_width"] = 0.26 + 0.6 * (shape["neck_width"] - 0.26)
        shape["shoulder_width"] = 0.9 + 0.6 * (shape["shoulder_width"] - 0.9)
        shape["lip_upper"] *= 1.15
        shape["lip_lower"] *= 1.1
    tone = rng.uniform(0, len(SKIN_TONES) - 1)
    low = int(tone)
    skin = SKIN_TONES[low] + (tone - low) * (SKIN_TONES[min(low + 1, 8)] - SKIN_TONES[low])
    skin = skin * rng.uniform(0.95, 1.05, 3)
    dark = tone / 8
    if age > 0.72 and rng.uniform() < 0.8:
        hair = HAIR_COLOURS[rng.choice([9, 10])]
    else:
        hair = HAIR_COLOURS[rng.choice(11, p=HAIR_SHARES["dark" if dark > 0.6 else "light"])]
    hair = hair * rng.uniform(0.82, 1.15) * rng.uniform(0.96, 1.04, 3)
    styles = FEMININE_STYLES if feminine else MASCULINE_STYLES
    weights = np.array(list(styles.values()))
    style = str(rng.choice(list(styles), p=weights / weights.sum()))
    beard = "none"
    if not feminine and rng.uniform() < 0.6:
        beard = str(rng.choice(BEARDS[1:]))
    iris = IRIS_COLOURS[int(rng.integers(2)) if dark > 0.6 else int(rng.integers(6))]
    lips = skin * np.array([0.88, 0.60, 0.58])
    if feminine and rng.uniform() < 0.6:
        paint = np.array([[0.72, 0.12, 0.16], [0.80, 0.32, 0.38], [0.55, 0.12, 0.22]])
        lips = 0.35 * lips + 0.65 * paint[rng.integers(3)]
    else:
        lips = lips * rng.uniform(0.9, 1.08, 3)
    glasses = str(rng.choice(GLASSES[1:])) if rng.uniform() < 0.26 else "none"
    return Identity(
        seed=seed,
        shape=MappingProxyType(shape),
        skin=rgb(skin),
        hair_style=style,
        hair_colour=rgb(hair),
        hair_volume=float(rng.uniform(0.0, 1.0)),
        hairline=float(rng.uniform(0.56, 0.72)),
        parting=float(rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)),
        beard=beard,
        iris=rgb(iris * rng.uniform(0.85, 1.15, 3)),
        lips=rgb(lips),
        glasses=glasses,
        glasses_colour=rgb(GLASSES_COLOURS[rng.integers(len(GLASSES_COLOURS))]),
        age=age,
        freckles=float(rng.uniform(0.3, 1.0)) if dark < 0.45 and rng.uniform() < 0.2 else 0.0,
        blush=float(rng.uniform(0, 1)) * (1 - 0.6 * dark),
        lashes=float(rng.uniform(0.6, 1.0)) if feminine else float(rng.uniform(0.2, 0.6)),
        mole=(
            float(rng.choice([-1, 1]) * rng.uniform(0.15, 0.5)),
            float(rng.uniform(-0.75, 0.4)),
            float(rng.uniform(0.028, 0.045)) if rng.uniform() < 0.2 else 0.0,
        ),
    )
