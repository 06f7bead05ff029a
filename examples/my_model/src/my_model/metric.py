"""A metric: how sharp the frames are."""

from __future__ import annotations

import cv2

from idbench.metrics.base import Embeddings, Metric, make_score
from idbench.types import Score


def scores(embeddings: Embeddings) -> list[Score]:
    """One value a video: the mean variance of the Laplacian, of grey frames in 0..1."""
    values = [
        cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) / 255.0, cv2.CV_64F).var()
        for frame in embeddings.sampled_frames.values()
    ]
    value = sum(values) / len(values)
    return [make_score(embeddings.sample, "sharpness", None, None, value)]


METRIC = Metric(
    name="sharpness", title="Sharpness", higher_is_better=True, range=(0.0, 16.0),
    formula="mean over frames of the variance of the Laplacian", source="an example",
    scores=scores, networks=(), needs_frames=True, computed="named",
)
