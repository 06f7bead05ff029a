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
    DiffusionPipeline,
)
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from idbench.errors import UserError
from idbench.models.concat_id.autoencoder import decode, encode
from idbench.models.concat_id.conditioning import MAXIMUM_REFERENCES, denoise
from idbench.models.concat_id.networks import TextEncoder


class ConcatIDPipeline(DiffusionPipeline):
    """Text and 0 to 3 reference images to video.

    The parts are diffusers' and transformers' own classes, so `save_pretrained` and
    `from_pretrained` use diffusers' folder layout.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        text_encoder: T5EncoderModel,
        vae: AutoencoderKLCogVideoX,
        transformer: CogVideoXTransformer3DModel,
        scheduler: CogVideoXDPMScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer,
            scheduler=scheduler,
        )

    @property
    def compression(self) -> int:
        """Pixels of the video per latent, in height and width."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

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
    ) -> torch.Tensor:
        """Generate one video a prompt.

        Args:
            prompts: B prompts.
            references: images in [-1, 1], (B, M, 3, H, W), left to right; prepared by
                `references.prepare`. None or M = 0: the base network.
            seeds: B seeds.
            steps, guidance: of sampling; guidance 1 leaves out the unconditional branch.
            frames: rk + 1 for a temporal compression of r; one frame gives an image.
            bfloat16: compute matrix products of the transformer in bfloat16.

        Returns:
            Videos in [-1, 1], (B, 3, frames, H, W).

        Raises:
            UserError: sizes that the networks cannot make, too many references.
        """
        self._check(prompts, references, seeds, frames, height, width)
        device = self.transformer.device
        text = TextEncoder(self.tokenizer, self.text_encoder)(prompts).to(device)
        held = None
        if references is not None and references.shape[1]:
            flat = references.flatten(0, 1).unsqueeze(2).to(device)
            held = encode(self.vae, flat)
            held = held.view(*references.shape[:2], *held.shape[2:])
        latents = self.sample_latents(
            text, held, seeds, steps, guidance, self.latent_frames(frames), height, width, bfloat16
        )
        return decode(self.vae, latents)

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
        device = text.device
        shape = (latent_frames, *self.latent_shape(height, width))
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        latents = torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)
        self.scheduler.set_timesteps(steps, device=device)
        guided = guidance != 1.0
        if guided:
            text = torch.cat([torch.zeros_like(text), text])
            references = None if references is None else torch.cat([references, references])
        previous, times = None, self.scheduler.timesteps
        for i, time in enumerate(self.progress_bar(times)):
            both = torch.cat([latents, latents]) if guided else latents
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                output = denoise(
                    self.transformer, both, references, text, time.expand(len(both)), clip_frames
                ).float()
            if guided:
                without, with_text = output.chunk(2)
                output = without + guidance * (with_text - without)
            latents, previous = self.scheduler.step(
                output, previous, time, times[i - 1] if i > 0 else None, latents,
                generator=generators, return_dict=False,
            )
        return latents

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a video of `frames`."""
        return (frames - 1) // self.vae.config.temporal_compression_ratio + 1

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of one latent frame of a video of this size."""
        channels = self.transformer.config.in_channels
        return channels, height // self.compression, width // self.compression

    def _check(
        self, prompts: Sequence[str], references: torch.Tensor | None, seeds: Sequence[int],
        frames: int, height: int, width: int,
    ) -> None:
        unit = self.compression * self.transformer.config.patch_size
        if height % unit or width % unit:
            raise UserError(
                f"Height and width must be multiples of {unit}, not {height}x{width}; change them."
            )
        ratio = self.vae.config.temporal_compression_ratio
        unit = 1 if ratio == 1 else 2 * ratio  # diffusers' causal code decodes latents in twos
        if frames < 1 or (frames - 1) % unit:
            raise UserError(
                f"The autoencoder makes {unit}k + 1 frames, not {frames}; take "
                f"{max(0, (frames - 1) // unit) * unit + 1}."
            )
        if len(seeds) != len(prompts):
            raise UserError(f"{len(prompts)} prompts need as many seeds, not {len(seeds)}.")
        if references is not None and references.shape[1] > MAXIMUM_REFERENCES:
            raise UserError(
                f"Concat-ID takes at most {MAXIMUM_REFERENCES} references, not "
                f"{references.shape[1]}; leave some out."
            )
