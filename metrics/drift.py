"""Drift: whether a person's identity is lost along the video, from ArcSim's single frames.

Formulas, of the cosines c of the frames in which the person was found, at the times t of the
frames, 0 at the first and 1 at the last frame looked at:
    slope  sum((t - mean t)(c - mean c)) / sum((t - mean t)^2)    the least-squares line
    worst  min c
A mean hides both: a face that is right for half of the video and wrong for the other has the
mean of one that is half right throughout.
"""

from __future__ import annotations

import numpy as np

from idbench.metrics.base import NEVER_FOUND, Embeddings, Metric, each_identity
from idbench.types import Score

FEWEST = 3
"""Frames with the person that a slope needs; through two any line fits."""
SHORTEST = 0.5
"""Share of the video that they have to span: a slope over less says little of the whole."""


def slope(times: np.ndarray, values: np.ndarray) -> float:
    """The least-squares slope of values (n,) over times (n,): their change from time 0 to 1.
    Raises ValueError: all times are equal."""
    # As scipy.stats.linregress, to the last digit; importing that takes longer than 1,000 videos.
    (spread, together), _ = np.cov(times, values, bias=True)
    if not spread:
        raise ValueError("the times are all equal: they have no slope")
    return float(together / spread)


def slopes(embeddings: Embeddings) -> list[Score]:
    """The slope of each identity, and of the video their mean."""

    def of_person(r: int) -> float | str:
        times, values = _cosines(embeddings, r)
        if len(values) < FEWEST:
            return f"the person was found in fewer than {FEWEST} frames"
        if times[-1] - times[0] < SHORTEST:
            return "the person was found in less than half of the video's length"
        return slope(times, values)

    return each_identity(embeddings, "identity_slope", of_person)


def worst(embeddings: Embeddings) -> list[Score]:
    """The worst frame of each identity, and of the video the worst of them."""

    def of_person(r: int) -> float | str:
        _, values = _cosines(embeddings, r)
        return float(values.min()) if len(values) else NEVER_FOUND

    return each_identity(embeddings, "identity_worst", of_person, together=min)


def _cosines(embeddings: Embeddings, r: int) -> tuple[np.ndarray, np.ndarray]:
    """Times 0..1 and raw cosines of the faces that are matched to reference `r`: (n,) both."""
    frames = np.array(embeddings.frames, np.float64)
    # One frame has no length; any length but 0 does.
    times = (frames - frames[0]) / max(frames[-1] - frames[0], 1.0)
    faces = [match.face_of_reference[r] for match in embeddings.matches]
    cosines = np.array([
        np.nan if face is None else match.similarity[face, r]
        for face, match in zip(faces, embeddings.matches, strict=True)
    ])
    good = np.isfinite(cosines)
    return times[good], cosines[good]


_SOURCE = "idbench"
SLOPE = Metric(
    "identity_slope", "Identity slope", True, (-6.0, 6.0),
    "least-squares slope of ArcSim over the frames, per length of the video", _SOURCE, slopes,
    shown="long",
)
WORST = Metric(
    "identity_worst", "Worst frame", True, (-1.0, 1.0),
    "lowest ArcSim of any frame and person", _SOURCE, worst,
    shown="long",
)
