"""Random avatar scenes, and scenes in which one thing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from idbench.prompts.avatars.scene import (
    BACKGROUNDS,
    EXPRESSIONS,
    GARMENT_COLOURS,
    GARMENT_EMBLEMS,
    GARMENT_PATTERNS,
    LIGHTS,
    MOTIONS,
    TRAINING_IDENTITIES,
    Garment,
    Person,
    Scene,
)
from idbench.prompts.phrases import pick

_TOGETHER: tuple[tuple[str, str, str], ...] = (
    ("motion", "turn right", "turn left"), ("motion", "turn left", "turn right"),
    ("expression", "speaking", "speaking"), ("expression", "laugh", "laugh"),
    ("expression", "smile", "smile"), ("motion", "nod", "nod"),
)
"""What people do together: the attribute, its value for the first and for the others."""
EDITS = {"expression": EXPRESSIONS, "motion": MOTIONS, "garment": GARMENT_COLOURS,
         "background": BACKGROUNDS}
"""What can be changed of a scene of one person, with the possible values."""


def random_garment(rng: np.random.Generator) -> Garment:
    """A garment of any colour, often without pattern and emblem."""
    pattern = "plain" if rng.random() < 0.4 else pick(rng, GARMENT_PATTERNS[1:])
    emblem = "none" if rng.random() < 0.6 else pick(rng, GARMENT_EMBLEMS[1:])
    return Garment(pick(rng, GARMENT_COLOURS), pattern, emblem)


def random_scene(
    rng: np.random.Generator, people: int = 1, identities: Sequence[int] = TRAINING_IDENTITIES,
    together: float = 0.25,
) -> Scene:
    """A scene of uniformly drawn attributes with 1 to 3 `people`, of different `identities`.
    `together`: with several people, the probability that they do one thing together."""
    chosen: list[int] = []
    while len(chosen) < people:
        seed = int(identities[int(rng.integers(len(identities)))])
        if seed not in chosen:
            chosen.append(seed)
    rows = [{"expression": pick(rng, EXPRESSIONS), "motion": pick(rng, MOTIONS)} for _ in chosen]
    if people > 1 and rng.random() < together:
        # The first two kinds need exactly two people: they turn to or from each other.
        options = _TOGETHER if people == 2 else _TOGETHER[2:]
        attribute, first, others = options[int(rng.integers(len(options)))]
        for index, row in enumerate(rows):
            row[attribute] = others if index else first
    persons = tuple(
        Person(seed, row["expression"], row["motion"], random_garment(rng))
        for seed, row in zip(chosen, rows, strict=True)
    )
    return Scene(persons, pick(rng, BACKGROUNDS), pick(rng, LIGHTS), seed=int(rng.integers(2**31)))


def value_of(scene: Scene, attribute: str) -> str:
    """The value of one of `EDITS`: of the one person, or of the scene."""
    if attribute == "background":
        return scene.background
    (person,) = scene.people
    return person.attributes["colour" if attribute == "garment" else attribute]


def with_value(scene: Scene, attribute: str, value: str) -> Scene:
    """`scene` with another value of one of `EDITS`."""
    if attribute == "background":
        return replace(scene, background=value)
    (person,) = scene.people
    changed: dict[str, Any] = {attribute: value}
    if attribute == "garment":
        changed = {"garment": replace(person.garment, colour=value)}
    return replace(scene, people=(replace(person, **changed),))


def edited(scene: Scene, attribute: str, rng: np.random.Generator) -> Scene:
    """`scene` with another value of one of `EDITS`, drawn by `rng`."""
    others = [value for value in EDITS[attribute] if value != value_of(scene, attribute)]
    return with_value(scene, attribute, str(rng.choice(others)))
