"""Temporal consistency, and how much of the prompt was read: from embeddings that are there.

Temporal consistency: mean of cos(c(frame k), c(frame k + 1)) over the frames that the protocol
samples, with c CLIP's image embedding. Adjacent means adjacent among the sampled: of a long
video they lie further apart than of a short one, so compare videos of one length.
Source: the frame consistency of Esser et al., Gen-1 (arXiv 2302.03011).

Share read: the share of the prompt's tokens that ViCLIP's text tower reads; it stops at its
context of 32 tokens. A low ViCLIP with a low share says little of the video.
"""

from __future__ import annotations

import numpy as np

from idbench.metrics.base import Embeddings, Metric, cosine, make_score, summarise
from idbench.types import Score


def consistency(vectors: np.ndarray) -> np.ndarray:
    """Cosines of adjacent rows of vectors (n, d): float64 (n - 1,), in -1..1."""
    pairs = zip(vectors[:-1], vectors[1:], strict=True)
    return np.array([cosine(a[None], b)[0] for a, b in pairs])


def consistency_scores(embeddings: Embeddings) -> list[Score]:
    """A row a frame but the last (with its successor), and one of the video."""
    sample, name = embeddings.sample, "temporal_consistency"
    vectors = embeddings.frame_vectors.get("clip")
    if vectors is None:
        return CONSISTENCY.unscored(sample, "the protocol embeds no whole frames")
    if len(vectors) < 2:
        return CONSISTENCY.unscored(sample, "only one frame was sampled")
    rows = [
        make_score(sample, name, None, frame, value)
        for frame, value in zip(embeddings.frames[:-1], consistency(vectors), strict=True)
    ]
    return [*rows, summarise(sample, name, None, rows, "no two adjacent frames could be read")]


def share_read_scores(embeddings: Embeddings) -> list[Score]:
    """One row, of the video."""
    sample = embeddings.sample
    share = embeddings.share_read.get("viclip", "no text tower read the prompt")
    value = share if sample.prompt.strip() else "no prompt was given"
    return [make_score(sample, "share_read", None, None, value)]


CONSISTENCY = Metric(
    name="temporal_consistency", title="Consistency", higher_is_better=True, range=(-1.0, 1.0),
    formula="mean over adjacent sampled frames of cos(c(frame), c(next frame))",
    source="frame consistency of Esser et al., Gen-1 (arXiv 2302.03011)", scores=consistency_scores,
    networks=("clip",), computed="named",
)
SHARE_READ = Metric(
    name="share_read", title="Prompt read", higher_is_better=True, range=(0.0, 1.0),
    formula="tokens of the prompt that ViCLIP's text tower reads / all its tokens",
    source="idbench; ViCLIP's context has 32 tokens", scores=share_read_scores,
    networks=("viclip",), computed="named",
)
