"""Consistency over time, of whole frames and of faces, without a reference.

Temporal consistency: mean of cos(c(frame k), c(frame k + 1)) over the frames that the protocol
samples, with c CLIP's image embedding. Adjacent means adjacent among the sampled: of a long
video they lie further apart than of a short one, so compare videos of one length.
Source: the frame consistency of Esser et al., Gen-1 (arXiv 2302.03011).

Face consistency: mean over later sampled frames of cos(f(face), f(face of the first frame)), with f
ArcFace. A person is the largest face; of several, the one that is matched to each reference. It
says whether a video keeps one person, not which: a stranger who stays the same has 1.
Source: the idea of VBench-2.0's Human Identity (arXiv 2503.21755), whose own rule is
`human_identity`.
"""

from __future__ import annotations

import numpy as np

from idbench.metrics.base import Embeddings, Metric, cosine, make_score, over_identities, summarise
from idbench.types import Score

FACES = "facesim_consistency"


def consistency_scores(embeddings: Embeddings) -> list[Score]:
    """A row a frame but the last (with its successor), and one of the video."""
    sample, name = embeddings.sample, "temporal_consistency"
    vectors = embeddings.frame_vectors.get("clip")
    if vectors is None:
        return CONSISTENCY.unscored(sample, "the protocol embeds no whole frames")
    if len(vectors) < 2:
        return CONSISTENCY.unscored(sample, "only one frame was sampled")
    rows = [
        make_score(sample, name, None, frame, cosine(vector[None], following)[0])
        for frame, vector, following in zip(
            embeddings.frames[:-1], vectors[:-1], vectors[1:], strict=True)
    ]
    return [*rows, summarise(sample, name, None, rows, "no two adjacent frames could be read")]


def face_scores(embeddings: Embeddings) -> list[Score]:
    """A row a later frame and person, a row a person, and one of the video."""
    sample, vectors = embeddings.sample, embeddings.face_vectors["arcface"]
    several = len(sample.identities) > 1
    rows, means = [], []
    for person, name in enumerate(sample.identities if several else [None]):
        if several:
            places = [match.face_of_reference[person] for match in embeddings.matches]
        else:  # faces are sorted by size
            places = [0 if len(of_frame) else None for of_frame in embeddings.faces]
        faces = [None if i is None else v[i] for v, i in zip(vectors, places, strict=True)]
        of_frames, mean = _of_person(embeddings, faces, name)
        rows += of_frames
        means.append(mean)
    return [*rows, *means, *([over_identities(sample, FACES, means)] if several else [])]


def _of_person(
    embeddings: Embeddings, faces: list[np.ndarray | None], name: str | None
) -> tuple[list[Score], Score]:
    """The rows of the later frames, and their mean."""
    sample = embeddings.sample
    if len(faces) < 2:
        return [], make_score(sample, FACES, name, None, "only one frame was sampled")
    if (first := faces[0]) is None:
        return [], make_score(sample, FACES, name, None, "no face in the first frame")
    rows = [
        make_score(sample, FACES, name, frame,
                   "no face" if face is None else cosine(face[None], first)[0])
        for frame, face in zip(embeddings.frames[1:], faces[1:], strict=True)
    ]
    return rows, summarise(sample, FACES, name, rows, "no later frame has a face")


CONSISTENCY = Metric(
    name="temporal_consistency", title="Consistency", higher_is_better=True, range=(-1.0, 1.0),
    formula="mean over adjacent sampled frames of cos(c(frame), c(next frame))",
    source="frame consistency of Esser et al., Gen-1 (arXiv 2302.03011)", scores=consistency_scores,
    networks=("clip",), computed="named",
)
FACE_CONSISTENCY = Metric(
    name=FACES, title="FaceSim consistency", higher_is_better=True, range=(-1.0, 1.0),
    formula="mean over later frames of cos(f(face), f(face of the first frame))",
    source="after VBench-2.0's Human Identity (arXiv 2503.21755)", scores=face_scores,
    computed="named",
)
