"""One picture or one person under two names: no pair of two people, and two clusters of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from idbench.metrics.base import cosine
from idbench.picture_hash import NEAR, differing_bits

SAME_PERSON = 0.6
"""Two people whose faces have at least this ArcFace cosine may be one (ours)."""
COPY = 0.9
"""Pictures are copies if they look alike and their faces have at least this cosine: portraits of
two people before one background look alike too (ours)."""


@dataclass(frozen=True)
class Alike:
    """Two names of a suite, the cosine of their faces, and whether their pictures are copies."""

    first: str
    second: str
    cosine: float
    copy: bool

    def __str__(self) -> str:
        if self.copy:
            return f"{self.first} and {self.second} have the same picture"
        return f"{self.first} and {self.second} may be one person (cosine {self.cosine:.2f})"


def find_alike(
    names: Sequence[str], vectors: Sequence[np.ndarray | None], hashes: Sequence[np.ndarray]
) -> list[Alike]:
    """Every two of n names that are alike, in order; by vectors (d,) of the faces (None: no face)
    and hashes of the pictures."""
    found = []
    known = [i for i, vector in enumerate(vectors) if vector is not None]
    faces = [np.asarray(vectors[i], np.float64) for i in known]
    for place, i in enumerate(known[:-1]):
        cosines = cosine(np.stack(faces[place + 1:]), faces[place])
        for j, value in zip(known[place + 1:], cosines.tolist(), strict=True):
            if value >= SAME_PERSON:
                near = int(differing_bits(hashes[i], hashes[j])) <= NEAR
                found.append(Alike(names[i], names[j], value, near and value >= COPY))
    return found
