"""Identity scores from faces matched to references; shared by ArcSim and CurSim."""

from __future__ import annotations

import numpy as np

from idbench.metrics.base import Embeddings, cosine, make_score, over_identities, summarise
from idbench.types import Score

NEVER_FOUND = "the person was found in no frame"


def similarity(faces: np.ndarray, reference: np.ndarray, clamp: bool = False) -> np.ndarray:
    """Cosine of face embeddings (n, d) to a reference's embedding (d,): (n,), in -1..1.

    `clamp` sets negative values to 0, as ConsisID's evaluation does.
    """
    value = cosine(faces, reference)
    return np.maximum(value, 0.0) if clamp else value


def identity_scores(metric: str, network: str, embeddings: Embeddings) -> list[Score]:
    """Rows of one identity metric: a row each frame and identity, each identity, the video."""
    sample, rows, means = embeddings.sample, [], []
    for r, name in enumerate(sample.identities):
        reference = embeddings.reference_vectors[network][r]
        frame_rows = []
        for k, frame in enumerate(embeddings.frames):
            value: float | None = None
            reason: str | None = None
            face = embeddings.matches[k].face_of_reference[r]
            if reference is None:
                reason = embeddings.reference_reasons[r] or "no reference face"
            elif face is None:
                reason = embeddings.matches[k].reasons[r]
            else:
                vector = embeddings.face_vectors[network][k][face]
                clamp = embeddings.protocol.clamp
                value = float(similarity(vector[None], reference, clamp)[0])
            frame_rows.append(make_score(sample, metric, name, frame, value, reason))
        means.append(summarise(sample, metric, name, frame_rows, NEVER_FOUND))
        rows += frame_rows
    return [*rows, *means, over_identities(sample, metric, means)]
