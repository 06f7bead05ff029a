"""Face crops of 512 pixels in FFHQ's alignment, and their masks, as ConsisID's family makes them.

With facexlib installed these are its RetinaFace and BiSeNet with the released weights; without, the
five points of an insightface pack (`PackCropper`), whose crops differ by a few pixels.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from idbench.checkpoints import fit, read_checkpoint
from idbench.errors import UserError
from idbench.metrics.faces.detect import Faces, Scrfd, sorted_faces
from idbench.metrics.networks.clip import MEAN_STD

SIDE = 512
TEMPLATE = np.array(
    [
        [192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935],
        [201.26117, 371.41043], [313.08905, 371.15118],
    ]
)
"""Five points of a face in the crop. Source: facexlib 0.3, `FaceRestoreHelper`."""
OUTSIDE = (132, 133, 135)
"""RGB of what the picture does not cover. Source: as above."""
CERTAIN = 0.97
"""Least score of a face. Source: as above."""
REMOVED = (0, 7, 8, 9, 14, 15, 16, 18)
"""BiSeNet's classes that ConsisID makes white: background, ears, ear ring, neck, necklace, clothes
and hat."""


class BiSeNet:
    """facexlib's face parser of 19 classes with its released file, ready to read crops.
    Raises UserError: facexlib is not installed; the file is missing, damaged or of another
    network."""

    def __init__(self, path: Path, device: str) -> None:
        network = _facexlib("parsing.bisenet", "The released face parser").BiSeNet(num_class=19)
        self.device = device
        state = read_checkpoint(path).state
        self._network = fit(network, state, path, "BiSeNet").to(device)

    @torch.no_grad()
    def classes(self, pictures: torch.Tensor) -> np.ndarray:
        """The class of each pixel, (512, 512), of a normalised crop (1, 3, 512, 512)."""
        found: np.ndarray = self._network(pictures.to(self.device))[0].argmax(1)[0].cpu().numpy()
        return found


class FacexlibCropper:
    """facexlib's RetinaFace and BiSeNet with their released files `detection` and `parsing` (None:
    nothing is masked). Raises UserError: facexlib is not installed; a file is missing or
    damaged."""

    def __init__(self, detection: Path, parsing: Path | None, device: str) -> None:
        found = _facexlib("detection.retinaface", "The released face crop")
        self.device = device
        with warnings.catch_warnings():  # about arguments of torchvision
            warnings.simplefilter("ignore", UserWarning)
            network = found.RetinaFace(network_name="resnet50", device=device)
        state = read_checkpoint(detection).state
        self._detector: Any = fit(network, state, detection, "RetinaFace").to(device)
        self._parser = None if parsing is None else BiSeNet(parsing, device)

    def find(self, image: np.ndarray) -> Faces:
        """The faces of uint8 RGB (H, W, 3)."""
        with torch.no_grad():
            found = self._detector.detect_faces(np.ascontiguousarray(image[..., ::-1]), CERTAIN)
        return sorted_faces(found[:, :4], found[:, 4], found[:, 5:15].reshape(-1, 5, 2))

    def face_mask(self, crop: np.ndarray) -> np.ndarray | None:
        """bool (512, 512), True where the crop shows the face; None: it does not know."""
        if self._parser is None:
            return None
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in MEAN_STD["imagenet"])
        return ~np.isin(self._parser.classes((as_tensor(crop) / 255 - mean) / std), REMOVED)


class PackCropper:
    """SCRFD of the insightface folder `pack`, and any face parser
    (`concat_id.references.Foreground`; None: the background stays), for use without facexlib."""

    def __init__(
        self, pack: Path, foreground: Callable[[np.ndarray], np.ndarray] | None, device: str
    ) -> None:
        self._detector = Scrfd(pack, 640, device=device)
        self._foreground = foreground

    def find(self, image: np.ndarray) -> Faces:
        return self._detector.detect(image[None])[0]

    def face_mask(self, crop: np.ndarray) -> np.ndarray | None:
        return None if self._foreground is None else self._foreground(crop) >= 0.5


Cropper = FacexlibCropper | PackCropper
"""Finds faces, and says which pixels of a crop belong to the head."""


def as_tensor(crop: np.ndarray) -> torch.Tensor:
    """A crop, uint8 RGB (h, w, 3), as float32 (1, 3, h, w) in 0..255."""
    return torch.from_numpy(crop).permute(2, 0, 1)[None].float()


def nearest_centre(faces: Faces, point: np.ndarray) -> int:
    """The face whose box's centre is nearest to `point` (x, y)."""
    centres = faces.boxes.reshape(-1, 2, 2).mean(1)
    return int(np.linalg.norm(centres - point, axis=1).argmin())


def crop_face(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """uint8 RGB (512, 512, 3): five points onto `TEMPLATE` by least median squares."""
    matrix = cv2.estimateAffinePartial2D(landmarks, TEMPLATE, method=cv2.LMEDS)[0]
    if matrix is None:
        raise UserError("the points of its face lie on one spot")
    return cv2.warpAffine(np.ascontiguousarray(image), matrix, (SIDE, SIDE), borderValue=OUTSIDE)


def limit_side(image: np.ndarray, longest: int = 1024) -> np.ndarray:
    """`image` shrunk until its longer side is at most `longest`, as the release does it."""
    height, width = image.shape[:2]
    if max(height, width) <= longest:
        return image
    scale = longest / max(height, width)
    size = (int(width * scale), int(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_LANCZOS4)


def _facexlib(module: str, why: str) -> Any:
    """A module of facexlib, which the extra `consisid` of idbench installs."""
    try:
        return importlib.import_module(f"facexlib.{module}")
    except ImportError as error:
        raise UserError(
            f"{why} needs the package facexlib ({error}); run pip install 'idbench[consisid]'."
        ) from error
