"""The baselines with the embedded weights, as models: one class for each on Concat-ID's harness."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

import torch

from idbench import embedded
from idbench.baselines.consisid import ConsisID
from idbench.baselines.face_tower import ENTRY, FaceTower, pack
from idbench.baselines.id_animator import IDAnimator
from idbench.baselines.ingredients import Ingredients
from idbench.models.concat_id.about import EMBEDDED_BASE
from idbench.models.concat_id.autoencoder import to_frames
from idbench.models.concat_id.families import family_named, family_of
from idbench.models.concat_id.model import ConcatID
from idbench.models.concat_id.pipeline import ConcatIDPipeline, VideoPipeline
from idbench.names import check_variant
from idbench.types import Sample

BASE = "transformer_base"
_tower = cache(FaceTower)


class FacePipeline(ConcatIDPipeline):
    """Concat-ID's pipeline with a baseline's transformer, whose references carry CLIP's tokens."""

    @property
    def family(self) -> Any:
        return family_of(type(self.transformer).__name__)(self.scheduler)

    def encode_references(self, images: torch.Tensor) -> torch.Tensor:
        """Rows (B, M, 1, 1, F) of images (B, M, 3, H, W); see `face_tower`."""
        latents = super().encode_references(images)
        pictures = to_frames(images.flatten(0, 1).unsqueeze(2).cpu())[:, 0]
        features = _tower().encode(pictures).to(latents.device, latents.dtype)
        return pack(latents, features.unflatten(0, latents.shape[:2]))


class EmbeddedBaseline(ConcatID):
    """A baseline on the embedded base; weights and family have its name.

    Args:
        settings: of `ConcatID` without those of model folders: `steps`, `guidance`, `frames`,
            `height`, `width`, `batch`, `bfloat16`, `faces`, `parser`, `alignment`, `references`.
    """

    embedded_defaults = EMBEDDED_BASE

    def __init__(self, variant: str | None = None, **settings: Any) -> None:
        check_variant(self.name, variant, ())
        super().__init__(None, **settings)

    @property
    def maximum_references(self) -> int:  # type: ignore[override]
        return self.abilities.people[1]

    def weight_hashes(self) -> Mapping[str, str]:
        names = ["vae", "text_encoder", "text_encoder_tokenizer", "face_parser", BASE, ENTRY]
        if self.pictures.parser != "embedded":
            names.remove("face_parser")
        return {**embedded.hashes(*names, self.name), **self.pictures.hashes()}

    def variant_of(self, sample: Sample) -> str:
        return self.name

    def pipeline(self, variant: str) -> VideoPipeline:
        return self._pipeline

    @cached_property
    def _pipeline(self) -> VideoPipeline:
        vae, text, scheduler = self.generator.parts
        made = embedded.built(self.name, family_named(self.name).build)
        pipeline = FacePipeline(text.tokenizer, text.network, vae, made.eval(), scheduler)
        pipeline.set_progress_bar_config(disable=True)  # the harness shows one of samples
        return pipeline


class EmbeddedConsisID(EmbeddedBaseline):
    name, abilities = ConsisID.name, ConsisID.abilities


class EmbeddedIDAnimator(EmbeddedBaseline):
    name, abilities = IDAnimator.name, IDAnimator.abilities


class EmbeddedIngredients(EmbeddedBaseline):
    name, abilities = Ingredients.name, Ingredients.abilities
