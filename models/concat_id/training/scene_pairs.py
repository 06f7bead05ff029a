"""Pairs of rendered scenes, by the rules of `idbench pairs build`: a scene is a video.

The scale of cosines is calibrated on the true identities, as `pairs build --calibrate` does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from idbench.errors import UserError
from idbench.models.concat_id.pairs.calibration import Identities, calibrate
from idbench.models.concat_id.pairs.curation import choose_outputs
from idbench.models.concat_id.pairs.people import People, person_key
from idbench.models.concat_id.pairs.settings import PairSettings
from idbench.models.concat_id.pairs.stages import OWN
from idbench.names import one_of
from idbench.output import note
from idbench.picture_hash import BYTES, PRINTS

Partners = dict[int, tuple[tuple[int, ...], ...]]
"""By scene, of each person in it, the references to use."""


@dataclass(frozen=True)
class Faces:
    """The people of one scene, P, with R references each.

    Attributes:
        name: of the scene, unlike all others.
        identities: (P,). references: of each person, the indices of the references.
        embeddings: (at least P, R, D); NaN where no face was found.
        boxes: (T, at least P, 4) of the heads, in shares of width and height.
    """

    name: str
    identities: tuple[int, ...]
    references: tuple[tuple[int, ...], ...]
    embeddings: np.ndarray | None = None
    boxes: np.ndarray | None = None


def choose(
    faces: Sequence[Faces], wanted: Mapping[Any, str], seed: int
) -> dict[str, Partners]:
    """The partners of every scene.

    Args:
        wanted: name of an output of `pairs` for each kind of scene; see `SceneRecipe.pairs`.

    Raises UserError: an unknown output, or too few known pairs to calibrate on.
    """
    people, identities = people_of(faces)
    known = Identities(identities, 0)
    settings, about = calibrate(people, known, PairSettings(seed=seed))
    for step in about["steps"]:
        note(step)
    outputs = {made.name: made for made in choose_outputs(people, settings)[0]}
    chosen: dict[str, Partners] = {}
    for kind, name in wanted.items():
        made = outputs[one_of("output of pairs", name, outputs)]
        found = chosen.setdefault(kind, {})
        for targets, partners in zip(made.targets, made.partners, strict=True):
            whom = np.where(partners == OWN, targets, partners)
            found[int(people.video[targets[0]])] = tuple(
                _usable(faces[people.video[i]], int(people.person[i])) for i in whom
            )
    return chosen


def people_of(faces: Sequence[Faces]) -> tuple[People, np.ndarray]:
    """Everybody in the scenes in which a face is found of each person, and their identities; as
    their video, the number of the scene."""
    rows = []
    for scene, held in enumerate(faces):
        everybody = range(len(held.identities))
        if all(_usable(held, person) for person in everybody):
            rows += [(scene, person) for person in everybody]
    if not rows:
        raise UserError(
            "No face was found in any reference; run `idbench train concat_id_latents` again."
        )
    shown = [(faces[scene], person) for scene, person in rows]
    group = np.array([len(held.identities) for held, _ in shown])
    nothing = np.full(len(rows), np.nan, np.float32)
    people = People(
        vectors=np.stack([_vector(*one) for one in shown]),
        video=np.array([scene for scene, _ in rows]),
        person=np.array([person for _, person in rows]),
        group=group,
        share=np.array([_share(*one) for one in shown]),
        keys=np.array([person_key(held.name, person) for held, person in shown], np.uint64),
        flow=nothing, motion=nothing, aesthetic=nothing, garment=group == 1, background=group == 1,
        prints=np.zeros((len(rows), PRINTS, BYTES), np.uint8),
    )
    return people, np.array([held.identities[person] for held, person in shown])


def _usable(faces: Faces, person: int) -> tuple[int, ...]:
    """The indices of a person's references in which a face was found."""
    assert faces.embeddings is not None
    seen = np.isfinite(faces.embeddings[person]).all(-1)
    return tuple(i for i, good in zip(faces.references[person], seen, strict=True) if good)


def _vector(faces: Faces, person: int) -> np.ndarray:
    """The mean embedding of a person in a scene, of length 1."""
    assert faces.embeddings is not None
    vectors = faces.embeddings[person].astype(np.float32)
    mean = vectors[np.isfinite(vectors).all(-1)].mean(0)
    return mean / np.linalg.norm(mean)


def _share(faces: Faces, person: int) -> float:
    """The mean share of the frame that a person's head fills."""
    if faces.boxes is None:
        return np.nan
    left, top, right, bottom = faces.boxes[:, person].T
    return float(np.nanmean((right - left) * (bottom - top)))
