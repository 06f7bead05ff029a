"""What the renderer leaves out must change nothing: early ends of its distance functions."""

from __future__ import annotations

import numpy as np
import pytest

from idbench.prompts.avatars.identity import HAIR_STYLES, sample_identity
from idbench.prompts.avatars.movement import expression_values, face_record
from idbench.prompts.avatars.scene import Garment, Person
from idbench.prompts.avatars.shape import beyond, ellipsoid, hair, settle, skin


def record(identity: int) -> np.void:
    person = Person(identity, "neutral", "still", Garment("red", "plain"))
    controls = expression_values("neutral", 0.5, 0.0, 1.0)
    face = face_record(sample_identity(identity), person, controls, (0.0, 0.0))
    settle(face[0])
    return face[0]


def test_hair_beyond_the_limit_is_never_told_nearer_than_the_limit():
    rng = np.random.default_rng(0)
    styles = set()
    for identity in range(80):
        p = record(identity)
        styles.add(int(p["style"]))
        for x, y, z in rng.uniform(-1.6, 1.6, (400, 3)):
            limit = skin(p, x, y, z)
            whole, quick = hair(p, x, y, z, 9.0), hair(p, x, y, z, limit)
            assert min(limit, quick) == pytest.approx(min(limit, whole), abs=1e-9), (x, y, z)
            assert (quick < limit) == (whole < limit)
    assert len(styles) == len(HAIR_STYLES), "every style was asked"


def test_an_ellipsoid_beyond_reach_is_further_than_that():
    rng = np.random.default_rng(1)
    left_out = 0
    for _ in range(20_000):
        radius = rng.uniform(0.05, 0.4)
        others = rng.uniform(0.6, 3.0, 2) * radius
        x, y, z = rng.uniform(-1.5, 1.5, 3)
        reach = rng.uniform(0.0, 0.5)
        if beyond(x, radius, reach):
            left_out += 1
            assert ellipsoid(x, y, z, radius, *others) > reach - 1e-4
    assert left_out > 1000
