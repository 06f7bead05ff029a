"""Sampling exactly as the released CogVideoX code does (`sampling: released`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from idbench.models.concat_id.families.cogvideox import CogVideoX, times_of

FINAL_EPSILON = 1e-6
"""Of the normalisation before the last layer. diffusers gives it the blocks' epsilon, 1e-5.

Source: `FinalLayerMixin` of github.com/ML-GSAI/Concat-ID, dit_video_concat.py."""


@dataclass(frozen=True)
class ReleasedCogVideoX(CogVideoX):
    """CogVideoX with the noise levels of the released sampler.

    Zero terminal SNR is reached by rescaling the chosen times alone, not all 1000, so the levels
    between differ from those of training. The clean latents are estimated at the training level
    that is nearest to the sampler's.

    Source: `ZeroSNRDDPMDiscretization`, `DiscreteDenoiser` and `VPSDEDPMPP2MSampler` of
    github.com/ML-GSAI/Concat-ID (sgm/modules/diffusionmodules).
    """

    def start(self, scheduler: Any, steps: int, device: torch.device) -> None:
        super().start(scheduler, steps, device)
        config = scheduler.config
        plain = torch.cumprod(scheduler.alphas.double(), dim=0)
        shift = config.snr_shift_scale
        plain = plain / (shift + (1 - shift) * plain)
        chosen = times_of(steps, config.num_train_timesteps)[::-1].copy()
        scheduler.trained = rescale(plain.float())
        scheduler.levels = rescale(plain[chosen].float())
        scheduler.alphas_cumprod = scheduler.levels**2

    def step(
        self, scheduler: Any, velocity: torch.Tensor, number: int, latents: torch.Tensor,
        before: Any, generators: list[torch.Generator],
    ) -> tuple[torch.Tensor, Any]:
        level = scheduler.levels[len(scheduler.timesteps) - 1 - number]
        nearest = scheduler.trained[(scheduler.trained - level).abs().argmin()]
        clean = nearest * latents - (1 - nearest**2).sqrt() * velocity
        # The velocity that gives these clean latents at the sampler's own level.
        velocity = (level * latents - clean) / (1 - level**2).sqrt()
        return super().step(scheduler, velocity, number, latents, before, generators)


def rescale(alphas: torch.Tensor) -> torch.Tensor:
    """Square roots of alpha_bar (n,), rescaled so that the last is 0 and the first stays. Source:
    Lin et al., arXiv 2305.08891, Algorithm 1."""
    roots = alphas.sqrt()
    if len(roots) == 1:  # the released code divides by zero
        return torch.zeros_like(roots)
    # In the release's order: some levels lie halfway between two of training, up to rounding.
    return (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))


def use_released_epsilon(transformer: Any) -> None:
    """Give the last normalisation of a CogVideoX transformer the release's epsilon."""
    transformer.norm_out.norm.eps = FINAL_EPSILON
