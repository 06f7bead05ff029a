"""Avatars whose identity, pose or expression moves by a given amount."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from idbench.prompts.avatars.backgrounds import background_image
from idbench.prompts.avatars.compiled import render_frame
from idbench.prompts.avatars.identity import Identity
from idbench.prompts.avatars.movement import expression_values, face_record
from idbench.prompts.avatars.render import CAMERA_DISTANCE, PIVOT, rotation
from idbench.prompts.avatars.scene import Garment, Person

_LIGHT = np.array((-0.30, 0.55, 0.80))
_KEY, _AMBIENT = np.array((0.72, 0.71, 0.70)), np.array((0.42, 0.42, 0.44))


@dataclass(frozen=True)
class View:
    """How a head is shown.

    Attributes:
        yaw, pitch, roll: radians, as in `motion.Pose`.
        expression: of `scene.EXPRESSIONS`.
        strength: of the expression, 0 (none of it) to 1.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    expression: str = "neutral"
    strength: float = 1.0


def between(first: Identity, second: Identity, share: float, shape_only: bool = False) -> Identity:
    """The identity at `share` (0..1) of the way from `first` to `second`.

    Numbers (bones, flesh, colours, age, ...) are interpolated linearly; hair style, beard and
    glasses are those of the nearer end. With `shape_only` only bones and flesh change.
    """
    shape = MappingProxyType({
        name: (1 - share) * first.shape[name] + share * second.shape[name] for name in first.shape
    })
    if shape_only:
        return replace(first, shape=shape)
    changes: dict[str, Any] = {"shape": shape}
    for field in fields(Identity):
        start, end = getattr(first, field.name), getattr(second, field.name)
        if field.name in ("seed", "shape"):
            continue
        if isinstance(start, str):
            changes[field.name] = start if share < 0.5 else end
            continue
        value = (1 - share) * np.asarray(start, float) + share * np.asarray(end, float)
        changes[field.name] = float(value) if value.ndim == 0 else tuple(float(v) for v in value)
    return replace(first, **changes)


def render_head(
    identity: Identity, view: View, height: int = 96, background: str = "studio",
    garment: Garment | None = None, seed: int = 0,
) -> np.ndarray:
    """One frame of one person: uint8 RGB (height, 1.5 height, 3).

    The framing is that of `render_clip` for one person, without its small differences.
    """
    width = height * 3 // 2
    person = Person(identity.seed, view.expression, "still", garment or Garment("grey"))
    controls = expression_values(view.expression, 1.0, 0.0, view.strength)
    if view.strength == 0.0:
        controls = expression_values("neutral", 1.0, 0.0, 1.0)
    record = face_record(identity, person, controls)
    turn = rotation(view.yaw, view.pitch, view.roll)[None]
    camera = np.array([20.0 * height / 64 * CAMERA_DISTANCE, width / 2, 0.40 * height,
                       CAMERA_DISTANCE])
    backdrop = background_image(background, seed, 2 * height, 2 * width)
    colour, _, _ = render_frame(
        record, turn, np.zeros((1, 2)), PIVOT, camera, _LIGHT / np.linalg.norm(_LIGHT), _KEY,
        _AMBIENT, backdrop, height, width,
    )
    return np.clip(colour * 255.0 + 0.5, 0, 255).astype(np.uint8)
