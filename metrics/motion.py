"""Motion amount: how much moves in a video, by optical flow.

Formula: mean over adjacent frames of the mean length of the largest 5% of flow vectors, in
heights of the image a second. The largest 5%, as VBench's dynamic degree, since most of a
portrait stands still. A still image has 0; so has a frozen video, whose identity is perfect.

Source: Farnebäck, Two-frame motion estimation (2003), as OpenCV computes it; the largest 5% as
in VBench (arXiv 2311.17982), which reads them from another flow (RAFT) and thresholds them.
"""

from __future__ import annotations

import cv2
import numpy as np

from idbench.metrics.base import Embeddings, Metric, make_score
from idbench.types import Score

HEIGHT = 128
"""Frames are brought to this height, so that the value does not depend on resolution."""
SHARE = 0.05
MOST_PAIRS = 64
"""Adjacent pairs looked at, spread evenly: memory and time stay flat for long videos."""


def motion(frames: np.ndarray, fps: float) -> float:
    """Motion of uint8 RGB frames (t, h, w, 3), t >= 2, in frame heights per second; 0 or more."""
    pairs = len(frames) - 1
    starts = np.unique(np.linspace(0, pairs - 1, min(MOST_PAIRS, pairs)).astype(int))
    lengths = [_largest(_grey(frames[i]), _grey(frames[i + 1])) for i in starts]
    return float(np.mean(lengths)) * fps


def _grey(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    size = max(8, round(width * HEIGHT / height)), HEIGHT
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    how = cv2.INTER_AREA if height > HEIGHT else cv2.INTER_CUBIC
    return cv2.resize(grey, size, interpolation=how)


def _largest(first: np.ndarray, second: np.ndarray) -> float:
    """Mean length of the largest flow vectors between two grey images, in their heights."""
    lengths = np.sort(np.linalg.norm(optical_flow(first, second), axis=-1).ravel())
    return float(lengths[-max(1, round(SHARE * len(lengths))):].mean()) / first.shape[0]


def optical_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Farnebäck's flow (h, w, 2) in pixels between two grey images (h, w), uint8."""
    start = np.zeros((*first.shape, 2), np.float32)
    return cv2.calcOpticalFlowFarneback(first, second, start, 0.5, 3, 15, 3, 5, 1.2, 0)


def scores(embeddings: Embeddings) -> list[Score]:
    """One row, of the video."""
    sample, video = embeddings.sample, embeddings.video
    assert video is not None
    if len(video.frames) < 2:
        return METRIC.unscored(sample, "the video has one frame: nothing can move")
    return [make_score(sample, "motion", None, None, motion(video.frames, video.fps))]


METRIC = Metric(
    name="motion", title="Motion", higher_is_better=True, range=(0.0, float("inf")),
    formula="mean over adjacent frames of the mean of the largest 5% of |flow|, heights per second",
    source="Farnebäck (2003) in OpenCV; the largest 5% as in VBench (arXiv 2311.17982)",
    scores=scores, networks=(), needs_pixels=True, computed="named",
)
