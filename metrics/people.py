"""Scores of several people in one video: coverage, leakage, order and swaps."""

from __future__ import annotations

import numpy as np

from idbench.metrics.base import Embeddings, Metric, make_score, over_identities, summarise
from idbench.metrics.faces.match import left_to_right, order_agrees, swap_rate
from idbench.types import Score


def face_coverage(embeddings: Embeddings) -> list[Score]:
    """Share of sampled frames in which the person was found: a row an identity, and the video."""
    sample, rows = embeddings.sample, []
    for r, name in enumerate(sample.identities):
        if embeddings.reference_reasons[r] is not None:
            reason = embeddings.reference_reasons[r]
            rows.append(make_score(sample, "face_coverage", name, None, None, reason))
            continue
        found = [match.face_of_reference[r] is not None for match in embeddings.matches]
        rows.append(make_score(sample, "face_coverage", name, None, float(np.mean(found))))
    return [*rows, over_identities(sample, "face_coverage", rows)]


def own_minus_other(embeddings: Embeddings) -> list[Score]:
    """Cosine to the own reference minus the best of the others, of each assigned face.

    No rows for a sample with one reference. In -2..2; below 0 the person leaks into the other.
    """
    sample, rows, means = embeddings.sample, [], []
    if len(sample.identities) < 2:
        return []
    for r, name in enumerate(sample.identities):
        frame_rows = []
        for frame, match in zip(embeddings.frames, embeddings.matches, strict=True):
            face, value, reason = match.face_of_reference[r], None, match.reasons[r]
            if face is not None:
                others = np.delete(match.similarity[face], r)
                others = others[np.isfinite(others)]
                if len(others):
                    value = float(match.similarity[face, r] - others.max())
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


def _orders(embeddings: Embeddings) -> list[tuple[int, ...]]:
    pairs = zip(embeddings.matches, embeddings.faces, strict=True)
    return [left_to_right(match, faces.boxes) for match, faces in pairs]


def order(embeddings: Embeddings) -> list[Score]:
    """1 when the people stand as their references are ordered in most frames, else 0.

    A row a frame with at least two people found, and one of the video (a tie of frames is 0).
    No rows for a sample with one reference.
    """
    sample = embeddings.sample
    if len(sample.identities) < 2:
        return []
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
    if len(sample.identities) < 2:
        return []
    value = swap_rate(_orders(embeddings), len(sample.identities))
    reason = None if value is not None else "all people were found together in no frame"
    return [make_score(sample, "swap_rate", None, None, value, reason)]


_SOURCE = "idbench; the matching of people to references is left open by the paper"
FACE_COVERAGE = Metric(
    "face_coverage", "Coverage", True, (0.0, 1.0),
    "share of sampled frames in which the person was found", _SOURCE, face_coverage,
)
OWN_MINUS_OTHER = Metric(
    "own_minus_other", "Own - other", True, (-2.0, 2.0),
    "mean over frames of cos(face, own reference) - max cos(face, other reference)",
    _SOURCE, own_minus_other,
)
ORDER = Metric(
    "order", "Order", True, (0.0, 1.0),
    "1 if most frames show the people left to right as their references", _SOURCE, order,
)
SWAP_RATE = Metric(
    "swap_rate", "Swaps", False, (0.0, 1.0),
    "share of frames whose order contradicts the most frequent one", _SOURCE, swaps,
)
