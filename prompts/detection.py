"""The detector trained on photographs that judges reference portraits when a suite is built."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


@cache
def _detector() -> Any:
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True, device="cpu", post_process=False)


def detect_faces(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faces that MTCNN with its default thresholds finds in one RGB image (H, W, 3).

    Returns:
        Boxes (faces, 4) as x0, y0, x1, y1 in pixels, and probabilities (faces,) in 0..1.
    """
    boxes, probabilities = _detector().detect(np.ascontiguousarray(pixels))
    if boxes is None:
        return np.zeros((0, 4)), np.zeros(0)
    return np.asarray(boxes), np.asarray(probabilities)
