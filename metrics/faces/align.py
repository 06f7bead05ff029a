"""Aligned face crops: five points onto ArcFace's template by a similarity."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from idbench.metrics.faces.detect import Faces
from idbench.metrics.faces.search import pad_frames
from idbench.metrics.protocol_types import Detection

TEMPLATE = np.array(
    [
        [38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float64,
)
"""Eye left, eye right, nose tip, mouth left, mouth right, in a crop of 112 x 112 pixels.

Source: insightface's `arcface_dst` (Deng et al., arXiv 1801.07698)."""


def similarity_transforms(points: np.ndarray, size: int = 112) -> np.ndarray:
    """Least-squares similarities that take points (n, 5, 2) onto the template of side `size`:
    float64 (n, 2, 3), template point = matrix @ (x, y, 1).

    A similarity is w = a z + b in complex numbers, with the closed form a = sum(conj(z - mean z) (w
    - mean w)) / sum(|z - mean z|^2): Umeyama's solution without reflection."""
    points = np.asarray(points, np.float64)
    target = TEMPLATE * (size / 112.0)
    z = points[..., 0] + 1j * points[..., 1]
    w = target[:, 0] + 1j * target[:, 1]
    z_mean = z.mean(-1, keepdims=True)
    centred = z - z_mean
    spread = (np.abs(centred) ** 2).sum(-1)
    # Five equal points have no scale; the crop is then one pixel, never a division by zero.
    a = (np.conj(centred) * (w - w.mean())).sum(-1) / np.maximum(spread, 1e-12)
    b = w.mean() - a * z_mean[..., 0]
    return np.stack(
        [np.stack([a.real, -a.imag, b.real], -1), np.stack([a.imag, a.real, b.imag], -1)], -2
    )


def align_crops(
    image: np.ndarray, landmarks: np.ndarray, size: int = 112, beyond: int = 0
) -> np.ndarray:
    """Aligned crops of the faces of an image, uint8 RGB (h, w, 3), by landmarks (n, 5, 2) in its
    pixels: uint8 (n, size, size, 3). `beyond` is the value outside of the image; insightface's is
    0."""
    matrices = similarity_transforms(landmarks, size)
    crops = np.zeros((len(matrices), size, size, 3), np.uint8)
    image = np.ascontiguousarray(image)
    for crop, matrix in zip(crops, matrices, strict=True):
        crop[:] = cv2.warpAffine(
            image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=(beyond,) * 3
        )
    return crops


def crops_of_frames(
    frames: np.ndarray, faces: Sequence[Faces], first: int, size: int,
    padding: Detection | None = None, beyond: int = 0,
) -> np.ndarray:
    """The aligned crops of all faces of uint8 RGB frames (k, h, w, 3): uint8 (n, size, size, 3).

    Args:
        first: side of the crop that is cut; a larger one is shrunk to `size` bilinearly, as the
            published evaluations do for CurricularFace (224 to 112).
        padding: faces found only in the padded frame are cut out of it; None: out of the frame.
        beyond: see `align_crops`.
    """
    parts = []
    for frame, of_frame in zip(frames, faces, strict=True):
        image, landmarks = frame, of_frame.landmarks
        if padding is not None and of_frame.retried:
            padded, shift = pad_frames(frame[None], padding)
            image, landmarks = padded[0], landmarks + shift
        parts.append(align_crops(image, landmarks, first, beyond))
    crops = np.concatenate(parts)
    if first == size or not len(crops):
        return crops.reshape(-1, size, size, 3)
    return np.stack([cv2.resize(crop, (size, size)) for crop in crops])
