"""Which face of a frame stands for which reference, and who stands where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idbench.metrics.base import cosine

if TYPE_CHECKING:
    from idbench.metrics.faces.detect import Faces


@dataclass(frozen=True)
class FrameMatch:
    """The assignment of one frame: for each reference the index of its face or None, and why; and
    the cosines (faces, references), float64, that it came from."""

    face_of_reference: tuple[int | None, ...]
    reasons: tuple[str | None, ...]
    similarity: np.ndarray


Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From embeddings (n, d) and a reference's (d,) to similarities (n,)."""


def cosines(
    faces: np.ndarray, references: Sequence[np.ndarray | None], similarity: Similarity = cosine
) -> np.ndarray:
    """float64 (faces, references), of another `similarity` if one is given; NaN for a reference
    without an embedding."""
    found = np.full((len(faces), len(references)), np.nan)
    for r, reference in enumerate(references):
        if reference is not None and len(faces):
            found[:, r] = similarity(faces, reference)
    return found


def match_faces(faces: np.ndarray, references: Sequence[np.ndarray | None]) -> FrameMatch:
    """As `one_to_one`, from embeddings: faces (n, d) of one frame (rows that are not finite are
    left out), and one (d,) for each reference, or None."""
    known = [reference is not None for reference in references]
    return one_to_one(cosines(np.asarray(faces), references), known)


def one_to_one(similarity: np.ndarray, known: Sequence[bool]) -> FrameMatch:
    """The one-to-one assignment with the largest sum of cosines (faces, references) of one frame; a
    face without any is left out. `known`: whether each reference has an embedding."""
    usable = np.isfinite(similarity)
    rows, columns = np.flatnonzero(usable.any(1)), np.flatnonzero(usable.any(0))
    assigned: dict[int, int] = {}
    if len(rows) and len(columns):
        whole = len(rows), len(columns)
        part = similarity if whole == similarity.shape else similarity[np.ix_(rows, columns)]
        i, j = _assign(part)
        assigned = {int(columns[b]): int(rows[a]) for a, b in zip(i, j, strict=True)}
    reasons: list[str | None] = []
    for r, has_one in enumerate(known):
        if r in assigned:
            reasons.append(None)
        elif not has_one:
            reasons.append("the reference has no face embedding")
        elif not len(similarity):
            reasons.append("no face in the frame")
        elif not len(rows):
            reasons.append("the embedding is not finite")
        else:
            reasons.append("fewer faces than references: another person's was the better match")
    return FrameMatch(tuple(assigned.get(r) for r in range(len(known))), tuple(reasons), similarity)


def _assign(similarity: np.ndarray) -> tuple[Sequence[int], Sequence[int]]:
    """Rows and columns of the one-to-one assignment whose sum is largest, of a finite (n, m)."""
    best = similarity.argmax(0).tolist()
    if len(set(best)) == len(best):  # each column has its largest, so no sum is larger
        return best, range(len(best))
    from scipy.optimize import linear_sum_assignment  # takes half a second to import

    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return rows.tolist(), columns.tolist()


def largest(similarity: np.ndarray) -> FrameMatch:
    """The first, largest face of cosines (faces, references) stands for every reference: for videos
    of one person."""
    count, references = similarity.shape
    face, reason = (0, None) if count else (None, "no face in the frame")
    return FrameMatch((face,) * references, (reason,) * references, similarity)


def places(boxes: np.ndarray, references: int) -> tuple[int, ...]:
    """The `references` largest faces of boxes (n, 4), largest first, from left to right; empty if
    there are fewer. Looks at no embedding, so resemblance cannot move a face."""
    if len(boxes) < references:
        return ()
    centres = [x0 + x1 for x0, _, x1, _ in boxes[:references].tolist()]
    return tuple(sorted(range(references), key=centres.__getitem__))


def by_place(similarity: np.ndarray, boxes: np.ndarray) -> FrameMatch:
    """The faces of `places` stand for the references, which are left to right. `similarity`:
    (faces, references), NaN where no recogniser was read."""
    count = similarity.shape[1]
    order = places(boxes, count)
    if order:
        return FrameMatch(order, (None,) * count, similarity)
    reason = "fewer faces than references" if len(boxes) else "no face in the frame"
    return FrameMatch((None,) * count, (reason,) * count, similarity)


Matching = Callable[[np.ndarray, Sequence[bool], np.ndarray], FrameMatch]
"""From a frame's cosines (faces, references), whether each reference has an embedding, and the
boxes (faces, 4) to an assignment."""

MATCHINGS: dict[str, Matching] = {
    "one-to-one": lambda similarity, known, boxes: one_to_one(similarity, known),
    "largest": lambda similarity, known, boxes: largest(similarity),
    "largest-else-one-to-one": lambda similarity, known, boxes: (
        largest(similarity) if len(known) == 1 else one_to_one(similarity, known)
    ),
    "left-to-right": lambda similarity, known, boxes: by_place(similarity, boxes),
}


def match_frames(
    matching: str, faces: Sequence[Faces], vectors: Sequence[np.ndarray] | None,
    references: Sequence[np.ndarray | None], similarity: Similarity = cosine,
) -> tuple[FrameMatch, ...]:
    """The assignment of each frame.

    Args:
        matching: a name in `MATCHINGS`.
        vectors: of each frame the embeddings (n, d) of its faces; None: matched by place alone.
        references: an embedding (d,) each, or None for a reference without a face.
    """
    match, known = MATCHINGS[matching], [vector is not None for vector in references]
    ends = np.cumsum([len(of_frame) for of_frame in faces]).tolist()
    table = (
        np.full((ends[-1], len(references)), np.nan) if vectors is None
        else cosines(np.concatenate(vectors), references, similarity)
    )
    return tuple(
        match(table[end - len(of_frame) : end], known, of_frame.boxes)
        for of_frame, end in zip(faces, ends, strict=True)
    )


def left_to_right(match: FrameMatch, boxes: np.ndarray) -> tuple[int, ...]:
    """The matched references of a frame, by the centre of their face's box from left to right."""
    found = [r for r, face in enumerate(match.face_of_reference) if face is not None]
    if len(found) < 2:
        return tuple(found)
    centres = [x0 + x1 for x0, _, x1, _ in boxes.tolist()]
    return tuple(sorted(found, key=lambda r: centres[match.face_of_reference[r] or 0]))


def order_agrees(order: tuple[int, ...]) -> bool | None:
    """Whether references stand in their own order; None for fewer than two of them."""
    if len(order) < 2:
        return None
    return all(a < b for a, b in zip(order, order[1:], strict=False))


def swap_rate(orders: Sequence[tuple[int, ...]], references: int) -> float | None:
    """Share of frames whose order contradicts the video's most frequent one, 0..1. Only frames with
    every reference count; None without such a frame, or for one reference."""
    whole = [order for order in orders if len(order) == references]
    if references < 2 or not whole:
        return None
    # Of equally frequent orders the earliest seen is the majority (Counter keeps that order).
    majority = Counter(whole).most_common(1)[0][0]
    return sum(order != majority for order in whole) / len(whole)
