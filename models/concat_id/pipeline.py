"""Sampling: Concat-ID's denoising loop as a diffusers pipeline.

The references stand in both branches of classifier-free guidance; the unconditional branch
has a zeroed text embedding (not that of an empty prompt). Noise is drawn from one generator
per sample, so a sample does not depend on what else is in its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDPMScheduler,
    CogVideoXTransformer3DModel,
)
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from idbench.models.concat_id.autoencoder import decode, encode
from idbench.models.concat_id.conditioning import denoise
from idbench.models.concat_id.networks import TEXT_TOKENS
from idbench.models.concat_id.video_pipeline import VideoPipeline, guide


class ConcatIDPipeline(VideoPipeline):
    """Text and 0 to 3 reference images to video, with CogVideoX's networks of any size.

    The parts are diffusers' and transformers' own classes, so `save_pretrained` and
    `from_pretrained` use diffusers' folder layout.

    Args:
        text_tokens: tokens that a prompt is padded or cut to (226 for CogVideoX).
        mask_padding: tokens behind a prompt's end are hidden from the text encoder, and their
            embeddings zero. CogVideoX was trained without.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: T5EncoderModel,
        vae: AutoencoderKLCogVideoX,
        transformer: CogVideoXTransformer3DModel,
        scheduler: CogVideoXDPMScheduler,
        text_tokens: int = TEXT_TOKENS,
        mask_padding: bool = True,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer,
            scheduler=scheduler,
        )
        self.register_to_config(text_tokens=text_tokens, mask_padding=mask_padding)

    @property
    def compression(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def temporal_compression(self) -> int:
        return int(self.vae.config.temporal_compression_ratio)

    @property
    def patch(self) -> int:
        return self.transformer.config.patch_size

    @torch.inference_mode()
    def __call__(
        self,
        prompts: Sequence[str],
        references: torch.Tensor | None = None,
        seeds: Sequence[int] = (0,),
        steps: int = 20,
        guidance: float = 6.0,
        frames: int = 9,
        height: int = 64,
        width: int = 96,
        bfloat16: bool = False,
        zeroed: bool = False,
    ) -> torch.Tensor:
        """Generate one video a prompt.

        Args:
            prompts: B prompts.
            references: images in [-1, 1], (B, M, 3, H, W), left to right; prepared by
                `references.prepare`. None or M = 0: the base network.
            seeds: B seeds.
            steps, guidance: of sampling; guidance 1 leaves out the unconditional branch.
            frames: rk + 1 for a temporal compression of r; one frame gives an image.
            height, width: multiples of the autoencoder's compression times the patch (16 for
                CogVideoX).
            bfloat16: compute matrix products of a float32 transformer in bfloat16. Networks
                loaded in bfloat16 compute in it anyway.
            zeroed: zeros take the place of the references' latents: the same network and
                sequence without what they show, which dropout has taught it.

        Returns:
            Videos in [-1, 1], (B, 3, frames, H, W).

        Raises:
            UserError: sizes that the networks cannot make, too many references.
        """
        self.check(prompts, references, seeds, steps, frames, height, width)
        text = self.encode_text(prompts)
        held = self.held(references, zeroed)
        latents = self.sample_latents(
            text, held, seeds, steps, guidance, self.latent_frames(frames), height, width, bfloat16
        )
        video = self._decode(latents)
        self.maybe_free_model_hooks()
        return video

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embeddings (B, text_tokens, D)."""
        rows = self.tokenizer(
            list(prompts), padding="max_length", truncation=True,
            max_length=self.config.text_tokens, return_tensors="pt",
        ).to(self._execution_device)
        mask = rows.attention_mask if self.config.mask_padding else None
        hidden = self.text_encoder(
            input_ids=rows.input_ids, attention_mask=mask
        ).last_hidden_state
        return hidden if mask is None else hidden * mask.unsqueeze(-1)

    @torch.inference_mode()
    def encode_references(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (B, M, C, h, w) of images (B, M, 3, H, W), each encoded alone."""
        flat = images.flatten(0, 1).unsqueeze(2)
        held = encode(self.vae, flat.to(self._execution_device, self.vae.dtype))
        return held.view(*images.shape[:2], *held.shape[2:])

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Videos of latents (B, N, C, h, w), in float32."""
        latents = latents.to(self.vae.dtype)
        ratio, count = self.temporal_compression, latents.shape[1]
        if ratio == 1 or count % 2:
            return decode(self.vae, latents)
        # diffusers' code decodes latents in twos after a first three (or one). An even number
        # lacks one: the last is repeated, and what comes of the repetition cut off. Convolutions
        # look back in time only; only the normalisation of the last pair sees the repetition.
        video = decode(self.vae, torch.cat([latents, latents[:, -1:]], dim=1))
        return video[:, :, : (count - 1) * ratio + 1]

    @torch.inference_mode()
    def sample_latents(
        self,
        text: torch.Tensor,
        references: torch.Tensor | None,
        seeds: Sequence[int],
        steps: int,
        guidance: float,
        latent_frames: int,
        height: int,
        width: int,
        bfloat16: bool = False,
        clip_frames: int | None = None,
    ) -> torch.Tensor:
        """The denoising loop on text embeddings and reference latents; (B, N, C, h, w)."""
        device, dtype = text.device, self.transformer.dtype
        shape = (latent_frames, *self.latent_shape(height, width))
        latents, generators = self.noise(seeds, shape, device)
        self.scheduler.set_timesteps(steps, device=device)
        guided = guidance != 1.0
        if guided:
            text = torch.cat([torch.zeros_like(text), text])
            references = None if references is None else torch.cat([references, references])
        text = text.to(dtype)
        references = None if references is None else references.to(dtype)
        previous, times = None, self.scheduler.timesteps
        for i, time in enumerate(self.progress_bar(times)):
            both = torch.cat([latents, latents]) if guided else latents
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                output = denoise(
                    self.transformer, both.to(dtype), references, text, time.expand(len(both)),
                    clip_frames,
                ).float()
            if guided:
                output = guide(output, guidance)
            latents, previous = self.scheduler.step(
                output, previous, time, times[i - 1] if i > 0 else None, latents,
                generator=generators, return_dict=False,
            )
        return latents
