"""What the renderer leaves out must change nothing: early ends of its distance functions."""

from __future__ import annotations

import numpy as np
from numba import njit

from idbench.prompts.avatars.identity import HAIR_STYLES, sample_identity
from idbench.prompts.avatars.movement import expression_values, face_record
from idbench.prompts.avatars.scene import Garment
from idbench.prompts.avatars.shape import beyond, ellipsoid, hair, settle, skin


def record(identity: int) -> np.void:
    controls = expression_values("neutral", 0.5, 0.0, 1.0)
    face = face_record(sample_identity(identity), Garment("red", "plain"), controls)
    settle(face[0])
    return face[0]


@njit
def _distances(p, points):
    """To the skin, and to the hair without and with the skin as the limit: float64 (3, points)."""
    found = np.empty((3, len(points)))
    for i, (x, y, z) in enumerate(points):
        found[0, i] = skin(p, x, y, z)
        found[1, i], found[2, i] = hair(p, x, y, z, 9.0), hair(p, x, y, z, found[0, i])
    return found


def test_hair_beyond_the_limit_is_never_told_nearer_than_the_limit():
    rng = np.random.default_rng(0)
    styles = set()
    for identity in range(80):
        p = record(identity)
        styles.add(int(p["style"]))
        points = rng.uniform(-1.6, 1.6, (400, 3))
        limit, whole, quick = _distances(p, points)
        np.testing.assert_allclose(np.minimum(limit, quick), np.minimum(limit, whole), 0, 1e-9)
        assert ((quick < limit) == (whole < limit)).all()
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
