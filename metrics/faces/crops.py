"""The faces of frames: the search that a protocol describes, aligned crops, and embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from idbench.metrics.faces.detect import BATCH, Detector, Faces, make_detector, sorted_faces
from idbench.metrics.networks.batches import Batches
from idbench.metrics.networks.weight_sources import NETWORKS, Source
from idbench.metrics.protocol_types import Detection

FLATTEST = 64
"""A frame with a larger aspect ratio contains no face, and enlarging it fills the memory."""
SAME_FACE = 0.4
"""Overlap (intersection over union) from which two boxes of two searches are one face's."""
TEMPLATE = np.array(
    [
        [38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float64,
)
"""Eye left, eye right, nose tip, mouth left, mouth right, in a crop of 112 x 112 pixels.

Source: insightface's `arcface_dst` (Deng et al., arXiv 1801.07698)."""
EMBEDDED = "embedded arcface"
"""Name of the recogniser that comes with idbench, in records."""


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


class FaceEmbedder:
    """A detector and a recogniser: the embedded ones, or those of an insightface `pack` folder.

    `detector` and `recogniser` are their names, `sha256` is of the recogniser's weights: embeddings
    of other weights cannot be compared. Raises UserError: weights are missing or damaged."""

    def __init__(self, pack: Path | None = None) -> None:
        self.detection = Detection(detector=f"scrfd:{pack}") if pack else Detection()
        self._detector = make_detector(self.detection)
        source = Source(NETWORKS["arcface"], "insightface" if pack else "", pack)
        self._recogniser = source.load()
        self.detector = self._detector.name
        self.recogniser = f"{pack.name}/{source.file().name}" if pack else EMBEDDED
        (self.sha256,) = source.hashes().values()

    def find(self, images: np.ndarray) -> list[Faces]:
        """The faces of each of uint8 RGB images (n, H, W, 3), largest first."""
        return find_faces(self._detector, images, self.detection)

    def embed_largest(self, images: np.ndarray, faces: list[Faces] | None = None) -> np.ndarray:
        """Embeddings of the largest face of each of uint8 RGB images (n, H, W, 3): float32 (n, d)
        of length 1, NaN without a face; (n, 1) if none has one. `faces`: of `find`, if known."""
        found = self.find(images) if faces is None else faces
        seen = [i for i, of_image in enumerate(found) if len(of_image)]
        if not seen:
            return np.full((len(images), 1), np.nan, np.float32)
        crops = [align_crops(images[i], found[i].landmarks[:1], self.detection.crop) for i in seen]
        vectors = self._recogniser.embed(np.concatenate(crops))
        result = np.full((len(images), vectors.shape[1]), np.nan, np.float32)
        result[seen] = vectors
        return result
