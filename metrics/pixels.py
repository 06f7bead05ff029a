"""Metrics that need a video's pixels, besides its embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from idbench.metrics.base import Embeddings, Metric
from idbench.types import Score


def no_scores(embeddings: Embeddings) -> list[Score]:
    """What a metric of pixels gives of embeddings alone: no rows."""
    return []


@dataclass(frozen=True)
class PixelMetric(Metric):
    """A metric whose rows come from `pixels(embeddings, frames, fps)`.

    `frames` are all of the video's, uint8 RGB (t, h, w, 3); `embeddings.frames` are the indices
    of those that were sampled. `scores` gives no rows.
    """

    pixels: Callable[[Embeddings, np.ndarray, float], list[Score]] = field(kw_only=True)
