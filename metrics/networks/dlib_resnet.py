"""dlib's face recogniser: a ResNet trained on photographs (package `face-recognition-models`).

Trained on about 3 million photographs with a metric loss on Euclidean distances, so neither its
data nor its loss are those of ArcFace. dlib calls two faces the same person at a distance below
0.6. Source: http://dlib.net/face_recognition.py.html
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from idbench.embedded import WeightError
from idbench.errors import UserError

INSTALL = "pip install dlib-bin face-recognition-models"
CHIP, MARGIN = 150, 0.25
"""Side of the aligned crop in pixels, and the margin around the face, as the network expects."""
BROW = 0.1
"""dlib's boxes begin at the brows: this share of a detector's box lies above them."""
DIMENSION = 128


def installed() -> bool:
    """Whether dlib and its weights are there; imports neither."""
    return all(find_spec(name) for name in ("dlib", "face_recognition_models"))


def recogniser_file() -> Path:
    """The weights of the recogniser. Raises UserError: the packages are not installed."""
    return _model_file("dlib_face_recognition_resnet_model_v1.dat")


def landmarks_file() -> Path:
    """The weights of the five landmarks that faces are aligned by; as `recogniser_file`."""
    return _model_file("shape_predictor_5_face_landmarks.dat")


def _model_file(name: str) -> Path:
    spec = find_spec("face_recognition_models")  # importing it needs the removed pkg_resources
    if not installed() or spec is None or spec.origin is None:
        raise UserError(f"DlibSim needs dlib and its weights; install them with `{INSTALL}`.")
    return Path(spec.origin).parent / "models" / name


class DlibRecogniser:
    """dlib's recogniser from a weight file, and its landmarks, ready to embed faces. Raises
    UserError: the packages are not installed; WeightError: the file is not of this network."""

    def __init__(self, file: Path) -> None:
        landmarks = landmarks_file()
        import dlib

        self._dlib: Any = dlib
        try:
            self._network = dlib.face_recognition_model_v1(str(file))
        except RuntimeError as error:
            raise WeightError(f"{file} does not hold dlib's face recogniser ({error}).") from error
        self._landmarks = dlib.shape_predictor(str(landmarks))

    def embed(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Descriptors of the faces in boxes (n, 4), x0 y0 x1 y1, of a uint8 RGB image: float64 (n,
        128), compared by distance."""
        if not len(boxes):
            return np.zeros((0, DIMENSION))
        image = np.ascontiguousarray(image)
        chips = [
            self._dlib.get_face_chip(image, self._landmarks(image, self._box(box)), CHIP, MARGIN)
            for box in np.asarray(boxes, float)
        ]
        return np.array(self._network.compute_face_descriptor(chips))

    def _box(self, box: Sequence[float]) -> Any:
        x0, y0, x1, y1 = box
        return self._dlib.rectangle(*map(round, (x0, y0 + BROW * (y1 - y0), x1, y1)))


load = cache(DlibRecogniser)
"""The recogniser of a weight file, loaded once a process."""
