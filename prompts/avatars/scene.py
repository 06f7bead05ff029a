"""An avatar scene as plain data: people, what they do and wear, the place and the light.

The renderer (`render.py`) turns a `Scene` into frames and ground truth; the language
(`language.py`) turns it into an English prompt.

The truth of a prompt is a mapping with some of these keys. What it does not mention, the prompt
leaves open: `people` (left to right, each with some of `identity`, `expression`, `motion`,
`garment`), `background`, `background_seed` (of a background reference) and `light`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
PERSON_VALUES = {
    "expression": EXPRESSIONS, "motion": MOTIONS, "colour": GARMENT_COLOURS,
    "pattern": GARMENT_PATTERNS, "emblem": GARMENT_EMBLEMS,
}
"""Possible values of `Person.attributes`."""

EVALUATION_IDENTITIES = range(0, 1_000)
"""Identity seeds reserved for evaluation. No recipe may train on them."""
VALIDATION_IDENTITIES = range(1_000, 2_000)
"""Identity seeds for choosing and checking networks: neither in training nor in a suite."""
TRAINING_IDENTITIES = range(10_000, 1_000_000)

KEYS = frozenset({"people", "background", "background_seed", "light"})
PERSON_KEYS = frozenset({"identity", "expression", "motion", "garment"})


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
        for name, value in vars(self).items():
            _check(value, PERSON_VALUES[name], f"garment {name}")


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

    @property
    def attributes(self) -> dict[str, str]:
        """Expression, motion, and colour, pattern and emblem of the garment."""
        return {"expression": self.expression, "motion": self.motion, **vars(self.garment)}


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


def check_truth(truth: Mapping[str, Any]) -> None:
    """Raises ValueError where a truth has an unknown key or a value outside the vocabulary."""
    scene_of(truth, range(len(truth.get("people", ())) or 1))


def scene_of(truth: Mapping[str, Any], identities: Sequence[int], seed: int = 0) -> Scene:
    """A scene that fulfils the truth of a prompt or of a row of a split, with these identity seeds
    from left to right.

    `seed` draws the garments and the background that the truth leaves open; an open expression is
    neutral, an open motion still. Raises ValueError: an unknown key or value, or another number of
    people."""
    _check_keys(truth, KEYS)
    rng = np.random.default_rng(seed)
    stated = list(truth.get("people", ())) or [{}] * len(identities)
    if len(stated) != len(identities):
        raise ValueError(f"the truth describes {len(stated)} people, not {len(identities)}")
    people = []
    for identity, person in zip(identities, stated, strict=True):
        _check_keys(person, PERSON_KEYS)
        garment = {"colour": GARMENT_COLOURS[int(rng.integers(len(GARMENT_COLOURS)))]}
        people.append(Person(int(identity), person.get("expression", "neutral"),
                             person.get("motion", "still"),
                             Garment(**person.get("garment", garment))))
    drawn = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    return Scene(tuple(people), truth.get("background", drawn), truth.get("light", "soft"),
                 seed=seed)


def _check_keys(mapping: Mapping[str, Any], keys: frozenset[str]) -> None:
    unknown = sorted(set(mapping) - keys)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r} in a truth; known: {', '.join(sorted(keys))}")
