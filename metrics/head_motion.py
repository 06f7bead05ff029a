"""Head motion from five landmarks over time: still, turn left or right, nod, shake, tilt.

Of each frame, with the eyes e1 and e2, their middle e, the nose n and the middle of the mouth m:
yaw = (n - e) along the eyes / |e2 - e1|, pitch = (n - e) across the eyes / |m - e|, and roll, the
angle of the eyes. Of each of the three over the clip: its trend (mean of the last third minus
mean of the first) and its swing (range of the smoothed values less the line through the clip's
ends). Thresholds were set by hand on rendered clips.
"""

from __future__ import annotations

import numpy as np

FEWEST = 5
"""Frames with the person's face that a motion needs."""
TILT, TURN = 0.11, 0.075
SHAKE, NOD = 0.10, 0.062
"""Trend of roll (radians) and yaw; swing of yaw and pitch. Yaw and pitch have no unit."""


def angles(landmarks: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll as above of landmarks (n, 5, 2): float64 (n, 3)."""
    left, right, nose, first, second = np.moveaxis(np.asarray(landmarks, float), 1, 0)
    eyes, mouth = (left + right) / 2, (first + second) / 2
    across = right - left
    length = np.linalg.norm(across, axis=1)
    along = across / length[:, None]
    down = np.stack([-along[:, 1], along[:, 0]], 1)
    offset = nose - eyes
    yaw = (offset * along).sum(1) / length
    pitch = (offset * down).sum(1) / np.linalg.norm(mouth - eyes, axis=1)
    return np.stack([yaw, pitch, np.arctan2(across[:, 1], across[:, 0])], 1)


def read_motion(landmarks: np.ndarray) -> str | None:
    """The head motion of landmarks (k, 5, 2) of one person over time, NaN where not found; None if
    they were found in fewer than `FEWEST` frames."""
    good = np.isfinite(landmarks).all((1, 2))
    if good.sum() < FEWEST:
        return None
    smooth = _smoothed(angles(landmarks[good]))
    third = max(1, len(smooth) // 3)
    trend = smooth[-third:].mean(0) - smooth[:third].mean(0)
    yaw, pitch = _swing(smooth[:, 0]), _swing(smooth[:, 1])
    if abs(trend[2]) > TILT and abs(trend[2]) > abs(trend[0]):
        return "tilt"
    # A shake comes back to where it was: it swings more than it goes.
    if yaw > SHAKE and yaw > abs(trend[0]):
        return "shake"
    if abs(trend[0]) > TURN:
        return "turn left" if trend[0] < 0 else "turn right"
    return "nod" if pitch > NOD else "still"


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean of three neighbours (n, 3) along time: a detector's landmarks tremble."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def _swing(values: np.ndarray) -> float:
    """Range of what is left of values (n,) without their least-squares line."""
    times = np.arange(len(values))
    return float(np.ptp(values - np.polyval(np.polyfit(times, values, 1), times)))
