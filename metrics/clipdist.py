"""CLIPDist: how far the video's frames are from the reference picture, as CLIP sees them.

Formula: 1 - cos(c(frame), c(reference)), with c CLIP's image embedding. Larger means that the
model changed more of the picture, i.e. follows the prompt rather than pasting the reference.
strict-v1 uses the whole frame and the whole reference picture; the paper does not say which.

Source: Concat-ID (arXiv 2503.14151), section 4. Version 1 printed 1 - CLIPDist in its Table 3.
"""

from __future__ import annotations

import numpy as np

from idbench.metrics.base import (
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
    sample, rows, means = embeddings.sample, [], []
    for r, name in enumerate(sample.identities):
        reference = embeddings.image_vectors[NETWORK][r]
        if reference is None:
            reason = embeddings.image_reasons[r] or "the reference has no embedding"
            frame_rows = [
                make_score(sample, "clipdist", name, f, None, reason) for f in embeddings.frames
            ]
        else:
            values = clipdist(embeddings.frame_vectors[NETWORK], reference)
            frame_rows = [
                make_score(sample, "clipdist", name, f, float(v))
                for f, v in zip(embeddings.frames, values, strict=True)
            ]
        means.append(summarise(sample, "clipdist", name, frame_rows, "no frame could be read"))
        rows += frame_rows
    return [*rows, *means, over_identities(sample, "clipdist", means)]


METRIC = Metric(
    name="clipdist",
    title="CLIPDist",
    higher_is_better=True,
    range=(0.0, 2.0),
    formula="mean over frames of 1 - cos(c(frame), c(reference))",
    source="Concat-ID (arXiv 2503.14151), section 4",
    scores=scores,
    networks=("clip",),
)
