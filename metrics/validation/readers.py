"""Readers of faces: the embedded recognisers, and dlib as one from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from idbench.metrics.faces.align import align_crops
from idbench.metrics.faces.detect import Detector
from idbench.metrics.faces.search import find_faces
from idbench.metrics.networks import dlib_resnet
from idbench.metrics.networks.recogniser import Recogniser
from idbench.metrics.protocols import get_protocol
from idbench.prompts.avatars.judge import dlib_embedding

DETECTION = get_protocol().detection
Embed = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From an image (h, w, 3) with a face's box (4,) and landmarks (5, 2) to an embedding (d,)."""


def readers() -> dict[str, Embed]:
    """The embedded recognisers by the metric they serve; and dlib where it is installed."""
    found = {"arcsim": _embedded("arcface"), "cursim": _embedded("curricularface")}
    if dlib_resnet.installed():
        found["dlib"] = lambda image, box, landmarks: dlib_embedding(image, box)
    return found


def _embedded(name: str) -> Embed:
    network = Recogniser(name)

    def embed(image: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        crops = align_crops(image, landmarks[None], DETECTION.crop, DETECTION.crop_beyond)
        return network.embed(crops)[0]
    return embed


def mean_vectors(
    frames: np.ndarray, detector: Detector, by: Mapping[str, Embed]
) -> dict[str, np.ndarray | None]:
    """Of each reader, the mean of the embeddings, each at length 1, of the frames' largest faces.

    None without faces.
    """
    found = find_faces(detector, frames, DETECTION)
    seen = [(frame, faces.boxes[0], faces.landmarks[0])
            for frame, faces in zip(frames, found, strict=True) if len(faces)]
    if not seen:
        return dict.fromkeys(by)
    vectors = {name: np.stack([embed(*face) for face in seen]) for name, embed in by.items()}
    return {
        name: (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0)
        for name, rows in vectors.items()
    }
