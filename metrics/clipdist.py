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
from functools import partial

import numpy as np

from idbench.metrics.base import WHOLE, Embeddings, Metric, cosine, each_frame
from idbench.types import Score

NETWORK = "clip"


def clipdist(frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """1 - cosine of frame embeddings (n, d) to a reference's embedding (d,): (n,), in 0..2."""
    return 1.0 - cosine(frames, reference)


def scores(
    embeddings: Embeddings, metric: str = "clipdist", key: str = NETWORK
) -> list[Score]:
    """Rows a frame and identity, an identity, and one of the video. With the key `WHOLE`, of whole
    frames under a protocol whose CLIPDist is of faces."""
    faces = key == NETWORK and embeddings.protocol.clip_region != "frame"

    def of_frame(k: int, r: int) -> float | str | None:
        reference, vectors = embeddings.image_vectors[key][r], embeddings.frame_vectors
        if reference is None:
            reason = embeddings.image_reasons[r] if key == NETWORK else None
            return reason or "the reference has no embedding"
        if not faces:
            return float(clipdist(vectors[NETWORK][k][None], reference)[0])
        face = embeddings.matches[k].face_of_reference[r]
        if face is None:
            return embeddings.matches[k].reasons[r]
        return float(clipdist(embeddings.face_vectors[NETWORK][k][face][None], reference)[0])

    return each_frame(embeddings, metric, of_frame)


METRIC = Metric(
    name="clipdist", title="CLIPDist", higher_is_better=True, range=(0.0, 2.0),
    formula="mean over frames of 1 - cos(c(frame), c(reference))",
    source="Concat-ID (arXiv 2503.14151), section 4", scores=scores, networks=("clip",),
    shown="headline",
)

FRAME = replace(
    METRIC, name="clipdist_frame", title="CLIPDist of the picture",
    formula="mean over frames of 1 - cos(c(whole frame), c(whole reference))",
    scores=partial(scores, metric="clipdist_frame", key=WHOLE), computed="listed", shown="table",
)
