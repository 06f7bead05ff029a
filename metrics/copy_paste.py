"""Copy-paste: how much of the similarity to the reference is that picture's and not the person's.

Formula: per person, ArcSim to the reference minus ArcSim to another picture of the same person,
with another pose, expression, garment and background. A model that shows the person is as near to
both, and has about 0; one that pastes the reference's pose and expression has more. The recogniser
itself prefers like poses, so compare models by it, or with `avatars_truth`.

The other pictures: further photographs of the person (`a.png|b.png`), or, of avatars, a render of
the same identity. Other samples have no such picture, and no value.

Source: the question of MultiID-Bench (WithAnyone, arXiv 2510.14975), in the simpler form of a
difference of cosines.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from idbench.metrics.base import NEVER_FOUND, Embeddings, Metric, each_identity
from idbench.metrics.faces.crops import align_crops
from idbench.metrics.identity_similarity import similarity
from idbench.metrics.pose_bins import of_avatars
from idbench.prompts.avatars.scene import Garment, Person, Scene
from idbench.types import Sample, Score

NAME = "copy_paste"
NETWORK = "arcface"
SIZE = 192
"""Height and width of the other picture of an avatar."""


def has_other_pictures(sample: Sample) -> bool:
    """Whether there is another picture of every person."""
    people = sample.people
    return bool(people) and (of_avatars(sample) or all(r.more for r in people))


def scores(embeddings: Embeddings) -> list[Score]:
    """A row a person, and one of the video."""
    people = embeddings.sample.people

    def of_person(person: int) -> float | str:
        first = embeddings.reference_vectors[NETWORK][person]
        if first is None:
            return "the reference has no embedding"
        if people[person].more:
            first, other = _photographs(embeddings, person)
        else:
            other = _avatar(embeddings.network(NETWORK), people[person].name)
        if first is None or other is None:
            return "no face was found in the person's other pictures"
        return _difference(embeddings, person, first, other)

    return each_identity(embeddings, NAME, of_person)


def _difference(
    embeddings: Embeddings, person: int, first: np.ndarray, other: np.ndarray
) -> float | str:
    """The mean over the frames with the person; or that there is none."""
    differences = []
    for vectors, match in zip(embeddings.face_vectors[NETWORK], embeddings.matches, strict=True):
        face = match.face_of_reference[person]
        if face is not None:
            near, far = (float(similarity(vectors[face][None], v)[0]) for v in (first, other))
            differences.append(near - far)
    if not differences:
        return NEVER_FOUND
    return float(np.mean([value for value in differences if np.isfinite(value)] or np.nan))


def _photographs(
    embeddings: Embeddings, person: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The embedding of the first photograph, and the mean of the others."""
    apart = embeddings.photograph_vectors[person]
    others = [v / np.linalg.norm(v) for v in apart[1:] if v is not None]
    return apart[0], np.mean(others, axis=0) if others else None


def _avatar(network: Any, name: str) -> np.ndarray:
    """The embedding of an avatar's other picture, aligned by the true landmarks."""
    image, landmarks = _other_picture(int(name[1:]))
    vector: np.ndarray = network.embed(align_crops(image, landmarks[None]))[0]
    return vector


@lru_cache(maxsize=256)
def _other_picture(identity: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 RGB (SIZE, SIZE, 3) and the face's landmarks (5, 2): turned and laughing in a park."""
    from idbench.prompts.avatars.render import render_clip

    who = Person(identity, "laugh", "turn left", Garment("red", "striped"))
    clip = render_clip(Scene((who,), "park", seed=identity), 9, SIZE, SIZE)
    return clip.frames[-1], clip.landmarks[-1, 0]


METRIC = Metric(
    name=NAME, title="Copy-paste", higher_is_better=False, range=(-2.0, 2.0),
    formula="mean over frames of cos(f(face), f(reference)) - cos(f(face), f(another picture))",
    source="the question of MultiID-Bench (WithAnyone, arXiv 2510.14975), as a difference",
    scores=scores, runs=(NETWORK,), computed="named", applies_to=has_other_pictures, about="person",
)
