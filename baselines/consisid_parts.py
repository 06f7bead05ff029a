"""ConsisID's and Ingredients' solver, EVA-CLIP's tower, and what they read from a photograph.

The tower is EVA02-CLIP's (Sun et al., EVA-CLIP, arXiv 2303.15389) from its released file, on timm's
class. The photograph is read as ConsisID's `process_face_embeddings` does (Apache-2.0,
github.com/PKU-YuanGroup/ConsisID), in our words: the vector of the largest face by antelopev2's
recogniser, not normalised; a crop in FFHQ's alignment whose background, neck, ears and hat become
white; EVA-CLIP's features of the grey crop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXDPMScheduler
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import normalize, resize

from idbench.baselines.face_crop import Cropper, as_tensor, crop_face, limit_side, nearest_centre
from idbench.checkpoints import check_fit, read_checkpoint
from idbench.embedded import WeightError
from idbench.errors import UserError
from idbench.metrics.faces.crops import align_crops
from idbench.metrics.faces.detect import Faces, Scrfd
from idbench.metrics.networks.clip import MEAN_STD
from idbench.metrics.networks.pack import open_model

FOLDER = "face_encoder"
EVA = f"{FOLDER}/EVA02_CLIP_L_336_psz14_s6B.pt"
PACK = f"{FOLDER}/models/antelopev2"
GREY = (0.299, 0.587, 0.114)
ARCHITECTURE = "eva02_large_patch14_clip_336"
WHAT = "the image tower of EVA02-CLIP-L-336"
HEAD = 64
"""Width of an attention head."""
STEP = 4
"""Hidden states are taken before every fourth block but the first."""


class AnyStepsScheduler(CogVideoXDPMScheduler):
    """As diffusers', but each step goes to the next time, and the last one to clean latents.

    diffusers goes `1000 // steps` times back, which misses the next time wherever the number of
    steps does not divide 1000: 60 steps never take the last one and leave grain. For 61, 103, ...
    steps it has one time too many, -1.
    """

    def set_timesteps(
        self, num_inference_steps: int, device: str | torch.device | None = None
    ) -> None:
        super().set_timesteps(num_inference_steps, device)
        times: torch.Tensor = self.timesteps  # type: ignore[has-type]
        self.timesteps = times[:num_inference_steps]

    def step(
        self, model_output: torch.Tensor, old_pred_original_sample: torch.Tensor | None,
        timestep: Any, timestep_back: Any, sample: torch.Tensor, *,
        generator: torch.Generator | list[torch.Generator] | None = None, **options: Any,
    ) -> Any:
        # diffusers passes the sample's generator only where the signature names it.
        # The schedule at the chosen times alone, where the next time is one place back.
        times = self.timesteps.tolist()
        number = times.index(int(timestep))
        place = len(times) - 1 - number
        chosen = copy(self)
        chosen.alphas_cumprod = self.alphas_cumprod[times[::-1]]
        chosen.final_alpha_cumprod = torch.tensor(1.0)
        chosen.num_inference_steps = self.config.num_train_timesteps
        return CogVideoXDPMScheduler.step(
            chosen, model_output, old_pred_original_sample, place, place + 1 if number else None,
            sample, generator=generator, **options,
        )


class EvaTower(nn.Module):
    """The tower, with the hidden states that face encoders read.

    `state` holds the tensors of the file `path`; sizes are those of `visual.*`; `size` is the side
    of the picture in pixels. Raises WeightError: other names or shapes."""

    def __init__(self, state: Mapping[str, torch.Tensor], path: Path) -> None:
        super().__init__()
        from timm import create_model
        from timm.models.eva import checkpoint_filter_fn

        visual = {name: value for name, value in state.items() if name.startswith("visual.")}
        try:
            width = visual["visual.cls_token"].shape[-1]
            patch = visual["visual.patch_embed.proj.weight"].shape[-1]
            side = math.isqrt(visual["visual.pos_embed"].shape[1] - 1)
            hidden = visual["visual.blocks.0.mlp.w1.weight"].shape[0]
            classes = visual["visual.head.weight"].shape[0]
        except KeyError as error:
            raise WeightError(f"{path} does not hold {WHAT}: it lacks {error.args[0]}.") from error
        depth = 1 + max(int(n.split(".")[2]) for n in visual if n.startswith("visual.blocks."))
        self.size = side * patch
        with torch.device("meta"):
            tower: Any = create_model(
                ARCHITECTURE, img_size=self.size, patch_size=patch, embed_dim=width, depth=depth,
                num_heads=width // HEAD, mlp_ratio=hidden / width, num_classes=classes,
            )
        tensors = checkpoint_filter_fn(visual, tower)
        check_fit(tensors, tower.state_dict(), path, WHAT)
        tower.load_state_dict(tensors, assign=True)
        # Its rotary table is computed, not stored.
        table = create_model(
            ARCHITECTURE, img_size=self.size, patch_size=patch, embed_dim=HEAD * 2, depth=1,
            num_heads=2, num_classes=0,
        )
        tower.rope = table.rope
        self.tower = tower
        self.layers = [block - 1 for block in range(STEP, depth, STEP)]

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Pooled features (B, D) and the hidden states, each (B, tokens, width), of pictures (B, 3,
        size, size) normalised as CLIP's."""
        last, states = self.tower.forward_intermediates(
            pictures, self.layers, return_prefix_tokens=True, output_fmt="NLC"
        )
        hidden = [torch.cat([prefix, patches], dim=1) for patches, prefix in states]
        return self.tower.forward_head(last), hidden


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
        cropper: finds the faces, and says which pixels of a crop are of the head.
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
        crop_of: str, aligned: bool, white: bool,
    ) -> None:
        self.device, self.dtype = device, dtype
        self.cropper, self.crop_of, self.aligned, self.white = cropper, crop_of, aligned, white
        self._recogniser = open_model(folder / PACK, "recognition", device)
        self._detector = Scrfd(folder / PACK, 640, device=device) if aligned else None
        eva = EvaTower(read_checkpoint(folder / EVA, mapped=True).state, folder / EVA)
        self._eva = eva.to(device, dtype).eval().requires_grad_(False)

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
        small = resize(seen.to(self.device), [self._eva.size] * 2, InterpolationMode.BICUBIC)
        pooled, hidden = self._eva(normalize(small, *MEAN_STD["clip"]).to(self.dtype))
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
            return crop, as_tensor(crop) / 255
        mask = self.cropper.face_mask(crop)
        if mask is None:
            problems.append("no face parser: background kept")
            mask = np.ones(crop.shape[:2], bool)
        weights = torch.tensor(GREY).view(1, 3, 1, 1)
        grey = (as_tensor(crop) / 255 * weights).sum(1, keepdim=True).repeat(1, 3, 1, 1)
        seen = torch.where(torch.from_numpy(mask), grey, torch.ones_like(grey))
        return np.where(mask[..., None], crop, np.uint8(255)), seen
