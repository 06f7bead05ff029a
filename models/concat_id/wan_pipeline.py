"""Sampling with Concat-ID on Wan2.1: flow matching, Euler steps, a shifted schedule.

The references stand in both branches of classifier-free guidance. The released code's other
branch is the embedding of a negative prompt (its Wan was trained without dropping text); None
gives the zeroed embedding of the CogVideoX form.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from idbench.models.concat_id.video_pipeline import VideoPipeline, guide
from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel

TEXT_TOKENS = 512
FPS = 16.0


class ConcatIDWanPipeline(VideoPipeline):
    """Text and 0 to 3 reference images to video, with Wan's networks.

    The released weights know one reference; see `wan`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: UMT5EncoderModel,
        vae: AutoencoderKLWan,
        transformer: ConcatIDWanTransformer3DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        text_tokens: int = TEXT_TOKENS,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer,
            scheduler=scheduler,
        )
        self.register_to_config(text_tokens=text_tokens)

    @property
    def compression(self) -> int:
        return self.vae.config.scale_factor_spatial

    @property
    def temporal_compression(self) -> int:
        return self.vae.config.scale_factor_temporal

    @property
    def patch(self) -> int:
        return self.transformer.config.patch_size[1]

    @torch.inference_mode()
    def __call__(
        self,
        prompts: Sequence[str],
        references: torch.Tensor | None = None,
        seeds: Sequence[int] = (0,),
        steps: int = 50,
        guidance: float = 5.0,
        frames: int = 81,
        height: int = 480,
        width: int = 832,
        negative: str | None = "",
        zeroed: bool = False,
    ) -> torch.Tensor:
        """Generate one video a prompt.

        Args:
            prompts: B prompts.
            references: images in [-1, 1], (B, M, 3, H, W), left to right; prepared by
                `references.prepare`. None or M = 0: the base network.
            seeds: B seeds.
            steps, guidance: of sampling; guidance 1 leaves out the other branch.
            frames: 4k + 1, at 16 a second.
            height, width: multiples of 16.
            negative: text of the other branch; None is a zeroed embedding.
            zeroed: zeros take the place of the references' latents.

        Returns:
            Videos in [-1, 1], (B, 3, frames, H, W).

        Raises:
            UserError: sizes that the networks cannot make, too many references.
        """
        self.check(prompts, references, seeds, steps, frames, height, width)
        device = self._execution_device
        text = self.encode_text(prompts)
        guided = guidance != 1.0
        if guided:
            other = text.new_zeros(text.shape)
            if negative is not None:
                other = self.encode_text([negative]).expand_as(text)
            text = torch.cat([other, text])
        held = self.held(references, zeroed)
        channels, *size = self.latent_shape(height, width)
        shape = (channels, self.latent_frames(frames), *size)
        latents, _ = self.noise(seeds, shape, device)
        latents = self._denoise(latents, held, text, steps, guidance if guided else None)
        video = self._decode(latents)
        self.maybe_free_model_hooks()
        return video

    def _denoise(
        self, latents: torch.Tensor, references: torch.Tensor | None, text: torch.Tensor,
        steps: int, guidance: float | None,
    ) -> torch.Tensor:
        """The Euler steps; with guidance, `text` holds the other branch, then the prompts'."""
        dtype, device = self.transformer.dtype, latents.device
        text = text.to(device, dtype)
        if references is not None:
            references = references.to(device, dtype)
            if guidance is not None:
                references = torch.cat([references, references])
        # From noise (1) down, without 0: the scheduler shifts these and ends at 0.
        sigmas = np.linspace(1.0, 0.0, steps + 1)[:-1]
        self.scheduler.set_timesteps(sigmas=sigmas, device=device)
        for time in self.progress_bar(self.scheduler.timesteps):
            both = latents if guidance is None else torch.cat([latents, latents])
            velocity = self.transformer(
                both.to(dtype), time.expand(len(both)), text, references, return_dict=False
            )[0].float()
            if guidance is not None:
                velocity = guide(velocity, guidance)
            latents = self.scheduler.step(velocity, time, latents, return_dict=False)[0]
        return latents

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embeddings (B, text_tokens, D); what stands behind a prompt's end is zero."""
        # Spaces and escapes as Wan's own text cleaning leaves them.
        clean = [" ".join(html.unescape(html.unescape(prompt)).split()) for prompt in prompts]
        rows = self.tokenizer(
            clean, padding="max_length", truncation=True, max_length=self.config.text_tokens,
            return_tensors="pt",
        )
        device = self._execution_device
        mask = rows.attention_mask.to(device)
        hidden = self.text_encoder(
            input_ids=rows.input_ids.to(device), attention_mask=mask
        ).last_hidden_state
        return hidden * mask.unsqueeze(-1)

    @torch.inference_mode()
    def encode_references(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, M, h, w) of images (B, M, 3, H, W), each encoded alone."""
        flat = images.flatten(0, 1).unsqueeze(2).to(self._execution_device, self.vae.dtype)
        mode = self.vae.encode(flat).latent_dist.mode().float()
        mean, std = self._statistics(mode)
        held = ((mode - mean) / std).squeeze(2)
        return held.unflatten(0, images.shape[:2]).transpose(1, 2)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        mean, std = self._statistics(latents)
        z = (latents * std + mean).to(self.vae.dtype)
        return self.vae.decode(z, return_dict=False)[0].float()

    def _statistics(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of latents by channel, (C, 1, 1, 1) each."""
        config = self.vae.config
        mean, std = (
            torch.tensor(values, device=like.device).view(-1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, std
