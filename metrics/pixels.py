"""Metrics that need a video's pixels, besides its embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from idbench.metrics.base import Embeddings, Metric
from idbench.types import Sample, Score, Video

if TYPE_CHECKING:
    from idbench.metrics.score import Scorer


def _nothing(embeddings: Embeddings, frames: np.ndarray, fps: float) -> list[Score]:
    raise NotImplementedError("a PixelMetric is made with `pixels`")


def no_scores(embeddings: Embeddings) -> list[Score]:
    """What a metric of pixels gives of embeddings alone: no rows."""
    return []


@dataclass(frozen=True)
class PixelMetric(Metric):
    """A metric whose rows come from `pixels(embeddings, frames, fps)`.

    `frames` are all of the video's, uint8 RGB (t, h, w, 3); `embeddings.frames` are the indices
    of those that were sampled. `scores` gives no rows.
    """

    pixels: Callable[[Embeddings, np.ndarray, float], list[Score]] = _nothing


def pixel_scores(scorer: Scorer, sample: Sample, video: Video, video_sha256: str) -> list[Score]:
    """Rows of the scorer's metrics that need pixels; none is asked for: nothing is computed.

    The embeddings come from the scorer's cache, if it has one.
    """
    wanted = [metric for metric in scorer.metrics if isinstance(metric, PixelMetric)]
    frames = np.asarray(video.frames)
    if not wanted or not len(frames):
        return []
    embeddings = scorer.embed(sample, frames, video_sha256)
    return [row for m in wanted for row in m.pixels(embeddings, frames, video.fps)]
