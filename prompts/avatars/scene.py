"""An avatar scene as plain data: people, what they do and wear, the place and the light.

The renderer (`render.py`) turns a `Scene` into frames and ground truth; the language
(`language.py`) turns it into an English prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EXPRESSIONS = (
    "neutral", "smile", "laugh", "surprise", "sadness", "anger", "eyes closed", "speaking",
)
MOTIONS = ("still", "turn left", "turn right", "nod", "shake", "tilt")
"""Head motions. Left and right are the viewer's, as in the image."""

GARMENT_COLOURS = (
    "white", "black", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink",
)
GARMENT_PATTERNS = ("plain", "striped", "checked", "dotted")
GARMENT_EMBLEMS = ("none", "star", "heart", "circle")
BACKGROUNDS = (
    "studio", "park", "beach", "city", "library", "kitchen", "mountains", "night sky", "snow",
)
LIGHTS = ("soft", "left", "right", "warm")

EVALUATION_IDENTITIES = range(0, 1_000)
"""Identity seeds reserved for evaluation. No recipe may train on them."""
VALIDATION_IDENTITIES = range(1_000, 2_000)
"""Identity seeds for choosing and checking networks: neither in training nor in a suite."""
TRAINING_IDENTITIES = range(10_000, 1_000_000)


def _check(value: str, allowed: tuple[str, ...], what: str) -> None:
    if value not in allowed:
        raise ValueError(f"unknown {what} {value!r}; known: {', '.join(allowed)}")


@dataclass(frozen=True)
class Garment:
    """A garment of the upper body."""

    colour: str = "blue"
    pattern: str = "plain"
    emblem: str = "none"

    def __post_init__(self) -> None:
        _check(self.colour, GARMENT_COLOURS, "garment colour")
        _check(self.pattern, GARMENT_PATTERNS, "garment pattern")
        _check(self.emblem, GARMENT_EMBLEMS, "garment emblem")


@dataclass(frozen=True)
class Person:
    """One person of a scene. `identity` is the seed of `sample_identity`."""

    identity: int
    expression: str = "neutral"
    motion: str = "still"
    garment: Garment = Garment()

    def __post_init__(self) -> None:
        _check(self.expression, EXPRESSIONS, "expression")
        _check(self.motion, MOTIONS, "motion")


@dataclass(frozen=True)
class Scene:
    """One to three people, left to right, before a background. `seed` fixes the rest: small
    differences of pose, framing, timing and light."""

    people: tuple[Person, ...]
    background: str = "studio"
    light: str = "soft"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.people) <= 3:
            raise ValueError(f"a scene has one to three people, not {len(self.people)}")
        _check(self.background, BACKGROUNDS, "background")
        _check(self.light, LIGHTS, "light")

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Scene:
        """The scene that `dataclasses.asdict` was called on."""
        people = (Person(**{**p, "garment": Garment(**p["garment"])}) for p in value["people"])
        return cls(**{**value, "people": tuple(people)})
