"""What is read of one video or reference image, and how detected faces are kept as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from idbench.metrics.cache import Arrays
from idbench.metrics.faces.detect import Faces

COUNT = "count"
"""Not a hash, as other keys are: how many frames a video has depends on nothing but its bytes."""


@dataclass
class Pictures:
    """One video, or one reference image (one frame), and what was read from it.

    Attributes:
        source: sha256 of the file.
        keys: the cache's key of each step; see `loading.Networks.keys`.
        frames: those for faces and CLIP, uint8 RGB (k, h, w, 3); None where everything is known.
        video: the frames for ViCLIP, likewise.
        faces: of each frame.
        face_vectors: network -> of each frame the embeddings (faces, d).
        frame_vectors: network -> (k, d); video_vector: network -> (d,).
        new: key -> arrays that the cache does not have yet.
    """

    source: str
    keys: Mapping[str, str]
    frames: np.ndarray | None = None
    video: np.ndarray | None = None
    faces: list[Faces] = field(default_factory=list)
    face_vectors: dict[str, list[np.ndarray]] = field(default_factory=dict)
    frame_vectors: dict[str, np.ndarray] = field(default_factory=dict)
    video_vector: dict[str, np.ndarray] = field(default_factory=dict)
    new: dict[str, Arrays] = field(default_factory=dict)


@dataclass(frozen=True)
class ReferenceVectors:
    """What was read from one reference image.

    Attributes:
        faces: network name -> embedding (d,) of its face, or None.
        image: network name -> embedding (d,) of the whole picture, or None.
        face_reason, image_reason: why there is none (None: there is one).
        note: what was taken, where that is a choice or nothing: see `reference_note`.
    """

    faces: dict[str, np.ndarray | None]
    image: dict[str, np.ndarray | None]
    face_reason: str | None
    image_reason: str | None
    note: str | None = None


def reference_note(faces: int) -> str | None:
    """What readers of the scores have to know of a reference picture with so many faces."""
    if faces == 1:
        return None
    return f"{faces} faces in the picture, the largest is taken" if faces else "no face was found"


def pack_faces(faces: Sequence[Faces]) -> Arrays:
    """The faces of each frame as arrays, for the cache."""
    return {
        "counts": np.array([len(f) for f in faces], np.int64),
        "retried": np.array([f.retried for f in faces], bool),
        "boxes": np.concatenate([f.boxes for f in faces]),
        "landmarks": np.concatenate([f.landmarks for f in faces]),
        "scores": np.concatenate([f.scores for f in faces]),
    }


def unpack_faces(stored: Arrays) -> list[Faces]:
    """The faces of each frame, from `pack_faces`."""
    cuts = np.cumsum(stored["counts"])[:-1]
    parts = [np.split(stored[name], cuts) for name in ("boxes", "landmarks", "scores")]
    retried = stored["retried"]
    return [
        Faces(boxes, landmarks, scores, bool(again))
        for boxes, landmarks, scores, again in zip(*parts, retried, strict=True)
    ]
