"""Scores of several people in one video: coverage, leakage, order and swaps.

Who is who. The one-to-one assignment gives each reference the face that suits it best, so a face
is nearer to its own reference than to another one even where a model ignores the references:
`own_minus_other` of random faces is above 0, the more the more faces there are to choose from.
`own_minus_other_by_order` looks at no embedding to say who is who: references are left to right by
definition, so the first face from the left stands for the first of them. Its mean over random
faces is 0.
"""

from __future__ import annotations

from math import isfinite

import numpy as np

from idbench.metrics.base import (
    Embeddings,
    Metric,
    make_score,
    over_identities,
    several_people,
    summarise,
)
from idbench.metrics.faces.match import left_to_right, order_agrees, places, swap_rate
from idbench.metrics.rules import RULES
from idbench.types import Score


def face_coverage(embeddings: Embeddings) -> list[Score]:
    """Share of sampled frames in which the person was found: a row an identity, and the video."""
    sample, rows = embeddings.sample, []
    for r, name in enumerate(sample.identities):
        reason = embeddings.reference_reasons[r] or embeddings.left_out
        if reason is not None:
            rows.append(make_score(sample, "face_coverage", name, None, None, reason))
            continue
        found = [match.face_of_reference[r] is not None for match in embeddings.matches]
        rows.append(make_score(sample, "face_coverage", name, None, float(np.mean(found))))
    return [*rows, over_identities(sample, "face_coverage", rows)]


def not_measured(embeddings: Embeddings) -> list[Score]:
    """1 for a person without a single measured face, whose 0.0 is no measurement; else 0.

    A row an identity, and the video's mean over them. No rows under a protocol whose rule does
    not write 0.0 for what it could not measure.
    """
    sample, rows = embeddings.sample, []
    if not RULES[embeddings.protocol.rule].fills_with_zero:
        return []
    for r, name in enumerate(sample.identities):
        reason = embeddings.reference_reasons[r] or embeddings.left_out
        faces = [(match, match.face_of_reference[r]) for match in embeddings.matches]
        found = any(f is not None and np.isfinite(m.similarity[f, r]) for m, f in faces)
        value = None if reason else float(not found)
        rows.append(make_score(sample, "not_measured", name, None, value, reason))
    return [*rows, over_identities(sample, "not_measured", rows)]


def own_minus_other(embeddings: Embeddings) -> list[Score]:
    """Cosine to the own reference minus the best of the others, of each assigned face.

    In -2..2; below 0 the person leaks into the other.
    """
    sample, rows, means = embeddings.sample, [], []
    for r, name in enumerate(sample.identities):
        frame_rows = []
        for frame, match in zip(embeddings.frames, embeddings.matches, strict=True):
            face, value, reason = match.face_of_reference[r], None, match.reasons[r]
            if face is not None:
                own, others = _own_and_others(match.similarity[face], r)
                if others:
                    value = own - max(others)
                else:
                    reason = "no other reference has a face embedding"
            frame_rows.append(make_score(sample, "own_minus_other", name, frame, value, reason))
        means.append(
            summarise(
                sample, "own_minus_other", name, frame_rows, "the person was found in no frame"
            )
        )
        rows += frame_rows
    return [*rows, *means, over_identities(sample, "own_minus_other", means)]


def own_minus_other_by_order(embeddings: Embeddings) -> list[Score]:
    """Cosine to the own reference minus the mean of the others, faces told apart by their place.

    Of as many of a frame's largest faces as there are references, the first from the left stands
    for the first reference, and so on. The mean of the others, not the best of them: the best of
    several is above one's own by chance alone. In -2..2; 0 is what a model without references
    reaches, below 0 the people stand in each other's places or leak.
    """
    metric = "own_minus_other_by_order"
    sample, rows, means = embeddings.sample, [], []
    standing = [places(faces.boxes, len(sample.identities)) for faces in embeddings.faces]
    for r, name in enumerate(sample.identities):
        frame_rows = []
        for frame, match, order in zip(
            embeddings.frames, embeddings.matches, standing, strict=True
        ):
            value, reason = None, embeddings.reference_reasons[r]
            if reason is None and not order:
                reason = "fewer faces than references"
            elif reason is None:
                own, others = _own_and_others(match.similarity[order[r]], r)
                if others:
                    value = own - sum(others) / len(others)
                else:
                    reason = "no other reference has a face embedding"
            frame_rows.append(make_score(sample, metric, name, frame, value, reason))
        means.append(
            summarise(sample, metric, name, frame_rows, "all people were found in no frame")
        )
        rows += frame_rows
    return [*rows, *means, over_identities(sample, metric, means)]


def _own_and_others(cosines: np.ndarray, r: int) -> tuple[float, list[float]]:
    """Of a face's cosines (references,) that to reference `r`, and the finite ones to others."""
    row = cosines.tolist()
    return row[r], [value for i, value in enumerate(row) if i != r and isfinite(value)]


def _orders(embeddings: Embeddings) -> list[tuple[int, ...]]:
    pairs = zip(embeddings.matches, embeddings.faces, strict=True)
    return [left_to_right(match, faces.boxes) for match, faces in pairs]


def order(embeddings: Embeddings) -> list[Score]:
    """1 when the people stand as their references are ordered in most frames, else 0.

    A row a frame with at least two people found, and one of the video (a tie of frames is 0).
    """
    sample = embeddings.sample
    rows = []
    for frame, of_frame in zip(embeddings.frames, _orders(embeddings), strict=True):
        agrees = order_agrees(of_frame)
        if agrees is None:
            reason = "fewer than two people found in the frame"
            rows.append(make_score(sample, "order", None, frame, None, reason))
        else:
            rows.append(make_score(sample, "order", None, frame, float(agrees)))
    values = [row.value for row in rows if row.value is not None]
    if not values:
        reason = "two people were found together in no frame"
        return [*rows, make_score(sample, "order", None, None, None, reason)]
    return [*rows, make_score(sample, "order", None, None, float(np.mean(values) > 0.5))]


def swaps(embeddings: Embeddings) -> list[Score]:
    """Share of frames whose left-to-right order contradicts the video's most frequent one."""
    sample = embeddings.sample
    value = swap_rate(_orders(embeddings), len(sample.identities))
    reason = None if value is not None else "all people were found together in no frame"
    return [make_score(sample, "swap_rate", None, None, value, reason)]


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
