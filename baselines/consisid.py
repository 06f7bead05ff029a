"""ConsisID: a face's low frequencies beside the latents, its high frequencies by cross-attention.

diffusers' pipeline and transformer with the released folder (BestWishYsh/ConsisID-preview), and our
own face preparation, which needs facexlib alone of the three packages that diffusers' asks for.
Source: arXiv 2411.17440 and its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from idbench.baselines.loading import RELEASED, ByWeights, ReleasedModel
from idbench.errors import UserError, explained
from idbench.names import one_of, switch
from idbench.pictures import read_reference
from idbench.types import Abilities, Reference, Sample

CROPS = ("facexlib", "pack")
DETECTION = "face_encoder/detection_Resnet50_Final.pth"
PARSING = "face_encoder/parsing_bisenet.pth"
"""Files of facexlib's networks in the released folder."""


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
    revision = "2"  # of 1, the noise of the solver came from the process, not from the seed alone
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
    SETTINGS = (*ReleasedModel.SETTINGS, "face_crop", "crop_of", "parser", "dynamic_guidance")
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
        self.face_crop = one_of("face_crop", face_crop, CROPS)
        crop_of = self.CROP_OF[0] if crop_of is None else crop_of
        self.crop_of = one_of("crop_of", crop_of, self.CROP_OF)
        if parser != "none" and face_crop == "facexlib":
            raise UserError("parser belongs to face_crop=pack; facexlib has its own.")
        self.parser = parser
        self.dynamic_guidance = switch("dynamic_guidance", dynamic_guidance)

    @property
    def files(self) -> tuple[str, ...]:
        return self.FILES + (self.FACEXLIB if self.face_crop == "facexlib" else ())

    def _load(self, place: str) -> Any:
        self._faces = self._load_faces(place)
        pipeline = self._load_pipeline()
        config, pixels = pipeline.transformer.config, pipeline.vae_scale_factor_spatial
        size = (config.sample_frames, config.sample_height * pixels, config.sample_width * pixels)
        asked = (self.frames, self.height, self.width)
        if config.use_learned_positional_embeddings and asked != size:
            raise UserError(
                f"{self.name} makes {size[0]} frames of {size[1]}x{size[2]} only (its learned "
                f"positions), not {asked[0]} of {asked[1]}x{asked[2]}; leave out frames, height "
                "and width."
            )
        return pipeline

    def _load_pipeline(self) -> Any:
        from diffusers import ConsisIDPipeline

        from idbench.baselines.consisid_parts import AnyStepsScheduler

        # A training writes the averaged one, which the authors' script prefers too.
        averaged = self.folder / "transformer_ema"
        part = averaged if averaged.is_dir() else self.folder / "transformer"
        with explained(f"{part} cannot be loaded", f"run `idbench weights verify {self.entry}`"):
            transformer = self._load_transformer(part)
        pipeline = self._read_pipeline(ConsisIDPipeline, self.folder, transformer=transformer)
        pipeline.scheduler = AnyStepsScheduler.from_config(pipeline.scheduler.config)
        return pipeline

    def _load_transformer(self, folder: Path) -> Any:
        from diffusers import ConsisIDTransformer3DModel

        return self._read(ConsisIDTransformer3DModel, folder)

    def _load_faces(self, place: str) -> Any:
        from idbench.baselines.consisid_parts import PACK, FaceEncoder
        from idbench.baselines.face_crop import FacexlibCropper, PackCropper
        from idbench.models.concat_id.face_tools import load_foreground

        cropper: Any
        if self.face_crop == "facexlib":
            parsing = self.path(PARSING) if self.WHITE else None
            cropper = FacexlibCropper(self.path(DETECTION), parsing, place)
        else:
            foreground, _ = load_foreground(self.parser, place)
            cropper = PackCropper(self.folder / PACK, foreground, place)
        return FaceEncoder(
            self.folder, cropper, place, self.dtype, self.crop_of, self.ALIGNED, self.WHITE
        )

    def _prepare(self, reference: Reference) -> tuple[Any, str | None]:
        """The `FaceCondition` of a photograph."""
        try:
            found = self._faces.encode(read_reference(reference.image))
        except UserError as error:
            raise UserError(
                f"The reference {reference.image} cannot be used: {error}; replace it."
            ) from error
        return found, found.problem

    def _frames(self, sample: Sample) -> np.ndarray:
        faces = [self.prepared(reference) for reference in sample.references]
        return self._sampled(
            sample.seed, **self._inputs(faces), prompt=sample.prompt,
            use_dynamic_cfg=self.dynamic_guidance,
        )

    def _inputs(self, faces: Sequence[Any]) -> dict[str, Any]:
        """The pipeline's arguments about the faces."""
        (face,) = faces
        return {
            "image": Image.fromarray(face.crop), "id_cond": face.vector,
            "id_vit_hidden": face.hidden,
        }


MODEL = ByWeights(ConsisID, "idbench.baselines.embedded_models:EmbeddedConsisID")
