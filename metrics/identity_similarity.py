"""Identity scores from faces matched to references; shared by ArcSim and CurSim."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idbench.metrics.base import Embeddings, cosine, make_score, over_identities, summarise
from idbench.metrics.faces.match import cosines
from idbench.metrics.rules import RULES, maximum_of_pairs
from idbench.types import Score

NEVER_FOUND = "the person was found in no frame"


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
        return [make_score(sample, metric, n, None, None, embeddings.left_out) for n in names]
    if protocol.pairs == "maximum":
        return _maximum_scores(metric, network, embeddings)
    rows, means, counted = [], [], []
    for r, name in enumerate(sample.identities):
        frame_rows = _frame_rows(metric, network, embeddings, r)
        reason = embeddings.reference_reasons[r]
        mean = _summary(metric, name, frame_rows, embeddings, reason)
        means.append(mean)
        counted.append(_filled(mean, frame_rows, embeddings, reason))
        rows += frame_rows
    return [*rows, *means, over_identities(sample, metric, counted)]


def _frame_rows(metric: str, network: str, embeddings: Embeddings, r: int) -> list[Score]:
    """One row per frame: the cosine of reference `r` and the face matched to it."""
    sample, reference = embeddings.sample, embeddings.reference_vectors[network][r]
    name, faces = sample.identities[r], [m.face_of_reference[r] for m in embeddings.matches]
    if reference is None:
        reason = embeddings.reference_reasons[r] or "the reference has no embedding"
        return [make_score(sample, metric, name, k, None, reason) for k in embeddings.frames]
    clamp = embeddings.protocol.clamp
    return [
        make_score(sample, metric, name, frame, None, match.reasons[r]) if face is None
        else make_score(sample, metric, name, frame,
                        float(similarity(vectors[face][None], reference, clamp)[0]))
        for frame, face, match, vectors in zip(
            embeddings.frames, faces, embeddings.matches, embeddings.face_vectors[network],
            strict=True)
    ]


def _summary(
    metric: str, name: str | None, frame_rows: Sequence[Score], embeddings: Embeddings,
    reference_reason: str | None,
) -> Score:
    """One value from the frames, by the protocol's rule. A 0.0 that the rule writes where nothing
    was measured is unscored here; only the video's mean counts it (`_filled`)."""
    sample, rule = embeddings.sample, RULES[embeddings.protocol.rule]
    taken = embeddings.sampled(frame_rows)
    measured = any(row.value is not None for row in taken)
    value = rule.value([row.value for row in taken], metric)
    if value is not None and measured and reference_reason is None:
        return make_score(sample, metric, name, None, value)
    if rule.nothing and reference_reason is None:
        return make_score(sample, metric, name, None, None, rule.nothing)
    return summarise(sample, metric, name, [r for r in taken if r.value is None], NEVER_FOUND)


def _filled(
    mean: Score, frame_rows: Sequence[Score], embeddings: Embeddings, reference_reason: str | None
) -> Score:
    """What the video's mean counts for a person: `mean`, or the rule's 0.0 for a missing one."""
    rule = RULES[embeddings.protocol.rule]
    if mean.value is None and reference_reason is None and rule.fills_with_zero:
        return make_score(embeddings.sample, mean.metric, mean.identity, None, 0.0)
    return mean


def _maximum_scores(metric: str, network: str, embeddings: Embeddings) -> list[Score]:
    """Rows of the maximum rule: each frame's best pair, and the video; no identity of its own."""
    sample, references = embeddings.sample, embeddings.reference_vectors[network]
    missing = [reason for reason in embeddings.reference_reasons if reason is not None]
    if missing:
        return [make_score(sample, metric, None, None, None, missing[0])]
    rows = []
    for frame, vectors in zip(embeddings.frames, embeddings.face_vectors[network], strict=True):
        value = maximum_of_pairs(cosines(vectors, references))
        reason = None if value is not None else "no face in the frame"
        rows.append(make_score(sample, metric, None, frame, value, reason))
    return [*rows, _summary(metric, None, rows, embeddings, None)]
