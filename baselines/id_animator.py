"""ID-Animator: Stable Diffusion 1.5 and AnimateDiff with a face adapter.

diffusers' AnimateDiff pipeline with the files of the authors' Space, our resampler and face
attention (`face_attention`), and one average of several pictures of one person.
Source: arXiv 2404.15275 and its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from idbench.baselines.loading import RELEASED, ByWeights, ReleasedModel
from idbench.errors import UserError, explained
from idbench.names import number, one_of
from idbench.pictures import read_reference
from idbench.released_files import local
from idbench.types import Abilities, Reference, Sample

NEGATIVE = (
    "semi-realistic, cgi, 3d, render, sketch, cartoon, drawing, anime, text, close up, cropped, "
    "out of frame, worst quality, low quality, jpeg artifacts, ugly, duplicate, morbid, mutilated, "
    "extra fingers, mutated hands, poorly drawn hands, poorly drawn face, mutation, deformed, "
    "blurry, dehydrated, bad anatomy, bad proportions, extra limbs, cloned face, disfigured, gross "
    "proportions, malformed limbs, missing arms, missing legs, extra arms, extra legs, fused "
    "fingers, too many fingers, long neck"
)
"""The negative prompt of the authors' infer.py."""
CROP_OF = ("first", "largest")
MOST_PICTURES = 16
"""Of one person."""


class IDAnimator(ReleasedModel):
    """ID-Animator with its released networks.

    Args:
        pack: folder of the insightface pack that finds the face, or its catalogue name.
        scale: of the face's part in the attention.
        negative: text of the unconditional branch.
        base: the checkpoint of the folder that replaces Stable Diffusion's own weights, or `none`.
        crop_of: of several faces in a picture, the `first` (found most surely, as released) or
            the `largest`.
        bfloat16: half precision, float16 as released; else float32.
        The others as in `ReleasedModel`.
    """

    name = "id_animator"
    abilities = Abilities(
        people=(1, 1), licence="Apache-2.0", why="it averages the tokens of all references"
    )
    ENTRY = "id-animator"
    FILES = (
        "animatediff/sd/tokenizer", "animatediff/sd/text_encoder", "animatediff/sd/unet",
        "animatediff/sd/vae", "mm_sd_v15_v2.ckpt", "animator.ckpt", "image_encoder",
    )
    VARIANTS = (RELEASED,)
    SETTINGS = (*ReleasedModel.SETTINGS, "scale", "negative", "base", "crop_of")
    DEFAULTS: ClassVar[Mapping[str, float]] = {
        "steps": 30, "guidance": 8.0, "frames": 16, "height": 512, "width": 512, "fps": 9.0,
    }

    def __init__(
        self, variant: str | None = None, *, pack: str = "buffalo_l", scale: float = 0.8,
        negative: str = NEGATIVE, base: str = "realisticVisionV60B1_v51VAE.safetensors",
        crop_of: str = "first", **others: Any,
    ) -> None:
        super().__init__(variant, **others)
        self.crop_of = one_of("crop_of", crop_of, CROP_OF)
        if self.height % 8 or self.width % 8 or min(self.height, self.width) < 8:
            raise UserError("height and width must be multiples of 8.")
        if not 1 <= self.frames <= 32:
            raise UserError("frames must be 1 to 32, which the motion module has positions for.")
        self.pack_source, self.scale = str(pack), number("scale", scale)
        self.negative = negative
        self.base = str(base)

    @property
    def maximum_references(self) -> int:
        return MOST_PICTURES

    @cached_property
    def pack(self) -> Path:
        """The folder of the insightface pack."""
        return local(self.pack_source)

    @property
    def dtype(self) -> Any:
        import torch

        return torch.float16 if self.bfloat16 else torch.float32

    @property
    def files(self) -> tuple[str, ...]:
        return self.FILES if self.base == "none" else (*self.FILES, self.base)

    def weight_hashes(self) -> Mapping[str, str]:
        from idbench.metrics.faces.detect import detector_hashes
        from idbench.metrics.protocols import Detection

        detector = detector_hashes(Detection(detector="pack"), self.pack)
        return {**super().weight_hashes(), **detector}

    def _load(self, place: str) -> Any:
        from idbench.baselines.id_animator_parts import ImageTokens, build_pipeline
        from idbench.metrics.faces.detect import Scrfd

        self._detector = Scrfd(self.pack, 320, device=place)
        base = None if self.base == "none" else self.folder / self.base
        fix = f"run `idbench weights verify {self.entry}`"
        with explained(f"The folder {self.folder} cannot be loaded", fix):
            pipeline = build_pipeline(self.folder, base, self.scale, self.dtype)
            self._encoder = ImageTokens(self.folder, pipeline.unet.config.cross_attention_dim)
        self._encoder.to(place, self.dtype)
        return pipeline

    def _prepare(self, reference: Reference) -> tuple[Any, None]:
        """The tokens (1, 16, D) of the face, aligned on ArcFace's template."""
        from idbench.metrics.faces.crops import align_crops

        image = read_reference(reference.image)
        faces = self._detector.detect(image[None])[0]
        if not len(faces):
            raise UserError(
                f"No face was found in the reference {reference.image}; use another picture."
            )
        # The detector gives the surest first; `Faces` has the largest first.
        chosen = int(faces.scores.argmax()) if self.crop_of == "first" else 0
        crop = align_crops(image, faces.landmarks[chosen : chosen + 1])[0]
        return self._encoder.tokens(crop), None

    def _frames(self, sample: Sample) -> np.ndarray:
        import torch

        pipeline = self.networks
        with torch.inference_mode():
            faces = [self.prepared(reference) for reference in sample.references]
            words, without = pipeline.encode_prompt(
                sample.prompt, pipeline._execution_device, 1, True, negative_prompt=self.negative
            )
            return self._sampled(
                sample.seed,
                prompt_embeds=torch.cat([words, torch.stack(faces).mean(0)], dim=1),
                negative_prompt_embeds=torch.cat([without, self._encoder.nothing()], dim=1),
            )


MODEL = ByWeights(IDAnimator, "idbench.baselines.embedded_models:EmbeddedIDAnimator")
