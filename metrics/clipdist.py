"""CLIPDist: how far the video's frames are from the reference image, as CLIP sees them.

Formula: 1 - cos(c(frame), c(reference)), with c CLIP's image embedding. Larger means that the
model changed more of the image, i.e. follows the prompt rather than pasting the reference.
The paper does not say of what: protocols compare the person's face crop with the reference's
(`strict-v3`, `clipdist-face`), or the whole frame with the whole reference image (`strict-v1`,
`clipdist-frame`). Under `strict-v3` whole frames are compared besides, as `clipdist_frame`.

Source: Concat-ID (arXiv 2503.14151), section 4. Version 1 printed 1 - CLIPDist in its Table 3.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from idbench.metrics.base import (
    WHOLE,
    Embeddings,
    Metric,
    cosine,
    make_score,
    over_identities,
    summarise,
)
from idbench.types import Score

NETWORK = "clip"


def clipdist(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """1 - cosine of frame embeddings (n, d) to a reference's embedding (d,): (n,), in 0..2."""
    return 1.0 - cosine(frames, reference)


def scores(embeddings: Embeddings) -> list[Score]:
    """Rows a frame and identity, an identity, and one of the video."""
    faces = embeddings.protocol.clip_region != "frame"
    return _scores(embeddings, METRIC.name, faces, NETWORK)


def frame_scores(embeddings: Embeddings) -> list[Score]:
    """As `scores`, of whole frames under a protocol whose CLIPDist is of faces."""
    return _scores(embeddings, FRAME.name, False, WHOLE)


def _scores(embeddings: Embeddings, metric: str, faces: bool, key: str) -> list[Score]:
    sample, rows, means = embeddings.sample, [], []
    for r, name in enumerate(sample.identities):
        reference = embeddings.image_vectors[key][r]
        reason = embeddings.image_reasons[r] if key == NETWORK else None
        missing = reason or "the reference has no embedding"
        pictures = [_picture(embeddings, k, r, faces) for k in range(len(embeddings.frames))]
        vectors = [vector for vector, _ in pictures if vector is not None]
        values = iter(
            clipdist(np.stack(vectors), reference).tolist()
            if vectors and reference is not None else ()
        )
        frame_rows = [
            make_score(sample, metric, name, frame, None, missing) if reference is None
            else make_score(sample, metric, name, frame, None, reason) if vector is None
            else make_score(sample, metric, name, frame, next(values))
            for frame, (vector, reason) in zip(embeddings.frames, pictures, strict=True)
        ]
        taken = embeddings.sampled(frame_rows)
        means.append(summarise(sample, metric, name, taken, "no frame could be read"))
        rows += frame_rows
    return [*rows, *means, over_identities(sample, metric, means)]


def _picture(
    embeddings: Embeddings, k: int, r: int, faces: bool
) -> tuple[np.ndarray | None, str | None]:
    """The vector of frame `k`, or of the face in it matched to reference `r`; or why none."""
    if not faces:
        return embeddings.frame_vectors[NETWORK][k], None
    match = embeddings.matches[k]
    face = match.face_of_reference[r]
    if face is None:
        return None, match.reasons[r]
    return embeddings.face_vectors[NETWORK][k][face], None


METRIC = Metric(
    name="clipdist", title="CLIPDist", higher_is_better=True, range=(0.0, 2.0),
    formula="mean over frames of 1 - cos(c(frame), c(reference))",
    source="Concat-ID (arXiv 2503.14151), section 4", scores=scores, networks=("clip",),
    shown="headline",
)

FRAME = replace(
    METRIC, name="clipdist_frame", title="CLIPDist of the picture",
    formula="mean over frames of 1 - cos(c(whole frame), c(whole reference))", scores=frame_scores,
    computed="listed", shown="table",
)
