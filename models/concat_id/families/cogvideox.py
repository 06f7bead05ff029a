"""CogVideoX, in any size: v-prediction, DPM-Solver++ (2M, SDE), T5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from transformers import T5EncoderModel

from idbench.models.concat_id import autoencoder
from idbench.models.concat_id.conditioning import denoise
from idbench.models.concat_id.families.base import Defaults, Family, Noised


@dataclass(frozen=True)
class CogVideoX(Family):
    """See `Family`. The defaults are CogVideoX-5B's, which reads its padding too."""

    text_tokens: int = 226
    mask_padding: bool = False

    name: ClassVar[str] = "cogvideox"
    TRANSFORMER: ClassVar[Any] = CogVideoXTransformer3DModel
    AUTOENCODER: ClassVar[Any] = AutoencoderKLCogVideoX
    TEXT_ENCODER: ClassVar[Any] = T5EncoderModel
    TEXT_TOKENS: ClassVar[int] = 226
    TEXT_WIDTH: ClassVar[str] = "text_embed_dim"
    DEFAULTS: ClassVar[Defaults] = Defaults(50, 6.0, 49, 480, 720, 8.0)
    LAYOUT: ClassVar[str] = "sat"
    INDEX: ClassVar[Mapping[str, Any]] = {
        "_class_name": "ConcatIDPipeline",
        "scheduler": ["diffusers", "CogVideoXDPMScheduler"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
        "text_tokens": 226, "mask_padding": False,
    }

    encode = staticmethod(autoencoder.encode)
    predict = staticmethod(denoise)

    @staticmethod
    def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
        ratio, count = CogVideoX.compression(vae)[0], latents.shape[1]
        if ratio == 1 or count % 2:
            return autoencoder.decode(vae, latents)
        # diffusers decodes latents in twos after a first three (or one), and drops the last of an
        # even number. So the last is repeated, and the frames made of the repetition cut off.
        # Convolutions look back in time only; only the last pair's normalisation sees it.
        video = autoencoder.decode(vae, torch.cat([latents, latents[:, -1:]], dim=1))
        return video[:, :, : (count - 1) * ratio + 1]

    @staticmethod
    def compression(vae: Any) -> tuple[int, int]:
        config = vae.config
        return int(config.temporal_compression_ratio), 2 ** (len(config.block_out_channels) - 1)

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, uniform: torch.Tensor
    ) -> Noised:
        """sqrt(a) x0 + sqrt(1 - a) eps, with velocity sqrt(a) eps - sqrt(1 - a) x0.

        a is alpha_bar at one of the schedule's times. The MSE of the velocity equals that of x0
        weighted by 1 / (1 - a).
        """
        alphas = self.scheduler.alphas_cumprod.float().to(latents.device)
        times = (uniform * len(alphas)).long().clamp(max=len(alphas) - 1)
        alpha = alphas[times].view(-1, 1, 1, 1, 1)
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        return Noised(signal * latents + sigma * noise, times, signal * noise - sigma * latents)

    def start(self, scheduler: Any, steps: int, device: torch.device) -> None:
        scheduler.set_timesteps(steps, device=device)

    def step(
        self, scheduler: Any, velocity: torch.Tensor, number: int, latents: torch.Tensor,
        before: Any, generators: list[torch.Generator],
    ) -> tuple[torch.Tensor, Any]:
        times = scheduler.timesteps
        return scheduler.step(
            velocity, before, times[number], times[number - 1] if number else None, latents,
            generator=generators, return_dict=False,
        )
