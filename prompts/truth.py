"""The machine-readable truth of a prompt, and the avatar scene that fulfils it.

A truth is a mapping with some of these keys; what it leaves out, the prompt leaves open:
`people` (left to right, each with some of `identity`, `expression`, `motion`, `garment`),
`background`, `background_seed` (of a background reference) and `light`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from idbench.prompts.avatars.scene import (
    BACKGROUNDS,
    EXPRESSIONS,
    GARMENT_COLOURS,
    LIGHTS,
    MOTIONS,
    Garment,
    Person,
    Scene,
)

KEYS = frozenset({"people", "background", "background_seed", "light"})
PERSON_KEYS = frozenset({"identity", "expression", "motion", "garment"})


def check_truth(truth: Mapping[str, Any]) -> None:
    """Raises ValueError where a truth has an unknown key or a value outside the vocabulary."""
    _only(truth, KEYS)
    if truth.get("background", BACKGROUNDS[0]) not in BACKGROUNDS:
        raise ValueError(f"unknown background {truth['background']!r}")
    if truth.get("light", LIGHTS[0]) not in LIGHTS:
        raise ValueError(f"unknown light {truth['light']!r}")
    for person in truth.get("people", ()):
        _only(person, PERSON_KEYS)
        if person.get("expression", EXPRESSIONS[0]) not in EXPRESSIONS:
            raise ValueError(f"unknown expression {person['expression']!r}")
        if person.get("motion", MOTIONS[0]) not in MOTIONS:
            raise ValueError(f"unknown motion {person['motion']!r}")
        if "garment" in person:
            Garment(**person["garment"])


def scene_of(truth: Mapping[str, Any], identities: Sequence[int], seed: int = 0) -> Scene:
    """A scene that fulfils a truth: what a perfect model could show.

    Args:
        truth: of a prompt or of a row of a split.
        identities: identity seeds of the people, left to right.
        seed: draws what the truth leaves open among garments and backgrounds; expression
            and motion that it leaves open are neutral and still.
    """
    check_truth(truth)
    rng = np.random.default_rng(seed)
    stated = list(truth.get("people", ())) or [{}] * len(identities)
    if len(stated) != len(identities):
        raise ValueError(f"the truth speaks of {len(stated)} people, not {len(identities)}")
    people = []
    for identity, person in zip(identities, stated, strict=True):
        drawn = GARMENT_COLOURS[int(rng.integers(len(GARMENT_COLOURS)))]
        garment = Garment(**person["garment"]) if "garment" in person else Garment(drawn)
        people.append(Person(int(identity), person.get("expression", "neutral"),
                             person.get("motion", "still"), garment))
    drawn = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    return Scene(tuple(people), truth.get("background", drawn), truth.get("light", "soft"),
                 seed=seed)


def _only(mapping: Mapping[str, Any], keys: frozenset[str]) -> None:
    unknown = sorted(set(mapping) - keys)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r} in a truth; known: {', '.join(sorted(keys))}")
