"""Draws the noise levels of training samples where small latents decide about detail.

CogVideoX's times are uniform: over a third of them lie under -10 dB, where a small frame is all
noise, and few over 10 dB, where faces get their edges. The schedule itself stays, so weights and
sampling stay compatible; only how often each time is drawn changes. Source: a normal distribution
of the logarithm of the SNR, as in Esser et al. (arXiv 2403.03206, section 3.1) for flow matching.
"""

from __future__ import annotations

import torch

from idbench.models.concat_id.training.recipe import Levels


class LevelSampler:
    """Maps uniform numbers to the places in the schedule that `levels` asks for.

    Args:
        decibels: (T,), the SNR of each time of the schedule, falling; may end at minus infinity.
    """

    def __init__(self, decibels: torch.Tensor, levels: Levels) -> None:
        count = len(decibels)
        finite = decibels.double().clamp(min=float(decibels[decibels.isfinite()].min()))
        width = -torch.gradient(finite)[0]  # dB that each time stands for
        density = torch.exp(-0.5 * ((finite - levels.mean) / levels.deviation) ** 2) * width
        chances = levels.uniform / count + (1 - levels.uniform) * density / density.sum()
        self.cumulative = chances.cumsum(0) / chances.sum()

    def __call__(self, uniform: torch.Tensor) -> torch.Tensor:
        """Numbers (B,) in [0, 1) to places (B,) in [0, 1), as `Family.add_noise` takes them."""
        count = len(self.cumulative)
        cumulative = self.cumulative.to(uniform.device)
        times = torch.searchsorted(cumulative, uniform.double(), right=True).clamp(max=count - 1)
        return ((times + 0.5) / count).to(uniform.dtype)
