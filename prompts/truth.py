"""The machine-readable truth of a prompt, and the avatar scene that fulfils it.

A truth is a mapping with some of these keys. What it does not mention, the prompt leaves open:
`people` (left to right, each with some of `identity`, `expression`, `motion`, `garment`),
`background`, `background_seed` (of a background reference) and `light`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from idbench.prompts.avatars.scene import BACKGROUNDS, GARMENT_COLOURS, Garment, Person, Scene

KEYS = frozenset({"people", "background", "background_seed", "light"})
PERSON_KEYS = frozenset({"identity", "expression", "motion", "garment"})


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
