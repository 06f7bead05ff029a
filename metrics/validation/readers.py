"""Readers of faces: the embedded recognisers, and dlib as one from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from idbench.metrics.faces.align import align_crops
from idbench.metrics.faces.detect import Detector, Faces
from idbench.metrics.faces.search import find_faces
from idbench.metrics.networks import dlib_resnet
from idbench.metrics.networks.recogniser import Recogniser
from idbench.metrics.protocols import STRICT
from idbench.prompts.avatars.judge import dlib_embedding

Embed = Callable[[np.ndarray, Faces], np.ndarray]
"""A frame and the faces in it to the embedding of the largest face, of length 1."""


def readers() -> dict[str, Embed]:
    """The embedded recognisers by the metric they serve; and dlib where it is installed."""
    found: dict[str, Embed] = {
        "arcsim": _embedded("arcface"), "cursim": _embedded("curricularface"),
    }
    if dlib_resnet.installed():
        found["dlib"] = by_dlib
    return found


def _embedded(name: str) -> Embed:
    return by_recogniser(Recogniser(name))


def by_recogniser(network: Recogniser) -> Embed:
    """A reader of aligned crops."""
    def embed(frame: np.ndarray, faces: Faces) -> np.ndarray:
        crops = align_crops(frame, faces.landmarks[:1], STRICT.detection.crop)
        return network.embed(crops)[0]
    return embed


def by_dlib(frame: np.ndarray, faces: Faces) -> np.ndarray:
    """dlib's embedding at length 1."""
    vector = dlib_embedding(frame, faces.boxes[0])
    return vector / np.linalg.norm(vector)


def mean_vectors(
    frames: np.ndarray, detector: Detector, by: Mapping[str, Embed]
) -> dict[str, np.ndarray | None]:
    """Of each reader, the mean embedding of the largest face of the frames; None without faces."""
    found = find_faces(detector, frames, STRICT.detection)
    seen = [(frame, faces) for frame, faces in zip(frames, found, strict=True) if len(faces)]
    if not seen:
        return dict.fromkeys(by)
    return {
        name: np.mean([embed(frame, faces) for frame, faces in seen], axis=0)
        for name, embed in by.items()
    }
