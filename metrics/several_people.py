"""Scores of several people in one video: coverage, leakage, order and swaps.

Who is who. The one-to-one assignment gives each reference the face that suits it best, so a face
is nearer to its own reference than to another one even where a model ignores the references:
`own_minus_other` of random faces is above 0, the more the more faces there are to choose from.
`own_minus_other_by_order` looks at no embedding to say who is who: references are left to right by
definition, so the first face from the left stands for the first of them. Its mean over random
faces is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import numpy as np

from idbench.metrics.base import (
    Embeddings,
    Metric,
    each_frame,
    each_identity,
    make_score,
    several_people,
)
from idbench.metrics.faces.match import left_to_right, order_agrees, places, swap_rate
from idbench.metrics.rules import RULES
from idbench.types import Score


def face_coverage(embeddings: Embeddings) -> list[Score]:
    """Share of sampled frames in which the person was found: a row per identity, and the video."""

    def share(r: int) -> float:
        return float(np.mean([m.face_of_reference[r] is not None for m in embeddings.matches]))

    return each_identity(embeddings, "face_coverage", share)


def not_measured(embeddings: Embeddings) -> list[Score]:
    """1 for a person without a single measured face, whose 0.0 is no measurement, else 0; and the
    video's mean. No rows under a protocol that does not write 0.0 for what it could not measure."""
    if not RULES[embeddings.protocol.rule].fills_with_zero:
        return []

    def missing(r: int) -> float:
        faces = [(match, match.face_of_reference[r]) for match in embeddings.matches]
        return float(not any(
            face is not None and np.isfinite(match.similarity[face, r]) for match, face in faces))

    return each_identity(embeddings, "not_measured", missing)


def own_minus_other(embeddings: Embeddings) -> list[Score]:
    """Cosine to the own reference minus the best of the others, of each assigned face: -2..2; below
    0 the person leaks into the other."""

    def margin(k: int, r: int) -> float | str | None:
        match = embeddings.matches[k]
        face = match.face_of_reference[r]
        return match.reasons[r] if face is None else _margin(match.similarity[face], r, max)

    return each_frame(embeddings, "own_minus_other", margin, repeated=False)


def own_minus_other_by_order(embeddings: Embeddings) -> list[Score]:
    """Cosine to the own reference minus the mean of the others, faces told apart by their place.

    Of a frame's largest faces, as many as there are references, the first from the left stands for
    the first reference, and so on. The mean of the others, since the best of several is above one's
    own by chance. In -2..2; 0 is what a model without references reaches; below 0 people swap
    places or leak."""
    count = len(embeddings.sample.identities)
    standing = [places(faces.boxes, count) for faces in embeddings.faces]

    def margin(k: int, r: int) -> float | str | None:
        if embeddings.reference_reasons[r] is not None:
            return embeddings.reference_reasons[r]
        if not standing[k]:
            return "fewer faces than references"
        row = embeddings.matches[k].similarity[standing[k][r]]
        return _margin(row, r, lambda others: sum(others) / len(others))

    return each_frame(embeddings, "own_minus_other_by_order", margin,
                      "all people were found in no frame", repeated=False)


def _margin(cosines: np.ndarray, r: int, of_others: Callable[[list[float]], float]) -> float | str:
    """Of a face's cosines (references,): that to `r` minus `of_others` of the finite rest."""
    row = cosines.tolist()
    others = [value for i, value in enumerate(row) if i != r and isfinite(value)]
    return row[r] - of_others(others) if others else "no other reference has a face embedding"


def _orders(embeddings: Embeddings) -> list[tuple[int, ...]]:
    pairs = zip(embeddings.matches, embeddings.faces, strict=True)
    return [left_to_right(match, faces.boxes) for match, faces in pairs]


def order(embeddings: Embeddings) -> list[Score]:
    """1 when the people stand as their references are ordered in most frames (a tie is 0). A row
    per frame with at least two people found, and one of the video."""
    sample = embeddings.sample
    agree = [order_agrees(of_frame) for of_frame in _orders(embeddings)]
    rows = [
        make_score(sample, "order", None, frame,
                   "fewer than two people found in the frame" if agrees is None else agrees)
        for frame, agrees in zip(embeddings.frames, agree, strict=True)
    ]
    known = [agrees for agrees in agree if agrees is not None]
    value = float(np.mean(known) > 0.5) if known else "two people were found together in no frame"
    return [*rows, make_score(sample, "order", None, None, value)]


def swaps(embeddings: Embeddings) -> list[Score]:
    """Share of frames whose left-to-right order contradicts the video's most frequent one."""
    sample = embeddings.sample
    value = swap_rate(_orders(embeddings), len(sample.identities))
    found = "all people were found together in no frame" if value is None else value
    return [make_score(sample, "swap_rate", None, None, found)]


_SOURCE = "idbench; the matching of people to references is left open by the paper"
FACE_COVERAGE = Metric(
    "face_coverage", "Coverage", True, (0.0, 1.0),
    "share of sampled frames in which the person was found", _SOURCE, face_coverage,
    about="person",
)
NOT_MEASURED = Metric(
    "not_measured", "Not measured", False, (0.0, 1.0),
    "share of people without any face, for whom the protocol writes ArcSim and CurSim 0.0",
    _SOURCE, not_measured, computed="listed",
)
OWN_MINUS_OTHER = Metric(
    "own_minus_other", "Own - other (best match)", True, (-2.0, 2.0),
    "mean over frames of cos(face, own reference) - max cos(face, other reference)",
    _SOURCE, own_minus_other, applies_to=several_people, shown="long",
)
OWN_MINUS_OTHER_BY_ORDER = Metric(
    "own_minus_other_by_order", "Own - other", True, (-2.0, 2.0),
    "mean over frames of cos(face, own reference) - mean cos(face, other references), "
    "faces left to right",
    _SOURCE, own_minus_other_by_order, applies_to=several_people, about="person",
)
ORDER = Metric(
    "order", "Order", True, (0.0, 1.0),
    "1 if most frames show the people left to right as their references", _SOURCE, order,
    applies_to=several_people,
)
SWAP_RATE = Metric(
    "swap_rate", "Swaps", False, (0.0, 1.0),
    "share of frames whose order contradicts the most frequent one", _SOURCE, swaps,
    applies_to=several_people, shown="long",
)
