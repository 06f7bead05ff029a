"""What happens to a face between a renderer and a generated video: blur, blocks, noise, shifts."""

from __future__ import annotations

import cv2
import numpy as np

from idbench.metrics.faces.align import align_crops


def face_patch(frame: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of a frame that an aligned crop can show, and the landmarks in its pixels.

    Degrading this part alone costs a fraction of degrading the whole frame.
    """
    centre = landmarks.mean(0)
    reach = 3.6 * max(4.0, float(np.linalg.norm(landmarks - centre, axis=1).max()))
    x0, y0 = np.maximum(np.floor(centre - reach).astype(int), 0)
    x1, y1 = np.ceil(centre + reach).astype(int) + 1
    patch = np.ascontiguousarray(frame[y0:y1, x0:x1])
    return patch, landmarks - np.array([x0, y0], landmarks.dtype)


def degrade(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A patch as a codec, a decoder or a small sensor might have left it; uint8 as before."""
    height, width = patch.shape[:2]
    if rng.random() < 0.4:  # detail lost by a lower resolution
        scale = rng.uniform(0.55, 0.95)
        size = max(8, round(width * scale)), max(8, round(height * scale))
        patch = cv2.resize(patch, size, interpolation=cv2.INTER_AREA)
        patch = cv2.resize(patch, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.4:
        patch = cv2.GaussianBlur(patch, (0, 0), rng.uniform(0.3, 1.1))
    if rng.random() < 0.35:
        quality = int(rng.integers(35, 92))
        _, data = cv2.imencode(".jpg", patch, [cv2.IMWRITE_JPEG_QUALITY, quality])
        patch = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    values = patch.astype(np.float64)
    if rng.random() < 0.4:  # exposure and white balance; small: skin's colour is identity
        values = values * rng.uniform(0.93, 1.07) * rng.uniform(0.97, 1.03, 3) + rng.normal(0, 3)
    if rng.random() < 0.4:
        values = values + rng.normal(0, rng.uniform(1, 7), values.shape)
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def extent(landmarks: np.ndarray) -> np.ndarray:
    """The largest distance of a landmark from their mean, (...,) of (..., 5, 2), in pixels."""
    away = landmarks - landmarks.mean(-2, keepdims=True)
    return np.linalg.norm(away, axis=-1).max(-1)


def jitter_landmarks(
    landmarks: np.ndarray, rng: np.random.Generator, errors: np.ndarray | None = None
) -> np.ndarray:
    """Landmarks (5, 2) as a detector might give them.

    With `errors` (n, 5, 2), what a detector was off by in units of `extent`, one of them is
    added in three of four cases. All are moved, turned and scaled a little besides.
    """
    scale = float(extent(landmarks)) + 1e-6
    moved = landmarks.astype(np.float64)
    if errors is not None and len(errors) and rng.random() < 0.75:
        moved = moved + errors[rng.integers(len(errors))] * scale * rng.uniform(0.7, 1.2)
    moved = moved + rng.normal(0, 0.035 * scale, moved.shape) + rng.normal(0, 0.04 * scale, 2)
    return moved.astype(np.float32)


def training_crop(
    frame: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator, size: int,
    errors: np.ndarray | None = None, clean: float = 0.25,
) -> np.ndarray:
    """An augmented aligned crop of one face, uint8 (size, size, 3).

    Made as the metrics make it: a crop of 112 pixels first, then shrunk to the network's size.
    `errors` as of `jitter_landmarks`; `clean` is the share of crops left undegraded.
    """
    patch, points = face_patch(frame, landmarks)
    if rng.random() >= clean:
        patch = degrade(patch, rng)
    crop = align_crops(patch, jitter_landmarks(points, rng, errors)[None])[0]
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) if size != 112 else crop
