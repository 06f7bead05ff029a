"""Wan2.1, in any size: flow matching with a shifted schedule, Euler steps, UMT5."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from transformers import UMT5EncoderModel

from idbench.models.concat_id.about import NEGATIVE
from idbench.models.concat_id.families.family import Defaults, Family, Noised
from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel

SHIFT = 5.0
"""Of the noise levels towards noise, in the release."""


def build_flow_scheduler(shift: float = SHIFT) -> FlowMatchEulerDiscreteScheduler:
    """The release's schedule."""
    return FlowMatchEulerDiscreteScheduler(shift=shift)


@dataclass(frozen=True)
class Wan(Family):
    """See `Family`. The defaults are Wan2.1's."""

    text_tokens: int = 512
    mask_padding: bool = True

    name: ClassVar[str] = "wan"
    TRANSFORMER: ClassVar[Any] = ConcatIDWanTransformer3DModel
    AUTOENCODER: ClassVar[Any] = AutoencoderKLWan
    TEXT_ENCODER: ClassVar[Any] = UMT5EncoderModel
    TEXT_WIDTH: ClassVar[str] = "text_dim"
    DEFAULTS: ClassVar[Defaults] = Defaults(50, 5.0, 81, 480, 832, 16.0, negative=NEGATIVE)
    LAYOUT: ClassVar[str] = "wan"
    INDEX: ClassVar[Mapping[str, Any]] = {
        "_diffusers_version": diffusers.__version__,
        "_class_name": "ConcatIDWanPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["idbench.models.concat_id.wan", "ConcatIDWanTransformer3DModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "text_tokens": 512,
    }

    def clean(self, prompt: str) -> str:
        """Broken characters mended and typographic quotes made plain by ftfy, HTML escapes resolved
        and white space collapsed, as Wan's own code does it."""
        import ftfy  # only prompts of Wan need it

        return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())

    @staticmethod
    @torch.no_grad()
    def encode(vae: Any, images: torch.Tensor) -> torch.Tensor:
        mean, std = _statistics(vae, images.device)
        z = vae.encode(images.to(vae.dtype)).latent_dist.mode().float()
        return ((z - mean) / std).transpose(1, 2)

    @staticmethod
    @torch.no_grad()
    def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
        mean, std = _statistics(vae, latents.device)
        z = latents.transpose(1, 2) * std + mean
        return vae.decode(z.to(vae.dtype), return_dict=False)[0].float()

    @staticmethod
    def compression(vae: Any) -> tuple[int, int]:
        return vae.config.scale_factor_temporal, vae.config.scale_factor_spatial

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, uniform: torch.Tensor
    ) -> Noised:
        """(1 - s) x0 + s eps, with velocity eps - x0 and s = shift u / (1 + (shift - 1) u); times
        are 1000 s. Source: Concat-ID's Wan release."""
        shift = self.scheduler.config.shift
        level = shift * uniform / (1 + (shift - 1) * uniform)
        sigma = level.view(-1, 1, 1, 1, 1)
        times = level * self.scheduler.config.num_train_timesteps
        return Noised((1 - sigma) * latents + sigma * noise, times, noise - latents)

    @staticmethod
    def predict(
        transformer: Any, latents: torch.Tensor, references: torch.Tensor | None,
        text: torch.Tensor, times: torch.Tensor, clip_frames: int | None = None,
    ) -> torch.Tensor:
        if clip_frames not in (None, latents.shape[1]):
            raise ValueError("Wan's references follow the last frame of the video")
        held = None if references is None else references.transpose(1, 2)
        output = transformer(latents.transpose(1, 2), times, text, held, return_dict=False)[0]
        return output.transpose(1, 2)

    def start(self, scheduler: Any, steps: int, device: torch.device) -> None:
        # From noise (1) down, without 0: the scheduler shifts these and ends at 0.
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1], device=device)

    def step(
        self, scheduler: Any, velocity: torch.Tensor, number: int, latents: torch.Tensor,
        before: Any, generators: list[torch.Generator],
    ) -> tuple[torch.Tensor, Any]:
        time = scheduler.timesteps[number]
        return scheduler.step(velocity, time, latents, return_dict=False)[0], None

    @staticmethod
    def noise(
        seeds: Sequence[int], shape: tuple[int, int, int, int], device: torch.device
    ) -> tuple[torch.Tensor, list[torch.Generator]]:
        """As `Family.noise`, drawn in Wan's own order (C, N, h, w)."""
        frames, channels, *size = shape
        drawn, generators = Family.noise(seeds, (channels, frames, size[0], size[1]), device)
        return drawn.transpose(1, 2), generators


def _statistics(vae: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of latents by channel, (C, 1, 1, 1) each."""
    mean, std = (
        torch.tensor(values, device=device).view(-1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std
