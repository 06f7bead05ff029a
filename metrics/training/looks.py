"""Other looks of a person: what changes between two photographs while bones and flesh stay.

A recogniser that sees each person in one look only learns colours and hair instead of faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from idbench.prompts.avatars.identity import (
    BEARDS,
    GLASSES,
    HAIR_STYLES,
    Identity,
    rgb,
    sample_identity,
)
from idbench.prompts.avatars.scene import TRAINING_IDENTITIES, Scene

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


COLOURS = ("skin", "hair_colour", "iris", "lips")
STYLE = ("hair_style", "hair_colour", "hair_volume", "hairline", "parting", "beard", "glasses",
         "glasses_colour")


def _anyone(rng: np.random.Generator) -> Identity:
    return sample_identity(int(rng.integers(TRAINING_IDENTITIES.start, TRAINING_IDENTITIES.stop)))
