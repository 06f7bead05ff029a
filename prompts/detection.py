"""MTCNN, trained on photographs, as the judge of rendered faces."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


@cache
def mtcnn(min_face_size: int = 20) -> Any:
    """facenet-pytorch's MTCNN on the CPU, whose weights come with the package."""
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True, min_face_size=min_face_size, device="cpu")


def detect_faces(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faces that MTCNN with its default thresholds finds in one RGB image (H, W, 3): boxes (faces,
    4) as x0, y0, x1, y1 in pixels, and probabilities (faces,)."""
    boxes, probabilities = mtcnn().detect(np.ascontiguousarray(pixels))
    if boxes is None:
        return np.zeros((0, 4)), np.zeros(0)
    return np.asarray(boxes), np.asarray(probabilities)
