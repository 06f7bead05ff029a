"""The largest face of an image: found, aligned and embedded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from idbench.metrics.faces.align import align_crops
from idbench.metrics.faces.detect import Faces, make_detector
from idbench.metrics.faces.search import find_faces
from idbench.metrics.networks.weight_sources import NETWORKS, Source
from idbench.metrics.protocols import Detection

EMBEDDED = "embedded arcface"
"""Name of the recogniser that comes with idbench, in records."""


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
