"""ConsisID: a face's low frequencies beside the latents, its high frequencies by cross-attention.

diffusers' pipeline and transformer with the released folder (BestWishYsh/ConsisID-preview), and our
own face preparation, which needs facexlib alone of the three packages that diffusers' asks for.
Source: arXiv 2411.17440 and its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from idbench.baselines.loading import (
    RELEASED,
    ByWeights,
    ReleasedModel,
    exact_size,
    load_pipeline,
    to_uint8,
    usable_place,
)
from idbench.errors import UserError, explained
from idbench.names import unknown
from idbench.pictures import read_reference
from idbench.types import Abilities, Reference, Sample, Video
from idbench.values import switch

CROPS = ("facexlib", "pack")
DETECTION = "face_encoder/detection_Resnet50_Final.pth"
PARSING = "face_encoder/parsing_bisenet.pth"
"""Files of facexlib's networks in the released folder."""


@dataclass(frozen=True)
class Loaded:
    """The pipeline and what prepares faces."""

    pipeline: Any
    faces: Any


class ConsisID(ReleasedModel):
    """ConsisID with its released networks.

    Args:
        face_crop: `facexlib`: RetinaFace and BiSeNet as released; `pack`: the five points of the
            insightface pack, for where facexlib is not installed.
        crop_of: in a picture of several people the release takes the recogniser's vector of the
            largest face, and the crop of the face nearest to the `centre`: maybe of two people.
            `largest` crops the face of the vector.
        parser: with `face_crop=pack`: what finds the head in the crop; see
            `concat_id.face_tools`.
        dynamic_guidance: raise the guidance over the steps (`use_dynamic_cfg`).
        The others as in `ReleasedModel`. Learned positions allow one size and length alone.
    """

    name = "consisid"
    abilities = Abilities(
        people=(1, 1), licence="Apache-2.0", extra="consisid",
        why="its transformer reads one face",
    )
    ENTRY = "consisid"
    FILES = (
        "model_index.json", "scheduler", "text_encoder", "tokenizer", "transformer", "vae",
        "face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt", "face_encoder/models/antelopev2",
    )
    VARIANTS = (RELEASED,)
    FACEXLIB: ClassVar[tuple[str, ...]] = (DETECTION, PARSING)
    CROP_OF: ClassVar[tuple[str, ...]] = ("centre", "largest")
    ALIGNED: ClassVar[bool] = True
    WHITE: ClassVar[bool] = True
    DEFAULTS: ClassVar[Mapping[str, float]] = {
        "steps": 50, "guidance": 6.0, "frames": 49, "height": 480, "width": 720, "fps": 8.0,
    }

    def __init__(
        self, variant: str | None = None, *, face_crop: str = "facexlib",
        crop_of: str | None = None, parser: str = "none", dynamic_guidance: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(variant, **others)
        if face_crop not in CROPS:
            raise unknown("face_crop", face_crop, CROPS)
        crop_of = self.CROP_OF[0] if crop_of is None else crop_of
        if crop_of not in self.CROP_OF:
            raise unknown("crop_of", crop_of, self.CROP_OF)
        if parser != "none" and face_crop == "facexlib":
            raise UserError("parser belongs to face_crop=pack; facexlib has its own.")
        self.face_crop, self.crop_of, self.parser = face_crop, crop_of, parser
        self.dynamic_guidance = switch("dynamic_guidance", dynamic_guidance)
        self._conditions: dict[str, Any] = {}

    @property
    def files(self) -> tuple[str, ...]:
        return self.FILES + (self.FACEXLIB if self.face_crop == "facexlib" else ())

    def settings(self) -> Mapping[str, Any]:
        return {
            **super().settings(), "face_crop": self.face_crop, "crop_of": self.crop_of,
            "parser": self.parser, "dynamic_guidance": self.dynamic_guidance,
        }

    def _load(self) -> Loaded:
        place = usable_place(self.device, self.offload)
        faces = self._load_faces(place)
        pipeline = self._load_pipeline(place)
        config = pipeline.transformer.config
        if config.use_learned_positional_embeddings:
            pixels = pipeline.vae_scale_factor_spatial
            exact_size(
                self, config.sample_frames, config.sample_height * pixels,
                config.sample_width * pixels, "its learned positions",
            )
        return Loaded(pipeline, faces)

    def _load_pipeline(self, place: str) -> Any:
        from diffusers import ConsisIDPipeline

        from idbench.baselines.any_steps import AnyStepsScheduler

        # A training writes the averaged one, which the authors' script prefers too.
        averaged = self.folder / "transformer_ema"
        part = averaged if averaged.is_dir() else self.folder / "transformer"
        with explained(f"{part} cannot be loaded", f"run `idbench weights verify {self.entry}`"):
            transformer = self._load_transformer(part)
        pipeline = load_pipeline(
            ConsisIDPipeline, self.folder, place, bfloat16=self.bfloat16, offload=self.offload,
            tiling=self.tiling, transformer=transformer,
        )
        pipeline.scheduler = AnyStepsScheduler.from_config(pipeline.scheduler.config)
        return pipeline

    def _load_transformer(self, folder: Path) -> Any:
        from diffusers import ConsisIDTransformer3DModel

        return ConsisIDTransformer3DModel.from_pretrained(
            folder, torch_dtype=self.dtype, local_files_only=True, use_safetensors=True
        )

    def _load_faces(self, place: str) -> Any:
        from idbench.baselines.consisid_faces import PACK, FaceEncoder
        from idbench.baselines.face_crop import FacexlibCropper, PackCropper
        from idbench.models.concat_id.face_tools import load_foreground

        cropper: Any
        if self.face_crop == "facexlib":
            parsing = self.path(PARSING) if self.WHITE else None
            cropper = FacexlibCropper(self.path(DETECTION), parsing, "consisid", place)
        else:
            foreground, _ = load_foreground(self.parser, place)
            cropper = PackCropper(self.folder / PACK, foreground, place)
        return FaceEncoder(
            self.folder, cropper, place, self.dtype, self.crop_of, self.ALIGNED, self.WHITE
        )

    def _condition(self, reference: Reference) -> Any:
        """The condition of a photograph, computed once."""
        key = str(reference.image)
        if key not in self._conditions:
            try:
                found = self.networks.faces.encode(read_reference(reference.image))
            except UserError as error:
                raise UserError(
                    f"The reference {reference.image} cannot be used: {error}; replace it."
                ) from error
            self._conditions[key] = found
        return self._conditions[key]

    def _video(self, sample: Sample) -> Video:
        import torch

        faces = [self._condition(reference) for reference in sample.references]
        with torch.inference_mode():
            frames = self.networks.pipeline(
                **self._inputs(faces), prompt=sample.prompt,
                num_inference_steps=self.steps, guidance_scale=self.guidance,
                num_frames=self.frames, height=self.height, width=self.width,
                use_dynamic_cfg=self.dynamic_guidance,
                # On the CPU, so that a seed means the same noise on every device.
                generator=torch.Generator().manual_seed(sample.seed), output_type="np",
            ).frames[0]
        notes = tuple(
            f"reference {reference.name}: {face.problem}"
            for reference, face in zip(sample.references, faces, strict=True) if face.problem
        )
        return Video(to_uint8(frames), self.fps, notes)

    def _inputs(self, faces: Sequence[Any]) -> dict[str, Any]:
        """The pipeline's arguments about the faces."""
        (face,) = faces
        return {
            "image": Image.fromarray(face.crop), "id_cond": face.vector,
            "id_vit_hidden": face.hidden,
        }


MODEL = ByWeights(ConsisID, "idbench.baselines.embedded_models:EmbeddedConsisID")
