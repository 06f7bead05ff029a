"""Face consistency: every frame's face against the first frame's, without a reference.

Formula: mean over later sampled frames of cos(f(face), f(face of the first frame)), with f ArcFace.
A person is the largest face; of several, the one that is matched to each reference. It says whether
a video keeps one person, not which: a stranger who stays the same has 1.

Source: the idea of VBench-2.0's Human Identity (arXiv 2503.21755), whose own rule is
`human_identity`.
"""

from __future__ import annotations

import numpy as np

from idbench.metrics.base import Embeddings, Metric, cosine, make_score, over_identities, summarise
from idbench.types import Score

NAME = "facesim_consistency"


def consistency(faces: list[np.ndarray | None]) -> list[float | None]:
    """Cosines of each later face (d,) to the first, None where a frame has none.
    Raises ValueError: there is no face in the first frame."""
    first = faces[0]
    if first is None:
        raise ValueError("no face in the first frame")
    return [None if face is None else float(cosine(face[None], first)[0]) for face in faces[1:]]


def scores(embeddings: Embeddings) -> list[Score]:
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
    return [*rows, *means, *([over_identities(sample, NAME, means)] if several else [])]


def _of_person(
    embeddings: Embeddings, faces: list[np.ndarray | None], name: str | None
) -> tuple[list[Score], Score]:
    """The rows of the later frames, and their mean."""
    sample = embeddings.sample
    if len(faces) < 2:
        return [], make_score(sample, NAME, name, None, "only one frame was sampled")
    try:
        values = consistency(faces)
    except ValueError as error:
        return [], make_score(sample, NAME, name, None, str(error))
    rows = [
        make_score(sample, NAME, name, frame, "no face" if value is None else value)
        for frame, value in zip(embeddings.frames[1:], values, strict=True)
    ]
    return rows, summarise(sample, NAME, name, rows, "no later frame has a face")


METRIC = Metric(
    name=NAME, title="FaceSim consistency", higher_is_better=True, range=(-1.0, 1.0),
    formula="mean over later frames of cos(f(face), f(face of the first frame))",
    source="after VBench-2.0's Human Identity (arXiv 2503.21755)", scores=scores, computed="named",
)
