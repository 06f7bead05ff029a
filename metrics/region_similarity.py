"""Garment and background similarity, for the splits `tryon` and `background`.

Both are means over sampled frames of cos(c(region of the frame), c(region of the reference)),
with c CLIP's image embedding. With a face box of width w and height h, centre x and
chin y (the lower side of the box):

Garment region of a frame: from x - w to x + w and from y + 0.25 h to y + 2.2 h, cut to the
frame. Of the reference: the whole image. Both are squashed to CLIP's size.

Background region: everything but the people, who are covered by grey (128) rectangles: the head
from x - w to x + w and from 0.6 h above the box to the chin, the body from x - 1.5 w to
x + 1.5 w and from the chin to the lower side of the frame. The reference is brought to the
frame's size and covered by the same rectangles, so that what is compared is background with
background, and a difference of the people counts for nothing.

A frame without a face, or without enough of the region, is unscored and leaves the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from idbench.metrics.base import Embeddings, Metric, cosine, make_score, summarise
from idbench.pictures import UnreadablePicture, read_rgb, why_unread
from idbench.types import Sample, Score

GREY = 128
LEAST_BACKGROUND = 0.1
"""Share of a frame that must be background."""
SMALLEST = 6
"""Pixels on a side that a region must have."""


def garment_region(shape: Sequence[int], box: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns of the garment below a face box (4,); None when too little is seen."""
    x, w, h = (box[0] + box[2]) / 2, box[2] - box[0], box[3] - box[1]
    top, bottom = round(box[3] + 0.25 * h), round(min(box[3] + 2.2 * h, shape[0]))
    left, right = round(max(x - w, 0)), round(min(x + w, shape[1]))
    if bottom - top < SMALLEST or right - left < SMALLEST:
        return None
    return slice(top, bottom), slice(left, right)


def people_mask(shape: Sequence[int], boxes: np.ndarray) -> np.ndarray:
    """Where the people of face boxes (n, 4) are in a frame of `shape` (h, w, ...): bool (h, w)."""
    mask = np.zeros(tuple(shape[:2]), bool)
    for box in boxes:
        x, w, h = (box[0] + box[2]) / 2, box[2] - box[0], box[3] - box[1]
        top, chin = max(0, round(box[1] - 0.6 * h)), max(0, round(box[3]))
        for rows, half in ((slice(top, chin), w), (slice(chin, None), 1.5 * w)):
            mask[rows, max(0, round(x - half)) : max(0, round(x + half))] = True
    return mask


def garment_scores(embeddings: Embeddings) -> list[Score]:
    """A row a frame, and one of the video; of the first person's garment, as in the split
    `tryon`."""

    def of_frame(frame: np.ndarray, k: int, reference: np.ndarray) -> float | str:
        face = embeddings.matches[k].face_of_reference[0]
        if face is None:
            return embeddings.matches[k].reasons[0] or "the person was not found"
        region = garment_region(frame.shape, embeddings.faces[k].boxes[face])
        if region is None:
            return "the garment is outside the frame"
        return _alike(embeddings, frame[region], reference)

    return _similarity(embeddings, "garment", "garment_similarity", of_frame)


def background_scores(embeddings: Embeddings) -> list[Score]:
    """A row a frame, and one of the video."""

    def of_frame(frame: np.ndarray, k: int, reference: np.ndarray) -> float | str:
        boxes = embeddings.faces[k].boxes
        if not len(boxes):
            return "no face in the frame, so the person cannot be covered"
        mask = people_mask(frame.shape, boxes)
        if mask.mean() > 1 - LEAST_BACKGROUND:
            return "the people cover the background"
        shrinks = reference.shape[0] > frame.shape[0]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        same = cv2.resize(reference, frame.shape[1::-1], interpolation=how)
        covered = (np.where(mask[..., None], np.uint8(GREY), picture) for picture in (frame, same))
        return _alike(embeddings, *covered)

    return _similarity(embeddings, "background", "background_similarity", of_frame)


def _similarity(
    embeddings: Embeddings, kind: str, metric: str,
    of_frame: Callable[[np.ndarray, int, np.ndarray], float | str],
) -> list[Score]:
    sample = embeddings.sample
    path = next(r.image for r in sample.references if r.kind == kind)
    try:
        picture = read_rgb(path)
    except UnreadablePicture as error:
        reason = why_unread(path, error)
        return [make_score(sample, metric, None, None, reason)]
    rows = [
        make_score(sample, metric, None, index, of_frame(embeddings.pixels[index], k, picture))
        for k, index in enumerate(embeddings.frames)
    ]
    return [*rows, summarise(sample, metric, None, rows, "the region was seen in no frame")]


def _alike(embeddings: Embeddings, seen: np.ndarray, wanted: np.ndarray) -> float:
    """The cosine of CLIP's embeddings of two pictures."""
    first, second = (
        embeddings.network("clip").pictures(
            np.ascontiguousarray(picture)[None], embeddings.protocol.clip_picture)[0]
        for picture in (seen, wanted)
    )
    return float(cosine(first[None], second)[0])


def _with_reference(kind: str) -> Callable[[Sample], bool]:
    """Whether a sample has a reference of that kind."""
    return lambda sample: any(r.kind == kind for r in sample.references)


GARMENT = Metric(
    "garment_similarity", "Garment", True, (-1.0, 1.0),
    "mean over frames of cos(c(garment region), c(garment reference))",
    "idbench; the paper shows try-on and measures none", garment_scores, runs=("clip",),
    needs_pixels=True, computed="named", applies_to=_with_reference("garment"),
)
BACKGROUND = Metric(
    "background_similarity", "Background", True, (-1.0, 1.0),
    "mean over frames of cos(c(frame without people), c(reference with the same mask))",
    "idbench; the paper shows background control and measures none", background_scores,
    runs=("clip",), needs_pixels=True, computed="named", applies_to=_with_reference("background"),
)
