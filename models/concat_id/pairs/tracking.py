"""The record of a video: its people, some faces of each, and what the filter rules need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter

from idbench.metrics.faces.detect import Faces
from idbench.metrics.faces.match import match_faces


@dataclass(frozen=True)
class Face:
    """One face of one frame.

    Attributes:
        frame: index in the video.
        box: x0, y0, x1, y1 in pixels. landmarks: five x, y in pixels.
        share: of the frame that the box fills, 0..1.
        confidence: the detector's, 0..1.
        image: file of the crop, relative to the output folder.
    """

    frame: int
    box: tuple[float, ...]
    landmarks: tuple[tuple[float, ...], ...]
    share: float
    confidence: float
    image: str


@dataclass(frozen=True)
class PersonFaces:
    """A person of a video: mean centre `x` of the face's boxes in widths of the frame, mean share
    of the frame that the face fills, and the faces kept, by time."""

    x: float
    share: float
    faces: tuple[Face, ...]


@dataclass(frozen=True)
class VideoRecord:
    """Everything read from a video except the embeddings, which are stored next to it.

    Attributes:
        frames, fps, height, width: of the video.
        counts: faces of each sampled frame.
        cosines: for each sampled frame except the first, the ArcFace cosine to the frame before,
            the lowest of the people; None where the numbers of faces differ.
        people: from left to right, from the frames with the usual number of faces; empty when
            that number is 0 or over the limit.
        conflicts: number of those frames that show the people in another order.
        flow, motion, aesthetic: quality for the ranking of Stage III (see `stages.ranking`).
        prints: difference hashes of a few frames, see `picture_hash`.
        garment, background: files of the subject references, relative to the output folder,
            or None.
    """

    frames: int
    fps: float
    height: int
    width: int
    counts: tuple[int, ...]
    cosines: tuple[float | None, ...]
    people: tuple[PersonFaces, ...]
    conflicts: int = 0
    flow: float | None = None
    motion: float | None = None
    aesthetic: float | None = None
    garment: str | None = None
    background: str | None = None
    prints: tuple[str, ...] = ()


RECORD = TypeAdapter(VideoRecord)
"""Makes records of the JSON values that `asdict` gives; slow to build, so built once."""


@dataclass(frozen=True)
class FrameFaces:
    """The faces of one sampled frame, n of them.

    Attributes:
        index: of the frame in the video.
        found: as the detector gives them.
        vectors: (n, d) of length 1, or None where there were more people than the limit.
        crops: n encoded images (JPEG), empty without vectors.
    """

    index: int
    found: Faces
    vectors: np.ndarray | None
    crops: tuple[bytes, ...] = ()

    def __len__(self) -> int:
        return len(self.found)


def usual_count(counts: Sequence[int]) -> int:
    """The number of faces that most frames have; of equally frequent numbers the larger, since a
    detector misses a face more often than it invents one."""
    found = Counter(int(c) for c in counts)
    return max(found, key=lambda c: (found[c], c)) if found else 0


def consecutive_cosines(frames: Sequence[FrameFaces]) -> tuple[float | None, ...]:
    """See `VideoRecord.cosines`; people are matched one to one for the best sum of cosines."""
    found: list[float | None] = []
    for before, now in zip(frames, frames[1:], strict=False):
        if not len(now) or len(before) != len(now) or before.vectors is None \
                or now.vectors is None:
            found.append(None)
        else:
            match = match_faces(now.vectors, list(before.vectors))
            pairs = [match.similarity[f, r] for r, f in enumerate(match.face_of_reference)
                     if f is not None]
            found.append(round(float(min(pairs)), 6) if len(pairs) == len(now) else None)
    return tuple(found)


def follow(
    frames: Sequence[FrameFaces], people: int
) -> tuple[list[int], np.ndarray, np.ndarray] | None:
    """Follow P people through the frames that have exactly as many faces, matched one to one to the
    mean embeddings so far.

    Returns:
        The F indices of those frames; int (F, P), the index of each person's face in them; and
        float64 (P, d), the sums of their embeddings. None when no frame fits, or P is 0.
    """
    fits = [
        (i, f.vectors) for i, f in enumerate(frames) if len(f) == people and f.vectors is not None
    ]
    if not people or not fits:
        return None
    first, vectors = fits[0]
    totals = vectors[np.argsort(_centres(frames[first]), kind="stable")].astype(np.float64)
    rows: list[list[int]] = []
    used: list[int] = []
    for i, vectors in fits:
        match = match_faces(vectors, list(totals))
        if None in match.face_of_reference:
            continue
        faces = [int(f) for f in match.face_of_reference if f is not None]
        if used:
            totals += vectors[faces]
        rows.append(faces)
        used.append(i)
    return (used, np.array(rows), totals) if used else None


def spread(count: int, kept: int) -> list[int]:
    """At most `kept` of `count` positions, spread evenly, first and last included."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(kept, count)).round()})


def people_of(
    frames: Sequence[FrameFaces], size: tuple[int, int], limit: int, kept: int, stem: str
) -> tuple[tuple[PersonFaces, ...], np.ndarray, int, dict[str, bytes]]:
    """The people of a video, of frames of `size` (height, width), from left to right, their
    embeddings (P, d), the number of frames in another order, and the crops by file, as `Face.image`
    names it; file names begin with `stem`. Faces come only from frames in the usual order, since
    others would contradict the order of the references."""
    usual = usual_count([len(f) for f in frames])
    followed = follow(frames, usual) if usual <= limit else None
    nobody = np.zeros((0, 0), np.float32)
    if followed is None:
        return (), nobody, 0, {}
    used, faces_of, totals = followed
    x = np.array([_centres(frames[i])[row] for i, row in zip(used, faces_of, strict=True)])
    order = np.argsort(x.mean(0), kind="stable")  # from left to right
    x, faces_of = x[:, order], faces_of[:, order]
    in_order = (np.diff(x, axis=1) > 0).all(1)
    if not in_order.any():
        return (), nobody, len(used), {}
    lengths = np.linalg.norm(totals, axis=1, keepdims=True)
    vectors = (totals / lengths)[order].astype(np.float32)
    centres, good = x.mean(0), np.flatnonzero(in_order)
    people, crops = [], {}
    height, width = size
    for person in range(usual):
        faces = []
        for number, row in enumerate(good[spread(len(good), kept)]):
            frame, face = frames[used[row]], int(faces_of[row, person])
            box = frame.found.boxes[face].astype(float)
            # 256 folders keep each one small.
            file = f"faces/{stem[:2]}/{stem}_{person}_{number}.jpg"
            crops[file] = frame.crops[face]
            faces.append(Face(
                frame.index, tuple(box.round(2).tolist()),
                tuple(map(tuple, frame.found.landmarks[face].astype(float).round(2).tolist())),
                _share(box, height, width), round(float(frame.found.scores[face]), 4), file,
            ))
        share = float(np.mean([f.share for f in faces]))
        people.append(PersonFaces(
            round(float(centres[person]) / width, 6), round(share, 6), tuple(faces)
        ))
    return tuple(people), vectors, int((~in_order).sum()), crops


def _centres(frame: FrameFaces) -> np.ndarray:
    return (frame.found.boxes[:, 0] + frame.found.boxes[:, 2]) / 2


def _share(box: np.ndarray, height: int, width: int) -> float:
    """Share of the frame inside the box, which may reach beyond the border."""
    x = np.clip(box[[0, 2]], 0, width)
    y = np.clip(box[[1, 3]], 0, height)
    return round(float((x[1] - x[0]) * (y[1] - y[0])) / (height * width), 6)
