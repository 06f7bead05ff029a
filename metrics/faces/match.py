"""Which face of a frame stands for which reference, and who stands where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from idbench.metrics.base import cosine


@dataclass(frozen=True)
class FrameMatch:
    """The assignment of one frame.

    Attributes:
        face_of_reference: for each reference the index of its face, or None.
        reasons: for each reference why it has no face (None: it has one).
        similarity: float64 (faces, references) cosines that the assignment came from.
    """

    face_of_reference: tuple[int | None, ...]
    reasons: tuple[str | None, ...]
    similarity: np.ndarray


def cosines(faces: np.ndarray, references: Sequence[np.ndarray | None]) -> np.ndarray:
    """float64 (faces, references); NaN for a reference without an embedding."""
    found = np.full((len(faces), len(references)), np.nan)
    for r, reference in enumerate(references):
        if reference is not None and len(faces):
            found[:, r] = cosine(faces, reference)
    return found


def match_faces(faces: np.ndarray, references: Sequence[np.ndarray | None]) -> FrameMatch:
    """Optimal one-to-one assignment: the sum of cosines of assigned pairs is largest.

    Args:
        faces: embeddings (n, d) of one frame's faces; rows that are not finite are left out.
        references: an embedding (d,) each, or None for a reference without a face.
    """
    faces = np.asarray(faces)
    similarity = cosines(faces, references)
    usable = np.isfinite(similarity)
    rows, columns = np.flatnonzero(usable.any(1)), np.flatnonzero(usable.any(0))
    assigned: dict[int, int] = {}
    if len(rows) and len(columns):
        i, j = linear_sum_assignment(similarity[np.ix_(rows, columns)], maximize=True)
        assigned = {int(columns[b]): int(rows[a]) for a, b in zip(i, j, strict=True)}
    reasons: list[str | None] = []
    for r, reference in enumerate(references):
        if r in assigned:
            reasons.append(None)
        elif reference is None:
            reasons.append("the reference has no face embedding")
        elif not len(faces):
            reasons.append("no face in the frame")
        elif not len(rows):
            reasons.append("the embedding is not finite")
        else:
            reasons.append("fewer faces than references: another person's was the better match")
    return FrameMatch(
        tuple(assigned.get(r) for r in range(len(references))), tuple(reasons), similarity
    )


def match_largest(faces: np.ndarray, references: Sequence[np.ndarray | None]) -> FrameMatch:
    """The frame's largest face stands for every reference: for one person a video.

    Args:
        faces: embeddings (n, d), largest face first.
    """
    face = 0 if len(faces) else None
    reason = None if len(faces) else "no face in the frame"
    count = len(references)
    return FrameMatch((face,) * count, (reason,) * count, cosines(faces, references))


def places(boxes: np.ndarray, references: int) -> tuple[int, ...]:
    """The `references` largest faces from left to right; empty where there are fewer.

    Looks at no embedding, so whom a face resembles cannot move it.

    Args:
        boxes: (n, 4), largest face first.
    """
    if len(boxes) < references:
        return ()
    centres = boxes[:references, 0] + boxes[:references, 2]
    return tuple(int(i) for i in np.argsort(centres, kind="stable"))


def match_left_to_right(
    faces: np.ndarray, references: Sequence[np.ndarray | None], boxes: np.ndarray
) -> FrameMatch:
    """The faces of `places` stand for the references in their order, which is left to right.

    Args:
        faces: embeddings (n, d); (n, 0) where no recogniser was read.
    """
    order = places(boxes, len(references))
    if order:
        return FrameMatch(order, (None,) * len(order), cosines(faces, references))
    reason = "fewer faces than references" if len(boxes) else "no face in the frame"
    count = len(references)
    return FrameMatch((None,) * count, (reason,) * count, cosines(faces, references))


Matching = Callable[[np.ndarray, Sequence[np.ndarray | None], np.ndarray], FrameMatch]
"""From a frame's embeddings (n, d), the references' and the boxes (n, 4) to an assignment."""

MATCHINGS: dict[str, Matching] = {
    "one-to-one": lambda faces, references, boxes: match_faces(faces, references),
    "largest": lambda faces, references, boxes: match_largest(faces, references),
    "largest-else-one-to-one": lambda faces, references, boxes: (
        match_largest if len(references) == 1 else match_faces
    )(faces, references),
    "left-to-right": match_left_to_right,
}


def left_to_right(match: FrameMatch, boxes: np.ndarray) -> tuple[int, ...]:
    """The matched references of a frame, by the centre of their face's box from left to right."""
    found = [(r, face) for r, face in enumerate(match.face_of_reference) if face is not None]
    return tuple(r for r, f in sorted(found, key=lambda p: boxes[p[1], 0] + boxes[p[1], 2]))


def order_agrees(order: tuple[int, ...]) -> bool | None:
    """Whether references stand in their own order; None for fewer than two of them."""
    if len(order) < 2:
        return None
    return all(a < b for a, b in zip(order, order[1:], strict=False))


def swap_rate(orders: Sequence[tuple[int, ...]], references: int) -> float | None:
    """Share of frames whose order contradicts the video's most frequent one, 0..1.

    Only frames in which every reference was found count; None when there is no such frame or
    just one reference.
    """
    whole = [order for order in orders if len(order) == references]
    if references < 2 or not whole:
        return None
    # Of equally frequent orders the earliest seen is the majority (Counter keeps that order).
    majority = Counter(whole).most_common(1)[0][0]
    return sum(order != majority for order in whole) / len(whole)
