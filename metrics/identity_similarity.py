"""Identity metrics: how much a person in the video resembles their reference.

Formula: cos(f(face), f(reference)), with f the embedding of an aligned 112 x 112 RGB crop.
The value of an identity is the mean over the frames in which the person was found; that of the
video is the mean over its identities. ArcSim and CurSim are such metrics of two recognisers.

Source: Deng et al., ArcFace (arXiv 1801.07698); Huang et al., CurricularFace (arXiv 2004.00288);
evaluation as in ConsisID (arXiv 2411.17440).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from idbench.metrics.base import (
    NEVER_FOUND,
    Embeddings,
    Metric,
    cosine,
    make_score,
    over_identities,
    summarise,
)
from idbench.metrics.faces.match import cosines
from idbench.metrics.rules import RULES, maximum_of_pairs
from idbench.types import Score


def similarity(faces: np.ndarray, reference: np.ndarray, clamp: bool = False) -> np.ndarray:
    """Cosine of face embeddings (n, d) to a reference's (d,): (n,), in -1..1; `clamp` sets negative
    values to 0, as ConsisID's evaluation does."""
    value = cosine(faces, reference)
    return np.maximum(value, 0.0) if clamp else value


def identity_scores(metric: str, network: str, embeddings: Embeddings) -> list[Score]:
    """Rows of one identity metric: per frame and identity, per identity, and the video. Under the
    maximum of pairs there are no identities: rows of frames, and the video."""
    protocol, sample = embeddings.protocol, embeddings.sample
    if embeddings.left_out:
        names: list[str | None] = [*sample.identities, None]
        return [make_score(sample, metric, name, None, embeddings.left_out) for name in names]
    if protocol.pairs == "maximum":
        return _maximum_scores(metric, network, embeddings)
    vectors, references = embeddings.face_vectors[network], embeddings.reference_vectors[network]

    def of_frame(k: int, r: int) -> float | str | None:
        reference, match = references[r], embeddings.matches[k]
        if reference is None:
            return embeddings.reference_reasons[r] or "the reference has no embedding"
        face = match.face_of_reference[r]
        if face is None:
            return match.reasons[r]
        return float(similarity(vectors[k][face][None], reference, protocol.clamp)[0])

    rows, means, counted = [], [], []
    for r, name in enumerate(sample.identities):
        frame_rows = [
            make_score(sample, metric, name, frame, of_frame(k, r))
            for k, frame in enumerate(embeddings.frames)
        ]
        reason, rule = embeddings.reference_reasons[r], RULES[protocol.rule]
        mean = _summary(metric, name, frame_rows, embeddings, reason)
        means.append(mean)
        # A 0.0 that the rule writes where nothing was measured: only the video's mean counts it.
        filled = mean.value is None and reason is None and rule.fills_with_zero
        counted.append(make_score(sample, metric, name, None, 0.0) if filled else mean)
        rows += frame_rows
    return [*rows, *means, over_identities(sample, metric, counted)]


def _summary(
    metric: str, name: str | None, frame_rows: Sequence[Score], embeddings: Embeddings,
    reference_reason: str | None,
) -> Score:
    """One value from the frames, by the protocol's rule; unscored where nothing was measured."""
    sample, rule = embeddings.sample, RULES[embeddings.protocol.rule]
    taken = embeddings.sampled(frame_rows)
    if reference_reason is None:
        value = rule.value([row.value for row in taken], metric)
        if value is not None and any(row.value is not None for row in taken):
            return make_score(sample, metric, name, None, value)
        if rule.nothing:
            return make_score(sample, metric, name, None, rule.nothing)
    return summarise(sample, metric, name, [r for r in taken if r.value is None], NEVER_FOUND)


def _maximum_scores(metric: str, network: str, embeddings: Embeddings) -> list[Score]:
    """Rows of the maximum rule: each frame's best pair, and the video; no identity of its own."""
    sample, references = embeddings.sample, embeddings.reference_vectors[network]
    missing = [reason for reason in embeddings.reference_reasons if reason is not None]
    if missing:
        return [make_score(sample, metric, None, None, missing[0])]
    rows = []
    for frame, vectors in zip(embeddings.frames, embeddings.face_vectors[network], strict=True):
        value = maximum_of_pairs(cosines(vectors, references))
        found = "no face in the frame" if value is None else value
        rows.append(make_score(sample, metric, None, frame, found))
    return [*rows, _summary(metric, None, rows, embeddings, None)]


def _metric(name: str, title: str, network: str, source: str) -> Metric:
    """The metric of faces read by `network`, compared with the references."""
    return Metric(
        name=name, title=title, higher_is_better=True, range=(-1.0, 1.0),
        formula="mean over frames of cos(f(face), f(reference))",
        source=f"{source}; evaluation as in ConsisID (arXiv 2411.17440)",
        scores=partial(identity_scores, name, network),
        networks=tuple(dict.fromkeys(("arcface", network))), shown="headline", about="identity",
    )


ARCSIM = _metric("arcsim", "ArcSim", "arcface", "Deng et al., ArcFace (arXiv 1801.07698)")
CURSIM = _metric(
    "cursim", "CurSim", "curricularface", "Huang et al., CurricularFace (arXiv 2004.00288)")
