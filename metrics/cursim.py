"""CurSim: how much a person in the video resembles their reference, read by CurricularFace.

Formula: cos(f(face), f(reference)), with f the embedding of an aligned 112 x 112 RGB crop.
The value of an identity is the mean over the frames in which the person was found; that of the
video is the mean over its identities.

Source: Huang et al., CurricularFace (arXiv 2004.00288); evaluation as in ConsisID (arXiv
2411.17440).
"""

from __future__ import annotations

from idbench.metrics.base import Embeddings, Metric
from idbench.metrics.identity_similarity import identity_scores, similarity
from idbench.types import Score

NETWORK = "curricularface"
cursim = similarity
"""Pure function: face embeddings (n, d), reference embedding (d,) -> cosines (n,)."""


def scores(embeddings: Embeddings) -> list[Score]:
    """Rows a frame and identity, an identity, and one of the video."""
    return identity_scores("cursim", NETWORK, embeddings)


METRIC = Metric(
    name="cursim",
    title="CurSim",
    higher_is_better=True,
    range=(-1.0, 1.0),
    formula="mean over frames of cos(f(face), f(reference))",
    source=(
        "Huang et al., CurricularFace (arXiv 2004.00288); "
        "evaluation as in ConsisID (arXiv 2411.17440)"
    ),
    scores=scores,
    networks=("arcface", "curricularface"),
    shown="headline",
    about="identity",
)
