"""ID-Animator: Stable Diffusion 1.5 and AnimateDiff with a face adapter.

diffusers' AnimateDiff pipeline with the files of the authors' Space, our resampler and face
attention (`face_attention`), and one average of several pictures of one person.
Source: arXiv 2404.15275 and its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from idbench.baselines.loading import (
    RELEASED,
    ByWeights,
    ReleasedModel,
    place_pipeline,
    to_uint8,
    usable_place,
)
from idbench.errors import UserError, explained
from idbench.names import unknown
from idbench.pictures import read_reference
from idbench.released_files import local
from idbench.types import Abilities, Reference, Sample, Video
from idbench.values import number

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


@dataclass(frozen=True)
class Loaded:
    """The pipeline, what makes face tokens, and what finds faces."""

    pipeline: Any
    encoder: Any
    detector: Any


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
    DEFAULTS: ClassVar[Mapping[str, float]] = {
        "steps": 30, "guidance": 8.0, "frames": 16, "height": 512, "width": 512, "fps": 9.0,
    }

    def __init__(
        self, variant: str | None = None, *, pack: str = "buffalo_l", scale: float = 0.8,
        negative: str = NEGATIVE, base: str = "realisticVisionV60B1_v51VAE.safetensors",
        crop_of: str = "first", **others: Any,
    ) -> None:
        super().__init__(variant, **others)
        if crop_of not in CROP_OF:
            raise unknown("crop_of", crop_of, CROP_OF)
        if self.height % 8 or self.width % 8 or min(self.height, self.width) < 8:
            raise UserError("height and width must be multiples of 8.")
        if not 1 <= self.frames <= 32:
            raise UserError("frames must be 1 to 32, which the motion module has positions for.")
        self.pack_source, self.scale = str(pack), number("scale", scale)
        self.negative = negative
        self.base, self.crop_of = str(base), crop_of
        self._tokens: dict[str, Any] = {}

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

    def settings(self) -> Mapping[str, Any]:
        return {
            **super().settings(), "scale": self.scale, "negative": self.negative,
            "base": self.base, "crop_of": self.crop_of,
        }

    def weight_hashes(self) -> Mapping[str, str]:
        from idbench.metrics.networks.pack import pack_file, pack_hash

        detector = pack_file(self.pack, "detection").name
        return {
            **super().weight_hashes(),
            f"detector/{detector}": pack_hash(self.pack, "detection"),
        }

    def _load(self) -> Loaded:
        from idbench.baselines.id_animator_parts import ImageTokens, build_pipeline
        from idbench.metrics.faces.detect import Scrfd

        place = usable_place(self.device, self.offload)
        detector = Scrfd(self.pack, 320, device=place)
        base = None if self.base == "none" else self.folder / self.base
        fix = f"run `idbench weights verify {self.entry}`"
        with explained(f"The folder {self.folder} cannot be loaded", fix):
            pipeline = build_pipeline(self.folder, base, self.scale, self.dtype)
            encoder = ImageTokens(self.folder, pipeline.unet.config.cross_attention_dim)
        encoder.to(place, self.dtype)
        return Loaded(place_pipeline(pipeline, place, self.offload, self.tiling), encoder, detector)

    def _crop(self, reference: Reference) -> np.ndarray:
        """The face, uint8 RGB (112, 112, 3), on ArcFace's template."""
        from idbench.metrics.faces.align import align_crops

        image = read_reference(reference.image)
        faces = self.networks.detector.detect(image[None])[0]
        if not len(faces):
            raise UserError(
                f"No face was found in the reference {reference.image}; use another picture."
            )
        # The detector gives the surest first; `Faces` has the largest first.
        chosen = int(faces.scores.argmax()) if self.crop_of == "first" else 0
        return align_crops(image, faces.landmarks[chosen : chosen + 1])[0]

    def _face_tokens(self, reference: Reference) -> Any:
        """The tokens of a picture, computed once."""
        key = str(reference.image)
        if key not in self._tokens:
            self._tokens[key] = self.networks.encoder.tokens(self._crop(reference))
        return self._tokens[key]

    def _video(self, sample: Sample) -> Video:
        import torch

        loaded = self.networks
        with torch.inference_mode():
            faces = [self._face_tokens(reference) for reference in sample.references]
            words, without = self._words(sample.prompt)
            frames = loaded.pipeline(
                prompt_embeds=torch.cat([words, torch.stack(faces).mean(0)], dim=1),
                negative_prompt_embeds=torch.cat([without, loaded.encoder.nothing()], dim=1),
                num_inference_steps=self.steps, guidance_scale=self.guidance,
                num_frames=self.frames, height=self.height, width=self.width,
                # On the CPU, so that a seed means the same noise on every device.
                generator=torch.Generator().manual_seed(sample.seed), output_type="np",
            ).frames[0]
        return Video(to_uint8(frames), self.fps)

    def _words(self, prompt: str) -> Sequence[Any]:
        """Text embeddings (1, 77, D) of the prompt and of the negative one."""
        pipeline = self.networks.pipeline
        return pipeline.encode_prompt(
            prompt, pipeline._execution_device, 1, True, negative_prompt=self.negative
        )


MODEL = ByWeights(IDAnimator, "idbench.baselines.embedded_models:EmbeddedIDAnimator")
