"""The baselines on the embedded base: how their networks are built, read and trained; as models.

Each is a family for the one training loop and the one sampler: CogVideoX's schedule and networks,
with another transformer. A new network computes what its base does, until it is trained. As a
model, each has a class on Concat-ID's harness, with the embedded weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import ConsisIDTransformer3DModel
from torch import nn

from idbench import embedded
from idbench.baselines import face_tower
from idbench.baselines.consisid import ConsisID
from idbench.baselines.face_attention import IDAnimatorTransformer3DModel
from idbench.baselines.id_animator import IDAnimator
from idbench.baselines.ingredients import Ingredients
from idbench.baselines.routing import (
    IngredientsTransformer3DModel,
    collect_logits,
    routing_loss,
)
from idbench.models.concat_id.about import EMBEDDED_BASE
from idbench.models.concat_id.autoencoder import to_frames
from idbench.models.concat_id.conditioning import rotary_embedding
from idbench.models.concat_id.families import CogVideoX, family_named, family_of
from idbench.models.concat_id.model import ConcatID
from idbench.models.concat_id.networks import TEXT_TOKENS, use_matrix_attention
from idbench.models.concat_id.pipeline import ConcatIDPipeline, VideoPipeline
from idbench.names import check_variant
from idbench.types import Sample

if TYPE_CHECKING:
    from idbench.models.concat_id.training.objective import Batch

ROUTING_WEIGHT = 0.1
"""Of the routing loss beside the MSE; ours, none is published."""
BASE = "transformer_base"
_tower = cache(face_tower.FaceTower)


# Families


@dataclass(frozen=True)
class FaceFamily(CogVideoX):
    """CogVideoX's family with a baseline's transformer; `references` are rows of `face_tower`."""

    text_tokens: int = TEXT_TOKENS
    mask_padding: bool = True

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Any:
        """The transformer of random weights: the arguments of the base's, and of its own. The new
        weights are set so that it computes what its base does."""
        return cls.TRANSFORMER(**{
            "use_rotary_positional_embeddings": True, "max_text_seq_length": TEXT_TOKENS,
            **config,
        })

    @classmethod
    def load_base(cls, transformer: Any, state: Mapping[str, torch.Tensor]) -> None:
        """Fill in the weights of the base, or of such a network itself."""
        own = transformer.state_dict()
        fitting = {name: value for name, value in state.items() if name in own}
        grown = "patch_embed.proj.weight"  # the new input channels stay 0
        if fitting[grown].shape != own[grown].shape:
            whole = torch.zeros_like(own[grown])
            whole[:, : fitting[grown].shape[1]] = fitting[grown]
            fitting[grown] = whole
        transformer.load_state_dict({**own, **fitting})

    @classmethod
    def predict(  # type: ignore[override]  # without the arguments of single modules
        cls, transformer: Any, latents: torch.Tensor, references: torch.Tensor | None,
        text: torch.Tensor, times: torch.Tensor, clip_frames: int | None = None,
    ) -> Any:
        assert references is not None
        return cls.read(
            transformer, latents, face_tower.unpack(references, latents.shape[2:]),
            encoder_hidden_states=text, timestep=times, return_dict=False,
            image_rotary_emb=rotary_embedding(transformer, latents.shape[1], 0, *latents.shape[3:]),
        )

    @staticmethod
    @abstractmethod
    def read(
        transformer: Any, latents: torch.Tensor, face: face_tower.Condition, **others: Any
    ) -> Any:
        """`predict` with the references taken apart; `others` are arguments of the transformer."""


@dataclass(frozen=True)
class ConsisIDFamily(FaceFamily):
    """Low frequencies beside the latents of frame 0, high ones by cross-attention.

    The loss looks at heads alone in half of the steps (dynamic mask); references of other scenes
    (dynamic cross-face) are the recipe's `cross`.
    """

    name: ClassVar[str] = "consisid"
    TRANSFORMER: ClassVar[Any] = ConsisIDTransformer3DModel

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Any:
        known = face_tower.sizes()
        made = super().build({
            "is_train_face": True, "LFE_id_dim": known.pooled, "LFE_vit_dim": known.width,
            "LFE_num_scale": face_tower.SCALES, **config,
            "in_channels": 2 * config["out_channels"],  # the face's picture beside the video
        })
        nn.init.zeros_(made.patch_embed.proj.weight[:, config["out_channels"] :])
        for attention in made.perceiver_cross_attention:
            nn.init.zeros_(attention.to_out.weight)
        use_matrix_attention(made)
        return made

    @staticmethod
    def read(
        transformer: Any, latents: torch.Tensor, face: face_tower.Condition, **others: Any
    ) -> torch.Tensor:
        return _with_picture(
            transformer, latents, face.latents[:, 0], id_cond=face.pooled[:, 0],
            id_vit_hidden=[states[:, 0] for states in face.hidden], **others,
        )

    @staticmethod
    def loss(output: Any, target: torch.Tensor, batch: Batch) -> torch.Tensor:
        error = (output.float() - target).square()
        if batch.people is None or batch.heads_alone is None:
            return error.mean((1, 2, 3, 4))
        heads = (batch.people > 0).float().unsqueeze(2)
        inside = (error * heads).sum((1, 2, 3, 4)) / (
            heads.sum((1, 2, 3, 4)) * error.shape[2]
        ).clamp(min=1)
        # A row that shows no head keeps the whole picture.
        masked = (batch.heads_alone > 0) & (heads.sum((1, 2, 3, 4)) > 0)
        return torch.where(masked, inside, error.mean((1, 2, 3, 4)))


@dataclass(frozen=True)
class IngredientsFamily(ConsisIDFamily):
    """ConsisID's mechanism for two people side by side, routed."""

    name: ClassVar[str] = "ingredients"
    TRANSFORMER: ClassVar[Any] = IngredientsTransformer3DModel

    @staticmethod
    def read(
        transformer: Any, latents: torch.Tensor, face: face_tower.Condition, **others: Any
    ) -> Any:
        with collect_logits() as logits:
            output = _with_picture(
                transformer, latents, side_by_side(face.latents), id_cond=face.pooled,
                id_vit_hidden=face.hidden, **others,
            )
        if transformer.training and torch.is_grad_enabled():
            return output, torch.stack(logits, dim=1)
        return output

    @staticmethod
    def loss(output: Any, target: torch.Tensor, batch: Batch) -> torch.Tensor:
        velocity, logits = output if isinstance(output, tuple) else (output, None)
        error = (velocity.float() - target).square().mean((1, 2, 3, 4))
        if logits is None or batch.people is None:
            return error
        # A token shows whom its last latent shows; people are numbered from 1, left to right.
        people = batch.people[:, :, 1::2, 1::2].flatten(1).long() - 1
        return error + ROUTING_WEIGHT * routing_loss(logits.unbind(1), people)


@dataclass(frozen=True)
class IDAnimatorFamily(FaceFamily):
    """Face attention beside the base's, whose own weights stay frozen, as published."""

    name: ClassVar[str] = "id_animator"
    TRANSFORMER: ClassVar[Any] = IDAnimatorTransformer3DModel

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Any:
        return super().build({"image_width": face_tower.sizes().width, **config})

    @classmethod
    def load_base(cls, transformer: Any, state: Mapping[str, torch.Tensor]) -> None:
        super().load_base(transformer, state)
        for name, parameter in transformer.named_parameters():
            parameter.requires_grad_(name.startswith("resampler.") or ".processor." in name)

    @staticmethod
    def read(
        transformer: Any, latents: torch.Tensor, face: face_tower.Condition, **others: Any
    ) -> torch.Tensor:
        # Of several pictures of one person the mean counts.
        tokens = face.hidden[-1].mean(1)
        return transformer(hidden_states=latents, image_tokens=tokens, **others)[0]


def side_by_side(latents: torch.Tensor) -> torch.Tensor:
    """One latent frame (B, C, h, w) of references (B, M, C, h, w), each cut to its place. The
    released canvas is white; ours keeps zeros, which a dropped reference is too."""
    count, width = latents.shape[1], latents.shape[-1]
    places = torch.tensor_split(torch.arange(width), count)
    canvas = torch.zeros_like(latents[:, 0])
    for person, columns in enumerate(places):
        # The head fills the middle of a prepared reference: its sides are padding.
        start = (width - len(columns)) // 2
        canvas[..., columns] = latents[:, person, :, :, start : start + len(columns)]
    return canvas


def _with_picture(
    transformer: Any, latents: torch.Tensor, picture: torch.Tensor, **others: Any
) -> torch.Tensor:
    """ConsisID's forward pass: `picture` (B, C, h, w) beside the latents of frame 0."""
    beside = torch.zeros_like(latents)
    beside[:, 0] = picture
    return transformer(hidden_states=torch.cat([latents, beside], dim=2), **others)[0]


# Models


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
        return face_tower.pack(latents, features.unflatten(0, latents.shape[:2]))


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
        parser = ["face_parser"] if self.pictures.parser == "embedded" else []
        texts = ("text_encoder", "text_encoder_tokenizer")
        names = ("vae", *texts, *parser, BASE, face_tower.ENTRY, self.name)
        return {**embedded.hashes(*names), **self.pictures.hashes()}

    def variant_of(self, sample: Sample) -> str:
        return self.name

    def pipeline(self, variant: str) -> VideoPipeline:
        return self._pipeline

    @cached_property
    def _pipeline(self) -> VideoPipeline:
        vae, text, scheduler = self.generator.parts
        made = embedded.built(self.name, family_named(self.name).build)
        return FacePipeline(text.tokenizer, text.network, vae, made.eval(), scheduler)


class EmbeddedConsisID(EmbeddedBaseline):
    name, abilities = ConsisID.name, ConsisID.abilities


class EmbeddedIDAnimator(EmbeddedBaseline):
    name, abilities = IDAnimator.name, IDAnimator.abilities


class EmbeddedIngredients(EmbeddedBaseline):
    name, abilities = Ingredients.name, Ingredients.abilities
