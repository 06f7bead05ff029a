"""What ConsisID and Ingredients read from a photograph: recogniser, EVA-CLIP and a crop.

Source: ConsisID's `process_face_embeddings` (Apache-2.0, github.com/PKU-YuanGroup/ConsisID), in our
words: the vector of the largest face by antelopev2's recogniser, not normalised; a crop in FFHQ's
alignment whose background, neck, ears and hat become white; EVA-CLIP's features of the grey crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import normalize, resize

from idbench.baselines import eva_clip
from idbench.baselines.face_crop import Cropper, crop_face, limit_side, nearest_centre
from idbench.errors import UserError
from idbench.metrics.faces.align import align_crops
from idbench.metrics.faces.detect import Faces, Scrfd
from idbench.metrics.networks.pack import open_model

FOLDER = "face_encoder"
EVA = f"{FOLDER}/EVA02_CLIP_L_336_psz14_s6B.pt"
PACK = f"{FOLDER}/models/antelopev2"
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class FaceCondition:
    """One face, as the transformer reads it: `vector` (1, 1280), recogniser 512 and EVA-CLIP 768 of
    length 1; `hidden`, five states (1, 577, 1024) of EVA-CLIP; `crop`, uint8 RGB (512, 512, 3); and
    what could not be done as in the release, or None."""

    vector: torch.Tensor
    hidden: list[torch.Tensor]
    crop: np.ndarray
    problem: str | None = None


class FaceEncoder:
    """The networks, and what is done with them.

    Args:
        folder: the released folder.
        cropper: finds and masks the crop.
        crop_of: which face is cropped: `centre`, ConsisID's, which may be another person than the
            one whose vector is taken; `largest`, the face of the vector; or `first`, the one
            found most surely, Ingredients'.
        aligned: take the vector from the face aligned by its own points; False: always from
            the crop, as Ingredients does.
        white: make what is no face white and give EVA-CLIP a grey picture, as ConsisID does.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(
        self, folder: Path, cropper: Cropper, device: str, dtype: torch.dtype,
        crop_of: str = "centre", aligned: bool = True, white: bool = True,
    ) -> None:
        self.device, self.dtype = device, dtype
        self.cropper, self.crop_of, self.aligned, self.white = cropper, crop_of, aligned, white
        self._recogniser = open_model(folder / PACK, "recognition", device)
        self._detector = Scrfd(folder / PACK, 640, device=device) if aligned else None
        self._eva = eva_clip.load_eva(folder / EVA, device, dtype)

    @torch.no_grad()
    def encode(self, image: np.ndarray) -> FaceCondition:
        """The condition of a photograph, uint8 RGB (H, W, 3). Raises UserError: no face to crop."""
        image = limit_side(image)
        vector, point, problems = self._own_face(image)
        faces = self.cropper.find(image)
        if not len(faces):
            raise UserError("no face was found in it")
        chosen = self._choose(faces, image, point)
        crop = crop_face(image, faces.landmarks[chosen])
        if len(faces) > 1:
            problems.append(f"{len(faces)} faces found: {self.crop_of} one cropped")
        if vector is None:
            vector = self._vector(crop)
        crop, seen = self._masked(crop, problems)
        pooled, hidden = self._eva(self._prepared(seen))
        pooled = pooled / pooled.norm(dim=1, keepdim=True)
        face = torch.from_numpy(vector).reshape(1, -1).to(self.device, self.dtype)
        return FaceCondition(
            torch.cat([face, pooled], dim=-1), hidden, crop, "; ".join(problems) or None
        )

    def _choose(self, faces: Faces, image: np.ndarray, point: np.ndarray | None) -> int:
        """Which of the cropper's faces is cropped; `point`: the centre of the vector's face."""
        if self.crop_of == "first":
            return int(faces.scores.argmax())
        if self.crop_of == "largest":
            return 0 if point is None else nearest_centre(faces, point)
        return nearest_centre(faces, np.array([image.shape[1] / 2, image.shape[0] / 2]))

    def _own_face(self, image: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None, list]:
        """Vector and centre (x, y) of the largest face, where the recogniser's detector sees it."""
        if self._detector is None:
            return None, None, []
        faces = self._detector.detect(image[None])[0]
        if not len(faces):
            return None, None, ["no face for the recogniser: it reads the crop"]
        crop = align_crops(image, faces.landmarks[:1])[0]
        return self._vector(crop), faces.boxes[0].reshape(2, 2).mean(0), []

    def _vector(self, crop: np.ndarray) -> np.ndarray:
        # insightface takes BGR, swaps the channels itself, and shrinks a larger crop.
        return np.asarray(self._recogniser.get_feat(np.ascontiguousarray(crop[..., ::-1])))

    def _masked(self, crop: np.ndarray, problems: list) -> tuple[np.ndarray, torch.Tensor]:
        """The crop as the autoencoder sees it, and as EVA-CLIP does: float (1, 3, S, S), 0..1."""
        if not self.white:
            return crop, _to_picture(crop)
        mask = self.cropper.face_mask(crop)
        if mask is None:
            problems.append("no face parser: background kept")
            mask = np.ones(crop.shape[:2], bool)
        weights = torch.tensor(GREY).view(1, 3, 1, 1)
        grey = (_to_picture(crop) * weights).sum(1, keepdim=True).repeat(1, 3, 1, 1)
        seen = torch.where(torch.from_numpy(mask), grey, torch.ones_like(grey))
        return np.where(mask[..., None], crop, np.uint8(255)), seen

    def _prepared(self, picture: torch.Tensor) -> torch.Tensor:
        size = [self._eva.size, self._eva.size]
        small = resize(picture.to(self.device), size, InterpolationMode.BICUBIC)
        return normalize(small, eva_clip.MEAN, eva_clip.STD).to(self.dtype)


def _to_picture(crop: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
