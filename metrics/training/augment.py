"""How training faces vary: other looks of a person, other light and colours, blur, noise.

A recogniser that sees each person in one look only learns colours and hair instead of faces: looks
are what changes between two photographs while bones and flesh stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from idbench.metrics.faces.crops import align_crops
from idbench.prompts.avatars.identity import (
    BEARDS,
    GLASSES,
    HAIR_STYLES,
    Identity,
    rgb,
    sample_identity,
)
from idbench.prompts.avatars.march import PARTS
from idbench.prompts.avatars.scene import TRAINING_IDENTITIES, Scene

COLOURS = ("skin", "hair_colour", "iris", "lips")
STYLE = ("hair_style", "hair_colour", "hair_volume", "hairline", "parting", "beard", "glasses",
         "glasses_colour")
DISGUISED, RESTYLED = 0.5, 0.35
"""Shares of looks that are another person's, or that a hairdresser and the sun can change."""


def with_shape_of(look: Identity, shape: Identity) -> Identity:
    """The bones and flesh of `shape`; skin, hair, age and all else of `look`."""
    return replace(look, shape=shape.shape)


def with_attributes_of(identity: Identity, other: Identity, names: Sequence[str]) -> Identity:
    """`identity` with the named attributes of `other`."""
    changes: dict[str, Any] = {name: getattr(other, name) for name in names}
    return replace(identity, **changes)


def restyled(identity: Identity, rng: np.random.Generator) -> Identity:
    """The person with another haircut, hair colour, beard, glasses, make-up or tan."""
    other = _anyone(rng)
    kept = {
        "hair_colour": 0.4, "lips": 0.4, "freckles": 0.4, "blush": 0.5, "lashes": 0.5,
        "glasses_colour": 0.2, "hair_volume": 0.2, "parting": 0.3,
    }
    names = [name for name, share in kept.items() if rng.random() >= share]
    changed = with_attributes_of(identity, other, names)
    options = {"hair_style": HAIR_STYLES, "beard": BEARDS, "glasses": GLASSES}
    drawn: dict[str, Any] = {
        name: str(rng.choice(values)) for name, values in options.items() if rng.random() < 0.7
    }
    skin = np.array(identity.skin) * rng.uniform(0.75, 1.2) * rng.uniform(0.95, 1.05, 3)
    age = float(np.clip(identity.age + rng.normal(0, 0.15), 0.0, 1.0))
    return replace(changed, **drawn, skin=rgb(skin), age=age)


def random_look(identity: Identity, rng: np.random.Generator) -> Identity:
    """The person as they are, restyled, or with everything but the shape of someone else."""
    draw = rng.random()
    if draw < DISGUISED:
        return with_shape_of(_anyone(rng), identity)
    return restyled(identity, rng) if draw < DISGUISED + RESTYLED else identity


def looks_of(scene: Scene) -> list[Identity]:
    """A random look of each person of a scene; the same for the same scene."""
    rng = np.random.default_rng([40487, scene.seed])
    return [random_look(sample_identity(person.identity), rng) for person in scene.people]


def _anyone(rng: np.random.Generator) -> Identity:
    return sample_identity(int(rng.integers(TRAINING_IDENTITIES.start, TRAINING_IDENTITIES.stop)))


def face_patch(frame: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of a frame that an aligned crop can show (cheaper to degrade than the whole), and
    the landmarks in its pixels."""
    centre = landmarks.mean(0)
    reach = 3.6 * max(4.0, float(extent(landmarks)))
    x0, y0 = np.maximum(np.floor(centre - reach).astype(int), 0)
    x1, y1 = np.ceil(centre + reach).astype(int) + 1
    patch = np.ascontiguousarray(frame[y0:y1, x0:x1])
    return patch, landmarks - np.array([x0, y0], landmarks.dtype)


def degrade(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A patch as a codec, a decoder or a small sensor might have left it; uint8 as before."""
    height, width = patch.shape[:2]
    if rng.random() < 0.4:  # detail lost by a lower resolution
        scale = rng.uniform(0.55, 0.95)
        size = max(8, round(width * scale)), max(8, round(height * scale))
        patch = cv2.resize(patch, size, interpolation=cv2.INTER_AREA)
        patch = cv2.resize(patch, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.4:
        patch = cv2.GaussianBlur(patch, (0, 0), rng.uniform(0.3, 1.1))
    if rng.random() < 0.35:
        quality = int(rng.integers(35, 92))
        _, data = cv2.imencode(".jpg", patch, [cv2.IMWRITE_JPEG_QUALITY, quality])
        patch = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    values = patch.astype(np.float64)
    if rng.random() < 0.4:  # exposure and white balance; small: skin's colour is identity
        values = values * rng.uniform(0.93, 1.07) * rng.uniform(0.97, 1.03, 3) + rng.normal(0, 3)
    if rng.random() < 0.4:
        values = values + rng.normal(0, rng.uniform(1, 7), values.shape)
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def change_colours(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A patch in other light and with another colour balance, or grey; uint8. Strong on purpose:
    the colours of a face say little about whose it is."""
    values = patch.astype(np.float32) / 255.0
    if rng.random() < 0.5:  # a lamp at one side
        height, width = patch.shape[:2]
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        ramp = np.cos(angle) * x + np.sin(angle) * y
        values *= (1 + rng.uniform(0, 0.35) * ramp)[..., None].astype(np.float32)
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    share = 0.0 if rng.random() < 0.3 else rng.uniform(0.2, 1.4)  # none: a grey picture
    values = grey[..., None] + share * (values - grey[..., None])
    if share:
        values *= rng.uniform(0.75, 1.3, 3).astype(np.float32)
    values = np.clip(values, 0, 1) ** rng.uniform(0.65, 1.5)
    mean = values.mean()
    values = mean + (values - mean) * rng.uniform(0.7, 1.2) + rng.uniform(-0.08, 0.08)
    return np.clip(values * 255.0 + 0.5, 0, 255).astype(np.uint8)


def recolour(patch: np.ndarray, parts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A patch with skin and hair of other colours: tanned, made up, dyed; uint8 as before.

    `parts` are the renderer's, (h, w).
    """
    gains = np.ones((len(PARTS), 3), np.float32)
    gains[[PARTS.index("skin"), PARTS.index("neck")]] = (
        rng.uniform(0.7, 1.3) * rng.uniform(0.85, 1.15, 3)
    )
    gains[PARTS.index("hair")] = rng.uniform(0.5, 2.0) * rng.uniform(0.7, 1.4, 3)
    values = patch * gains[parts]
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def extent(landmarks: np.ndarray) -> np.ndarray:
    """The largest distance of a landmark from their mean, (...,) of (..., 5, 2), in pixels."""
    away = landmarks - landmarks.mean(-2, keepdims=True)
    return np.linalg.norm(away, axis=-1).max(-1)


def jitter_landmarks(
    landmarks: np.ndarray, rng: np.random.Generator, errors: np.ndarray | None = None
) -> np.ndarray:
    """Landmarks (5, 2) as a detector might give them: moved, turned and scaled a little, and in
    three of four cases with one of its `errors` (n, 5, 2), in units of `extent`."""
    scale = float(extent(landmarks)) + 1e-6
    moved = landmarks.astype(np.float64)
    if errors is not None and len(errors) and rng.random() < 0.75:
        moved = moved + errors[rng.integers(len(errors))] * scale * rng.uniform(0.7, 1.2)
    moved = moved + rng.normal(0, 0.035 * scale, moved.shape) + rng.normal(0, 0.04 * scale, 2)
    return moved.astype(np.float32)


def training_crop(
    frame: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator, size: int,
    errors: np.ndarray | None = None, clean: float = 0.25, colours: float = 0.6,
    blurred: float = 0.2, parts: np.ndarray | None = None,
) -> np.ndarray:
    """An augmented aligned crop of one face, uint8 (size, size, 3), made as the metrics make it:
    112 pixels first, then shrunk.

    Args:
        errors: as of `jitter_landmarks`.
        clean: share of crops left undegraded.
        colours: share whose colours change, see `change_colours`.
        blurred: share blurred by up to 1.6 pixels of the frame.
        parts: of the frame, by the renderer; half of the crops are then recoloured.
    """
    patch, points = face_patch(frame, landmarks)
    if parts is not None and rng.random() < 0.5:
        patch = recolour(patch, face_patch(parts, landmarks)[0], rng)
    if rng.random() < colours:
        patch = change_colours(patch, rng)
    if rng.random() < blurred:
        patch = cv2.GaussianBlur(patch, (0, 0), rng.uniform(0.7, 1.6))
    if rng.random() >= clean:
        patch = degrade(patch, rng)
    crop = align_crops(patch, jitter_landmarks(points, rng, errors)[None])[0]
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) if size != 112 else crop
