"""Concat-ID's pipelines: text and up to three reference images to video, in diffusers' form.

The parts are diffusers' and transformers' own classes, so `save_pretrained`, `from_pretrained`,
`enable_model_cpu_offload` and the like work as usual. The computation is in `families`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXDPMScheduler,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
)
from transformers import PreTrainedTokenizerBase, T5EncoderModel, UMT5EncoderModel

from idbench.errors import UserError
from idbench.models.concat_id.about import MAXIMUM_REFERENCES
from idbench.models.concat_id.families import (
    FINAL_EPSILON,
    CogVideoX,
    DetailCogVideoX,
    Family,
    ReleasedCogVideoX,
    Wan,
    check_size,
    check_steps,
)
from idbench.models.concat_id.networks import TEXT_TOKENS
from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel


class VideoPipeline(DiffusionPipeline, ABC):
    """What the pipelines of both families share."""

    model_cpu_offload_seq = "text_encoder->transformer->vae"

    @property
    @abstractmethod
    def family(self) -> Family:
        """How these networks are used."""

    @property
    def patch(self) -> int:
        """Latents per token, in height and width."""
        size = self.transformer.config.patch_size
        return size if isinstance(size, int) else size[-1]

    @property
    def compression(self) -> int:
        """Pixels of the video per latent, in height and width."""
        return self.family.compression(self.vae)[1]

    @property
    def temporal_compression(self) -> int:
        """Frames of the video per latent frame, after the first."""
        return self.family.compression(self.vae)[0]

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[str], references: torch.Tensor | None, seeds: Sequence[int],
        steps: int, guidance: float, frames: int, height: int, width: int,
        negative: str | None = None, bfloat16: bool = False, zeroed: bool = False,
        shared: bool = False, reference_guidance: float = 1.0,
    ) -> torch.Tensor:
        """Generate one video a prompt; calling a pipeline does this with its family's defaults.

        Args:
            prompts: B prompts.
            references: images in [-1, 1], (B, M, 3, H, W), left to right; prepared by
                `references.prepare`. None or M = 0: the base network.
            seeds: B seeds.
            steps, guidance: of sampling; guidance 1 leaves out the unconditional branch.
            frames: rk + 1 for a temporal compression of r; one frame gives an image.
            height, width: multiples of the autoencoder's compression times the patch (16 for
                the published networks).
            negative: text of the unconditional branch; None: a zeroed embedding.
            bfloat16: compute matrix products of a float32 transformer in bfloat16. Networks
                loaded in bfloat16 compute in it anyway.
            zeroed: replace the references' latents by zeros: the same network and sequence
                without what they show, which dropout has taught it.
            shared: an ablation, see `rotary_embedding`.
            reference_guidance: see `Family.sample`.

        Returns:
            Videos in [-1, 1], (B, 3, frames, H, W).

        Raises:
            UserError: sizes that the networks cannot make, too many references.
        """
        self.check(prompts, references, seeds, steps, frames, height, width)
        text = self.encode_text(prompts)
        other = None
        if negative is not None and guidance != 1.0:
            other = self.encode_text([negative]).expand_as(text)
        held = None
        if references is not None and references.shape[1]:
            held = self.encode_references(references)
            held = torch.zeros_like(held) if zeroed else held
        latent_frames = (frames - 1) // self.temporal_compression + 1
        latents = self.sample_latents(
            text, held, seeds, steps, guidance, latent_frames, height, width, bfloat16,
            negative=other, shared=shared, reference_guidance=reference_guidance,
        )
        video = self.family.decode(self.vae, latents)
        self.maybe_free_model_hooks()
        return video

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embeddings (B, text_tokens, D)."""
        return self.family.encode_text(
            self.tokenizer, self.text_encoder, prompts, self._execution_device
        )

    def encode_references(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (B, M, C, h, w) of images (B, M, 3, H, W), each encoded alone."""
        flat = images.flatten(0, 1).unsqueeze(2).to(self._execution_device)
        held = self.family.encode(self.vae, flat)
        return held.view(*images.shape[:2], *held.shape[2:])

    @torch.inference_mode()
    def sample_latents(
        self, text: torch.Tensor, references: torch.Tensor | None, seeds: Sequence[int], steps: int,
        guidance: float, latent_frames: int, height: int, width: int, bfloat16: bool = False,
        negative: torch.Tensor | None = None, shared: bool = False,
        reference_guidance: float = 1.0,
    ) -> torch.Tensor:
        """Sample with text embeddings and reference latents; (B, N, C, h, w)."""
        dtype = self.transformer.dtype
        family = self.family
        if shared and family.name != CogVideoX.name:
            raise UserError("Only Concat-ID's CogVideoX form has references of a shared position.")
        places = {"shared": True} if shared else {}

        def network(
            latents: torch.Tensor, references: torch.Tensor | None, text: torch.Tensor,
            times: torch.Tensor,
        ) -> torch.Tensor:
            with torch.autocast(latents.device.type, torch.bfloat16, enabled=bfloat16):
                return family.predict(
                    self.transformer, latents.to(dtype), references, text, times, **places
                )

        size = self.compression
        config = self.transformer.config
        channels = config.out_channels or config.in_channels
        shape = (latent_frames, channels, height // size, width // size)
        return family.sample(
            network, seeds, shape, text.to(dtype),
            None if references is None else references.to(dtype), steps, guidance,
            None if negative is None else negative.to(dtype), self.progress_bar,
            reference_guidance,
        )

    def enable_vae_tiling(self) -> None:
        """Decode large frames in tiles: less memory, slightly different pixels at the seams."""
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Decode whole frames."""
        self.vae.disable_tiling()

    def enable_vae_slicing(self) -> None:
        """Decode the videos of a batch one by one: less memory, the same pixels."""
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        """Decode a whole batch together."""
        self.vae.disable_slicing()

    def check(
        self, prompts: Sequence[str], references: torch.Tensor | None, seeds: Sequence[int],
        steps: int, frames: int, height: int, width: int,
    ) -> None:
        """Raise UserError for what the networks cannot make."""
        self.check_settings(steps, frames, height, width)
        if not prompts or len(seeds) != len(prompts):
            raise UserError(
                f"1 or more prompts need one seed each, not {len(prompts)} prompts and "
                f"{len(seeds)} seeds."
            )
        if references is None:
            return
        if references.ndim != 5 or references.shape[1] and (
            len(references) != len(prompts) or references.shape[2] != 3
        ):
            raise UserError(
                f"References of shape {tuple(references.shape)} do not fit {len(prompts)} prompts; "
                "give (prompts, references of each, 3, height, width)."
            )
        if references.shape[1] > MAXIMUM_REFERENCES:
            raise UserError(
                f"Concat-ID takes at most {MAXIMUM_REFERENCES} references, not "
                f"{references.shape[1]}; leave some out."
            )
        if references.shape[1] and tuple(references.shape[3:]) != (height, width):
            raise UserError(
                f"References of {references.shape[3]}x{references.shape[4]} do not fit a video of "
                f"{height}x{width}; prepare them for the video's size."
            )

    def check_settings(self, steps: int, frames: int, height: int, width: int) -> None:
        """Raise UserError for steps or a size that the networks cannot make."""
        unit = self.compression * self.patch
        check_size(unit, self.temporal_compression, frames, height, width)
        check_steps(steps, self.scheduler)


class ConcatIDPipeline(VideoPipeline):
    """Concat-ID with CogVideoX's networks of any size.

    Args:
        text_tokens: tokens that a prompt is padded or cut to (226 for CogVideoX).
        mask_padding: hide padding from the text encoder and zero its embeddings. CogVideoX was
            trained without.
        sampling: `default`: the noise levels of training; `released`: exactly as the released
            code samples, see `ReleasedCogVideoX`; `detail`: see `DetailCogVideoX`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, text_encoder: T5EncoderModel,
        vae: AutoencoderKLCogVideoX, transformer: CogVideoXTransformer3DModel,
        scheduler: CogVideoXDPMScheduler, text_tokens: int = TEXT_TOKENS, mask_padding: bool = True,
        sampling: str = "default",
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer,
            scheduler=scheduler,
        )
        self.register_to_config(
            text_tokens=text_tokens, mask_padding=mask_padding, sampling=sampling
        )
        if sampling == "released":
            transformer.norm_out.norm.eps = FINAL_EPSILON

    @property
    def family(self) -> CogVideoX:
        kinds = {"released": ReleasedCogVideoX, "detail": DetailCogVideoX}
        kind = kinds.get(self.config.sampling, CogVideoX)
        return kind(self.scheduler, self.config.text_tokens, self.config.mask_padding)

    def __call__(
        self, prompts: Sequence[str], references: torch.Tensor | None = None,
        seeds: Sequence[int] = (0,), steps: int = 20, guidance: float = 6.0, frames: int = 9,
        height: int = 64, width: int = 96, **options: Any,
    ) -> torch.Tensor:
        """`generate` with the embedded networks' size; `options` are its further arguments."""
        return self.generate(
            prompts, references, seeds, steps, guidance, frames, height, width, **options
        )


class ConcatIDWanPipeline(VideoPipeline):
    """Concat-ID with Wan's networks. The released weights know one reference; see `wan`."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, text_encoder: UMT5EncoderModel,
        vae: AutoencoderKLWan, transformer: ConcatIDWanTransformer3DModel,
        scheduler: FlowMatchEulerDiscreteScheduler, text_tokens: int = Wan.text_tokens,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer,
            scheduler=scheduler,
        )
        self.register_to_config(text_tokens=text_tokens)

    @property
    def family(self) -> Wan:
        return Wan(self.scheduler, self.config.text_tokens)

    def __call__(
        self, prompts: Sequence[str], references: torch.Tensor | None = None,
        seeds: Sequence[int] = (0,), steps: int = 50, guidance: float = 5.0, frames: int = 81,
        height: int = 480, width: int = 832, negative: str | None = Wan.DEFAULTS.negative,
        **options: Any,
    ) -> torch.Tensor:
        """`generate` with the release's settings; `options` are its further arguments.

        The release's unconditional branch reads the negative prompt `...`, since its Wan was
        trained without dropping text; `negative` None gives a zeroed embedding.
        """
        return self.generate(
            prompts, references, seeds, steps, guidance, frames, height, width, negative, **options
        )
