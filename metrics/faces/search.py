"""The search for faces that a protocol describes: sizes, padding, and a second look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from idbench.metrics.faces.detect import BATCH, Detector, Faces, sorted_faces
from idbench.metrics.networks.batches import Batches
from idbench.metrics.protocol_types import Detection

FLATTEST = 64
"""A frame with a larger aspect ratio contains no face, and enlarging it fills the memory."""
SAME_FACE = 0.4
"""Overlap (intersection over union) from which two boxes of two searches are one face's."""


def find_faces(detector: Detector, frames: np.ndarray, settings: Detection) -> list[Faces]:
    """Faces of uint8 RGB frames (t, h, w, 3), in pixels of those frames; one entry a frame.

    As `settings` says, small frames are enlarged first, frames without a face are searched again
    with grey around them (a face that fills the image is cut by its border), and faces near the
    border are measured again in that padded frame, since their landmarks are off."""
    frames = np.asarray(frames)
    found = _search(detector, frames, settings.height)
    missing = [i for i, faces in enumerate(found) if not len(faces)]
    which = [_near_border(faces.boxes, frames.shape[1:3], settings.border) for faces in found]
    near = [i for i in range(len(found)) if settings.border > 0 and which[i].any()]
    if missing and settings.retry_padding > 0:
        again = _search_padded(detector, frames[missing], settings, settings.height)
        for i, faces in zip(missing, again, strict=True):
            found[i] = replace(faces, retried=len(faces) > 0)
    if near:
        # Enlarged as much as without the padding, so that no face gets too small to be found.
        height = round(settings.height * (1 + 2 * settings.retry_padding))
        again = _search_padded(detector, frames[near], settings, height)
        for i, faces in zip(near, again, strict=True):
            found[i] = _replace_faces(found[i], faces, which[i])
    return found


def pad_frames(frames: np.ndarray, settings: Detection) -> tuple[np.ndarray, np.ndarray]:
    """Frames (t, h, w, 3) with grey around them, and the x and y (2,) that this adds."""
    whole = int if settings.retry_crop == "padded" else round
    y, x = (whole(side * settings.retry_padding) for side in frames.shape[1:3])
    padded = np.pad(frames, ((0, 0), (y, y), (x, x), (0, 0)), constant_values=settings.retry_grey)
    return padded, np.array([x, y], np.float32)


def _search_padded(
    detector: Detector, frames: np.ndarray, settings: Detection, height: int
) -> list[Faces]:
    """Faces of the padded frames, in pixels of the frames themselves."""
    padded, shift = pad_frames(frames, settings)
    return [faces.moved(lambda at: at - shift) for faces in _search(detector, padded, height)]


def _near_border(boxes: np.ndarray, shape: Sequence[int], share: float) -> np.ndarray:
    """Which boxes (n, 4) come nearer to the border of (height, width) than a share of their size.
    """
    height, width = shape
    sides = boxes[:, 2:] - boxes[:, :2]
    room = np.concatenate([boxes[:, :2], [width, height] - boxes[:, 2:]], axis=1).min(1)
    return room < share * sides.max(1)


def _replace_faces(first: Faces, again: Faces, which: np.ndarray) -> Faces:
    """`first`, its faces of `which` replaced by those of `again` that overlap them most."""
    overlap = _overlaps(first.boxes, again.boxes)
    boxes, landmarks, scores = first.boxes.copy(), first.landmarks.copy(), first.scores.copy()
    for face in np.flatnonzero(which):
        other = int(overlap[face].argmax()) if len(again) else 0
        if len(again) and overlap[face, other] >= SAME_FACE:
            boxes[face], landmarks[face] = again.boxes[other], again.landmarks[other]
            scores[face] = again.scores[other]
            overlap[:, other] = 0.0
    return sorted_faces(boxes, scores, landmarks)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and (m, 4): (n, m)."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    shared = np.clip(high - low, 0.0, None).prod(-1)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(-1) for x in (a, b))
    return shared / np.maximum(area_a[:, None] + area_b - shared, 1e-9)


def _search(detector: Detector, frames: np.ndarray, height: int) -> list[Faces]:
    scale = max(1.0, height / frames.shape[1])
    if scale > 1.0 and frames.shape[2] > FLATTEST * frames.shape[1]:
        return [Faces.none() for _ in frames]
    size = round(frames.shape[2] * scale), round(frames.shape[1] * scale)

    def detect(start: int, end: int) -> list[Faces]:
        part = frames[start:end]
        if scale > 1.0:
            part = np.stack(
                [cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in part]
            )
        return detector.detect(part)

    batches = getattr(detector, "batches", None) or Batches(BATCH)
    found = [faces for part in batches.run(detect, len(frames)) for faces in part]
    # Resizing maps pixel centres: x_small + 0.5 = (x_large + 0.5) / scale.
    ratio = np.array([size[0] / frames.shape[2], size[1] / frames.shape[1]], np.float32)
    return [faces.moved(lambda at: (at + 0.5) / ratio - 0.5) for faces in found]
