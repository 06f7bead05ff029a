"""The loss of one step, for both families; references share the time and carry no noise.

It is the MSE of the predicted velocity on the video's latents; see each family's `add_noise` and
`loss`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from idbench.models.concat_id.families import Family
from idbench.models.concat_id.training.subset import token_mask


@dataclass(frozen=True)
class Batch:
    """What the loss needs, all on one device, B rows.

    Attributes:
        latents: float (B, N, C, h, w), clean and scaled.
        references: float (B, M, C, h, w); zero where dropped.
        text: float (B, L, D); zero where dropped.
        uniform: (B,) in [0, 1), where in the schedule each row stands.
        noise: like latents, standard normal.
        keep: (B, K), the tokens that are computed, see `subset`; None: all.
        people: uint8 (B, N, h, w), 1 + person where a head is seen; None if nobody asks.
        heads_alone: (B,), 1 where a loss with masks counts heads only; None as `people`.
    """

    latents: torch.Tensor
    references: torch.Tensor
    text: torch.Tensor
    uniform: torch.Tensor
    noise: torch.Tensor
    keep: torch.Tensor | None = None
    people: torch.Tensor | None = None
    heads_alone: torch.Tensor | None = None


def loss(network: torch.nn.Module, family: Family, batch: Batch) -> torch.Tensor:
    """Loss of each row, (B,). `network`: a `Denoiser`, or accelerate's wrapper of one."""
    noised = family.add_noise(batch.latents, batch.noise, batch.uniform)
    if batch.keep is None:
        output = network(noised.latents, batch.references, batch.text, noised.times)
        return family.loss(output, noised.target, batch)
    output = network(noised.latents, batch.references, batch.text, noised.times, batch.keep)
    mask = token_mask(batch.keep, noised.latents.shape)
    error = (output.float() - noised.target).square().mean(2, keepdim=True) * mask
    return error.sum((1, 2, 3, 4)) / mask.sum((1, 2, 3, 4))
