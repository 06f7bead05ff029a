"""ArcSim by head turn and by occlusion, on avatars: where a recogniser loses a person.

The frames of ArcSim are sorted into bins, and each bin has a mean of its own. Both sortings were
checked against the truth that the renderer knows:

yaw        read from five landmarks (`head_motion.angles`): degrees(atan(angle / 0.497)). On 432
           true frames of 12 people it correlates 0.98 with the true yaw, with a mean error of 1.7
           degrees. Avatars turn by at most 27 degrees.
occlusion  share of the face's box that lies beyond the frame or under a larger face's box.

A bin without a frame is unscored. Not in the paper.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import numpy as np

from idbench.metrics.base import Embeddings, Metric, over_identities, summarise
from idbench.metrics.head_motion import angles
from idbench.metrics.identity_similarity import identity_scores
from idbench.types import Sample, Score

YAW_SCALE = 0.497
"""Landmarks' yaw of a head that is turned by 45 degrees; fitted on true renders."""
LOW, HIGH = 8.0, 16.0
"""Degrees between the bins: about half, and three quarters, of the frames of the suite's motions
lie below."""
OCCLUDED = 0.1
"""Share of a face's box from which it counts as occluded."""

Bin = Callable[[np.ndarray, int, np.ndarray, tuple[int, int]], bool]
"""From boxes (n, 4), the face's index, its landmarks (5, 2) and the frame's (height, width) to
whether the face belongs to the bin."""


def yaw_degrees(landmarks: np.ndarray) -> float:
    """How far a head of landmarks (5, 2) is turned to either side, in degrees."""
    value = angles(np.asarray(landmarks)[None])[0, 0]
    return float(np.degrees(np.arctan(abs(value) / YAW_SCALE)))


def occlusion(boxes: np.ndarray, face: int, size: tuple[int, int]) -> float:
    """Share of a face's box beyond a frame of (height, width) or under a larger face's, 0..1; boxes
    (n, 4), largest first."""
    x0, y0, x1, y1 = boxes[face]
    columns, rows = np.linspace(x0, x1, 32), np.linspace(y0, y1, 32)
    x, y = np.meshgrid(columns, rows)
    hidden = (x < 0) | (y < 0) | (x > size[1]) | (y > size[0])
    for a0, b0, a1, b1 in boxes[:face]:
        hidden |= (x > a0) & (x < a1) & (y > b0) & (y < b1)
    return float(hidden.mean())


def of_avatars(sample: Sample) -> bool:
    """Whether the sample shows avatars, of whom the truth is known."""
    return bool(sample.truth) and bool(sample.identities) and all(
        re.fullmatch(r"a\d+", name) for name in sample.identities
    )


def scores(embeddings: Embeddings, name: str, holds: Bin) -> list[Score]:
    """A row a person, and one of the video: ArcSim's frames that belong to the bin."""
    sample, size = embeddings.sample, embeddings.pixels.shape[1:3]

    def belongs(frame: int, person: int) -> bool:
        number = embeddings.frames.index(frame)
        faces = embeddings.faces[number]
        face = embeddings.matches[number].face_of_reference[person]
        return face is not None and holds(faces.boxes, face, faces.landmarks[face], size)

    every = identity_scores("arcsim", "arcface", embeddings)
    means = []
    for person, identity in enumerate(sample.identities):
        rows = [
            row for row in every if row.identity == identity and row.value is not None
            and row.frame is not None and belongs(row.frame, person)
        ]
        means.append(summarise(sample, name, identity, rows, "no frame belongs to this bin"))
    return [*means, over_identities(sample, name, means)]


def _yaw(low: float, high: float) -> Bin:
    return lambda boxes, face, landmarks, size: low <= yaw_degrees(landmarks) < high


def _occluded(wanted: bool) -> Bin:
    return lambda boxes, face, landmarks, size: (occlusion(boxes, face, size) >= OCCLUDED) == wanted


def _metric(name: str, title: str, holds: Bin, which: str) -> Metric:
    return Metric(
        name=name, title=title, higher_is_better=True, range=(-1.0, 1.0),
        formula=f"ArcSim of the frames whose face is {which}",
        source="idbench; read from the boxes and landmarks, checked on true renders",
        scores=partial(scores, name=name, holds=holds), needs_pixels=True, computed="named",
        applies_to=of_avatars, about="person",
    )


YAW_LOW = _metric("arcsim_yaw_low", f"ArcSim, yaw under {LOW:g}°", _yaw(0.0, LOW),
                  f"turned by less than {LOW:g} degrees")
YAW_MIDDLE = _metric("arcsim_yaw_middle", f"ArcSim, yaw {LOW:g}-{HIGH:g}°", _yaw(LOW, HIGH),
                     f"turned by {LOW:g} to {HIGH:g} degrees")
YAW_HIGH = _metric("arcsim_yaw_high", f"ArcSim, yaw from {HIGH:g}°", _yaw(HIGH, 90.1),
                   f"turned by {HIGH:g} degrees or more")
CLEAR = _metric("arcsim_clear", "ArcSim, clear", _occluded(False),
                f"hidden by less than {OCCLUDED:.0%}")
OCCLUDED_FACE = _metric("arcsim_occluded", "ArcSim, occluded", _occluded(True),
                        f"hidden by {OCCLUDED:.0%} or more")
