"""The loss of one step, for both families; references share the time and carry no noise.

CogVideoX: MSE of the velocity v = sqrt(a) eps - sqrt(1 - a) x0 on the video's latents, which
equals the MSE of x0 weighted by 1 / (1 - a), a being alpha_bar at the drawn time. Wan: flow
matching, x = (1 - s) x0 + s eps with velocity eps - x0, times uniform and shifted:
s = shift u / (1 + (shift - 1) u). Source: arXiv 2503.14151 and its Wan release.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """What the loss needs, all on one device, B rows.

    Attributes:
        latents: float (B, N, C, h, w), clean and scaled.
        references: float (B, M, C, h, w); zero where dropped.
        text: float (B, L, D); zero where dropped.
        uniform: (B,) in [0, 1), where in the schedule each row stands.
        noise: like latents, standard normal.
    """

    latents: torch.Tensor
    references: torch.Tensor
    text: torch.Tensor
    uniform: torch.Tensor
    noise: torch.Tensor


class VelocityObjective:
    """CogVideoX's. `alphas`: alpha_bar of the training times, (T,)."""

    def __init__(self, alphas: torch.Tensor) -> None:
        self.alphas = alphas

    def noised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noisy latents, times (B,) and the velocity to predict."""
        times = (batch.uniform * len(self.alphas)).long().clamp(max=len(self.alphas) - 1)
        alpha = self.alphas.to(batch.latents.device)[times].view(-1, 1, 1, 1, 1)
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        noisy = signal * batch.latents + sigma * batch.noise
        return noisy, times, signal * batch.noise - sigma * batch.latents


class FlowObjective:
    """Wan's. `shift`: of the noise levels towards noise."""

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def noised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noisy latents, times (B,) from 0 to 1000 and the velocity to predict."""
        level = self.shift * batch.uniform / (1 + (self.shift - 1) * batch.uniform)
        sigma = level.view(-1, 1, 1, 1, 1)
        noisy = (1 - sigma) * batch.latents + sigma * batch.noise
        return noisy, level * 1000, batch.noise - batch.latents


Objective = VelocityObjective | FlowObjective


def loss(network: torch.nn.Module, objective: Objective, batch: Batch) -> torch.Tensor:
    """Loss of each row, (B,). `network`: a `Denoiser`, or accelerate's wrapper of one."""
    noisy, times, target = objective.noised(batch)
    output = network(noisy, batch.references, batch.text, times)
    return (output.float() - target).square().mean((1, 2, 3, 4))
